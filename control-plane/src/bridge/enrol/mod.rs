//! Resolvers without an SVID: a cloud role, vouched for by STS, makes a connection a bouncer's.
//!
//! The resolver holds a key that it made for this connection, and proves it by TLS. It sends what it signed: a
//! `GetCallerIdentity` over this control plane's name and over the digest of that key. [`call`] puts the request together
//! anew, so that nothing in it is the resolver's but what the signature needs; [`sts`] asks with it, and [`answer`] reads
//! whom STS names. What is proved is kept with the connection and nowhere else: there is no token that could be stolen,
//! and what was sent is of no use to another control plane or under another key.
//!
//! The session token in it is a credential's third part. It passes through memory to STS; it is not stored or logged.

mod answer;
mod call;
mod sts;
mod tls;

use super::service::{Bridge, Peer};
use crate::buckets::Buckets;
use crate::clock::Clock;
use crate::metrics::BridgeRefusal;
use bouncer_custody::{Audience, BouncerIdentity, RoleArn, StsHost};
use bouncer_proto::bridge::v1::{EnrollReply, EnrollRequest};
use call::{CallFault, SignedCall};
use governor::Quota;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
pub use sts::StsError;
use sts::{Sts, StsFault};
pub use tls::server as tls;
use tokio::sync::Semaphore;
use tonic::{Code, Status};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How long an enrolment is good for.
const LIFE: SignedDuration = SignedDuration::from_mins(15);
/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_secs(1);
/// Attempts at once of one address, which may be that of many resolvers; then one each second.
const BURST: NonZeroU32 = NonZeroU32::new(30).expect("not zero");
/// Calls to STS at once, of all.
const CALLS: usize = 16;

/// How resolvers without an SVID are let in.
#[derive(Debug, Clone)]
pub struct EnrolmentConfig {
    /// This control plane's name, which resolvers sign.
    pub audience: Audience,
    /// The servers of STS that may be asked; empty for AWS's own regional ones.
    pub sts_endpoints: Vec<StsHost>,
    /// PEM certificates to trust for them, in the place of the system's.
    pub sts_ca_file: Option<PathBuf>,
}

/// What all connections of the listener share.
pub struct Enrolment {
    audience: Audience,
    hosts: Vec<StsHost>,
    sts: Sts,
    attempts: Buckets<IpAddr>,
    calls: Semaphore,
}

impl Enrolment {
    /// Sets up the client; STS is asked when it is needed.
    ///
    /// # Errors
    /// [`StsError`].
    pub fn new(config: EnrolmentConfig) -> Result<Self, StsError> {
        Ok(Self {
            sts: Sts::new(config.sts_ca_file.as_deref())?,
            audience: config.audience,
            hosts: config.sts_endpoints,
            attempts: Buckets::new(Quota::per_second(NonZeroU32::MIN).allow_burst(BURST)),
            calls: Semaphore::new(CALLS),
        })
    }
}

/// A connection's key, and who its holder has proved to be.
#[derive(Clone)]
pub struct KeyHolder(Arc<Holder>);

struct Holder {
    /// SHA-256 of the SubjectPublicKeyInfo, lower-case hex.
    key: String,
    address: IpAddr,
    enrolment: Arc<Enrolment>,
    proved: Mutex<Option<(RoleArn, Timestamp)>>,
}

/// A refusal: its count, and the answer.
type Refusal = (BridgeRefusal, Status);

