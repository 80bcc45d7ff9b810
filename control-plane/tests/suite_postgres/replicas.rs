//! Several control planes on one database, and a server that goes away.

use crate::chained::{Domain, Spool};
use crate::database::Place;
use crate::harness::{ControlPlane, DEADLINE, KEY, PATH, envelope, resource};
use crate::resolver::{Resolver, event};
use crate::server::{PASSWORD, Server, Settings, Tls};
use bouncer_audit::{Owner, What};
use bouncer_control_plane::access::Scope;
use bouncer_control_plane::bridge::Replica;
use bouncer_control_plane::clock::SystemClock;
use bouncer_control_plane::config::Config;
use bouncer_control_plane::own_chain;
use bouncer_control_plane::store::postgres::PostgresStore;
use bouncer_control_plane::store::{Retention, StoreError};
use bouncer_control_plane::token::Token;
use bouncer_custody::Hex;
use bouncer_proto::bridge::v1::AuditEvent;
use http::Method;
use jiff::Timestamp;
use serde_json::json;
use sqlx::migrate::Migrate as _;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Two control planes on one database, with the flag on.
async fn two() -> (ControlPlane, ControlPlane) {
    let one = ControlPlane::enabled().await;
    let other = ControlPlane::on(one.place.clone(), one.token.clone()).await;
    (one, other)
}

