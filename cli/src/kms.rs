//! The customer's AWS KMS, as the operator may use it: `Encrypt`, `GenerateDataKey` and `ReEncrypt`, always with the key
//! named and the AAD as encryption context. Never `Decrypt`.
//!
//! Called by `wrap`, `rewrap` and `secrets rollback`. Speaks HTTPS only, unless `--dev` says otherwise: requests carry plaintext.

mod error;
mod https_only;

pub(crate) use error::{KmsError, Operation};

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_kms::config::Credentials;
use aws_sdk_kms::error::ProvideErrorMetadata as _;
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_types::retry::RetryConfig;
use bouncer_custody::{EncryptionContext, KmsKeyArn};
use error::told_apart;
use https_only::HttpsOnly;
use std::collections::HashMap;
use std::time::Duration;
use zeroize::Zeroizing;

/// KMS in one region, with the credentials that the AWS CLI would use.
#[derive(Debug)]
pub(crate) struct Kms {
    client: aws_sdk_kms::Client,
}

/// Under which key and which AAD something is wrapped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Under<'a> {
    /// The key.
    pub key: &'a KmsKeyArn,
    /// The AAD, which is KMS's encryption context.
    pub aad: Option<&'a EncryptionContext>,
}

/// A new data key. Neither `Clone` nor `Debug`; wiped at its end.
pub(crate) struct DataKey {
    /// 32 bytes.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// The same as a KMS ciphertext blob.
    pub wrapped: Vec<u8>,
}

