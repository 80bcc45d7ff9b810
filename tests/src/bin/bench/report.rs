//! The results: ratios to the plain Envoy, as a table and as JSON.

use crate::Args;
use crate::checks::Look;
use crate::cores::Cores;
use crate::load::Slice;
use crate::variants::Kind;
use bouncer_tests::stats::Spread;
use serde::Serialize;
use std::io::{self, Write};

/// All of it, as bench.json has it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Of this format.
    pub version: u32,
    /// What was run.
    pub setting: Setting,
    /// In the order of the table.
    pub variants: Vec<Row>,
    /// The promises, kept or not.
    pub targets: Vec<Target>,
    /// Why the run is void; empty when it counts.
    pub void: Vec<String>,
    /// Evidence before the rounds, and after them.
    pub looks: [Look; 2],
}

/// What was run.
#[derive(Debug, Serialize)]
pub(crate) struct Setting {
    /// Rounds.
    pub rounds: u32,
    /// Seconds of a slice.
    pub slice_seconds: u32,
    /// Connections of the load generator.
    pub connections: u32,
    /// Whether an access log was written.
    pub access_log: bool,
    /// What the upstream speaks.
    pub upstream: &'static str,
    /// Processor cores, and what each did.
    pub cores: String,
    /// The processor.
    pub processor: String,
}

/// One variant.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// Its word.
    pub id: &'static str,
    /// What it is.
    pub label: &'static str,
    /// Requests a second.
    pub per_second: Spread,
    /// Ratio of throughput to the plain Envoy's of the same round.
    pub throughput: Spread,
    /// The same of the median latency.
    pub p50: Spread,
    /// The same of the 99th percentile.
    pub p99: Spread,
    /// The same of processor time for a request, Envoy's and its server's.
    pub cpu: Spread,
    /// Envoy's processor time for a request, microseconds.
    pub envoy_cpu_us: Spread,
    /// The server's.
    pub server_cpu_us: Spread,
    /// How much of its core Envoy used.
    pub busy: Spread,
    /// As measured.
    pub slices: Vec<Slice>,
}

/// A promise about throughput.
#[derive(Debug, Serialize)]
pub(crate) struct Target {
    /// The promise.
    pub promise: &'static str,
    /// What was measured.
    pub measured: Spread,
    /// Whether its median keeps the promise.
    pub met: bool,
}

impl Report {
    pub(crate) fn new(
        args: &Args,
        cores: &Cores,
        kinds: &[Kind],
        slices: &[Vec<Slice>],
        before: &Look,
        after: &Look,
        void: Vec<String>,
    ) -> Self {
        let of = |kind| kinds.iter().position(|k| *k == kind).map(|index| &slices[index]);
        let plain = slices.first().map_or(&[][..], Vec::as_slice);
        let target = |promise, least: f64, base: &[Slice]| {
            let measured = paired(of(Kind::Bouncer)?, base, Slice::per_second);
            Some(Target { promise, measured, met: measured.median >= least })
        };
        let targets = [
            target("throughput at least 0.80 of (a)", 0.80, plain),
            of(Kind::ExtAuthz).and_then(|b| target("throughput at least 1.6 times (b)", 1.6, b)),
        ];
        let setting = Setting {
            rounds: args.rounds,
            slice_seconds: args.slice,
            connections: args.connections,
            access_log: args.access_log,
            upstream: if args.upstream_h2 { "HTTP/2" } else { "HTTP/1.1" },
            cores: cores.to_string(),
            processor: processor(),
        };
        let variants = kinds.iter().zip(slices).map(|(kind, slices)| Row::new(*kind, slices, plain)).collect();
        let targets = targets.into_iter().flatten().collect();
        Self { version: 1, setting, variants, targets, void, looks: [before.clone(), after.clone()] }
    }

    /// Whether the run counts.
    pub(crate) fn valid(&self) -> bool {
        self.void.is_empty()
    }

    /// The table.
    ///
    /// # Errors
    /// If it can't be written.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let setting = &self.setting;
        writeln!(
            out,
            "\nWarm HTTP path: ratios to plain Envoy with a static client certificate (a), of the same round.\n\
             Median (min to max) of {} rounds of {} s slices in turn; {} connections; one worker; plain HTTP in, mTLS \
             and {} to the upstream; access log {}.\n{}, {}.\n",
            setting.rounds,
            setting.slice_seconds,
            setting.connections,
            setting.upstream,
            if setting.access_log { "on" } else { "off" },
            setting.processor,
            setting.cores,
        )?;
        let (t, l) = ("throughput", "latency p50");
        writeln!(
            out,
            "{:37}{:>8}  {t:19}{l:19}{:19}{:19}{:>8}{:>11}{:>6}",
            "", "req/s", "latency p99", "CPU per request", "Envoy µs", "server µs", "busy"
        )?;
        for row in &self.variants {
            writeln!(
                out,
                "{:37}{:>8.0}  {:19}{:19}{:19}{:19}{:>8.1}{:>11.1}{:>5.0}%",
                row.label,
                row.per_second.median,
                span(&row.throughput),
                span(&row.p50),
                span(&row.p99),
                span(&row.cpu),
                row.envoy_cpu_us.median,
                row.server_cpu_us.median,
                row.busy.median * 100.0,
            )?;
        }
        writeln!(out)?;
        for target in &self.targets {
            let met = if target.met { "met" } else { "NOT met" };
            writeln!(out, "{}: {met}, {}", target.promise, span(&target.measured))?;
        }
        let idle = self.variants.iter().find(|row| row.id == Kind::Plain.id() && row.busy.median < 0.9);
        if let Some(row) = idle {
            let busy = row.busy.median * 100.0;
            writeln!(
                out,
                "Envoy used {busy:.0} % of its core: something else was the limit, so trust CPU per request more."
            )?;
        }
        let used = self.looks[1].uses.saturating_sub(self.looks[0].uses);
        if !self.valid() {
            writeln!(out, "VOID:")?;
            self.void.iter().try_for_each(|fault| writeln!(out, "  {fault}"))?;
        } else if used > 0 {
            writeln!(
                out,
                "Valid: the upstream saw the unwrapped certificate, forged facts were overwritten, and {used} requests \
                 used a cached decision."
            )?;
        }
        Ok(())
    }
}

impl Row {
    fn new(kind: Kind, slices: &[Slice], plain: &[Slice]) -> Self {
        let all = |of: fn(&Slice) -> f64| Spread::of(slices.iter().map(of));
        let ratio = |of: fn(&Slice) -> f64| paired(slices, plain, of);
        Self {
            id: kind.id(),
            label: kind.label(),
            per_second: all(Slice::per_second),
            throughput: ratio(Slice::per_second),
            p50: ratio(|slice| slice.p50_us),
            p99: ratio(|slice| slice.p99_us),
            cpu: ratio(Slice::cpu_us),
            envoy_cpu_us: all(|slice| slice.envoy_cpu_us),
            server_cpu_us: all(|slice| slice.server_cpu_us),
            busy: all(Slice::busy),
            slices: slices.to_vec(),
        }
    }
}

/// Ratios of slices of the same rounds.
fn paired(slices: &[Slice], base: &[Slice], of: fn(&Slice) -> f64) -> Spread {
    Spread::of(slices.iter().zip(base).map(|(slice, base)| of(slice) / of(base)))
}

fn span(spread: &Spread) -> String {
    format!("{:.2} ({:.2}–{:.2})", spread.median, spread.min, spread.max)
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned())
}
