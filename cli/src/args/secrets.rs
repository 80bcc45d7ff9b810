//! What `secrets` takes.

use bouncer_custody::Provider;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Secrets {
    /// All registered credentials, or those that the options name.
    List(SecretFilter),
    /// One of them, in full.
    Show {
        /// Its logical path, or its id.
        #[arg(value_name = "LOGICAL_PATH")]
        secret: String,
    },
    /// One of them, with every earlier generation: who registered it, when and why.
    History {
        /// Its logical path, or its id, by which it is found after its removal too.
        #[arg(value_name = "LOGICAL_PATH")]
        secret: String,
    },
    /// Register what an earlier generation held as the next one.
    #[command(after_long_help = super::help::ROLLBACK)]
    Rollback(Rollback),
    /// Let bouncers use it again. It gets a new tag, so that no connection of before is reused.
    Enable {
        /// Its logical path, or its id.
        #[arg(value_name = "LOGICAL_PATH")]
        secret: String,
        /// Why, for people: one line, kept in the list of changes.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Remove it with all its generations: streams that need it are denied.
    Remove {
        /// Its logical path, or its id.
        #[arg(value_name = "LOGICAL_PATH")]
        secret: String,
    },
    /// Revoke it: bouncers stop using it, and reset live streams that do.
    Disable {
        /// Its logical path, or its id.
        #[arg(value_name = "LOGICAL_PATH")]
        secret: String,
        /// Why, for people: one line, kept in the list of changes.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// Which credentials to show.
#[derive(Debug, clap::Args)]
pub(crate) struct SecretFilter {
    /// Only with this in their path.
    #[arg(long, value_name = "TEXT")]
    pub search: Option<String>,
    /// Only of this provider: kms_envelope or vault_delegate.
    #[arg(long)]
    pub provider: Option<Provider>,
    /// Only under this key, by its ARN, or in this Vault namespace.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    #[command(flatten)]
    pub state: EnabledFilter,
    /// Only those whose registered certificate ends within so many days, or has ended.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(0..=3_660))]
    pub expires_within: Option<u16>,
}

/// Only what is enabled, or only what is not.
#[derive(Debug, clap::Args)]
pub(crate) struct EnabledFilter {
    /// Only enabled ones.
    #[arg(long, conflicts_with = "disabled")]
    pub enabled: bool,
    /// Only disabled ones.
    #[arg(long)]
    pub disabled: bool,
}

impl EnabledFilter {
    /// The API's parameter, if one of the two is wanted.
    pub(crate) fn wanted(&self) -> Option<String> {
        (self.enabled || self.disabled).then(|| self.enabled.to_string())
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Rollback {
    /// The credential, by its logical path or its id.
    #[arg(value_name = "LOGICAL_PATH")]
    pub secret: String,
    /// The generation whose content is to be in use again.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub to: u64,
    /// Why, for people: one line, kept with the new generation.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// KMS's address, such as a VPC or FIPS endpoint. By default the public one of the key's region. Asked only where
    /// the AAD names the generation.
    #[arg(long, value_name = "URL")]
    pub kms_endpoint: Option<String>,
    /// Allow what must not happen in production: a KMS endpoint over plain HTTP, and made-up AWS credentials for it
    /// where the environment has none.
    #[arg(long)]
    pub dev: bool,
}