impl Under<'_> {
    fn context(&self) -> Option<HashMap<String, String>> {
        self.aad.map(|aad| aad.pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The blob of an answer, if it is one under this key that a bouncer could send back to KMS.
    fn blob(&self, key_id: Option<&str>, blob: Option<Blob>) -> Result<Vec<u8>, KmsError> {
        let ours = key_id.is_none_or(|id| id == self.key.as_str());
        match blob {
            Some(blob) if ours && (1..=6_144).contains(&blob.as_ref().len()) => Ok(blob.into_inner()),
            _ => Err(KmsError::UnusableAnswer),
        }
    }
}

impl Kms {
    /// Looks for credentials; `endpoint` is one that [`endpoint`] has checked. Calls nothing yet.
    pub(crate) async fn connect(region: &str, endpoint: Option<&str>, dev: bool) -> Self {
        Self { client: client(region, endpoint, dev).await }
    }

    /// Encrypts `plaintext` and returns the ciphertext blob.
    ///
    /// # Errors
    /// [`KmsError`], with AWS's code where there is one.
    pub(crate) async fn encrypt(
        &self,
        under: Under<'_>,
        mut plaintext: Zeroizing<Vec<u8>>,
    ) -> Result<Vec<u8>, KmsError> {
        let request = self
            .client
            .encrypt()
            .key_id(under.key.as_str())
            .set_encryption_context(under.context())
            .plaintext(Blob::new(std::mem::take(&mut *plaintext)));
        let answer = request.send().await.map_err(|error| told_apart(Operation::Encrypt, &error, under.key))?;
        under.blob(answer.key_id.as_deref(), answer.ciphertext_blob)
    }

    /// Makes a data key for one payload.
    ///
    /// # Errors
    /// As [`Self::encrypt`].
    pub(crate) async fn data_key(&self, under: Under<'_>) -> Result<DataKey, KmsError> {
        let request = self
            .client
            .generate_data_key()
            .key_id(under.key.as_str())
            .set_encryption_context(under.context())
            .key_spec(DataKeySpec::Aes256);
        let answer = request.send().await.map_err(|error| told_apart(Operation::DataKey, &error, under.key))?;
        let plaintext = answer.plaintext.map(|blob| Zeroizing::new(blob.into_inner()));
        let wrapped = under.blob(answer.key_id.as_deref(), answer.ciphertext_blob)?;
        let plaintext = plaintext.ok_or(KmsError::UnusableAnswer)?;
        Ok(DataKey { plaintext, wrapped })
    }

    /// Moves a ciphertext blob to another key and AAD, inside KMS.
    ///
    /// # Errors
    /// As [`Self::encrypt`].
    pub(crate) async fn re_encrypt(&self, blob: &[u8], from: Under<'_>, to: Under<'_>) -> Result<Vec<u8>, KmsError> {
        let request = self.re_encryption(blob, from, to);
        let answer = request.send().await.map_err(|error| told_apart(Operation::ReEncrypt, &error, from.key))?;
        if answer.source_key_id.as_deref().is_some_and(|id| id != from.key.as_str()) {
            return Err(KmsError::UnusableAnswer);
        }
        to.blob(answer.key_id.as_deref(), answer.ciphertext_blob)
    }

    /// Asks KMS whether it would do it (`DryRun`).
    ///
    /// # Errors
    /// As [`Self::encrypt`].
    pub(crate) async fn would_re_encrypt(&self, blob: &[u8], from: Under<'_>, to: Under<'_>) -> Result<(), KmsError> {
        match self.re_encryption(blob, from, to).dry_run(true).send().await {
            // An emulator that does not know DryRun has done it, and nobody keeps what came out.
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("DryRunOperationException") => Ok(()),
            Err(error) => Err(told_apart(Operation::ReEncrypt, &error, from.key)),
        }
    }

    fn re_encryption(
        &self,
        blob: &[u8],
        from: Under<'_>,
        to: Under<'_>,
    ) -> aws_sdk_kms::operation::re_encrypt::builders::ReEncryptFluentBuilder {
        self.client
            .re_encrypt()
            .ciphertext_blob(Blob::new(blob))
            .source_key_id(from.key.as_str())
            .set_source_encryption_context(from.context())
            .destination_key_id(to.key.as_str())
            .set_destination_encryption_context(to.context())
    }
}

/// Checks an endpoint given on the command line.
///
/// # Errors
/// No URL, or plain HTTP without `dev`.
pub(crate) fn endpoint(text: &str, dev: bool) -> Result<String, KmsError> {
    let url = reqwest::Url::parse(text).map_err(|_| KmsError::BadEndpoint)?;
    match url.scheme() {
        "https" => {}
        "http" if dev => {}
        "http" => return Err(KmsError::PlainHttp),
        _ => return Err(KmsError::BadEndpoint),
    }
    if url.host_str().is_none_or(str::is_empty) || !url.username().is_empty() || url.password().is_some() {
        return Err(KmsError::BadEndpoint);
    }
    Ok(text.to_owned())
}

async fn client(region: &str, endpoint: Option<&str>, dev: bool) -> aws_sdk_kms::Client {
    let https = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(4))
        .operation_attempt_timeout(Duration::from_secs(8))
        .operation_timeout(Duration::from_secs(25))
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(https.clone())
        .region(Region::new(region.to_owned()))
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(3));
    let has_some = [
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    ];
    if dev && endpoint.is_some() && !has_some.iter().any(|name| std::env::var_os(name).is_some()) {
        loader = loader.credentials_provider(Credentials::new("dev", "dev", None, None, "bouncerctl --dev"));
    }
    let shared = loader.load().await;
    let mut config = aws_sdk_kms::config::Builder::from(&shared);
    if let Some(endpoint) = endpoint {
        config = config.endpoint_url(endpoint);
    }
    if !dev {
        // An endpoint can come from the environment or a profile too.
        config = config.http_client(HttpsOnly(https));
    }
    aws_sdk_kms::Client::from_conf(config.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_tests_only() {
        assert!(endpoint("https://kms.ca-central-1.amazonaws.com", false).is_ok());
        assert!(matches!(endpoint("http://127.0.0.1:5000", false), Err(KmsError::PlainHttp)));
        assert!(endpoint("http://127.0.0.1:5000", true).is_ok());
        for bad in ["kms", "ftp://x", "https://", "https://u:p@x"] {
            assert!(matches!(endpoint(bad, true), Err(KmsError::BadEndpoint)), "{bad}");
        }
    }
}
