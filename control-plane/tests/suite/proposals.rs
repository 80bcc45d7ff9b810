//! Changes of binding that wait for a second person: what waits, who is one, and that a decision happens once.

use crate::harness::{Answer, ControlPlane, FLAG, PATH, envelope, resource, spiffe_id};
use bouncer_control_plane::access::{Principal, Role, Scope};
use bouncer_control_plane::clock::Clock;
use bouncer_control_plane::edit::Edit;
use bouncer_control_plane::model::Actor;
use bouncer_control_plane::proposal::{Asked, ProposalState, Proposed};
use bouncer_control_plane::store::Store as _;
use bouncer_control_plane::store::sqlite::SqliteStore;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

const SECRETS: &str = "/v1/crypto/envelope-secrets";
const RESOURCES: &str = "/v1/protected-resources";

/// A first administrator, who handed tokens to two people.
struct Team {
    first: ControlPlane,
    alice: ControlPlane,
    bob: ControlPlane,
}

async fn team() -> Team {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    let first = plane.asking_for_a_second_person();
    let alice = first.with_token(first.token_of("admin", &[]).await);
    let bob = first.with_token(first.token_of("admin", &[]).await);
    Team { first, alice, bob }
}

#[track_caller]
fn waits(answer: Answer) -> Value {
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.headers["location"], format!("/v1/proposals/{}", answer.json["id"].as_str().unwrap()));
    assert_eq!((&answer.json["state"], &answer.json["mine"]), (&json!("pending"), &json!(true)), "{}", answer.text);
    answer.json
}

fn at(proposal: &Value, what: &str) -> String {
    format!("/v1/proposals/{}{what}", proposal["id"].as_str().unwrap())
}

async fn approve(by: &ControlPlane, proposal: &Value) -> Answer {
    by.post(&at(proposal, "/approve"), &json!({})).await
}

async fn actions(plane: &ControlPlane) -> Vec<(String, String)> {
    let events = plane.get("/v1/audit/admin-events").await.ok();
    let text = |event: &Value, field: &str| event[field].as_str().unwrap().to_owned();
    events["items"].as_array().unwrap().iter().map(|event| (text(event, "action"), text(event, "actor"))).collect()
}

#[tokio::test]
async fn off_by_default_a_change_of_binding_is_made_at_once() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    assert_eq!(plane.post(RESOURCES, &resource("payments", PATH)).await.status, 201);
    assert_eq!(plane.get("/v1/proposals").await.ok()["items"], json!([]));
}

#[tokio::test]
async fn a_change_waits_until_a_second_person_approves_it_and_is_its_authors() {
    let Team { alice, bob, .. } = team().await;
    let proposal = waits(alice.post(SECRETS, &envelope(PATH)).await);
    assert_eq!(alice.get(SECRETS).await.ok()["items"], json!([]), "nothing happened yet");
    assert_eq!(proposal["changes"][0]["field"], "aad");
    assert!(!proposal.to_string().contains("AQICAHg="), "a ciphertext is shown by its digest");
    let epoch = alice.store.epoch().await.unwrap();
    let answer = approve(&bob, &proposal).await.ok();
    assert_eq!((&answer["state"], &answer["mine"]), (&json!("approved"), &json!(false)));
    assert!(alice.store.epoch().await.unwrap() > epoch, "bouncers see it");
    let made = alice.get(SECRETS).await.ok()["items"][0].clone();
    assert_eq!((&made["logical_path"], &made["created_by"]), (&json!(PATH), &answer["proposed_by"]));
    assert_ne!(answer["decided_by"], answer["proposed_by"]);
    let log = actions(&bob).await;
    let told: Vec<&str> = log.iter().take(3).map(|(action, _)| action.as_str()).collect();
    assert_eq!(told, ["envelope.registered", "proposal.approved", "proposal.proposed"]);
    assert_eq!(
        (log[0].1.as_str(), log[1].1.as_str()),
        (answer["proposed_by"].as_str().unwrap(), answer["decided_by"].as_str().unwrap())
    );

    // Rotation under the same key and pairs changes no binding.
    let mut next = envelope(PATH);
    next["ciphertext_ref"] = json!("AQICAHh=");
    assert_eq!(alice.post(SECRETS, &next).await.status, 201);
    next["aad"] = json!("env=staging,bouncer=payments-east");
    waits(alice.post(SECRETS, &next).await);
}

