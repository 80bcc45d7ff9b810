//! The audit on its way to a collector of OpenTelemetry, which reads strictly, is busy, refuses, redirects, and is not
//! who it should be.

use crate::binary::{Site, free_address};
use crate::chained::{Domain, Spool};
use crate::forward::{Served, authority, event, settled, store};
use crate::harness::{ControlPlane, until};
use crate::resolver::Resolver;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bouncer_control_plane::forward::{HeadersFault, Outlet, Receiver, ReceiverFault};
use bouncer_control_plane::http_server::{self, Bounds};
use bouncer_control_plane::model::AuditEvent;
use http::{HeaderMap, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The messages of OTLP (opentelemetry/proto/collector/logs/v1, JSON), and nothing else: a field of another name, or of
/// another form, is refused.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExportLogsServiceRequest {
    resource_logs: Vec<ResourceLogs>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResourceLogs {
    resource: Resource,
    scope_logs: Vec<ScopeLogs>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    attributes: Vec<KeyValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ScopeLogs {
    scope: InstrumentationScope,
    log_records: Vec<LogRecord>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InstrumentationScope {
    name: String,
    version: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LogRecord {
    time_unix_nano: Integer,
    observed_time_unix_nano: Integer,
    severity_number: u8,
    severity_text: String,
    event_name: String,
    body: AnyValue,
    attributes: Vec<KeyValue>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyValue {
    key: String,
    value: AnyValue,
}

#[derive(Debug, Clone, Deserialize)]
enum AnyValue {
    #[serde(rename = "stringValue")]
    Text(String),
    #[serde(rename = "intValue")]
    Integer(Integer),
    #[serde(rename = "boolValue")]
    Flag(bool),
    #[serde(rename = "kvlistValue")]
    Fields(KeyValueList),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyValueList {
    values: Vec<KeyValue>,
}

/// 64 bits, as the JSON of protobuf writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Integer(i64);

impl TryFrom<String> for Integer {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl AnyValue {
    fn json(self) -> Value {
        match self {
            Self::Text(text) => text.into(),
            Self::Integer(Integer(number)) => number.into(),
            Self::Flag(flag) => flag.into(),
            Self::Fields(list) => Value::Object(fields("", list.values)),
        }
    }
}

/// Attributes as an object, without what their names begin with.
fn fields(prefix: &str, attributes: Vec<KeyValue>) -> Map<String, Value> {
    attributes.into_iter().map(|one| (one.key.strip_prefix(prefix).unwrap().to_owned(), one.value.json())).collect()
}

impl LogRecord {
    fn body(&self) -> &str {
        let AnyValue::Text(text) = &self.body else { panic!("{self:?}") };
        text
    }

    fn sequence(&self) -> u64 {
        let AnyValue::Integer(Integer(sequence)) =
            &self.attributes.iter().find(|one| one.key == "bouncer.sequence").unwrap().value
        else {
            panic!("{self:?}")
        };
        sequence.unsigned_abs()
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
struct Call {
    at: Instant,
    path: String,
    headers: HeaderMap,
    bytes: usize,
    records: Vec<LogRecord>,
    taken: bool,
}

/// What a collector answers: with a header, and a body.
struct Answer(StatusCode, Option<(&'static str, String)>, String);

fn status(status: u16) -> Answer {
    Answer(StatusCode::from_u16(status).unwrap(), None, String::new())
}

fn ok(body: &str) -> Answer {
    Answer(StatusCode::OK, None, body.to_owned())
}

#[derive(Default)]
struct Shared {
    calls: Mutex<Vec<Call>>,
    /// What is answered next; behind it, that all is well.
    answers: Mutex<VecDeque<Answer>>,
    /// Who may say anything.
    token: Option<&'static str>,
}

/// A collector that reads to the letter, and keeps what it got.
struct Collector {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

async fn take(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: String) -> Response {
    let request: ExportLogsServiceRequest = serde_json::from_str(&body).unwrap();
    let [logs] = <[ResourceLogs; 1]>::try_from(request.resource_logs).ok().unwrap();
    let resource = Value::Object(fields("service.", logs.resource.attributes));
    assert_eq!(resource, json!({"name": "bouncer-control-plane", "version": env!("CARGO_PKG_VERSION")}));
    let [scope] = <[ScopeLogs; 1]>::try_from(logs.scope_logs).ok().unwrap();
    assert_eq!((&*scope.scope.name, &*scope.scope.version), ("bouncer", env!("CARGO_PKG_VERSION")));
    let known = shared.token.is_none_or(|token| headers.get(header::AUTHORIZATION).is_some_and(|said| said == token));
    let answer = match known {
        true => shared.answers.lock().unwrap().pop_front(),
        false => Some(status(401)),
    };
    let Answer(status, header, text) = answer.unwrap_or(ok("{}"));
    let call = Call {
        at: Instant::now(),
        path: uri.path().to_owned(),
        headers,
        bytes: body.len(),
        records: scope.log_records,
        taken: status.is_success() && (text.is_empty() || text.starts_with('{')),
    };
    shared.calls.lock().unwrap().push(call);
    let mut response = (status, text).into_response();
    if let Some((name, value)) = header {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

impl Collector {
    async fn on(listener: TcpListener, tls: Option<rustls::ServerConfig>, shared: Shared) -> Self {
        let (address, shared, stop) = (listener.local_addr().unwrap(), Arc::new(shared), CancellationToken::new());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let router = Router::new().fallback(take).with_state(shared.clone());
        tokio::spawn(http_server::serve(listener, tls, router, Bounds::default(), stop.clone()));
        Self { address, scheme, shared, _stop: stop.drop_guard() }
    }

    async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), None, Shared::default()).await
    }

    /// Answers these, one after the other, before all is well again.
    async fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let collector = Self::start().await;
        collector.shared.answers.lock().unwrap().extend(answers);
        collector
    }

    fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    fn outlet(&self) -> Outlet {
        self.outlet_with(None, None)
    }

    fn outlet_with(&self, ca_file: Option<&Path>, headers_file: Option<&Path>) -> Outlet {
        Outlet { name: "siem".into(), receiver: Receiver::parse(&self.url(), ca_file, headers_file).unwrap() }
    }

    fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// So many calls, once they came.
    async fn called(&self, times: usize) -> Vec<Call> {
        until("as many calls", || Some(self.calls()).filter(|calls| calls.len() >= times)).await
    }

    /// What it took so far.
    fn took(&self, event_name: &str) -> Vec<LogRecord> {
        let taken = self.calls().into_iter().filter(|call| call.taken).flat_map(|call| call.records);
        taken.filter(|record| record.event_name == event_name).collect()
    }

    /// The sequences of the decisions that it took, once the last is this.
    async fn through(&self, sequence: u64) -> Vec<u64> {
        let taken = || self.took("bouncer.decision").iter().map(LogRecord::sequence).collect::<Vec<_>>();
        until("the last decision", || Some(taken()).filter(|taken| taken.last() == Some(&sequence))).await
    }
}

#[tokio::test]
async fn a_collector_is_told_decisions_and_changes_to_the_letter_in_bounded_requests() {
    let plane = ControlPlane::new().await;
    let folder = tempfile::tempdir().unwrap();
    let (tls, ca) = authority(folder.path(), "ours");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = Collector::on(listener, Some(tls), Shared::default()).await;
    settled(&plane).await;
    let url = format!("{}/tenant/a/", collector.url());
    let receiver = Receiver::parse(&url, Some(&ca), None).unwrap();
    let served = Served::new(&plane, Outlet { name: "siem".into(), receiver });
    let long = "x".repeat(1_000);
    let texts = ["x\n\u{1b}]\"\\\",{}],", "ünïcode \u{2028} \u{feff}", &long];
    let events: Vec<_> = (1..=1_203)
        .map(|n| AuditEvent { authority: texts.get(n as usize - 1).unwrap_or(&&*long).to_string(), ..event(n) })
        .collect();
    store(&plane, &events).await;
    plane.register_bouncer("payments-west").await;
    assert_eq!(collector.through(1_203).await, (1..=1_203).collect::<Vec<_>>());
    for (record, event) in collector.took("bouncer.decision").into_iter().zip(&events) {
        let body: Value = serde_json::from_str(record.body()).unwrap();
        assert_eq!((&body["type"], &body["authority"]), (&json!("event"), &json!(event.authority)));
        let denied = event.outcome == "deny";
        let severity = if denied { (13, "WARNING") } else { (10, "NOTICE") };
        assert_eq!((record.severity_number, &*record.severity_text), severity);
        let milliseconds = |Integer(nanoseconds): Integer| nanoseconds / 1_000_000;
        assert_eq!(milliseconds(record.time_unix_nano), event.at.as_millisecond());
        assert!(record.observed_time_unix_nano.0 >= record.time_unix_nano.0);
        assert_eq!(Value::Object(fields("bouncer.", record.attributes)), body, "the attributes say what the body says");
    }
    let changes = until("a change", || Some(collector.took("bouncer.change")).filter(|all| !all.is_empty())).await;
    let change = Value::Object(fields("bouncer.", changes[0].attributes.clone()));
    assert_eq!((&change["action"], &change["subject"]), (&json!("bouncer.registered"), &json!("payments-west")));
    let calls = collector.calls();
    for call in &calls {
        assert_eq!(
            (&*call.path, &call.headers[header::CONTENT_TYPE]),
            ("/tenant/a/v1/logs", &"application/json".parse().unwrap())
        );
        assert!(call.records.len() <= 1_000 && call.bytes < 513 * 1_024, "{} in {}", call.records.len(), call.bytes);
    }
    assert!(calls.iter().any(|call| call.bytes > 500 * 1_024), "a request is bounded by its bytes");
    served.end().await;
}

#[tokio::test]
async fn what_a_collector_holds_is_what_an_export_holds_chain_and_all() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    settled(&plane).await;
    plane.place.execute("UPDATE audit_outlets SET changes = 0").await;
    let mut resolver = Resolver::connect(&plane, "payments-east", 0).await;
    resolver.snapshot().await;
    let domain = Domain::new();
    let mut spool = Spool::new(&domain, "payments-east", 1);
    let mut events = spool.events(3);
    events.push(spool.next_with(|event| event.authority = format!("ghp_{}", "a1B2".repeat(9))));
    resolver.batch(events, Some(spool.checkpoint())).await;
    resolver.audit_ack().await;
    let collector = Collector::start().await;
    let served = Served::new(&plane, collector.outlet());
    collector.through(4).await;
    served.end().await;

    let export = plane.get("/v1/audit/export").await.text;
    let report = domain.verify(&export);
    assert!(report.faults.is_empty(), "{:?}\n{export}", report.faults);
    let is_record = |line: &&str| {
        ["event", "admin_event"].map(|kind| line.contains(&format!("\"type\":\"{kind}\""))).contains(&true)
    };
    let exported: BTreeSet<String> = export.lines().filter(is_record).map(str::to_owned).collect();
    let took = [collector.took("bouncer.decision"), collector.took("bouncer.change")].concat();
    assert_eq!(took.iter().map(|record| record.body().to_owned()).collect::<BTreeSet<_>>(), exported);
    assert!(exported.len() > 6, "both kinds: {export}");
    for record in took {
        let body: Value = serde_json::from_str(record.body()).unwrap();
        assert!(body["chain"].is_string() && body["head"].is_string() && body["sequence"].is_u64(), "{body}");
        assert_eq!(Value::Object(fields("bouncer.", record.attributes)), body);
    }
    // A text that looks like a credential is withheld here as it is there.
    assert!(exported.iter().any(|line| line.contains("\"withheld\"")) && !export.contains("ghp_"), "{export}");
}

#[tokio::test]
async fn what_a_collector_did_not_take_is_told_again_in_order() {
    let plane = ControlPlane::new().await;
    settled(&plane).await;
    store(&plane, &[event(1), event(2)]).await;
    let address = free_address();
    let receiver = Receiver::parse(&format!("http://{address}"), None, None).unwrap();
    let outlet = Outlet { name: "siem".into(), receiver };
    let served = Served::new(&plane, outlet.clone());
    // Nobody is there, and how long that lasts shows.
    until("a lag", || (served.metric("audit_forward_lag_seconds{outlet=\"siem\"}") >= 1).then_some(())).await;
    let failures = || served.metric("audit_forward_failures_total{outlet=\"siem\",reason=\"Unreachable\"}");
    until("a failure", || (failures() > 0).then_some(())).await;
    assert_eq!(served.metric("audit_forward_connected{outlet=\"siem\"}"), 0);
    let listener = TcpListener::bind(address).await.unwrap();
    let collector = Collector::on(listener, None, Shared::default()).await;
    assert_eq!(collector.through(2).await, [1, 2]);
    for (busy, sequence) in [429, 502, 503, 504].into_iter().zip(3..) {
        collector.shared.answers.lock().unwrap().push_back(status(busy));
        store(&plane, &[event(sequence)]).await;
        assert_eq!(collector.through(sequence).await, (1..=sequence).collect::<Vec<_>>());
    }
    let told = |call: &Call| call.records.iter().map(LogRecord::sequence).collect::<Vec<_>>();
    let calls: Vec<_> = collector.calls().iter().map(told).collect();
    assert_eq!(calls, [vec![1, 2], vec![3], vec![3], vec![4], vec![4], vec![5], vec![5], vec![6], vec![6]]);
    assert_eq!(served.metric("audit_forward_failures_total{outlet=\"siem\",reason=\"Busy\"}"), 4);
    until("no lag", || (served.metric("audit_forward_lag_seconds{outlet=\"siem\"}") == 0).then_some(())).await;
    assert_eq!(served.metric("audit_forward_connected{outlet=\"siem\"}"), 1);
    served.end().await;
    // Answered is received: nothing comes again.
    store(&plane, &[event(7)]).await;
    let served = Served::new(&plane, outlet);
    assert_eq!(collector.through(7).await, [1, 2, 3, 4, 5, 6, 7]);
    served.end().await;
}

#[tokio::test]
async fn a_busy_collector_is_left_alone_for_as_long_as_it_says_by_every_control_plane() {
    let plane = ControlPlane::new().await;
    settled(&plane).await;
    store(&plane, &[event(1)]).await;
    // The control: without a word about when, it is asked again soon.
    let busy = Answer(StatusCode::SERVICE_UNAVAILABLE, Some(("retry-after", "8".to_owned())), String::new());
    let collector = Collector::answering([status(503), busy]).await;
    let (one, other) = (Served::new(&plane, collector.outlet()), Served::new(&plane, collector.outlet()));
    assert_eq!(collector.through(1).await, [1]);
    let calls = collector.calls();
    assert_eq!(calls.len(), 3);
    assert!(calls[1].at - calls[0].at < Duration::from_secs(5));
    assert!(calls[2].at - calls[1].at >= Duration::from_secs(8));
    one.end().await;
    other.end().await;
}

#[tokio::test]
async fn what_is_too_large_for_a_collector_comes_in_halves() {
    let plane = ControlPlane::new().await;
    settled(&plane).await;
    store(&plane, &(1..=8).map(event).collect::<Vec<_>>()).await;
    let collector = Collector::answering([status(413), status(413)]).await;
    let served = Served::new(&plane, collector.outlet());
    assert_eq!(collector.through(8).await, (1..=8).collect::<Vec<_>>());
    let sizes: Vec<_> = collector.calls().iter().map(|call| call.records.len()).collect();
    assert!(sizes[0] == 8 && sizes[1] <= 4 && sizes[2..].iter().all(|size| *size <= 2), "{sizes:?}");

    // One record alone has no halves: it is refused, and that is said.
    collector.shared.answers.lock().unwrap().push_back(status(413));
    store(&plane, &[event(9)]).await;
    let refused = || served.metric("audit_forward_failures_total{outlet=\"siem\",reason=\"Refused\"}");
    until("a refusal", || (refused() == 1).then_some(())).await;
    served.end().await;
}

#[tokio::test]
async fn what_a_collector_rejects_for_good_is_counted_and_not_told_again() {
    let plane = ControlPlane::new().await;
    settled(&plane).await;
    store(&plane, &[event(1), event(2), event(3)]).await;
    let text = r#"{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}"#;
    let collector = Collector::answering([ok(text)]).await;
    let served = Served::new(&plane, collector.outlet());
    collector.called(1).await;
    store(&plane, &[event(4)]).await;
    assert_eq!(collector.through(4).await, [1, 2, 3, 4]);
    assert_eq!(served.metric("audit_forward_rejected_total{outlet=\"siem\"}"), 2);
    let counted = || served.metric("audit_forwarded_total{outlet=\"siem\"}") == 4;
    until("all four", || counted().then_some(())).await;
    served.end().await;
}

#[tokio::test]
async fn a_collector_that_refuses_or_is_none_is_seldom_asked_and_nothing_is_lost() {
    let elsewhere = Collector::start().await;
    let location = ("location", format!("{}/v1/logs", elsewhere.url()));
    let away = Answer(StatusCode::TEMPORARY_REDIRECT, Some(location), String::new());
    for answer in [status(400), status(404), status(500), away, ok("<!doctype html><title>Sign in</title>")] {
        let plane = ControlPlane::new().await;
        settled(&plane).await;
        store(&plane, &[event(1), event(2)]).await;
        let collector = Collector::answering([answer]).await;
        let served = Served::new(&plane, collector.outlet());
        collector.called(1).await;
        // Much longer than what a receiver that can't be reached is left alone at first.
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) {
            assert_eq!(collector.calls().len(), 1);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(served.metric("audit_forward_failures_total{outlet=\"siem\",reason=\"Refused\"}"), 1);
        assert_eq!(served.metric("audit_forward_connected{outlet=\"siem\"}"), 0);
        served.end().await;
        // The place was kept, whatever the answer was.
        let served = Served::new(&plane, collector.outlet());
        assert_eq!(collector.through(2).await, [1, 2]);
        served.end().await;
    }
    assert_eq!(elsewhere.calls().len(), 0, "a redirect was followed");
}

#[tokio::test]
async fn the_headers_are_read_again_and_renewed_ones_are_tried_at_once() {
    let plane = ControlPlane::new().await;
    settled(&plane).await;
    store(&plane, &[event(1)]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("headers");
    std::fs::write(&file, "Authorization: Bearer old\nX-Scope-OrgID: audit\n").unwrap();
    let shared = Shared { token: Some("Bearer new"), ..Shared::default() };
    let collector = Collector::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), None, shared).await;
    let served = Served::new(&plane, collector.outlet_with(None, Some(&file)));
    let calls = collector.called(1).await;
    assert_eq!(
        (&calls[0].headers["authorization"], &calls[0].headers["x-scope-orgid"]),
        (&"Bearer old".parse().unwrap(), &"audit".parse().unwrap())
    );
    // A refusal is followed by a pause of a minute, which the renewed file ends.
    std::fs::write(&file, "Authorization: Bearer new").unwrap();
    assert_eq!(collector.through(1).await, [1]);
    std::fs::remove_file(&file).unwrap();
    store(&plane, &[event(2)]).await;
    let missing = || served.metric("audit_forward_failures_total{outlet=\"siem\",reason=\"Headers\"}") > 0;
    until("a complaint", || missing().then_some(())).await;
    std::fs::write(&file, "Authorization: Bearer new").unwrap();
    assert_eq!(collector.through(2).await, [1, 2]);
    served.end().await;
}

#[tokio::test]
async fn over_tls_only_a_collector_of_the_named_authority_is_told() {
    let plane = ControlPlane::new().await;
    let folder = tempfile::tempdir().unwrap();
    let ((tls, ours), (_, another)) = (authority(folder.path(), "ours"), authority(folder.path(), "another"));
    let collector = Collector::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), Some(tls), Shared::default()).await;
    settled(&plane).await;
    store(&plane, &[event(1)]).await;
    for untrusted in [Some(&*another), None] {
        let refused = Served::new(&plane, collector.outlet_with(untrusted, None));
        let name = "audit_forward_failures_total{outlet=\"siem\",reason=\"Untrusted\"}";
        until("several attempts", || (refused.metric(name) >= 3).then_some(())).await;
        refused.end().await;
        assert!(collector.calls().is_empty(), "told to a stranger");
    }
    let served = Served::new(&plane, collector.outlet_with(Some(&ours), None));
    assert_eq!(collector.through(1).await, [1]);
    served.end().await;
}

#[test]
fn nothing_goes_in_the_clear_beyond_this_machine_to_a_collector_either() {
    let folder = tempfile::tempdir().unwrap();
    let headers = |text: &str| {
        let file = folder.path().join("headers");
        std::fs::write(&file, text).unwrap();
        file
    };
    let fault = |url: &str| Receiver::parse(url, None, None).err();
    for good in [
        "https://otel.example.org",
        "https://otel.example.org:4318/tenant/a/",
        "http://127.0.0.1:4318",
        "http://[::1]:4318",
    ] {
        assert_eq!(fault(good), None, "{good}");
    }
    for clear in
        ["http://192.0.2.1:4318", "http://otel.example.org", "http://localhost:4318", "http://127.0.0.1.example.org"]
    {
        assert_eq!(fault(clear), Some(ReceiverFault::Clear), "{clear}");
    }
    for bad in [
        "https://",
        "https://user@otel.example.org",
        "https://u:hunter2@a.example",
        "https://a/?b=c",
        "https://a/#b",
        "httpx://a",
    ] {
        assert_eq!(fault(bad), Some(ReceiverFault::Form), "{bad}");
    }
    let with = |url: &str, file: &Path| Receiver::parse(url, None, Some(file)).err();
    assert_eq!(with("https://a", &headers("Authorization: Bearer hunter2")), None);
    assert_eq!(with("https://a", &headers("hunter2")), Some(ReceiverFault::Headers(HeadersFault::Form)));
    assert_eq!(with("syslog+tcp://127.0.0.1:1", &headers("a: b")), Some(ReceiverFault::NoHeaders));
    let missing = HeadersFault::Unreadable(std::io::ErrorKind::NotFound);
    assert_eq!(with("https://a", Path::new("/no/such")), Some(ReceiverFault::Headers(missing)));
    assert_eq!(Receiver::parse("https://a", Some(&headers("none")), None).err(), Some(ReceiverFault::Authority));
}

#[tokio::test(flavor = "multi_thread")]
async fn through_kill_9_and_refusals_no_change_is_lost_and_the_log_does_not_hold_the_token() {
    let shared = Shared { token: Some("Bearer hunter2-of-the-collector"), ..Shared::default() };
    let collector = Collector::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), None, shared).await;
    let site = Site::new();
    let file = site.path("headers");
    std::fs::write(&file, "Authorization: Bearer hunter2-of-the-collector").unwrap();
    site.configure(&format!(
        "[[audit.forward]]\nname = \"otel\"\nto = {:?}\nheaders_file = {file:?}\n",
        collector.url()
    ));
    assert!(site.bootstrap("token", &[]).status.success());
    let mut registered = BTreeSet::new();
    let mut token = String::new();
    for round in 0..3 {
        // What it answers repeats what it was sent.
        let repeated = "Bearer hunter2-of-the-collector";
        let busy = Answer(StatusCode::SERVICE_UNAVAILABLE, None, repeated.to_owned());
        let partial = json!({"partialSuccess": {"rejectedLogRecords": "0", "errorMessage": repeated}});
        collector.shared.answers.lock().unwrap().extend([busy, ok(&partial.to_string())]);
        let process = site.serve(&format!("log-{round}"));
        if round == 0 {
            token = site.admin("token");
        }
        for n in 0..20 {
            let name = format!("bouncer-{round}-{n}");
            let body = json!({"name": name, "spiffe_id": format!("spiffe://example.org/{name}")}).to_string();
            assert_eq!(site.call("POST", "/v1/bouncers", &token, &body).unwrap().0, 201);
            registered.insert(name);
        }
        if round < 2 {
            process.signal("-9");
            continue;
        }
        let told = || {
            let changes = collector.took("bouncer.change").into_iter();
            let bodies = changes.map(|one| serde_json::from_str::<Value>(one.body()).unwrap());
            let subjects = bodies.filter(|body| body["action"] == "bouncer.registered");
            Some(subjects.map(|body| body["subject"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>())
        };
        until("every change", || told().filter(|told| *told == registered)).await;
    }
    let logs =
        (0..3).map(|round| std::fs::read_to_string(site.path(&format!("log-{round}"))).unwrap()).collect::<String>();
    assert!(logs.contains("the audit does not go out") && logs.contains("503"), "{logs}");
    assert!(!logs.contains("hunter2"), "{logs}");
}
