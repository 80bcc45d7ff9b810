//! The commands, one module for each group. Each makes its calls, prints its answer and says how to end.

mod audit;
mod gitops;
mod inventory;
mod keys;
mod probe;
mod proposals;
mod register;
mod registered;
mod revoke;
mod rewrap;
mod rollback;
mod secrets;
mod status;
mod successor;
mod tokens;
mod view;

pub(crate) use audit::EvidenceError;
pub(crate) use rewrap::Unmovable;

use crate::args::{Args, Command};
use crate::control_plane::{ControlPlane, ControlPlaneError};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use clap::CommandFactory as _;

/// Runs the command that was asked for.
///
/// # Errors
/// [`Failure`], with what happened, why, and what to do.
pub(crate) async fn run(args: Args, output: &Output) -> Result<Exit, Failure> {
    match carry_out(args, output).await {
        Err(Failure::ControlPlane(ControlPlaneError::Waits { proposal })) => {
            inventory::show(output, &proposal, |_| proposals::waits(&proposal))?;
            Ok(Exit::Waits)
        }
        other => other,
    }
}

async fn carry_out(args: Args, output: &Output) -> Result<Exit, Failure> {
    let connect = || ControlPlane::new(&args.global, output);
    match &args.command {
        Command::Wrap(wrap) => register::wrap(wrap, connect, output).await,
        Command::Rewrap(rewrap) => rewrap::rewrap(rewrap, connect, output).await,
        Command::Inventory(options) => keys::inventory(options, &connect()?, output).await,
        Command::Register(options) => register::register(options, connect, output).await,
        Command::Status => status::status(&connect()?, output).await,
        Command::Probe { socket: Some(socket) } => probe::resolver(socket, output).await,
        Command::Probe { socket: None } => probe::probe(&connect()?, output).await,
        Command::Settings(command) => inventory::settings(command, &connect()?, output).await,
        Command::Secrets(command) => secrets::secrets(command, &connect()?, output).await,
        Command::Revoke(options) => revoke::revoke(options, connect, output).await,
        Command::Flags(command) => inventory::flags(command, &connect()?, output).await,
        Command::Bouncers(command) => inventory::bouncers(command, &connect()?, output).await,
        Command::Resources(command) => inventory::resources(command, &connect()?, output).await,
        Command::Audit(command) => audit::audit(command, connect, output).await,
        Command::Export(options) => gitops::export(options, &connect()?, output).await,
        Command::Diff(options) => gitops::diff(options, connect, output).await,
        Command::Apply(options) => gitops::apply(options, connect, output).await,
        Command::Proposals(command) => proposals::proposals(command, &connect()?, output).await,
        Command::Tokens(command) => tokens::tokens(command, &connect()?, output).await,
        Command::Whoami => tokens::whoami(&connect()?, output).await,
        Command::Completion { shell } => completion(*shell, output),
    }
}

fn completion(shell: clap_complete::Shell, output: &Output) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "bouncerctl", &mut script);
    output.script(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
