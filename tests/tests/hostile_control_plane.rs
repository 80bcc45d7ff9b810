//! A control plane in hostile hands can deny service. It cannot send a credential elsewhere, give it to someone else, or
//! roll one back unseen: the resolver's own rails and memory stand against it.

use bouncer_custody::Reason;
use bouncer_proto::bridge::v1 as wire;
use bouncer_tests::client::{Client, Protocol};
use bouncer_tests::stack::{CART, Cluster, STRANGER, Stack};
use bouncer_tests::{Fault, Result};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// Pushes a snapshot and waits until the resolver has said what it makes of it: empty if taken, else why not.
async fn push(stack: &Stack, edit: impl FnOnce(&mut wire::Snapshot)) -> Result<String> {
    let bridge = stack.bridge()?;
    let answered = bridge.said().acks.len();
    bridge.push(edit);
    stack
        .until("the resolver's answer to a snapshot", SOON, || async {
            bridge.said().acks.get(answered).map(|ack| ack.refused.clone())
        })
        .await
}

/// Waits until a request has the expected end: `None` for success, else the reason of the denial.
async fn ends(stack: &Stack, client: &Client, path: &str, reason: Option<Reason>) -> Result<()> {
    let what = format!("{path} ends with {reason:?}");
    let ended = || async {
        let reply = client.get(path).await.ok()?;
        (reply.reason() == reason.map(Reason::code) && (reason.is_some() || reply.status == 200)).then_some(())
    };
    stack.until(what, Duration::from_secs(5), ended).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_can_neither_replay_nor_swap_a_snapshot() -> Result<()> {
    let stack = Stack::builder("replay").own_bridge().start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    assert_eq!(push(&stack, |snapshot| snapshot.resources.clear()).await?, "");
    ends(&stack, &client, "/", Some(Reason::NotRegistered)).await?;
    // The first snapshot again, with its resources, under its old epoch.
    assert_eq!(push(&stack, |snapshot| snapshot.epoch = 1).await?, "snapshot_replayed");
    let of_another =
        |snapshot: &mut wire::Snapshot| (snapshot.epoch, snapshot.bouncer) = (100, "payments-west".to_owned());
    assert_eq!(push(&stack, of_another).await?, "snapshot_of_another_bouncer");
    ends(&stack, &client, "/", Some(Reason::NotRegistered)).await?;
    stack.resolver()?.ready().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_can_neither_widen_the_callers_nor_move_a_credential_to_another_upstream() -> Result<()> {
    let other = Cluster { logical_paths: vec!["protected-resources/other/*".to_owned()], ..Cluster::new("other") };
    let stack = Stack::builder("widen").own_bridge().cluster(Cluster::new("payments")).cluster(other).start().await?;
    let taken = push(&stack, |snapshot| {
        let everyone = vec!["spiffe://example.org/*".to_owned()];
        for resource in &mut snapshot.resources {
            resource.callers.clone_from(&everyone);
        }
        let moved = snapshot.resources.first().cloned().map(|resource| wire::ProtectedResource {
            name: "moved".to_owned(),
            cluster: "other".to_owned(),
            ..resource
        });
        snapshot.resources.extend(moved);
    });
    assert_eq!(taken.await?, "");
    let client = stack.client(CART, Protocol::Http1)?;
    ends(&stack, &client, "/", None).await?;
    ends(&stack, &client, "/other/", Some(Reason::PathNotAllowed)).await?;
    ends(&stack, &stack.client(STRANGER, Protocol::Http1)?, "/", Some(Reason::CallerNotAllowed)).await?;
    assert_eq!(stack.upstream("other")?.connections(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_cannot_roll_a_credential_back_even_across_a_restart() -> Result<()> {
    let mut stack = Stack::builder("rollback").own_bridge().start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    ends(&stack, &client, "/", None).await?;
    let generation = |number: u64| {
        move |snapshot: &mut wire::Snapshot| snapshot.envelopes.iter_mut().for_each(|one| one.generation = number)
    };
    assert_eq!(push(&stack, generation(3)).await?, "");
    ends(&stack, &client, "/", None).await?;
    // The ack says that the resolver has it; the filter's cached decision goes a moment later.
    let used_third = || async {
        client.get("/").await.ok()?;
        let said = stack.bridge().ok()?.said();
        said.events.iter().any(|event| event.outcome == "inject" && event.generation == 3).then_some(())
    };
    stack.until("the use of generation 3", SOON, used_third).await?;

    assert_eq!(push(&stack, generation(2)).await?, "");
    ends(&stack, &client, "/", Some(Reason::RollbackRefused)).await?;
    stack.restart_resolver()?;
    stack.resolver()?.ready().await?;
    ends(&stack, &client, "/", Some(Reason::RollbackRefused)).await?;
    assert_eq!(push(&stack, generation(4)).await?, "");
    ends(&stack, &client, "/", None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_is_denied_within_a_second() -> Result<()> {
    let stack = Stack::builder("revoke").own_bridge().start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    ends(&stack, &client, "/", None).await?;
    push(&stack, |snapshot| snapshot.envelopes.clear()).await?;
    let start = std::time::Instant::now();
    ends(&stack, &client, "/", Some(Reason::EnvelopeMissing)).await?;
    let took = start.elapsed();
    if took > Duration::from_secs(1) { Err(Fault::new(format!("it took {took:?}"))) } else { Ok(()) }
}
