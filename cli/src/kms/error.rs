//! Why KMS has not done what it was asked, told apart as far as what to do differs.

use super::https_only::PLAIN;
use crate::failure::{Exit, Explain};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use bouncer_custody::KmsKeyArn;

/// What KMS was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `Encrypt`.
    Encrypt,
    /// `GenerateDataKey`.
    DataKey,
    /// `ReEncrypt`.
    ReEncrypt,
}

impl Operation {
    const fn verb(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::DataKey => "make a data key",
            Self::ReEncrypt => "re-encrypt",
        }
    }

    const fn permission(self) -> &'static str {
        match self {
            Self::Encrypt => "kms:Encrypt on this key",
            Self::DataKey => "kms:GenerateDataKey on this key",
            Self::ReEncrypt => "kms:ReEncryptFrom on the old key and kms:ReEncryptTo on the new one",
        }
    }
}

/// Why KMS has not done it.
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
    #[error("KMS refused to {}: {code}", .operation.verb())]
    Refused {
        /// What it was asked to do.
        operation: Operation,
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
    /// No nonce.
    #[error("the operating system gave no randomness")]
    NoRandomness,
}

impl Explain for KmsError {
    fn why(&self) -> Option<String> {
        match self {
            Self::BadEndpoint | Self::UnusableAnswer | Self::NoRandomness => None,
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
            Self::Refused { operation, code, .. } => return refused(*operation, code),
            Self::Unreachable { .. } => "Check the network and the key's region, or give the VPC endpoint by --kms-endpoint.",
            Self::UnusableAnswer => "Check --kms-endpoint: something else than KMS may answer there.",
            Self::NoRandomness => "Check the system: getrandom(2) fails.",
        }
        .to_owned()
    }

    fn exit(&self) -> Exit {
        match self {
            Self::BadEndpoint | Self::PlainHttp => Exit::Usage,
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Credentials { .. } | Self::Refused { .. } | Self::UnusableAnswer | Self::NoRandomness => {
                Exit::Refused
            }
        }
    }
}

fn refused(operation: Operation, code: &str) -> String {
    match code {
        "AccessDeniedException" => {
            return format!(
                "Allow {} for this identity, in the key policy or by IAM; a condition on the encryption context may stand in the way too.",
                operation.permission()
            );
        }
        "InvalidCiphertextException" => {
            "What is registered was not wrapped under this key and this AAD, or it is damaged. No bouncer can unwrap it either: wrap the credential anew."
        }
        "IncorrectKeyException" => "What is registered was wrapped under another key than it says. Wrap the credential anew.",
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
        _ => "Look the code up in AWS's documentation of KMS.",
    }
    .to_owned()
}

/// Tells apart why a call has no answer.
pub(super) fn told_apart<E>(operation: Operation, error: &SdkError<E>, key: &KmsKeyArn) -> KmsError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let unreachable = |why: String| KmsError::Unreachable { region: key.region().to_owned(), why };
    match error {
        SdkError::ServiceError(context) => {
            let error = context.err().meta();
            KmsError::Refused {
                operation,
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
