//! The console's files: served to anybody, under a policy that lets them load nothing else, and sent once.

use crate::harness::ControlPlane;
use axum::body::Body;
use http::{Method, Request, header};

async fn ask(plane: &ControlPlane, method: Method, path: &str, known: Option<&str>) -> crate::harness::Answer {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(tag) = known {
        request = request.header(header::IF_NONE_MATCH, tag);
    }
    plane.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn pages_and_files_are_served_without_a_token_and_with_their_policy() {
    let plane = ControlPlane::new().await;
    for path in ["/", "/console"] {
        let answer = ask(&plane, Method::GET, path, None).await;
        assert_eq!((answer.status.as_u16(), &answer.headers[header::LOCATION]), (307, &"/console/".parse().unwrap()));
    }
    let html = "text/html; charset=utf-8";
    for (path, status, content_type) in [
        ("/console/", 200, html),
        ("/console/overview", 200, html),
        ("/console/secrets/0199d7a0-0000-7000-8000-000000000001", 200, html),
        ("/console/nothing", 404, html),
        ("/console/assets/js/app.js", 200, "text/javascript; charset=utf-8"),
        ("/console/assets/css/base.css", 200, "text/css; charset=utf-8"),
        ("/console/assets/icon.svg", 200, "image/svg+xml"),
    ] {
        let answer = ask(&plane, Method::GET, path, None).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.headers[header::CONTENT_TYPE], content_type, "{path}");
        let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "trusted-types 'none'"] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        for (name, value) in [
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(answer.headers[name], value, "{path}");
        }
        let head = ask(&plane, Method::HEAD, path, None).await;
        assert_eq!((head.status.as_u16(), head.text.as_str()), (status, ""), "{path}");
        assert_eq!(ask(&plane, Method::POST, path, None).await.code(), "method_not_allowed", "{path}");
        // What is known is not sent again; what is known of another version is.
        let tag = answer.headers[header::ETAG].to_str().unwrap();
        if status == 200 {
            let again = ask(&plane, Method::GET, path, Some(tag)).await;
            assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""), "{path}");
        }
        assert_eq!(ask(&plane, Method::GET, path, Some("\"0\"")).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn nothing_else_is_served_by_their_way() {
    let plane = ControlPlane::new().await;
    for path in ["/console/assets/nothing.js", "/console/assets/../Cargo.toml", "/console/assets/js/%2e%2e/index.html"]
    {
        let answer = ask(&plane, Method::GET, path, None).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (404, "no_such_route"), "{path}");
    }
    let answer = ask(&plane, Method::GET, "/v1/bouncers", None).await;
    assert_eq!(answer.status, 401, "the control: what is no file of the console is guarded");
    assert_eq!(answer.headers[header::CONTENT_SECURITY_POLICY], "default-src 'none'; frame-ancestors 'none'");
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
}
