//! What a change costs on the Policy Bridge: what is sent, what is read, and what happens where the two sides differ.

use crate::harness::{ControlPlane, DEADLINE, PATH, envelope, resource, spiffe_id, until};
use crate::resolver::Resolver;
use bouncer_proto::bridge::v1::control_message::Body as Down;
use bouncer_proto::bridge::v1::resolver_message::Body as Up;
use bouncer_proto::bridge::v1::{Ack, Hello, PolicyDelta, Resync, Snapshot, Status as Report};
use bouncer_proto::{ContentDigest, Parted as _};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;
use tonic::Code;

/// A bouncer with so many resources, each with a credential of its own.
async fn large(count: usize) -> ControlPlane {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    for number in 0..count {
        let path = format!("creds/{number}");
        plane.post("/v1/crypto/envelope-secrets", &envelope(&path)).await.ok();
        plane.post("/v1/protected-resources", &resource(&format!("api-{number}"), &path)).await.ok();
    }
    plane
}

/// Something small changes.
async fn rotate(plane: &ControlPlane, path: &str, ciphertext: &str) {
    let mut body = envelope(path);
    body["ciphertext_ref"] = json!(ciphertext);
    plane.post("/v1/crypto/envelope-secrets", &body).await.ok();
}

/// The whole that a resolver makes of a delta, as ours does.
fn made(held: &Snapshot, delta: PolicyDelta) -> Snapshot {
    delta.apply(held.clone()).expect("a delta that can't be taken")
}

/// The bouncer's bridge health, once it is as wanted.
async fn health_where(plane: &ControlPlane, good: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let health = plane.get("/v1/policy-bridge/health").await.ok()["items"][0]["bridge"].clone();
        if good(&health) {
            return health;
        }
        assert!(Instant::now() < deadline, "not as wanted: {health}");
        tokio::task::yield_now().await;
    }
}

