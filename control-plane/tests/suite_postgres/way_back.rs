//! The way back from an upgrade, by the very commands of README.md.

use crate::binary::Site;
use crate::database::{MIGRATIONS, Place, wait};
use crate::harness::ControlPlane;
use crate::server::{Server, Settings, binaries};
use crate::upgrade::TOKEN;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

/// The commands that README.md gives, in its order.
fn documented() -> Vec<&'static str> {
    let readme = include_str!("../../../README.md");
    let ours =
        |line: &&str| ["pg_dump ", "createdb ", "pg_restore ", "psql "].iter().any(|name| line.starts_with(name));
    readme.lines().filter_map(|line| line.strip_prefix("    ")).filter(ours).collect()
}

/// A schema behind which came a table that refers to one of its own.
const BEFORE: i64 = 4;

/// Runs a command as the role of the configuration's `url`, which is no superuser.
fn run(command: &str, server: &Server, folder: &Path) -> Output {
    let path = format!("{}:{}", binaries().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-euc", command]).env("PATH", path).env("PGUSER", "bouncer").current_dir(folder);
    shell.env("PGHOST", server.data().parent().unwrap()).output().unwrap()
}

#[track_caller]
fn done(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The bouncers and the secrets that a search finds, by the program on this database.
fn found(site: &Site) -> (Vec<String>, usize) {
    let _process = site.serve("log");
    let list = |path: &str| {
        let (status, list) = site.call("GET", path, TOKEN, "").unwrap();
        assert_eq!(status, 200, "{list}");
        list["items"].as_array().unwrap().clone()
    };
    let name = |item: &Value| item["name"].as_str().unwrap().to_owned();
    let secrets = list("/v1/crypto/envelope-secrets?q=payments").len();
    (list("/v1/bouncers").iter().map(name).collect(), secrets)
}

#[tokio::main(flavor = "current_thread")]
async fn leave_by(place: &Place, schema: i64) {
    place.leave_by(schema).await;
}

#[test]
fn the_documented_way_back_from_an_upgrade_brings_what_was_there_and_nothing_of_after() {
    let server = Server::start(&Settings::default()).unwrap();
    let url = |database: &str| server.url(database).replace("//postgres@", "//bouncer@");
    let folder = tempfile::tempdir().unwrap();
    let admin = server.url("postgres");
    wait(async move {
        let mut admin = PgConnection::connect(&admin).await.unwrap();
        sqlx::query("CREATE ROLE bouncer LOGIN CREATEDB").execute(&mut admin).await.unwrap();
        sqlx::query("CREATE DATABASE bouncer OWNER bouncer").execute(&mut admin).await.unwrap();
    });
    let place = Arc::new(Place::at(url("bouncer")));
    leave_by(&place, BEFORE);
    let [backup, restore @ ..] = &documented()[..] else { panic!("README.md names no backup") };
    assert!(backup.starts_with("pg_dump ") && restore.len() == 3, "{restore:?}");
    done(&run(backup, &server, folder.path()));

    // The upgrade, and what is done after it.
    wait(async move {
        let plane = ControlPlane::on(place, TOKEN.to_owned()).await;
        plane.register_bouncer("later").await;
        let secrets = plane.get("/v1/crypto/envelope-secrets").await.ok();
        let id = secrets["items"][0]["id"].as_str().unwrap();
        plane.delete(&format!("/v1/crypto/envelope-secrets/{id}")).await.ok();
        plane.store.close().await;
    });
    for command in restore {
        done(&run(command, &server, folder.path()));
    }

    let site = Site::on(Place::at(url("bouncer_restored")));
    let (bouncers, secrets) = found(&site);
    assert_eq!(
        (bouncers.as_slice(), secrets),
        (&["payments-east", "payments-role", "payments-west"].map(str::to_owned)[..], 1)
    );
    let restored = url("bouncer_restored");
    let (sessions, schema): (i64, i64) = wait(async move {
        let mut restored = PgConnection::connect(&restored).await.unwrap();
        let both = "SELECT (SELECT count(*) FROM sessions), (SELECT max(version) FROM _sqlx_migrations)";
        sqlx::query_as(both).fetch_one(&mut restored).await.unwrap()
    });
    assert_eq!((sessions, Some(schema)), (0, MIGRATIONS.iter().map(|migration| migration.version).max()));
    // The database of after the upgrade is untouched, and the control: a restore into it fails half way.
    let (bouncers, secrets) = found(&Site::on(Place::at(url("bouncer"))));
    assert!(bouncers.contains(&"later".to_owned()) && secrets == 0, "{bouncers:?}");
    let over = run("pg_restore --clean --if-exists --dbname=bouncer bouncer.dump", &server, folder.path());
    assert!(!over.status.success());
}
