//! The variants: the shipped bootstrap, and what is left out of it or put in its place.

use crate::Args;
use bouncer_tests::envoy::{Bootstrap, at};
use bouncer_tests::{Fault, Result};
use clap::ValueEnum;
use serde_norway::Value;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Plain Envoy with a static client certificate.
    Plain,
    /// With Envoy's own filters of ours: the facts header and the secret's name.
    Native,
    /// With a wasm filter between them that does nothing.
    EmptyWasm,
    /// The shipped bootstrap.
    Bouncer,
    /// Plain Envoy with ext_authz.
    ExtAuthz,
    /// With ext_authz that gives the tag, and the secret's name made of it.
    ExtAuthzTag,
}

/// Files and addresses that variants are made of.
pub(crate) struct Parts {
    /// The upstream.
    pub upstream: SocketAddr,
    /// A static client certificate and its key, and the CA of the upstream.
    pub static_tls: [PathBuf; 3],
    /// A wasm module that does nothing.
    pub empty_wasm: PathBuf,
    /// The ext_authz server's socket.
    pub authz_socket: PathBuf,
}

/// A tag as long as a real one.
pub(crate) const TAG: &str = "protected-resources/payments-api/upstream-tls@1.0123456789abcdef";

const KEYED: &str = "%ENVIRONMENT(BOUNCER_SDS_KEY)%/";
const SELECTOR: &str = "custom_tls_certificate_selector";
const TLS: &str = "transport_socket.typed_config.common_tls_context";

impl Kind {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 6] =
        [Self::Plain, Self::Native, Self::EmptyWasm, Self::Bouncer, Self::ExtAuthz, Self::ExtAuthzTag];

    /// Its word.
    pub(crate) const fn id(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Native => "native",
            Self::EmptyWasm => "empty-wasm",
            Self::Bouncer => "bouncer",
            Self::ExtAuthz => "ext-authz",
            Self::ExtAuthzTag => "ext-authz-tag",
        }
    }

    /// What it is, for people.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Plain => "(a) plain Envoy, static certificate",
            Self::Native => "(a) + Bouncer's native filters",
            Self::EmptyWasm => "(a) + those + empty wasm filter",
            Self::Bouncer => "Bouncer, as shipped",
            Self::ExtAuthz => "(b) = (a) + ext_authz",
            Self::ExtAuthzTag => "(b) + tag as secret name",
        }
    }

    /// Turns the shipped bootstrap, its values already set, into this variant.
    ///
    /// # Errors
    /// If the shipped file is no longer what this expects.
    pub(crate) fn edit(self, bootstrap: &mut Bootstrap, parts: &Parts, args: &Args) -> Result<()> {
        plain_listener(bootstrap)?;
        bootstrap.point("payments", parts.upstream)?;
        if !args.access_log {
            remove(bootstrap.connection_manager()?, "access_log")?;
        }
        if self == Self::Bouncer {
            return inputs_in_place(bootstrap);
        }
        static_certificate(bootstrap, parts)?;
        let secret_name = match self {
            Self::Native | Self::EmptyWasm => Some(format!("{KEYED}{TAG}")),
            Self::ExtAuthzTag => Some(format!("{KEYED}%DYNAMIC_METADATA(envoy.filters.http.ext_authz:tag)%")),
            Self::Plain | Self::ExtAuthz | Self::Bouncer => None,
        };
        if let Some(name) = &secret_name {
            let format = "typed_config.on_request_headers.0.format_string.text_format_source.inline_string";
            *at(bootstrap.http_filter("bouncer.secret_name")?, format)? = name.as_str().into();
        } else {
            drop_filter(bootstrap, "bouncer.secret_name")?;
        }
        let facts = matches!(self, Self::Native | Self::EmptyWasm);
        if !facts {
            drop_filter(bootstrap, "bouncer.facts")?;
            remove(at(bootstrap.connection_manager()?, "route_config")?, "request_headers_to_remove")?;
            let host = at(bootstrap.connection_manager()?, "route_config.virtual_hosts.0")?;
            remove(host, "response_headers_to_remove")?;
        }
        if self == Self::EmptyWasm {
            empty_wasm(bootstrap, parts)?;
        } else {
            drop_filter(bootstrap, "bouncer")?;
        }
        if matches!(self, Self::ExtAuthz | Self::ExtAuthzTag) {
            ext_authz(bootstrap, parts)?;
        }
        if args.access_log {
            access_log_without_ours(bootstrap)?;
        }
        for ours in ["bouncer_intercept", "bouncer_sds"] {
            drop_named(bootstrap.at("static_resources.clusters")?, ours)?;
        }
        Ok(())
    }
}