async fn metric(plane: &ControlPlane, name: &str) -> u64 {
    let text = plane.get("/metrics").await.text;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[tokio::test]
async fn a_small_change_in_a_large_policy_sends_few_bytes() {
    let plane = large(60).await;
    let bridge = plane.bridge();
    let mut new = Resolver::resume(bridge.clone(), "payments-east", None).await;
    let mut old = Resolver::connect(&plane, "payments-east", 0).await;
    let held = new.snapshot().await;
    assert_eq!((held.resources.len(), held.envelopes.len()), (60, 60));
    assert_eq!(old.snapshot().await.envelopes.len(), 60);

    rotate(&plane, "creds/7", "AQICAHk=").await;
    let delta = new.delta().await;
    let small = delta.length();
    assert_eq!((delta.resources.len(), delta.envelopes.len(), delta.from_epoch), (0, 1, held.epoch));
    let held = made(&held, delta);
    // The control: who understands no deltas is told the same, whole.
    let whole = old.snapshot().await;
    let large = whole.length();
    assert_eq!(ContentDigest::of(&held), ContentDigest::of(&whole));
    assert!(small < 500 && large > 20 * small, "{small} bytes in the place of {large}");

    plane.delete("/v1/protected-resources/api-3").await;
    let delta = new.delta().await;
    assert_eq!(
        (&delta.removed_resources[..], &delta.removed_envelopes[..]),
        (&["api-3".into()][..], &["creds/3".into()][..])
    );
    assert_eq!(ContentDigest::of(&made(&held, delta)), ContentDigest::of(&old.snapshot().await));
}

#[tokio::test]
async fn a_change_that_is_not_its_own_costs_a_bouncer_an_empty_delta() {
    let plane = large(5).await;
    plane.register_bouncer("payments-west").await;
    let mut resolver = Resolver::resume(plane.bridge(), "payments-east", None).await;
    let held = resolver.snapshot().await;
    let mut other = resource("west-api", "west/only");
    other["bouncer"] = json!("payments-west");
    plane.post("/v1/crypto/envelope-secrets", &envelope("west/only")).await.ok();
    let confirmed = made(&held, resolver.delta().await);
    plane.post("/v1/protected-resources", &other).await.ok();
    let delta = resolver.delta().await;
    assert!(delta.length() < 100, "{delta:?}");
    let confirmed = made(&confirmed, delta);
    assert_eq!(ContentDigest::of(&confirmed), ContentDigest::of(&held));
    resolver.ack(confirmed.epoch).await;
    let lag = health_where(&plane, |health| health["epoch_acked"] == confirmed.epoch).await;
    assert_eq!(lag["epoch_lag"], 0, "others' changes are no lag");
}

#[tokio::test]
async fn after_a_break_what_is_held_is_confirmed_and_not_sent_again() {
    let plane = large(5).await;
    let mut resolver = Resolver::resume(plane.bridge(), "payments-east", None).await;
    let held = resolver.snapshot().await;
    drop(resolver);
    // At the same epoch, and after a change that is not its own.
    let mut resolver = Resolver::resume(plane.bridge(), "payments-east", Some(&held)).await;
    let delta = resolver.delta().await;
    assert_eq!((delta.from_epoch, delta.epoch), (held.epoch, held.epoch));
    assert_eq!(ContentDigest::of(&made(&held, delta)), ContentDigest::of(&held));
    drop(resolver);
    plane.post("/v1/crypto/envelope-secrets", &envelope("nobody/uses")).await.ok();
    let mut resolver = Resolver::resume(plane.bridge(), "payments-east", Some(&held)).await;
    let delta = resolver.delta().await;
    assert!(delta.epoch > held.epoch && delta.envelopes.is_empty());
    let held = made(&held, delta);
    // And goes on by deltas from there.
    rotate(&plane, "creds/1", "AQICAHk=").await;
    let held = made(&held, resolver.delta().await);
    assert_eq!(held.envelopes[1].generation, 2);
    drop(resolver);
    // The control: a change of its own while it was away is told whole.
    rotate(&plane, "creds/1", "AQICAHo=").await;
    let mut resolver = Resolver::resume(plane.bridge(), "payments-east", Some(&held)).await;
    assert_eq!(resolver.snapshot().await.envelopes[1].generation, 3);
}

#[tokio::test]
async fn a_database_that_says_something_else_at_the_same_epoch_jumps_past_it() {
    let plane = large(1).await;
    let mut resolver = Resolver::resume(plane.bridge(), "payments-east", None).await;
    let mut held = resolver.snapshot().await;
    held.envelopes[0].generation = 9;
    let mut resolver = Resolver::resume(plane.bridge(), "payments-east", Some(&held)).await;
    assert_eq!(resolver.snapshot().await.epoch, held.epoch + 1, "the same epoch would be refused as a replay");
}

#[tokio::test]
async fn a_resolver_of_a_later_form_is_told_everything_whole_and_moves_no_epoch() {
    let plane = large(1).await;
    let held = Resolver::resume(plane.bridge(), "payments-east", None).await.snapshot().await;
    let later = Hello {
        bouncer: "payments-east".into(),
        epoch: held.epoch,
        digest: vec![7; 32],
        delta_form: ContentDigest::FORM + 1,
        ..Hello::default()
    };
    let open = Resolver::open(plane.bridge(), &spiffe_id("payments-east"), jiff::Timestamp::MAX).await;
    let mut resolver = open.unwrap();
    resolver.say(Up::Hello(later)).await;
    assert_eq!(resolver.snapshot().await.epoch, held.epoch);
    resolver.say(Up::Ack(Ack { epoch: held.epoch, digest: vec![7; 32], ..Ack::default() })).await;
    resolver.report(Report { ready: true, ..Report::default() }).await;
    let well = health_where(&plane, |health| health["ok"] == true).await;
    assert_eq!(well["diverged"], false);
    rotate(&plane, "creds/0", "AQICAHk=").await;
    assert_eq!(resolver.snapshot().await.envelopes[0].generation, 2);
}

#[tokio::test]
async fn streams_of_one_bouncer_share_what_is_read() {
    const STREAMS: usize = 20;
    let plane = large(3).await;
    let bridge = plane.bridge();
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut resolver = Resolver::resume(bridge.clone(), "payments-east", None).await;
        let held = resolver.snapshot().await;
        streams.push((resolver, held));
    }
    let before = metric(&plane, "bouncer_control_plane_bridge_policy_reads_total").await;
    rotate(&plane, "creds/1", "AQICAHk=").await;
    for (resolver, held) in &mut streams {
        *held = made(held, resolver.delta().await);
        assert_eq!(held.envelopes[1].generation, 2);
    }
    let reads = metric(&plane, "bouncer_control_plane_bridge_policy_reads_total").await - before;
    assert_eq!(reads, 1, "{STREAMS} streams");
}

