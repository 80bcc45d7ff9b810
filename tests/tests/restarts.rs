//! The resolver is killed and started again under traffic; Envoy is never touched.

use bouncer_custody::Reason;
use bouncer_tests::client::{Client, Protocol};
use bouncer_tests::stack::{CART, Credential, Stack};
use bouncer_tests::{Fault, Result};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Statuses and reasons, counted.
type Tally = BTreeMap<(u16, Option<String>), usize>;

/// Requests, one after the other, until it is stopped.
struct Traffic {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Traffic {
    fn start(client: Client) -> Self {
        let (tally, stop) = (Arc::new(Mutex::new(Tally::new())), Arc::new(AtomicBool::new(false)));
        let (count, ended) = (Arc::clone(&tally), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                let key = match client.get("/").await {
                    Ok(reply) => (reply.status.as_u16(), reply.reason().map(str::to_owned)),
                    Err(fault) => (0, Some(fault.what().to_owned())),
                };
                *count.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
            }
        });
        Self { tally, stop, task }
    }

    fn count(&self) -> usize {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    async fn end(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?;
        Ok(std::mem::take(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn counts(traffic: &[Traffic]) -> Vec<usize> {
    traffic.iter().map(Traffic::count).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_traffic_warm_routes_go_on_cold_ones_fail_closed_and_all_recovers() -> Result<()> {
    const ROUNDS: usize = 5;
    let cold_caller = |round: usize| format!("spiffe://example.org/ns/shop/sa/cold-{round}");
    // One worker: with two, which of them a new connection reaches, and so which cache it warms, is chance.
    let mut builder =
        Stack::builder("restarts").workers(1).credential(Credential::new("warm", "payments").callers(&[CART]));
    for round in 0..ROUNDS {
        let credential = Credential::new(&format!("cold-{round}"), "payments").callers(&[&cold_caller(round)]);
        builder = builder.credential(credential);
    }
    let mut stack = builder.start().await?;
    let mut traffic = vec![];
    for protocol in [Protocol::Http1, Protocol::Http1, Protocol::Http1Once, Protocol::Http2] {
        let client = stack.client(CART, protocol)?;
        assert_eq!(client.get("/").await?.status, 200);
        traffic.push(Traffic::start(client));
    }
    for round in 0..ROUNDS {
        let cold = stack.client(&cold_caller(round), Protocol::Http1)?;
        stack.kill_resolver();
        let before: usize = traffic.iter().map(Traffic::count).sum();
        let reply = cold.get("/").await?;
        assert_eq!(reply.reason(), Some(Reason::ResolverUnavailable.code()), "round {round}: {}", reply.status);
        assert!(reply.took < Duration::from_secs(1), "round {round}: {:?}", reply.took);
        let more = || async { (traffic.iter().map(Traffic::count).sum::<usize>() > before + 40).then_some(()) };
        stack.until("warm traffic without a resolver", Duration::from_secs(10), more).await?;

        stack.restart_resolver()?;
        stack.resolver()?.ready().await?;
        let recovered = || async { (cold.get("/").await.ok()?.status == 200).then_some(()) };
        stack.until(format!("recovery {round}"), Duration::from_secs(3), recovered).await?;
        // A VM whose watch is back has flushed its cache, and is warm again only after its next request. Two watches: the
        // worker's and the main thread's.
        let watching = || async {
            let (_, metrics) = stack.resolver().ok()?.get("/metrics").await.ok()?;
            let waiting = metrics.lines().find_map(|line| line.strip_prefix("bouncer_resolver_watches "))?;
            (waiting.parse::<u64>().ok()? >= 2).then_some(())
        };
        stack.until("all watches", Duration::from_secs(10), watching).await?;
        let before = counts(&traffic);
        let warmed = || async { counts(&traffic).iter().zip(&before).all(|(now, then)| *now > then + 5).then_some(()) };
        stack.until("warm traffic with the resolver back", Duration::from_secs(10), warmed).await?;
    }
    for part in traffic {
        let tally = part.end().await?;
        let only_good = tally.len() == 1 && tally.contains_key(&(200, None));
        if !only_good {
            return Err(Fault::new(format!("warm traffic saw {tally:?}")).with_evidence(stack.scratch.log_tails()));
        }
    }
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}
