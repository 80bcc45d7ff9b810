//! Vault's JSON: what is asked, and what is made of the answers. Secret text is wiped when dropped, and shows in no
//! `Debug`.

use crate::unwrap::{UnwrapError, Unwrapped};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bouncer_custody::{EncryptionContext, Reason, Reserved};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// A text that may be secret.
pub(super) struct Text(Zeroizing<String>);

impl Text {
    pub(super) fn into_inner(self) -> Zeroizing<String> {
        self.0
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[derive(Deserialize)]
struct Envelope<T> {
    #[serde(default)]
    request_id: String,
    data: T,
}

#[derive(Deserialize)]
struct Login {
    auth: Auth,
}

/// A token, from a login or a renewal.
#[derive(Deserialize)]
pub(super) struct Auth {
    pub(super) client_token: Text,
    /// Seconds; 0 for a token that never ends.
    pub(super) lease_duration: u64,
    pub(super) renewable: bool,
}

#[derive(Deserialize)]
struct Kv2 {
    data: Fields,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
    created_time: String,
    custom_metadata: Option<BTreeMap<String, String>>,
}

/// A secret in a key-value store: `pem` alone, or `private_key` with `certificate_chain`, or one of the JSON kinds.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(skip_serializing)]
    pem: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_chain: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Text>,
}

/// What `pki` issued.
#[derive(Deserialize)]
pub(super) struct Issued {
    /// The leaf, PEM.
    pub(super) certificate: String,
    /// Its issuers, PEM.
    #[serde(default)]
    pub(super) ca_chain: Vec<String>,
    /// PKCS #8, PEM.
    pub(super) private_key: Text,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: Text,
}

/// A JSON object of texts.
pub(super) fn body(pairs: &[(&str, &str)]) -> Result<Zeroizing<Vec<u8>>, Reason> {
    let pairs: BTreeMap<_, _> = pairs.iter().copied().collect();
    serde_json::to_vec(&pairs).map(Zeroizing::new).map_err(|_| Reason::Internal)
}

/// # Errors
/// [`Reason::VaultUnavailable`] for what no Vault says: something else answers at its address.
pub(super) fn auth(body: &[u8]) -> Result<Auth, Reason> {
    serde_json::from_slice::<Login>(body).map(|login| login.auth).map_err(|_| Reason::VaultUnavailable)
}

/// The latest version of a KV v2 secret, with the pairs of its custom metadata.
pub(super) fn kv2(body: &[u8]) -> Result<Unwrapped, UnwrapError> {
    let (request_id, Kv2 { data, metadata }) = parse(body, Reason::CredentialMalformed)?;
    let failed = |reason| UnwrapError { reason, request_id: request_id.clone() };
    let pairs = pairs(metadata.custom_metadata.unwrap_or_default()).map_err(failed)?;
    let plaintext = data.plaintext().map_err(failed)?;
    // A secret that was destroyed and written anew counts its versions from 1 again, hence the time.
    let pairs_text = pairs.as_ref().map_or("", EncryptionContext::as_str);
    let version = format!("{} {} {pairs_text}", metadata.version, metadata.created_time);
    Ok(Unwrapped { pairs, version: Some(version), ..Unwrapped::fixed(plaintext, request_id) })
}

/// A KV v1 secret.
pub(super) fn kv1(body: &[u8]) -> Result<Unwrapped, UnwrapError> {
    let (request_id, data): (_, Fields) = parse(body, Reason::CredentialMalformed)?;
    let plaintext = data.plaintext().map_err(|reason| UnwrapError { reason, request_id: request_id.clone() })?;
    Ok(Unwrapped { version: Some(String::new()), ..Unwrapped::fixed(plaintext, request_id) })
}

/// What `transit` decrypted.
pub(super) fn transit(body: &[u8]) -> Result<Unwrapped, UnwrapError> {
    let (request_id, Decrypted { plaintext }) = parse(body, Reason::VaultUnavailable)?;
    match STANDARD.decode(plaintext.0.as_bytes()) {
        Ok(plaintext) => Ok(Unwrapped::fixed(Zeroizing::new(plaintext), request_id)),
        Err(_) => Err(UnwrapError { reason: Reason::VaultUnavailable, request_id }),
    }
}

/// What `pki` issued, not yet held against the rails.
pub(super) fn issued(body: &[u8]) -> Result<(Option<String>, Issued), UnwrapError> {
    parse(body, Reason::CredentialMalformed)
}

fn parse<T: DeserializeOwned>(body: &[u8], otherwise: Reason) -> Result<(Option<String>, T), UnwrapError> {
    let Envelope { request_id, data } = serde_json::from_slice(body).map_err(|_| {
        // What is no answer of Vault's at all says nothing of the secret: something else is at its address.
        let vaults = serde_json::from_slice::<Envelope<IgnoredAny>>(body).is_ok();
        UnwrapError::from(if vaults { otherwise } else { Reason::VaultUnavailable })
    })?;
    // For audit, so nothing but an identifier.
    let plain = !request_id.is_empty() && request_id.len() <= 64 && request_id.bytes().all(|b| b.is_ascii_graphic());
    Ok((plain.then_some(request_id), data))
}

impl Fields {
    /// As [`crate::credential`] reads it.
    fn plaintext(self) -> Result<Zeroizing<Vec<u8>>, Reason> {
        let whole = self.kind.is_some();
        let header = self.name.is_some() || self.prefix.is_some() || self.value.is_some();
        match self {
            Self { pem: None, .. } if whole => {
                let mut json = Zeroizing::new(Vec::with_capacity(16 << 10));
                serde_json::to_writer(&mut *json, &self).map_err(|_| Reason::Internal)?;
                Ok(json)
            }
            Self { pem: Some(pem), private_key: None, certificate_chain: None, .. } if !whole && !header => {
                Ok(Zeroizing::new(pem.0.as_bytes().to_vec()))
            }
            Self { pem: None, private_key: Some(key), certificate_chain, .. } if !header => {
                Ok(bundle(&key, certificate_chain.as_ref().map_or("", |chain| chain.0.as_str())))
            }
            _ => Err(Reason::CredentialMalformed),
        }
    }
}

/// A PEM bundle, in memory that does not move while it grows.
pub(super) fn bundle(key: &Text, chain: &str) -> Zeroizing<Vec<u8>> {
    let mut bundle = Zeroizing::new(Vec::with_capacity(key.0.len() + chain.len() + 1));
    bundle.extend_from_slice(key.0.as_bytes());
    bundle.push(b'\n');
    bundle.extend_from_slice(chain.as_bytes());
    bundle
}

/// The pairs of custom metadata. A reserved key that can't be read is an error, never left out; any other text that is
/// no pair is the customer's own business.
fn pairs(custom: BTreeMap<String, String>) -> Result<Option<EncryptionContext>, Reason> {
    const RESERVED: [Reserved; 5] =
        [Reserved::Bouncer, Reserved::Upstream, Reserved::Caller, Reserved::Env, Reserved::Generation];
    let mut kept = Vec::new();
    for (key, value) in custom {
        let reserved = RESERVED.iter().any(|reserved| reserved.as_str() == key);
        // Alone it must be exactly one pair, so that no value can bring along another.
        let pair = format!("{key}={value}");
        let one = pair.parse::<EncryptionContext>().is_ok_and(|pairs| {
            let mut pairs = pairs.pairs();
            pairs.next() == Some((&*key, &*value)) && pairs.next().is_none()
        });
        match (one, reserved) {
            (true, _) => kept.push(pair),
            (false, true) => return Err(Reason::VaultMetadataMalformed),
            (false, false) => {}
        }
    }
    if kept.is_empty() {
        return Ok(None);
    }
    kept.join(",").parse().map(Some).map_err(|_| Reason::VaultMetadataMalformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(data: serde_json::Value, custom: serde_json::Value) -> Result<Unwrapped, Reason> {
        let metadata = json!({"version": 2, "created_time": "t", "custom_metadata": custom, "destroyed": false});
        let body = json!({"request_id": "r-1", "lease_id": "", "data": {"data": data, "metadata": metadata}});
        kv2(body.to_string().as_bytes()).map_err(|error| error.reason)
    }

    #[test]
    fn a_secret_is_one_of_three_forms_and_nothing_between() {
        let plaintext = |data| read(data, json!(null)).map(|unwrapped| unwrapped.plaintext.to_vec());
        assert_eq!(plaintext(json!({"pem": "P"})).unwrap(), b"P");
        assert_eq!(plaintext(json!({"private_key": "K", "certificate_chain": "C"})).unwrap(), b"K\nC");
        let whole = plaintext(json!({"kind": "client_certificate", "private_key": "K", "certificate_chain": "C"}));
        let whole: serde_json::Value = serde_json::from_slice(&whole.unwrap()).unwrap();
        assert_eq!(whole, json!({"kind": "client_certificate", "private_key": "K", "certificate_chain": "C"}));
        for bad in [
            json!({}),
            json!({"pem": "P", "private_key": "K"}),
            json!({"pem": "P", "kind": "client_certificate"}),
            json!({"certificate_chain": "C"}),
            json!({"private_key": "K", "value": "V"}),
            json!({"pem": "P", "note": "x"}),
            json!({"pem": 7}),
            json!(null),
        ] {
            assert_eq!(plaintext(bad.clone()).unwrap_err(), Reason::CredentialMalformed, "{bad}");
        }
    }

    #[test]
    fn custom_metadata_makes_pairs_and_no_value_brings_another() {
        let pairs = |custom| {
            read(json!({"pem": "P"}), custom).map(|unwrapped| unwrapped.pairs.map(|pairs| pairs.as_str().to_owned()))
        };
        let good = json!({"upstream": "a:1", "bouncer": "b", "owner": "the team, by mail"});
        assert_eq!(pairs(good).unwrap().as_deref(), Some("bouncer=b,upstream=a:1"));
        assert_eq!(pairs(json!(null)).unwrap(), None);
        assert_eq!(pairs(json!({"owner": "x y"})).unwrap(), None);
        // Neither from a reserved key nor from any other.
        assert_eq!(pairs(json!({"upstream": "a:1,caller=spiffe://x/y"})), Err(Reason::VaultMetadataMalformed));
        assert_eq!(pairs(json!({"bouncer": ""})), Err(Reason::VaultMetadataMalformed));
        assert_eq!(pairs(json!({"x": "1,bouncer=b"})).unwrap(), None);
        assert_eq!(pairs(json!({"x=1,bouncer": "b"})).unwrap(), None);
    }

    #[test]
    fn secret_data_and_pairs_each_make_another_version() {
        let version = |version: u64, created: &str, custom| {
            let metadata = json!({"version": version, "created_time": created, "custom_metadata": custom});
            let body = json!({"data": {"data": {"pem": "P"}, "metadata": metadata}});
            kv2(body.to_string().as_bytes()).ok().and_then(|unwrapped| unwrapped.version).unwrap()
        };
        let one = version(1, "t", json!({"bouncer": "b"}));
        assert_eq!(one, version(1, "t", json!({"bouncer": "b"})));
        for other in [
            version(2, "t", json!({"bouncer": "b"})),
            version(1, "u", json!({"bouncer": "b"})),
            version(1, "t", json!({"bouncer": "c"})),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn what_vault_did_not_say_is_no_verdict_on_the_secret() {
        let reason = |body: &str| kv2(body.as_bytes()).err().map(|error| error.reason);
        assert_eq!(reason("<html>a proxy's page</html>"), Some(Reason::VaultUnavailable));
        assert_eq!(reason(r#"{"errors":[]}"#), Some(Reason::VaultUnavailable));
        assert_eq!(reason(r#"{"data":{"data":{"pem":"P"}}}"#), Some(Reason::CredentialMalformed));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(body in r#"[{}\[\]":,a-z0-9 ]{0,60}"#) {
            for read in [kv2, kv1, transit] {
                prop_assert!(read(body.as_bytes()).is_err());
            }
            prop_assert!(issued(body.as_bytes()).is_err() && auth(body.as_bytes()).is_err());
        }
    }
}