#[tokio::test]
async fn a_change_costs_a_read_of_the_policies_that_it_touches_and_of_no_others() {
    const BOUNCERS: usize = 12;
    let plane = ControlPlane::enabled().await;
    let bridge = plane.bridge();
    let mut streams = Vec::new();
    for number in 0..BOUNCERS {
        let (name, path) = (format!("bouncer-{number}"), format!("creds/{number}"));
        plane.register_bouncer(&name).await;
        plane.post("/v1/crypto/envelope-secrets", &envelope(&path)).await.ok();
        plane.post("/v1/protected-resources", &resource_of(&name, &format!("api-{number}"), &path)).await.ok();
    }
    for number in 0..BOUNCERS {
        let mut resolver = Resolver::resume(bridge.clone(), &format!("bouncer-{number}"), None).await;
        let held = resolver.snapshot().await;
        streams.push((resolver, held));
    }
    let reads = async || metric(&plane, "bouncer_control_plane_bridge_policy_reads_total").await;
    // Whatever the change: the reads are those of whom it concerns, and everyone holds what a fresh resolver would get.
    let mut touched = async |what: &str, expected: u64, change: &dyn Fn() -> (http::Method, String, Value)| {
        let before = reads().await;
        let (method, path, body) = change();
        match method {
            http::Method::DELETE => drop(plane.delete(&path).await),
            http::Method::PUT => drop(plane.put(&path, &body).await.ok()),
            _ => drop(plane.post(&path, &body).await.ok()),
        }
        for (resolver, held) in &mut streams {
            *held = made(held, resolver.delta().await);
        }
        assert_eq!(reads().await - before, expected, "{what}");
        for (number, (_, held)) in streams.iter().enumerate() {
            let fresh = Resolver::resume(plane.bridge(), &format!("bouncer-{number}"), None).await.snapshot().await;
            assert_eq!(ContentDigest::of(held), ContentDigest::of(&fresh), "{what}: bouncer-{number}");
        }
        // A fresh one that is still there would be told of the next change, too.
        let alone = |number| plane.live.sessions(&format!("bouncer-{number}").parse().unwrap()).len() == 1;
        until("the end of the fresh ones", || (0..BOUNCERS).all(alone).then_some(())).await;
    };
    let rotated = |path: &str, ciphertext: &str| {
        let mut body = envelope(path);
        body["ciphertext_ref"] = json!(ciphertext);
        (http::Method::POST, "/v1/crypto/envelope-secrets".to_owned(), body)
    };
    touched("a rotation", 1, &|| rotated("creds/3", "AQICAHk=")).await;
    touched("a secret that nobody uses", 0, &|| rotated("creds/none", "AQICAHk=")).await;
    let moved = || {
        (http::Method::PUT, "/v1/protected-resources/api-3".to_owned(), resource_of("bouncer-4", "api-3", "creds/3"))
    };
    touched("a resource that moves to another bouncer", 2, &moved).await;
    let deleted = || (http::Method::DELETE, "/v1/protected-resources/api-4".to_owned(), Value::Null);
    touched("a resource that goes", 1, &deleted).await;
    let new =
        || (http::Method::POST, "/v1/protected-resources".to_owned(), resource_of("bouncer-4", "api-4", "creds/9"));
    touched("a resource that comes", 1, &new).await;
    touched("a secret that two use", 2, &|| rotated("creds/9", "AQICAHk=")).await;
    let flag = |on: bool| {
        move || (http::Method::PUT, format!("/v1/feature-flags/{}", crate::harness::FLAG), json!({"enabled": on}))
    };
    touched("the flag", BOUNCERS as u64, &flag(false)).await;
    touched("the flag again", BOUNCERS as u64, &flag(true)).await;
}

fn resource_of(bouncer: &str, name: &str, path: &str) -> Value {
    let mut body = resource(name, path);
    body["bouncer"] = json!(bouncer);
    body
}

