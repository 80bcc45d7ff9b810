//! `[oidc]`: the identity provider whose tokens are taken, and what they stand for.

use super::Fault;
use super::table::Section;
use crate::access::{Role, Scope};
use crate::oidc::{ConsoleConfig, OidcConfig, RoleRule};
use bouncer_custody::PathPattern;

/// An HTTPS URL without query, fragment and credentials; plain HTTP on loopback only.
fn url(section: &mut Section<'_>, key: &str, text: String) -> Option<String> {
    let parsed = reqwest::Url::parse(&text).ok().filter(|url| {
        let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let bare = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        bare && url.password().is_none() && (url.scheme() == "https" || (url.scheme() == "http" && loopback))
    });
    if parsed.is_none() {
        section.fault(key, "must be an https URL without query and fragment (http only on loopback)");
    }
    parsed.map(|_| text)
}

/// The section, if there is one.
pub(super) fn oidc(mut section: Section<'_>) -> Option<OidcConfig> {
    let issuer = section.text("issuer").and_then(|text| url(&mut section, "issuer", text));
    let audience = section.text("audience");
    let ca_file = section.optional_path("ca_file");
    let roles_claim = section.optional_text("roles_claim").unwrap_or_else(|| "groups".to_owned());
    let console = console(&mut section);
    let rules = section.tables("roles");
    if rules.is_empty() {
        section.fault("roles", "is missing: without [[oidc.roles]] nobody could do anything");
    }
    let mut roles = Vec::new();
    for table in rules {
        let mut faults = Vec::new();
        roles.extend(rule(Section::of("oidc.roles", table, &mut faults)));
        section.faults(faults);
    }
    section.end();
    Some(OidcConfig { issuer: issuer?, audience: audience?, ca_file, roles_claim, roles, console })
}

fn console(section: &mut Section<'_>) -> Option<ConsoleConfig> {
    let client_id = section.optional_text("client_id");
    let client_secret_file = section.optional_path("client_secret_file");
    let public_url = section.optional_text("public_url").and_then(|text| url(section, "public_url", text));
    let name = section.optional_text("name").unwrap_or_else(|| "your identity provider".to_owned());
    let scopes = section.texts("scopes");
    if let Some(url) = public_url.as_deref()
        && url.split("://").nth(1).is_some_and(|rest| rest.contains('/'))
    {
        section.fault("public_url", "must have no path, and no slash at its end");
    }
    if client_secret_file.as_ref().is_some_and(|path| !path.is_file()) {
        section.fault("client_secret_file", "is no file that can be read");
    }
    match (client_id, public_url) {
        (Some(client_id), Some(public_url)) => {
            Some(ConsoleConfig { name, client_id, client_secret_file, public_url, scopes })
        }
        (None, None) => None,
        (Some(_), None) => {
            section.fault("public_url", "is missing; it belongs to oidc.client_id");
            None
        }
        (None, Some(_)) => {
            section.fault("client_id", "is missing; it belongs to oidc.public_url");
            None
        }
    }
}

fn rule(mut section: Section<'_>) -> Option<RoleRule> {
    let value = section.text("value");
    let role = section.text("role").and_then(|text| {
        let role = text.parse::<Role>();
        role.map_err(|error| section.fault("role", error.to_string())).ok()
    });
    let texts = section.texts("path_prefixes");
    let patterns: Vec<PathPattern> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    if patterns.len() != texts.len() || patterns.len() > Scope::LIMIT {
        section.fault("path_prefixes", "must be at most 32 logical paths, '*' as the last segment for all below");
        return None;
    }
    section.end();
    Some(RoleRule { value: value?, role: role?, scope: Scope::of(patterns) })
}

/// Faults of `[oidc]` that need more than its own text.
pub(super) fn check(oidc: &OidcConfig, faults: &mut Vec<Fault>) {
    if oidc.ca_file.is_some() && crate::oidc::Oidc::new(oidc.clone()).is_err() {
        faults.push(Fault::new("oidc.ca_file", "holds no readable PEM certificate"));
    }
}
