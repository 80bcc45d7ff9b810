//! `backup` and `restore`, of the binary: what is in a backup is there after a restore, and what is no whole backup
//! changes nothing.

use crate::binary::{Process, Site, mode, text};
use crate::database::Place;
use crate::harness::{ControlPlane, spiffe_id};
use crate::resolver::Resolver;
use serde_json::json;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

/// A control plane with some bouncers, stopped, and its administrator's token.
fn site(bouncers: &[&str]) -> (Site, String) {
    let site = Site::new();
    assert!(site.bootstrap("token", &[]).status.success());
    let process = site.serve("log");
    let token = site.admin("token");
    register(&site, &token, bouncers);
    stop(process);
    (site, token)
}

fn register(site: &Site, token: &str, bouncers: &[&str]) {
    for name in bouncers {
        let body = json!({"name": name, "spiffe_id": spiffe_id(name)}).to_string();
        assert_eq!(site.call("POST", "/v1/bouncers", token, &body).unwrap().0, 201);
    }
}

fn stop(mut process: Process) {
    process.signal("-TERM");
    assert!(process.ended().success());
}

fn backup(site: &Site, file: &str) -> Output {
    site.run("backup", &["--output", site.path(file).to_str().unwrap()])
}

fn restore(site: &Site, file: &str, more: &[&str]) -> Output {
    site.run("restore", &[&["--input", site.path(file).to_str().unwrap()], more].concat())
}

#[track_caller]
fn refused(output: &Output, why: &str) {
    assert!(!output.status.success() && text(output).contains(why), "{}", text(output));
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    text(output)
}

/// The names that a control plane on this database knows.
fn bouncers(site: &Site, token: &str) -> Vec<String> {
    let process = site.serve("log");
    let (status, list) = site.call("GET", "/v1/bouncers", token, "").unwrap();
    assert_eq!(status, 200, "{list}");
    stop(process);
    list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

/// Everything in the folder but what tests log.
fn files(site: &Site) -> Vec<String> {
    let names = std::fs::read_dir(site.path("")).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != "log").collect();
    names.sort();
    names
}

fn database(site: &Site) -> Vec<u8> {
    std::fs::read(site.path("control-plane.db")).unwrap()
}

#[test]
fn a_backup_of_a_running_control_plane_brings_back_what_was_there() {
    let (site, token) = site(&["east"]);
    let process = site.serve("log");
    let said = done(&backup(&site, "backup"));
    assert!(said.contains("schema") && said.contains("epoch"), "{said}");
    assert_eq!(mode(&site.path("backup")), 0o600);
    refused(&backup(&site, "backup"), "never overwritten");
    register(&site, &token, &["west"]);
    stop(process);
    assert_eq!(bouncers(&site, &token), ["east", "west"]);

    let before = database(&site);
    refused(&restore(&site, "backup", &[]), "--replace");
    assert_eq!(database(&site), before);
    let said = done(&restore(&site, "backup", &["--replace"]));
    assert!(said.contains("revoked since then is not so in it"), "{said}");
    assert_eq!(bouncers(&site, &token), ["east"]);
    assert_eq!(mode(&site.path("control-plane.db")), 0o600);

    // What was there is kept, and nothing else is left lying about.
    let kept: Vec<_> = files(&site).into_iter().filter(|name| name.contains("replaced")).collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(files(&site).len(), 5, "{:?}", files(&site));
    let process = site.serve("log");
    let (_, events) = site.call("GET", "/v1/audit/admin-events", &token, "").unwrap();
    let newest = &events["items"][0];
    assert_eq!((&newest["action"], &newest["actor"]), (&json!("database.restored"), &json!("operator")));
    stop(process);
    std::fs::rename(site.path(&kept[0]), site.path("control-plane.db")).unwrap();
    assert_eq!(bouncers(&site, &token), ["east", "west"]);
}

#[test]
fn where_there_is_no_database_it_is_put_there() {
    let (site, token) = site(&["east"]);
    done(&backup(&site, "backup"));
    std::fs::remove_file(site.path("control-plane.db")).unwrap();
    // Left behind by a database that is gone: it must not be taken for this one's.
    std::fs::write(site.path("control-plane.db-wal"), b"stale").unwrap();
    refused(&backup(&site, "another"), "no database");
    done(&restore(&site, "backup", &[]));
    assert_eq!(files(&site), ["backup", "control-plane.db", "control-plane.toml", "token"]);
    assert_eq!(bouncers(&site, &token), ["east"]);
}

#[test]
fn a_damaged_database_is_not_backed_up_and_can_be_replaced() {
    let (site, token) = site(&["east"]);
    done(&backup(&site, "backup"));
    std::fs::write(site.path("control-plane.db"), b"This is no database, whatever it was.".repeat(200)).unwrap();
    assert!(!backup(&site, "another").status.success());
    assert!(!site.path("another").exists());
    done(&restore(&site, "backup", &["--replace"]));
    assert_eq!(bouncers(&site, &token), ["east"]);
}

