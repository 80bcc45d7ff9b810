//! Bouncers and protected resources.

use crate::harness::{ControlPlane, PATH, envelope, resource, spiffe_id};
use serde_json::json;

#[tokio::test]
async fn a_bouncer_is_known_by_a_spiffe_id_or_by_an_iam_role() {
    let plane = ControlPlane::enabled().await;
    let role = |name: &str| format!("arn:aws:iam::123456789012:role/{name}");
    let made = plane.post("/v1/bouncers", &json!({"name": "east", "iam_role_arn": role("east")})).await;
    assert_eq!(made.status, 201);
    assert_eq!((&made.json["iam_role_arn"], &made.json["spiffe_id"]), (&json!(role("east")), &json!(null)));
    let taken = json!({"name": "west", "iam_role_arn": role("east")});
    assert_eq!(plane.post("/v1/bouncers", &taken).await.code(), "iam_role_taken");
    let moved = plane.put("/v1/bouncers/east", &json!({"spiffe_id": spiffe_id("east")})).await.ok();
    assert_eq!((&moved["iam_role_arn"], &moved["spiffe_id"]), (&json!(null), &json!(spiffe_id("east"))));
    assert_eq!(plane.post("/v1/bouncers", &taken).await.ok()["iam_role_arn"], role("east"), "it is free again");
}

#[tokio::test]
async fn one_name_and_one_identity_are_one_bouncer() {
    let plane = ControlPlane::new().await;
    let body = json!({"name": "payments-east", "spiffe_id": spiffe_id("payments-east")});
    let made = plane.post("/v1/bouncers", &body).await.ok();
    assert_eq!(made["bridge"]["state"], "never_seen");
    assert_eq!(plane.post("/v1/bouncers", &body).await.ok()["created_at"], made["created_at"], "the same again");
    let other_id = json!({"name": "payments-east", "spiffe_id": spiffe_id("other")});
    assert_eq!(plane.post("/v1/bouncers", &other_id).await.code(), "name_taken");
    let other_name = json!({"name": "other", "spiffe_id": spiffe_id("payments-east")});
    assert_eq!(plane.post("/v1/bouncers", &other_name).await.code(), "spiffe_id_taken");
    assert_eq!(plane.get("/v1/bouncers/payments-east").await.ok()["spiffe_id"], spiffe_id("payments-east"));
    assert_eq!(plane.get("/v1/bouncers/other").await.code(), "not_found");
    assert_eq!(plane.get("/v1/bouncers/..%2F").await.code(), "not_found");
    assert_eq!(plane.delete("/v1/bouncers/payments-east").await.status, 204);
    assert_eq!(plane.delete("/v1/bouncers/payments-east").await.code(), "not_found");
}

#[tokio::test]
async fn resources_name_a_registered_bouncer_and_keep_it_registered() {
    let plane = ControlPlane::enabled().await;
    let body = resource("payments-api", PATH);
    assert_eq!(plane.post("/v1/protected-resources", &body).await.code(), "no_such_bouncer");
    plane.register_bouncer("payments-east").await;
    let made = plane.post("/v1/protected-resources", &body).await.ok();
    assert_eq!(made["warnings"][0]["code"], "envelope_missing");
    plane.post("/v1/crypto/envelope-secrets", &envelope(PATH)).await.ok();
    let read = plane.get("/v1/protected-resources/payments-api").await.ok();
    assert_eq!((&read["warnings"], &read["callers"]), (&json!([]), &body["callers"]));
    assert_eq!(plane.post("/v1/protected-resources", &body).await.status, 201, "the same again");
    let mut other = body.clone();
    other["cluster"] = json!("other");
    assert_eq!(plane.post("/v1/protected-resources", &other).await.code(), "name_taken");
    assert_eq!(plane.delete("/v1/bouncers/payments-east").await.code(), "bouncer_in_use");
    assert_eq!(plane.delete("/v1/protected-resources/payments-api").await.status, 204);
    assert_eq!(plane.delete("/v1/bouncers/payments-east").await.status, 204);
}

#[tokio::test]
async fn put_replaces_and_never_creates() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    let mut body = resource("payments-api", PATH);
    let at = "/v1/protected-resources/payments-api";
    assert_eq!(plane.put(at, &body).await.code(), "not_found");
    let made = plane.post("/v1/protected-resources", &body).await.ok();
    body.as_object_mut().unwrap().remove("name");
    body["enabled"] = json!(false);
    let changed = plane.put(at, &body).await.ok();
    assert_eq!((&changed["enabled"], &changed["created_at"]), (&json!(false), &made["created_at"]));
    body["name"] = json!("another");
    let answer = plane.put(at, &body).await;
    assert_eq!((answer.code(), &answer.json["errors"][0]["field"]), ("invalid_fields", &json!("name")));
    body["name"] = json!("payments-api");
    body["bouncer"] = json!("nobody");
    assert_eq!(plane.put(at, &body).await.code(), "no_such_bouncer");
}

#[tokio::test]
async fn fields_of_a_resource_are_parsed_at_the_edge() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    let body = json!({
        "bouncer": "No", "cluster": "two words", "upstream": "host", "protocol": "http", "logical_path": "a//b",
        "callers": ["spiffe://example.org/a", "spiffe://*"],
    });
    let answer = plane.post("/v1/protected-resources", &body).await;
    let fields: Vec<_> = answer.json["errors"].as_array().unwrap().iter().map(|e| e["field"].clone()).collect();
    assert_eq!(fields, ["name", "bouncer", "cluster", "upstream", "protocol", "logical_path", "callers[1]"]);
    let mut crowd = resource("a", PATH);
    crowd["callers"] = json!(vec!["spiffe://example.org/a"; 101]);
    assert_eq!(plane.post("/v1/protected-resources", &crowd).await.json["errors"][0]["field"], "callers");
    let mut nobody = resource("a", PATH);
    nobody["callers"] = json!([]);
    let answer = plane.post("/v1/protected-resources", &nobody).await.ok();
    assert_eq!(answer["warnings"][0]["code"], "callers_empty");
}

#[tokio::test]
async fn two_resources_for_one_caller_behind_one_cluster_are_warned_of() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    plane.post("/v1/crypto/envelope-secrets", &envelope(PATH)).await.ok();
    let register = async |name: &str, cluster: &str, caller: &str| {
        let mut body = resource(name, PATH);
        body["cluster"] = json!(cluster);
        body["callers"] = json!([caller]);
        plane.post("/v1/protected-resources", &body).await.ok()["warnings"].clone()
    };
    assert_eq!(register("a", "payments", "spiffe://example.org/ns/shop/*").await, json!([]));
    assert_eq!(register("b", "payments", "spiffe://example.org/ns/other/*").await, json!([]), "other callers");
    assert_eq!(register("c", "refunds", "spiffe://example.org/ns/shop/*").await, json!([]), "another cluster");
    let warnings = register("d", "payments", "spiffe://example.org/ns/shop/sa/cart").await;
    assert_eq!(warnings[0]["code"], "callers_overlap");
    let status = plane.get("/v1/bootstrap/status").await.ok()["protected_resources"].clone();
    assert_eq!((&status["ok"], &status["warnings"][0]["name"]), (&json!(false), &json!("a")));
}
