//! Audit events from bouncers, once each, and administrators' changes.

use crate::harness::{ControlPlane, FLAG, PATH, envelope};
use crate::resolver::{Resolver, event};
use bouncer_proto::bridge::v1::AuditEvent;
use serde_json::{Value, json};
use tonic::Code;

async fn connected() -> (ControlPlane, Resolver) {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    let mut resolver = Resolver::connect(&plane, "payments-east", 0).await;
    resolver.snapshot().await;
    (plane, resolver)
}

fn sequences(list: &Value) -> Vec<u64> {
    list["items"].as_array().unwrap().iter().map(|item| item["sequence"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn events_are_stored_once_however_often_they_come_and_acknowledged_after() {
    let (plane, mut resolver) = connected().await;
    resolver.audit(vec![event(1, "inject"), event(2, "deny")]).await;
    assert_eq!(resolver.audit_ack().await, 2);
    resolver.audit(vec![event(2, "deny"), event(3, "inject"), event(3, "inject")]).await;
    assert_eq!(resolver.audit_ack().await, 3);
    drop(resolver);
    let mut again = Resolver::connect(&plane, "payments-east", 0).await;
    again.snapshot().await;
    again.audit(vec![event(1, "inject"), event(2, "deny"), event(3, "inject")]).await;
    assert_eq!(again.audit_ack().await, 3);

    let plane = plane.restarted().await;
    let list = plane.get("/v1/audit/events").await.ok();
    assert_eq!(sequences(&list), [3, 2, 1], "newest first");
    let newest = &list["items"][0];
    assert_eq!((&newest["bouncer"], &newest["outcome"]), (&json!("payments-east"), &json!("inject")));
    assert_eq!((&newest["logical_path"], &newest["count"], &newest["dev"]), (&json!(PATH), &json!(1), &json!(false)));
    let status = plane.get("/v1/bootstrap/status").await.ok()["audit"].clone();
    assert_eq!((&status["count"], &status["injected"], &status["denied"]), (&json!(3), &json!(2), &json!(1)));
    assert_eq!(status["last_event_at"], newest["time"]);
}

#[tokio::test]
async fn one_bouncers_ids_do_not_shadow_anothers() {
    let (plane, mut east) = connected().await;
    plane.register_bouncer("payments-west").await;
    let mut west = Resolver::connect(&plane, "payments-west", 0).await;
    west.snapshot().await;
    east.audit(vec![event(1, "inject")]).await;
    east.audit_ack().await;
    west.audit(vec![event(1, "deny")]).await;
    west.audit_ack().await;
    assert_eq!(plane.get("/v1/audit/events").await.ok()["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn the_list_is_filtered_and_comes_in_parts() {
    let (plane, mut resolver) = connected().await;
    let outcome = |n: u64| ["inject", "deny", "uses"][usize::try_from(n % 3).unwrap()];
    resolver.audit((1..=9).map(|n| event(n, outcome(n))).collect()).await;
    resolver.audit_ack().await;
    let get = async |query: &str| sequences(&plane.get(&format!("/v1/audit/events?{query}")).await.ok());
    assert_eq!(get("outcome=deny").await, [7, 4, 1]);
    assert_eq!(get("outcome=inject&bouncer=payments-east").await, [9, 6, 3]);
    assert_eq!(get("bouncer=payments-west").await, Vec::<u64>::new());
    assert_eq!(get("reason=caller_not_allowed&limit=1").await, [7]);
    assert_eq!(get("logical_path=other").await, Vec::<u64>::new());
    for bad in ["outcome=released", "outcome=", "since=1", "cursor=QQ"] {
        assert_eq!(plane.get(&format!("/v1/audit/events?{bad}")).await.code(), "invalid_query", "{bad}");
    }
    let first = plane.get("/v1/audit/events?limit=4").await.ok();
    let cursor = first["next_cursor"].as_str().unwrap();
    // What arrives in between, even with an older time, neither repeats nor hides anything.
    resolver.audit(vec![AuditEvent { time_ms: 1, ..event(10, "deny") }, event(11, "deny")]).await;
    resolver.audit_ack().await;
    let rest = plane.get(&format!("/v1/audit/events?limit=500&cursor={cursor}")).await.ok();
    assert_eq!((sequences(&first), sequences(&rest)), (vec![9, 8, 7, 6], vec![5, 4, 3, 2, 1, 10]));
}

#[tokio::test]
async fn decisions_are_counted_over_time_by_outcome() {
    let (plane, mut resolver) = connected().await;
    // Seconds 0, 1, 1, 5 of the time, and one before and one behind it.
    let at = |n: u64, second: i64, outcome: &str, count: u64| AuditEvent {
        time_ms: 1_790_000_000_000 + second * 1_000,
        count,
        ..event(n, outcome)
    };
    let events = vec![
        at(1, -1, "inject", 1),
        at(2, 0, "inject", 1),
        at(3, 1, "deny", 40),
        at(4, 1, "deny", 2),
        at(5, 5, "uses", 7),
        at(6, 6, "uses", 7),
    ];
    resolver.audit(events).await;
    resolver.audit_ack().await;
    let get = async |query: &str| {
        let time = "from=2026-09-21T14:13:20Z&to=2026-09-21T14:13:26Z";
        plane.get(&format!("/v1/audit/histogram?{time}&{query}")).await
    };
    let answer = get("buckets=3").await.ok();
    assert_eq!(answer["bucket_ms"], 2_000);
    let outcomes: Vec<_> = answer["items"].as_array().unwrap().iter().map(|item| item["outcomes"].clone()).collect();
    assert_eq!(outcomes, [json!({"inject": 1, "deny": 42}), json!({}), json!({"uses": 7})]);
    assert_eq!(answer["items"][1]["time"], "2026-09-21T14:13:22Z");
    let total = async |query: &str| {
        let answer = get(query).await.ok();
        let items = answer["items"].as_array().unwrap().clone();
        items
            .iter()
            .flat_map(|item| item["outcomes"].as_object().unwrap().values())
            .filter_map(Value::as_u64)
            .sum::<u64>()
    };
    assert_eq!(total("").await, 50);
    assert_eq!(total("outcome=deny").await, 42);
    assert_eq!(total("bouncer=payments-west").await, 0);
    // Whoever is limited to some paths counts theirs only.
    for (paths, counted) in [("protected-resources/*", 42), ("elsewhere/*", 0)] {
        let limited = plane.with_token(plane.token_of("auditor", &[paths]).await);
        let time = "from=2026-09-21T14:13:20Z&to=2026-09-21T14:13:26Z&buckets=1";
        let answer = limited.get(&format!("/v1/audit/histogram?{time}")).await.ok();
        assert_eq!(answer["items"][0]["outcomes"]["deny"].as_u64().unwrap_or_default(), counted, "{paths}");
    }
    for bad in ["buckets=0", "buckets=201", "outcome=released", "limit=1"] {
        assert_eq!(get(bad).await.code(), "invalid_query", "{bad}");
    }
    let backwards = "/v1/audit/histogram?from=2026-09-21T14:13:20Z&to=2026-09-21T14:13:20Z";
    assert_eq!(plane.get(backwards).await.code(), "invalid_query");
    assert_eq!(plane.get("/v1/audit/histogram").await.code(), "invalid_query");
}

#[tokio::test]
async fn a_gap_in_the_sequence_is_counted_and_shown() {
    let (plane, mut resolver) = connected().await;
    resolver.audit(vec![event(5, "inject"), event(6, "inject")]).await;
    assert_eq!(resolver.audit_ack().await, 6, "where it begins is no gap");
    resolver.audit(vec![event(9, "inject")]).await;
    assert_eq!(resolver.audit_ack().await, 9);
    let health = plane.get("/v1/bouncers/payments-east").await.ok()["bridge"].clone();
    assert_eq!(health["audit_missing"], 2);
}

#[tokio::test]
async fn what_is_no_event_ends_the_session_and_is_not_stored() {
    let bad = [
        AuditEvent { id: "1".into(), ..event(1, "inject") },
        AuditEvent { outcome: "released".into(), ..event(1, "inject") },
        AuditEvent { count: u64::MAX, ..event(1, "inject") },
    ];
    for bad in bad {
        let (plane, mut resolver) = connected().await;
        resolver.audit(vec![event(2, "inject"), bad]).await;
        assert_eq!(resolver.end().await.code(), Code::InvalidArgument);
        assert_eq!(plane.get("/v1/audit/events").await.ok()["items"], json!([]));
    }
}

#[tokio::test]
async fn a_credential_in_an_event_is_withheld() {
    let (plane, mut resolver) = connected().await;
    // Put together here, so that no scanner mistakes this file for a leak.
    let token = format!("{}{}", "ghp_", "0123456789abcdefABCDEF0123456789abcd");
    resolver.audit(vec![AuditEvent { authority: token.clone(), ..event(1, "deny") }]).await;
    resolver.audit_ack().await;
    let list = plane.get("/v1/audit/events").await;
    assert!(!list.text.contains(&token));
    assert_eq!(list.json["items"][0]["authority"], "[withheld: looked like a credential]");
    assert!(!plane.bytes_on_disk().windows(token.len()).any(|window| window == token.as_bytes()));
}

#[tokio::test]
async fn administrators_changes_are_recorded_with_who_and_when() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    let id = plane.post("/v1/crypto/envelope-secrets", &envelope(PATH)).await.ok()["id"].as_str().unwrap().to_owned();
    plane.patch(&format!("/v1/crypto/envelope-secrets/{id}"), &json!({"enabled": false})).await.ok();
    let list = plane.get("/v1/audit/admin-events").await.ok();
    let actions: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["action"].clone()).collect();
    assert_eq!(
        actions,
        [
            "envelope.disabled",
            "envelope.registered",
            "bouncer.registered",
            "flag.enabled",
            "token.created",
            "token.spent",
            "token.created",
        ]
    );
    let newest = &list["items"][0];
    assert_eq!((&newest["actor"], &newest["subject"]), (&json!("token:admin"), &json!(PATH)));
    assert_eq!(newest["detail"], "generation 1");
    assert_eq!(list["items"][3]["subject"], FLAG);
    assert_eq!(list["items"][4]["actor"], "token:bootstrap");
    assert_eq!(list["items"][6]["actor"], "operator");
    let part = plane.get("/v1/audit/admin-events?limit=2").await.ok();
    let rest =
        plane.get(&format!("/v1/audit/admin-events?cursor={}", part["next_cursor"].as_str().unwrap())).await.ok();
    assert_eq!(rest["items"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn administrators_changes_are_filtered_and_come_in_parts() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    let flag = format!("/v1/feature-flags/{FLAG}");
    plane.put(&flag, &json!({"enabled": false})).await.ok();
    let list = async |query: &str| {
        let mut cursor = String::new();
        let mut items = Vec::new();
        loop {
            let part = plane.get(&format!("/v1/audit/admin-events?{query}{cursor}")).await.ok();
            items.extend(part["items"].as_array().unwrap().iter().cloned());
            match part["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    };
    let all = list("").await;
    assert_eq!(all.len(), 6, "{all:?}");
    let matching = |meets: &dyn Fn(&Value) -> bool| all.iter().filter(|item| meets(item)).cloned().collect::<Vec<_>>();
    let is = |name: &'static str, value: &'static str| move |item: &Value| item[name] == value;
    let middle = all[2]["time"].as_str().unwrap();
    let time = |item: &Value| item["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let at = time(&all[2]);
    for (query, met) in [
        ("actor=operator".to_owned(), matching(&is("actor", "operator"))),
        ("action=token.created".to_owned(), matching(&is("action", "token.created"))),
        (format!("subject={FLAG}"), matching(&is("subject", FLAG))),
        (
            "actor=token:bootstrap&action=token.created".to_owned(),
            matching(&|item| item["actor"] == "token:bootstrap" && item["action"] == "token.created"),
        ),
        (format!("subject={FLAG}&action=flag.disabled&actor=token:admin"), matching(&is("action", "flag.disabled"))),
        (format!("from={middle}"), matching(&|item| time(item) >= at)),
        (format!("to={middle}"), matching(&|item| time(item) < at)),
        (
            format!("actor=token:admin&from={middle}"),
            matching(&|item| item["actor"] == "token:admin" && time(item) >= at),
        ),
        (
            format!("action=token.created&to={middle}"),
            matching(&|item| item["action"] == "token.created" && time(item) < at),
        ),
    ] {
        assert!(!met.is_empty() && met.len() < all.len(), "the control: {query} {met:?}");
        assert_eq!(list(&format!("limit=500&{query}")).await, met, "{query}");
        assert_eq!(list(&format!("limit=1&{query}")).await, met, "{query}");
    }
    for none in ["actor=nobody", "action=token", "subject=%00", "actor=operator&subject=%00", "subject=a&action=%00"] {
        assert_eq!(list(none).await, [] as [Value; 0], "{none}");
    }
    for bad in ["who=a", "from=yesterday", "limit=0", "cursor=QQ", "outcome=deny"] {
        assert_eq!(plane.get(&format!("/v1/audit/admin-events?{bad}")).await.code(), "invalid_query", "{bad}");
    }
}