#[tokio::test]
async fn every_kind_of_change_waits_where_it_gives_and_not_where_it_takes_away() {
    let Team { first, alice, bob } = team().await;
    let plain = first.with_token(first.token.clone());
    let secret = waits(alice.post(SECRETS, &envelope(PATH)).await);
    approve(&bob, &secret).await.ok();
    let found = alice.get(SECRETS).await.ok()["items"][0]["id"].as_str().unwrap().to_owned();
    let secret = format!("{SECRETS}/{found}");
    approve(&bob, &waits(alice.post(RESOURCES, &resource("payments", PATH)).await)).await.ok();
    let payments = format!("{RESOURCES}/payments");

    // What is there already is no change.
    assert_eq!(alice.post(RESOURCES, &resource("payments", PATH)).await.status, 201);
    assert_eq!(alice.put(&payments, &resource("payments", PATH)).await.status, 200);
    let mut wider = resource("payments", PATH);
    wider["callers"] = json!(["spiffe://example.org/ns/shop/*", "spiffe://example.org/ns/other/*"]);
    let waiting = waits(alice.put(&payments, &wider).await);
    assert_eq!(waiting["changes"].as_array().unwrap().len(), 1);
    let mut closed = resource("payments", PATH);
    (closed["callers"], closed["enabled"]) = (json!([]), json!(false));
    assert_eq!(alice.put(&payments, &closed).await.ok()["enabled"], false, "an emergency needs no second person");
    waits(alice.put(&payments, &resource("payments", PATH)).await);

    waits(alice.post("/v1/bouncers", &json!({"name": "b", "spiffe_id": spiffe_id("b")})).await);
    waits(alice.put("/v1/bouncers/payments-east", &json!({"spiffe_id": spiffe_id("other")})).await);
    let role = "arn:aws:iam::123456789012:role/bouncer-payments-east";
    let moved = waits(alice.put("/v1/bouncers/payments-east", &json!({"iam_role_arn": role})).await);
    for (field, before, after) in
        [("iam_role_arn", json!(null), json!(role)), ("spiffe_id", json!(spiffe_id("payments-east")), json!(null))]
    {
        let change = moved["changes"].as_array().unwrap().iter().find(|change| change["field"] == field).unwrap();
        assert_eq!((&change["before"], &change["after"]), (&before, &after), "{moved}");
    }
    assert_eq!(
        alice.put("/v1/bouncers/payments-east", &json!({"spiffe_id": spiffe_id("payments-east")})).await.status,
        200
    );

    waits(alice.put("/v1/crypto/settings", &json!({"provider": "vault_delegate", "vault_namespace": "a"})).await);
    assert_eq!(alice.patch(&secret, &json!({"enabled": false})).await.status, 200);
    waits(alice.patch(&secret, &json!({"enabled": true})).await);
    let again = envelope(PATH);
    waits(alice.post(SECRETS, &again).await);
    let mut disabled = again;
    disabled["enabled"] = json!(false);
    assert_eq!(alice.post(SECRETS, &disabled).await.status, 201);
    assert_eq!(alice.delete(&payments).await.status, 204);
    assert_eq!(alice.delete(&secret).await.status, 204);
    let flag = format!("/v1/feature-flags/{FLAG}");
    assert_eq!(alice.put(&flag, &json!({"enabled": true})).await.status, 200, "it is on");
    assert_eq!(alice.put(&flag, &json!({"enabled": false})).await.status, 200);
    let on = waits(alice.put(&flag, &json!({"enabled": true})).await);
    assert_eq!(plain.get(SECRETS).await.code(), "feature_disabled");
    approve(&bob, &on).await.ok();
    assert_eq!(plain.get(SECRETS).await.status, 200);
}

