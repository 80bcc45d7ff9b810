//! The envelope as JSON: what `wrap` prints, `register` reads and the control plane stores. No field for a secret.

use bouncer_custody::{CiphertextRef, EncryptionContext, LogicalPath, Provider, Reserved};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One wrapped credential.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope {
    /// The KMS key's ARN, or Vault's namespace.
    pub key_id: String,
    /// The wrapped credential.
    pub ciphertext_ref: CiphertextRef,
    /// What it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aad: Option<EncryptionContext>,
    /// Who can unwrap it.
    pub provider: Provider,
    /// The public chain, PEM, where the ciphertext holds the key only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_chain: Option<String>,
    /// Where it was registered, if `wrap` did that too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical_path: Option<LogicalPath>,
    /// What the control plane answered to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Value>,
}

impl Envelope {
    /// The body of `POST /v1/crypto/envelope-secrets`.
    pub(crate) fn body(&self, path: &LogicalPath) -> Value {
        let mut body = serde_json::json!({
            "logical_path": path,
            "key_id": self.key_id,
            "ciphertext_ref": self.ciphertext_ref,
            "provider": self.provider,
        });
        if let Some(aad) = &self.aad {
            body["aad"] = aad.as_str().into();
            // Under another number no bouncer could use it.
            if let Some(generation) = aad.get(Reserved::Generation).and_then(|text| text.parse::<u64>().ok()) {
                body["generation"] = generation.into();
            }
        }
        if let Some(chain) = &self.certificate_chain {
            body["certificate_chain"] = chain.as_str().into();
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_in_the_aad_is_the_one_that_is_asked_for() {
        let text =
            r#"{"key_id":"k","ciphertext_ref":"AQICAHg=","provider":"kms_envelope","aad":"bouncer=a,generation=3"}"#;
        let envelope: Envelope = serde_json::from_str(text).unwrap();
        assert_eq!(envelope.body(&"a/b".parse().unwrap())["generation"], 3);
    }

    #[test]
    fn what_wrap_prints_register_reads() {
        let envelope = Envelope {
            key_id: "arn:aws:kms:ca-central-1:123456789012:key/abc-123".to_owned(),
            ciphertext_ref: "AQICAHg=".parse().unwrap(),
            aad: Some("bouncer=payments-east".parse().unwrap()),
            provider: Provider::KmsEnvelope,
            certificate_chain: None,
            logical_path: Some("a/b".parse().unwrap()),
            registration: Some(serde_json::json!({"id": "x"})),
        };
        let read: Envelope = serde_json::from_str(&serde_json::to_string(&envelope).unwrap()).unwrap();
        assert_eq!(
            read.body(&"c/d".parse().unwrap()),
            serde_json::json!({
                "logical_path": "c/d", "key_id": "arn:aws:kms:ca-central-1:123456789012:key/abc-123",
                "ciphertext_ref": "AQICAHg=", "provider": "kms_envelope", "aad": "bouncer=payments-east",
            })
        );
    }
}
