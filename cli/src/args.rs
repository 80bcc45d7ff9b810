//! The command line: every command, option, default and help text, turned into typed values once.
//!
//! Called by `main` before anything else happens. What is malformed ends here, with exit code 2.

use crate::output::Format;
use bouncer_custody::{
    BouncerName, CallerPattern, CiphertextRef, ClusterName, EncryptionContext, KmsKeyArn, LogicalPath, Provider,
    ResourceName, RoleArn, SpiffeId, Upstream,
};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

mod access;
mod audit;
mod gitops;
mod help;
mod keys;
mod proposals;
mod secrets;

pub(crate) use access::{TokenCreate, Tokens};
pub(crate) use audit::{Audit, AuditFilter, Export as AuditExport, ExportFormat, Verify};
pub(crate) use gitops::{Apply, Diff, Export};
pub(crate) use keys::{Form, Inventory, Rewrap, VaultServer, Wrap};
pub(crate) use proposals::{Decision, Proposals};
pub(crate) use secrets::{EnabledFilter, Rollback, SecretFilter, Secrets};

/// Parses the command line, or prints what is wrong with it (or the help asked for) and ends.
pub(crate) fn parse() -> Args {
    Args::parse()
}

/// The operator's tool for Bouncer: wraps credentials under your own key, registers them, and says what is in order.
#[derive(Debug, Parser)]
#[command(name = "bouncerctl", version, max_term_width = 100, after_long_help = help::TOP)]
pub(crate) struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Control plane")]
pub(crate) struct Global {
    /// The control plane's base URL. https, or http to a loopback address.
    #[arg(long, global = true, env = "CONTROL_PLANE_URL", value_name = "URL")]
    pub control_plane: Option<String>,
    /// A file that holds the API token. Without it the token comes from the environment variable TOKEN.
    #[arg(long, global = true, env = "BOUNCER_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM certificates to trust for the control plane, instead of the system's.
    #[arg(long, global = true, env = "BOUNCER_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// How long to wait for an answer, in seconds.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    pub timeout: Duration,
    /// How to print answers.
    #[arg(long, global = true, value_enum, default_value_t = Format::Human, value_name = "FORMAT")]
    pub output: Format,
    /// The same as --output json.
    #[arg(long, global = true, conflicts_with = "output")]
    pub json: bool,
}