#[tokio::test]
async fn a_rollback_to_another_binding_waits() {
    let Team { alice, bob, .. } = team().await;
    approve(&bob, &waits(alice.post(SECRETS, &envelope(PATH)).await)).await.ok();
    let mut other = envelope(PATH);
    other["aad"] = json!("env=staging,bouncer=payments-east");
    approve(&bob, &waits(alice.post(SECRETS, &other).await)).await.ok();
    let id = alice.get(SECRETS).await.ok()["items"][0]["id"].as_str().unwrap().to_owned();
    let back = format!("{SECRETS}/{id}/rollback");
    assert_eq!(alice.post(&back, &json!({"generation": 2})).await.status, 201, "the same binding");
    let proposal = waits(alice.post(&back, &json!({"generation": 1})).await);
    approve(&bob, &proposal).await.ok();
    let now = alice.get(&format!("{SECRETS}/{id}")).await.ok();
    assert_eq!((&now["generation"], &now["aad"]), (&json!(4), &json!("env=production,bouncer=payments-east")));
}

#[tokio::test]
async fn nobody_approves_their_own_by_whatever_token() {
    let Team { first, alice, bob } = team().await;
    let proposal = waits(alice.post(RESOURCES, &resource("payments", PATH)).await);
    let child = alice.with_token(alice.token_of("admin", &[]).await);
    let grandchild = alice.with_token(child.token_of("operator", &[]).await);
    for who in [&alice, &child, &grandchild, &first] {
        assert_eq!(approve(who, &proposal).await.code(), "own_proposal");
        assert_eq!(who.post(&at(&proposal, "/reject"), &json!({})).await.code(), "own_proposal");
        assert_eq!(who.get(&at(&proposal, "")).await.ok()["may_decide"], false);
    }
    // Nor does one who made the token that it was proposed with, or two tokens that one person made.
    let theirs = waits(child.post(RESOURCES, &resource("another", PATH)).await);
    let sibling = alice.with_token(alice.token_of("admin", &[]).await);
    for who in [&alice, &sibling, &first] {
        assert_eq!(approve(who, &theirs).await.code(), "own_proposal");
    }
    // A session is of its token's bearer.
    let signed_in = alice.raw(Method::POST, "/v1/session", "").await;
    assert_eq!(signed_in.json["second_person"], true, "the console knows to look for what waits");
    let cookie = signed_in.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let csrf = signed_in.json["csrf_token"].as_str().unwrap().to_owned();
    let request = http::Request::builder()
        .method(Method::POST)
        .uri(at(&proposal, "/approve"))
        .header("cookie", cookie)
        .header("x-bouncer-csrf", csrf)
        .header("content-type", "application/json")
        .body("{}".into())
        .unwrap();
    assert_eq!(alice.send(request).await.code(), "own_proposal");
    assert_eq!(alice.get(RESOURCES).await.ok()["items"], json!([]), "nothing happened");
    // The control: it was only ever a matter of who.
    assert_eq!(bob.get(&at(&proposal, "")).await.ok()["may_decide"], true);
    assert_eq!(approve(&bob, &proposal).await.status, 200);
    assert_eq!(approve(&bob, &theirs).await.status, 200);
}

