//! The main job on real parts: a client speaks to Envoy, the filter asks the resolver, the resolver unwraps the
//! customer's credential, Envoy presents it to the upstream, and the control plane shows the decision.

use bouncer_custody::Reason;
use bouncer_tests::client::Protocol;
use bouncer_tests::envoy::{Bootstrap, at};
use bouncer_tests::kms_proxy::Behaviour;
use bouncer_tests::stack::{AAD, BILLING, BOUNCER, Bundle, CART, Cluster, Credential, STRANGER, Stack};
use bouncer_tests::{Fault, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const CALLER: &str = "spiffe://example.org/ns/shop/sa";

/// Waits until the audit has every stream: one for each decision, and the others as counts of the decision that they used.
async fn counted(stack: &Stack, streams: usize) -> Result<()> {
    let counted = || async {
        let events = stack.audit().await.ok()?;
        let of = |outcome: &'static str| events.iter().filter(move |event| event["outcome"] == outcome);
        let decided: BTreeSet<&str> = of("inject").filter_map(|event| event["id"].as_str()).collect();
        let uses = of("uses").filter(|event| event["decision_id"].as_str().is_some_and(|id| decided.contains(id)));
        let used: u64 = uses.filter_map(|event| event["count"].as_u64()).sum();
        (used > 0 && decided.len() as u64 + used == streams as u64).then_some(())
    };
    stack.until(format!("{streams} streams in the audit"), Duration::from_secs(30), counted).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_upstream_sees_the_customers_certificate_and_the_audit_shows_the_decision() -> Result<()> {
    let stack = Stack::builder("happy").spire().start().await?;
    let client = stack.client(CART, Protocol::Http1)?;

    let reply = client.get_with("/orders?id=1", &[("x-bouncer-facts", "forged"), ("authorization", "mine")]).await?;
    let seen = reply.seen()?;
    let peer = seen.peer.ok_or_else(|| Fault::new("the upstream saw no client certificate"))?;
    assert_eq!(peer.common_name, "payments-api");
    assert_eq!(seen.path, "/orders?id=1");
    let ours: Vec<_> = seen.headers.keys().filter(|name| name.starts_with("x-bouncer")).collect();
    assert!(ours.is_empty(), "the upstream was sent {ours:?}");
    assert_eq!((reply.reason(), reply.decision()), (None, None));
    assert_eq!(stack.kms.proxy().count("Decrypt"), 1);
    assert_eq!(stack.kms.proxy().count("AssumeRoleWithWebIdentity"), 1);

    let event = stack.audited("the injection", |event| event["outcome"] == "inject").await?;
    assert_eq!(event["caller"], CART);
    assert_eq!(event["bouncer"], BOUNCER);
    assert_eq!(event["resource"], "payments-api");
    assert_eq!(event["logical_path"], "protected-resources/payments-api/upstream-tls");
    assert_eq!(event["cluster"], "payments");
    assert_eq!(event["destination"], stack.upstream("payments")?.address().to_string());
    assert_eq!(event["key_id"], stack.key_arn.as_str());
    // Of the text `env=production,bouncer=payments-east`.
    assert_eq!(event["aad_sha256"], "fed6766013fb59387b93d1315157f4dceea9f98564ca2853da38902669c9862b");

    // Warm: no call at all.
    for _ in 0..20 {
        assert_eq!(client.get("/orders").await?.status, 200);
    }
    assert_eq!(stack.kms.proxy().count("Decrypt"), 1);
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    counted(&stack, 21).await?;
    let logged = stack.until("the access log", Duration::from_secs(15), || async {
        stack.envoy().ok()?.access_log().into_iter().find(|line| line["path"] == "/orders")
    });
    let tag = logged.await?["bouncer_tag"].as_str().unwrap_or_default().to_owned();
    assert!(tag.starts_with("protected-resources/payments-api/upstream-tls@1."), "{tag}");
    Ok(())
}

/// What a caller's certificate upstream was, for both callers at once over the same listener and cluster.
async fn interleave(stack: &Stack) -> Result<BTreeMap<String, BTreeSet<(u64, String)>>> {
    let mut saw: BTreeMap<String, BTreeSet<(u64, String)>> = BTreeMap::new();
    let mut clients = vec![];
    for caller in [CART, BILLING] {
        for protocol in [Protocol::Http1, Protocol::Http1Once, Protocol::Http2] {
            clients.push((caller, stack.client(caller, protocol)?));
        }
    }
    for _ in 0..10 {
        let round = clients.iter().map(|(caller, client)| async move {
            let seen = client.get("/").await?.seen()?;
            let name = seen.peer.map_or_else(|| "nobody".to_owned(), |peer| peer.common_name);
            Ok::<_, Fault>(((*caller).to_owned(), (seen.connection, name)))
        });
        for (caller, connection) in futures::future::try_join_all(round).await? {
            saw.entry(caller).or_default().insert(connection);
        }
    }
    Ok(saw)
}

fn two_callers(scenario: &str) -> bouncer_tests::stack::Builder {
    Stack::builder(scenario)
        .workers(1)
        .credential(Credential::new("for-cart", "payments").callers(&[CART]))
        .credential(Credential::new("for-billing", "payments").callers(&[BILLING]))
}

fn names(saw: &BTreeMap<String, BTreeSet<(u64, String)>>, caller: &str) -> BTreeSet<String> {
    saw.get(caller).into_iter().flatten().map(|(_, name)| name.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_callers_of_one_upstream_never_share_a_connection() -> Result<()> {
    let stack = two_callers("two-callers").start().await?;
    let saw = interleave(&stack).await?;
    assert_eq!(names(&saw, CART), BTreeSet::from(["for-cart".to_owned()]));
    assert_eq!(names(&saw, BILLING), BTreeSet::from(["for-billing".to_owned()]));
    let connections =
        |caller: &str| -> BTreeSet<u64> { saw[caller].iter().map(|(connection, _)| *connection).collect() };
    assert!(connections(CART).is_disjoint(&connections(BILLING)));
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}

/// The control: shows that the scenario above can fail, and why the shipped bootstrap says `envoy.hashable_string`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_without_a_hashable_name_two_callers_do_share_a_connection() -> Result<()> {
    let edit = |bootstrap: &mut Bootstrap| bootstrap.replace("envoy.hashable_string", "envoy.string");
    let stack = two_callers("two-callers-control").bootstrap(edit).start().await?;
    let saw = interleave(&stack).await?;
    let all: BTreeSet<_> = names(&saw, CART).union(&names(&saw, BILLING)).cloned().collect();
    let mixed = names(&saw, CART).len() > 1 || names(&saw, CART) == names(&saw, BILLING);
    assert!(mixed, "the control must mix the callers up, but saw {all:?}: {saw:?}");
    Ok(())
}

/// A caller's short name, what is wrong with its credential, and the reasons that may be given for it.
fn wrong_credentials() -> Vec<(&'static str, Credential, &'static [Reason])> {
    let credential = |name: &str| Credential::new(name, "payments").callers(&[&format!("{CALLER}/{name}")]);
    let with = |name: &'static str, edit: fn(Credential) -> Credential, reasons: &'static [Reason]| {
        (name, edit(credential(name)), reasons)
    };
    vec![
        with("expired", |c| c.bundle(Bundle::Expired), &[Reason::CredentialExpired]),
        with("future", |c| c.bundle(Bundle::NotYetValid), &[Reason::CredentialNotYetValid]),
        with("mismatch", |c| c.bundle(Bundle::KeyMismatch), &[Reason::CredentialKeyMismatch]),
        with("garbage", |c| c.bundle(Bundle::Raw("no credential".into())), &[Reason::CredentialMalformed]),
        with("tampered", |c| Credential { tampered: true, ..c }, &[Reason::KmsInvalidCiphertext]),
        with(
            "wrong-aad",
            |c| Credential { registered_aad: Some(format!("{AAD},team=b")), ..c }.aad(&format!("{AAD},team=a")),
            &[Reason::KmsInvalidCiphertext],
        ),
        // AWS says IncorrectKeyException, moto AccessDeniedException.
        with("wrong-key", |c| Credential { wrong_key: true, ..c }, &[Reason::KmsIncorrectKey, Reason::KmsAccessDenied]),
        with("other-bouncer", |c| c.aad("env=production,bouncer=payments-west"), &[Reason::BindingBouncer]),
        with("other-env", |c| c.aad("env=staging,bouncer=payments-east"), &[Reason::BindingEnv]),
        with("unbound", |c| c.aad("env=production"), &[Reason::BindingIncomplete]),
        with("disabled", |c| Credential { enabled: false, ..c }, &[Reason::ResourceDisabled]),
        with("no-envelope", |c| Credential { with_envelope: false, ..c }, &[Reason::EnvelopeMissing]),
    ]
}

/// Asks once; the denial must have a reason that fits, and stand in the audit. It is quick, since what takes the resolver
/// longer than `limits.decide_deadline_ms` is `resolver_timeout`.
async fn denied(stack: &Stack, caller: &str, path: &str, reasons: &[Reason]) -> Result<()> {
    let reply = stack.client(caller, Protocol::Http1)?.get(path).await?;
    let code = reply.reason().ok_or_else(|| Fault::new(format!("{caller} {path}: {} {}", reply.status, reply.body)))?;
    let reason: Reason = code.parse()?;
    assert!(reasons.contains(&reason), "{caller} {path}: {reason}, expected {reasons:?}");
    assert_eq!(reply.status, reason.http_status(), "{caller} {path}: {reason}");
    assert!(reply.decision().is_some(), "{caller} {path}: {reason} without a decision's id");
    let audited = |event: &serde_json::Value| event["reason"] == code && event["caller"] == caller;
    let event = stack.audited(&format!("{caller} {code}"), audited).await?;
    assert_eq!(event["outcome"], "deny");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_wrong_credential_and_caller_is_denied_in_time_with_a_reason_and_an_audit_event() -> Result<()> {
    let unlisted = Cluster { in_rails: false, ..Cluster::new("unlisted") };
    let mut builder = Stack::builder("denials")
        .cluster(Cluster::new("payments"))
        .cluster(Cluster::new("unregistered"))
        .cluster(unlisted)
        .credential(Credential::new("payments-api", "payments"))
        .credential(Credential::new("unlisted-api", "unlisted"));
    for (_, credential, _) in wrong_credentials() {
        builder = builder.credential(credential);
    }
    let stack = builder.start().await?;

    assert_eq!(
        stack.client(CART, Protocol::Http1)?.get("/").await?.status,
        200,
        "what follows is not for a broken stack"
    );
    let before = stack.upstream("payments")?.connections();
    for (name, _, reasons) in wrong_credentials() {
        denied(&stack, &format!("{CALLER}/{name}"), "/", reasons).await?;
    }
    denied(&stack, STRANGER, "/", &[Reason::CallerNotAllowed]).await?;
    denied(&stack, CART, "/unregistered/", &[Reason::NotRegistered]).await?;
    denied(&stack, CART, "/unlisted/", &[Reason::DestinationNotAllowed]).await?;
    // Two names in one certificate are no verified caller.
    let two = match &stack.identities {
        bouncer_tests::stack::Identities::Own { domain, .. } => {
            domain.ca().issue(&bouncer_tests::pki::Leaf::svid(CART)?.uri(BILLING)?)?
        }
        bouncer_tests::stack::Identities::Spire(_) => return Err(Fault::new("SPIRE signs no such thing")),
    };
    let reply = stack.client_with(Some(&two), Protocol::Http1)?.get("/").await?;
    assert_eq!(reply.reason(), Some(Reason::CallerUnverified.code()));
    // Without a certificate there is no connection at all.
    assert!(stack.client_with(None, Protocol::Http1)?.get("/").await.is_err());

    assert_eq!(stack.upstream("payments")?.connections(), before, "no denied stream went up");

    stack.api()?.set_flag(false).await?;
    let client = stack.client(CART, Protocol::Http1)?;
    stack
        .until("the denial by the flag", Duration::from_secs(15), || async {
            (client.get("/").await.ok()?.reason()? == Reason::FeatureDisabled.code()).then_some(())
        })
        .await?;
    // Until the flag arrived, streams went up, by another worker's connection perhaps; from here on none does.
    let before = stack.upstream("payments")?.connections();
    for _ in 0..10 {
        client.denies(Reason::FeatureDisabled).await.ok_or_else(|| Fault::new("the flag is off"))?;
    }
    assert_eq!(stack.upstream("payments")?.connections(), before, "no denied stream went up");
    for (cluster, upstream) in &stack.upstreams {
        assert_eq!(upstream.uncredentialed(), 0, "{cluster}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cold_streams_for_one_secret_make_one_kms_call() -> Result<()> {
    // A thousand handshakes and streams at once on a small machine: nothing here is about who is in time.
    let patient = |bootstrap: &mut Bootstrap| {
        let path = "typed_config.config.configuration.value";
        let config = r#"{"version": 1, "intercept_cluster": "bouncer_intercept", "decide_timeout_ms": 10000}"#;
        *at(bootstrap.http_filter("bouncer")?, path)? = config.into();
        Ok(())
    };
    let stack = Stack::builder("thousand")
        .cluster(Cluster::new("payments"))
        .cluster(Cluster::new("other"))
        .bootstrap(patient)
        .resolver(|resolver| resolver.set("limits.decide_deadline_ms", 8_000))
        .start()
        .await?;
    // The connections are there before the burst; what they ask first needs no secret.
    let mut clients = vec![];
    for _ in 0..20 {
        let client = stack.client(CART, Protocol::Http2)?;
        assert_eq!(client.get("/other/").await?.reason(), Some(Reason::NotRegistered.code()));
        clients.push(client);
    }
    assert_eq!(stack.kms.proxy().count("Decrypt"), 0);
    stack.kms.proxy().behave("Decrypt", Behaviour::Delay(Duration::from_millis(150)));
    let burst = (0..1000).map(|i| {
        let client = clients[i % clients.len()].clone();
        tokio::spawn(async move { client.get("/").await })
    });
    let mut statuses: BTreeMap<(u16, Option<String>), usize> = BTreeMap::new();
    for reply in futures::future::join_all(burst).await {
        let reply = reply??;
        *statuses.entry((reply.status.as_u16(), reply.reason().map(str::to_owned))).or_default() += 1;
    }
    assert_eq!(statuses, BTreeMap::from([((200, None), 1000)]));
    assert_eq!(stack.kms.proxy().count("Decrypt"), 1);
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_resolver_is_dead_warm_routes_work_and_cold_ones_fail_closed() -> Result<()> {
    let mut stack = two_callers("restart").start().await?;
    let (warm, cold) = (stack.client(CART, Protocol::Http1)?, stack.client(BILLING, Protocol::Http1)?);
    assert_eq!(warm.get("/").await?.status, 200);

    stack.kill_resolver();
    for _ in 0..20 {
        assert_eq!(warm.get("/").await?.status, 200, "warm routes need no resolver");
    }
    let reply = cold.get_within("/", Duration::from_secs(1)).await?;
    assert_eq!(reply.reason(), Some(Reason::ResolverUnavailable.code()));
    assert_eq!(reply.status, 503);

    stack.restart_resolver_until_ready().await?;
    let recovered = || cold.serves();
    stack.until("the cold route's recovery", Duration::from_secs(15), recovered).await?;
    assert_eq!(warm.get("/").await?.status, 200);
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}