impl KeyHolder {
    /// The holder of a certificate's key, of which TLS has proved that the peer has it. `None` if it can't be read.
    #[must_use]
    pub fn of(leaf: &[u8], address: IpAddr, enrolment: Arc<Enrolment>) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(leaf).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let digest = Sha256::digest(certificate.public_key().raw);
        let key = bouncer_custody::Hex(&digest).to_string();
        Some(Self(Arc::new(Holder { key, address, enrolment, proved: Mutex::new(None) })))
    }

    fn proved(&self) -> Option<(RoleArn, Timestamp)> {
        self.0.proved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn holds(&self, clock: &dyn Clock) -> Option<RoleArn> {
        self.proved().filter(|(_, end)| clock.now() < *end).map(|(role, _)| role)
    }

    /// Who is at the other end, while the enrolment holds.
    pub(super) fn peer(&self, bridge: &Bridge) -> Result<Peer, Status> {
        let role = self.holds(&*bridge.clock).ok_or_else(|| {
            bridge.metrics.bridge_refused(BridgeRefusal::NotEnrolled);
            Status::unauthenticated("the connection has not enrolled, or its enrolment has ended")
        })?;
        Ok(Peer { id: BouncerIdentity::IamRole(role), not_after: Timestamp::MAX })
    }

    /// Waits until the enrolment has ended, however often it is renewed.
    pub(super) async fn ended(&self, bridge: &Bridge) -> Status {
        while self.holds(&*bridge.clock).is_some() {
            tokio::time::sleep(LOOK).await;
        }
        Status::unauthenticated("the connection's enrolment has ended; connect again and enrol")
    }

    /// Has STS say whose signature this is, and makes the connection that bouncer's.
    pub(super) async fn enrol(&self, bridge: &Bridge, request: EnrollRequest) -> Result<EnrollReply, Status> {
        let now = bridge.clock.now();
        let role = match self.vouched(request, now).await {
            Ok(role) => role,
            Err((reason, status)) => {
                bridge.metrics.bridge_refused(reason);
                tracing::warn!(address = %self.0.address, why = status.message(), "refused an enrolment");
                return Err(status);
            }
        };
        let id = BouncerIdentity::IamRole(role.clone());
        let bouncer = bridge.registered(&id).await?;
        let end = now.checked_add(LIFE).map_err(|_| Status::internal("the clock is out of range"))?;
        let mut proved = self.0.proved.lock().unwrap_or_else(PoisonError::into_inner);
        // A session that runs is the first role's.
        if proved.as_ref().is_some_and(|(before, _)| *before != role) {
            return Err(Status::permission_denied("the connection is enrolled for another role; connect again"));
        }
        let renewed = proved.replace((role, end)).is_some();
        drop(proved);
        tracing::info!(bouncer = %bouncer.name, peer = %id, address = %self.0.address, renewed, "a resolver enrolled");
        Ok(EnrollReply { bouncer: bouncer.name.to_string(), expires_ms: end.as_millisecond() })
    }

    async fn vouched(&self, request: EnrollRequest, now: Timestamp) -> Result<RoleArn, Refusal> {
        let Holder { key, address, enrolment, .. } = &*self.0;
        if enrolment.attempts.count(*address).is_err() {
            return Err(limited("too many enrolments came from this address; try again in a few seconds"));
        }
        let call = SignedCall::read(request, &enrolment.hosts, now).map_err(malformed)?;
        let Ok(_slot) = enrolment.calls.try_acquire() else {
            return Err(limited("too many enrolments are under way; try again in a moment"));
        };
        let caller = enrolment.sts.ask(&call, &enrolment.audience, key).await.map_err(refused)?;
        RoleArn::of_session(&caller.arn).filter(|role| role.account() == caller.account).ok_or_else(|| {
            let text = "the caller is no assumed role; users and account roots can't enrol";
            (BridgeRefusal::NoRole, Status::permission_denied(text))
        })
    }
}

fn limited(text: &str) -> Refusal {
    (BridgeRefusal::EnrolLimited, Status::resource_exhausted(text))
}

fn malformed(fault: CallFault) -> Refusal {
    let (reason, code) = match fault {
        CallFault::Form(_) => (BridgeRefusal::EnrolMalformed, Code::InvalidArgument),
        CallFault::Host => (BridgeRefusal::EnrolHost, Code::PermissionDenied),
        CallFault::Stale => (BridgeRefusal::EnrolStale, Code::Unauthenticated),
    };
    (reason, Status::new(code, fault.to_string()))
}

fn refused(fault: StsFault) -> Refusal {
    match fault {
        StsFault::Refused => (BridgeRefusal::StsRefused, Status::unauthenticated(fault.to_string())),
        StsFault::Unavailable(_) => (BridgeRefusal::StsUnavailable, Status::unavailable(fault.to_string())),
    }
}

#[cfg(test)]
mod tests;