#[tokio::test]
async fn who_may_not_make_a_change_may_not_decide_on_it_either() {
    let Team { first, alice, bob } = team().await;
    let flag = format!("/v1/feature-flags/{FLAG}");
    alice.put(&flag, &json!({"enabled": false})).await.ok();
    let on = waits(alice.put(&flag, &json!({"enabled": true})).await);
    let operator = first.with_token(first.token_of("operator", &[]).await);
    assert_eq!(approve(&operator, &on).await.code(), "forbidden");
    let viewer = first.with_token(first.token_of("viewer", &[]).await);
    assert_eq!(approve(&viewer, &on).await.code(), "forbidden");
    approve(&bob, &on).await.ok();

    let ours = waits(alice.post(RESOURCES, &resource("ours", "payments/a")).await);
    let theirs = waits(alice.post(RESOURCES, &resource("theirs", "refunds/a")).await);
    let bouncer = waits(alice.post("/v1/bouncers", &json!({"name": "b", "spiffe_id": spiffe_id("b")})).await);
    let limited = first.with_token(first.token_of("operator", &["payments/*"]).await);
    let listed = limited.get("/v1/proposals").await.ok()["items"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    for hidden in [&theirs, &bouncer, &on] {
        assert_eq!(limited.get(&at(hidden, "")).await.code(), "not_found");
        assert_eq!(approve(&limited, hidden).await.code(), "not_found");
    }
    approve(&limited, &ours).await.ok();
    // What moves there from elsewhere is about both.
    approve(&bob, &theirs).await.ok();
    let moved = waits(alice.put(&format!("{RESOURCES}/theirs"), &resource("theirs", "payments/b")).await);
    assert_eq!(approve(&limited, &moved).await.code(), "not_found");
    assert_eq!(limited.get("/v1/proposals?state=pending").await.ok()["items"], json!([]));
}

#[tokio::test]
async fn what_was_changed_meanwhile_makes_a_proposal_stale() {
    let Team { alice, bob, .. } = team().await;
    approve(&bob, &waits(alice.post(RESOURCES, &resource("payments", PATH)).await)).await.ok();
    let payments = format!("{RESOURCES}/payments");
    let move_it = waits(alice.put(&payments, &resource("payments", "payments/b")).await);
    let mut closed = resource("payments", PATH);
    closed["enabled"] = json!(false);
    bob.put(&payments, &closed).await.ok();
    let answer = approve(&bob, &move_it).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (412, "proposal_stale"));
    assert_eq!(alice.get(&at(&move_it, "")).await.ok()["state"], "stale");
    assert_eq!(approve(&bob, &move_it).await.code(), "proposal_decided");
    assert_eq!(alice.get(&payments).await.ok()["logical_path"], PATH);
    // What is in the way of another may be removed first.
    let resource = json!({"name": "x", "bouncer": "later", "cluster": "c", "upstream": "u.internal:443",
        "protocol": "mtls", "logical_path": PATH, "callers": []});
    let early = waits(alice.post(RESOURCES, &resource).await);
    assert_eq!(approve(&bob, &early).await.code(), "no_such_bouncer");
    let bouncer = waits(alice.post("/v1/bouncers", &json!({"name": "later", "spiffe_id": spiffe_id("later")})).await);
    approve(&bob, &bouncer).await.ok();
    approve(&bob, &early).await.ok();
}

#[tokio::test]
async fn approved_by_two_at_once_it_happens_once() {
    let Team { first, alice, bob } = team().await;
    let carol = first.with_token(first.token_of("operator", &[]).await);
    let proposal = waits(alice.post(SECRETS, &envelope(PATH)).await);
    let (one, other, third) =
        tokio::join!(approve(&bob, &proposal), approve(&carol, &proposal), approve(&bob, &proposal));
    let mut statuses = [one.status.as_u16(), other.status.as_u16(), third.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409], "{} {} {}", one.text, other.text, third.text);
    assert_eq!(alice.get(SECRETS).await.ok()["items"][0]["generation"], 1);
    let log = actions(&bob).await;
    assert_eq!(log.iter().filter(|(action, _)| action == "proposal.approved").count(), 1);
    assert_eq!(log.iter().filter(|(action, _)| action == "envelope.registered").count(), 1);
}

