//! The third part of `make bench`: what one control plane carries, each figure beside a peer in the same run.
//!
//! Pages of a long list against the same pages of a short one; audit intake against the database's own batched inserts;
//! a change that reaches many streams against a bare tonic broadcast of the same bytes. It reports, and says of each
//! promise whether it held; whether the machine was quiet enough to believe it is for the reader.

mod broadcast;
mod database;
mod fleet;
mod intake;
mod pages;
mod plane;
mod report;
mod streams;

use bouncer_tests::stop::{self, Stop};
use bouncer_tests::{Result, tools};
use clap::{Parser, Subcommand, ValueEnum};
use database::{Databases, Kind};
use report::Report;
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

/// How it calls itself.
const NAME: &str = "bench";

/// Measures what one control plane carries: long lists, audit, and many streams.
///
/// The control plane is the shipped one, with its sandbox, its mTLS and every commit synced. Prints a table and writes
/// scale.json, part by part. Fails only if the run does not count: a debug build.
#[derive(Parser, Debug)]
struct Args {
    #[command(flatten)]
    sizes: Sizes,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Sizes {
    /// Only these [default: all].
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Lists and audit on these databases.
    #[arg(long, value_delimiter = ',', default_values = ["sqlite", "postgres"])]
    databases: Vec<Kind>,
    /// Envelope secrets in the long list; the short one has 1,000.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(2_000..=1_000_000))]
    secrets: u32,
    /// Rounds of pages, each kind once from each list.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    page_rounds: u32,
    /// Streams, each of a bouncer and a connection of its own.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=16_000))]
    streams: u32,
    /// Changes that reach all of them.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    changes: u32,
    /// Bouncers that send audit at the same time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    senders: u32,
    /// Events of a batch.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    batch: u32,
    /// Batches that each bouncer sends in a round.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    batches: u32,
    /// Rounds of audit.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    audit_rounds: u32,
    /// Where scale.json goes [default: target/bench].
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Pages,
    Intake,
    Fleet,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serves as the peer of a change that reaches all; the program starts it itself.
    #[command(hide = true)]
    Broadcast(broadcast::Args),
}

fn main() -> ExitCode {
    stop::exit_code(NAME, run(Args::parse()))
}

/// A line for who waits.
pub(crate) fn progress(line: impl Display) {
    stop::progress(NAME, line);
}

/// Whether the run counts; `None` if it was told to stop.
fn run(args: Args) -> Result<Option<bool>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.command {
            Some(Command::Broadcast(args)) => broadcast::serve(&args).await.map(|()| Some(true)),
            None => Stop::new()?.or(measure(&args.sizes)).await.transpose(),
        }
    })
}

async fn measure(sizes: &Sizes) -> Result<bool> {
    let wanted = |part| sizes.only.is_empty() || sizes.only.contains(&part);
    // What may stop it is found before anything is measured.
    if wanted(Part::Fleet) {
        fleet::raise_limit(sizes.streams)?;
    }
    let folder = sizes.out.clone().unwrap_or_else(|| tools::root().join("target/bench"));
    std::fs::create_dir_all(&folder)?;
    let mut report = Report::begin(folder.join("scale.json"), std::io::stdout())?;
    for kind in &sizes.databases {
        if !wanted(Part::Pages) && !wanted(Part::Intake) {
            break;
        }
        let databases = Databases::start(*kind)?;
        progress(format_args!("on {}", databases.name()));
        if wanted(Part::Pages) {
            report.pages(databases.name(), pages::measure(&databases, sizes).await?)?;
        }
        if wanted(Part::Intake) {
            report.intake(databases.name(), intake::measure(&databases, sizes).await?)?;
        }
    }
    if wanted(Part::Fleet) {
        report.fleet(fleet::measure(sizes).await?)?;
    }
    Ok(!cfg!(debug_assertions))
}