#[tokio::test]
async fn a_divergence_is_shown_and_put_right_by_the_whole() {
    let plane = large(2).await;
    let mut resolver = Resolver::resume(plane.bridge(), "payments-east", None).await;
    let held = resolver.snapshot().await;
    let taken = |epoch, held: &Snapshot| Ack { epoch, digest: ContentDigest::of(held).to_vec(), ..Ack::default() };
    resolver.say(Up::Ack(taken(held.epoch, &held))).await;
    resolver.report(Report { ready: true, ..Report::default() }).await;
    let well = health_where(&plane, |health| health["ok"] == true).await;
    assert_eq!((&well["diverged"], &well["link"]), (&json!(false), &Value::Null));

    // It took what it was sent, it says, and has something else in its hands.
    let mut other = held.clone();
    other.envelopes[0].generation = 9;
    resolver.say(Up::Ack(taken(held.epoch, &other))).await;
    let diverged = health_where(&plane, |health| health["diverged"] == true).await;
    assert_eq!((&diverged["ok"], &diverged["link"]), (&json!(false), &json!("divergence")));
    resolver.say(Up::Ack(taken(held.epoch, &held))).await;
    health_where(&plane, |health| health["ok"] == true).await;

    // It refuses a delta, and asks for the whole.
    rotate(&plane, "creds/1", "AQICAHk=").await;
    let delta = resolver.delta().await;
    resolver.say(Up::Ack(Ack { epoch: delta.epoch, refused: "delta_diverged".into(), ..Ack::default() })).await;
    health_where(&plane, |health| health["link"] == "divergence").await;
    resolver.say(Up::Resync(Resync { epoch: held.epoch })).await;
    let whole = resolver.snapshot().await;
    assert_eq!((whole.epoch, whole.envelopes.len()), (delta.epoch, 2));
    resolver.say(Up::Ack(taken(whole.epoch, &whole))).await;
    health_where(&plane, |health| health["ok"] == true).await;
    // From there on it is told everything whole, and may not ask again.
    rotate(&plane, "creds/1", "AQICAHo=").await;
    assert_eq!(resolver.snapshot().await.envelopes[1].generation, 3);
    resolver.say(Up::Resync(Resync { epoch: held.epoch })).await;
    assert_eq!(resolver.end().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn health_names_the_link_that_is_broken() {
    let plane = large(1).await;
    let never = health_where(&plane, |health| health["state"] == "never_seen").await;
    assert_eq!(never["link"], "offline");
    // Registered as one bouncer, and calling itself another.
    let mut liar = Resolver::open(plane.bridge(), &spiffe_id("payments-east"), jiff::Timestamp::MAX).await.unwrap();
    liar.say(crate::resolver::hello("payments-west", 0)).await;
    assert_eq!(liar.end().await.code(), Code::PermissionDenied);
    let mismatch = health_where(&plane, |health| health["link"] == "authorization").await;
    let detail = mismatch["detail"].as_str().unwrap();
    assert!(detail.contains("'payments-west'") && detail.contains(&spiffe_id("payments-east")), "{detail}");

    let mut resolver = Resolver::resume(plane.bridge(), "payments-east", None).await;
    let held = resolver.snapshot().await;
    health_where(&plane, |health| health["link"] == "lag").await;
    resolver.ack(held.epoch).await;
    let ahead = jiff::Timestamp::now().as_millisecond() + 60_000;
    resolver.say(Up::Status(Report { ready: true, time_ms: ahead, ..Report::default() })).await;
    let skewed = health_where(&plane, |health| health["link"] == "clock").await;
    assert!(skewed["clock_skew_ms"].as_i64().unwrap() > 50_000, "{skewed}");
    resolver.report(Report { ready: true, ..Report::default() }).await;
    let well = health_where(&plane, |health| health["ok"] == true).await;
    assert_eq!(well["link"], Value::Null);
    drop(resolver);
    health_where(&plane, |health| health["state"] == "disconnected").await;
}

#[tokio::test]
async fn a_stranger_that_was_refused_is_named_to_who_may_see_everything() {
    let plane = large(1).await;
    let stranger = Resolver::open(plane.bridge(), &spiffe_id("stranger"), jiff::Timestamp::MAX).await;
    assert_eq!(stranger.err().expect("a stranger was let in").code(), Code::PermissionDenied);
    let health = health_where(&plane, |health| health["link"] == "authorization").await;
    assert!(health["detail"].as_str().unwrap().contains(&spiffe_id("stranger")), "{health}");
}

#[tokio::test]
async fn keep_alives_confirm_the_epoch_of_the_last_delta() {
    let plane = large(1).await;
    let mut resolver = Resolver::resume(plane.bridge(), "payments-east", None).await;
    let held = resolver.snapshot().await;
    rotate(&plane, PATH, "AQICAHk=").await;
    let epoch = resolver.delta().await.epoch;
    assert!(epoch > held.epoch);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        assert!(Instant::now() < deadline);
        if let Some(Down::KeepAlive(keep_alive)) = resolver.next().await.unwrap() {
            assert_eq!(keep_alive.epoch, epoch);
            return;
        }
    }
}