#[tokio::test]
async fn an_approval_and_its_change_are_one_transaction() {
    let Team { alice, bob, .. } = team().await;
    let other = waits(alice.post(RESOURCES, &resource("other", PATH)).await);
    approve(&bob, &other).await.ok();
    let proposal = waits(alice.post(RESOURCES, &resource("payments", PATH)).await);
    // The change fails when it is all but made; were the approval its own step, it would stand.
    alice.place.execute("CREATE UNIQUE INDEX fault ON protected_resources (bouncer)").await;
    assert_eq!(approve(&bob, &proposal).await.status, 503);
    assert_eq!(bob.get(&at(&proposal, "")).await.ok()["state"], "pending");
    let approved = actions(&bob).await.iter().filter(|(action, _)| action == "proposal.approved").count();
    assert_eq!(approved, 1, "that of the other one");
    alice.place.execute("DROP INDEX fault").await;
    approve(&bob, &proposal).await.ok();
    assert_eq!(bob.get(&format!("{RESOURCES}/payments")).await.status, 200);
}

#[tokio::test]
async fn asked_for_again_it_is_the_same_proposal() {
    let Team { alice, bob, .. } = team().await;
    let body = resource("payments", PATH);
    let one = waits(alice.post(RESOURCES, &body).await);
    assert_eq!(waits(alice.post(RESOURCES, &body).await)["id"], one["id"]);
    assert_ne!(waits(bob.post(RESOURCES, &body).await)["id"], one["id"], "somebody else's is another");
    let keyed = async |who: &ControlPlane, body: &Value| {
        who.raw_with(Method::POST, SECRETS, &[("idempotency-key", "a-key-of-mine")], body.to_string()).await
    };
    let two = waits(keyed(&alice, &envelope(PATH)).await);
    approve(&bob, &two).await.ok();
    let again = keyed(&alice, &envelope(PATH)).await;
    assert_eq!((again.status.as_u16(), &again.json["id"], &again.json["state"]), (202, &two["id"], &json!("approved")));
    assert_eq!(alice.get(SECRETS).await.ok()["items"][0]["generation"], 1, "it was not registered twice");
    assert_eq!(keyed(&alice, &envelope("another/path")).await.code(), "idempotency_key_reused");
}

#[tokio::test]
async fn one_takes_back_ones_own_and_rejects_others() {
    let Team { alice, bob, .. } = team().await;
    let proposal = waits(alice.post(RESOURCES, &resource("payments", PATH)).await);
    assert_eq!(bob.delete(&at(&proposal, "")).await.code(), "not_the_author");
    let rejected = bob.post(&at(&proposal, "/reject"), &json!({"reason": "not like this"})).await.ok();
    assert_eq!((&rejected["state"], &rejected["decision_reason"]), (&json!("rejected"), &json!("not like this")));
    assert_eq!(approve(&bob, &proposal).await.code(), "proposal_decided");
    let second = waits(alice.post(RESOURCES, &resource("payments", PATH)).await);
    assert_eq!(alice.delete(&at(&second, "")).await.status, 204);
    assert_eq!(alice.delete(&at(&second, "")).await.code(), "proposal_decided");
    let states = alice.get("/v1/proposals?limit=1").await.ok();
    assert_eq!(states["items"][0]["state"], "withdrawn");
    let next = format!("/v1/proposals?limit=1&cursor={}", states["next_cursor"].as_str().unwrap());
    assert_eq!(alice.get(&next).await.ok()["items"][0]["state"], "rejected");
    assert_eq!(alice.get("/v1/proposals?state=done").await.code(), "invalid_query");
    let log = actions(&bob).await;
    for action in ["proposal.rejected", "proposal.withdrawn"] {
        assert!(log.iter().any(|(told, _)| told == action), "{action}");
    }
}

