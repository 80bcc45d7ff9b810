//! The audit on its way out: to syslog receivers that read strictly, go away, and are not who they should be.

use crate::binary::free_address;
use crate::harness::{ControlPlane, until};
use bouncer_control_plane::bridge::Lag;
use bouncer_control_plane::clock::SystemClock;
use bouncer_control_plane::forward::{self, Outlet, Receiver, ReceiverFault};
use bouncer_control_plane::metrics::{Metrics, Now};
use bouncer_control_plane::model::AuditEvent;
use bouncer_control_plane::retention;
use bouncer_control_plane::store::Store;
use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A message as it came.
#[derive(Debug, Clone)]
struct Message {
    priority: u32,
    kind: String,
    object: Value,
}

/// Takes a frame apart to the letter (RFC 5424, section 6).
fn parsed(frame: &[u8]) -> Message {
    let text = std::str::from_utf8(frame).unwrap();
    let (head, object) = text.split_once('\u{feff}').unwrap();
    assert!(head.bytes().all(|byte| (32..127).contains(&byte)), "{head}");
    let fields: Vec<_> = head.split(' ').collect();
    let [first, time, "-", "bouncer-control-plane", "-", kind, "-", ""] = fields[..] else { panic!("{head}") };
    let priority = first.strip_prefix('<').unwrap().strip_suffix(">1").unwrap().parse().unwrap();
    assert!(time.parse::<Timestamp>().is_ok() && time.len() == "2026-01-01T00:00:00.000Z".len(), "{time}");
    assert!(!object.contains(|c: char| c.is_control()), "a control character in {object:?}");
    Message { priority, kind: kind.to_owned(), object: serde_json::from_str(object).unwrap() }
}

/// A receiver that frames by length, and keeps what it got.
struct Syslog {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Message>>>,
    task: JoinHandle<()>,
}

impl Drop for Syslog {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Syslog {
    async fn on(listener: TcpListener, tls: Option<rustls::ServerConfig>) -> Self {
        let tls = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
        let address = listener.local_addr().unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        let messages = Arc::clone(&got);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (tls, messages) = (tls.clone(), Arc::clone(&messages));
                connections.spawn(async move {
                    match tls {
                        None => receive(tcp, &messages).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(tcp).await {
                                receive(stream, &messages).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, got, task }
    }

    async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), None).await
    }

    fn outlet(&self) -> Outlet {
        outlet(self.address)
    }

    /// What came of decisions so far.
    fn decisions_so_far(&self) -> Vec<Message> {
        self.got.lock().unwrap().iter().filter(|one| one.kind == "decision").cloned().collect()
    }

    /// What came once this many decisions had.
    async fn decisions(&self, count: usize) -> Vec<Message> {
        until("as many decisions", || Some(self.decisions_so_far()).filter(|got| got.len() >= count)).await
    }

    /// The decisions that came, once the last one is this.
    async fn through(&self, sequence: u64) -> Vec<u64> {
        let last = || Some(sequences(&self.decisions_so_far())).filter(|seen| seen.last() == Some(&sequence));
        until("the last decision", last).await
    }
}

async fn receive(mut stream: impl AsyncRead + Unpin, messages: &Mutex<Vec<Message>>) {
    loop {
        let mut length = 0_usize;
        loop {
            match stream.read_u8().await {
                Ok(b' ') => break,
                Ok(digit @ b'0'..=b'9') => length = length * 10 + usize::from(digit - b'0'),
                Ok(other) => panic!("{other} in a length"),
                Err(_) => return,
            }
        }
        let mut frame = vec![0; length];
        if stream.read_exact(&mut frame).await.is_err() {
            return;
        }
        messages.lock().unwrap().push(parsed(&frame));
    }
}

fn outlet(address: SocketAddr) -> Outlet {
    Outlet { name: "siem".into(), receiver: Receiver::parse(&format!("syslog+tcp://{address}"), None, None).unwrap() }
}

/// An outlet that is served.
pub(crate) struct Served {
    task: JoinHandle<()>,
    stop: CancellationToken,
    metrics: Arc<Metrics>,
}

impl Served {
    pub(crate) fn new(plane: &ControlPlane, outlet: Outlet) -> Self {
        let (stop, metrics) = (CancellationToken::new(), Arc::new(Metrics::default()));
        let store: Arc<dyn Store> = plane.store.clone();
        let task = tokio::spawn(forward::keep(outlet, store, Arc::new(SystemClock), metrics.clone(), stop.clone()));
        Self { task, stop, metrics }
    }

