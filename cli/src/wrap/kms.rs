//! One call of AWS KMS `Encrypt`, under the AAD as encryption context.
//!
//! Called by `wrap`. Speaks HTTPS only, unless `--dev` says otherwise: the request carries the plaintext.

use crate::failure::{Exit, Explain};
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_kms::config::Credentials;
use aws_sdk_kms::error::SdkError;
use aws_sdk_kms::operation::encrypt::EncryptError;
use aws_sdk_kms::primitives::Blob;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::retry::RetryConfig;
use bouncer_custody::{EncryptionContext, KmsKeyArn};
use std::time::Duration;
use zeroize::Zeroizing;

/// Why KMS has not encrypted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KmsError {
    /// No URL.
    #[error("the KMS endpoint is no https or http URL")]
    BadEndpoint,
    /// Plain HTTP in production.
    #[error("a KMS endpoint over plain HTTP is refused")]
    PlainHttp,
    /// Nobody to be.
    #[error("no AWS credentials were found, or they can't be used")]
    Credentials {
        /// What the chain says.
        why: String,
    },
    /// KMS says no.
    #[error("KMS refused to encrypt: {code}")]
    Refused {
        /// AWS's error code.
        code: String,
        /// AWS's words.
        message: String,
    },
    /// No connection, or no answer in time.
    #[error("KMS in {region} is not reachable")]
    Unreachable {
        /// Where.
        region: String,
        /// Why.
        why: String,
    },
    /// An answer that no bouncer could decrypt.
    #[error("KMS answered, and with nothing that a bouncer could unwrap under this key")]
    UnusableAnswer,
}

impl Explain for KmsError {
    fn why(&self) -> Option<String> {
        match self {
            Self::BadEndpoint | Self::UnusableAnswer => None,
            Self::PlainHttp => Some("the request carries the credential in clear".to_owned()),
            Self::Credentials { why } | Self::Unreachable { why, .. } => Some(why.clone()),
            Self::Refused { message, .. } => Some(message.clone()).filter(|message| !message.is_empty()),
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::BadEndpoint => "Give the endpoint as a URL, such as https://kms.ca-central-1.amazonaws.com.",
            Self::PlainHttp => "Use https, or --dev if this is a test on a machine of your own.",
            Self::Credentials { .. } => "Set AWS_PROFILE or AWS_ACCESS_KEY_ID, or run where a role is attached. `aws sts get-caller-identity` shows who you are.",
            Self::Refused { code, .. } => return refused(code).to_owned(),
            Self::Unreachable { .. } => "Check the network and the key's region, or give the VPC endpoint by --kms-endpoint.",
            Self::UnusableAnswer => "Check --kms-endpoint: something else than KMS may answer there.",
        }
        .to_owned()
    }

    fn exit(&self) -> Exit {
        match self {
            Self::BadEndpoint | Self::PlainHttp => Exit::Usage,
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Credentials { .. } | Self::Refused { .. } | Self::UnusableAnswer => Exit::Refused,
        }
    }
}

fn refused(code: &str) -> &'static str {
    match code {
        "AccessDeniedException" => {
            "Allow kms:Encrypt on this key for this identity, in the key policy or by IAM; a condition on the encryption context may stand in the way too."
        }
        "NotFoundException" => "Check the ARN: account, region and key id.",
        "DisabledException" => "Enable the key, or use another.",
        "KMSInvalidStateException" | "KMSInvalidState" => {
            "The key can't be used now (pending deletion or import, perhaps). Look at it in the console."
        }
        "InvalidKeyUsageException" => "Use a symmetric key for ENCRYPT_DECRYPT.",
        "ThrottlingException" | "LimitExceededException" | "RequestLimitExceeded" => "Try again in a moment.",
        "ExpiredTokenException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "InvalidClientTokenId" => "Sign in to AWS again; check the machine's clock.",
        _ => "Look the code up in AWS's documentation of KMS Encrypt.",
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

/// Encrypts `plaintext` and returns the ciphertext blob.
///
/// # Errors
/// [`KmsError`], with AWS's code where there is one.
pub(crate) async fn encrypt(
    key: &KmsKeyArn,
    aad: &EncryptionContext,
    mut plaintext: Zeroizing<Vec<u8>>,
    endpoint: Option<&str>,
    dev: bool,
) -> Result<Vec<u8>, KmsError> {
    let client = client(key, endpoint, dev).await;
    let mut request = client.encrypt().key_id(key.as_str()).plaintext(Blob::new(std::mem::take(&mut *plaintext)));
    for (name, value) in aad.pairs() {
        request = request.encryption_context(name, value);
    }
    let answer = request.send().await.map_err(|error| told_apart(&error, key))?;
    let ours = answer.key_id().is_none_or(|id| id == key.as_str());
    match answer.ciphertext_blob {
        Some(blob) if ours && !blob.as_ref().is_empty() && blob.as_ref().len() <= 6_144 => Ok(blob.into_inner()),
        _ => Err(KmsError::UnusableAnswer),
    }
}

async fn client(key: &KmsKeyArn, endpoint: Option<&str>, dev: bool) -> aws_sdk_kms::Client {
    let https = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(4))
        .operation_attempt_timeout(Duration::from_secs(8))
        .operation_timeout(Duration::from_secs(25))
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(https.clone())
        .region(Region::new(key.region().to_owned()))
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

fn told_apart(error: &SdkError<EncryptError>, key: &KmsKeyArn) -> KmsError {
    let unreachable = |why: String| KmsError::Unreachable { region: key.region().to_owned(), why };
    match error {
        SdkError::ServiceError(context) => {
            let error = context.err().meta();
            KmsError::Refused {
                code: short(error.code().unwrap_or("no error code")),
                message: short(error.message().unwrap_or_default()),
            }
        }
        SdkError::TimeoutError(_) => unreachable("no answer in time".to_owned()),
        SdkError::DispatchFailure(failure) => {
            let why = failure.as_connector_error().map(|error| chain(error));
            match why {
                Some(why) if why.contains(PLAIN) => KmsError::PlainHttp,
                Some(why) if is_network(failure) => unreachable(short(&why)),
                Some(why) => KmsError::Credentials { why: short(&why) },
                None => unreachable(String::new()),
            }
        }
        // Before anything was sent: no credentials, mostly.
        other => KmsError::Credentials { why: short(&chain(other)) },
    }
}

fn is_network(failure: &aws_smithy_runtime_api::client::result::DispatchFailure) -> bool {
    failure.is_io() || failure.is_timeout()
}

/// An error with its causes, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        next = cause.source();
    }
    text
}

/// One line of somebody else's words. Never the request, which the SDK does not put into its errors.
fn short(text: &str) -> String {
    text.chars().take(400).collect()
}

const PLAIN: &str = "plain HTTP is refused";

/// Sends nothing but HTTPS.
#[derive(Debug)]
struct HttpsOnly(SharedHttpClient);

impl HttpClient for HttpsOnly {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(HttpsOnlyConnector(self.0.http_connector(settings, components)))
    }
}

#[derive(Debug)]
struct HttpsOnlyConnector(SharedHttpConnector);

impl HttpConnector for HttpsOnlyConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if request.uri().starts_with("https://") {
            return self.0.call(request);
        }
        HttpConnectorFuture::ready(Err(ConnectorError::user(PLAIN.into())))
    }
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
