//! The resolver is killed and started again under traffic; Envoy is never touched.

use bouncer_custody::Reason;
use bouncer_tests::Result;
use bouncer_tests::client::Protocol;
use bouncer_tests::stack::{CART, Credential, Stack};
use bouncer_tests::traffic::Traffic;
use std::time::{Duration, Instant};

fn counts(traffic: &[Traffic]) -> Vec<usize> {
    traffic.iter().map(Traffic::count).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_traffic_warm_routes_go_on_cold_ones_fail_closed_and_all_recovers() -> Result<()> {
    const ROUNDS: usize = 50;
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
    let mut recoveries = vec![];
    for round in 0..ROUNDS {
        let cold = stack.client(&cold_caller(round), Protocol::Http1)?;
        stack.kill_resolver();
        let before: usize = traffic.iter().map(Traffic::count).sum();
        let reply = cold.get_within("/", Duration::from_secs(1)).await?;
        assert_eq!(reply.reason(), Some(Reason::ResolverUnavailable.code()), "round {round}: {}", reply.status);
        let more = || async { (traffic.iter().map(Traffic::count).sum::<usize>() > before + 40).then_some(()) };
        stack.until("warm traffic without a resolver", Duration::from_secs(10), more).await?;

        stack.restart_resolver_until_ready().await?;
        let ready = Instant::now();
        let recovered = || cold.serves();
        stack.until(format!("recovery {round}"), Duration::from_secs(15), recovered).await?;
        recoveries.push(ready.elapsed());
        // A VM whose watch is back has flushed its cache, and is warm again only after its next request. Two watches: the
        // worker's and the main thread's.
        let watching = || async {
            let waiting = stack.resolver().ok()?.metric("bouncer_resolver_watches").await.ok()??;
            (waiting >= 2).then_some(())
        };
        stack.until("all watches", Duration::from_secs(10), watching).await?;
        let before = counts(&traffic);
        let warmed = || async { counts(&traffic).iter().zip(&before).all(|(now, then)| *now > then + 5).then_some(()) };
        stack.until("warm traffic with the resolver back", Duration::from_secs(10), warmed).await?;
    }
    recoveries.sort();
    assert!(recoveries[ROUNDS / 2] < Duration::from_secs(1), "half of them are quick: {recoveries:?}");
    for part in traffic {
        part.end().await?.only_good(&stack)?;
    }
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}
