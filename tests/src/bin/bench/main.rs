//! `make bench`: what Bouncer costs on the warm HTTP path, against plain Envoy and against `ext_authz`.
//!
//! All variants are up side by side, each an Envoy with one worker, all on one processor core; load, upstream and
//! servers are on the others. Slices of one second take turns, since single runs on a shared machine vary more than
//! what is measured: every number is a ratio to the plain Envoy's slice of the same round. A run in which any of
//! Bouncer's security inputs was missing is void. It reports; whether a number is good enough is for its reader.

mod checks;
mod cores;
mod load;
mod plot;
mod report;
mod stage;
mod variants;

use bouncer_tests::stop::{self, Stop};
use bouncer_tests::{Fault, Result};
use clap::Parser;
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use variants::Kind;

/// How it calls itself.
const NAME: &str = "bench";

/// Measures the warm HTTP path of Bouncer against (a) plain Envoy with a static client certificate and (b) the same
/// with ext_authz to a minimal Rust server on a Unix socket.
///
/// Every variant has the listener and the upstream TLS of the shipped bootstrap, and the same upstream, which demands a
/// client certificate. The listeners take plain HTTP, since the load generator has no client certificates: the resolver
/// runs with `caller = "own-svid"`, and facts, cache look-up, tag, keyed secret name, SDS and mTLS to the upstream are
/// all in place. Prints a table; writes bench.json and bench.svg.
#[derive(Parser, Debug, Clone)]
pub(crate) struct Args {
    /// Rounds; in each, every variant has one slice.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of a slice.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60))]
    slice: u32,
    /// Connections of the load generator, each with one request at a time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    connections: u32,
    /// Keeps the shipped bootstrap's access log, in every variant. Without it Bouncer's own share shows more.
    #[arg(long)]
    access_log: bool,
    /// HTTP/2 to the upstream in place of HTTP/1.1.
    #[arg(long)]
    upstream_h2: bool,
    /// Only these variants, besides the plain one: native, empty-wasm, bouncer, ext-authz, ext-authz-tag.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Where bench.json and bench.svg go [default: target/bench].
    #[arg(long)]
    out: Option<PathBuf>,
    /// After the rounds, loads one variant for --slice seconds again and again until interrupted, to be profiled.
    #[arg(long, value_enum, value_name = "VARIANT")]
    hold: Option<Kind>,
}

fn main() -> ExitCode {
    stop::exit_code(NAME, run(&Args::parse()))
}

/// A line for who waits.
pub(crate) fn progress(line: impl Display) {
    stop::progress(NAME, line);
}

/// Whether the run counts; `None` if it was told to stop.
fn run(args: &Args) -> Result<Option<bool>> {
    // Before any thread is made: threads and children inherit it.
    let cores = cores::Cores::split()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async { Stop::new()?.or(measure(args, &cores)).await.transpose() })
}

async fn measure(args: &Args, cores: &cores::Cores) -> Result<bool> {
    let kinds = args.kinds();
    progress(format_args!("starting {} variants; {cores}", kinds.len()));
    let mut stage = stage::Stage::start(args, &kinds, cores).await?;
    let before = stage.look().await?;

    for index in 0..stage.variants.len() {
        stage.slice(index, args).await?;
    }
    let mut slices: Vec<Vec<load::Slice>> = vec![vec![]; kinds.len()];
    for round in 0..args.rounds {
        let mut line = format!("round {:>2}/{}", round + 1, args.rounds);
        for turn in 0..kinds.len() {
            // The order turns from round to round, so that nobody is always behind the same neighbour.
            let index = (turn + round as usize) % kinds.len();
            slices[index].push(stage.slice(index, args).await?);
        }
        for (kind, slices) in kinds.iter().zip(&slices) {
            if let Some(slice) = slices.last() {
                line.push_str(&format!("  {} {:.0}/s", kind.id(), slice.per_second()));
            }
        }
        progress(line);
    }
    let after = stage.look_after(&before).await?;

    let served = |kind| kinds.iter().position(|k| *k == kind).map_or(0, |index| stage.variants[index].requests);
    let faults = checks::verify(&kinds, &before, &after, served(Kind::Bouncer), &slices);
    let report = report::Report::new(args, cores, &kinds, &slices, &before, &after, faults);
    report.print(&mut std::io::stdout().lock())?;
    let folder = args.out.clone().unwrap_or_else(|| bouncer_tests::tools::root().join("target/bench"));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("bench.json"), serde_json::to_vec_pretty(&report)?)?;
    std::fs::write(folder.join("bench.svg"), plot::svg(&report))?;
    match args.hold {
        Some(kind) => hold(&mut stage, &kinds, kind, args).await,
        None => Ok(report.valid()),
    }
}

async fn hold(stage: &mut stage::Stage, kinds: &[Kind], kind: Kind, args: &Args) -> Result<bool> {
    let index = kinds.iter().position(|k| *k == kind);
    let index = index.ok_or_else(|| Fault::new(format!("{} is not among the variants", kind.id())))?;
    progress(format_args!("loading {}, pid {}, until Ctrl-C", kind.id(), stage.variants[index].pid()));
    loop {
        stage.slice(index, args).await?;
    }
}

impl Args {
    /// The variants, the plain one first.
    fn kinds(&self) -> Vec<Kind> {
        let wanted = |kind: &Kind| *kind == Kind::Plain || self.only.is_empty() || self.only.contains(kind);
        Kind::ALL.into_iter().filter(wanted).collect()
    }
}