/// Waits until a call is answered with this status.
async fn until(plane: &ControlPlane, path: &str, status: u16) {
    let asked = async { while plane.get(path).await.status != status {} };
    timeout(DEADLINE, asked).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_one_replica_reaches_a_bouncer_on_another() {
    let (one, other) = two().await;
    one.register_bouncer("payments-east").await;
    let mut resolver = Resolver::connect(&other, "payments-east", 0).await;
    let first = resolver.snapshot().await;
    one.post("/v1/crypto/envelope-secrets", &envelope(PATH)).await.ok();
    one.post("/v1/protected-resources", &resource("payments-api", PATH)).await.ok();
    let next = async {
        loop {
            let snapshot = resolver.snapshot().await;
            assert!(snapshot.epoch > first.epoch);
            if snapshot.envelopes.len() == 1 {
                return;
            }
        }
    };
    timeout(DEADLINE, next).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_asked_for_at_two_replicas_at_once_is_one_token() {
    let one = ControlPlane::unclaimed().await;
    let other = ControlPlane::on(one.place.clone(), one.token.clone()).await;
    let mine = |name: &str| {
        let token = Token::generate().unwrap();
        let hash = Hex(token.hash().as_bytes()).to_string();
        (token, json!({"name": name, "role": "admin", "token_sha256": hash}))
    };
    // By the token of bootstrap, which is spent by one of the two.
    let (token, body) = mine("alice");
    let (here, there) = tokio::join!(one.post("/v1/tokens", &body), other.post("/v1/tokens", &body));
    let mut statuses = [here.status.as_u16(), there.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 401], "{} {}", here.text, there.text);
    let alice = [&one, &other].map(|plane| plane.with_token(token.reveal().to_owned()));
    for plane in &alice {
        assert_eq!(plane.get("/v1/session").await.ok()["actor"], "token:alice");
    }
    // By one that lasts.
    let (_, body) = mine("bob");
    let (here, there) = tokio::join!(alice[0].post("/v1/tokens", &body), alice[1].post("/v1/tokens", &body));
    assert_eq!(here.ok(), there.ok());
    assert_eq!(alice[0].get("/v1/tokens").await.ok()["items"].as_array().map(Vec::len), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_is_woken_by_a_change_and_only_by_one_that_was_made() {
    let (one, other) = two().await;
    let mut changes = other.store.changes();
    // The connection that listens may only just have come up, which wakes as well.
    let woken = async {
        let mut n = 0;
        loop {
            one.register_bouncer(&format!("payments-{n}")).await;
            changes.mark_unchanged();
            one.register_bouncer(&format!("billing-{n}")).await;
            if timeout(Duration::from_secs(2), changes.changed()).await.is_ok() {
                return;
            }
            n += 1;
        }
    };
    timeout(DEADLINE, woken).await.unwrap();
    timeout(DEADLINE, async { while timeout(Duration::from_millis(500), changes.changed()).await.is_ok() {} })
        .await
        .unwrap();
    let refused = one.post("/v1/bouncers", &json!({"name": "payments-0", "spiffe_id": "spiffe://example.org/x"})).await;
    assert_eq!(refused.code(), "name_taken");
    assert!(timeout(Duration::from_millis(500), changes.changed()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_sent_to_two_replicas_under_one_key_happens_once() {
    let (one, other) = two().await;
    for round in 0..10 {
        let key = format!("key-of-round-{round}");
        let call = |plane: &ControlPlane| {
            let plane = plane.with_token(plane.token.clone());
            let key = key.clone();
            tokio::spawn(async move {
                let headers = [("idempotency-key", key.as_str())];
                let body = envelope(PATH).to_string();
                plane.raw_with(Method::POST, "/v1/crypto/envelope-secrets", &headers, body).await.ok()
            })
        };
        let (first, second) = tokio::join!(call(&one), call(&other));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_eq!(first["generation"], round + 1);
        assert_eq!(second["generation"], round + 1, "the same call, answered twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_by_several_replicas_are_one_chain_without_a_gap() {
    let (one, other) = two().await;
    let third = ControlPlane::on(one.place.clone(), one.token.clone()).await;
    let epoch = one.store.epoch().await.unwrap();
    let domain = Arc::new(Domain::new());
    let work = [one, other, third].into_iter().enumerate().map(|(replica, plane)| {
        let domain = Arc::clone(&domain);
        tokio::spawn(async move {
            let signer = domain.svid("spiffe://example.org/bouncer/control-plane");
            for n in 0..15 {
                plane.register_bouncer(&format!("bouncer-{replica}-{n}")).await;
                own_chain::sign(&*plane.store, &SystemClock, &signer).await.unwrap();
            }
            plane
        })
    });
    let mut planes = Vec::new();
    for plane in work.collect::<Vec<_>>() {
        planes.push(plane.await.unwrap());
    }
    assert_eq!(planes[0].store.epoch().await.unwrap(), epoch + 45);
    let signer = domain.svid("spiffe://example.org/bouncer/control-plane");
    own_chain::sign(&*planes[0].store, &SystemClock, &signer).await.unwrap();
    let export = planes[1].get("/v1/audit/export").await;
    let report = domain.verify(&export.text);
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    let own = report.chains.iter().find(|chain| chain.owner == Some(Owner::ControlPlane)).unwrap();
    assert!(own.events >= 45 && own.not_yet_signed == 0, "{own:?}");
    // The control: one change of them altered shows.
    planes[0].place.execute("UPDATE admin_events SET detail = 'x' WHERE sequence = 10").await;
    let report = domain.verify(&planes[1].get("/v1/audit/export").await.text);
    assert!(report.faults.iter().any(|fault| fault.what == What::Changed), "{:?}", report.faults);
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_sent_to_two_replicas_is_stored_once() {
    let (one, other) = two().await;
    one.register_bouncer("payments-east").await;
    let domain = Domain::new();
    let mut spool = Spool::new(&domain, "payments-east", 1);
    let (mut first, mut second) =
        (Resolver::connect(&one, "payments-east", 0).await, Resolver::connect(&other, "payments-east", 0).await);
    first.snapshot().await;
    second.snapshot().await;
    for _ in 0..10 {
        let events = spool.events(50);
        let checkpoint = Some(spool.checkpoint());
        // As after an acknowledgement that was lost with the connection, while the first replica is still at it.
        first.batch(events.clone(), checkpoint.clone()).await;
        second.batch(events, checkpoint).await;
        tokio::join!(first.audit_ack(), second.audit_ack());
    }
    let report = domain.verify(&other.get("/v1/audit/export").await.text);
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert_eq!(report.divergences, 0);
    let chain = report.chains.iter().find(|chain| chain.owner != Some(Owner::ControlPlane)).unwrap();
    assert_eq!((chain.events, chain.not_yet_signed), (500, 0));
    assert_eq!(one.store.audit_summary(&Scope::default()).await.unwrap().events, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_two_bouncers_begin_at_once_is_one_of_theirs() {
    let (one, other) = two().await;
    one.register_bouncer("payments-east").await;
    one.register_bouncer("payments-west").await;
    let domain = Domain::new();
    let (mut east, mut west) =
        (Resolver::connect(&one, "payments-east", 0).await, Resolver::connect(&other, "payments-west", 0).await);
    east.snapshot().await;
    west.snapshot().await;
    // The same chain's name, by both.
    let (mut theirs, mut others) = (Spool::new(&domain, "payments-east", 1), Spool::new(&domain, "payments-west", 1));
    east.batch(theirs.events(20), None).await;
    west.batch(others.events(20), None).await;
    tokio::join!(east.audit_ack(), west.audit_ack());
    let owners = one.store.audit_spans(&Default::default()).await.unwrap();
    assert_eq!(owners.len(), 1);
    let export = one.get("/v1/audit/export").await.text;
    assert_eq!(export.matches("\"kind\":\"owner\"").count(), 20, "{export}");
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_by_two_replicas_removes_once() {
    let (one, other) = two().await;
    one.register_bouncer("payments-east").await;
    let mut resolver = Resolver::connect(&one, "payments-east", 0).await;
    resolver.snapshot().await;
    resolver.audit((1..=50).map(|n| event(n, "inject")).collect()).await;
    resolver.audit_ack().await;
    let old = Retention { before: Timestamp::MAX, ..Retention::default() };
    let (first, second) = tokio::join!(one.store.prune_audit(&old), other.store.prune_audit(&old));
    assert_eq!(first.unwrap().events + second.unwrap().events, 50);
    assert_eq!(other.store.prune_audit(&old).await.unwrap().events, 0);
    assert_eq!(one.get("/v1/audit/events").await.ok()["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_may_set_up_one_database_at_once() {
    for _ in 0..3 {
        let place = Place::new();
        let open = || place.open(Arc::new(SystemClock));
        let (one, two, three) = tokio::join!(open(), open(), open());
        for store in [one, two, three] {
            assert_eq!(store.epoch().await.unwrap(), 1);
        }
    }
}

/// As while another replica builds the indexes of a large database.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_starts_waits_for_another_s_upgrade_longer_than_for_any_other_lock() {
    let place = Arc::new(Place::new());
    let mut upgrading = place.connect().await;
    upgrading.lock().await.unwrap();
    let starting = tokio::spawn({
        let place = place.clone();
        async move { place.open(Arc::new(SystemClock)).await.epoch().await.unwrap() }
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'";
    let waiting = async { while sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut upgrading).await.unwrap() == 0 {} };
    timeout(DEADLINE, waiting).await.unwrap();
    // The control begins later, and waits as ordinary statements do.
    let mut control = place.connect().await;
    sqlx::query("SET lock_timeout = '5s'").execute(&mut control).await.unwrap();
    assert!(control.lock().await.unwrap_err().to_string().contains("lock timeout"));
    assert!(!starting.is_finished());
    upgrading.unlock().await.unwrap();
    assert_eq!(timeout(DEADLINE, starting).await.unwrap().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_newer_program_is_not_touched() {
    let plane = ControlPlane::new().await;
    plane.place.execute("UPDATE _sqlx_migrations SET version = version + 9998").await;
    let opened = PostgresStore::open(plane.place.url().parse().unwrap(), Arc::new(SystemClock)).await;
    let Err(error @ StoreError::Newer { .. }) = opened else { panic!("it was opened") };
    assert!(error.to_string().contains("Start the newer version again, or restore a backup"), "{error}");
}

/// Also a column more is no column that a prepared statement of before expects.
#[test]
fn a_migration_that_changes_tables_of_before_says_that_it_breaks_running_replicas() {
    // No statement names an index.
    let changes = |sql: &str| {
        let sql = sql.replace("DROP INDEX", "");
        ["ALTER TABLE", "DROP ", "RENAME "].iter().any(|word| sql.contains(word))
    };
    let mut changing = 0;
    for migration in sqlx::migrate!("./migrations/postgres").iter() {
        let (version, breaks) = (migration.version, migration.description.starts_with("breaks "));
        if changes(migration.sql.as_str()) {
            changing += 1;
            // Released under its name before there was a rule; README.md names it.
            assert!(breaks || version == 3, "{version} is to be named {version:04}_breaks_….sql");
        }
    }
    assert_ne!(changing, 0, "the control: 0003 does");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_database_loses_nothing_acknowledged() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    // A trigger stands in for the full disk: the insert fails in the middle of its transaction.
    plane
        .place
        .execute("CREATE FUNCTION is_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'disk full'; END $$")
        .await;
    plane.place.execute("CREATE TRIGGER is_full BEFORE INSERT ON bouncers EXECUTE FUNCTION is_full()").await;
    let body = json!({"name": "b", "spiffe_id": "spiffe://example.org/b"});
    let epoch = plane.store.epoch().await.unwrap();
    let answer = plane.post("/v1/bouncers", &body).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "unavailable"));
    assert!(!answer.text.contains("disk full"), "the cause is for the log");
    assert_eq!(plane.store.epoch().await.unwrap(), epoch, "nothing of it was done");
    plane.place.execute("DROP TRIGGER is_full ON bouncers").await;
    plane.post("/v1/bouncers", &body).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_another_holds_the_lock_writes_are_503_and_reads_and_audit_go_on() {
    use sqlx::Connection as _;
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    let mut resolver = Resolver::connect(&plane, "payments-east", 0).await;
    resolver.snapshot().await;
    let mut other = plane.place.connect().await;
    let mut lock = other.begin().await.unwrap();
    sqlx::query("SELECT singleton FROM meta FOR UPDATE").execute(&mut *lock).await.unwrap();
    let body = json!({"name": "b", "spiffe_id": "spiffe://example.org/b"});
    let audit = async {
        resolver.audit(vec![event(1, "inject")]).await;
        resolver.audit_ack().await;
        plane.get("/v1/bouncers").await.ok()
    };
    let (write, read) = tokio::join!(plane.post("/v1/bouncers", &body), audit);
    assert_eq!((write.status.as_u16(), write.code()), (503, "unavailable"));
    assert_eq!(read["items"].as_array().unwrap().len(), 1);
    lock.rollback().await.unwrap();
    plane.post("/v1/bouncers", &body).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_server_the_api_says_503_and_recovers_by_itself() {
    let server = Server::start(&Settings::default()).unwrap();
    let place = Arc::new(Place::on(&server));
    let mut server = server;
    let plane = ControlPlane::claimed(place.clone()).await;
    let other = ControlPlane::on(place, plane.token.clone()).await;
    plane.register_bouncer("payments-east").await;
    for round in 0..2 {
        server.stop().unwrap();
        let body = json!({"name": "b", "spiffe_id": "spiffe://example.org/b"});
        let answer = plane.post("/v1/bouncers", &body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (503, "unavailable"));
        assert_eq!(plane.get("/v1/bouncers").await.status, 503);
        assert_eq!(plane.get("/readyz").await.json["database"], false);
        server.start_again().unwrap();
        until(&plane, "/v1/bouncers", 200).await;
        let list = plane.get("/v1/bouncers").await.ok();
        assert_eq!(list["items"].as_array().unwrap().len(), 1 + round, "what was acknowledged, and nothing else");
        // The others are heard of again.
        let mut changes = other.store.changes();
        let heard = async {
            let mut n = 0;
            loop {
                changes.mark_unchanged();
                plane
                    .put("/v1/feature-flags/flags.crypto.dual_custody_intercept", &json!({"enabled": n % 2 == 0}))
                    .await
                    .ok();
                if timeout(Duration::from_secs(1), changes.changed()).await.is_ok() {
                    return;
                }
                n += 1;
            }
        };
        timeout(DEADLINE, heard).await.unwrap();
        plane.register_bouncer(&format!("payments-west-{round}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_in_the_order_of_bytes_whatever_the_servers_locale() {
    let plane = ControlPlane::enabled().await;
    // People sort these the other way, and so does this server by default.
    let names = ["b-a", "b.c", "b_b", "ba"];
    for name in names {
        plane.register_bouncer(name).await;
    }
    let mut cursor = String::new();
    let mut seen = Vec::new();
    loop {
        let part = plane.get(&format!("/v1/bouncers?limit=1{cursor}")).await.ok();
        seen.push(part["items"][0]["name"].as_str().unwrap().to_owned());
        let Some(next) = part["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let sorted: BTreeSet<_> = names.into_iter().collect();
    assert_eq!(seen, sorted.into_iter().collect::<Vec<_>>());
    use sqlx::Connection as _;
    let mut connection = plane.place.connect().await;
    let theirs: bool = sqlx::query_scalar("SELECT 'b_b' < 'b-a'").fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    assert!(theirs, "the control: the server's own order is another");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_postgresql_cannot_hold_does_not_stop_the_audit() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    let mut resolver = Resolver::connect(&plane, "payments-east", 0).await;
    resolver.snapshot().await;
    resolver.audit(vec![AuditEvent { authority: "a\0b".into(), ..event(1, "deny") }]).await;
    resolver.audit_ack().await;
    assert_eq!(plane.get("/v1/audit/events").await.ok()["items"].as_array().unwrap().len(), 1);
    assert_eq!(plane.get("/v1/audit/events?caller=%00").await.status, 200);
    assert!(!plane.get("/v1/bouncers?q=%00").await.status.is_server_error());
    let settings = json!({"provider": "kms_envelope", "kms_key_arn": KEY, "notes": "a\0b"});
    assert_eq!(plane.put("/v1/crypto/settings", &settings).await.status, 422);
    let mut body = envelope(PATH);
    for field in ["aad", "reason", "ciphertext_ref", "key_id", "logical_path"] {
        body[field] = json!("env=a\0b");
        assert_eq!(plane.post("/v1/crypto/envelope-secrets", &body).await.status, 422, "{field}");
    }
}

/// The configuration of a control plane whose server is reached over TCP.
fn over_tcp(folder: &std::path::Path, port: u16, mode: &str, ca: &str) -> Config {
    std::fs::write(folder.join("password"), format!("{PASSWORD}\n")).unwrap();
    std::fs::write(folder.join("ca.pem"), ca).unwrap();
    let text = format!(
        "[api]\nlisten='127.0.0.1:0'\n[bridge]\nlisten='127.0.0.1:0'\n[identity]\nworkload_api='unix:///none.sock'\n\
         [database]\nurl='postgres://postgres@localhost:{port}/postgres?sslmode={mode}'\n\
         password_file='{0}/password'\nca_file='{0}/ca.pem'\n",
        folder.display()
    );
    std::fs::write(folder.join("control-plane.toml"), text).unwrap();
    Config::load(&folder.join("control-plane.toml")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_proves_itself_before_it_is_told_the_password() {
    let issue = |names: &[&str]| {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        (rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let folder = tempfile::tempdir().unwrap();
    let port = crate::ports::free_port().unwrap();
    let start = |certificate: &str, key| {
        let tls = Tls { certificate: certificate.to_owned(), key, port };
        Server::start(&Settings { tls: Some(tls), ..Settings::default() }).unwrap()
    };
    let (certificate, key) = issue(&["localhost"]);
    let server = start(&certificate, key);
    let good = over_tcp(folder.path(), port, "verify-full", &certificate);
    let store = good.database.open(Arc::new(SystemClock)).await.unwrap();
    assert_eq!(store.epoch().await.unwrap(), 1);
    store.close().await;
    let stranger = over_tcp(folder.path(), port, "verify-full", &issue(&["localhost"]).0);
    assert!(stranger.database.open(Arc::new(SystemClock)).await.is_err(), "another authority's");
    drop(server);
    let (certificate, key) = issue(&["db.example.org"]);
    let _server = start(&certificate, key);
    let elsewhere = over_tcp(folder.path(), port, "verify-full", &certificate);
    assert!(elsewhere.database.open(Arc::new(SystemClock)).await.is_err(), "for another name");
    let control = over_tcp(folder.path(), port, "require", &certificate);
    assert!(
        control.database.open(Arc::new(SystemClock)).await.is_ok(),
        "the control: it is there, and takes the password"
    );
}

#[tokio::test]
async fn who_is_connected_to_one_control_plane_is_shown_by_another_on_its_database() {
    let (here, there) = two().await;
    here.register_bouncer("payments-east").await;
    let replica = |plane: &ControlPlane| Replica::new(plane.store.clone().others().unwrap(), plane.live.clone());
    let (mut one, mut other) = (replica(&here), replica(&there));
    let state = async || there.get("/v1/bouncers/payments-east").await.ok()["bridge"].clone();
    let mut resolver = Resolver::connect(&here, "payments-east", 0).await;
    let epoch = resolver.snapshot().await.epoch;
    resolver.ack(epoch).await;
    let name = "payments-east".parse().unwrap();
    let acked = async {
        while here.live.sessions(&name)[0].epoch_acked != epoch {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(DEADLINE, acked).await.unwrap();
    one.exchange().await.unwrap();
    other.exchange().await.unwrap();
    let seen = state().await;
    assert_eq!(
        (&seen["state"], &seen["instances"], &seen["epoch_acked"]),
        (&json!("connected"), &json!(1), &json!(epoch))
    );
    // What it says of itself is told as it changes, and both of two are counted.
    let mut second = Resolver::connect(&there, "payments-east", epoch).await;
    second.snapshot().await;
    assert_eq!(state().await["instances"], 2);
    // A control plane that was killed told nothing of that; what it told of before ends by itself.
    here.place.execute("UPDATE bridge_sessions SET told_ms = told_ms - 31000").await;
    other.exchange().await.unwrap();
    assert_eq!(state().await["instances"], 1);
    // One that ends well takes it back at once.
    let mut again = replica(&here);
    again.exchange().await.unwrap();
    other.exchange().await.unwrap();
    assert_eq!(state().await["instances"], 2);
    let stop = tokio_util::sync::CancellationToken::new();
    stop.cancel();
    again.keep(stop).await;
    other.exchange().await.unwrap();
    assert_eq!(state().await["instances"], 1);
}
