//! Many streams on one control plane: how long a change takes to reach the last of them, against a bare broadcast of the
//! same bytes to as many, and what memory each stream takes.

use crate::database::Databases;
use crate::plane::Plane;
use crate::streams::{Event, Got, Policy, Stream, message};
use crate::{Sizes, broadcast, progress};
use bouncer_proto::bridge::v1 as wire;
use bouncer_tests::pki::Identity;
use bouncer_tests::stats::Spread;
use bouncer_tests::{Fault, Result, memory};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use prost::Message as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use serde_json::json;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Handshakes at a time.
const CONNECTING: usize = 64;
/// Nothing takes longer.
const DEADLINE: Duration = Duration::from_secs(300);
/// Without a message for so long, nothing is under way.
const QUIET: Duration = Duration::from_millis(500);
/// File descriptors beside those of streams.
const SPARE: u64 = 200;

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Fleet {
    /// Streams, each with a bouncer, an SVID and a connection of its own.
    pub streams: usize,
    /// How long it took until each was connected and had its first snapshot.
    pub up_s: f64,
    /// Anonymous memory of the control plane that each stream takes, with its connection, in bytes.
    pub bytes_each: f64,
    /// Bytes of the message that a change sends to each.
    pub message_bytes: usize,
    /// From the call that changes something for all to the last stream that has it.
    pub change_ms: Spread,
    /// From the message that asks for a broadcast to the last stream that has it.
    pub broadcast_ms: Spread,
    /// The medians' ratio.
    pub ratio: f64,
    /// From the call that changes something for one to the stream that has it.
    pub one_ms: Spread,
}

/// Streams that are held, and what they tell.
struct Held {
    streams: usize,
    events: mpsc::UnboundedReceiver<Event>,
    /// Dropped with it, the streams end.
    _tasks: JoinSet<()>,
}

impl Held {
    async fn connect(address: SocketAddr, svids: &Arc<Vec<Identity>>) -> Result<Self> {
        let (tell, events) = mpsc::unbounded_channel();
        let open = |number: usize| {
            let svids = Arc::clone(svids);
            async move { Ok::<_, Fault>((number, Stream::open(address, &svids[number], &name(number)).await?)) }
        };
        let mut tasks = JoinSet::new();
        let mut opened = stream::iter((0..svids.len()).map(open)).buffer_unordered(CONNECTING);
        while let Some((number, stream)) = opened.try_next().await? {
            tasks.spawn(stream.hold(number, tell.clone()));
        }
        Ok(Self { streams: svids.len(), events, _tasks: tasks })
    }

    /// Waits for so many streams to have a policy that is as wanted. Returns when the last one had it.
    async fn reach(&mut self, count: usize, wanted: impl Fn(usize, &Policy) -> bool) -> Result<Instant> {
        let mut reached = vec![false; self.streams];
        let (mut missing, mut last) = (count, None);
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while missing > 0 {
            let event = tokio::time::timeout_at(deadline, self.events.recv()).await;
            let event = event.map_err(|_| Fault::new(format!("{missing} streams have not got a change")))?;
            let event = event.ok_or_else(|| Fault::new("no stream is left"))?;
            match event.got {
                Got::Policy(policy) if wanted(event.stream, &policy) && !reached[event.stream] => {
                    reached[event.stream] = true;
                    missing -= 1;
                    last = last.max(Some(event.at));
                }
                Got::Policy(_) => {}
                Got::End(why) => return Err(Fault::new(format!("stream {} ended: {why}", event.stream))),
            }
        }
        last.ok_or_else(|| Fault::new("nothing was waited for"))
    }

    /// Waits until nothing is under way any more.
    async fn quiet(&mut self) {
        while tokio::time::timeout(QUIET, self.events.recv()).await.is_ok_and(|event| event.is_some()) {}
    }

    /// How long a change takes to get there.
    async fn time(
        &mut self,
        count: usize,
        change: impl Future<Output = Result<()>>,
        wanted: impl Fn(usize, &Policy) -> bool,
    ) -> Result<f64> {
        let start = Instant::now();
        let (changed, last) = tokio::join!(change, self.reach(count, wanted));
        changed?;
        let took = last?.duration_since(start).as_secs_f64() * 1e3;
        self.quiet().await;
        Ok(took)
    }
}

fn name(number: usize) -> String {
    format!("bouncer-{number:05}")
}

