//! Where a secret might be seen from inside the sandbox: one walk over everything that can be read.

use crate::host::{self, Got};

/// The filter state that the native filter behind ours writes.
pub(crate) const SECRET_NAME: &str = "envoy.tls.certificate_mappers.on_demand_secret";

/// Properties, in the notation of CEL; a dot is a step, but for what stands in brackets.
const PROPERTIES: &[&str] = &[
    "filter_state",
    "filter_state[envoy.tls.certificate_mappers.on_demand_secret]",
    "filter_state[wasm.bouncer.tag]",
    "upstream_filter_state",
    "upstream_filter_state[envoy.tls.certificate_mappers.on_demand_secret]",
    "envoy.tls.certificate_mappers.on_demand_secret",
    "bouncer.tag",
    "wasm.bouncer.tag",
    "metadata",
    "metadata.filter_metadata",
    "request",
    "request.headers",
    "request.headers[x-bouncer-facts]",
    "request.headers[x-bouncer-sds-key]",
    "request.id",
    "request.path",
    "response",
    "response.headers",
    "response.trailers",
    "response.code_details",
    "response.grpc_status",
    "connection",
    "connection.id",
    "connection.transport_failure_reason",
    "connection.termination_details",
    "connection.sha256_peer_certificate_digest",
    "connection.subject_peer_certificate",
    "upstream",
    "upstream.address",
    "upstream.subject_local_certificate",
    "upstream.subject_peer_certificate",
    "upstream.uri_san_local_certificate",
    "upstream.transport_failure_reason",
    "source",
    "destination",
    "node",
    "node.metadata",
    "cluster_name",
    "cluster_metadata",
    "route_name",
    "route_metadata",
    "listener_metadata",
    "upstream_host_metadata",
    "xds",
    "xds.node",
    "xds.cluster_name",
    "xds.cluster_metadata",
    "xds.route_name",
    "xds.route_metadata",
    "xds.virtual_host_metadata",
    "xds.upstream_host_metadata",
    "xds.filter_chain_name",
    "xds.listener_metadata",
    "plugin_name",
    "plugin_root_id",
    "plugin_vm_id",
];

/// Expressions for `expr_create`, which reads attributes past the property call.
const EXPRESSIONS: &[&str] = &[
    "filter_state['envoy.tls.certificate_mappers.on_demand_secret']",
    "upstream_filter_state['envoy.tls.certificate_mappers.on_demand_secret']",
    "string(filter_state['envoy.tls.certificate_mappers.on_demand_secret'])",
    "filter_state",
    "xds.node",
];

const HEADERS: &[&str] = &["x-bouncer-facts", "x-bouncer-sds-key", "authorization", "x-leak"];

const NAMES: &[&str] = &["", "bouncer", "bouncer.tag", "bouncer.sds_key", "BOUNCER_SDS_KEY", SECRET_NAME];

/// A property's path as the ABI has it.
fn path(property: &str) -> String {
    match property.split_once('[') {
        Some((before, key)) => format!("{}\0{}", before.replace('.', "\0"), key.trim_end_matches(']')),
        None => property.replace('.', "\0"),
    }
}

/// Reads everything; tells each place, by name, with what was there.
pub(crate) fn walk(mut tell: impl FnMut(&str, Got)) {
    for map in 0..=7 {
        tell(&format!("headers {map}"), host::headers(map));
        for name in HEADERS {
            tell(&format!("header {map} {name}"), host::header(map, name));
        }
    }
    for buffer in 0..=8 {
        tell(&format!("buffer {buffer}"), host::buffer(buffer));
    }
    for property in PROPERTIES {
        tell(&format!("property {property}"), host::property(&path(property)));
        // Also as one step: names with dots are names too.
        tell(&format!("property '{property}'"), host::property(property));
    }
    for expression in EXPRESSIONS {
        let (status, token) = host::foreign("expr_create", expression.as_bytes());
        tell(&format!("create {expression}"), (status, token.clone()));
        tell(&format!("evaluate {expression}"), host::foreign("expr_evaluate", &token));
        host::foreign("expr_delete", &token);
    }
    for name in NAMES {
        tell(&format!("shared data {name}"), host::shared_data(name));
        for vm in ["", "bouncer"] {
            tell(&format!("shared queue {vm} {name}"), host::shared_queue(vm, name));
        }
        tell(&format!("metric {name}"), host::metric(name));
        tell(&format!("foreign {name}"), host::foreign(name, name.as_bytes()));
    }
    tell("status", host::status());
    tell("environment", host::environment());
    tell("arguments", host::arguments());
}
