//! AWS credentials for a SPIFFE identity: STS `AssumeRoleWithWebIdentity` with a JWT-SVID.
//!
//! [`Session::refresh`] is called before each KMS call and does nothing while the credentials hold; it tells apart an
//! identity that is missing, an STS that says no, and an STS that does not answer.

use super::gate::{Gate, Seen};
use crate::identity::Identity;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_sts::config::{BehaviorVersion, Region};
use aws_sdk_sts::error::ProvideErrorMetadata as _;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use bouncer_custody::Reason;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

/// Credentials are renewed this long before they end.
const AHEAD: Duration = Duration::from_secs(300);

/// The exchange of a JWT-SVID for AWS credentials, and its latest result.
#[derive(Debug)]
pub(super) struct Session {
    identity: Arc<Identity>,
    role_arn: String,
    audience: String,
    endpoint: Option<String>,
    http: SharedHttpClient,
    gate: Arc<Gate>,
    current: RwLock<Option<Credentials>>,
    /// One refresh at a time; the others wait for its result.
    refreshing: tokio::sync::Mutex<()>,
}

impl Session {
    pub(super) fn new(
        identity: Arc<Identity>,
        role: &str,
        audience: &str,
        endpoint: Option<String>,
        http: SharedHttpClient,
    ) -> Self {
        let (role_arn, audience) = (role.to_owned(), audience.to_owned());
        Self {
            identity,
            role_arn,
            audience,
            endpoint,
            http,
            gate: Gate::new("STS"),
            current: RwLock::default(),
            refreshing: tokio::sync::Mutex::default(),
        }
    }

    fn holds(&self, ahead: Duration) -> bool {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let end = current.as_ref().and_then(Credentials::expiry);
        end.is_some_and(|end| end > SystemTime::now() + ahead)
    }

    /// Makes sure that there are credentials that hold for a while.
    pub(super) async fn refresh(&self, region: &str) -> Result<(), Reason> {
        if self.holds(AHEAD) {
            return Ok(());
        }
        let _one = self.refreshing.lock().await;
        if self.holds(AHEAD) {
            return Ok(());
        }
        match self.assume(region).await {
            Ok(credentials) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(credentials);
                Ok(())
            }
            // Renewal is ahead of time, so that an outage of STS costs nothing while the old ones hold.
            Err(reason) if reason.is_transient() && self.holds(Duration::from_secs(5)) => Ok(()),
            Err(reason) => Err(reason),
        }
    }

    async fn assume(&self, region: &str) -> Result<Credentials, Reason> {
        self.identity.spiffe_id()?;
        let token = self.identity.jwt_svid(&self.audience).await?;
        let mut config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .http_client(self.http.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(super::timeouts());
        config.set_endpoint_url(self.endpoint.clone());
        let call = self.gate.pass().await.map_err(|_| Reason::StsUnavailable)?;
        let answer = aws_sdk_sts::Client::from_conf(config.build())
            .assume_role_with_web_identity()
            .role_arn(&self.role_arn)
            .role_session_name("bouncer-resolver")
            .web_identity_token(token.as_str())
            .send()
            .await;
        let credentials = match answer {
            Ok(output) => output.credentials.ok_or(Reason::StsUnavailable)?,
            Err(error) => {
                let status = error.raw_response().map(|raw| raw.status().as_u16());
                let seen = seen(error.code(), status);
                call.ended(seen);
                let code = error.code().unwrap_or("no answer").to_owned();
                tracing::warn!(
                    code,
                    "STS gave no credentials for the role; its trust policy must name this trust domain's issuer, the audience and this SPIFFE ID"
                );
                return Err(if seen == Seen::Answer { Reason::StsDenied } else { Reason::StsUnavailable });
            }
        };
        call.ended(Seen::Answer);
        let end = SystemTime::try_from(credentials.expiration).map_err(|_| Reason::StsUnavailable)?;
        let session_token = Some(credentials.session_token);
        let made = Credentials::new(
            credentials.access_key_id,
            credentials.secret_access_key.clone(),
            session_token,
            Some(end),
            "SPIFFE",
        );
        super::wipe(credentials.secret_access_key);
        Ok(made)
    }
}

/// What an error of STS says of STS: an authoritative no is an answer like any other.
fn seen(code: Option<&str>, status: Option<u16>) -> Seen {
    match (code.unwrap_or_default(), status) {
        ("Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "TooManyRequestsException", _)
        | (_, Some(429)) => Seen::Throttled,
        // STS could not reach the issuer of the JWT-SVID, which is answered with a 400 and passes.
        ("IDPCommunicationError" | "IDPCommunicationErrorException", _) => Seen::Fault,
        (_, Some(400..=499)) => Seen::Answer,
        _ => Seen::Fault,
    }
}

/// Hands the session's latest credentials to the SDK.
#[derive(Debug)]
pub(super) struct Current(pub(super) Arc<Session>);

impl ProvideCredentials for Current {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let current = self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        future::ProvideCredentials::ready(current.ok_or_else(|| CredentialsError::not_loaded("no session yet")))
    }
}

/// Where the default chain has no provider at all.
#[derive(Debug)]
pub(super) struct NoCredentials;

impl ProvideCredentials for NoCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("the default AWS chain has no provider")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_no_that_means_it_is_final() {
        for code in ["AccessDenied", "InvalidIdentityToken", "ExpiredTokenException", "SomethingNew"] {
            assert_eq!(seen(Some(code), Some(403)), Seen::Answer, "{code}");
        }
        assert_eq!(seen(Some("Throttling"), Some(400)), Seen::Throttled);
        assert_eq!(seen(Some("IDPCommunicationError"), Some(400)), Seen::Fault);
        assert_eq!(seen(Some("InternalFailure"), Some(500)), Seen::Fault);
        assert_eq!(seen(None, None), Seen::Fault);
    }
}
