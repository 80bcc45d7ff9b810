//! Many idle secrets, each with an SDS stream of its own: what memory they take, and how fast they are served.

use crate::fleet::{self, Secret};
use crate::progress;
use bouncer_tests::intercept::Decider;
use bouncer_tests::scratch::Scratch;
use bouncer_tests::sds::{self, Delta, State};
use bouncer_tests::spire::{Entry, Selector, Spire};
use bouncer_tests::stack::Stack;
use bouncer_tests::{Fault, Result, memory};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use std::time::{Duration, Instant};

/// Cold decisions at a time.
const COLD: usize = 8;
const READY: Duration = Duration::from_secs(120);

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    /// Secrets.
    pub secrets: usize,
    /// Bytes of one answer.
    pub answer_bytes: f64,
    /// Memory that the server holds more for each secret, without the answer's bytes once.
    pub overhead_bytes: f64,
    /// Secrets served in a second, one after the other on one connection, each on a stream of its own.
    pub per_second: f64,
}

impl Idle {
    fn new(secrets: usize, answers: usize, took: Duration, grown: u64) -> Self {
        let count = secrets as f64;
        let answer_bytes = answers as f64 / count;
        let overhead_bytes = grown as f64 / count - answer_bytes;
        Self { secrets, answer_bytes, overhead_bytes, per_second: count / took.as_secs_f64() }
    }
}

/// A resolver that starts with nothing, and is then told of these secrets.
///
/// # Errors
/// If it does not serve one.
pub(crate) async fn bouncer(stack: &mut Stack, secrets: &[Secret]) -> Result<Idle> {
    stack.fresh_resolver().await?;
    let resolver = stack.resolver()?;
    let (setup, pid) = (resolver.setup(), resolver.process().pid());
    let before = memory::settled(pid).await?;
    fleet::push(stack, secrets).await?;
    let known = memory::settled(pid).await?;
    let decider = Decider::at(&setup.intercept_socket).await?;
    let channel = sds::connect(&setup.sds_socket).await?;
    let start = Instant::now();
    let decide = |secret: &Secret| {
        let (mut own, caller) = (decider.clone(), secret.caller.clone());
        async move { own.decide(&caller).await }
    };
    let tags: Vec<_> = stream::iter(secrets.iter().map(decide)).buffered(COLD).try_collect().await?;
    progress(format_args!("{} secrets unwrapped in {:.1} s", tags.len(), start.elapsed().as_secs_f64()));
    let unwrapped = memory::settled(pid).await?;
    let (mut held, mut bytes, start) = (Vec::with_capacity(tags.len()), 0, Instant::now());
    for tag in tags {
        let (stream, told) = Delta::fetch(&channel, "payments", &setup.sds_key, &tag).await?;
        bytes += told.bytes;
        held.push(stream);
    }
    let took = start.elapsed();
    progress(format_args!("Bouncer served {} of them in {:.1} s", held.len(), took.as_secs_f64()));
    let served = memory::settled(pid).await?;
    let each = |now: u64, then: u64| now.saturating_sub(then) / secrets.len() as u64;
    progress(format_args!(
        "of each secret's bytes {} came with its metadata, {} with its unwrapping, {} with its stream",
        each(known, before),
        each(unwrapped, known),
        each(served, unwrapped),
    ));
    Ok(Idle::new(held.len(), bytes, took, served.saturating_sub(before)))
}

/// SPIRE Agent, likewise. Its SVIDs are as it makes them: an EC key, and no chain beyond the leaf.
///
/// # Errors
/// If SPIRE is not installed, or does not serve one.
pub(crate) async fn spire(count: usize) -> Result<Idle> {
    let scratch = Scratch::new("bench-spire")?;
    let known_by = Selector::Uid(rustix::process::getuid().as_raw());
    let name = |number: usize| format!("spiffe://example.org/agent-{number}");
    // One from the start, so that the base has a served secret in it too.
    let first = name(0);
    let spire = Spire::start(&scratch, &[Entry { spiffe_id: &first, known_by }]).await?;
    let socket = spire.address();
    let socket = socket.strip_prefix("unix://").unwrap_or(&socket).to_owned();
    let channel = sds::connect(socket.as_ref()).await?;
    let ready = || async { State::open(&channel, &first).await.ok() };
    drop(spire.agent().until("serves the first", READY, ready).await?);
    let pid = spire.agent().pid();
    let before = memory::settled(pid).await?;
    let names: Vec<String> = (1..=count).map(name).collect();
    spire.register(&names, known_by)?;
    let last = names.last().ok_or_else(|| Fault::new("no names"))?;
    let ready = || async { State::open(&channel, last).await.ok() };
    drop(spire.agent().until("serves the last", READY, ready).await?);
    let mut held = Vec::with_capacity(count);
    let start = Instant::now();
    for name in &names {
        held.push(State::open(&channel, name).await?);
    }
    let took = start.elapsed();
    progress(format_args!("SPIRE Agent served {count} in {:.1} s", took.as_secs_f64()));
    let bytes = held.iter().map(|stream| stream.bytes).sum();
    Ok(Idle::new(count, bytes, took, memory::settled(pid).await?.saturating_sub(before)))
}
