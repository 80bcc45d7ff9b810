//! `[telemetry]`, as it is written, and parsed.

use super::raw::{Faults, read_ca};
use serde::Deserialize;
use std::path::PathBuf;

/// Where the spans of decisions go.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// A collector that takes OTLP by gRPC, such as `https://collector.example.org:4317`.
    pub endpoint: String,
    /// The CA certificates of the collector, PEM; `None` for the system's.
    pub ca: Option<Vec<u8>>,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTelemetry {
    otlp_endpoint: String,
    ca_file: Option<PathBuf>,
}

impl RawTelemetry {
    pub(super) fn parse(self, dev: bool, faults: &mut Faults) -> Option<TelemetryConfig> {
        let fits = self.otlp_endpoint.parse::<http::Uri>().is_ok_and(|url| {
            let loopback = matches!(url.host(), Some("localhost" | "127.0.0.1" | "[::1]"));
            let plain = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
            plain
                && matches!(url.path(), "" | "/")
                && match url.scheme_str() {
                    Some("https") => true,
                    Some("http") => dev && loopback,
                    _ => false,
                }
        });
        if !fits {
            faults.rule(
                "telemetry.otlp_endpoint",
                "must be https://host:port (plain http works only under --dev, and only to loopback)",
            );
        }
        let ca = self.ca_file.map(|path| read_ca(&path, "telemetry", faults));
        fits.then_some(TelemetryConfig { endpoint: self.otlp_endpoint, ca: ca.flatten() })
    }
}
