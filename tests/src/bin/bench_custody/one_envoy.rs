//! Many secrets on one Envoy, each for a caller of its own: whether they come up, and come up again when the resolver is
//! killed.

use crate::fleet::{self, Secret};
use crate::progress;
use bouncer_tests::client::{Client, Protocol};
use bouncer_tests::envoy::{Envoy, Version, at};
use bouncer_tests::stack::Stack;
use bouncer_tests::{Fault, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Callers at a time.
const CALLERS: usize = 8;
const START: Duration = Duration::from_secs(60);

/// What was seen.
#[derive(Debug, Serialize)]
pub(crate) struct OneEnvoy {
    /// Callers, each with its own credential.
    pub secrets: usize,
    /// Client certificates that Envoy held at once.
    pub certificates: u64,
    /// SDS streams at once, the validation context's among them.
    pub streams: u64,
    /// Subscriptions that Envoy gave up waiting for.
    pub init_timeouts: u64,
    /// Seconds until each caller had its answer.
    pub up_s: f64,
    /// Seconds from the restarted resolver's readiness until every stream was back.
    pub back_s: f64,
    /// Calls to KMS that the restart cost.
    pub unwraps_after_restart: usize,
}

/// Starts Envoy on a fresh resolver, lets each caller through once, and kills the resolver.
///
/// # Errors
/// If one caller is not let through, or a stream does not come back.
pub(crate) async fn measure(stack: &mut Stack, secrets: &[Secret]) -> Result<OneEnvoy> {
    stack.fresh_resolver().await?;
    fleet::push(stack, secrets).await?;
    let key = stack.resolver()?.setup().sds_key.clone();
    let upstream = stack.upstream("payments")?.address();
    stack.rendered.bootstrap.point("payments", upstream)?;
    let limit = at(stack.rendered.bootstrap.cluster("payments")?, "circuit_breakers.thresholds.0.max_connections")?;
    // A connection for each credential.
    *limit = 20_000.into();
    let envoy = Envoy::start(&stack.scratch, Version::Current, &stack.rendered, Some(&key), 2).await?;

    let start = Instant::now();
    let call = |secret: &'_ Secret| {
        let client = stack.identities.mint(&secret.caller).and_then(|identity| {
            Client::new(envoy.listener(), stack.server_ca.pem(), Some(&identity), Protocol::Http1Once)
        });
        async move {
            let answer = client?.get("/").await?;
            match (answer.status.as_u16(), answer.reason()) {
                (200, _) => Ok(()),
                (status, reason) => Err(Fault::new(format!("a caller was answered {status} {reason:?}"))),
            }
        }
    };
    stream::iter(secrets.iter().map(call)).buffer_unordered(CALLERS).try_for_each(|()| async { Ok(()) }).await?;
    let up = start.elapsed();
    let certificates = envoy.stat("cluster.payments.on_demand_secret.cert_active").await?;
    let before = streams(stack).await?;
    progress(format_args!("one Envoy holds {certificates} certificates on {before} SDS streams"));

    let unwraps = stack.kms.proxy().count("Decrypt");
    stack.restart_resolver_until_ready().await?;
    let start = Instant::now();
    let back = || async { (streams(stack).await.ok()? >= before).then_some(()) };
    stack.until("every SDS stream to be back", START, back).await?;
    let back = start.elapsed();
    progress(format_args!("killed and started again, every stream is back after {:.1} s", back.as_secs_f64()));
    let init_timeouts = total(&envoy.admin("/stats?filter=init_fetch_timeout").await?);
    Ok(OneEnvoy {
        secrets: secrets.len(),
        certificates,
        streams: before,
        init_timeouts,
        up_s: up.as_secs_f64(),
        back_s: back.as_secs_f64(),
        unwraps_after_restart: stack.kms.proxy().count("Decrypt") - unwraps,
    })
}

async fn streams(stack: &Stack) -> Result<u64> {
    let streams = stack.resolver()?.metric("bouncer_resolver_sds_streams").await?;
    streams.ok_or_else(|| Fault::new("no metric of the SDS streams"))
}

/// The sum of all counters.
fn total(stats: &str) -> u64 {
    stats.lines().filter_map(|line| line.rsplit(": ").next()?.parse::<u64>().ok()).sum()
}