    /// As [`counted`].
    pub(crate) fn metric(&self, name: &str) -> i64 {
        counted(&self.metrics, name)
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// What is counted under this name and these labels; -1 before anything is.
fn counted(metrics: &Metrics, name: &str) -> i64 {
    let lag = Lag { epochs: 0, silence_seconds: 0, refusing: 0 };
    let exposed = metrics.render(Now { epoch: None, identity: false, lag });
    let start = format!("bouncer_control_plane_{name} ");
    exposed.lines().find_map(|line| line.strip_prefix(&start)).map_or(-1, |number| number.parse().unwrap())
}

pub(crate) fn event(sequence: u64) -> AuditEvent {
    AuditEvent {
        id: Uuid::now_v7(),
        sequence,
        at: Timestamp::now(),
        caller: "spiffe://example.org/ns/shop/sa/cart".into(),
        resource: "payments-api".into(),
        logical_path: "protected-resources/payments-api/upstream-tls".into(),
        generation: 1,
        key_id: String::new(),
        aad_sha256: String::new(),
        cluster: "payments".into(),
        destination: String::new(),
        outcome: if sequence.is_multiple_of(2) { "deny" } else { "inject" }.into(),
        reason: String::new(),
        backend_request_id: String::new(),
        count: 1,
        decision_id: String::new(),
        authority: String::new(),
        dev: false,
        evidence: None,
    }
}

pub(crate) async fn store(plane: &ControlPlane, events: &[AuditEvent]) {
    plane.store.append_audit(&"payments-east".parse().unwrap(), events, None).await.unwrap();
}

/// One whose outlet has been met, so that it begins before the events.
pub(crate) async fn settled(plane: &ControlPlane) {
    let held = plane.store.lease_outlet("siem", Uuid::now_v7(), Duration::ZERO).await.unwrap();
    assert!(held.is_some());
}

fn sequences(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|one| one.object["sequence"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn decisions_and_changes_go_out_in_order_and_one_message_each() {
    let plane = ControlPlane::new().await;
    let syslog = Syslog::start().await;
    settled(&plane).await;
    let served = Served::new(&plane, syslog.outlet());
    let hostile = "x\n<110>1 2026-01-01T00:00:00Z - forged - decision - \u{feff}{}\r\u{1b}]\"\\";
    let texts = [hostile, "12 <110>1 forged", "ünïcode \u{2028} \u{feff}"];
    let events: Vec<_> = (1..=1_203)
        .map(|n| AuditEvent { authority: (*texts.get(n as usize - 1).unwrap_or(&"")).to_owned(), ..event(n) })
        .collect();
    store(&plane, &events[..3]).await;
    store(&plane, &events[3..]).await;
    plane.register_bouncer("payments-west").await;
    let got = syslog.decisions(events.len()).await;
    assert_eq!(sequences(&got), (1..=1_203).collect::<Vec<_>>());
    for (message, event) in got.iter().zip(&events) {
        assert_eq!(message.object["authority"].as_str().unwrap_or(""), event.authority);
        assert_eq!(message.priority, if event.outcome == "deny" { 108 } else { 109 });
    }
    // The same text in a message that ends with its line would be two of them.
    assert_eq!(hostile.lines().count(), 2);
    let registered = |one: &Message| one.kind == "change" && one.object["action"] == "bouncer.registered";
    until("the change", || syslog.got.lock().unwrap().iter().any(registered).then_some(())).await;
    served.end().await;
}

#[tokio::test]
async fn what_came_while_the_receiver_or_the_control_plane_was_away_is_told_later() {
    let plane = ControlPlane::new().await;
    let address = free_address();
    // A new outlet begins with what comes from now on.
    store(&plane, &[event(1)]).await;
    settled(&plane).await;
    let served = Served::new(&plane, outlet(address));
    store(&plane, &[event(2), event(3)]).await;
    let syslog = Syslog::on(TcpListener::bind(address).await.unwrap(), None).await;
    assert_eq!(sequences(&syslog.decisions(2).await), [2, 3]);
    served.end().await;
    store(&plane, &[event(4)]).await;
    let served = Served::new(&plane, outlet(address));
    // What nobody knows to have been received comes again; nothing is missing, and nothing is out of order.
    let seen = syslog.through(4).await;
    assert!(seen.starts_with(&[2, 3]) && (seen[2..] == [4] || seen[2..] == [2, 3, 4]), "{seen:?}");
    // The connection breaks: the receiver is another one, at the same place.
    drop(syslog);
    let listener = until("the place", || std::net::TcpListener::bind(address).ok()).await;
    listener.set_nonblocking(true).unwrap();
    let syslog = Syslog::on(TcpListener::from_std(listener).unwrap(), None).await;
    store(&plane, &[event(5)]).await;
    syslog.through(5).await;
    served.end().await;
}

#[tokio::test]
async fn one_control_plane_serves_an_outlet_and_another_takes_over() {
    let plane = ControlPlane::new().await;
    let syslog = Syslog::start().await;
    settled(&plane).await;
    let one = Served::new(&plane, syslog.outlet());
    store(&plane, &[event(1)]).await;
    syslog.decisions(1).await;
    let other = Served::new(&plane, syslog.outlet());
    let events: Vec<_> = (2..=20).map(event).collect();
    for event in &events {
        store(&plane, std::slice::from_ref(event)).await;
    }
    assert_eq!(sequences(&syslog.decisions(20).await), (1..=20).collect::<Vec<_>>(), "each once");
    // Its lease is given back, so that the other one need not wait for its end.
    one.end().await;
    store(&plane, &[event(21)]).await;
    syslog.through(21).await;
    other.end().await;
}

#[tokio::test]
async fn what_an_outlet_was_not_told_outlives_its_retention_by_a_week_and_is_counted_when_it_goes() {
    let plane = ControlPlane::new().await;
    settled(&plane).await;
    let aged = |sequence, hours| {
        let at = Timestamp::now() - SignedDuration::from_hours(hours);
        AuditEvent { at, ..event(sequence) }
    };
    // A day is what they are kept.
    store(&plane, &[aged(1, 24 * 8 + 1), aged(2, 24 * 8 - 1), aged(3, 25), aged(4, 0)]).await;
    let (stop, metrics, outlets) = (CancellationToken::new(), Arc::new(Metrics::default()), vec!["siem".into()]);
    let (store, clock) = (plane.store.clone(), Arc::new(SystemClock));
    let retention = tokio::spawn(retention::keep(store, clock, metrics.clone(), (1, outlets), stop.clone()));
    until("a removal", || (counted(&metrics, "audit_pruned_unsent_total") == 1).then_some(())).await;
    let left = plane.store.decisions_behind(0, 10).await.unwrap();
    assert_eq!(left.iter().map(|record| record.event.sequence).collect::<Vec<_>>(), [2, 3, 4]);
    stop.cancel();
    retention.await.unwrap();
}

/// A receiver's TLS, and the file of the authority that it is issued under.
pub(crate) fn authority(folder: &std::path::Path, name: &str) -> (rustls::ServerConfig, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let file = folder.join(format!("{name}.pem"));
    std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let tls = rustls::ServerConfig::builder().with_no_client_auth();
    (tls.with_single_cert(vec![certificate.der().clone()], key).unwrap(), file)
}

#[tokio::test]
async fn over_tls_only_a_receiver_of_the_named_authority_is_told() {
    let plane = ControlPlane::new().await;
    let folder = tempfile::tempdir().unwrap();
    let ((tls, ours), (_, another)) = (authority(folder.path(), "ours"), authority(folder.path(), "another"));
    let syslog = Syslog::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), Some(tls)).await;
    let outlet = |ca: &PathBuf| {
        let url = format!("syslog+tls://{}", syslog.address);
        Outlet { name: "siem".into(), receiver: Receiver::parse(&url, Some(ca), None).unwrap() }
    };
    settled(&plane).await;
    store(&plane, &[event(1)]).await;
    let refused = Served::new(&plane, outlet(&another));
    let attempts = || refused.metric("audit_forward_failures_total{outlet=\"siem\",reason=\"Untrusted\"}");
    until("several attempts", || (attempts() >= 3).then_some(())).await;
    refused.end().await;
    assert!(syslog.got.lock().unwrap().is_empty(), "told to a stranger");
    let served = Served::new(&plane, outlet(&ours));
    assert_eq!(sequences(&syslog.decisions(1).await), [1]);
    served.end().await;
}

#[test]
fn nothing_goes_in_the_clear_beyond_this_machine() {
    let fault = |url: &str| Receiver::parse(url, None, None).err();
    assert_eq!(fault("syslog+tcp://127.0.0.1:601"), None);
    assert_eq!(fault("syslog+tcp://[::1]:601"), None);
    for clear in ["syslog+tcp://192.0.2.1:601", "syslog+tcp://logs.example.org:601", "syslog+tcp://localhost:601"] {
        assert_eq!(fault(clear), Some(ReceiverFault::Clear), "{clear}");
    }
    assert_eq!(fault("syslog+tls://logs.example.org:6514"), Some(ReceiverFault::NoAuthority));
    for bad in [
        "",
        "syslog://a:1",
        "syslog+udp://127.0.0.1:514",
        "syslog+tls://a",
        "syslog+tls://:1",
        "syslog+tcp://127.0.0.1:0",
    ] {
        assert_eq!(fault(bad), Some(ReceiverFault::Form), "{bad}");
    }
}
