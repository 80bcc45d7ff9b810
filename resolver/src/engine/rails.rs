//! What rails and binding say of an envelope: once before its backend is asked, and once more with the pairs that came
//! with the secret.

use super::Engine;
use crate::config::Cluster;
use crate::policy::{Envelope, Pairs};
use bouncer_custody::{Binding, EncryptionContext, KeyId, Reason, SpiffeId, StreamFacts};

impl Engine {
    /// What can be known before the backend is asked. For a secret that brings its pairs along, what is registered as
    /// its AAD can only speak against the stream.
    pub(super) fn check_rails(&self, envelope: &Envelope, cluster: &Cluster, caller: &SpiffeId) -> Result<(), Reason> {
        self.check_key(envelope, cluster)?;
        match envelope.pairs() {
            Pairs::Known(pairs) => self.check_pairs(envelope, pairs, cluster, caller),
            Pairs::WithSecret => {
                let claimed = self.binding(envelope, envelope.aad.as_ref());
                claimed.contradictions(&self.facts(caller), &cluster.rail).map(drop)
            }
        }
    }

    /// The binding itself, on every decision: nothing is released, and no grant made, without it.
    pub(super) fn check_pairs(
        &self,
        envelope: &Envelope,
        pairs: Option<&EncryptionContext>,
        cluster: &Cluster,
        caller: &SpiffeId,
    ) -> Result<(), Reason> {
        self.check_required(pairs)?;
        self.binding(envelope, pairs).check(&self.facts(caller), &cluster.rail)
    }

    /// As [`Engine::check_pairs`], without a caller: whether it may be used by this bouncer on this cluster at all.
    pub(super) fn check_place(
        &self,
        envelope: &Envelope,
        pairs: Option<&EncryptionContext>,
        cluster: &Cluster,
    ) -> Result<(), Reason> {
        self.check_required(pairs)?;
        let (bouncer, env) = (&self.config.bouncer, self.config.environment.as_ref());
        self.binding(envelope, pairs).check_place(bouncer, env, &cluster.rail).map(drop)
    }

    fn check_required(&self, pairs: Option<&EncryptionContext>) -> Result<(), Reason> {
        let holds = |(key, value): &(String, String)| pairs.is_some_and(|pairs| pairs.has_pair(key, value));
        if self.config.rails.required_pairs.iter().all(holds) { Ok(()) } else { Err(Reason::RequiredPairMissing) }
    }

    /// Whether the rails allow the key, or the mount, on this cluster.
    pub(super) fn check_key(&self, envelope: &Envelope, cluster: &Cluster) -> Result<(), Reason> {
        let (rails, own) = (&self.config.rails, &cluster.rail);
        let any = own.kms_keys.is_empty() && own.vault_mounts.is_empty();
        let allowed = match (&envelope.key_id, &envelope.vault) {
            (KeyId::Kms(_), _) if self.config.kms.is_none() => return Err(Reason::ProviderUnavailable),
            (KeyId::Vault(_), _) if self.config.vault.is_none() => return Err(Reason::ProviderUnavailable),
            (KeyId::Kms(key), _) => rails.kms_keys.contains(key) && (any || own.kms_keys.contains(key)),
            (KeyId::Vault(namespace), Some(reference)) => rails
                .vault_mount(namespace, reference)
                .is_some_and(|rail| any || own.vault_mounts.contains(&rail.mount)),
            (KeyId::Vault(_), None) => false,
        };
        if allowed { Ok(()) } else { Err(Reason::KeyNotAllowed) }
    }

    fn binding<'a>(&self, envelope: &'a Envelope, pairs: Option<&'a EncryptionContext>) -> Binding<'a> {
        let rails = &self.config.rails;
        let key_is_dedicated = match (&envelope.key_id, &envelope.vault) {
            (KeyId::Kms(key), _) => rails.dedicated_keys.contains(key),
            (KeyId::Vault(namespace), Some(reference)) => {
                rails.vault_mount(namespace, reference).is_some_and(|rail| rail.dedicated)
            }
            (KeyId::Vault(_), None) => false,
        };
        Binding { path: &envelope.path, generation: envelope.generation, aad: pairs, key_is_dedicated }
    }

    fn facts<'a>(&'a self, caller: &'a SpiffeId) -> StreamFacts<'a> {
        StreamFacts { bouncer: &self.config.bouncer, env: self.config.environment.as_ref(), caller }
    }
}
