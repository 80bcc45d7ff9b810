//! A control plane in hostile hands can deny service. It cannot send a credential elsewhere, give it to someone else, or
//! roll one back unseen: the resolver's own rails and memory stand against it.

use bouncer_custody::Reason;
use bouncer_proto::bridge::v1 as wire;
use bouncer_proto::bridge::v1::control_message::Body;
use bouncer_tests::client::{Client, Protocol};
use bouncer_tests::intercept::Decider;
use bouncer_tests::stack::{AAD, CART, Cluster, Credential, STRANGER, Stack};
use bouncer_tests::{Fault, Result};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

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
    stack.until(what, SOON, ended).await
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
async fn it_can_neither_replay_nor_forge_a_delta() -> Result<()> {
    let stack = Stack::builder("delta").own_bridge().start().await?;
    let (bridge, client) = (stack.bridge()?, stack.client(CART, Protocol::Http1)?);
    ends(&stack, &client, "/", None).await?;
    let answer = |delta: wire::PolicyDelta| {
        let (stack, answered) = (&stack, bridge.said().acks.len());
        bridge.send(Body::Delta(delta));
        stack.until("the resolver's answer to a delta", SOON, move || async move {
            Some(stack.bridge().ok()?.said().acks.get(answered)?.refused.clone())
        })
    };
    let first = bridge.snapshot();
    let second = wire::Snapshot { epoch: first.epoch + 1, resources: vec![], ..first.clone() };
    let outline = bouncer_proto::Outline::of;
    let delta = |from: &wire::Snapshot, to: &wire::Snapshot| {
        let delta = wire::PolicyDelta::between(from.epoch, &outline(from), to.clone(), &outline(to));
        delta.ok_or_else(|| Fault::new("no delta"))
    };
    let good = delta(&first, &second)?;
    assert_eq!(answer(wire::PolicyDelta { from_epoch: 0, ..good.clone() }).await?, "delta_of_another_base");
    assert_eq!(answer(wire::PolicyDelta { epoch: first.epoch, ..good.clone() }).await?, "snapshot_replayed");
    assert_eq!(
        answer(wire::PolicyDelta { bouncer: "payments-west".into(), ..good.clone() }).await?,
        "snapshot_of_another_bouncer"
    );
    assert_eq!(answer(wire::PolicyDelta { digest: vec![0; 32], ..good.clone() }).await?, "delta_diverged");
    let unknown = vec!["protected-resources/not/here".to_owned()];
    assert_eq!(answer(wire::PolicyDelta { removed_envelopes: unknown, ..good.clone() }).await?, "delta_malformed");
    assert_eq!(client.get("/").await?.status, 200, "the policy in use stays");
    // The control: the good one is taken, and then no longer.
    assert_eq!(answer(good.clone()).await?, "");
    ends(&stack, &client, "/", Some(Reason::NotRegistered)).await?;
    assert_eq!(answer(good).await?, "delta_of_another_base");
    // Nor is the way back open.
    assert_eq!(answer(delta(&second, &first)?).await?, "snapshot_replayed");
    assert_eq!(bridge.said().resyncs, 1, "the whole is asked for once in a stream");
    ends(&stack, &client, "/", Some(Reason::NotRegistered)).await?;
    // One that never ends costs the connection, and nothing else.
    let connections = bridge.said().hellos.len();
    let endless = wire::PolicyDelta { from_epoch: 2, epoch: 3, more: true, ..wire::PolicyDelta::default() };
    let given_up = || async {
        (0..32).for_each(|_| bridge.send(Body::Delta(endless.clone())));
        (bridge.said().hellos.len() > connections).then_some(())
    };
    stack.until("the end of the connection", Duration::from_secs(60), given_up).await?;
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
    stack.restart_resolver_until_ready().await?;
    ends(&stack, &client, "/", Some(Reason::RollbackRefused)).await?;
    assert_eq!(push(&stack, generation(4)).await?, "");
    ends(&stack, &client, "/", None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_revoked_is_denied_within_a_second() -> Result<()> {
    let stack = Stack::builder("revoke").own_bridge().start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    ends(&stack, &client, "/", None).await?;
    // The quickest of three, since the machine has other things to do as well.
    let mut took = vec![];
    for _ in 0..3 {
        let mut taken = vec![];
        push(&stack, |snapshot| taken = std::mem::take(&mut snapshot.envelopes)).await?;
        let start = Instant::now();
        ends(&stack, &client, "/", Some(Reason::EnvelopeMissing)).await?;
        let ended = start.elapsed();
        if ended < Duration::from_secs(1) {
            return Ok(());
        }
        took.push(ended);
        push(&stack, |snapshot| snapshot.envelopes = taken).await?;
        ends(&stack, &client, "/", None).await?;
    }
    Err(Fault::new(format!("it took {took:?}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_cannot_have_events_dropped_that_it_was_never_sent() -> Result<()> {
    const DECISIONS: u64 = 300;
    let stack = Stack::builder("false-acks").own_bridge().without_envoy().start().await?;
    let mut decider = Decider::at(&stack.resolver()?.setup().intercept_socket).await?;
    for _ in 0..DECISIONS {
        stack.bridge()?.send(Body::AuditAck(wire::AuditAck { sequence: u64::MAX }));
        decider.decide(CART).await?;
    }
    let all = || async {
        let said = stack.bridge().ok()?.said();
        let sequences: BTreeSet<u64> = said.events.iter().map(|event| event.sequence).collect();
        (1..=DECISIONS).all(|sequence| sequences.contains(&sequence)).then_some(())
    };
    stack.until("every event", SOON, all).await
}

/// Everything in the AAD, for one resource and its cluster.
fn bound(stack: &Stack, resource: &str, cluster: &str, generation: Option<u64>) -> Result<Credential> {
    let upstream = stack.upstream(cluster)?.address();
    let mut aad = format!("env=production,bouncer=payments-east,upstream={upstream},caller={CART}");
    if let Some(generation) = generation {
        aad.push_str(&format!(",generation={generation}"));
    }
    Ok(Credential::new(resource, cluster).aad(&aad))
}

/// Wraps a credential; gives it as the control plane would push it.
async fn envelope(stack: &Stack, credential: &Credential, generation: u64) -> Result<wire::Envelope> {
    let (_, body) = credential.wrap(&stack.kms, &stack.key_arn, None, &stack.customer_ca).await?;
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    Ok(wire::Envelope {
        logical_path: text("logical_path"),
        generation,
        provider: text("provider"),
        key_id: text("key_id"),
        ciphertext_ref: text("ciphertext_ref"),
        aad: body["aad"].as_str().map(str::to_owned),
        ..wire::Envelope::default()
    })
}

/// Waits for a denial or a refused rotation of this reason in the audit.
async fn audited(stack: &Stack, reason: Reason) -> Result<()> {
    let of = |event: &serde_json::Value| {
        event["reason"] == reason.code() && (event["outcome"] == "deny" || event["outcome"] == "rotate")
    };
    stack.audited(reason.code(), of).await.map(drop)
}

/// A stack of two clusters, each with a credential that its AAD binds whole; no rails for callers or paths.
async fn two_bound(scenario: &str) -> Result<Stack> {
    let loose = |name: &str| Cluster { callers: vec![], logical_paths: vec![], ..Cluster::new(name) };
    let stack = Stack::builder(scenario)
        .own_bridge()
        .workers(1)
        .cluster(loose("payments"))
        .cluster(loose("ledger"))
        .credential(Credential::new("payments-api", "payments"))
        .credential(Credential::new("ledger-api", "ledger"))
        .start()
        .await?;
    let payments = envelope(&stack, &bound(&stack, "payments-api", "payments", None)?, 2).await?;
    let ledger = envelope(&stack, &bound(&stack, "ledger-api", "ledger", None)?, 2).await?;
    push(&stack, |snapshot| snapshot.envelopes = vec![payments, ledger]).await?;
    let client = stack.client(CART, Protocol::Http1)?;
    ends(&stack, &client, "/", None).await?;
    ends(&stack, &client, "/ledger/", None).await?;
    Ok(stack)
}

/// Each upstream was only ever shown its own credential.
fn nothing_went_astray(stack: &Stack) -> Result<()> {
    for (cluster, own) in [("payments", "payments-api"), ("ledger", "ledger-api")] {
        for seen in stack.upstream(cluster)?.requests() {
            let shown = seen.peer.map(|peer| peer.common_name);
            assert_eq!(shown.as_deref(), Some(own), "{cluster}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_cannot_put_one_credential_in_the_place_of_another() -> Result<()> {
    let stack = two_bound("swap").await?;
    let client = stack.client(CART, Protocol::Http1)?;
    // The ciphertexts alone: KMS does not open one under the other's context.
    push(&stack, |snapshot| {
        let [first, second] = &mut snapshot.envelopes[..] else { return };
        std::mem::swap(&mut first.ciphertext_ref, &mut second.ciphertext_ref);
        (first.generation, second.generation) = (3, 3);
    })
    .await?;
    audited(&stack, Reason::KmsInvalidCiphertext).await?;
    ends(&stack, &client, "/", None).await?;
    // With their contexts: those name another upstream.
    push(&stack, |snapshot| {
        let [first, second] = &mut snapshot.envelopes[..] else { return };
        std::mem::swap(&mut first.aad, &mut second.aad);
        (first.generation, second.generation) = (4, 4);
    })
    .await?;
    audited(&stack, Reason::BindingUpstream).await?;
    ends(&stack, &client, "/", None).await?;
    ends(&stack, &client, "/ledger/", None).await?;
    nothing_went_astray(&stack)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_cannot_use_a_generations_number_for_other_content() -> Result<()> {
    let stack = two_bound("reuse").await?;
    let client = stack.client(CART, Protocol::Http1)?;
    let other = envelope(&stack, &bound(&stack, "payments-api", "payments", None)?, 2).await?;
    push(&stack, |snapshot| snapshot.envelopes[0] = other).await?;
    ends(&stack, &client, "/", Some(Reason::RollbackRefused)).await?;
    audited(&stack, Reason::RollbackRefused).await?;
    nothing_went_astray(&stack)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_cannot_replay_an_old_generation_to_a_fresh_resolver_where_the_aad_names_it() -> Result<()> {
    let mut stack = two_bound("replay-fresh").await?;
    let client = stack.client(CART, Protocol::Http1)?;
    let old = envelope(&stack, &bound(&stack, "payments-api", "payments", Some(3))?, 3).await?;
    let new = envelope(&stack, &bound(&stack, "payments-api", "payments", Some(4))?, 4).await?;
    for envelope in [old.clone(), new] {
        push(&stack, |snapshot| snapshot.envelopes[0] = envelope).await?;
        ends(&stack, &client, "/", None).await?;
    }
    stack.kill_resolver();
    std::fs::remove_dir_all(stack.scratch.file("resolver"))?;
    stack.bridge()?.push(|snapshot| snapshot.envelopes[0] = wire::Envelope { generation: 5, ..old.clone() });
    stack.restart_resolver_until_ready().await?;
    ends(&stack, &client, "/", Some(Reason::BindingGeneration)).await?;
    audited(&stack, Reason::BindingGeneration).await?;
    // The control, and the limit: under its own number a fresh resolver cannot know that there was a newer one.
    push(&stack, |snapshot| snapshot.envelopes[0] = old).await?;
    ends(&stack, &client, "/", None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_cannot_register_a_host_of_its_own() -> Result<()> {
    let stack = Stack::builder("attacker")
        .own_bridge()
        .workers(1)
        .cluster(Cluster::new("payments"))
        .cluster(Cluster { in_rails: false, ..Cluster::new("attacker") })
        .credential(Credential::new("payments-api", "payments"))
        .start()
        .await?;
    let client = stack.client(CART, Protocol::Http1)?;
    let host = stack.upstream("attacker")?.address().to_string();
    push(&stack, |snapshot| {
        let like = snapshot.resources.first().cloned().unwrap_or_default();
        let own =
            wire::ProtectedResource { name: "attacker".into(), cluster: "attacker".into(), upstream: host, ..like };
        snapshot.resources.push(own);
    })
    .await?;
    ends(&stack, &client, "/attacker/", Some(Reason::DestinationNotAllowed)).await?;
    audited(&stack, Reason::DestinationNotAllowed).await?;
    // Nor does it lead a known cluster there: the destination is the rails', whatever the registration says.
    let host = stack.upstream("attacker")?.address().to_string();
    push(&stack, |snapshot| snapshot.resources.iter_mut().for_each(|one| one.upstream.clone_from(&host))).await?;
    ends(&stack, &client, "/", None).await?;
    assert_eq!(stack.upstream("attacker")?.connections(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_cannot_hand_a_credential_to_another_bouncer() -> Result<()> {
    let stack = Stack::builder("other-bouncer").own_bridge().workers(1).start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    // Made for another bouncer, and handed to this one: as it is, and relabelled.
    let theirs = Credential::new("payments-api", "payments").aad("env=production,bouncer=payments-west");
    let envelope = envelope(&stack, &theirs, 2).await?;
    let labelled = wire::Envelope { generation: 3, aad: Some(AAD.to_owned()), ..envelope.clone() };
    push(&stack, |snapshot| snapshot.envelopes = vec![envelope]).await?;
    ends(&stack, &client, "/", Some(Reason::BindingBouncer)).await?;
    audited(&stack, Reason::BindingBouncer).await?;
    push(&stack, |snapshot| snapshot.envelopes = vec![labelled]).await?;
    ends(&stack, &client, "/", Some(Reason::KmsInvalidCiphertext)).await?;
    audited(&stack, Reason::KmsInvalidCiphertext).await?;
    assert!(stack.upstream("payments")?.requests().is_empty());
    Ok(())
}
