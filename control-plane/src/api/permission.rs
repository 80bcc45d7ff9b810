//! Which permission each call needs. A call that is not in this table is nobody's.

use crate::access::Permission::{self, Admin, Audit, Read, Write};
use http::Method;

/// What a call needs of who makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Needs {
    /// What they must be allowed to do.
    pub(super) permission: Permission,
    /// It is about more than some paths, so that a principal who is limited to some may not.
    pub(super) unlimited: bool,
}

const fn some(permission: Permission) -> Needs {
    Needs { permission, unlimited: false }
}

const fn all(permission: Permission) -> Needs {
    Needs { permission, unlimited: true }
}

/// What the call of this method on this route, as its template is written, needs. `None` if nobody thought of it.
pub(super) fn needed(method: &Method, route: &str) -> Option<Needs> {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    Some(match (method, route) {
        ("GET" | "POST" | "DELETE", "/v1/session") => some(Read),
        ("GET", "/v1/bootstrap/status" | "/v1/policy-bridge/health" | "/v1/feature-flags") => some(Read),
        ("PUT", "/v1/feature-flags/{name}") => all(Admin),
        ("GET", "/v1/crypto/settings") => some(Read),
        ("PUT", "/v1/crypto/settings") => all(Admin),
        ("GET", "/v1/crypto/envelope-secrets" | "/v1/crypto/envelope-secrets/{id}") => some(Read),
        ("GET", "/v1/crypto/envelope-secrets/{id}/history") => some(Read),
        ("POST", "/v1/crypto/envelope-secrets" | "/v1/crypto/envelope-secrets/{id}/rollback") => some(Write),
        ("PATCH" | "DELETE", "/v1/crypto/envelope-secrets/{id}") => some(Write),
        ("GET", "/v1/bouncers" | "/v1/bouncers/{name}") => some(Read),
        ("POST", "/v1/bouncers") | ("PUT" | "DELETE", "/v1/bouncers/{name}") => all(Write),
        ("GET", "/v1/protected-resources" | "/v1/protected-resources/{name}") => some(Read),
        ("POST", "/v1/protected-resources") => some(Write),
        ("PUT" | "DELETE", "/v1/protected-resources/{name}") => some(Write),
        ("GET", "/v1/audit/events" | "/v1/audit/histogram") => some(Audit),
        // A chain can't be verified in parts, so an export is for those who may see it whole.
        ("GET", "/v1/audit/admin-events" | "/v1/audit/export") => all(Audit),
        ("GET", "/v1/proposals" | "/v1/proposals/{id}") => some(Read),
        // And what the proposed call needs itself.
        ("POST", "/v1/proposals/{id}/approve" | "/v1/proposals/{id}/reject") => some(Write),
        ("DELETE", "/v1/proposals/{id}") => some(Write),
        ("GET" | "POST", "/v1/tokens") | ("GET" | "DELETE", "/v1/tokens/{id}") => all(Admin),
        _ => return None,
    })
}
