//! What `tokens` takes.

use bouncer_custody::ResourceName;
use clap::Subcommand;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// Make a token. With the one that `bouncer-control-plane bootstrap` wrote, once.
    Create(TokenCreate),
    /// Tokens, without their texts, oldest first.
    List(TokenFilter),
    /// Revoke a token and end its sessions, at once.
    Revoke {
        /// Its id, or its name where no other token that is in use has it.
        #[arg(value_name = "ID_OR_NAME")]
        token: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct TokenFilter {
    /// Only of this name.
    #[arg(long)]
    pub name: Option<ResourceName>,
    /// Only of this role.
    #[arg(long, value_parser = ["viewer", "auditor", "operator", "admin"])]
    pub role: Option<String>,
    /// Only those that are good (live), whose time is over (ended), or that were revoked or used up (revoked).
    #[arg(long, value_parser = ["live", "ended", "revoked"])]
    pub state: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct TokenCreate {
    /// Stands for the token in the audit: lower-case letters, digits, inner '-', '_' and '.'.
    pub name: String,
    /// What its bearer may do.
    #[arg(long, value_parser = ["viewer", "auditor", "operator", "admin"])]
    pub role: String,
    /// Limit it to this logical path, or to all below it with `/*` at the end. Repeatable; without it there is no limit.
    #[arg(long = "path-prefix", value_name = "PATH")]
    pub path_prefixes: Vec<String>,
    /// Its life in days, 1 to 366; 90 unless given.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=366))]
    pub expires_in_days: Option<u16>,
    /// Write it to this new file, which only its owner may read, instead of to standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}