/// Lets this process hold so many connections, and those that it starts.
///
/// # Errors
/// If it may not.
pub(crate) fn raise_limit(streams: u32) -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    if maximum.is_some_and(|maximum| maximum < u64::from(streams) + SPARE) {
        let allowed = maximum.unwrap_or_default();
        let why =
            format!("only {allowed} file descriptors for {streams} streams: raise `ulimit -Hn`, or give --streams");
        return Err(Fault::new(why));
    }
    Ok(())
}

/// Both, one after the other: so many connections twice would be more than a process may have. [`raise_limit`] comes first.
///
/// # Errors
/// If a stream does not get what it must.
pub(crate) async fn measure(sizes: &Sizes) -> Result<Fleet> {
    let plane = Plane::start("fleet", &Databases::Sqlite).await?;
    let control_plane = &plane.control_plane;
    let api = control_plane.api()?;
    plane.database().await?.add_bouncers(sizes.streams.try_into()?).await?;
    let svid = |number| plane.domain.svid(&format!("spiffe://example.org/bouncer/{}", name(number)));
    let svids = Arc::new((0..sizes.streams as usize).map(svid).collect::<Result<Vec<_>>>()?);
    progress(format_args!("{} bouncers are registered", svids.len()));

    let pid = control_plane.process().pid();
    let before = memory::settled(pid).await?;
    let start = Instant::now();
    let mut held = Held::connect(control_plane.setup().bridge().parse()?, &svids).await?;
    let all = held.streams;
    held.reach(all, |_, policy| !policy.envelopes().is_empty()).await?;
    let up_s = start.elapsed().as_secs_f64();
    progress(format_args!("{all} streams are up after {up_s:.1} s"));
    held.quiet().await;
    let (mut changes, mut sample) = (Vec::new(), None);
    for _ in 0..sizes.changes {
        held.time(all, api.set_flag(false), |_, policy| !policy.is_enabled()).await?;
        let last = Mutex::new(None);
        let on = |_: usize, policy: &Policy| {
            if policy.is_enabled() {
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(policy.clone());
            }
            policy.is_enabled()
        };
        changes.push(held.time(all, api.set_flag(true), on).await?);
        sample = last.into_inner().unwrap_or_else(PoisonError::into_inner);
    }
    let sample = sample.ok_or_else(|| Fault::new("there was no change"))?.into_message();
    let mut ones = Vec::new();
    for round in 0..sizes.changes {
        let enabled = round % 2 == 1;
        let body = json!({
            "bouncer": name(0), "cluster": "payments", "upstream": "payments.internal:8443", "protocol": "mtls",
            "logical_path": "service-00000/upstream-tls", "callers": ["spiffe://example.org/ns/shop/*"],
            "enabled": enabled,
        });
        let change = async {
            let answer = api.call(Method::PUT, "/v1/protected-resources/service-00000", Some(&body)).await?;
            answer.success().map(drop)
        };
        let wanted = |stream, policy: &Policy| {
            stream == 0 && policy.resources().first().is_some_and(|resource| resource.enabled == enabled)
        };
        ones.push(held.time(1, change, wanted).await?);
    }
    // With what changes have left behind.
    let bytes_each = memory::settled(pid).await?.saturating_sub(before) as f64 / all as f64;
    progress(format_args!("{} changes have reached all", changes.len()));
    drop(held);
    control_plane.process().kill();

    let (_process, address) = broadcast::start(&plane.scratch, &plane.domain, &sample).await?;
    let mut held = Held::connect(address, &svids).await?;
    let teller = Stream::open(address, &svids[0], &name(0)).await?;
    let mut broadcasts = Vec::new();
    for _ in 0..sizes.changes {
        let ack = wire::Ack { epoch: broadcast::TELL, ..wire::Ack::default() };
        let tell = async {
            let told = teller.up.send(message(wire::resolver_message::Body::Ack(ack))).await;
            told.map_err(|_| Fault::new("the broadcast server is gone"))
        };
        broadcasts.push(held.time(all, tell, |_, _| true).await?);
    }
    progress(format_args!("{} broadcasts have reached all", broadcasts.len()));
    let (change_ms, broadcast_ms) = (Spread::of(changes), Spread::of(broadcasts));
    Ok(Fleet {
        streams: all,
        up_s,
        bytes_each,
        message_bytes: sample.encoded_len(),
        ratio: change_ms.median / broadcast_ms.median,
        change_ms,
        broadcast_ms,
        one_ms: Spread::of(ones),
    })
}
