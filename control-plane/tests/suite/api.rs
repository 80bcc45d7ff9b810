//! What holds for every call: tokens, strict bodies, limits, headers, probes, the description.

use crate::harness::{Answer, ControlPlane, FLAG, PATH, envelope, resource, spiffe_id};
use axum::body::Body;
use bouncer_control_plane::api::limits::PeerAddress;
use http::{Method, Request, header};
use serde_json::{Value, json};

#[tokio::test]
async fn nothing_but_the_probes_answers_without_a_valid_token() {
    let plane = ControlPlane::enabled().await;
    let good = format!("Bearer {}", plane.token);
    let bad = [
        None,
        Some("Bearer ".to_owned()),
        Some("Bearer bnc_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned()),
        Some(format!("Basic {}", plane.token)),
        Some(plane.token.clone()),
        Some(format!("{good}x")),
        Some(good[..good.len() - 1].to_owned()),
        Some(format!("Bearer {}", "x".repeat(1 << 14))),
    ];
    for authorization in bad {
        for path in
            ["/v1/bouncers", "/v1/crypto/settings", "/v1/bootstrap/status", "/v1/no-such-call", "/v1", "/consoles"]
        {
            let mut request = Request::get(path);
            if let Some(value) = &authorization {
                request = request.header(header::AUTHORIZATION, value);
            }
            let answer = plane.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!((answer.status.as_u16(), answer.code()), (401, "unauthenticated"), "{path}");
            assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer realm=\"bouncer\"");
        }
    }
    let twice = Request::get("/v1/bouncers").header(header::AUTHORIZATION, &good).header(header::AUTHORIZATION, &good);
    assert_eq!(plane.send(twice.body(Body::empty()).unwrap()).await.status, 401);
    for public in ["/healthz", "/metrics", "/openapi.json"] {
        let answer = plane.send(Request::get(public).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, 200, "{public}");
    }
    assert_eq!(plane.get("/v1/bouncers").await.status, 200, "the control");
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_once_and_the_last_one_stays() {
    let plane = ControlPlane::new().await;
    let made = plane.post("/v1/tokens", &json!({"name": "pipeline", "role": "operator"})).await.ok();
    let use_it = async || {
        let request = Request::get("/v1/bouncers")
            .header(header::AUTHORIZATION, format!("Bearer {}", made["token"].as_str().unwrap()));
        plane.send(request.body(Body::empty()).unwrap()).await.status
    };
    assert_eq!(use_it().await, 200);
    let list = plane.get("/v1/tokens").await;
    assert!(!list.text.contains(made["token"].as_str().unwrap()) && !list.text.contains(&plane.token));
    assert_eq!(plane.post("/v1/tokens", &json!({"name": "pipeline", "role": "operator"})).await.code(), "name_taken");
    assert_eq!(plane.delete(&format!("/v1/tokens/{}", made["id"].as_str().unwrap())).await.status, 204);
    assert_eq!(use_it().await, 401);
    let first = list.json["items"][1]["id"].as_str().unwrap().to_owned();
    assert_eq!(plane.delete(&format!("/v1/tokens/{first}")).await.code(), "last_token");
    assert_eq!(plane.get("/v1/tokens").await.status, 200);
    for secret in [plane.token.as_bytes(), made["token"].as_str().unwrap().as_bytes()] {
        assert!(!plane.bytes_on_disk().windows(secret.len()).any(|window| window == secret));
    }
}

#[tokio::test]
async fn bodies_are_strict() {
    let plane = ControlPlane::enabled().await;
    let role = "arn:aws:iam::123456789012:role/east";
    let cases: [(Value, u16, &str, &str); 12] = [
        (json!([]), 400, "malformed_body", "object"),
        (json!({"spiffe_id": "x"}), 400, "malformed_body", "'name'"),
        (json!({"name": "a"}), 422, "invalid_fields", "1 of"),
        (json!({"name": "a", "spiffe_id": 7}), 400, "malformed_body", "'spiffe_id'"),
        (json!({"name": "a", "spiffe_id": null}), 422, "invalid_fields", "1 of"),
        (
            json!({"name": "a", "spiffe_id": "spiffe://example.org/a", "iam_role_arn": role}),
            422,
            "invalid_fields",
            "1 of",
        ),
        (json!({"name": "a", "iam_role_arn": format!("{role}/x")}), 422, "invalid_fields", "1 of"),
        (json!({"name": "a", "spiffe_id": "x", "extra": 1}), 400, "malformed_body", "'extra'"),
        (json!({"name": "a", "spiffe_id": "x", "Ex tra": 1}), 400, "malformed_body", "(unnamed)"),
        (json!({"name": {"a": "b"}, "spiffe_id": "x"}), 400, "malformed_body", "'name'"),
        (json!({"name": "A", "spiffe_id": "x"}), 422, "invalid_fields", "2 of"),
        (json!({"name": "", "spiffe_id": "spiffe://example.org/a"}), 422, "invalid_fields", "1 of"),
    ];
    for (body, status, code, names) in cases {
        let answer = plane.post("/v1/bouncers", &body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{body}");
        assert!(answer.json["detail"].as_str().unwrap().contains(names), "{body}: {}", answer.text);
    }
    let answer = plane.post("/v1/bouncers", &json!({"name": "A", "spiffe_id": "x"})).await;
    assert_eq!(answer.json["errors"][0]["field"], "name");
    assert_eq!(answer.json["errors"][1]["field"], "spiffe_id");
    assert_eq!(plane.raw(Method::POST, "/v1/bouncers", "{\"name\":").await.code(), "malformed_body");
    assert_eq!(plane.raw(Method::POST, "/v1/bouncers", "").await.code(), "malformed_body");
    assert_eq!(plane.raw(Method::POST, "/v1/bouncers", vec![0xff, 0xfe]).await.code(), "malformed_body");
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    assert_eq!(plane.raw(Method::POST, "/v1/bouncers", deep).await.code(), "malformed_body");
    assert_eq!(plane.get("/v1/bouncers").await.ok()["items"], json!([]), "nothing of it was stored");
}

#[tokio::test]
async fn a_problem_never_repeats_a_value() {
    let plane = ControlPlane::enabled().await;
    let bodies = [
        r#"{"name":"hunter2-Hunter","spiffe_id":"hunter2"}"#,
        r#"{"name":7,"spiffe_id":"hunter2"}"#,
        r#"{"name":"a","spiffe_id":["hunter2"]}"#,
        r#"{"name":"a","spiffe_id":"b","hunter2":"hunter2"}"#,
        r#"{"name":"a","name":"hunter2","spiffe_id":"b"}"#,
        r#"{"name":hunter2}"#,
    ];
    for body in bodies {
        let answer = plane.raw(Method::POST, "/v1/bouncers", body).await;
        assert!(answer.status.is_client_error() && !answer.text.contains("hunter2"), "{body}: {}", answer.text);
    }
    for path in ["/v1/bouncers?hunter2=1", "/v1/bouncers?limit=hunter2", "/v1/bouncers/hunter2", "/v1/hunter2"] {
        let answer = plane.get(path).await;
        assert!(answer.status.is_client_error() && !answer.text.contains("hunter2"), "{path}: {}", answer.text);
    }
}

#[tokio::test]
async fn large_bodies_and_other_types_are_refused_whole() {
    let plane = ControlPlane::enabled().await;
    let huge = format!(r#"{{"name":"{}"}}"#, "a".repeat(200_000));
    assert_eq!(plane.raw(Method::POST, "/v1/bouncers", huge).await.code(), "body_too_large");
    // Without a length, too: it is cut off at the limit, not read to its end.
    let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(" ".repeat(4_096)));
    assert_eq!(plane.raw(Method::POST, "/v1/bouncers", Body::from_stream(endless)).await.code(), "body_too_large");
    let declared = Request::post("/v1/bouncers")
        .header(header::AUTHORIZATION, format!("Bearer {}", plane.token))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, "100000000")
        .body(Body::from_stream(futures::stream::pending::<Result<String, std::io::Error>>()));
    assert_eq!(plane.send(declared.unwrap()).await.code(), "body_too_large");
    let form = Request::post("/v1/bouncers")
        .header(header::AUTHORIZATION, format!("Bearer {}", plane.token))
        .header(header::CONTENT_TYPE, "text/plain")
        .body(Body::from(r#"{"name":"a","spiffe_id":"spiffe://example.org/a"}"#));
    assert_eq!(plane.send(form.unwrap()).await.code(), "unsupported_media_type");
    assert_eq!(plane.raw(Method::PUT, "/v1/bouncers", "{}").await.code(), "method_not_allowed");
    assert_eq!(plane.get("/v1/no-such-call").await.code(), "no_such_route");
}

#[tokio::test]
async fn every_answer_carries_the_security_headers_and_a_request_id() {
    let plane = ControlPlane::enabled().await;
    for path in ["/healthz", "/v1/bouncers", "/v1/nothing", "/v1/crypto/settings"] {
        let answer = plane.get(path).await;
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers[header::REFERRER_POLICY], "no-referrer");
        let id = answer.headers["x-request-id"].to_str().unwrap();
        if answer.status.is_client_error() {
            assert_eq!(answer.json["instance"], format!("urn:uuid:{id}"));
        }
    }
}

#[tokio::test]
async fn lists_come_in_parts_that_make_up_the_whole() {
    let plane = ControlPlane::enabled().await;
    let names: Vec<String> = (0..7).map(|n| format!("bouncer-{n}")).collect();
    for name in &names {
        plane.register_bouncer(name).await;
        plane.post("/v1/crypto/envelope-secrets", &envelope(&format!("{PATH}/{name}"))).await.ok();
    }
    for (list, key) in [("/v1/bouncers", "name"), ("/v1/crypto/envelope-secrets", "logical_path")] {
        let (mut seen, mut cursor, mut parts) = (Vec::new(), String::new(), 0);
        loop {
            let part = plane.get(&format!("{list}?limit=3{cursor}")).await.ok();
            seen.extend(part["items"].as_array().unwrap().iter().map(|item| item[key].as_str().unwrap().to_owned()));
            parts += 1;
            match part["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!((seen.len(), parts), (7, 3), "{list}");
        assert!(seen.is_sorted());
    }
    assert!(plane.get("/v1/bouncers?limit=7").await.ok().get("next_cursor").is_none(), "an exact part is the last");
    for bad in ["limit=0", "limit=501", "limit=-1", "limit=x", "cursor=!", "cursor=////", "offset=1", "cursor=QUJD"] {
        let answer = plane.get(&format!("/v1/bouncers?{bad}")).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_query"), "{bad}");
    }
}

#[tokio::test]
async fn who_calls_too_often_waits_and_nobody_else_does() {
    let plane = ControlPlane::new().await;
    let other = plane.token_of("viewer", &[]).await;
    let limited = plane.limited_to(1);
    // Four seconds' worth may come at once, and a slow machine earns more on the way.
    let mut refused = limited.get("/v1/bouncers").await;
    assert_eq!(refused.status, 200);
    for _ in 0..1_000 {
        refused = limited.get("/v1/bouncers").await;
        if refused.status != 200 {
            break;
        }
    }
    assert_eq!((refused.status.as_u16(), refused.code()), (429, "too_many_requests"));
    assert!(refused.headers[header::RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(limited.with_token(other).get("/v1/bouncers").await.status, 200);
    assert_eq!(limited.get("/healthz").await.status, 200);

    // An address that presents many tokens which are none is held up too, and no good token with it.
    let presented = async |token: &str| {
        let request = Request::get("/v1/bouncers")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .extension(PeerAddress([192, 0, 2, 1].into()));
        limited.send(request.body(Body::empty()).unwrap()).await
    };
    let mut last = presented("bnc_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").await;
    assert_eq!(last.code(), "unauthenticated");
    for _ in 0..1_000 {
        last = presented("bnc_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").await;
        if last.status == 429 {
            break;
        }
    }
    assert_eq!(last.code(), "too_many_requests");
    let third = plane.token_of("viewer", &[]).await;
    assert_eq!(presented(&third).await.status, 200);
}

#[tokio::test]
async fn readiness_tells_what_is_in_the_way() {
    let plane = ControlPlane::new().await;
    let answer = plane.get("/readyz").await;
    assert_eq!((answer.status.as_u16(), &answer.json["database"]), (503, &json!(true)));
    assert!(answer.json["next"][0].as_str().unwrap().contains("identity.workload_api"));
    plane.readiness.set_identity(true);
    plane.readiness.set_bridge(true);
    assert_eq!(plane.get("/readyz").await.status, 200);
    plane.readiness.set_draining();
    assert_eq!(plane.get("/readyz").await.status, 503);
}

#[tokio::test]
async fn the_description_has_every_call_and_asks_for_a_token() {
    let plane = ControlPlane::new().await;
    let document = plane.get("/openapi.json").await.ok();
    let calls = [
        ("/v1/crypto/settings", "get put"),
        ("/v1/crypto/envelope-secrets", "get post"),
        ("/v1/crypto/envelope-secrets/{id}", "get patch delete"),
        ("/v1/crypto/envelope-secrets/{id}/history", "get"),
        ("/v1/crypto/envelope-secrets/{id}/rollback", "post"),
        ("/v1/feature-flags", "get"),
        ("/v1/feature-flags/{name}", "put"),
        ("/v1/bouncers", "get post"),
        ("/v1/bouncers/{name}", "get put delete"),
        ("/v1/protected-resources", "get post"),
        ("/v1/protected-resources/{name}", "get put delete"),
        ("/v1/bootstrap/status", "get"),
        ("/v1/policy-bridge/health", "get"),
        ("/v1/audit/events", "get"),
        ("/v1/audit/histogram", "get"),
        ("/v1/audit/admin-events", "get"),
        ("/v1/audit/export", "get"),
        ("/v1/proposals", "get"),
        ("/v1/proposals/{id}", "get delete"),
        ("/v1/proposals/{id}/approve", "post"),
        ("/v1/proposals/{id}/reject", "post"),
        ("/v1/tokens", "get post"),
        ("/v1/tokens/{id}", "get delete"),
        ("/v1/session", "get post delete"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
    ];
    for (path, methods) in calls {
        for method in methods.split(' ') {
            let call = &document["paths"][path][method];
            assert!(call.is_object(), "{method} {path}");
            assert_eq!(call["security"].is_null(), path.starts_with("/v1"), "only probes lift the token: {path}");
        }
    }
    // How to sign in is for everybody.
    let public = ["methods", "oidc/start", "oidc/callback"];
    for path in public {
        assert_eq!(document["paths"][format!("/v1/session/{path}")]["get"]["security"], json!([{}]), "{path}");
    }
    assert_eq!(document["paths"].as_object().unwrap().len(), calls.len() + public.len());
    assert!(document["components"]["schemas"]["Problem"].is_object());
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    assert_eq!(document["security"], json!([{"token": []}, {"session": []}]));
    let cookie = &document["components"]["securitySchemes"]["session"];
    assert_eq!((&cookie["in"], &cookie["name"]), (&json!("cookie"), &json!("__Host-bouncer-session")));
}

#[tokio::test]
async fn the_description_has_the_headers_that_calls_take() {
    let plane = ControlPlane::enabled().await;
    let document = plane.get("/openapi.json").await.ok();
    let (mut conditional, mut once) = (0, 0);
    for (route, item) in document["paths"].as_object().unwrap() {
        let path = route.replace("{name}", "nothing").replace("{id}", "0199d7a0-0000-7000-8000-000000000001");
        for (method, call) in item.as_object().unwrap() {
            let named = |name: &str| {
                let parameters = call["parameters"].as_array().into_iter().flatten();
                parameters.filter(|one| one["in"] == "header").any(|one| one["name"] == name)
            };
            let taken = async |name: &str, wrong: &str| {
                let method = method.to_uppercase().parse().unwrap();
                let answer = plane.raw_with(method, &path, &[(name, wrong)], "{}").await;
                answer.status == 400 && answer.json["detail"].as_str().is_some_and(|detail| detail.contains(name))
            };
            for (name, wrong) in [("If-Match", "r7"), ("If-None-Match", "\"r7\""), ("Idempotency-Key", "short")] {
                assert_eq!(named(name), taken(name, wrong).await, "{method} {route} {name}");
            }
            conditional += usize::from(named("If-Match"));
            once += usize::from(named("Idempotency-Key"));
            assert_eq!(named("x-bouncer-csrf"), method != "get", "{method} {route}");
        }
    }
    assert_eq!((conditional, once), (12, 4), "the control");
}

#[tokio::test]
async fn the_description_has_the_headers_that_calls_answer_with() {
    let plane = ControlPlane::enabled().await;
    let document = plane.get("/openapi.json").await.ok();
    let told = |method: &Method, route: &str, answer: &Answer| {
        let call = &document["paths"][route][method.as_str().to_lowercase()];
        let described = &call["responses"][answer.status.as_str()];
        assert!(described.is_object(), "{method} {route} {}", answer.status);
        for name in [header::ETAG, header::LOCATION, header::RETRY_AFTER, header::WWW_AUTHENTICATE] {
            let sent = answer.headers.contains_key(&name);
            assert_eq!(
                described["headers"][name.as_str()].is_object(),
                sent,
                "{method} {route} {} {name}",
                answer.status
            );
        }
    };
    let (settings, flag) = (json!({"provider": "vault_delegate", "vault_namespace": "a"}), json!({"enabled": true}));
    let (flags, secrets, bouncers, resources) =
        ("/v1/feature-flags", "/v1/crypto/envelope-secrets", "/v1/bouncers", "/v1/protected-resources");
    let east = json!({"name": "payments-east", "spiffe_id": spiffe_id("payments-east")});
    let id = plane.post(secrets, &envelope(PATH)).await.ok()["id"].as_str().unwrap().to_owned();
    let none = Value::Null;
    let (get, put, post) = (Method::GET, Method::PUT, Method::POST);
    for (method, route, name, body, status) in [
        (&put, "/v1/crypto/settings", "", &settings, 200),
        (&get, "/v1/crypto/settings", "", &none, 200),
        (&get, flags, "", &none, 200),
        (&put, "/v1/feature-flags/{name}", FLAG, &flag, 200),
        (&post, bouncers, "", &east, 201),
        (&get, bouncers, "", &none, 200),
        (&get, "/v1/bouncers/{name}", "payments-east", &none, 200),
        (&put, "/v1/bouncers/{name}", "payments-east", &east, 200),
        (&post, secrets, "", &envelope(PATH), 201),
        (&get, secrets, "", &none, 200),
        (&get, "/v1/crypto/envelope-secrets/{id}", &id, &none, 200),
        (&Method::PATCH, "/v1/crypto/envelope-secrets/{id}", &id, &flag, 200),
        (&get, "/v1/crypto/envelope-secrets/{id}/history", &id, &none, 200),
        (&post, "/v1/crypto/envelope-secrets/{id}/rollback", &id, &json!({"generation": 1}), 201),
        (&post, resources, "", &resource("payments", PATH), 201),
        (&get, resources, "", &none, 200),
        (&get, "/v1/protected-resources/{name}", "payments", &none, 200),
        (&put, "/v1/protected-resources/{name}", "payments", &resource("payments", PATH), 200),
        (&Method::DELETE, "/v1/protected-resources/{name}", "payments", &none, 204),
        (&get, "/v1/tokens", "", &none, 200),
        (&get, "/v1/session", "", &none, 200),
        (&get, "/v1/bootstrap/status", "", &none, 200),
        (&get, "/readyz", "", &none, 503),
        (&get, "/v1/tokens/{id}", &id, &none, 404),
    ] {
        let path = route.replace("{name}", name).replace("{id}", name);
        let answer = plane.raw(method.clone(), &path, body.to_string()).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        told(method, route, &answer);
        if matches!(status, 200 | 201) && !answer.json["revision"].is_null() {
            assert_eq!(answer.headers[header::ETAG], format!("\"r{}\"", answer.json["revision"]));
        }
    }
    let waits = plane.asking_for_a_second_person().post(resources, &resource("refunds", PATH)).await;
    assert_eq!(waits.status, 202, "{}", waits.text);
    told(&post, resources, &waits);
    told(&get, bouncers, &plane.with_token(String::new()).get(bouncers).await);
    let hurried = plane.limited_to(1);
    let refused = loop {
        let answer = hurried.get(bouncers).await;
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!(refused.status, 429);
    told(&get, bouncers, &refused);
}
