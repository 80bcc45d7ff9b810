//! Enrolment of a resolver without an SVID: by its IAM role, to a control plane known by its CA and name.
//!
//! Each connection has a key of its own, made in memory and never written. What proves the role is a
//! `GetCallerIdentity` that is signed over the control plane's name and that key's digest and never sent to STS from here:
//! the control plane does that. So it is of no use to another control plane, or under another key. The credentials
//! themselves stay here; only their session token goes along, which signs nothing by itself.

use super::connect::BridgeError;
use crate::config::IamLogin;
use crate::metrics::Metrics;
use aws_config::BehaviorVersion;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use bouncer_custody::{GetCallerIdentity, Hex};
use bouncer_proto::bridge::v1 as wire;
use bouncer_proto::bridge::v1::enrolment_client::EnrolmentClient;
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How long the credential chain may take: its servers are on this machine or next to it.
const CREDENTIALS: Duration = Duration::from_secs(5);
/// How long the control plane may take over an enrolment; it asks STS.
const ENROLMENT: Duration = Duration::from_secs(15);
/// An enrolment is renewed after half of its life: not sooner than this, also after a fault,
const RENEWAL_MIN: Duration = Duration::from_secs(20);
/// and not later.
const RENEWAL_MAX: Duration = Duration::from_secs(450);

/// Why there is nothing to enrol with.
#[derive(Debug, thiserror::Error)]
pub(super) enum EnrolError {
    #[error("the AWS credential chain gives no credentials; is there a role for this machine, task or pod?")]
    NoCredentials,
    #[error("no key can be made for the connection")]
    Key,
    #[error("TLS can't be set up")]
    Tls,
    #[error("the call can't be signed")]
    Sign,
}

/// Makes keys and signs calls.
pub(super) struct Enroller {
    login: IamLogin,
    credentials: Option<SharedCredentialsProvider>,
}

/// A connection's key.
pub(super) struct ConnectionKey {
    pub(super) tls: ClientConfig,
    /// SHA-256 of its SubjectPublicKeyInfo, lower-case hex.
    digest: String,
}

impl Enroller {
    /// Finds the credential chain; asks nobody yet.
    pub(super) async fn new(login: &IamLogin) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .pool_max_idle_per_host(0)
            .build_https();
        let chain = aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await;
        Self { login: login.clone(), credentials: chain.credentials_provider() }
    }

    /// A new key, and TLS 1.3 with it to the one server.
    pub(super) fn key(&self) -> Result<ConnectionKey, EnrolError> {
        let key = KeyPair::generate().map_err(|_| EnrolError::Key)?;
        // Its names say nothing: the key is what counts.
        let params = CertificateParams::new(Vec::new()).map_err(|_| EnrolError::Key)?;
        let certificate = params.self_signed(&key).map_err(|_| EnrolError::Key)?;
        let (_, parsed) = X509Certificate::from_der(certificate.der()).map_err(|_| EnrolError::Key)?;
        let digest = Hex(&Sha256::digest(parsed.public_key().raw)).to_string();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| EnrolError::Tls)?
            .with_root_certificates(Arc::clone(&self.login.roots))
            .with_client_auth_cert(vec![certificate.der().clone()], private)
            .map_err(|_| EnrolError::Tls)?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        tls.resumption = rustls::client::Resumption::disabled();
        Ok(ConnectionKey { tls, digest })
    }

    /// What proves the role under this key, for the next five minutes.
    pub(super) async fn request(&self, key: &str) -> Result<wire::EnrollRequest, EnrolError> {
        let provider = self.credentials.as_ref().ok_or(EnrolError::NoCredentials)?;
        let given = tokio::time::timeout(CREDENTIALS, provider.provide_credentials()).await;
        let credentials = given.ok().and_then(Result::ok).ok_or(EnrolError::NoCredentials)?;
        let (access_key_id, token) = (credentials.access_key_id().to_owned(), credentials.session_token());
        let security_token = token.unwrap_or_default().to_owned();
        let identity = credentials.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.login.region)
            .name("sts")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| EnrolError::Sign)?
            .into();
        let headers = [
            ("content-type", GetCallerIdentity::CONTENT_TYPE),
            (GetCallerIdentity::AUDIENCE_HEADER, self.login.audience.as_str()),
            (GetCallerIdentity::KEY_HEADER, key),
        ];
        let url = format!("https://{}/", self.login.sts_host);
        let call = SignableRequest::new(
            "POST",
            url,
            headers.into_iter(),
            SignableBody::Bytes(GetCallerIdentity::BODY.as_bytes()),
        );
        let signed = sign(call.map_err(|_| EnrolError::Sign)?, &params).map_err(|_| EnrolError::Sign)?;
        let (instructions, signature) = signed.into_parts();
        let date = instructions.headers().find(|(name, _)| name.eq_ignore_ascii_case("x-amz-date"));
        let amz_date = date.map(|(_, value)| value.to_owned()).ok_or(EnrolError::Sign)?;
        let (host, region) = (self.login.sts_host.to_string(), self.login.region.clone());
        Ok(wire::EnrollRequest { host, region, amz_date, access_key_id, signature, security_token })
    }
}

