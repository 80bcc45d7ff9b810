//! The results, as a table and as JSON.

use crate::cold::Cold;
use crate::idle::Idle;
use crate::one_envoy::OneEnvoy;
use crate::warm::Warm;
use bouncer_tests::stats::Spread;
use serde::Serialize;
use std::io::{self, Write};

/// All of it, as custody.json has it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Of this format.
    pub version: u32,
    /// A cold intercept.
    pub cold: Cold,
    /// A warm decision.
    pub warm: Warm,
    /// Idle secrets.
    pub idle: Idle,
    /// As many as SPIRE Agent was given.
    pub beside_spire: Idle,
    /// SPIRE Agent.
    pub spire: Idle,
    /// Secrets on one Envoy.
    pub one_envoy: OneEnvoy,
}

impl Report {
    /// The table.
    ///
    /// # Errors
    /// If it can't be written.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { cold, warm, idle, beside_spire, spire, one_envoy, .. } = self;
        let met = |met| if met { "met" } else { "NOT met" };
        writeln!(out, "\nCustody: each figure beside its peer of the same run; median (min to max).\n")?;
        writeln!(
            out,
            "cold intercept, {} pairs: question to secret {} ms, bare KMS call {} ms\n  added, at p50 at most 3 ms: \
             {}, {:.2} ms (quartiles {:.2} and {:.2})",
            cold.pairs,
            span(&cold.intercept_ms),
            span(&cold.bare_ms),
            met(cold.added_ms.median <= 3.0),
            cold.added_ms.median,
            cold.added_ms.q1,
            cold.added_ms.q3,
        )?;
        writeln!(
            out,
            "warm decision, {} rounds of {}: p99 {} µs; a call that appends the same {} bytes {} µs\n  at p99 at most \
             1.5 times: {}, {} (p50 {})",
            warm.rounds,
            warm.calls,
            span(&warm.decide_p99_us),
            warm.bytes,
            span(&warm.append_p99_us),
            met(warm.ratio_p99.median <= 1.5),
            span(&warm.ratio_p99),
            span(&warm.ratio_p50),
        )?;
        writeln!(
            out,
            "idle secrets, {}: {:.0} bytes each beyond their payload of {:.0}; {:.0} served a second\n  at most 8,192 \
             bytes: {}",
            idle.secrets,
            idle.overhead_bytes,
            idle.answer_bytes,
            idle.per_second,
            met(idle.overhead_bytes <= 8_192.0),
        )?;
        writeln!(out, "beside SPIRE Agent, {} secrets each, a stream for each:", spire.secrets)?;
        for (name, row) in [("Bouncer", beside_spire), ("SPIRE Agent", spire)] {
            writeln!(
                out,
                "  {name:12} {:>8.0} bytes each beyond {:.0}, {:>7.0} served a second",
                row.overhead_bytes, row.answer_bytes, row.per_second
            )?;
        }
        writeln!(
            out,
            "one Envoy: {} callers, {} certificates, {} SDS streams, up in {:.1} s; after a killed resolver back in \
             {:.1} s, with {} calls to KMS\n  no init timeout: {}, {}",
            one_envoy.secrets,
            one_envoy.certificates,
            one_envoy.streams,
            one_envoy.up_s,
            one_envoy.back_s,
            one_envoy.unwraps_after_restart,
            met(one_envoy.init_timeouts == 0 && one_envoy.certificates >= one_envoy.secrets as u64),
            one_envoy.init_timeouts,
        )
    }
}

fn span(spread: &Spread) -> String {
    format!("{:.2} ({:.2}–{:.2})", spread.median, spread.min, spread.max)
}
