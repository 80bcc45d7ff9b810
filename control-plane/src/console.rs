//! The console: the files of `control-plane/console`, embedded in this binary and served under `/console/`.
//!
//! Static and the same for everybody, hence without a token; all that it shows it asks of the REST API, which guards
//! itself. Nothing is loaded from elsewhere, and the policy that goes with every page makes sure of that: no script but
//! ours, no inline style or script, and no markup made from text (Trusted Types without a policy).

use crate::api::problem::ApiError;
use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bouncer_custody::Hex;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};
use std::sync::LazyLock;

/// Where the console is.
pub const BASE: &str = "/console/";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      font-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";
const PERMISSIONS: &str = "accelerometer=(), camera=(), clipboard-read=(), clipboard-write=(self), display-capture=(), \
                           geolocation=(), gyroscope=(), magnetometer=(), microphone=(), midi=(), payment=(), usb=()";

/// A file of the console.
struct File {
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($content_type:ident: $($name:literal)*;)*) => {
        [$($(File {
            name: $name,
            content_type: $content_type,
            bytes: include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/console/", $name)),
        }),*),*]
    };
}

static FILES: &[File] = &files! {
    HTML: "index.html";
    IMAGE: "icon.svg";
    STYLE: "css/base.css" "css/frame.css" "css/pages.css" "css/parts.css";
    SCRIPT:
        "js/api.js" "js/app.js" "js/changed.js" "js/copy.js" "js/dialog.js" "js/dom.js" "js/export.js" "js/filters.js"
        "js/forms.js" "js/frame.js" "js/guard.js" "js/icons.js" "js/notice.js" "js/pill.js" "js/plaintext.js" "js/plot.js"
        "js/poll.js" "js/router.js" "js/session.js" "js/signin.js" "js/table.js" "js/theme.js" "js/time.js"
        "js/pages/audit.js" "js/pages/bouncers.js" "js/pages/changes.js" "js/pages/effective.js" "js/pages/events.js"
        "js/pages/flags.js" "js/pages/identity.js" "js/pages/lines.js" "js/pages/overview.js"
        "js/pages/provider.js" "js/pages/proposals.js" "js/pages/resources.js" "js/pages/secret.js" "js/pages/secret_form.js"
        "js/pages/secrets.js" "js/pages/setup.js" "js/pages/tokens.js";
};

/// The pages, as their scripts name them. Whatever stands below one of these is the page's own business.
const PAGES: [&str; 12] = [
    "",
    "proposals",
    "overview",
    "setup",
    "bouncers",
    "resources",
    "secrets",
    "audit",
    "changes",
    "flags",
    "provider",
    "tokens",
];

/// The file of this name, and its entity tag.
fn find(name: &str) -> Option<(&'static File, &'static HeaderValue)> {
    static TAGS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| FILES.iter().map(|file| tag(file.bytes)).collect());
    let at = FILES.iter().position(|file| file.name == name)?;
    Some((FILES.get(at)?, TAGS.get(at)?))
}

fn tag(bytes: &[u8]) -> HeaderValue {
    HeaderValue::try_from(format!("\"{}\"", Hex(&Sha256::digest(bytes)[..16])))
        .unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// The console's routes, without state and without a token.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(|| async { Redirect::temporary(BASE) }))
        .route("/console", get(|| async { Redirect::temporary(BASE) }))
        .route(BASE, get(|headers: HeaderMap| async move { page("", &headers) }))
        .route(
            "/console/assets/{*name}",
            get(|Path(name): Path<String>, headers: HeaderMap| async move { asset(&name, &headers) }),
        )
        .route(
            "/console/{*page}",
            get(|Path(path): Path<String>, headers: HeaderMap| async move { page(&path, &headers) }),
        )
        .method_not_allowed_fallback(|| async { ApiError::Method })
}

/// Every page is the same document; what its address means is told apart by the scripts.
fn page(path: &str, headers: &HeaderMap) -> Response {
    let mut response = asset("index.html", headers);
    let name = path.split('/').next().unwrap_or_default();
    if !PAGES.contains(&name) && response.status() == StatusCode::OK {
        // The document says so to people.
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    response
}

fn asset(name: &str, headers: &HeaderMap) -> Response {
    let Some((file, tag)) = find(name) else { return ApiError::NoRoute.into_response() };
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let fresh = known.flat_map(|list| list.split(',')).any(|one| {
        let one = one.trim();
        one == "*" || one.trim_start_matches("W/").as_bytes() == tag.as_bytes()
    });
    let mut response = if fresh {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, file.content_type)], Body::from(file.bytes)).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, tag.clone());
    let fixed = [
        // Asked for anew each time, and sent only if it changed: an upgraded console is never half an old one.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), PERMISSIONS),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path as FilePath, PathBuf};

    fn folder() -> PathBuf {
        FilePath::new(env!("CARGO_MANIFEST_DIR")).join("console")
    }

    fn on_disk(folder: &FilePath, root: &FilePath) -> Vec<String> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                names.extend(on_disk(&path, root));
            } else {
                names.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
        names
    }

    #[test]
    fn every_file_is_embedded_and_every_reference_leads_to_one() {
        let mut disk = on_disk(&folder(), &folder());
        let mut embedded: Vec<_> = FILES.iter().map(|file| file.name.to_owned()).collect();
        disk.sort();
        embedded.sort();
        assert_eq!(disk, embedded);
        for file in FILES {
            let text = std::str::from_utf8(file.bytes).unwrap();
            for reference in text.split("from \"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
                let target = folder().join(file.name).parent().unwrap().join(reference);
                assert!(target.exists(), "{} imports {reference}", file.name);
            }
            for reference in text.split("\"/console/assets/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
                assert!(find(reference).is_some(), "{} refers to {reference}", file.name);
            }
        }
    }

    /// What the policy forbids would fail in silence, so it is not even written.
    #[test]
    fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
        for file in FILES {
            let text = std::str::from_utf8(file.bytes).unwrap();
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "style=",
                "javascript:",
                "@import",
                " url(",
            ] {
                assert!(!text.contains(forbidden), "{} has {forbidden}", file.name);
            }
            let elsewhere = text.match_indices("http").filter(|(at, _)| {
                let rest = &text[*at..];
                (rest.starts_with("http://") || rest.starts_with("https://"))
                    && !rest.starts_with("http://www.w3.org/2000/svg")
            });
            assert_eq!(elsewhere.count(), 0, "{} names another site", file.name);
            assert!(text.lines().count() <= 400, "{} is long", file.name);
        }
    }
}