impl ConnectionKey {
    pub(super) fn digest(&self) -> &str {
        &self.digest
    }
}

/// A connection to the control plane.
pub(super) struct Connection<'a> {
    pub(super) channel: tonic::transport::Channel,
    /// Of a resolver that enrols: who signs, and the digest of the connection's key.
    pub(super) enrols: Option<(&'a Enroller, String)>,
    /// When the enrolment is to be renewed.
    pub(super) renewal: tokio::time::Instant,
}

impl Connection<'_> {
    /// Proves the role, where that is how this resolver is known. Sets the time by which to do it again.
    pub(super) async fn enrol(&mut self, metrics: &Metrics) -> Result<(), BridgeError> {
        let Some((enroller, key)) = &self.enrols else { return Ok(()) };
        let request = enroller.request(key).await?;
        let mut client = EnrolmentClient::new(self.channel.clone());
        let answer = tokio::time::timeout(ENROLMENT, client.enroll(request)).await;
        let reply = answer.map_err(|_| BridgeError::SlowEnrolment)?.map_err(BridgeError::Refused)?.into_inner();
        metrics.bridge_enrolment_end.set(reply.expires_ms / 1_000);
        let life = reply.expires_ms - jiff::Timestamp::now().as_millisecond();
        // The clocks may differ: never at once, and never later than the longest life allows.
        let half = Duration::from_millis(u64::try_from(life / 2).unwrap_or(0)).clamp(RENEWAL_MIN, RENEWAL_MAX);
        self.renewal = tokio::time::Instant::now() + half;
        tracing::info!(bouncer = reply.bouncer, "enrolled by the IAM role");
        Ok(())
    }

    /// Renews the enrolment ahead of its end. Ends only with a refusal; what passes is tried again, and if the enrolment
    /// ends over it, so does the connection.
    pub(super) async fn stay_enrolled(&mut self, metrics: &Metrics) -> Result<(), BridgeError> {
        if self.enrols.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep_until(self.renewal).await;
            match self.enrol(metrics).await {
                Ok(()) => {}
                Err(BridgeError::Refused(status)) if status.code() == tonic::Code::PermissionDenied => {
                    return Err(BridgeError::Refused(status));
                }
                Err(error) => {
                    tracing::warn!(%error, "the enrolment is not renewed yet; trying again");
                    self.renewal = tokio::time::Instant::now() + RENEWAL_MIN;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_credential_types::Credentials;
    use bouncer_proto::bridge::v1::enrolment_server::{Enrolment, EnrolmentServer};
    use hyper_util::rt::TokioIo;
    use rustls::RootCertStore;
    use std::sync::Mutex;
    use tokio::sync::mpsc;
    use tokio::time::Instant;
    use tonic::transport::{Channel, Endpoint, Server};
    use tonic::{Code, Request, Response, Status};

    /// For how long, or why not.
    type Answer = Result<Duration, Code>;

    /// Answers each enrolment with the next of these.
    struct Scripted(Mutex<mpsc::UnboundedReceiver<Answer>>);

    #[tonic::async_trait]
    impl Enrolment for Scripted {
        async fn enroll(&self, _: Request<wire::EnrollRequest>) -> Result<Response<wire::EnrollReply>, Status> {
            let answer = self.0.lock().unwrap().try_recv();
            let answer = answer.map_err(|_| Status::new(Code::DataLoss, "it came once too often"))?;
            let life = answer.map_err(|code| Status::new(code, "no"))?;
            let expires_ms = jiff::Timestamp::now().as_millisecond() + i64::try_from(life.as_millis()).unwrap();
            Ok(Response::new(wire::EnrollReply { bouncer: "east".to_owned(), expires_ms }))
        }
    }

    fn enroller() -> Enroller {
        let login = IamLogin {
            roots: Arc::new(RootCertStore::empty()),
            server_name: "localhost".try_into().unwrap(),
            audience: "control-plane.example.org".parse().unwrap(),
            region: "ca-central-1".to_owned(),
            sts_host: "sts.ca-central-1.amazonaws.com".parse().unwrap(),
        };
        let credentials = Credentials::new("ASIAEXAMPLEEXAMPLE00", "secret", Some("token".to_owned()), None, "test");
        Enroller { login, credentials: Some(SharedCredentialsProvider::new(credentials)) }
    }

    async fn channel(scripted: Scripted) -> Channel {
        let (client, server) = tokio::io::duplex(1 << 16);
        let connection = tokio_stream::once(Ok::<_, std::io::Error>(server));
        let connections = tokio_stream::StreamExt::chain(connection, tokio_stream::pending());
        let service = EnrolmentServer::new(scripted);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(connections));
        let mut client = Some(TokioIo::new(client));
        let connector = tower::service_fn(move |_: http::Uri| {
            let client = client.take();
            async move { client.ok_or_else(|| std::io::Error::other("connected before")) }
        });
        Endpoint::from_static("http://control-plane.invalid").connect_with_connector(connector).await.unwrap()
    }

    struct Scene {
        script: mpsc::UnboundedSender<Answer>,
        connection: Connection<'static>,
        metrics: Metrics,
    }

    impl Scene {
        async fn new() -> Self {
            let (script, answers) = mpsc::unbounded_channel();
            let enroller: &'static Enroller = Box::leak(Box::new(enroller()));
            let key = enroller.key().unwrap().digest().to_owned();
            let channel = channel(Scripted(Mutex::new(answers))).await;
            let connection = Connection { channel, enrols: Some((enroller, key)), renewal: Instant::now() };
            Self { script, connection, metrics: Metrics::default() }
        }

        /// In how many seconds the enrolment is to be renewed.
        fn next(&self) -> f64 {
            (self.connection.renewal - Instant::now()).as_secs_f64()
        }

        /// Enrols, and gives in how many seconds it is to be done again.
        async fn enrols(&mut self, answer: Answer) -> f64 {
            self.script.send(answer).unwrap();
            self.connection.enrol(&self.metrics).await.unwrap();
            self.next()
        }

        /// The time to renew has come: gives in how many seconds it comes again, or why the connection ends.
        async fn renews(&mut self, answer: Answer) -> Result<f64, BridgeError> {
            self.script.send(answer).unwrap();
            self.connection.renewal = Instant::now();
            let ended = tokio::time::timeout(LONG, self.connection.stay_enrolled(&self.metrics)).await;
            ended.unwrap_or(Ok(())).map(|()| self.next())
        }
    }

    /// Longer than an answer from this process takes.
    const LONG: Duration = Duration::from_secs(2);

    #[track_caller]
    fn about(seconds: f64, wanted: f64) {
        assert!((wanted - 5.0..=wanted).contains(&seconds), "{seconds} s, not {wanted}");
    }

    #[tokio::test]
    async fn an_enrolment_is_to_be_renewed_at_half_of_its_life_within_bounds() {
        let mut scene = Scene::new().await;
        for (minutes, seconds) in [(15, 450.0), (2, 60.0), (0, 20.0), (600, 450.0)] {
            about(scene.enrols(Ok(Duration::from_mins(minutes))).await, seconds);
        }
    }

    #[tokio::test]
    async fn it_is_renewed_when_its_time_has_come_until_the_role_is_refused() {
        let mut scene = Scene::new().await;
        about(scene.enrols(Ok(Duration::from_mins(15))).await, 450.0);
        let end = scene.metrics.bridge_enrolment_end.get();
        about(scene.renews(Ok(Duration::from_mins(20))).await.unwrap(), 450.0);
        assert!(scene.metrics.bridge_enrolment_end.get() >= end + 299, "the metric follows");
        // What passes is tried again soon, and ends nothing.
        for code in [Code::Unavailable, Code::Unauthenticated, Code::ResourceExhausted] {
            about(scene.renews(Err(code)).await.unwrap(), 20.0);
        }
        about(scene.renews(Ok(Duration::from_mins(15))).await.unwrap(), 450.0);
        let ended = scene.renews(Err(Code::PermissionDenied)).await.unwrap_err();
        assert!(matches!(&ended, BridgeError::Refused(status) if status.code() == Code::PermissionDenied), "{ended}");
    }

    #[tokio::test]
    async fn who_has_an_svid_enrols_nowhere() {
        let mut scene = Scene::new().await;
        scene.connection.enrols = None;
        scene.connection.enrol(&scene.metrics).await.unwrap();
        assert!(tokio::time::timeout(LONG, scene.connection.stay_enrolled(&scene.metrics)).await.is_err());
    }
}
