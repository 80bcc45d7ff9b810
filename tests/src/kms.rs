//! The customer's KMS: moto's AWS KMS and STS, behind a proxy that counts calls and makes faults.

use crate::kms_proxy::KmsProxy;
use crate::process::Process;
use crate::scratch::{Scratch, free_port};
use crate::{Fault, Result, fault::Doing as _, tools};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// The region of the keys.
pub const REGION: &str = "ca-central-1";
/// The role that resolvers assume; moto takes any.
pub const ROLE_ARN: &str = "arn:aws:iam::123456789012:role/bouncer";

/// A running KMS and STS.
pub struct Kms {
    process: Process,
    proxy: KmsProxy,
    direct: String,
    http: reqwest::Client,
}

impl Kms {
    /// Starts the server and the proxy in front of it.
    ///
    /// # Errors
    /// If moto is not installed or does not start.
    pub async fn start(scratch: &Scratch) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(tools::tool("moto_server")?);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let process = Process::spawn("kms", scratch, command)?;
        let direct = format!("http://127.0.0.1:{port}");
        // The environment may name a proxy, which has no business between processes of one machine.
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
        let up = || async { http.get(format!("{direct}/moto-api/")).send().await.ok() };
        process.until("answers", Duration::from_secs(60), up).await?;
        let proxy = KmsProxy::start(&direct).await?;
        Ok(Self { process, proxy, direct, http })
    }

    /// Where resolvers reach it: through the proxy.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.proxy.endpoint()
    }

    /// The proxy, to count calls and to make faults.
    #[must_use]
    pub fn proxy(&self) -> &KmsProxy {
        &self.proxy
    }

    /// The server.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Calls KMS as the customer, past the proxy.
    ///
    /// # Errors
    /// If KMS says no.
    pub async fn call(&self, operation: &str, body: &Value) -> Result<Value> {
        let key = body["KeyId"].as_str().and_then(|key| key.strip_prefix("arn:aws:kms:"));
        let region = key.and_then(|key| key.split(':').next()).unwrap_or(REGION);
        self.call_in(region, operation, body).await
    }

    async fn call_in(&self, region: &str, operation: &str, body: &Value) -> Result<Value> {
        // moto checks no signature, but takes the region from the scope of one.
        let scope = format!("AWS4-HMAC-SHA256 Credential=customer/20260101/{region}/kms/aws4_request");
        let answer = self
            .http
            .post(&self.direct)
            .header("authorization", format!("{scope}, SignedHeaders=host, Signature=0"))
            .header("x-amz-target", format!("TrentService.{operation}"))
            .header("content-type", "application/x-amz-json-1.1")
            .body(body.to_string())
            .send()
            .await
            .doing(operation)?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            return Err(Fault::new(format!("KMS {operation}: {status} {text}")));
        }
        if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }

    /// Creates a key; gives its ARN.
    ///
    /// # Errors
    /// If KMS says no.
    pub async fn create_key(&self) -> Result<String> {
        self.create_key_in(REGION).await
    }

    /// Creates a key in another region; gives its ARN.
    ///
    /// # Errors
    /// If KMS says no.
    pub async fn create_key_in(&self, region: &str) -> Result<String> {
        let body = json!({"Description": "customer key of one scenario"});
        text(&self.call_in(region, "CreateKey", &body).await?["KeyMetadata"]["Arn"])
    }

    /// Another way to the same server, with faults and counts of its own.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn another_proxy(&self) -> Result<KmsProxy> {
        KmsProxy::start(&self.direct).await
    }

    /// Encrypts under a key and pairs (`k=v,k=v`; empty for none); gives base64, as a `ciphertext_ref` is.
    ///
    /// # Errors
    /// If KMS says no.
    pub async fn encrypt(&self, key_arn: &str, aad: &str, plaintext: &[u8]) -> Result<String> {
        let body = json!({"KeyId": key_arn, "Plaintext": STANDARD.encode(plaintext), "EncryptionContext": pairs(aad)});
        text(&self.call("Encrypt", &body).await?["CiphertextBlob"])
    }

    /// Puts a plaintext into an envelope, by AWS's own SDK and the second implementation of the format; gives a
    /// `ciphertext_ref`.
    ///
    /// # Errors
    /// If KMS or Python says no.
    pub async fn seal(&self, key_arn: &str, aad: &str, plaintext: &[u8]) -> Result<String> {
        let arguments = ["seal", &self.direct, key_arn, aad];
        let sealed = crate::operator::python("interop.py", &arguments, plaintext).await?.success()?;
        Ok(String::from_utf8(sealed)?.trim().to_owned())
    }

    /// Decrypts, as a control.
    ///
    /// # Errors
    /// If KMS says no.
    pub async fn decrypt(&self, key_arn: &str, aad: &str, ciphertext: &str) -> Result<Vec<u8>> {
        let body = json!({"KeyId": key_arn, "CiphertextBlob": ciphertext, "EncryptionContext": pairs(aad)});
        Ok(STANDARD.decode(text(&self.call("Decrypt", &body).await?["Plaintext"])?)?)
    }

    /// Disables a key.
    ///
    /// # Errors
    /// If KMS says no.
    pub async fn disable_key(&self, key_arn: &str) -> Result<()> {
        self.proxy.set_key_enabled(key_arn, false);
        self.call("DisableKey", &json!({"KeyId": key_id(key_arn)})).await.map(drop)
    }

    /// Enables a key again.
    ///
    /// # Errors
    /// If KMS says no.
    pub async fn enable_key(&self, key_arn: &str) -> Result<()> {
        self.proxy.set_key_enabled(key_arn, true);
        self.call("EnableKey", &json!({"KeyId": key_id(key_arn)})).await.map(drop)
    }
}

// moto's DisableKey wants the id, not the ARN.
fn key_id(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| Fault::new("KMS: an answer without the expected field"))
}

fn pairs(aad: &str) -> Value {
    aad.split(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), Value::from(v))).collect()
}
