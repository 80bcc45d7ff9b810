//! `audit verify`: is an export what the bouncers recorded? Asks no control plane, and believes nothing in the export.

use super::EvidenceError;
use crate::args::Verify;
use crate::failure::{Exit, Failure};
use crate::files;
use crate::output::Output;
use bouncer_audit::{Bundles, ChainPoint, ChainReport, Expected, Fault, Owner, Report, Verifier};
use bouncer_custody::{BouncerName, SpiffeId};
use jiff::{Timestamp, Unit};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

/// More than any line of an export.
const LINE: u64 = 1 << 20;

/// Runs the command.
///
/// # Errors
/// [`Failure`] if a file or an option can't be used. A broken export is none: it ends in exit code 1.
pub(super) fn verify(options: &Verify, output: &Output) -> Result<Exit, Failure> {
    let mut bundles = Bundles::default();
    for bundle in &options.bundles {
        let pem = files::read(&bundle.file, "trust bundle")?.text;
        bundles
            .add(bundle.domain.as_deref(), pem.as_bytes())
            .map_err(|source| EvidenceError::Bundle { path: bundle.file.clone(), source })?;
    }
    let owner = |name: &BouncerName| Owner::Bouncer(name.to_string());
    let pinned = options.bouncers.iter().filter_map(|(name, id)| Some((owner(name), id.spiffe_id()?.clone())));
    let unsigned = options.bouncers.iter().filter_map(|(name, id)| id.iam_role().map(|_| owner(name)));
    let own = options.control_plane_id.iter().map(|id| (Owner::ControlPlane, id.clone()));
    let signers: BTreeMap<Owner, SpiffeId> = pinned.chain(own).collect();
    let heads = options.heads.iter().map(|head| expected(head)).collect::<Result<Vec<_>, _>>()?;
    let mut verifier = Verifier::new(bundles, signers, heads).unsigned(unsigned);
    if options.complete {
        verifier = verifier.complete();
    }
    if let Some(most) = options.max_unsigned {
        verifier = verifier.max_unsigned(most);
    }
    let report = read(&options.export, verifier)?;
    let good = report.faults.is_empty();
    if output.is_json() {
        output.json(&as_json(&report))?;
    } else {
        output.text(&as_text(&report, Timestamp::now()))?;
    }
    Ok(Output::exit(good))
}

/// What a resolver says of itself, in any of the forms that it may be given.
fn expected(text: &str) -> Result<Expected, Failure> {
    let parsed = |text: &str| {
        let text = text.trim();
        if text.starts_with('{') {
            return serde_json::from_str(text).ok();
        }
        let [chain, sequence, head] = text.split(':').collect::<Vec<_>>()[..] else { return None };
        let sequence = sequence.parse().ok()?;
        let point = ChainPoint { chain: chain.parse().ok()?, sequence, head: head.parse().ok()? };
        Some(Expected { point, acknowledged: sequence })
    };
    if let Some(expected) = parsed(text) {
        return Ok(expected);
    }
    let content = files::read(Path::new(text), "head")?.text;
    parsed(&content).ok_or_else(|| EvidenceError::Head.into())
}

fn read(path: &Path, verifier: Verifier) -> Result<Report, EvidenceError> {
    let unreadable = |source| EvidenceError::Unreadable { path: path.to_owned(), source };
    if path == Path::new("-") {
        return lines(std::io::stdin().lock(), path, verifier);
    }
    lines(BufReader::new(File::open(path).map_err(unreadable)?), path, verifier)
}

fn lines(mut reader: impl BufRead, path: &Path, mut verifier: Verifier) -> Result<Report, EvidenceError> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let unreadable = |source| EvidenceError::Unreadable { path: path.to_owned(), source };
        if (&mut reader).take(LINE).read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
            return Ok(verifier.finish());
        }
        if line.starts_with(b"type,") {
            return Err(EvidenceError::Csv { path: path.to_owned() });
        }
        // What is no text is no line of an export, which is for the verifier to say.
        verifier.line(&String::from_utf8_lossy(&line));
    }
}

fn as_json(report: &Report) -> Value {
    let fault =
        |fault: &Fault| json!({"chain": fault.chain, "sequence": fault.sequence, "what": fault.what.to_string()});
    json!({
        "good": report.faults.is_empty(),
        "faults": report.faults.iter().map(fault).collect::<Vec<_>>(),
        "chains": report.chains,
        "unchained": report.unchained,
        "divergences": report.divergences,
    })
}

fn as_text(report: &Report, now: Timestamp) -> String {
    let mut text = String::new();
    for chain in &report.chains {
        text.push_str(&of_chain(chain, now));
    }
    if report.unchained > 0 {
        text.push_str(&format!(
            "{} event(s) are in no chain: from before there were chains, or of another's. Nothing speaks for them.\n",
            report.unchained
        ));
    }
    if report.divergences > 0 {
        text.push_str(&format!(
            "{} time(s) the control plane itself saw something that did not fit as it came in: lines of the type divergence.\n",
            report.divergences
        ));
    }
    for Fault { chain, sequence, what } in &report.faults {
        let sequence = sequence.map(|sequence| format!(" at {sequence}")).unwrap_or_default();
        let place = chain.as_ref().map(|chain| format!(" chain {chain}{sequence}:")).unwrap_or_default();
        text.push_str(&format!("BROKEN:{place} {what}\n"));
    }
    if report.faults.is_empty() {
        text.push_str("good: everything that is signed is as it was recorded\n");
    }
    text
}

fn of_chain(chain: &ChainReport, now: Timestamp) -> String {
    let owner = chain.owner.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
    let state = match (chain.good, chain.unsigned) {
        (false, _) => "BROKEN",
        (true, true) if chain.owner == Some(Owner::ControlPlane) => "UNSIGNED",
        (true, true) => "UNSIGNED, as was said of it",
        (true, false) => "good",
    };
    let mut text = format!("chain {} of {owner}: {state}\n", chain.chain);
    let option = if chain.owner == Some(Owner::ControlPlane) { "--control-plane-id" } else { "--bouncer" };
    let signer = match (&chain.spiffe_id, chain.expected) {
        (Some(id), true) => format!("{id}, as expected"),
        (Some(id), false) => format!("{id}, by the export itself: compare it, or give it with {option}"),
        (None, _) if chain.unsigned && chain.owner == Some(Owner::ControlPlane) => {
            "nobody: whoever stored it could have made it. Where it has an SVID, give it with --control-plane-id"
                .to_owned()
        }
        (None, _) if chain.unsigned => "nobody: its order holds, but whoever stored it could have made it".to_owned(),
        (None, _) => "nobody".to_owned(),
    };
    text.push_str(&format!("  signed by {signer}\n"));
    text.push_str(&format!(
        "  {} event(s), the last is {}; signed through {} by {} checkpoint(s)",
        chain.events, chain.last, chain.signed_through, chain.checkpoints
    ));
    if let Some(time) = chain.last_checkpoint_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()) {
        let age = (now - time).round(Unit::Second).map(|age| format!(", {age:#} ago")).unwrap_or_default();
        text.push_str(&format!(", the last at {time}{age}"));
    }
    text.push('\n');
    let notes = [
        (chain.before, "in front of them are not here: removed by retention, or outside the range"),
        (chain.not_yet_signed, "behind the last checkpoint are not yet signed"),
        (chain.withheld, "have a text that the control plane withholds; the rest of each is proven"),
        (chain.not_delivered.unwrap_or(0), "were recorded by the resolver and not stored here yet"),
    ];
    for (count, what) in notes.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!("  {count} event(s) {what}\n"));
    }
    text
}
