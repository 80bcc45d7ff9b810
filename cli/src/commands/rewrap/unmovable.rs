//! Why a credential can't be moved, where neither KMS nor the control plane said so.

use crate::failure::{Exit, Explain};

/// What speaks against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unmovable {
    /// One key given twice.
    #[error("the key to move from is the key to move to")]
    SameKey,
    /// KMS does not do that.
    #[error("the two keys are in different regions, and KMS does not re-encrypt across regions")]
    OtherRegion,
    /// Nothing there.
    #[error("nothing is registered under this path")]
    NotRegistered,
    /// What the control plane lists is not understood.
    #[error("it is registered in a way that this version of bouncerctl can't read")]
    Unreadable,
    /// Not where the operator thinks.
    #[error("it is wrapped under another key than --from-key")]
    OtherKey,
    /// Vault's.
    #[error("it is kept in Vault, and not wrapped under a KMS key")]
    InVault,
    /// Not transit's.
    #[error("it is nothing that Vault's transit engine encrypted")]
    NotTransit,
    /// Vault does not change what is bound.
    #[error("its AAD names its generation, and Vault's rewrap changes no associated data")]
    GenerationInVault,
    /// An example, or a part.
    #[error("what is registered is nothing that KMS could have wrapped")]
    NoBlob,
    /// No bouncer would take it.
    #[error("its AAD names another generation than it is registered as")]
    OtherGeneration,
    /// One digit too many.
    #[error("its AAD would become too long by the next generation's number")]
    LongAad,
    /// A control plane that does not know the condition.
    #[error("the control plane registered it under another number than it was asked to")]
    Misnumbered,
}

impl Explain for Unmovable {
    fn advice(&self) -> String {
        match self {
            Self::SameKey => "Give two keys. KMS renews the material of one key by itself, without any change here.",
            Self::OtherRegion => "Give a key of the same region, or wrap the credential anew with bouncerctl wrap.",
            Self::NotRegistered => "Look at bouncerctl secrets list.",
            Self::Unreadable => "Use a newer bouncerctl.",
            Self::OtherKey => "Look at bouncerctl inventory; leave --from-key out to move it whatever its key is.",
            Self::InVault => "Vault rotates its own keys. What transit encrypted is moved with --vault.",
            Self::NotTransit => "Wrapped under a KMS key it is moved with --to-key; other engines of Vault need no move.",
            Self::GenerationInVault => {
                "Encrypt it anew: transit/encrypt with the next generation in associated_data, then bouncerctl register."
            }
            Self::NoBlob => "No bouncer can use it either: wrap the credential anew.",
            Self::OtherGeneration => {
                "No bouncer uses it like that: wrap the credential anew, with the generation that comes next."
            }
            Self::LongAad => "Wrap the credential anew with a shorter AAD.",
            Self::Misnumbered => {
                "Look at bouncerctl secrets history. If bouncers deny, register the generation of before once more, and update the control plane."
            }
        }
        .to_owned()
    }

    fn exit(&self) -> Exit {
        match self {
            Self::SameKey | Self::OtherRegion => Exit::Usage,
            _ => Exit::Refused,
        }
    }
}
