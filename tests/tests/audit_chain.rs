//! The audit as evidence, on real parts: what a resolver recorded under its SVID from SPIRE, over kills of everything, is
//! what an operator verifies with the trust bundle alone; and what a control plane changes shows.

use bouncer_tests::client::Protocol;
use bouncer_tests::operator;
use bouncer_tests::stack::{BILLING, BOUNCER, BOUNCER_ID, CART, CONTROL_PLANE_ID, Stack};
use bouncer_tests::{Fault, Result};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// Longer than a checkpoint may take, on a slow machine.
const DEADLINE: Duration = Duration::from_secs(60);

struct Operator {
    bundle: PathBuf,
    export: PathBuf,
}

impl Operator {
    /// Archives the trust bundle.
    fn new(stack: &Stack) -> Result<Self> {
        let bundle = stack.scratch.write("bundle.pem", stack.identities.roots_pem()?)?;
        Ok(Self { bundle, export: stack.scratch.file("audit.jsonl") })
    }

    /// Asks the resolver for its head, exports, and verifies the export against it.
    async fn verified(&self, stack: &Stack) -> Result<(i32, Value)> {
        let (_, head) = stack.resolver()?.get("/audit/head").await?;
        self.export(stack).await?;
        self.verify(stack, &head).await
    }

    async fn export(&self, stack: &Stack) -> Result<()> {
        let export = self.export.display().to_string();
        operator::run(stack, &["audit", "export", "--out", &export, "--json"], b"").await?.success().map(drop)
    }

    async fn verify(&self, stack: &Stack, head: &str) -> Result<(i32, Value)> {
        let (export, bundle) = (self.export.display().to_string(), self.bundle.display().to_string());
        let pin = format!("{BOUNCER}={BOUNCER_ID}");
        let arguments = ["audit", "verify", &export, "--bundle", &bundle, "--bouncer", &pin, "--complete"];
        let expected = ["--control-plane-id", CONTROL_PLANE_ID, "--head", head, "--json"];
        let ended = operator::run(stack, &[arguments.as_slice(), &expected].concat(), b"").await?;
        Ok((ended.code, ended.json()?))
    }

    /// Waits until everything that was recorded is stored, signed, and good.
    async fn all_signed(&self, stack: &Stack) -> Result<Value> {
        stack
            .until("a verified export without an unsigned tail", DEADLINE, || async {
                let (code, report) = self.verified(stack).await.ok()?;
                let chains = report["chains"].as_array()?;
                let settled =
                    |chain: &Value| chain["not_yet_signed"] == 0 && chain["not_delivered"].as_u64().unwrap_or(0) == 0;
                (code == 0 && chains.len() == 2 && chains.iter().all(settled)).then_some(report)
            })
            .await
    }
}

/// Each line of Envoy's access log names a decision of the audit: of one that was allowed, and of one that was denied.
async fn in_the_access_log(stack: &Stack) -> Result<()> {
    for (outcome, status) in [("inject", 200), ("deny", 403)] {
        let id = stack.audited(outcome, |event| event["outcome"] == outcome).await?["id"].clone();
        let named = || async {
            let lines = stack.envoy().ok()?.access_log();
            lines.into_iter().find(|line| line["status"] == status && line["bouncer_decision"] == id)
        };
        stack.until(format!("a line of the access log for {outcome} {id}"), DEADLINE, named).await?;
    }
    Ok(())
}

fn chain<'a>(report: &'a Value, owner: &str) -> Result<&'a Value> {
    let mut chains = report["chains"].as_array().into_iter().flatten();
    chains.find(|chain| chain["owner"] == owner).ok_or_else(|| Fault::new(format!("no chain of {owner}: {report}")))
}

fn events(report: &Value, owner: &str) -> Result<u64> {
    chain(report, owner)?["events"].as_u64().ok_or_else(|| Fault::new(format!("no events of {owner}: {report}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_recorded_over_kills_of_everything_verifies_with_the_trust_bundle_alone() -> Result<()> {
    let mut stack = Stack::builder("audit-chain").spire().start().await?;
    let operator = Operator::new(&stack)?;
    let owner = format!("bouncer:{BOUNCER}");
    let cart = stack.client(CART, Protocol::Http1)?;
    assert_eq!(cart.get("/").await?.status, 200);
    assert_eq!(stack.client(BILLING, Protocol::Http1)?.get("/").await?.status, 403);
    let first = operator.all_signed(&stack).await?;
    in_the_access_log(&stack).await?;
    assert!(events(&first, &owner)? >= 2, "{first}");

    // Killed between events, without a word; and the control plane too.
    for _ in 0..3 {
        stack.restart_resolver_until_ready().await?;
        stack.until("traffic", DEADLINE, || cart.serves()).await?;
    }
    stack.restart_control_plane().await?;
    stack.restart_resolver_until_ready().await?;
    stack.until("traffic", DEADLINE, || cart.serves()).await?;
    let after = operator.all_signed(&stack).await?;
    assert!(events(&after, &owner)? > events(&first, &owner)?, "{after}");
    assert_eq!(after["divergences"], 0, "{after}");

    // One that is stopped in order signs at once what it has sent already, and what it has not.
    for stored in [true, false] {
        let denials = || async { stack.api().ok()?.audit("outcome=deny").await.ok().map(|denials| denials.len()) };
        let before = denials().await.ok_or_else(|| Fault::new("no audit"))?;
        stack.client(BILLING, Protocol::Http1)?.get("/").await?;
        if stored {
            stack.until("the denial", DEADLINE, || async { denials().await.filter(|now| *now > before) }).await?;
        }
        let (_, head) = stack.resolver()?.get("/audit/head").await?;
        let resolver = stack.resolver.take().ok_or_else(|| Fault::new("no resolver"))?;
        resolver.process().terminate(DEADLINE).await?;
        operator.export(&stack).await?;
        let (code, report) = operator.verify(&stack, &head).await?;
        let own = chain(&report, &owner)?;
        assert_eq!((code, &own["not_yet_signed"]), (0, &0.into()), "{report}");
        assert_eq!(own["not_delivered"].as_u64().unwrap_or(0), 0, "{report}");
        stack.restart_resolver_until_ready().await?;
    }
    operator.all_signed(&stack).await?;

    // The export in hostile hands: each change shows, and the untouched one is good.
    let (_, head) = stack.resolver()?.get("/audit/head").await?;
    let honest = std::fs::read_to_string(&operator.export)?;
    assert_eq!(operator.verify(&stack, &head).await?.0, 0, "the control");
    let (uses, other) = (format!("\"caller\":\"{CART}\""), format!("\"caller\":\"{BILLING}\""));
    let rewritten = honest.replacen(&uses, &other, 1);
    let without =
        |what: &str| honest.lines().filter(|line| !line.contains(what)).map(|line| format!("{line}\n")).collect();
    let dropped: String = without("\"outcome\":\"deny\"");
    let unsigned: String = without("\"type\":\"checkpoint\"");
    for (what, changed) in [("rewritten", rewritten), ("dropped", dropped), ("unsigned", unsigned)] {
        assert_ne!(changed, honest, "{what}");
        std::fs::write(&operator.export, changed)?;
        let (code, report) = operator.verify(&stack, &head).await?;
        assert_eq!((code, &report["good"]), (1, &false.into()), "{what}: {report}");
    }
    Ok(())
}
