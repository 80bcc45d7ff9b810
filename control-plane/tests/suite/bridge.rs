//! The Policy Bridge: who may speak, what each is told and when, and what is remembered of it.

use crate::harness::{ControlPlane, DEADLINE, FLAG, PATH, envelope, resource, spiffe_id};
use crate::resolver::{Resolver, hello};
use bouncer_control_plane::bridge::{Peer, Timing, transport};
use bouncer_proto::bridge::v1::control_message::Body as Down;
use bouncer_proto::bridge::v1::resolver_message::Body as Up;
use bouncer_proto::bridge::v1::{Ack, Problem, SecretStatus, Status as Report};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use tonic::Code;

async fn protected() -> ControlPlane {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    plane.post("/v1/crypto/envelope-secrets", &envelope(PATH)).await.ok();
    plane.post("/v1/protected-resources", &resource("payments-api", PATH)).await.ok();
    plane
}

fn in_an_hour() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(1)
}

/// The bouncer's health, once it is as wanted.
async fn health_where(plane: &ControlPlane, good: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let health = plane.get("/v1/bouncers/payments-east").await.ok()["bridge"].clone();
        if good(&health) {
            return health;
        }
        assert!(Instant::now() < deadline, "not as wanted: {health}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_hello_is_answered_by_a_snapshot_and_each_change_by_another() {
    let plane = protected().await;
    let mut resolver = Resolver::connect(&plane, "payments-east", 0).await;
    let first = resolver.snapshot().await;
    assert_eq!((first.bouncer.as_str(), first.intercept_enabled), ("payments-east", true));
    assert_eq!(first.epoch, plane.store.epoch().await.unwrap());
    let told = &first.resources[0];
    assert_eq!((told.name.as_str(), told.cluster.as_str(), told.enabled), ("payments-api", "payments", true));
    assert_eq!((told.protocol.as_str(), told.upstream.as_str()), ("mtls", "payments.internal:8443"));
    assert_eq!(
        (told.logical_path.as_str(), &*told.callers),
        (PATH, &["spiffe://example.org/ns/shop/*".to_owned()][..])
    );
    let sealed = &first.envelopes[0];
    assert_eq!((sealed.logical_path.as_str(), sealed.generation, sealed.activation), (PATH, 1, 0));
    assert_eq!(sealed.aad.as_deref(), Some("env=production,bouncer=payments-east"));
    assert_eq!((sealed.provider.as_str(), sealed.ciphertext_ref.as_str()), ("kms_envelope", "AQICAHg="));

    let mut body = envelope(PATH);
    body["ciphertext_ref"] = json!("AQICAHk=");
    let id = plane.post("/v1/crypto/envelope-secrets", &body).await.ok()["id"].as_str().unwrap().to_owned();
    let rotated = resolver.snapshot().await;
    assert!(rotated.epoch > first.epoch);
    assert_eq!((rotated.envelopes.len(), rotated.envelopes[0].generation), (1, 2));

    let at = format!("/v1/crypto/envelope-secrets/{id}");
    plane.patch(&at, &json!({"enabled": false})).await.ok();
    assert!(resolver.snapshot().await.envelopes.is_empty(), "a disabled one is absent");
    plane.patch(&at, &json!({"enabled": true})).await.ok();
    assert_eq!(resolver.snapshot().await.envelopes[0].activation, 1);
    plane.delete(&at).await;
    assert!(resolver.snapshot().await.envelopes.is_empty(), "a deleted one is absent");
    // Who was away meanwhile learns from the next one that those before it were taken back.
    assert_eq!((rotated.envelopes[0].generation, rotated.envelopes[0].revoked_through), (2, 0));
    plane.post("/v1/crypto/envelope-secrets", &body).await.ok();
    let again = resolver.snapshot().await;
    assert_eq!((again.envelopes[0].generation, again.envelopes[0].revoked_through), (3, 2));
}

#[tokio::test]
async fn while_the_flag_is_off_no_envelope_is_sent() {
    let plane = protected().await;
    let mut resolver = Resolver::connect(&plane, "payments-east", 0).await;
    assert_eq!(resolver.snapshot().await.envelopes.len(), 1);
    plane.put(&format!("/v1/feature-flags/{FLAG}"), &json!({"enabled": false})).await.ok();
    let off = resolver.snapshot().await;
    assert!(!off.intercept_enabled && off.envelopes.is_empty());
    assert_eq!(off.resources.len(), 1);
}

#[tokio::test]
async fn a_bouncer_sees_only_what_is_its_own() {
    let plane = protected().await;
    plane.register_bouncer("payments-west").await;
    plane.post("/v1/crypto/envelope-secrets", &envelope("west/only")).await.ok();
    plane.post("/v1/crypto/envelope-secrets", &envelope("nobody/uses")).await.ok();
    let mut west = resource("west-api", "west/only");
    west["bouncer"] = json!("payments-west");
    plane.post("/v1/protected-resources", &west).await.ok();

    for (bouncer, name, path) in [("payments-east", "payments-api", PATH), ("payments-west", "west-api", "west/only")] {
        let snapshot = Resolver::connect(&plane, bouncer, 0).await.snapshot().await;
        let names: Vec<_> = snapshot.resources.iter().map(|resource| resource.name.as_str()).collect();
        let paths: Vec<_> = snapshot.envelopes.iter().map(|envelope| envelope.logical_path.as_str()).collect();
        assert_eq!((names, paths), (vec![name], vec![path]), "{bouncer}");
    }
}

#[tokio::test]
async fn an_unknown_identity_is_refused_whatever_it_says() {
    let plane = protected().await;
    let stranger = Resolver::open(plane.bridge(), &spiffe_id("stranger"), in_an_hour()).await;
    let status = stranger.err().expect("a stranger was let in");
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("POST /v1/bouncers"), "{status}");
    assert!(!status.message().contains("payments"), "{status}");
}