impl Global {
    /// How to print answers.
    pub(crate) const fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse::<std::num::NonZeroU16>().map(|seconds| Duration::from_secs(seconds.get().into()))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Encrypt a credential under your own KMS key. Plaintext goes to KMS and nowhere else.
    #[command(after_long_help = help::WRAP)]
    Wrap(Wrap),
    /// Move registered credentials to another KMS key, inside KMS: nobody sees them.
    #[command(after_long_help = help::REWRAP)]
    Rewrap(Rewrap),
    /// Which credentials hang on which key.
    #[command(after_long_help = help::INVENTORY)]
    Inventory(Inventory),
    /// Register a wrapped credential at the control plane.
    #[command(after_long_help = help::REGISTER)]
    Register(Register),
    /// What of the setup is done, and what is left to do. Exit code 1 while something is.
    #[command(after_long_help = help::STATUS)]
    Status,
    /// Whether every bouncer is in sync with the control plane, and which link is broken. Exit code 1 if one is.
    #[command(after_long_help = help::PROBE)]
    Probe {
        /// Ask one resolver instead, on its operator's socket ([admin] socket in resolver.toml): it tells DNS, TCP, TLS and
        /// identities apart, and needs no control plane.
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
    },
    /// Show or set the cryptographic provider.
    #[command(subcommand, after_long_help = help::SETTINGS)]
    Settings(Settings),
    /// Registered credentials: metadata only, which is all there is.
    #[command(subcommand, after_long_help = help::SECRETS)]
    Secrets(Secrets),
    /// Revoke a credential: bouncers stop using it within a second, and live streams that do are cut off.
    #[command(after_long_help = help::REVOKE)]
    Revoke(Revoke),
    /// Feature flags.
    #[command(subcommand, after_long_help = help::FLAGS)]
    Flags(Flags),
    /// Bouncers: which workload identity may ask for which bouncer's metadata.
    #[command(subcommand, after_long_help = help::BOUNCERS)]
    Bouncers(Bouncers),
    /// Protected resources: which cluster needs which credential, for whom.
    #[command(subcommand, after_long_help = help::RESOURCES)]
    Resources(Resources),
    /// Decisions, as the bouncers reported them, and whether they are still what was recorded.
    #[command(subcommand, after_long_help = help::AUDIT)]
    Audit(Audit),
    /// Write what is registered to a YAML file, for `diff` and `apply`.
    #[command(after_long_help = help::EXPORT)]
    Export(Export),
    /// What would have to change for the control plane to be as the files say. Exit code 1 if anything.
    #[command(after_long_help = help::DIFF)]
    Diff(Diff),
    /// Make the control plane as the files say.
    #[command(after_long_help = help::APPLY)]
    Apply(Apply),
    /// Changes that wait for a second person: see them, decide on them.
    #[command(subcommand, after_long_help = help::PROPOSALS)]
    Proposals(Proposals),
    /// API tokens: who may do what, for how long.
    #[command(subcommand, after_long_help = help::TOKENS)]
    Tokens(Tokens),
    /// Whose token this is, and what it may do.
    #[command(after_long_help = help::WHOAMI)]
    Whoami,
    /// Print a completion script for a shell.
    #[command(after_long_help = help::COMPLETION)]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("envelope").required(true).args(["from", "key_id"])))]
pub(crate) struct Register {
    /// What the credential is called.
    #[arg(long, value_name = "PATH")]
    pub logical_path: LogicalPath,
    /// What `bouncerctl wrap` printed; `-` for standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ciphertext_ref", "aad", "provider", "chain"])]
    pub from: Option<PathBuf>,
    /// The KMS key's ARN, or Vault's namespace.
    #[arg(long, value_name = "KEY", requires = "ciphertext_ref")]
    pub key_id: Option<String>,
    /// The wrapped credential: a base64 blob for KMS, a path for Vault.
    #[arg(long, value_name = "REF", requires = "key_id")]
    pub ciphertext_ref: Option<CiphertextRef>,
    /// What the credential is bound to, exactly as it was when it was wrapped.
    #[arg(long, value_name = "K=V,K=V")]
    pub aad: Option<EncryptionContext>,
    /// kms_envelope or vault_delegate.
    #[arg(long, default_value = "kms_envelope")]
    pub provider: Provider,
    /// The public certificate chain, PEM, where the ciphertext holds the key only.
    #[arg(long, value_name = "FILE")]
    pub chain: Option<PathBuf>,
    /// Why, for people: one line, kept with the generation.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Settings {
    /// Show the provider.
    Show,
    /// Set the provider.
    Set {
        /// kms_envelope or vault_delegate.
        #[arg(long, default_value = "kms_envelope")]
        provider: Provider,
        /// The KMS key's ARN.
        #[arg(long, value_name = "ARN")]
        kms_key_arn: Option<KmsKeyArn>,
        /// Vault's namespace, for vault_delegate.
        #[arg(long, value_name = "NAMESPACE", conflicts_with = "kms_key_arn")]
        vault_namespace: Option<String>,
        /// A note for people.
        #[arg(long, value_name = "TEXT")]
        notes: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Revoke {
    /// The credential.
    #[arg(value_name = "LOGICAL_PATH")]
    pub logical_path: LogicalPath,
    /// Revoke at one resolver, on its operator's socket ([admin] socket in resolver.toml): needs no control plane, and
    /// holds against it.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// At the resolver: also every generation that will ever be registered. Without it, one that is wrapped anew may be
    /// used.
    #[arg(long, requires = "socket")]
    pub all_generations: bool,
    /// At the resolver: take the revocation back.
    #[arg(long, requires = "socket", conflicts_with = "all_generations")]
    pub lift: bool,
    /// At the control plane: why, for people: one line, kept in the list of changes.
    #[arg(long, value_name = "TEXT", conflicts_with = "socket")]
    pub reason: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Flags {
    /// All flags.
    List,
    /// Turn a flag on.
    Enable {
        /// Its name.
        #[arg(default_value = help::FLAG)]
        flag: String,
    },
    /// Turn a flag off. With dual custody off, bouncers deny every protected stream.
    Disable {
        /// Its name.
        #[arg(default_value = help::FLAG)]
        flag: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bouncers {
    /// All bouncers.
    List {
        /// Only with this in their name.
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
    },
    /// Register one.
    Add {
        /// Its name, as in its resolver.toml.
        name: BouncerName,
        /// The resolver's SPIFFE ID.
        #[arg(long, required_unless_present = "iam_role")]
        spiffe_id: Option<SpiffeId>,
        /// For a resolver without SPIRE: the ARN of the IAM role that it enrols with, without the role's path.
        #[arg(long, value_name = "ARN", conflicts_with = "spiffe_id")]
        iam_role: Option<RoleArn>,
    },
    /// Remove one: it is sent nothing any more.
    Remove {
        /// Its name.
        name: BouncerName,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Resources {
    /// All protected resources.
    List(ResourceFilter),
    /// Register one.
    Add(ResourceAdd),
    /// Remove one: streams to its cluster are denied.
    Remove {
        /// Its name.
        name: ResourceName,
    },
}

/// Which protected resources to show.
#[derive(Debug, clap::Args)]
pub(crate) struct ResourceFilter {
    /// Only with this in their name.
    #[arg(long, value_name = "TEXT")]
    pub search: Option<String>,
    /// Only this bouncer's.
    #[arg(long)]
    pub bouncer: Option<BouncerName>,
    /// Only of this credential.
    #[arg(long, value_name = "PATH")]
    pub logical_path: Option<LogicalPath>,
    #[command(flatten)]
    pub state: EnabledFilter,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResourceAdd {
    /// Its name.
    pub name: ResourceName,
    /// The bouncer in front of it.
    #[arg(long)]
    pub bouncer: BouncerName,
    /// Envoy's cluster that leads to it.
    #[arg(long)]
    pub cluster: ClusterName,
    /// Where that is, host:port. Informative: the resolver goes by its own rails.
    #[arg(long, value_name = "HOST:PORT")]
    pub upstream: Upstream,
    /// mtls for a client certificate, https for a header.
    #[arg(long, default_value = "mtls", value_parser = ["mtls", "https"])]
    pub protocol: String,
    /// The credential.
    #[arg(long, value_name = "PATH")]
    pub logical_path: LogicalPath,
    /// Who may use it: a SPIFFE ID, or a prefix of whole path segments ending in `/*`. Repeatable.
    #[arg(long = "caller", value_name = "SPIFFE_ID", required = true, value_parser = caller)]
    pub callers: Vec<String>,
    /// Register it disabled.
    #[arg(long)]
    pub disabled: bool,
}

/// Checks a caller and keeps its text, which is what the API takes.
fn caller(text: &str) -> Result<String, bouncer_custody::Malformed> {
    text.parse::<CallerPattern>().map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn register_takes_a_file_or_fields() {
        let parse = |extra: &[&str]| {
            let args = ["bouncerctl", "register", "--logical-path", "a/b"];
            Args::try_parse_from(args.iter().chain(extra)).map(|_| ())
        };
        assert!(parse(&["--from", "-"]).is_ok());
        assert!(parse(&["--key-id", "k", "--ciphertext-ref", "AQ=="]).is_ok());
        assert!(parse(&[]).is_err());
        assert!(parse(&["--key-id", "k"]).is_err());
        assert!(parse(&["--from", "-", "--key-id", "k", "--ciphertext-ref", "AQ=="]).is_err());
    }

    #[test]
    fn an_alias_is_no_key() {
        let arn = "arn:aws:kms:ca-central-1:123456789012:alias/payments";
        let wrap = ["bouncerctl", "wrap", "--key-arn", arn, "--aad", "env=production", "--in", "-"];
        assert!(Args::try_parse_from(wrap).is_err());
    }
}
