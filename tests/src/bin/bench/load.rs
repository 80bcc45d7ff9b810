//! One slice of load on one variant.

use crate::Args;
use crate::cores;
use bouncer_tests::{Fault, Result, fault::Doing as _, tools};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// What a slice gave.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Slice {
    /// Requests that were answered.
    pub requests: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Median latency, microseconds.
    pub p50_us: f64,
    /// 99th percentile of latency, microseconds.
    pub p99_us: f64,
    /// Envoy's processor time for a request, microseconds.
    pub envoy_cpu_us: f64,
    /// The same of the resolver, or of the ext_authz server.
    pub server_cpu_us: f64,
    /// Answers other than 2xx and 3xx, and failed connections.
    pub bad: u64,
}

impl Slice {
    /// Requests a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// Processor time for a request, of all that belongs to the variant.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.envoy_cpu_us + self.server_cpu_us
    }

    /// How much of its core Envoy used. Well below 1, something else was the limit.
    pub(crate) fn busy(&self) -> f64 {
        self.envoy_cpu_us * self.requests as f64 / self.seconds / 1e6
    }
}

/// What `tests/bench/report.lua` prints.
#[derive(Deserialize)]
struct Said {
    requests: u64,
    duration_us: u64,
    p50_us: f64,
    p99_us: f64,
    not_ok: u64,
    failed: u64,
}

/// Loads a listener for one slice. `envoy` and `server` are the processes whose time is counted.
///
/// # Errors
/// If the load generator is not installed, or nobody answers.
pub(crate) async fn slice(listener: SocketAddr, envoy: u32, server: Option<u32>, args: &Args) -> Result<Slice> {
    let mut command = tokio::process::Command::new(wrk());
    command.args(["-t1", "--latency"]).arg(format!("-c{}", args.connections)).arg(format!("-d{}s", args.slice));
    command.arg("-s").arg(tools::root().join("tests/bench/report.lua")).arg(format!("http://{listener}/"));
    command.kill_on_drop(true);
    let server_used = || server.map(cores::used).transpose();
    let (envoy_before, server_before) = (cores::used(envoy)?, server_used()?);
    let output = command.output().await.doing("starting wrk, which `scripts/tools wrk` installs")?;
    let (envoy_after, server_after) = (cores::used(envoy)?, server_used()?);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = text.lines().find_map(|line| line.strip_prefix("SLICE "));
    let said: Said = serde_json::from_str(said.ok_or_else(|| {
        Fault::new("wrk said nothing").with_evidence(&text).with_evidence(String::from_utf8_lossy(&output.stderr))
    })?)?;
    if said.requests == 0 {
        return Err(Fault::new(format!("{listener} answered nothing")).with_evidence(text));
    }
    let each = |used: std::time::Duration| used.as_secs_f64() * 1e6 / said.requests as f64;
    let server = server_before.zip(server_after).map_or(0.0, |(before, after)| each(after.saturating_sub(before)));
    Ok(Slice {
        requests: said.requests,
        seconds: said.duration_us as f64 / 1e6,
        p50_us: said.p50_us,
        p99_us: said.p99_us,
        envoy_cpu_us: each(envoy_after.saturating_sub(envoy_before)),
        server_cpu_us: server,
        bad: said.not_ok + said.failed,
    })
}

/// The pinned one, or the system's.
fn wrk() -> PathBuf {
    tools::tool("wrk").unwrap_or_else(|_| PathBuf::from("wrk"))
}