#[tokio::test]
async fn a_hello_in_anothers_name_is_refused() {
    let plane = protected().await;
    plane.register_bouncer("payments-west").await;
    let mut liar = Resolver::open(plane.bridge(), &spiffe_id("payments-west"), in_an_hour()).await.unwrap();
    liar.say(hello("payments-east", 0)).await;
    let status = liar.end().await;
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("resolver.toml"), "{status}");
    assert!(plane.live.sessions(&"payments-east".parse().unwrap()).is_empty());
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_a_hello_is_refused() {
    let plane = protected().await;
    for first in [Up::Ack(Ack::default()), Up::Status(Report::default())] {
        let mut rude = Resolver::open(plane.bridge(), &spiffe_id("payments-east"), in_an_hour()).await.unwrap();
        rude.say(first).await;
        assert_eq!(rude.end().await.code(), Code::InvalidArgument);
    }
    let mut twice = Resolver::connect(&plane, "payments-east", 0).await;
    twice.say(hello("payments-east", 0)).await;
    assert_eq!(twice.end().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_deleted_bouncers_session_ends() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    let mut resolver = Resolver::connect(&plane, "payments-east", 0).await;
    resolver.snapshot().await;
    plane.delete("/v1/bouncers/payments-east").await;
    assert_eq!(resolver.end().await.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_session_ends_with_its_svid() {
    let plane = protected().await;
    let soon = Timestamp::now() + SignedDuration::from_millis(500);
    let mut resolver = Resolver::open(plane.bridge(), &spiffe_id("payments-east"), soon).await.unwrap();
    resolver.say(hello("payments-east", 0)).await;
    resolver.snapshot().await;
    assert_eq!(resolver.end().await.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_silent_resolver_is_given_up() {
    let plane = protected().await;
    let mut bridge = plane.bridge();
    bridge.timing = Timing { keep_alive: Duration::from_millis(50), silence: Duration::from_millis(200) };
    let mut resolver = Resolver::open(bridge, &spiffe_id("payments-east"), in_an_hour()).await.unwrap();
    resolver.say(hello("payments-east", 0)).await;
    assert_eq!(resolver.end().await.code(), Code::DeadlineExceeded);
    health_where(&plane, |health| health["state"] == "disconnected").await;
}

#[tokio::test]
async fn keep_alives_come_when_nothing_changes() {
    let plane = protected().await;
    let mut resolver = Resolver::connect(&plane, "payments-east", 0).await;
    let epoch = resolver.snapshot().await.epoch;
    for _ in 0..2 {
        match resolver.next().await.unwrap() {
            Some(Down::KeepAlive(keep_alive)) => assert_eq!(keep_alive.epoch, epoch),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_restored_database_jumps_past_the_epochs_that_bouncers_hold() {
    let plane = protected().await;
    let mut resolver = Resolver::connect(&plane, "payments-east", 5_000).await;
    assert_eq!(resolver.snapshot().await.epoch, 5_001);
    let events = plane.get("/v1/audit/admin-events?limit=1").await.ok();
    assert_eq!(events["items"][0]["action"], "epoch.raised");
    assert_eq!(events["items"][0]["actor"], "bouncer:payments-east");
    // The control: one that is not ahead moves nothing.
    let mut other = Resolver::connect(&plane, "payments-east", 5_001).await;
    assert_eq!(other.snapshot().await.epoch, 5_001);
}

/// The epoch is every bouncer's: what one of them says it holds must not shut out another, now or later.
#[tokio::test]
async fn an_epoch_that_no_backup_explains_is_refused_and_shuts_out_nobody_else() {
    const STEP: u64 = 1 << 32;
    const CEILING: u64 = 1 << 62;
    let plane = protected().await;
    plane.register_bouncer("payments-west").await;
    let own = plane.store.epoch().await.unwrap();
    for claim in [own + STEP + 1, CEILING - 1, CEILING, i64::MAX.unsigned_abs(), u64::MAX] {
        let mut liar = Resolver::connect(&plane, "payments-west", claim).await;
        let refused = liar.end().await;
        assert_eq!(refused.code(), Code::OutOfRange, "{claim}");
        assert!(refused.message().contains("remove the file 'snapshot'"), "{refused}");
        assert_eq!(plane.store.epoch().await.unwrap(), own, "{claim}");
    }
    let health = plane.get("/v1/bouncers/payments-west").await.ok()["bridge"].clone();
    assert!(health["detail"].as_str().unwrap().contains(&format!("holds epoch {}", u64::MAX)), "{health}");
    // The control: as far as that it is believed, and what the others hold then is never held against them.
    let mut restored = Resolver::connect(&plane, "payments-west", own + STEP).await;
    assert_eq!(restored.snapshot().await.epoch, own + STEP + 1);
    let mut honest = Resolver::connect(&plane, "payments-east", own).await;
    let held = honest.snapshot().await.epoch;
    assert_eq!(held, own + STEP + 1);
    drop(honest);
    assert_eq!(Resolver::connect(&plane, "payments-east", held).await.snapshot().await.epoch, held);

    // As after so many lies that hellos have used up their half of the range.
    assert_eq!(plane.place.execute("UPDATE meta SET epoch = 4611686018427387902").await, 1);
    let mut last = Resolver::connect(&plane, "payments-west", CEILING - 1).await;
    assert_eq!(last.snapshot().await.epoch, CEILING);
    let mut liar = Resolver::connect(&plane, "payments-west", CEILING + 1).await;
    assert_eq!(liar.end().await.code(), Code::OutOfRange);
    let mut honest = Resolver::connect(&plane, "payments-east", CEILING).await;
    assert_eq!(honest.snapshot().await.epoch, CEILING);
    plane.put(&format!("/v1/feature-flags/{FLAG}"), &json!({"enabled": false})).await.ok();
    let after = honest.snapshot().await;
    assert!(after.epoch > CEILING && !after.intercept_enabled, "changes go on");
    drop(honest);
    let mut honest = Resolver::connect(&plane, "payments-east", after.epoch).await;
    assert_eq!(honest.snapshot().await.epoch, after.epoch);
}

#[tokio::test]
async fn health_tells_the_truth_about_a_connected_bouncer() {
    let plane = protected().await;
    plane.readiness.set_identity(true);
    plane.readiness.set_bridge(true);
    let mut resolver = Resolver::connect(&plane, "payments-east", 0).await;
    let epoch = resolver.snapshot().await.epoch;
    let lagging = health_where(&plane, |health| health["state"] == "connected").await;
    assert_eq!((&lagging["ok"], &lagging["epoch_lag"]), (&json!(false), &json!(epoch)));

    resolver.ack(epoch).await;
    resolver.report(Report { ready: true, dev: true, ..Default::default() }).await;
    let well = health_where(&plane, |health| health["ok"] == true).await;
    assert_eq!((&well["version"], &well["epoch_lag"], &well["dev"]), (&json!("1.2.3"), &json!(0), &json!(true)));
    assert!(well["detail"].as_str().unwrap().contains("--dev"), "loudly: {well}");
    let bridge = plane.get("/v1/policy-bridge/health").await.ok();
    assert_eq!((&bridge["ok"], &bridge["items"][0]["name"]), (&json!(true), &json!("payments-east")));
    let status = plane.get("/v1/bootstrap/status").await.ok();
    assert_eq!((&status["dev_mode"], &status["bouncers"]["connected"]), (&json!(true), &json!(1)));

    let problem = Problem { subject: "payments-api".into(), reason: "destination_not_allowed".into() };
    resolver.say(Up::Ack(Ack { epoch, problems: vec![problem], ..Default::default() })).await;
    let troubled = health_where(&plane, |health| health["ok"] == false).await;
    assert_eq!(troubled["problems"], json!([{"subject": "payments-api", "reason": "destination_not_allowed"}]));
    resolver.ack(epoch).await;

    let reason = "kms_access_denied".to_owned();
    let secret = SecretStatus { logical_path: PATH.into(), generation: 1, reason, not_after_ms: 0 };
    resolver.report(Report { ready: true, secrets: vec![secret], ..Default::default() }).await;
    let failing = health_where(&plane, |health| health["secrets"][0]["reason"] == "kms_access_denied").await;
    assert_eq!(failing["ok"], false);

    resolver.report(Report { ready: false, not_ready: vec!["audit_unavailable".into()], ..Default::default() }).await;
    let not_ready = health_where(&plane, |health| health["ready"] == false).await;
    assert!(not_ready["detail"].as_str().unwrap().contains("audit_unavailable"));

    resolver.say(Up::Ack(Ack { epoch, refused: "snapshot_replayed".into(), ..Default::default() })).await;
    health_where(&plane, |health| health["refused"] == "snapshot_replayed").await;
    drop(resolver);
    let gone = health_where(&plane, |health| health["state"] == "disconnected").await;
    assert_eq!((&gone["ok"], &gone["version"]), (&json!(false), &json!("1.2.3")));
}

#[tokio::test]
async fn what_was_last_heard_outlives_the_process() {
    let plane = protected().await;
    let mut resolver = Resolver::connect(&plane, "payments-east", 0).await;
    let epoch = resolver.snapshot().await.epoch;
    resolver.ack(epoch).await;
    health_where(&plane, |health| health["epoch_acked"] == epoch).await;
    drop(resolver);
    health_where(&plane, |health| health["state"] == "disconnected").await;
    let plane = plane.restarted().await;
    let health = plane.get("/v1/bouncers/payments-east").await.ok()["bridge"].clone();
    assert_eq!((&health["state"], &health["epoch_acked"]), (&json!("disconnected"), &json!(epoch)));
}

/// What was taken between two notes is noted at the end, unless the bouncer is another's by then.
#[tokio::test]
async fn what_was_taken_last_is_noted_by_the_bouncers_own_resolver_alone() {
    for taken_over in [false, true] {
        let plane = protected().await;
        let mut bridge = plane.bridge();
        bridge.timing.keep_alive = DEADLINE;
        let mut resolver = Resolver::open(bridge, &spiffe_id("payments-east"), in_an_hour()).await.unwrap();
        resolver.say(hello("payments-east", 0)).await;
        let epoch = resolver.snapshot().await.epoch;
        resolver.ack(epoch).await;
        health_where(&plane, |health| health["epoch_acked"] == epoch).await;
        if taken_over {
            let other = json!({"spiffe_id": spiffe_id("payments-west")});
            plane.put("/v1/bouncers/payments-east", &other).await.ok();
            assert_eq!(resolver.end().await.code(), Code::PermissionDenied);
        }
        drop(resolver);
        health_where(&plane, |health| health["state"] == "disconnected").await;
        let plane = plane.restarted().await;
        let health = plane.get("/v1/bouncers/payments-east").await.ok()["bridge"].clone();
        assert_eq!(health["epoch_acked"], if taken_over { 0 } else { epoch }, "{health}");
    }
}

#[tokio::test]
async fn several_resolvers_may_serve_one_bouncer() {
    let plane = protected().await;
    let mut one = Resolver::connect(&plane, "payments-east", 0).await;
    let mut other = Resolver::connect(&plane, "payments-east", 0).await;
    let epoch = one.snapshot().await.epoch;
    assert_eq!(other.snapshot().await.epoch, epoch);
    one.ack(epoch).await;
    let health = health_where(&plane, |health| health["instances"] == 2).await;
    assert_eq!(health["epoch_acked"], 0, "the one that is behind counts");
    other.ack(epoch).await;
    health_where(&plane, |health| health["epoch_acked"] == epoch).await;
    drop(other);
    health_where(&plane, |health| health["instances"] == 1).await;
}

#[tokio::test]
async fn shutting_down_tells_resolvers_to_connect_again() {
    let plane = protected().await;
    let bridge = plane.bridge();
    let stop = bridge.stop.clone();
    let mut resolver = Resolver::open(bridge, &spiffe_id("payments-east"), in_an_hour()).await.unwrap();
    resolver.say(hello("payments-east", 0)).await;
    resolver.snapshot().await;
    stop.cancel();
    assert_eq!(resolver.end().await.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_called_is_ended() {
    let plane = protected().await;
    let silent = async |sent: &[u8]| {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        client.write_all(sent).await.unwrap();
        let peer = Peer { id: spiffe_id("payments-east").parse().unwrap(), not_after: in_an_hour() };
        let only = futures::stream::iter([transport::Identified::new(server, peer)]);
        // It ends with its last connection.
        tokio::time::timeout(DEADLINE * 3, transport::serve(plane.bridge(), only)).await.expect("it was not ended");
        drop(client);
    };
    tokio::join!(silent(b""), silent(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"));
}
