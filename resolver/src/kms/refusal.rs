//! KMS's errors → [`Reason`]s, by the API reference of `Decrypt` and of the errors that all actions share.
//!
//! What counts is whether the answer is final: an authoritative no evicts the credential, a fault that passes does not.
//! KMS does not say whether a ciphertext was damaged or the encryption context is another one: both are
//! `InvalidCiphertextException`.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_kms::operation::decrypt::DecryptError;
use bouncer_custody::Reason;
use std::error::Error;

/// The reason of a call that gave no plaintext.
pub(super) fn reason(error: &SdkError<DecryptError>) -> Reason {
    if let Some(why) = no_credentials(error) {
        tracing::warn!(why, "there are no AWS credentials, so KMS was not asked");
        return Reason::StsUnavailable;
    }
    let status = error.raw_response().map(|raw| raw.status().as_u16());
    of(error.code(), error.message().unwrap_or_default(), status)
}

/// Why there were no credentials, where that is what stopped the call. Also what is denied for good looks
/// like this, and what only seems so: a metadata server that can't be reached counts as none.
fn no_credentials(error: &SdkError<DecryptError>) -> Option<String> {
    let own = causes(error.source()?).find(|cause| cause.is::<CredentialsError>())?;
    Some(causes(own).map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

/// An error, and what caused it.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| <dyn Error>::source(*error))
}

fn of(code: Option<&str>, message: &str, status: Option<u16>) -> Reason {
    let message = message.to_ascii_lowercase();
    match code.unwrap_or_default() {
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" | "OptInRequired" => Reason::KmsAccessDenied,
        "InvalidCiphertextException" => Reason::KmsInvalidCiphertext,
        "IncorrectKeyException" | "InvalidKeyUsageException" => Reason::KmsIncorrectKey,
        "DisabledException" => Reason::KmsKeyDisabled,
        "KMSInvalidStateException" if message.contains("pending deletion") || message.contains("pendingdeletion") => {
            Reason::KmsKeyPendingDeletion
        }
        "KMSInvalidStateException" => Reason::KmsKeyInvalidState,
        // "Invalid arn us-east-1" is what an endpoint of another region says.
        "NotFoundException" if message.contains("invalid arn") => Reason::KmsWrongRegion,
        "NotFoundException" => Reason::KmsKeyNotFound,
        "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "TooManyRequestsException" => Reason::KmsThrottled,
        // The signature's scope names a region, which a VPC endpoint of another one refuses.
        "InvalidSignatureException" | "SignatureDoesNotMatch"
            if message.contains("credential should be scoped to a valid region") =>
        {
            Reason::KmsWrongRegion
        }
        "ExpiredTokenException"
        | "ExpiredToken"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "RequestExpired" => Reason::KmsCredentialsRefused,
        // By their names, since they come with statuses from 400 to 503.
        "KeyUnavailableException"
        | "DependencyTimeoutException"
        | "KMSInternalException"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout" => Reason::KmsUnavailable,
        _ => match status {
            Some(429) => Reason::KmsThrottled,
            Some(408) | None => Reason::KmsUnavailable,
            Some(400..=499) => Reason::KmsRefused,
            Some(_) => Reason::KmsUnavailable,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_final_no_is_told_apart() {
        let cases = [
            ("AccessDeniedException", "", Reason::KmsAccessDenied),
            ("InvalidCiphertextException", "", Reason::KmsInvalidCiphertext),
            ("IncorrectKeyException", "", Reason::KmsIncorrectKey),
            ("InvalidKeyUsageException", "", Reason::KmsIncorrectKey),
            ("DisabledException", "key is disabled.", Reason::KmsKeyDisabled),
            ("KMSInvalidStateException", "arn:aws:kms:x is pending deletion.", Reason::KmsKeyPendingDeletion),
            ("KMSInvalidStateException", "arn:aws:kms:x is pending import.", Reason::KmsKeyInvalidState),
            ("NotFoundException", "Invalid arn us-east-1", Reason::KmsWrongRegion),
            ("NotFoundException", "Key 'arn:aws:kms:x' does not exist", Reason::KmsKeyNotFound),
            ("InvalidSignatureException", "Credential should be scoped to a valid region.", Reason::KmsWrongRegion),
            ("InvalidSignatureException", "The request signature we calculated", Reason::KmsCredentialsRefused),
            ("ExpiredTokenException", "", Reason::KmsCredentialsRefused),
            ("ValidationException", "", Reason::KmsRefused),
            ("SomethingNew", "", Reason::KmsRefused),
        ];
        for (code, message, reason) in cases {
            assert_eq!(of(Some(code), message, Some(400)), reason, "{code} {message}");
            assert!(!reason.is_transient(), "{reason}");
        }
    }

    #[test]
    fn what_passes_is_transient() {
        let cases = [
            (Some("ThrottlingException"), Some(400), Reason::KmsThrottled),
            (Some("KeyUnavailableException"), Some(400), Reason::KmsUnavailable),
            (Some("DependencyTimeoutException"), Some(503), Reason::KmsUnavailable),
            (Some("SomethingNew"), Some(500), Reason::KmsUnavailable),
            (None, Some(429), Reason::KmsThrottled),
            (None, Some(502), Reason::KmsUnavailable),
            (None, Some(200), Reason::KmsUnavailable),
            (None, None, Reason::KmsUnavailable),
        ];
        for (code, status, reason) in cases {
            assert_eq!(of(code, "", status), reason, "{code:?} {status:?}");
            assert!(reason.is_transient(), "{reason}");
        }
    }
}