/// Takes plain HTTP: the load generator has no client certificates.
fn plain_listener(bootstrap: &mut Bootstrap) -> Result<()> {
    let chain = bootstrap.at("static_resources.listeners.0.filter_chains.0")?;
    remove(chain, "transport_socket")?;
    remove(chain, "transport_socket_connect_timeout")
}

/// Everything by which the warm path is secure, as the shipped file must have it. Without one of them the numbers would
/// be of something else.
fn inputs_in_place(bootstrap: &mut Bootstrap) -> Result<()> {
    let names: Vec<_> = bootstrap.http_filters()?.iter().filter_map(|filter| filter["name"].as_str()).collect();
    let right = names == ["bouncer.facts", "bouncer", "bouncer.secret_name", "envoy.filters.http.router"];
    let facts = at(bootstrap.http_filter("bouncer.facts")?, "typed_config.mutations.request_mutations.0.append")?;
    let overwrites = facts["append_action"].as_str() == Some("OVERWRITE_IF_EXISTS_OR_ADD");
    let allowed = "typed_config.config.capability_restriction_config.allowed_capabilities";
    let allowed = at(bootstrap.http_filter("bouncer")?, allowed)?;
    let restricted =
        allowed.as_mapping().is_some_and(|allowed| !allowed.is_empty()) && allowed.get("proxy_get_property").is_none();
    let state = at(bootstrap.http_filter("bouncer.secret_name")?, "typed_config.on_request_headers.0")?;
    let hashable = state["factory_key"].as_str() == Some("envoy.hashable_string");
    let name = at(state, "format_string.text_format_source.inline_string")?;
    let keyed = name.as_str().is_some_and(|name| name.starts_with(KEYED) && name.contains("wasm.bouncer.tag"));
    let selected = at(bootstrap.cluster("payments")?, TLS)?.get(SELECTOR).is_some();
    let removed = at(bootstrap.connection_manager()?, "route_config.request_headers_to_remove")?;
    let removed = removed.as_sequence().is_some_and(|names| names.contains(&"x-bouncer-facts".into()));
    for (there, what) in [
        (right, "the four filters in their order"),
        (overwrites, "overwriting of the facts header"),
        (removed, "removal of the facts header"),
        (restricted, "the capability list"),
        (hashable, "the hashable name"),
        (keyed, "the key in the name"),
        (selected, "the certificate selector"),
    ] {
        if !there {
            return Err(Fault::new(format!("void: the shipped bootstrap lacks {what}")));
        }
    }
    Ok(())
}

/// The certificate in files, and the upstream's CA and name as the resolver's rails have them.
fn static_certificate(bootstrap: &mut Bootstrap, parts: &Parts) -> Result<()> {
    let tls = at(bootstrap.cluster("payments")?, TLS)?;
    remove(tls, SELECTOR)?;
    remove(tls, "validation_context_sds_secret_config")?;
    let [certificate, key, ca] = &parts.static_tls;
    tls["tls_certificates"] = serde_norway::from_str(&format!(
        "[{{certificate_chain: {{filename: {certificate:?}}}, private_key: {{filename: {key:?}}}}}]"
    ))?;
    tls["validation_context"] = serde_norway::from_str(&format!(
        "{{trusted_ca: {{filename: {ca:?}}}, \
         match_typed_subject_alt_names: [{{san_type: DNS, matcher: {{exact: {:?}}}}}]}}",
        bouncer_tests::stack::UPSTREAM_NAME
    ))?;
    Ok(())
}

