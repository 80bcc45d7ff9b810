//! The clusters and credentials of a scenario, as it describes them before anything runs.

use super::{AAD, CART};
use crate::kms::Kms;
use crate::openbao::OpenBao;
use crate::pki::{Ca, Identity, Leaf};
use crate::{Fault, Result};
use rcgen::KeyPair;
use serde_json::{Value, json};
use std::time::Duration;

/// A cluster of Envoy, its upstream, and its rail.
#[derive(Clone)]
pub struct Cluster {
    /// Envoy's name of it. The first is `payments`; others are reached under `/<name>/`.
    pub name: String,
    /// Whether the upstream wants a client certificate.
    pub wants_certificate: Wants,
    /// The rail's callers.
    pub callers: Vec<String>,
    /// The rail's paths.
    pub logical_paths: Vec<String>,
    /// Whether the rails have it at all.
    pub in_rails: bool,
    /// What the upstream speaks.
    pub protocols: &'static [&'static str],
}

/// What an upstream wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// No handshake without a certificate.
    Required,
    /// It asks, and lets pass who has none.
    Optional,
    /// It does not ask.
    Nothing,
}

impl Cluster {
    /// A cluster whose rail allows every caller and path of the scenarios' shop.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            // Shows a stream that went up without its credential, instead of breaking it.
            wants_certificate: Wants::Optional,
            callers: vec!["spiffe://example.org/ns/shop/*".to_owned()],
            logical_paths: vec!["protected-resources/*".to_owned()],
            in_rails: true,
            protocols: &["h2", "http/1.1"],
        }
    }
}

/// What the customer wraps.
#[derive(Clone)]
pub enum Bundle {
    /// A good key and certificate.
    Good,
    /// The same with an RSA key of 2,048 bits.
    Rsa,
    /// The same in the JSON form.
    Json,
    /// The same in an envelope.
    Sealed,
    /// An expired certificate.
    Expired,
    /// One that ends in some hours.
    EndsSoon,
    /// One that is valid from tomorrow on.
    NotYetValid,
    /// A certificate with another one's key.
    KeyMismatch,
    /// Anything.
    Raw(String),
}

/// A protected resource, its envelope, and what is in it.
#[derive(Clone)]
pub struct Credential {
    /// The resource's name, and the client certificate's common name.
    pub resource: String,
    /// Envoy's cluster.
    pub cluster: String,
    /// The resource's callers.
    pub callers: Vec<String>,
    /// Where the envelope is registered.
    pub logical_path: String,
    /// The pairs under which the customer wraps.
    pub aad: String,
    /// The pairs that are registered, if others.
    pub registered_aad: Option<String>,
    /// What is wrapped.
    pub bundle: Bundle,
    /// Flips a bit of the ciphertext.
    pub tampered: bool,
    /// Wraps under another key than the one that is registered.
    pub wrong_key: bool,
    /// Registers the envelope at all.
    pub with_envelope: bool,
    /// Whether the resource is enabled.
    pub enabled: bool,
    /// Where it is in Vault, if it is there and not wrapped by KMS.
    pub vault: Option<InVault>,
    /// Whether it is put there at all.
    pub written: bool,
}

/// A credential in Vault. The credential's `aad` is its custom metadata (KV v2) or associated data (transit).
#[derive(Clone)]
pub struct InVault {
    /// As it is registered; `root` or [`crate::openbao::TEAM`].
    pub namespace: String,
    /// As it is registered, without transit's ciphertext.
    pub reference: String,
}

impl Credential {
    /// A good credential for [`CART`].
    #[must_use]
    pub fn new(resource: &str, cluster: &str) -> Self {
        Self {
            resource: resource.to_owned(),
            cluster: cluster.to_owned(),
            callers: vec![CART.to_owned()],
            logical_path: format!("protected-resources/{resource}/upstream-tls"),
            aad: AAD.to_owned(),
            registered_aad: None,
            bundle: Bundle::Good,
            tampered: false,
            wrong_key: false,
            with_envelope: true,
            enabled: true,
            vault: None,
            written: true,
        }
    }

    /// In Vault, under a reference such as `kv2:secret/payments`.
    #[must_use]
    pub fn in_vault(mut self, namespace: &str, reference: &str) -> Self {
        self.vault = Some(InVault { namespace: namespace.to_owned(), reference: reference.to_owned() });
        self
    }

    /// For these callers.
    #[must_use]
    pub fn callers(mut self, callers: &[&str]) -> Self {
        self.callers = callers.iter().map(|caller| (*caller).to_owned()).collect();
        self
    }

