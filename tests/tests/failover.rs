//! The control plane behind several addresses: when one goes, the resolver is at another at once, and its policy stays in
//! use meanwhile.

use bouncer_tests::stack::Stack;
use bouncer_tests::{Fault, Result};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// From the end of one to a session on the other, in most rounds: the machine may be busy in one.
const QUICK: Duration = Duration::from_secs(3);
const DEADLINE: Duration = Duration::from_secs(20);

/// A load balancer's address in front of the control plane. Ending it cuts its connections.
struct Front {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Front {
    async fn start(at: &str, behind: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(at).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut outside, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut inside = TcpStream::connect(behind).await?;
                    tokio::io::copy_bidirectional(&mut outside, &mut inside).await
                });
            }
        });
        Ok(Self { address, task })
    }

    async fn end(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Which address the resolver is connected to, by its own word and by its metrics.
async fn connected(stack: &Stack) -> Result<Option<String>> {
    let resolver = stack.resolver()?;
    let (status, ready) = resolver.get("/readyz").await?;
    assert!(status.is_success(), "the policy stays in use: {ready}");
    let ready: serde_json::Value = serde_json::from_str(&ready)?;
    let Some(address) = ready["control_plane"].as_str() else { return Ok(None) };
    let metric = format!("bouncer_resolver_bridge_front{{address=\"{address}\"}}");
    Ok((resolver.metric(&metric).await? == Some(1)).then(|| address.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_one_address_goes_the_resolver_is_at_the_other_at_once() -> Result<()> {
    let mut stack = Stack::builder("failover").without_envoy().start().await?;
    let behind: SocketAddr = stack.control_plane()?.setup().bridge().parse()?;
    let (one, other) = (Front::start("127.0.0.1:0", behind).await?, Front::start("127.0.0.1:0", behind).await?);
    let addresses = vec![one.address.to_string(), other.address.to_string()];
    let mut fronts = vec![one, other];
    stack
        .reconfigure_resolver(|setup| {
            if let Some(bridge) = setup.config.get_mut("bridge").and_then(toml::Value::as_table_mut) {
                bridge.remove("address");
            }
            setup.set("bridge.addresses", addresses.clone());
        })
        .await?;
    let (mut used, mut took) = (HashSet::new(), vec![]);
    for _ in 0..4 {
        let is_connected = || async { connected(&stack).await.ok().flatten() };
        let at = stack.until("a connection", DEADLINE, is_connected).await?;
        let gone = fronts.iter().position(|front| front.address.to_string() == at);
        let gone = fronts.remove(gone.ok_or_else(|| Fault::new(format!("{at} is none of the addresses")))?);
        used.insert(at.clone());
        gone.end().await;
        let start = Instant::now();
        let is_elsewhere = || async { connected(&stack).await.ok().flatten().filter(|now| *now != at) };
        stack.until("a connection to the other address", DEADLINE, is_elsewhere).await?;
        took.push(start.elapsed());
        // It is a whole session: what changes now arrives.
        let before = stack.resolver()?.metric("bouncer_resolver_policy_epoch").await?;
        stack.api()?.set_flag(false).await?;
        stack.api()?.set_flag(true).await?;
        let taken = || async {
            let now = stack.resolver().ok()?.metric("bouncer_resolver_policy_epoch").await.ok()?;
            (now > before).then_some(())
        };
        stack.until("the change", DEADLINE, taken).await?;
        stack.resolver()?.ready().await?;
        // The one that went comes back, for the next round.
        fronts.push(Front::start(&at, behind).await?);
    }
    assert_eq!(used.len(), 2, "both were used");
    took.sort();
    assert!(took[2] < QUICK, "{took:?}");
    Ok(())
}
