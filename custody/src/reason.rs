//! Why a stream was denied: the codes that people meet in the response header, in audit and in metrics.

use std::fmt;
use std::str::FromStr;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal;)*) => {
        /// Why a stream was denied. The code is stable, says nothing secret, and decides the HTTP status: 403 where a
        /// rule says no, 503 where something is missing, broken or late.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable code, such as `binding_incomplete`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// 403 or 503.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }
        }

        impl FromStr for Reason {
            type Err = UnknownReason;
            fn from_str(code: &str) -> Result<Self, UnknownReason> {
                match code { $($code => Ok(Self::$name),)* _ => Err(UnknownReason) }
            }
        }
    };
}

reasons! {
    /// Native filters did not hand the filter the facts of the connection, or not in the agreed form.
    FactsMissing = "facts_missing", 403;
    /// The cluster is protected, and no protected resource is registered for it at this bouncer.
    NotRegistered = "not_registered", 403;
    /// The resolver would let the stream pass without a credential, and the filter protects the cluster.
    NotProtected = "not_protected", 403;
    /// The flag `flags.crypto.dual_custody_intercept` is off.
    FeatureDisabled = "feature_disabled", 403;
    /// More than one protected resource of the cluster allows this caller, or a cluster in mode `named` has more than one
    /// credential.
    ResourceAmbiguous = "resource_ambiguous", 403;
    /// The protected resource is disabled.
    ResourceDisabled = "resource_disabled", 403;
    /// There is not exactly one verified SPIFFE ID of the caller.
    CallerUnverified = "caller_unverified", 403;
    /// Neither the resource nor the rails allow this caller.
    CallerNotAllowed = "caller_not_allowed", 403;
    /// The resolver's rails do not list this cluster.
    DestinationNotAllowed = "destination_not_allowed", 403;
    /// The resolver's rails do not allow this key.
    KeyNotAllowed = "key_not_allowed", 403;
    /// The resolver's rails do not allow this logical path on this cluster.
    PathNotAllowed = "path_not_allowed", 403;
    /// The rails require a pair that the AAD does not hold.
    RequiredPairMissing = "required_pair_missing", 403;
    /// One of bouncer, upstream and caller is bound neither by the AAD nor by a rail.
    BindingIncomplete = "binding_incomplete", 403;
    /// The AAD's `bouncer=` names another bouncer.
    BindingBouncer = "binding_mismatch_bouncer", 403;
    /// The AAD's `upstream=` names another destination.
    BindingUpstream = "binding_mismatch_upstream", 403;
    /// The AAD's `caller=` names another caller.
    BindingCaller = "binding_mismatch_caller", 403;
    /// The AAD's `env=` names another environment.
    BindingEnv = "binding_mismatch_env", 403;
    /// The AAD's `generation=` names another generation.
    BindingGeneration = "binding_mismatch_generation", 403;
    /// The generation is older than one that this resolver has used, or reuses its number for other content.
    RollbackRefused = "rollback_refused", 403;
    /// An operator has revoked it at the resolver itself.
    RevokedByOperator = "revoked_by_operator", 403;
    /// The cluster's credential was just taken back, and Envoy may still hold connections with it (`named` mode).
    RevokedRecently = "revoked_recently", 503;
    /// What is registered can't be parsed: no envelope at that path, a malformed reference, key or AAD.
    EnvelopeMalformed = "envelope_malformed", 503;
    /// No envelope is registered under the resource's logical path.
    EnvelopeMissing = "envelope_missing", 503;
    /// The provider is not configured at this resolver.
    ProviderUnavailable = "provider_unavailable", 503;
    /// The resolver has no policy snapshot.
    PolicyMissing = "policy_missing", 503;
    /// The resolver's policy snapshot is older than its age cap.
    PolicyStale = "policy_stale", 503;
    /// There is no workload identity.
    IdentityUnavailable = "identity_unavailable", 503;
    /// The workload identity has expired.
    IdentityExpired = "identity_expired", 503;
    /// STS refused the workload identity.
    StsDenied = "sts_denied", 503;
    /// STS did not answer in time.
    StsUnavailable = "sts_unavailable", 503;
    /// KMS: AccessDeniedException.
    KmsAccessDenied = "kms_access_denied", 503;
    /// KMS: InvalidCiphertextException: tampered, or another encryption context.
    KmsInvalidCiphertext = "kms_invalid_ciphertext", 503;
    /// KMS: IncorrectKeyException: wrapped under another key.
    KmsIncorrectKey = "kms_incorrect_key", 503;
    /// KMS: DisabledException.
    KmsKeyDisabled = "kms_key_disabled", 503;
    /// KMS: KMSInvalidStateException, such as pending deletion.
    KmsKeyInvalidState = "kms_key_invalid_state", 503;
    /// KMS: NotFoundException.
    KmsKeyNotFound = "kms_key_not_found", 503;
    /// KMS: KMSInvalidStateException of a key that its owner has scheduled for deletion.
    KmsKeyPendingDeletion = "kms_key_pending_deletion", 503;
    /// KMS: the endpoint that was asked serves another region than the key's.
    KmsWrongRegion = "kms_wrong_region", 503;
    /// KMS takes the AWS credentials themselves for invalid or expired, whatever they may do.
    KmsCredentialsRefused = "kms_credentials_refused", 503;
    /// KMS says no by a code that this version does not know.
    KmsRefused = "kms_refused", 503;
    /// KMS gave a data key, and the envelope's payload is not authentic under it and the AAD.
    EnvelopeNotAuthentic = "envelope_not_authentic", 503;
    /// KMS: throttled, or not asked since it throttled a moment ago.
    KmsThrottled = "kms_throttled", 503;
    /// KMS did not answer in time, or with a server error; or it was not asked since that happened again and again.
    KmsUnavailable = "kms_unavailable", 503;
    /// Vault refused the resolver's login. Check the role's bound subject and audience, and who issued the SVID.
    VaultLoginFailed = "vault_login_failed", 503;
    /// Vault: 403 with a new token. The role's policy does not allow this path.
    VaultDenied = "vault_denied", 503;
    /// Vault: 404. No secret, or no mount, is at this path, or its latest version is deleted.
    VaultNotFound = "vault_not_found", 503;
    /// Vault: `transit` does not decrypt it: tampered, another key, or another AAD. Wrap the credential anew.
    VaultInvalidCiphertext = "vault_invalid_ciphertext", 503;
    /// Vault: 400. It refuses the request as such, such as a name that the `pki` role does not allow.
    VaultRequestRefused = "vault_request_refused", 503;
    /// Vault issued a certificate with names or dates that the rails do not allow. Correct the role, or the rails.
    VaultCertificateNotAllowed = "vault_certificate_not_allowed", 403;
    /// A reserved key in the KV v2 custom metadata can't be read as a binding. Correct it where the secret is kept.
    VaultMetadataMalformed = "vault_metadata_malformed", 503;
    /// Vault is sealed, on every address. Unseal it.
    VaultSealed = "vault_sealed", 503;
    /// Vault did not answer in time, on any address, or with a server error, or as a standby.
    VaultUnavailable = "vault_unavailable", 503;
    /// The unwrapped credential is no PEM bundle or JSON credential.
    CredentialMalformed = "credential_malformed", 503;
    /// The unwrapped private key does not match the certificate.
    CredentialKeyMismatch = "credential_key_mismatch", 503;
    /// The unwrapped certificate has expired.
    CredentialExpired = "credential_expired", 503;
    /// The unwrapped certificate is not yet valid.
    CredentialNotYetValid = "credential_not_yet_valid", 503;
    /// The credential's kind does not fit the cluster's mode.
    CredentialKindUnsupported = "credential_kind_unsupported", 503;
    /// The audit spool is full or cannot be written.
    AuditUnavailable = "audit_unavailable", 503;
    /// Envoy did not take the certificate (`named` mode).
    SdsNotAcknowledged = "sds_not_acknowledged", 503;
    /// The resolver has as many streams in hand as it may.
    Overloaded = "overloaded", 503;
    /// The resolver could not be reached.
    ResolverUnavailable = "resolver_unavailable", 503;
    /// The resolver did not answer in time.
    ResolverTimeout = "resolver_timeout", 503;
    /// The decision was overtaken by an invalidation.
    DecisionStale = "decision_stale", 503;
    /// A fault of Bouncer's own.
    Internal = "internal", 503;
}

impl Reason {
    /// Whether trying again soon may help without anyone changing anything.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::StsUnavailable
                | Self::KmsThrottled
                | Self::KmsUnavailable
                | Self::VaultSealed
                | Self::VaultUnavailable
                | Self::IdentityUnavailable
                | Self::AuditUnavailable
                | Self::SdsNotAcknowledged
                | Self::RevokedRecently
                | Self::Overloaded
                | Self::ResolverUnavailable
                | Self::ResolverTimeout
                | Self::DecisionStale
                | Self::PolicyMissing
                | Self::PolicyStale
                | Self::Internal
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// A reason code that this version does not know. It denies all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown reason code")]
pub struct UnknownReason;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_distinct_and_read_back() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(reason.code().parse(), Ok(*reason));
            assert!(matches!(reason.http_status(), 403 | 503));
            assert!(!reason.is_transient() || reason.http_status() == 503, "{reason}");
        }
    }
}
