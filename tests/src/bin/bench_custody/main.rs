//! The second half of `make bench`: what custody costs, each figure beside a peer in the same run.
//!
//! A cold intercept against a bare call to the same backend; a warm decision against a tonic call that appends the same
//! bytes; many idle secrets and how fast they are served, against SPIRE Agent's SDS; and the same many on one Envoy. It
//! reports; whether a number is good enough is for its reader.

mod append;
mod cold;
mod fleet;
mod idle;
mod one_envoy;
mod report;
mod warm;

use bouncer_tests::stack::Stack;
use bouncer_tests::stop::{self, Stop};
use bouncer_tests::{Result, tools};
use clap::{Parser, Subcommand};
use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;

/// How it calls itself.
const NAME: &str = "bench";

/// Measures what custody costs: cold and warm decisions, idle secrets, and many of them on one Envoy.
///
/// The resolver is the shipped one, with its sandbox, its audit spool and its cache; KMS is the tests' emulator. Prints a
/// table; writes custody.json.
#[derive(Parser, Debug)]
struct Args {
    #[command(flatten)]
    sizes: Sizes,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Sizes {
    /// Secrets on one resolver, and on one Envoy.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    secrets: u32,
    /// Secrets where SPIRE Agent is compared.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    peer_secrets: u32,
    /// Cold intercepts, each with a bare call beside it.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=5_000))]
    cold: u32,
    /// Rounds of warm decisions.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Warm decisions in a round.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    calls: u32,
    /// Where custody.json goes [default: target/bench].
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Serves as the peer of warm decisions; the program starts it itself.
    #[command(hide = true)]
    Append(append::Args),
}

fn main() -> ExitCode {
    stop::exit_code(NAME, run(Args::parse()))
}

/// A line for who waits.
pub(crate) fn progress(line: impl Display) {
    stop::progress(NAME, line);
}

/// Whether it came to its end, whatever was measured; `None` if it was told to stop.
fn run(args: Args) -> Result<Option<bool>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.command {
            Some(Command::Append(args)) => append::serve(&args).await.map(|()| Some(true)),
            None => Stop::new()?.or(measure(&args.sizes)).await.transpose().map(|ended| ended.map(|()| true)),
        }
    })
}

async fn measure(sizes: &Sizes) -> Result<()> {
    progress("starting");
    let builder = Stack::builder("bench-custody").own_bridge().without_envoy().filter(tools::filter()?);
    let mut stack = builder.start().await?;
    let secrets = fleet::wrap(&stack, sizes.secrets as usize).await?;
    progress(format_args!("{} credentials are wrapped", secrets.len()));
    fleet::push(&stack, &secrets).await?;
    let cold = cold::measure(&stack, &secrets[..secrets.len().min(sizes.cold as usize)]).await?;
    let warm = warm::measure(&stack, &secrets[0].caller, sizes).await?;
    let idle = idle::bouncer(&mut stack, &secrets).await?;
    let few = &secrets[..secrets.len().min(sizes.peer_secrets as usize)];
    let beside_spire = idle::bouncer(&mut stack, few).await?;
    let spire = idle::spire(few.len()).await?;
    let one_envoy = one_envoy::measure(&mut stack, &secrets).await?;

    let report = report::Report { version: 1, cold, warm, idle, beside_spire, spire, one_envoy };
    report.print(&mut std::io::stdout().lock())?;
    let folder = sizes.out.clone().unwrap_or_else(|| tools::root().join("target/bench"));
    std::fs::create_dir_all(&folder)?;
    Ok(std::fs::write(folder.join("custody.json"), serde_json::to_vec_pretty(&report)?)?)
}
