//! What can be wrong with the files that evidence comes from and goes to.

use crate::failure::{Exit, Explain};
use bouncer_audit::BundleError;
use std::path::PathBuf;

/// Why nothing could be exported or verified.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EvidenceError {
    /// The file can't be written.
    #[error("the export could not be written to {}", .path.display())]
    Unwritable {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The export can't be read.
    #[error("the export {} could not be read", .path.display())]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is the other format.
    #[error("the export {} is CSV, which can't be verified", .path.display())]
    Csv {
        /// Where.
        path: PathBuf,
    },
    /// No bundle.
    #[error("the trust bundle {} can't be used: {source}", .path.display())]
    Bundle {
        /// Where.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
    /// No head.
    #[error("what was given as --head is none")]
    Head,
}

impl Explain for EvidenceError {
    fn why(&self) -> Option<String> {
        match self {
            Self::Unwritable { source, .. } | Self::Unreadable { source, .. } => Some(source.to_string()),
            Self::Csv { .. } | Self::Bundle { .. } | Self::Head => None,
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Unwritable { .. } => "Check the folder, its permissions and its room. What was there is as it was.",
            Self::Unreadable { .. } => "Check the path, and that this user may read it.",
            Self::Csv { .. } => "Export it as JSON lines: bouncerctl audit export --format jsonl.",
            Self::Bundle { source: BundleError::NoTrustDomain, .. } => {
                "Say which trust domain it is for: --bundle example.org=FILE."
            }
            Self::Bundle { .. } => "Give the trust domain's X.509 authorities as PEM: spire-server bundle show.",
            Self::Head => {
                "Give the answer of the resolver's /audit/head, as a file or as it is, or CHAIN:SEQUENCE:HEAD."
            }
        }
        .to_owned()
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Unwritable { .. } => Exit::Refused,
            _ => Exit::Usage,
        }
    }
}
