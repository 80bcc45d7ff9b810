//! What the spy knows beforehand: all that an insider without the SDS key could know.

use serde::Deserialize;

/// The plugin's configuration, JSON.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Whether it forges instead of spying.
    #[serde(default)]
    pub(crate) forger: bool,
    /// Envoy's clusters that are protected.
    #[serde(default)]
    pub(crate) clusters: Vec<String>,
    /// The callers that have credentials.
    #[serde(default)]
    pub(crate) callers: Vec<String>,
    /// Keys of SDS names to try. Only a control gives the right one.
    #[serde(default)]
    pub(crate) keys: Vec<String>,
    /// The path of the SDS socket.
    #[serde(default)]
    pub(crate) sds_socket: String,
    /// A server of the spy's own, `host:port`.
    #[serde(default)]
    pub(crate) own_server: String,
    /// The authority of that server's certificate, PEM.
    #[serde(default)]
    pub(crate) own_ca: String,
    /// Files that Envoy may be able to read.
    #[serde(default)]
    pub(crate) files: Vec<String>,
}
