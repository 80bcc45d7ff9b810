//! A warm decision, whose audit event is in the spool before the answer, against a tonic call that appends the same
//! bytes to a file.

use crate::{Sizes, append, progress};
use bouncer_tests::intercept::Decider;
use bouncer_tests::scratch::Scratch;
use bouncer_tests::stack::Stack;
use bouncer_tests::stats::{Spread, quantile};
use bouncer_tests::{Fault, Result};
use serde::Serialize;
use std::time::Instant;

/// What was measured, in microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Warm {
    /// Rounds.
    pub rounds: usize,
    /// Calls in a round, of each.
    pub calls: u32,
    /// Bytes that each call appends.
    pub bytes: usize,
    /// A decision's 99th percentile in a round.
    pub decide_p99_us: Spread,
    /// The peer's.
    pub append_p99_us: Spread,
    /// Their ratio in the same round.
    pub ratio_p99: Spread,
    /// The ratio of the medians.
    pub ratio_p50: Spread,
}

/// Rounds in turn, one call at a time.
///
/// # Errors
/// If a call is not answered.
pub(crate) async fn measure(stack: &Stack, caller: &str, sizes: &Sizes) -> Result<Warm> {
    let scratch = Scratch::new("bench-append")?;
    let mut ours = Decider::at(&stack.resolver()?.setup().intercept_socket).await?;
    let tag = ours.decide(caller).await?;
    let line = last_line(stack)?;
    let (_process, socket) = append::start(&scratch, &line, &tag).await?;
    let mut theirs = Decider::at(&socket).await?;
    let mut rounds = vec![];
    block(&mut ours, caller, sizes.calls).await?;
    block(&mut theirs, caller, sizes.calls).await?;
    for round in 0..sizes.rounds {
        let pair = if round % 2 == 0 {
            let ours = block(&mut ours, caller, sizes.calls).await?;
            (ours, block(&mut theirs, caller, sizes.calls).await?)
        } else {
            let theirs = block(&mut theirs, caller, sizes.calls).await?;
            (block(&mut ours, caller, sizes.calls).await?, theirs)
        };
        rounds.push(pair);
    }
    progress(format_args!("{} rounds of {} warm decisions", rounds.len(), sizes.calls));
    let of = |value: fn(&(Block, Block)) -> f64| Spread::of(rounds.iter().map(value));
    Ok(Warm {
        rounds: rounds.len(),
        calls: sizes.calls,
        bytes: line.len(),
        decide_p99_us: of(|(ours, _)| ours.p99),
        append_p99_us: of(|(_, theirs)| theirs.p99),
        ratio_p99: of(|(ours, theirs)| ours.p99 / theirs.p99),
        ratio_p50: of(|(ours, theirs)| ours.p50 / theirs.p50),
    })
}

/// Percentiles of a block of calls, in microseconds.
struct Block {
    p50: f64,
    p99: f64,
}

async fn block(decider: &mut Decider, caller: &str, calls: u32) -> Result<Block> {
    let mut took = Vec::with_capacity(calls as usize);
    for _ in 0..calls {
        let start = Instant::now();
        decider.decide(caller).await?;
        took.push(start.elapsed().as_secs_f64() * 1e6);
    }
    took.sort_by(f64::total_cmp);
    Ok(Block { p50: quantile(&took, 0.5), p99: quantile(&took, 0.99) })
}

/// What the resolver appended for the last decision.
fn last_line(stack: &Stack) -> Result<Vec<u8>> {
    let mut segments = vec![];
    for entry in std::fs::read_dir(stack.scratch.file("resolver").join("audit"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            segments.push(path);
        }
    }
    let newest = segments.into_iter().max().ok_or_else(|| Fault::new("the spool has no segment"))?;
    let text = std::fs::read(newest)?;
    let line = text.split_inclusive(|byte| *byte == b'\n').next_back();
    Ok(line.ok_or_else(|| Fault::new("the spool is empty"))?.to_vec())
}
