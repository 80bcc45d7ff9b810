//! Registered credentials as the control plane lists them, parsed: what `rewrap` builds on must be what it says.

use super::inventory::all;
use super::view::View;
use crate::control_plane::{ControlPlane, segment};
use crate::failure::Failure;
use bouncer_custody::{
    CiphertextRef, EncryptionContext, Generation, KeyId, LogicalPath, Provider, VaultEngine, VaultNamespace, VaultRef,
};
use serde_json::Value;

/// Where they are registered and listed.
pub(super) const PATH: &str = "/v1/crypto/envelope-secrets";

/// The newest generation of a credential.
#[derive(Debug, Clone)]
pub(super) struct Registered {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub path: LogicalPath,
    /// Counts its registrations.
    pub generation: Generation,
    /// Who can unwrap it.
    pub key: KeyId,
    /// What is unwrapped.
    pub reference: CiphertextRef,
    /// What it is bound to.
    pub aad: Option<EncryptionContext>,
    /// The public chain beside it.
    pub chain: Option<String>,
    /// Whether bouncers may use it.
    pub enabled: bool,
    /// Of the last change, where the control plane says so.
    pub revision: Option<u64>,
}

/// A listed credential that this version can't read, by its path as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable(pub String);

impl Registered {
    /// Reads an item of a list or a history.
    pub(super) fn read(item: View<'_>) -> Result<Self, Unreadable> {
        Self::parse(item).ok_or_else(|| Unreadable(item.cell("logical_path")))
    }

    fn parse(item: View<'_>) -> Option<Self> {
        let optional = |name| Some(item.text(name)).filter(|text| !text.is_empty());
        let provider: Provider = item.text("provider").parse().ok()?;
        Some(Self {
            id: item.text("id").to_owned(),
            path: item.text("logical_path").parse().ok()?,
            generation: Generation::new(item.number("generation")?)?,
            key: KeyId::parse(provider, item.text("key_id")).ok()?,
            reference: item.text("ciphertext_ref").parse().ok()?,
            aad: optional("aad").map(str::parse).transpose().ok()?,
            chain: optional("certificate_chain").map(str::to_owned),
            enabled: item.flag("enabled")?,
            revision: item.number("revision"),
        })
    }

    /// What Vault's transit engine encrypted, and in which namespace.
    pub(super) fn transit(&self) -> Option<(&VaultNamespace, VaultRef)> {
        let KeyId::Vault(namespace) = &self.key else { return None };
        let reference = self.reference.vault().ok().filter(|reference| reference.engine() == VaultEngine::Transit);
        Some((namespace, reference?))
    }

    /// How it is wrapped, in one word.
    pub(super) fn form(&self) -> &'static str {
        match &self.key {
            KeyId::Vault(_) => "reference",
            KeyId::Kms(_) => self.reference.kms().map_or("unusable", |wrapped| wrapped.form()),
        }
    }
}

/// All of them, page by page.
///
/// # Errors
/// [`Failure`] if the control plane does not answer, or refuses.
pub(super) async fn list(api: &ControlPlane) -> Result<Vec<Result<Registered, Unreadable>>, Failure> {
    let answer = all(api, PATH, &[]).await?;
    Ok(View(&answer).list("items").map(Registered::read).collect())
}

/// The newest generation of the credential with this id or logical path, as the control plane tells it.
///
/// # Errors
/// [`Failure`] if there is none, or the control plane refuses.
pub(super) async fn find(api: &ControlPlane, secret: &str) -> Result<Value, Failure> {
    if let Ok(id) = uuid::Uuid::parse_str(secret) {
        match api.get(&format!("{PATH}/{}", segment(&id.to_string()))).await {
            // Nothing forbids a path of that form.
            Err(error) if error.is_not_found() => {}
            other => return Ok(other?),
        }
    }
    // What is longer than the filter takes is looked for in the whole list.
    let contains = Some(secret.to_owned()).filter(|text| text.len() <= 255);
    let list = all(api, PATH, &[("q", contains)]).await?;
    let found = View(&list).list("items").find(|item| item.text("logical_path") == secret);
    found.map(|item| item.0.clone()).ok_or(Failure::Unexpected {
        what: "no credential is registered under this path or id",
        advice: "`bouncerctl secrets list` shows what is registered.",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_all_there_is_not_built_on() {
        let whole = json!({
            "id": "0190-x", "logical_path": "a/b", "generation": 3, "provider": "kms_envelope", "enabled": false,
            "key_id": "arn:aws:kms:ca-central-1:123456789012:key/abc-123", "ciphertext_ref": "AQICAHg=", "later": 1,
        });
        let read = Registered::read(View(&whole)).unwrap();
        assert_eq!((read.generation.get(), read.enabled, read.form(), read.aad), (3, false, "direct", None));
        for (field, value) in [
            ("generation", json!(0)),
            ("provider", json!("other")),
            ("key_id", json!("alias/x")),
            ("aad", json!("broken")),
            ("enabled", json!(null)),
        ] {
            let mut item = whole.clone();
            item[field] = value;
            assert_eq!(Registered::read(View(&item)).unwrap_err(), Unreadable("a/b".to_owned()), "{field}");
        }
    }
}