    /// With this AAD.
    #[must_use]
    pub fn aad(mut self, aad: &str) -> Self {
        aad.clone_into(&mut self.aad);
        self
    }

    /// With something else wrapped.
    #[must_use]
    pub fn bundle(mut self, bundle: Bundle) -> Self {
        self.bundle = bundle;
        self
    }

    /// Wraps it under the customer's key, or puts it into Vault; gives the body of its registration.
    ///
    /// # Errors
    /// If KMS or Vault says no.
    pub async fn wrap(
        &self,
        kms: &Kms,
        key_arn: &str,
        vault: Option<&OpenBao>,
        customer_ca: &Ca,
    ) -> Result<(Identity, Value)> {
        let leaf = Leaf::new(&self.resource);
        let identity = match &self.bundle {
            Bundle::Good | Bundle::Json | Bundle::Sealed | Bundle::Raw(_) => customer_ca.issue(&leaf)?,
            Bundle::Rsa => customer_ca.issue_for(&leaf, &KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?)?,
            Bundle::Expired => customer_ca.issue(&leaf.expired())?,
            Bundle::EndsSoon => customer_ca.issue(&leaf.valid_for(Duration::from_hours(20)))?,
            Bundle::NotYetValid => customer_ca.issue(&leaf.not_yet_valid())?,
            Bundle::KeyMismatch => customer_ca.issue(&leaf)?.with_key_of(&customer_ca.issue(&leaf)?),
        };
        let plaintext = match &self.bundle {
            Bundle::Raw(raw) => raw.clone(),
            Bundle::Json => json!({
                "kind": "client_certificate", "certificate_chain": identity.cert_pem, "private_key": identity.key_pem,
            })
            .to_string(),
            _ => identity.bundle(),
        };
        if let (Some(place), Some(vault)) = (&self.vault, vault) {
            let body = self.put(place, vault, &plaintext).await?;
            return Ok((identity, body));
        }
        let wrapping_key = if self.wrong_key { kms.create_key().await? } else { key_arn.to_owned() };
        let mut ciphertext = match &self.bundle {
            Bundle::Sealed => kms.seal(&wrapping_key, &self.aad, plaintext.as_bytes()).await?,
            _ => kms.encrypt(&wrapping_key, &self.aad, plaintext.as_bytes()).await?,
        };
        if self.tampered {
            ciphertext = flip_a_bit(&ciphertext)?;
        }
        let mut body = json!({
            "logical_path": self.logical_path, "key_id": key_arn, "ciphertext_ref": ciphertext,
            "provider": "kms_envelope",
        });
        let aad = self.registered_aad.as_ref().unwrap_or(&self.aad);
        if !aad.is_empty() {
            body["aad"] = aad.as_str().into();
        }
        Ok((identity, body))
    }
}

impl Credential {
    async fn put(&self, place: &InVault, vault: &OpenBao, plaintext: &str) -> Result<Value> {
        let namespace = if place.namespace == "root" { "" } else { &place.namespace };
        let (engine, path) = place.reference.split_once(':').unwrap_or(("kv2", &place.reference));
        let mut reference = place.reference.clone();
        let mut aad = None;
        match engine {
            _ if !self.written => {}
            "kv2" => vault.write_kv2(namespace, path, &json!({"pem": plaintext}), &self.aad).await?,
            "kv1" => {
                vault.call(reqwest::Method::POST, namespace, path, &json!({"pem": plaintext})).await?;
            }
            "transit" => {
                let ciphertext = vault.encrypt(namespace, path, &self.aad, plaintext.as_bytes()).await?;
                reference = format!("{reference}#{ciphertext}");
                aad = Some(self.aad.as_str()).filter(|aad| !aad.is_empty());
            }
            _ => {}
        }
        let mut body = json!({
            "logical_path": self.logical_path, "key_id": place.namespace, "ciphertext_ref": reference,
            "provider": "vault_delegate",
        });
        if let Some(aad) = self.registered_aad.as_deref().or(aad) {
            body["aad"] = aad.into();
        }
        Ok(body)
    }
}

/// In the last byte, which every authenticated ciphertext covers.
fn flip_a_bit(base64: &str) -> Result<String> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut bytes = STANDARD.decode(base64)?;
    *bytes.last_mut().ok_or_else(|| Fault::new("an empty ciphertext"))? ^= 1;
    Ok(STANDARD.encode(bytes))
}
