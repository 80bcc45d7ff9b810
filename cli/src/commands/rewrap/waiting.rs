//! Moves that somebody has proposed already and that wait. Each re-encryption is another ciphertext, so that one which is
//! registered once more would be another proposal.

use crate::commands::inventory::all;
use crate::commands::registered::{PATH, Registered};
use crate::commands::view::View;
use crate::control_plane::ControlPlane;
use crate::failure::Failure;
use bouncer_custody::{CiphertextRef, EncryptionContext, KmsKeyArn, VaultItem, VaultRef};
use serde_json::Value;

/// The proposals that wait.
pub(super) struct Waiting(Value);

impl Waiting {
    /// All of them, as the control plane tells them.
    ///
    /// # Errors
    /// [`Failure`] if it does not answer, or refuses.
    pub(super) async fn list(api: &ControlPlane) -> Result<Self, Failure> {
        let pending = Some("pending".to_owned());
        Ok(Self(all(api, "/v1/proposals", &[("state", pending)]).await?))
    }

    /// The proposal by which the credential, as it is registered now, would be under `key` with this AAD, and nothing else
    /// of it would change.
    pub(super) fn under(
        &self,
        secret: &Registered,
        key: &KmsKeyArn,
        aad: Option<&EncryptionContext>,
    ) -> Option<String> {
        let (before, aad) = (text(secret.aad.as_ref()), text(aad));
        self.of(secret, |proposal| {
            after(proposal, "key_id", secret.key.as_str()) == key.as_str() && after(proposal, "aad", before) == aad
        })
    }

    /// The proposal by which it would be under this version of its transit key, and nothing else of it would change.
    pub(super) fn under_version(&self, secret: &Registered, version: u64) -> Option<String> {
        let (_, now) = secret.transit()?;
        self.of(secret, |proposal| {
            let reference = after(proposal, "ciphertext_ref", "").parse::<CiphertextRef>();
            match reference.ok().and_then(|reference| reference.vault().ok()).map(named) {
                Some((place, Some(proposed))) => place == named(now.clone()).0 && proposed == version,
                _ => false,
            }
        })
    }

    fn of(&self, secret: &Registered, fits: impl Fn(View<'_>) -> bool) -> Option<String> {
        let is_about = |proposal: &View<'_>| {
            let call = (proposal.text("method"), proposal.text("route"));
            let base = proposal.number("base_revision");
            call == ("POST", PATH) && proposal.text("subject") == secret.path.as_str() && base == secret.revision
        };
        let moves = |field: &str| matches!(field, "ciphertext_ref" | "generation" | "key_id" | "aad");
        let only_moves = |proposal: &View<'_>| proposal.list("changes").all(|change| moves(change.text("field")));
        let found = View(&self.0).list("items").find(|one| is_about(one) && only_moves(one) && fits(*one));
        found.map(|proposal| proposal.cell("id"))
    }
}

/// Where transit keeps the key, and the version that the ciphertext is under.
fn named(reference: VaultRef) -> (String, Option<u64>) {
    match reference.what {
        VaultItem::Transit(name, ciphertext) => (format!("{}/{name}", reference.mount), Some(ciphertext.version())),
        _ => (reference.mount.to_string(), None),
    }
}

fn text(aad: Option<&EncryptionContext>) -> &str {
    aad.map_or("", EncryptionContext::as_str)
}

/// What a field would be; `now` if the proposal does not change it.
fn after<'a>(proposal: View<'a>, field: &str, now: &'a str) -> &'a str {
    let change = proposal.list("changes").find(|change| change.text("field") == field);
    change.map_or(now, |change| change.text("after"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bouncer_custody::{Generation, KeyId};
    use serde_json::json;

    const OLD: &str = "arn:aws:kms:ca-central-1:123456789012:key/old";
    const NEW: &str = "arn:aws:kms:ca-central-1:123456789012:key/new";

    fn registered(key: KeyId, reference: &str, aad: Option<&str>) -> Registered {
        Registered {
            id: "0190-x".to_owned(),
            path: "a/b".parse().unwrap(),
            generation: Generation::FIRST,
            key,
            reference: reference.parse().unwrap(),
            aad: aad.map(|aad| aad.parse().unwrap()),
            chain: None,
            enabled: true,
            revision: Some(7),
        }
    }

    fn proposed(changes: Value) -> Value {
        json!({
            "id": "p", "method": "POST", "route": "/v1/crypto/envelope-secrets", "subject": "a/b", "base_revision": 7,
            "changes": changes,
        })
    }

    #[test]
    fn the_same_move_is_known_and_another_change_is_not() {
        let secret = registered(KeyId::Kms(OLD.parse().unwrap()), "AQICAHg=", Some("bouncer=a,generation=1"));
        let next: EncryptionContext = "bouncer=a,generation=2".parse().unwrap();
        let known = |proposal: Value| {
            let waiting = Waiting(json!({"items": [proposal]}));
            waiting.under(&secret, &NEW.parse().unwrap(), Some(&next))
        };
        let change = |field: &str, after: &str| json!({"field": field, "after": after});
        let (key, aad) = (change("key_id", NEW), change("aad", next.as_str()));
        let move_of_it = proposed(json!([key, aad, change("ciphertext_ref", "sha256:00"), change("generation", "2")]));
        assert_eq!(known(move_of_it.clone()), Some("p".to_owned()));
        for (field, value) in [
            ("subject", json!("a/c")),
            ("base_revision", json!(6)),
            ("method", json!("PUT")),
            ("route", json!("/v1/crypto/envelope-secrets/{id}/rollback")),
        ] {
            let mut other = move_of_it.clone();
            other[field] = value;
            assert_eq!(known(other), None, "{field}");
        }
        for changes in [
            json!([aad]),
            json!([key]),
            json!([key, change("aad", "bouncer=b,generation=2")]),
            json!([change("key_id", OLD), aad]),
            json!([key, aad, {"field": "enabled", "after": false}]),
            json!([key, aad, change("expires_at", "2030-01-01T00:00:00Z")]),
        ] {
            assert_eq!(known(proposed(changes.clone())), None, "{changes}");
        }
    }

    #[test]
    fn in_vault_it_is_the_version_that_counts() {
        let key = KeyId::Vault("team-a".parse().unwrap());
        let secret = registered(key, "transit:transit/k#vault:v1:AAAA", None);
        let known = |reference: &str, version| {
            let changes = json!([{"field": "ciphertext_ref", "after": reference}]);
            Waiting(json!({"items": [proposed(changes)]})).under_version(&secret, version)
        };
        assert_eq!(known("transit:transit/k#vault:v2:BBBB", 2), Some("p".to_owned()));
        assert_eq!(known("transit:transit/k#vault:v2:BBBB", 3), None, "the key was rotated since");
        assert_eq!(known("transit:transit/other#vault:v2:BBBB", 2), None);
        assert_eq!(known("transit:other/k#vault:v2:BBBB", 2), None);
        assert_eq!(known("kv2:secret/x", 2), None);
    }
}