fn empty_wasm(bootstrap: &mut Bootstrap, parts: &Parts) -> Result<()> {
    let config = at(bootstrap.http_filter("bouncer")?, "typed_config.config")?;
    *at(config, "vm_config.code.local.filename")? = parts.empty_wasm.display().to_string().into();
    // A configuration would need its memory.
    remove(config, "configuration")?;
    let allowed = at(config, "capability_restriction_config.allowed_capabilities")?;
    *allowed = serde_norway::from_str("{proxy_on_request_headers: {}}")?;
    Ok(())
}

/// The filter with its defaults, and its server's cluster in the likeness of the resolver's.
fn ext_authz(bootstrap: &mut Bootstrap, parts: &Parts) -> Result<()> {
    let mut cluster = bootstrap.cluster("bouncer_intercept")?.clone();
    cluster["name"] = "authz".into();
    *at(&mut cluster, "load_assignment.cluster_name")? = "authz".into();
    let pipe = at(&mut cluster, "load_assignment.endpoints.0.lb_endpoints.0.endpoint.address.pipe")?;
    pipe["path"] = parts.authz_socket.display().to_string().into();
    sequence(bootstrap.at("static_resources.clusters")?)?.push(cluster);
    let filter = serde_norway::from_str(
        r#"
        name: envoy.filters.http.ext_authz
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
          transport_api_version: V3
          grpc_service: { envoy_grpc: { cluster_name: authz }, timeout: 2s }
        "#,
    )?;
    bootstrap.http_filters()?.insert(0, filter);
    Ok(())
}

fn access_log_without_ours(bootstrap: &mut Bootstrap) -> Result<()> {
    let fields = at(bootstrap.connection_manager()?, "access_log.0.typed_config.log_format.json_format")?;
    ["bouncer_tag", "bouncer_decision", "bouncer_reason"].iter().try_for_each(|field| remove(fields, field))
}

fn drop_filter(bootstrap: &mut Bootstrap, name: &str) -> Result<()> {
    drop_named(at(bootstrap.connection_manager()?, "http_filters")?, name)
}

fn drop_named(list: &mut Value, name: &str) -> Result<()> {
    let list = sequence(list)?;
    let before = list.len();
    list.retain(|item| item["name"].as_str() != Some(name));
    if list.len() == before { Err(Fault::new(format!("the bootstrap has no {name}"))) } else { Ok(()) }
}

fn remove(node: &mut Value, key: &str) -> Result<()> {
    let removed = node.as_mapping_mut().and_then(|mapping| mapping.remove(key));
    removed.map(drop).ok_or_else(|| Fault::new(format!("the bootstrap has no {key}")))
}

fn sequence(node: &mut Value) -> Result<&mut Vec<Value>> {
    node.as_sequence_mut().ok_or_else(|| Fault::new("not a list in the bootstrap"))
}

/// A module in wasm's binary format that Envoy takes, and whose `proxy_on_request_headers` says Continue: the least
/// that any wasm filter costs.
pub(crate) fn empty_module() -> Vec<u8> {
    fn section(id: u8, items: &[Vec<u8>]) -> Vec<u8> {
        let content = [&[items.len() as u8][..], &items.concat()].concat();
        [&[id, content.len() as u8][..], &content].concat()
    }
    fn export(name: &str, kind: u8, index: u8) -> Vec<u8> {
        [&[name.len() as u8][..], name.as_bytes(), &[kind, index]].concat()
    }
    const I32: u8 = 0x7f;
    let types = [
        vec![0x60, 0, 0],
        vec![0x60, 1, I32, 1, I32],
        vec![0x60, 2, I32, I32, 0],
        vec![0x60, 3, I32, I32, I32, 1, I32],
    ];
    let (nothing, zero) = (vec![2, 0, 0x0b], vec![4, 0, 0x41, 0, 0x0b]);
    let exports = [
        export("memory", 2, 0),
        export("proxy_abi_version_0_2_1", 0, 0),
        export("proxy_on_memory_allocate", 0, 1),
        export("proxy_on_context_create", 0, 2),
        export("proxy_on_request_headers", 0, 3),
    ];
    [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, &types),
        section(3, &[vec![0], vec![1], vec![2], vec![3]]),
        section(5, &[vec![0, 1]]),
        section(7, &exports),
        section(10, &[nothing.clone(), zero.clone(), nothing, zero]),
    ]
    .concat()
}
