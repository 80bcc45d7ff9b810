//! STS `GetCallerIdentity`, strict: an implementation of its own of Signature Version 4 (AWS's documentation, "Create a
//! signed AWS API request"), with the secrets of the roles that a scenario makes up. What is not signed as it says buys
//! nothing. And the other side of it: a resolver that enrols, in the scenario's hands.

use crate::pki::{Ca, Leaf};
use crate::plain_http::PlainHttp;
use crate::tls_front::TlsFront;
use crate::{Fault, Result};
use aws_lc_rs::{digest, hmac};
use bouncer_custody::Hex;
use bouncer_proto::bridge::v1::enrolment_client::EnrolmentClient;
use bouncer_proto::bridge::v1::policy_bridge_client::PolicyBridgeClient;
use bouncer_proto::bridge::v1::{EnrollReply, EnrollRequest};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The region of all signatures here.
pub const REGION: &str = "ca-central-1";
/// The account of all roles here.
pub const ACCOUNT: &str = "123456789012";
const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const FORM: &str = "application/x-www-form-urlencoded";

/// Temporary credentials of a role.
#[derive(Clone)]
pub struct Credentials {
    /// The role's name.
    pub role: String,
    /// Who signs.
    pub access_key_id: String,
    /// What signs.
    pub secret: String,
    /// What goes along.
    pub token: String,
}

impl Credentials {
    /// New ones.
    #[must_use]
    pub fn of(role: &str) -> Self {
        let random = || uuid::Uuid::new_v4().simple().to_string();
        let access_key_id = format!("ASIA{}", &random().to_uppercase()[..16]);
        Self { role: role.to_owned(), access_key_id, secret: random(), token: format!("token/{}+==", random()) }
    }

    /// The role's ARN, as it is registered.
    #[must_use]
    pub fn role_arn(&self) -> String {
        format!("arn:aws:iam::{ACCOUNT}:role/{}", self.role)
    }
}

/// What STS does with a call that is signed as it should be.
#[derive(Debug, Clone, Default)]
pub enum Behaviour {
    /// Names the caller.
    #[default]
    Honest,
    /// Sends the client elsewhere.
    Redirects(String),
    /// Says something else.
    Says(StatusCode, String),
}

struct State {
    keys: HashMap<String, Credentials>,
    behaviour: Mutex<Behaviour>,
    calls: AtomicUsize,
}

/// A running STS.
pub struct Sts {
    state: Arc<State>,
    front: TlsFront,
    _server: PlainHttp,
}

impl Sts {
    /// Starts one that knows these, with a certificate for `localhost`.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(ca: &Ca, known: &[Credentials]) -> Result<Self> {
        let keys = known.iter().map(|one| (one.access_key_id.clone(), one.clone())).collect();
        let state = Arc::new(State { keys, behaviour: Mutex::default(), calls: AtomicUsize::new(0) });
        let server = PlainHttp::start(Arc::clone(&state), answer).await?;
        let front = TlsFront::start(&ca.issue(&Leaf::server("localhost")?)?, server.address()).await?;
        Ok(Self { state, front, _server: server })
    }

    /// host:port.
    #[must_use]
    pub fn host(&self) -> String {
        format!("localhost:{}", self.front.address().port())
    }

    /// What it does from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// How often it was asked.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.state.calls.load(Ordering::Relaxed)
    }
}

/// The answer of `GetCallerIdentity`, as AWS's API reference shows it.
#[must_use]
pub fn identity(arn: &str, account: &str) -> String {
    format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n  <GetCallerIdentityResult>\n    \
         <Arn>{arn}</Arn>\n    <UserId>AROAEXAMPLE:scenario</UserId>\n    <Account>{account}</Account>\n  \
         </GetCallerIdentityResult>\n  <ResponseMetadata>\n    <RequestId>0</RequestId>\n  </ResponseMetadata>\n\
         </GetCallerIdentityResponse>\n"
    )
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
    state.calls.fetch_add(1, Ordering::Relaxed);
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let say = |status: StatusCode, text: String| -> Result<_> {
        Ok(Response::builder().status(status).header("content-type", "text/xml").body(Full::from(text))?)
    };
    let caller = match verified(&state, &parts, &body) {
        Ok(caller) => caller,
        Err(code) => {
            let text = format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>");
            return say(StatusCode::FORBIDDEN, text);
        }
    };
    let behaviour = state.behaviour.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match behaviour {
        Behaviour::Honest => {
            let arn = format!("arn:aws:sts::{ACCOUNT}:assumed-role/{}/scenario", caller.role);
            say(StatusCode::OK, identity(&arn, ACCOUNT))
        }
        Behaviour::Redirects(to) => Ok(Response::builder()
            .status(StatusCode::TEMPORARY_REDIRECT)
            .header("location", to)
            .body(Full::default())?),
        Behaviour::Says(status, text) => say(status, text),
    }
}