#[tokio::test]
async fn a_revoked_token_s_proposals_are_not_approved_and_plaintext_is_not_stored() {
    let Team { first, alice, bob } = team().await;
    let proposal = waits(alice.post(RESOURCES, &resource("payments", PATH)).await);
    let tokens = first.get("/v1/tokens").await.ok()["items"].clone();
    let name = proposal["proposed_by"].as_str().unwrap().strip_prefix("token:").unwrap().to_owned();
    let id = tokens.as_array().unwrap().iter().find(|token| token["name"] == name.as_str()).unwrap()["id"].clone();
    let mut leaky = envelope(PATH);
    let secret = format!("-----BEGIN {} KEY-----\nMIIB\n-----END {} KEY-----", "PRIVATE", "PRIVATE");
    leaky["reason"] = json!(secret);
    assert_eq!(alice.post(SECRETS, &leaky).await.code(), "plaintext_refused");
    first.delete(&format!("/v1/tokens/{}", id.as_str().unwrap())).await;
    assert_eq!(approve(&bob, &proposal).await.code(), "author_gone");
    assert_eq!(bob.post(&at(&proposal, "/reject"), &json!({})).await.status, 200);
}

/// A clock that a test sets.
struct Hand(Mutex<Timestamp>);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

#[tokio::test]
async fn nobody_decided_in_seven_days_it_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(Hand(Mutex::new("2026-01-01T00:00:00Z".parse().unwrap())));
    let store = SqliteStore::open(&folder.path().join("a.db"), clock.clone()).await.unwrap();
    let author = Principal {
        actor: Actor::oidc("alice"),
        role: Role::Admin,
        scope: Scope::default(),
        expires: None,
        token: None,
        single_use: false,
    };
    let proposed = Proposed {
        method: "POST".into(),
        route: RESOURCES.into(),
        path: RESOURCES.into(),
        body: "{}".into(),
        base_revision: 0,
        subject: "payments".into(),
        logical_path: None,
        former_path: None,
        before: None,
        after: json!({}),
        reason: None,
    };
    let Asked::Stored(record) = store.propose(&proposed, &author, &Edit::from(author.actor.clone())).await.unwrap()
    else {
        panic!("it was never made")
    };
    let later = |hours: i64| *clock.0.lock().unwrap() += SignedDuration::from_hours(hours);
    later(7 * 24 - 1);
    assert_eq!(store.expire_proposals().await.unwrap(), 0, "the control");
    later(1);
    let bob = Actor::oidc("bob");
    assert!(store.decide_proposal(record.id, ProposalState::Rejected, &bob, None).await.is_err(), "before it is noted");
    assert_eq!(store.expire_proposals().await.unwrap(), 1);
    assert_eq!(store.proposal(record.id).await.unwrap().unwrap().state, ProposalState::Expired);
    assert_eq!(store.expire_proposals().await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_let_through_is_tied_to_what_was_looked_at() {
    let Team { alice, bob, .. } = team().await;
    let keyed = async |body: &Value| {
        alice.raw_with(Method::POST, SECRETS, &[("idempotency-key", "a-key-of-mine")], body.to_string()).await
    };
    approve(&bob, &waits(alice.post(SECRETS, &envelope(PATH)).await)).await.ok();
    let mut rotation = envelope(PATH);
    rotation["ciphertext_ref"] = json!("AQICAHh=");
    assert_eq!(keyed(&rotation).await.json["generation"], 2, "a rotation is made at once");
    let mut other = envelope(PATH);
    other["aad"] = json!("env=staging,bouncer=payments-east");
    approve(&bob, &waits(alice.post(SECRETS, &other).await)).await.ok();
    // Sent again, it would be another binding by now: it is answered by its key, and not made.
    let again = keyed(&rotation).await;
    assert_eq!((again.status.as_u16(), &again.json["generation"]), (201, &json!(2)), "{}", again.text);
    waits(alice.post(SECRETS, &rotation).await);
    assert_eq!(alice.get(SECRETS).await.ok()["items"][0]["generation"], 3);
    // What was built on something else is refused, waiting or not.
    for body in [&other, &rotation] {
        let answer = alice.raw_with(Method::POST, SECRETS, &[("if-match", "\"r1\"")], body.to_string()).await;
        assert_eq!(answer.code(), "changed_meanwhile");
    }
}
