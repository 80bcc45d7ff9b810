//! The options of the audit's commands.

use super::help;
use bouncer_custody::{BouncerIdentity, BouncerName, LogicalPath, SpiffeId};
use clap::Subcommand;
use jiff::Timestamp;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Decisions, newest first, one page.
    List(AuditFilter),
    /// Decisions as they come in, until interrupted.
    Tail(AuditFilter),
    /// Write the audit with its evidence to a file.
    #[command(after_long_help = help::AUDIT_EXPORT)]
    Export(Export),
    /// Whether an export is what the bouncers recorded. Needs no control plane. Exit code 1 if it is not.
    #[command(after_long_help = help::AUDIT_VERIFY)]
    Verify(Verify),
}

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ExportFormat {
    /// JSON lines, which can be verified.
    Jsonl,
    /// For spreadsheets.
    Csv,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// How it is written.
    #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl, value_name = "FORMAT")]
    pub format: ExportFormat,
    /// Not before this time, such as 2026-11-01T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub from: Option<Timestamp>,
    /// Before this time.
    #[arg(long, value_name = "TIME")]
    pub to: Option<Timestamp>,
    /// Only this bouncer's decisions.
    #[arg(long)]
    pub bouncer: Option<BouncerName>,
    /// Where to write it; a file that is there is replaced once the export is whole. `-` for standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub out: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// The export, JSON lines; `-` for standard input.
    #[arg(value_name = "EXPORT")]
    pub export: PathBuf,
    /// An archived trust bundle, PEM. Name the trust domain where its certificates don't. Repeatable.
    #[arg(long = "bundle", value_name = "[DOMAIN=]FILE", required = true, value_parser = bundle)]
    pub bundles: Vec<Bundle>,
    /// Which identity a bouncer signs under. Without it the identity is read out of the export, and shown. Something of each
    /// bouncer that is named so must be in the export; leave out those that have recorded nothing yet, and with an export of
    /// one bouncer name that one only. With the ARN of an IAM role: it enrols by that and signs nothing, so that its chain is
    /// shown as unsigned, and not as broken. Repeatable.
    #[arg(long = "bouncer", value_name = "NAME=SPIFFE_ID|ARN", value_parser = pin)]
    pub bouncers: Vec<(BouncerName, BouncerIdentity)>,
    /// Which identity the control plane signs its own changes under. They must then be in the export, and signed: an export
    /// of one bouncer holds none, and in the first seconds of a new control plane they are not signed yet.
    #[arg(long, value_name = "SPIFFE_ID")]
    pub control_plane_id: Option<SpiffeId>,
    /// What a resolver says of its own chain: a file with the answer of its `/audit/head`, or that answer itself, or
    /// CHAIN:SEQUENCE:HEAD. With it, events that are missing at the end show too. Repeatable.
    #[arg(long = "head", value_name = "FILE_OR_VALUE")]
    pub heads: Vec<String>,
    /// Want every chain from its beginning: nothing was removed by retention, and the export is no range.
    #[arg(long)]
    pub complete: bool,
    /// Take so many events behind a chain's last checkpoint that are not signed, whenever they were. Without it, 1,000 of a
    /// bouncer's and none more than a minute later than the checkpoint, and of the control plane's own those of one minute:
    /// more there can be only where signing failed (the log of the resolver or the control plane says so), where a clock
    /// was set, and where checkpoints are kept back. 0 wants everything signed.
    #[arg(long, value_name = "N")]
    pub max_unsigned: Option<u64>,
}

/// A trust bundle, and the trust domain that it is for.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    /// Where the file does not say so itself.
    pub domain: Option<String>,
    /// PEM.
    pub file: PathBuf,
}

/// A file name may hold an equals sign, but what is in front of it is then no trust domain's name.
#[expect(clippy::unnecessary_wraps, reason = "clap's parsers may fail")]
fn bundle(text: &str) -> Result<Bundle, std::convert::Infallible> {
    Ok(match text.split_once('=') {
        Some((domain, file)) if format!("spiffe://{domain}").parse::<SpiffeId>().is_ok() => {
            Bundle { domain: Some(domain.to_owned()), file: file.into() }
        }
        _ => Bundle { domain: None, file: text.into() },
    })
}

fn pin(text: &str) -> Result<(BouncerName, BouncerIdentity), String> {
    let (name, id) = text.split_once('=').ok_or("it must be NAME=SPIFFE_ID or NAME=ARN")?;
    let malformed = |error: bouncer_custody::Malformed| error.to_string();
    Ok((name.parse().map_err(malformed)?, id.parse().map_err(malformed)?))
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AuditFilter {
    /// How many to show (for `tail`: how many of before).
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub limit: u16,
    /// Only this outcome: inject, deny, pass_through, uses, rotate or revoke.
    #[arg(long, value_parser = ["inject", "deny", "pass_through", "uses", "rotate", "revoke"])]
    pub outcome: Option<String>,
    /// Only this bouncer's.
    #[arg(long)]
    pub bouncer: Option<BouncerName>,
    /// Only this reason code, such as binding_incomplete.
    #[arg(long)]
    pub reason: Option<String>,
    /// Only this credential's.
    #[arg(long, value_name = "PATH")]
    pub logical_path: Option<LogicalPath>,
    /// Where the last page ended (`next_cursor` in the JSON answer).
    #[arg(long)]
    pub cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_may_name_its_trust_domain() {
        let read = |text: &str| {
            let Ok(bundle) = bundle(text);
            (bundle.domain, bundle.file)
        };
        assert_eq!(read("example.org=a.pem"), (Some("example.org".into()), "a.pem".into()));
        assert_eq!(read("/var/a=b.pem"), (None, "/var/a=b.pem".into()));
        assert_eq!(read("a.pem"), (None, "a.pem".into()));
    }

    #[test]
    fn a_pin_is_a_name_and_an_identity() {
        assert!(pin("payments-east=spiffe://example.org/bouncer/payments-east").is_ok());
        for bad in ["payments-east", "payments-east=", "=spiffe://example.org/a", "payments-east=example.org"] {
            assert!(pin(bad).is_err(), "{bad}");
        }
    }
}