#[test]
fn while_a_control_plane_runs_nothing_is_restored() {
    let (site, token) = site(&["east"]);
    done(&backup(&site, "backup"));
    let process = site.serve("log");
    let stopping = std::sync::atomic::AtomicBool::new(false);
    let registered = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut count = 0;
            while !stopping.load(std::sync::atomic::Ordering::Relaxed) {
                register(&site, &token, &[&format!("load-{count}")]);
                count += 1;
            }
            count
        });
        for _ in 0..3 {
            refused(&restore(&site, "backup", &["--replace"]), "Stop the control plane");
        }
        stopping.store(true, std::sync::atomic::Ordering::Relaxed);
        load.join().unwrap()
    });
    // It goes on as if nothing had been tried.
    register(&site, &token, &["after"]);
    for name in ["east", "load-0", &format!("load-{}", registered - 1), "after"] {
        let (status, found) = site.call("GET", &format!("/v1/bouncers/{name}"), &token, "").unwrap();
        assert_eq!(status, 200, "{name}: {found}");
    }
    stop(process);
    assert_eq!(files(&site), ["backup", "control-plane.db", "control-plane.toml", "token"]);
    // The control: now that it is stopped, the same backup is restored.
    done(&restore(&site, "backup", &["--replace"]));
    assert_eq!(bouncers(&site, &token), ["east"]);
}

#[test]
fn what_is_not_whole_is_refused_whole() {
    let (site, token) = site(&["east"]);
    done(&backup(&site, "backup"));
    let good = std::fs::read(site.path("backup")).unwrap();
    let lines: Vec<_> = good.splitn(3, |byte| *byte == b'\n').collect();
    let start = good.len() - lines[2].len();
    let before = database(&site);
    let with = |from: &str, to: &str| {
        let manifest = String::from_utf8(lines[1].to_vec()).unwrap();
        assert!(manifest.contains(from), "{manifest}");
        [lines[0], b"\n", manifest.replacen(from, to, 1).as_bytes(), b"\n", lines[2]].concat()
    };
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let bad = [
        ("empty", Vec::new(), "no backup"),
        ("a database", before.clone(), "no backup"),
        ("another version", [b"bouncer-control-plane backup 2\n", &good[lines[0].len() + 1..]].concat(), "no backup"),
        ("cut off", good[..good.len() - 1].to_vec(), "cut off"),
        ("cut off in its manifest", good[..start - 40].to_vec(), "manifest"),
        ("nothing but its manifest", good[..start].to_vec(), "cut off"),
        ("followed by something", [&good[..], b"x"].concat(), "something follows"),
        ("a bit of the database", flipped(start + 5_000), "SHA-256"),
        ("a bit at the end", flipped(good.len() - 1), "SHA-256"),
        ("another epoch", with("\"epoch\":", "\"epoch\":1"), "SHA-256"),
        ("an older schema", with("\"schema\":", "\"schema\":9"), "SHA-256"),
        ("a field more", with("{", "{\"x\":1,"), "manifest"),
    ];
    for (what, bytes, why) in bad {
        std::fs::write(site.path("bad"), bytes).unwrap();
        let output = restore(&site, "bad", &["--replace"]);
        assert!(!output.status.success() && text(&output).contains(why), "{what}: {}", text(&output));
        assert_eq!(database(&site), before, "{what}");
    }
    refused(&restore(&site, "no-such-file", &["--replace"]), "cannot read");
    assert_eq!(files(&site), ["backup", "bad", "control-plane.db", "control-plane.toml", "token"]);
    // The control: the same bytes, untouched, are restored.
    std::fs::write(site.path("bad"), &good).unwrap();
    done(&restore(&site, "bad", &["--replace"]));
    assert_eq!(bouncers(&site, &token), ["east"]);
}

#[test]
fn a_backup_of_a_newer_program_is_refused_with_what_to_do() {
    let (site, _) = site(&["east"]);
    newer(&site.path("control-plane.db"));
    done(&backup(&site, "backup"));
    let before = database(&site);
    refused(&restore(&site, "backup", &["--replace"]), "Restore it with that version or a later one");
    assert_eq!(database(&site), before);
    // Nor does it serve such a database.
    refused(&site.run("serve", &[]), "Start the newer version again");
    assert_eq!(database(&site), before);
}

#[tokio::main(flavor = "current_thread")]
async fn newer(database: &Path) {
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", database.display())).await.unwrap();
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'later', TRUE, x'00', 0)";
    sqlx::query(later).execute(&pool).await.unwrap();
    pool.close().await;
}

/// The bouncer heard more of the control plane than the backup knows of. It refuses what has an older epoch than its own,
/// so without the jump it would hear nothing any more.
#[test]
fn a_bouncer_with_a_newer_epoch_is_answered_after_a_restore() {
    let (site, token) = site(&["payments-east"]);
    done(&backup(&site, "backup"));
    let process = site.serve("log");
    register(&site, &token, &["one", "two", "three"]);
    let flag = "/v1/feature-flags/flags.crypto.dual_custody_intercept";
    for enabled in [true, false, true] {
        let body = json!({"enabled": enabled}).to_string();
        assert_eq!(site.call("PUT", flag, &token, &body).unwrap().0, 200);
    }
    stop(process);
    let held = epoch(&site);
    done(&restore(&site, "backup", &["--replace"]));
    assert!(epoch(&site) < held, "the control: the restored database is behind the bouncer");
    assert_eq!(snapshot_for(&site, held), held + 1);
}

#[tokio::main(flavor = "current_thread")]
async fn epoch(site: &Site) -> u64 {
    over(site).await.store.epoch().await.unwrap()
}

#[tokio::main(flavor = "current_thread")]
async fn snapshot_for(site: &Site, held: u64) -> u64 {
    let plane = over(site).await;
    Resolver::connect(&plane, "payments-east", held).await.snapshot().await.epoch
}

/// A control plane on a copy of the site's database.
async fn over(site: &Site) -> ControlPlane {
    ControlPlane::on(Arc::new(Place::with(&site.path("control-plane.db"))), String::new()).await
}