/// Whose call it is, by its signature alone.
fn verified<'a>(
    state: &'a State,
    parts: &http::request::Parts,
    body: &[u8],
) -> std::result::Result<&'a Credentials, &'static str> {
    const INCOMPLETE: &str = "IncompleteSignature";
    const MISMATCH: &str = "SignatureDoesNotMatch";
    if parts.method != http::Method::POST || parts.uri.path() != "/" || body != BODY.as_bytes() {
        return Err("InvalidAction");
    }
    let header = |name: &str| one(&parts.headers, name);
    let authorization = header("authorization").ok_or(INCOMPLETE)?;
    let fields = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or(INCOMPLETE)?;
    let field = |name: &str| fields.split(", ").find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    let [credential, signed, signature] = ["Credential", "SignedHeaders", "Signature"].map(field);
    let (credential, signed, signature) =
        (credential.ok_or(INCOMPLETE)?, signed.ok_or(INCOMPLETE)?, signature.ok_or(INCOMPLETE)?);
    let date = header("x-amz-date").ok_or(INCOMPLETE)?;
    let (id, scope) = credential.split_once('/').ok_or(INCOMPLETE)?;
    if scope != format!("{}/{REGION}/sts/aws4_request", date.get(..8).ok_or(INCOMPLETE)?) {
        return Err(MISMATCH);
    }
    let known = state.keys.get(id).ok_or("InvalidClientTokenId")?;
    if header("x-amz-security-token") != Some(&known.token) {
        return Err("InvalidClientTokenId");
    }
    let names: Vec<_> = signed.split(';').collect();
    // AWS wants host and every x-amz-* header signed.
    let amz = parts.headers.keys().filter(|name| name.as_str().starts_with("x-amz-")).map(http::HeaderName::as_str);
    if !names.contains(&"host") || amz.into_iter().any(|name| !names.contains(&name)) {
        return Err(MISMATCH);
    }
    let mut headers = Vec::new();
    for name in names {
        headers.push((name, header(name).ok_or(MISMATCH)?));
    }
    if signature_of(&known.secret, date, &headers) == signature { Ok(known) } else { Err(MISMATCH) }
}

/// The only value of a header.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then(|| first.to_str().ok())?
}

fn sha256(bytes: &[u8]) -> String {
    Hex(digest::digest(&digest::SHA256, bytes).as_ref()).to_string()
}

/// The signature over these headers, which are sorted, and the one body.
fn signature_of(secret: &str, date: &str, headers: &[(&str, &str)]) -> String {
    let canonical: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let request = format!("POST\n/\n\n{canonical}\n{names}\n{}", sha256(BODY.as_bytes()));
    let scope = format!("{}/{REGION}/sts/aws4_request", &date[..8]);
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(request.as_bytes()));
    let step = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    let key = [&date[..8], REGION, "sts", "aws4_request"]
        .into_iter()
        .fold(format!("AWS4{secret}").into_bytes(), |key, part| step(&key, part).as_ref().to_vec());
    Hex(step(&key, &text).as_ref()).to_string()
}

/// What a resolver signs. Each field may be made wrong.
pub struct Claim<'a> {
    /// Whose.
    pub credentials: &'a Credentials,
    /// The STS, host:port.
    pub host: &'a str,
    /// The control plane's name.
    pub audience: &'a str,
    /// The digest of the key.
    pub key: &'a str,
}

