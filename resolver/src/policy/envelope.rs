//! One envelope's metadata, parsed. Everything in it may come from a hostile control plane.

use super::endings::Endings;
use bouncer_custody::{
    BoundBy, CiphertextRef, EncryptionContext, Generation, Issue, IssueOf, KeyId, LogicalPath, Provider, Reason, Tag,
    VaultRef,
};
use bouncer_proto::bridge::v1 as wire;

/// An envelope's metadata.
#[derive(Debug)]
pub struct Envelope {
    /// The credential's path.
    pub path: LogicalPath,
    /// Which registration.
    pub generation: Generation,
    /// Who can unwrap it.
    pub key_id: KeyId,
    /// What is unwrapped.
    pub ciphertext_ref: CiphertextRef,
    /// What that names in a Vault, for `vault_delegate`.
    pub vault: Option<VaultRef>,
    /// Under which pairs.
    pub aad: Option<EncryptionContext>,
    /// The public chain beside it, PEM, or empty.
    pub certificate_chain: String,
    /// Its name towards Envoy; a version of the backend's may follow it.
    pub tag: Tag,
    /// How often this generation was disabled and enabled again.
    pub activation: u64,
    /// The newest generation of the path that was taken back, whether or not this resolver heard of it; 0 for none.
    pub revoked_through: u64,
    /// As the tag's issue, however often it was enabled again: what a generation's number stands for.
    pub content: Issue,
}

/// The pairs that bind an envelope's credential, and when they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs<'a> {
    /// These, before the backend is asked: it proves them by what it decrypts, or there are none.
    Known(Option<&'a EncryptionContext>),
    /// They come with the secret.
    WithSecret,
}

impl Envelope {
    /// The pairs that bind it. What is registered as AAD for a key-value store or a certificate issuer is nobody's
    /// proof, and binds nothing.
    #[must_use]
    pub fn pairs(&self) -> Pairs<'_> {
        match self.vault.as_ref().map_or(BoundBy::Aad, |reference| reference.engine().bound_by()) {
            BoundBy::Aad => Pairs::Known(self.aad.as_ref()),
            BoundBy::Metadata => Pairs::WithSecret,
            BoundBy::Rails => Pairs::Known(None),
        }
    }

    /// The reason for a backend that does not answer.
    #[must_use]
    pub const fn unavailable(&self) -> Reason {
        match self.key_id {
            KeyId::Kms(_) => Reason::KmsUnavailable,
            KeyId::Vault(_) => Reason::VaultUnavailable,
        }
    }

    /// As it came from the control plane.
    #[must_use]
    pub fn to_wire(&self) -> wire::Envelope {
        wire::Envelope {
            logical_path: self.path.to_string(),
            generation: self.generation.get(),
            provider: self.key_id.provider().as_str().to_owned(),
            key_id: self.key_id.as_str().to_owned(),
            ciphertext_ref: self.ciphertext_ref.as_str().to_owned(),
            aad: self.aad.as_ref().map(|aad| aad.as_str().to_owned()),
            certificate_chain: self.certificate_chain.clone(),
            activation: self.activation,
            revoked_through: self.revoked_through,
        }
    }

    /// Whether this is what a rotation puts in the place of `before`: newer, and `before` was not taken back since.
    #[must_use]
    pub fn succeeds(&self, before: &Self) -> bool {
        self.generation > before.generation && before.generation.get() > self.revoked_through
    }

    pub(super) fn parse(raw: &wire::Envelope, endings: &Endings) -> Result<Self, Reason> {
        let malformed = |_| Reason::EnvelopeMalformed;
        let path: LogicalPath = raw.logical_path.parse().map_err(malformed)?;
        let provider: Provider = raw.provider.parse().map_err(malformed)?;
        let key_id = KeyId::parse(provider, &raw.key_id).map_err(malformed)?;
        let ciphertext_ref: CiphertextRef = raw.ciphertext_ref.parse().map_err(malformed)?;
        let aad: Option<EncryptionContext> = raw.aad.as_deref().map(str::parse).transpose().map_err(malformed)?;
        let generation = Generation::new(raw.generation).ok_or(Reason::EnvelopeMalformed)?;
        if raw.certificate_chain.len() > 64 * 1024 {
            return Err(Reason::EnvelopeMalformed);
        }
        let vault = match provider {
            Provider::KmsEnvelope => ciphertext_ref.kms().map(|_| None),
            Provider::VaultDelegate => ciphertext_ref.vault().map(Some),
        };
        let vault = vault.map_err(malformed)?;
        let content = IssueOf {
            path: &path,
            generation,
            key_id: &key_id,
            ciphertext_ref: &ciphertext_ref,
            aad: aad.as_ref(),
            certificate_chain: &raw.certificate_chain,
            activation: 0,
            ended: 0,
        };
        let issue = IssueOf { activation: raw.activation, ended: endings.of(&path), ..content };
        let tag = Tag::new(path.clone(), generation, Issue::digest(&issue));
        let content = Issue::digest(&content);
        let certificate_chain = raw.certificate_chain.clone();
        let (activation, revoked_through) = (raw.activation, raw.revoked_through);
        Ok(Self {
            path,
            generation,
            key_id,
            ciphertext_ref,
            vault,
            aad,
            certificate_chain,
            tag,
            activation,
            revoked_through,
            content,
        })
    }
}
