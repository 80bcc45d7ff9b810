//! What is promised, and the evidence that this run gives for it.
//!
//! Called by `main` once the traffic is through. A promise holds only if all of its evidence does.

use crate::guide::RESOURCE;
use crate::operator::Operator;
use crate::parts::{CUSTOMER_CA, Ground, Intercept};
use crate::screen::{Screen, Verdict};
use crate::search::{self, Secrets};
use crate::traffic::{self, Allowed, Refusals};
use bouncer_tests::pki::Identity;
use bouncer_tests::stack::CART;
use bouncer_tests::{Fault, Result};
use serde_json::Value;
use std::time::Duration;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How soon a revocation must be felt.
const REVOKED: Duration = Duration::from_secs(2);
const UNPROCESSABLE: u16 = 422;

/// The promises so far.
pub(crate) struct Promises {
    screen: Screen,
    held: usize,
    broken: usize,
    unchecked: usize,
}

impl Promises {
    fn add(&mut self, verdict: Verdict, text: &str, evidence: &[String]) {
        match verdict {
            Verdict::Held => self.held += 1,
            Verdict::Broken => self.broken += 1,
            Verdict::NotChecked => self.unchecked += 1,
        }
        self.screen.promise(verdict, text, evidence);
    }

    /// Prints the last word; gives whether every promise held as far as it could be checked.
    pub(crate) fn sum_up(&self, took: Duration) -> bool {
        let good = self.broken == 0;
        let mut text = format!("{} promises held", self.held);
        if self.broken > 0 {
            text = format!("{text}, {} BROKEN", self.broken);
        }
        if self.unchecked > 0 {
            text = format!("{text}, {} not checked", self.unchecked);
        }
        self.screen.summary(good, &format!("{text}, in {} s.", took.as_secs()));
        good
    }
}

/// Looks at everything that happened, and prints promise by promise.
pub(crate) async fn judge(
    screen: Screen,
    operator: &Operator,
    ground: &Ground,
    intercept: &Intercept,
    credential: &Identity,
    (allowed, refused): (&Allowed, &Refusals),
) -> Result<Promises> {
    let mut promises = Promises { screen, held: 0, broken: 0, unchecked: 0 };
    screen.heading("What is promised, and the evidence");
    certificate(&mut promises, ground, credential, allowed)?;
    refusals(&mut promises, refused);
    audit(&mut promises, ground, refused).await?;
    let off = traffic::turn_off(operator, ground, intercept).await?;
    let soon = if off < REVOKED { Verdict::Held } else { Verdict::Broken };
    let evidence = format!(
        "flag off: all of {} warm connections answered 403 feature_disabled within {} ms; on again: 200",
        traffic::WARM_CLIENTS,
        off.as_millis()
    );
    promises.add(soon, "What the operator turns off is off, for warm routes too", &[evidence]);

    let plaintext = traffic::offer_plaintext(operator, ground).await?;
    let all_refused = plaintext.statuses.iter().all(|status| *status == UNPROCESSABLE);
    let evidence = format!("a private key as ciphertext_ref, as PEM and as base64 of DER: {:?}", plaintext.statuses);
    let verdict = if all_refused { Verdict::Held } else { Verdict::Broken };
    promises.add(verdict, "The control plane takes no plaintext", &[evidence]);

    let planted = traffic::plant(ground, intercept).await?;
    search::ask_everything(operator, ground, intercept).await?;
    let others = refused.credentials.iter().chain([&plaintext.decoy]);
    let secrets = Secrets::new(credential, others, &allowed.bearer)?;
    let written = search::written(&secrets, operator, ground)?;
    promises.add(
        written.verdict,
        "No key, refused plaintext or bearer token was written or answered anywhere",
        &written.evidence,
    );
    let memory = search::in_memory(&secrets, ground, intercept, &planted).await?;
    promises.add(memory.verdict, "The wasm sandbox and the control plane never hold the key", &memory.evidence);
    Ok(promises)
}

