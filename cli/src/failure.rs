//! What can go wrong in a command, as people meet it: what happened, why, what to do, and the exit code.
//!
//! Every boundary has its own error type; this one gathers them. No message repeats a secret, a token, a ciphertext, or
//! the content of a file.

use crate::commands::{EvidenceError, Unmovable};
use crate::control_plane::ControlPlaneError;
use crate::declared::Undeclarable;
use crate::files::FileError;
use crate::kms::KmsError;
use crate::resolver::ResolverError;
use crate::vault::VaultError;
use crate::wrap::CredentialError;
use std::error::Error;
use std::process::ExitCode;

/// What the process ends with. Documented in `bouncerctl --help`; scripts rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, and healthy.
    Ok,
    /// Refused, or unhealthy.
    Refused,
    /// The command line asks for something that can't be.
    Usage,
    /// The control plane, KMS or Vault could not be reached: no connection, no trust in its certificate, no answer in time.
    Unreachable,
    /// Not made yet: it waits for a second person.
    Waits,
}

impl Exit {
    /// 0 to 4.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Waits => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// What every error type of this crate can say besides what happened.
pub(crate) trait Explain: std::error::Error {
    /// Why, where more is known than the message says.
    fn why(&self) -> Option<String> {
        None
    }
    /// What to do now.
    fn advice(&self) -> String;
    /// The exit code.
    fn exit(&self) -> Exit;
}

/// The last cause of a chain: the operating system's word, mostly.
pub(crate) fn root_cause(error: &dyn Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// At the control plane, or on the way there.
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    /// At a resolver on this node, or on the way there.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// At KMS, or on the way there.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// At Vault, or on the way there.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The credential, chain or AAD can't be wrapped.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// A registered credential can't be moved.
    #[error(transparent)]
    Unmovable(#[from] Unmovable),
    /// What the files of `diff` and `apply` say can't be meant.
    #[error(transparent)]
    Declared(#[from] Undeclarable),
    /// A file can't be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// An export, a bundle or a head can't be used.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// Options that contradict each other.
    #[error("{what}")]
    Usage {
        /// What contradicts what.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// What the command needs is not there.
    #[error("{what}")]
    Unexpected {
        /// What is not as it would have to be.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The answer could not be printed.
    #[error("the answer could not be written to standard output")]
    Output(#[source] std::io::Error),
    /// The process could not start its runtime.
    #[error("the program could not start")]
    Runtime(#[source] std::io::Error),
}

impl Failure {
    fn explain(&self) -> Option<&dyn Explain> {
        match self {
            Self::ControlPlane(error) => Some(error),
            Self::Resolver(error) => Some(error),
            Self::Kms(error) => Some(error),
            Self::Vault(error) => Some(error),
            Self::Credential(error) => Some(error),
            Self::Unmovable(error) => Some(error),
            Self::Declared(error) => Some(error),
            Self::File(error) => Some(error),
            Self::Evidence(error) => Some(error),
            Self::Usage { .. } | Self::Unexpected { .. } | Self::Output(_) | Self::Runtime(_) => None,
        }
    }

    /// Why it happened, where more is known than the message says.
    pub(crate) fn why(&self) -> Option<String> {
        match self {
            Self::Output(error) | Self::Runtime(error) => Some(error.to_string()),
            other => other.explain().and_then(Explain::why),
        }
    }

    /// What to do now.
    pub(crate) fn advice(&self) -> String {
        match self {
            Self::Usage { advice, .. } | Self::Unexpected { advice, .. } => (*advice).to_owned(),
            Self::Output(_) => {
                "Check where standard output leads: a full disk, or a reader that ended early.".to_owned()
            }
            Self::Runtime(_) => "Check the limits of this shell: open files, processes, memory.".to_owned(),
            other => other.explain().map_or_else(String::new, Explain::advice),
        }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } => Exit::Usage,
            other => other.explain().map_or(Exit::Refused, Explain::exit),
        }
    }
}
