//! A session goes on for as long as its enrolment does, and no longer.

use super::*;
use crate::bridge::{Live, Timing, transport};
use crate::edit::Edit;
use crate::metrics::Metrics;
use crate::model::{Actor, Bouncer};
use crate::store::Store as _;
use crate::store::sqlite::SqliteStore;
use bouncer_proto::bridge::v1::control_message::Body;
use bouncer_proto::bridge::v1::policy_bridge_client::PolicyBridgeClient;
use bouncer_proto::bridge::v1::{ControlMessage, Hello, ResolverMessage, resolver_message};
use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

const ROLE: &str = "arn:aws:iam::123456789012:role/east";

/// A clock that stands still until it is set.
#[derive(Clone)]
struct Set(Arc<Mutex<Timestamp>>);

impl Set {
    fn to(&self, minutes: i64) {
        *self.0.lock().unwrap() = start() + SignedDuration::from_mins(minutes);
    }
}

impl Clock for Set {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

fn start() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

struct Scene {
    clock: Set,
    bridge: Bridge,
    holder: KeyHolder,
    _folder: tempfile::TempDir,
}

async fn scene() -> Scene {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Set(Arc::new(Mutex::new(start()))));
    let store = SqliteStore::open(&folder.path().join("db"), Arc::new(clock.clone())).await.unwrap();
    let bouncer = Bouncer { name: "east".parse().unwrap(), identity: ROLE.parse().unwrap() };
    let edit = Edit::from(Actor::bouncer(&bouncer.name));
    store.register_bouncer(&bouncer, &edit).await.unwrap();
    let bridge = Bridge {
        store: Arc::new(store),
        clock: Arc::new(clock.clone()),
        metrics: Arc::new(Metrics::default()),
        live: Arc::new(Live::default()),
        editions: Arc::default(),
        timing: Timing::default(),
        stop: CancellationToken::new(),
    };
    let config = EnrolmentConfig { audience: "here".parse().unwrap(), sts_endpoints: Vec::new(), sts_ca_file: None };
    let made = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
    let enrolment = Arc::new(Enrolment::new(config).unwrap());
    let holder = KeyHolder::of(made.cert.der(), IpAddr::from([127, 0, 0, 1]), enrolment).unwrap();
    Scene { clock, bridge, holder, _folder: folder }
}

impl Scene {
    /// As STS vouched for it.
    fn proves(&self, minutes: i64) {
        let end = start() + SignedDuration::from_mins(minutes);
        *self.holder.0.proved.lock().unwrap() = Some((ROLE.parse().unwrap(), end));
    }

    async fn client(&self) -> PolicyBridgeClient<Channel> {
        let (client, server) = tokio::io::duplex(1 << 16);
        let connection = futures::stream::iter([transport::Identified::new(server, self.holder.clone())]);
        tokio::spawn(transport::serve(self.bridge.clone(), connection.chain(futures::stream::pending())));
        let client = Mutex::new(Some(client));
        let connector = tower::service_fn(move |_| {
            let client = client.lock().unwrap().take();
            async move { client.map(TokioIo::new).ok_or_else(|| std::io::Error::other("connected before")) }
        });
        let endpoint = Endpoint::from_static("http://control-plane.invalid");
        PolicyBridgeClient::new(endpoint.connect_with_connector(connector).await.unwrap())
    }
}

async fn sync(client: &mut PolicyBridgeClient<Channel>) -> Result<Streaming<ControlMessage>, Status> {
    let hello = Hello { bouncer: "east".to_owned(), version: "1".to_owned(), ..Hello::default() };
    let hello = ResolverMessage { body: Some(resolver_message::Body::Hello(hello)) };
    let up = futures::stream::iter([hello]).chain(futures::stream::pending());
    Ok(client.sync(up).await?.into_inner())
}

#[tokio::test]
async fn a_session_ends_with_its_enrolment_and_goes_on_with_a_renewed_one() {
    let scene = scene().await;
    let mut client = scene.client().await;
    let before = sync(&mut client).await.unwrap_err();
    assert_eq!(before.code(), Code::Unauthenticated, "{before}");

    scene.proves(15);
    let mut down = sync(&mut client).await.unwrap();
    let first = down.message().await.unwrap().unwrap().body;
    assert!(matches!(first, Some(Body::Snapshot(snapshot)) if snapshot.bouncer == "east"));
    // Renewed at half of it: what would have ended goes on, through at least one look at the clock.
    scene.proves(22);
    scene.clock.to(16);
    assert!(tokio::time::timeout(LOOK * 2, down.message()).await.is_err(), "it has ended, or said something");
    scene.clock.to(22);
    let ended = tokio::time::timeout(LOOK * 10, down.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended}");
    let after = sync(&mut client).await.unwrap_err();
    assert_eq!(after.code(), Code::Unauthenticated, "{after}");
}

#[test]
fn a_certificate_that_can_not_be_read_holds_no_key() {
    let config = EnrolmentConfig { audience: "here".parse().unwrap(), sts_endpoints: Vec::new(), sts_ca_file: None };
    let enrolment = Arc::new(Enrolment::new(config).unwrap());
    let good = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.der().to_vec();
    let address = IpAddr::from([127, 0, 0, 1]);
    let of = |der: &[u8]| KeyHolder::of(der, address, Arc::clone(&enrolment)).map(|holder| holder.0.key.clone());
    assert!(of(&good).is_some_and(|key| key.len() == 64));
    for bad in [Vec::new(), good[..good.len() - 1].to_vec(), [good, vec![0]].concat()] {
        assert_eq!(of(&bad), None);
    }
}
