//! The provider `kms_envelope`: AWS KMS `Decrypt`, with the key and the encryption context always named.
//!
//! Credentials come from the default AWS chain, or from a JWT-SVID by STS `AssumeRoleWithWebIdentity`, refreshed ahead
//! of their end. One attempt per call: the [`crate::cache`] decides when to try again, and the [`gate`] of the key's
//! region whether it may.

mod breaker;
mod envelope;
mod gate;
mod pace;
mod refusal;
mod session;

use crate::config::{AwsCredentials, KmsConfig};
use crate::identity::Identity;
use crate::policy::Envelope;
use crate::unwrap::{Unwrap, UnwrapError, Unwrapped};
use aws_sdk_kms::config::{BehaviorVersion, IdentityCache, Region, SharedCredentialsProvider};
use aws_sdk_kms::operation::RequestId as _;
use aws_sdk_kms::primitives::Blob;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use bouncer_custody::{KeyId, KmsKeyArn, Reason, Wrapped};
use futures::future::BoxFuture;
use gate::{Gate, Seen};
use session::Session;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use zeroize::{Zeroize as _, Zeroizing};

/// One attempt at AWS, connection included.
const ATTEMPT: Duration = Duration::from_millis(750);

/// KMS, in as many regions as there are keys.
pub struct Kms {
    config: KmsConfig,
    http: SharedHttpClient,
    session: Option<Arc<Session>>,
    credentials: SharedCredentialsProvider,
    regions: Mutex<HashMap<Box<str>, Regional>>,
    /// Where STS is asked ahead of the first call.
    home: Option<Box<str>>,
}

/// KMS in one region.
#[derive(Clone)]
struct Regional {
    client: aws_sdk_kms::Client,
    gate: Arc<Gate>,
}

impl Kms {
    /// Prepares clients; calls nothing yet. `home` is a key in the region whose STS is asked first.
    pub async fn new(config: &KmsConfig, identity: Arc<Identity>, home: Option<&KmsKeyArn>) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            // An idle connection keeps the last answer, a plaintext, in its buffers. So there is none: a handshake for
            // each call, which is once per credential and `limits.recheck_s`.
            .pool_max_idle_per_host(0)
            .build_https();
        let (session, credentials) = match &config.credentials {
            AwsCredentials::Spiffe { role_arn, audience } => {
                let session = Session::new(identity, role_arn, audience, config.sts_endpoint.clone(), http.clone());
                let session = Arc::new(session);
                (Some(Arc::clone(&session)), SharedCredentialsProvider::new(session::Current(session)))
            }
            AwsCredentials::DefaultChain => {
                let chain = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone()).load().await;
                let none = || SharedCredentialsProvider::new(session::NoCredentials);
                (None, chain.credentials_provider().unwrap_or_else(none))
            }
        };
        let home = home.map(|key| key.region().into());
        Self { config: config.clone(), http, session, credentials, regions: Mutex::default(), home }
    }

    fn regional(&self, key: &KmsKeyArn) -> Regional {
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(regional) = regions.get(key.region()) {
            return regional.clone();
        }
        let mut config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(key.region().to_owned()))
            .credentials_provider(self.credentials.clone())
            .http_client(self.http.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts());
        if self.session.is_some() {
            // The session refreshes its own, and tells why it could not; a second cache would only hide that.
            config = config.identity_cache(IdentityCache::no_cache());
        }
        config.set_endpoint_url(self.config.endpoint(key.region()).map(str::to_owned));
        let client = aws_sdk_kms::Client::from_conf(config.build());
        let regional = Regional { client, gate: Gate::new(&format!("KMS in {}", key.region())) };
        regions.insert(key.region().into(), regional.clone());
        regional
    }

    async fn decrypt(&self, envelope: &Envelope) -> Result<Unwrapped, UnwrapError> {
        let KeyId::Kms(key) = &envelope.key_id else { return Err(Reason::ProviderUnavailable.into()) };
        let wrapped = envelope.ciphertext_ref.kms().map_err(|_| Reason::EnvelopeMalformed)?;
        if let Some(session) = &self.session {
            session.refresh(key.region()).await?;
        }
        let context = envelope
            .aad
            .as_ref()
            .map(|aad| aad.pairs().map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<HashMap<_, _>>());
        let Regional { client, gate } = self.regional(key);
        let call = gate.pass().await?;
        let answer = client
            .decrypt()
            .key_id(key.as_str())
            .set_encryption_context(context)
            .ciphertext_blob(Blob::new(wrapped.blob()))
            .send()
            .await;
        let output = match answer {
            Ok(output) => output,
            Err(error) => {
                let (reason, request_id) = (refusal::reason(&error), error.request_id().map(str::to_owned));
                call.ended(Seen::from(reason));
                return Err(UnwrapError { reason, request_id });
            }
        };
        call.ended(Seen::Answer);
        let request_id = output.request_id().map(str::to_owned);
        let plaintext = match output.plaintext {
            Some(blob) => Zeroizing::new(blob.into_inner()),
            None => return Err(UnwrapError { reason: Reason::KmsUnavailable, request_id }),
        };
        match wrapped {
            Wrapped::Direct(_) => Ok(Unwrapped::fixed(plaintext, request_id)),
            Wrapped::Envelope(sealed) => match envelope::open(&sealed, envelope.aad.as_ref(), plaintext) {
                Ok(plaintext) => Ok(Unwrapped::fixed(plaintext, request_id)),
                Err(reason) => Err(UnwrapError { reason, request_id }),
            },
        }
    }
}

impl Unwrap for Kms {
    fn unwrap<'a>(&'a self, envelope: &'a Envelope) -> BoxFuture<'a, Result<Unwrapped, UnwrapError>> {
        Box::pin(self.decrypt(envelope))
    }

    fn prepare(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let (Some(session), Some(region)) = (&self.session, &self.home) {
                let _ = session.refresh(region).await;
            }
        })
    }
}

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder().operation_timeout(ATTEMPT).connect_timeout(ATTEMPT).build()
}

/// Wipes what a struct of the SDK held before it is freed.
pub(crate) fn wipe(mut text: String) {
    text.zeroize();
}
