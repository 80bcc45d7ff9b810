//! Credentials are revoked again and again while requests come, end and are given up at every moment: Envoy survives it.
//!
//! For a moment after a stream's end Envoy still finds it by its number, and crashes over a filter that resumes, answers
//! or resets it then. Nothing but a good many tries finds a filter that does.

use bouncer_tests::client::{Client, Protocol};
use bouncer_tests::stack::{CART, Cluster, Credential, Stack};
use bouncer_tests::{Fault, Result};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const ROUNDS: usize = 30;
const SOON: Duration = Duration::from_secs(10);

/// Requests, one after the other, until it is stopped: how many were answered, by status. With a `patience`, each is
/// given up after a while, between nothing and so long.
async fn traffic(client: Client, patience: Option<Duration>, stop: Arc<AtomicBool>) -> BTreeMap<u16, usize> {
    let mut tally = BTreeMap::new();
    let mut step = 0;
    while !stop.load(Ordering::Relaxed) {
        let reply = match patience {
            None => client.get("/").await,
            Some(longest) => {
                step = (step + 7) % 32;
                let given_up = |_| Err(Fault::new("given up"));
                tokio::time::timeout(longest * step / 32, client.get("/")).await.unwrap_or_else(given_up)
            }
        };
        *tally.entry(reply.map_or(0, |reply| reply.status.as_u16())).or_default() += 1;
    }
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_survives_whatever_ends_at_the_moment_of_a_revocation() -> Result<()> {
    let builder = Stack::builder("revocations").own_bridge().workers(2).cluster(Cluster::new("payments"));
    let stack = builder.credential(Credential::new("payments-api", "payments").callers(&[CART])).start().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut running = vec![];
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http1Once] {
        for patience in [None, None, Some(Duration::from_millis(2)), Some(Duration::from_millis(8))] {
            let client = stack.client(CART, protocol)?;
            running.extend((0..4).map(|_| tokio::spawn(traffic(client.clone(), patience, Arc::clone(&stop)))));
        }
    }
    let probe = stack.client(CART, Protocol::Http1)?;
    let answers = |status: u16| {
        let probe = &probe;
        async move { (probe.get("/").await.ok()?.status == status).then_some(()) }
    };
    for round in 0..ROUNDS {
        stack.until(format!("a credential in round {round}"), SOON, || answers(200)).await?;
        let mut taken = vec![];
        stack.bridge()?.push(|snapshot| taken = std::mem::take(&mut snapshot.envelopes));
        stack.until(format!("its end in round {round}"), SOON, || answers(503)).await?;
        stack.bridge()?.push(|snapshot| snapshot.envelopes = taken);
    }
    stack.until("the last one", SOON, || answers(200)).await?;
    stop.store(true, Ordering::Relaxed);
    let tallies = join_all(running).await.into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
    let of = |status: u16| tallies.iter().filter_map(|tally| tally.get(&status)).sum::<usize>();
    assert!(of(200) > 1_000 && of(503) > 100 && of(0) > 1_000, "too little happened: {tallies:?}");
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}
