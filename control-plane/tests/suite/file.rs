//! The database as a file: locked, broken, gone, newer. What could not be stored was not acknowledged.

use crate::harness::ControlPlane;
use bouncer_control_plane::clock::SystemClock;
use bouncer_control_plane::store::sqlite::SqliteStore;
use bouncer_control_plane::store::{Store as _, StoreError};
use serde_json::json;
use std::sync::Arc;

#[tokio::test]
async fn without_its_database_the_api_says_503_and_recovers_by_itself() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    let aside = plane.place.path().with_extension("aside");
    std::fs::rename(plane.place.path(), &aside).unwrap();
    let answer = plane.post("/v1/bouncers", &json!({"name": "b", "spiffe_id": "spiffe://example.org/b"})).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "unavailable"));
    assert_eq!(plane.get("/v1/bouncers").await.status, 503);
    assert_eq!(plane.get("/readyz").await.json["database"], false);
    std::fs::rename(&aside, plane.place.path()).unwrap();
    let list = plane.get("/v1/bouncers").await.ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "what was acknowledged, and nothing else");
    plane.register_bouncer("payments-west").await;
}

#[tokio::test]
async fn a_full_or_broken_database_loses_nothing_acknowledged() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    // A trigger stands in for the full disk: the insert fails in the middle of its transaction.
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", plane.place.path().display())).await.unwrap();
    sqlx::query("CREATE TRIGGER full BEFORE INSERT ON bouncers BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        .execute(&pool)
        .await
        .unwrap();
    let body = json!({"name": "b", "spiffe_id": "spiffe://example.org/b"});
    let epoch = plane.store.epoch().await.unwrap();
    let answer = plane.post("/v1/bouncers", &body).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "unavailable"));
    assert!(!answer.text.contains("disk full"), "the cause is for the log");
    assert_eq!(plane.store.epoch().await.unwrap(), epoch, "nothing of it was done");
    sqlx::query("DROP TRIGGER full").execute(&pool).await.unwrap();
    plane.post("/v1/bouncers", &body).await.ok();
}

#[tokio::test]
async fn while_another_holds_the_lock_writes_are_503_and_reads_go_on() {
    let plane = ControlPlane::enabled().await;
    let other = sqlx::SqlitePool::connect(&format!("sqlite://{}", plane.place.path().display())).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let body = json!({"name": "b", "spiffe_id": "spiffe://example.org/b"});
    let (write, read) = tokio::join!(plane.post("/v1/bouncers", &body), plane.get("/v1/bouncers"));
    assert_eq!((write.status.as_u16(), write.code()), (503, "unavailable"));
    assert_eq!(read.ok()["items"], json!([]));
    lock.rollback().await.unwrap();
    plane.post("/v1/bouncers", &body).await.ok();
}

#[tokio::test]
async fn two_processes_may_set_up_one_database_at_once() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control-plane.db");
        let open = || SqliteStore::open(&path, Arc::new(SystemClock));
        let (one, two, three) = tokio::join!(open(), open(), open());
        for store in [one, two, three] {
            assert_eq!(store.unwrap().epoch().await.unwrap(), 1);
        }
    }
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_not_touched() {
    let plane = ControlPlane::new().await;
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", plane.place.path().display())).await.unwrap();
    sqlx::query("UPDATE _sqlx_migrations SET version = version + 9998").execute(&pool).await.unwrap();
    let opened = SqliteStore::open(&plane.place.path(), Arc::new(SystemClock)).await;
    let Err(error @ StoreError::Newer { .. }) = opened else { panic!("it was opened") };
    assert!(error.to_string().contains("Start the newer version again, or restore a backup"), "{error}");
}

#[tokio::test]
async fn the_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let plane = ControlPlane::enabled().await;
    let mut files = 0;
    for file in std::fs::read_dir(plane.place.path().parent().unwrap()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        files += 1;
    }
    assert_eq!(files, 3, "the database, its log and its index");
}