fn certificate(promises: &mut Promises, ground: &Ground, credential: &Identity, allowed: &Allowed) -> Result<()> {
    let peer = allowed.seen.peer.as_ref().ok_or_else(|| Fault::new("the upstream saw no client certificate"))?;
    let (_, wrapped) = X509Certificate::from_der(&credential.cert)?;
    let serial = wrapped.raw_serial().iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    let handshakes = ground.payments.handshakes();
    let with_it = handshakes.iter().filter(|handshake| handshake.peer.as_ref() == Some(peer)).count();
    let requests = ground.payments.requests().len();
    let ours: Vec<_> = allowed.seen.headers.keys().filter(|name| name.starts_with("x-bouncer")).collect();
    let good = peer.common_name == RESOURCE
        && peer.serial == serial
        && peer.issuer == CUSTOMER_CA
        && with_it == handshakes.len()
        && ours.is_empty()
        && ground.reports.handshakes().is_empty()
        && allowed.decrypts == 1;
    let evidence = [
        format!(
            "seen by the upstream:  subject CN={}  serial {:016x}  issuer CN={}",
            peer.common_name, peer.serial, peer.issuer
        ),
        format!("wrapped in step 2:     subject CN={RESOURCE}  serial {serial:016x}  issuer CN={CUSTOMER_CA}"),
        format!(
            "{with_it} of {} handshakes carried it, for {requests} requests; KMS unwrapped it once",
            handshakes.len()
        ),
        format!("control headers that reached the upstream: {}", ours.len()),
    ];
    let verdict = if good { Verdict::Held } else { Verdict::Broken };
    promises.add(verdict, "The upstream sees the customer's client certificate", &evidence);
    Ok(())
}

fn refusals(promises: &mut Promises, refused: &Refusals) {
    let mut good = refused.leaked_connections == 0 && refused.without_certificate == Verdict::Held;
    let mut evidence = vec![];
    for refusal in &refused.streams {
        good &= refusal.verdict == Verdict::Held;
        let (status, reason) = (refusal.reply.status.as_u16(), refusal.reply.reason().unwrap_or("no reason"));
        evidence.push(format!("{status}  x-bouncer-reason: {reason:<25} {}", refusal.what));
    }
    evidence.push("---  no TLS connection                           a client without a certificate".to_owned());
    evidence.push(format!("connections that reached an upstream meanwhile: {}", refused.leaked_connections));
    let verdict = if good { Verdict::Held } else { Verdict::Broken };
    promises.add(
        verdict,
        "Everyone else is refused within a second, with a reason, and never reaches the upstream",
        &evidence,
    );
}

async fn audit(promises: &mut Promises, ground: &Ground, refused: &Refusals) -> Result<()> {
    let api = ground.control_plane.api()?;
    let missing = |events: &[Value]| {
        refused.streams.iter().filter(|refusal| of(events, refusal).is_none()).count()
            + usize::from(injected(events).is_none())
    };
    // Events travel up on their own time; what is missing at the deadline is shown as missing.
    let arrived = || async { api.audit("").await.ok().filter(|events| missing(events) == 0) };
    let events = match ground.scratch.until("all audit events", Duration::from_secs(15), arrived).await {
        Ok(events) => events,
        Err(_) => api.audit("").await?,
    };
    let mut evidence = vec![];
    let mut line = |event: Option<&Value>, what: &str| {
        let text = |key: &str| event.and_then(|event| event[key].as_str()).unwrap_or("-").to_owned();
        match event {
            Some(_) => evidence.push(format!("{}  {:<6} {:<25} {what}", text("id"), text("outcome"), text("reason"))),
            None => evidence.push(format!("MISSING: {what}")),
        }
    };
    line(injected(&events), "cart, the allowed caller");
    for refusal in &refused.streams {
        line(of(&events, refusal), short(refusal.what));
    }
    let verdict = if missing(&events) == 0 { Verdict::Held } else { Verdict::Broken };
    promises.add(verdict, "Every decision is in the audit, under the id that the client was given", &evidence);
    Ok(())
}

fn injected(events: &[Value]) -> Option<&Value> {
    events.iter().find(|event| event["outcome"] == "inject" && event["caller"] == CART && event["resource"] == RESOURCE)
}

fn of<'a>(events: &'a [Value], refusal: &traffic::Refusal) -> Option<&'a Value> {
    let is_its = |event: &&Value| {
        event["id"].as_str() == refusal.reply.decision()
            && event["outcome"] == "deny"
            && event["caller"] == refusal.caller.as_str()
            && event["reason"].as_str() == refusal.reply.reason()
    };
    events.iter().find(is_its)
}

fn short(what: &str) -> &str {
    what.split([',', ':']).next().unwrap_or(what)
}
