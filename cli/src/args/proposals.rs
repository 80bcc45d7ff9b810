//! What `proposals` takes.

use clap::Subcommand;
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub(crate) enum Proposals {
    /// Changes that wait for a second person, newest first.
    List {
        /// Only in this state.
        #[arg(
            long,
            default_value = "pending",
            value_parser = ["pending", "approved", "rejected", "withdrawn", "expired", "stale", "any"]
        )]
        state: String,
    },
    /// One, with what it would change.
    Show {
        /// Its id.
        id: Uuid,
    },
    /// Approve somebody else's: the change is made.
    Approve(Decision),
    /// Reject somebody else's.
    Reject(Decision),
    /// Take back your own.
    Withdraw {
        /// Its id.
        id: Uuid,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Decision {
    /// Its id.
    pub id: Uuid,
    /// Why, for people: one line, kept with the proposal and in the list of changes.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}