impl Claim<'_> {
    /// Signed now.
    #[must_use]
    pub fn sign(&self) -> EnrollRequest {
        self.sign_all_but(0)
    }

    /// Signed now, without a word about the control plane or the key.
    #[must_use]
    pub fn sign_bare(&self) -> EnrollRequest {
        self.sign_all_but(2)
    }

    /// Without the last so many headers.
    fn sign_all_but(&self, last: usize) -> EnrollRequest {
        let amz_date = amz_date(SystemTime::now());
        let headers = [
            ("content-type", FORM),
            ("host", self.host),
            ("x-amz-date", &amz_date),
            ("x-amz-security-token", &self.credentials.token),
            ("x-bouncer-audience", self.audience),
            ("x-bouncer-key", self.key),
        ];
        self.request(&amz_date, &headers[..headers.len() - last])
    }

    fn request(&self, amz_date: &str, headers: &[(&str, &str)]) -> EnrollRequest {
        EnrollRequest {
            host: self.host.to_owned(),
            region: REGION.to_owned(),
            amz_date: amz_date.to_owned(),
            access_key_id: self.credentials.access_key_id.clone(),
            signature: signature_of(&self.credentials.secret, amz_date, headers),
            security_token: self.credentials.token.clone(),
        }
    }
}

/// The same with a session token that no STS makes.
#[must_use]
pub fn oversized(request: EnrollRequest) -> EnrollRequest {
    EnrollRequest { security_token: "A".repeat(17 << 10), ..request }
}

/// As ISO 8601 writes it without punctuation; the date by Howard Hinnant's `civil_from_days`.
fn amz_date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, of_day) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// A resolver's connection, with a key of its own.
pub struct Keyed {
    channel: Channel,
    digest: String,
}

impl Keyed {
    /// Connects with a new key.
    ///
    /// # Errors
    /// If the server is not the authority's, or does not take the key.
    pub async fn connect(port: u16, ca: &Ca) -> Result<Self> {
        let key = rcgen::KeyPair::generate()?;
        let certificate = rcgen::CertificateParams::default().self_signed(&key)?;
        let (_, parsed) = X509Certificate::from_der(certificate.der()).map_err(|_| Fault::new("no certificate"))?;
        let digest = sha256(parsed.public_key().raw);
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut tls = rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(ca.roots()?)
            .with_client_auth_cert(vec![certificate.der().clone()], private)?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let tls = TlsConnector::from(Arc::new(tls));
        let connector = tower::service_fn(move |_: http::Uri| {
            let tls = tls.clone();
            async move {
                let tcp = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
                let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, tcp).await?))
            }
        });
        let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await?;
        Ok(Self { channel, digest })
    }

    /// The digest of its key.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Sends what was signed, by whomever.
    ///
    /// # Errors
    /// The control plane's refusal.
    pub async fn enrol(&mut self, request: EnrollRequest) -> Result<EnrollReply, tonic::Status> {
        Ok(EnrolmentClient::new(self.channel.clone()).enroll(request).await?.into_inner())
    }

    /// Opens the stream as this bouncer, and gives the name in the first snapshot.
    ///
    /// # Errors
    /// The control plane's refusal.
    pub async fn sync(&mut self, bouncer: &str) -> Result<String, tonic::Status> {
        use bouncer_proto::bridge::v1::{Hello, ResolverMessage, control_message, resolver_message};
        let hello = Hello { bouncer: bouncer.to_owned(), version: "scenario".to_owned(), ..Hello::default() };
        let hello = ResolverMessage { body: Some(resolver_message::Body::Hello(hello)) };
        let up = tokio_stream::StreamExt::chain(tokio_stream::once(hello), tokio_stream::pending());
        let mut down = PolicyBridgeClient::new(self.channel.clone()).sync(up).await?.into_inner();
        match down.message().await?.and_then(|message| message.body) {
            Some(control_message::Body::Snapshot(snapshot)) => Ok(snapshot.bouncer),
            _ => Err(tonic::Status::internal("no snapshot came")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_written_as_aws_wants_them() {
        for (seconds, text) in
            [(0, "19700101T000000Z"), (1_440_938_160, "20150830T123600Z"), (1_709_209_845, "20240229T123045Z")]
        {
            assert_eq!(amz_date(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
