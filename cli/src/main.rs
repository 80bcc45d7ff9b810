//! `bouncerctl`, the operator's tool: wraps credentials under the customer's own key, registers what came of it, and
//! says whether everything is in order.
//!
//! Run by people and by their scripts. Plaintext enters in `wrap` and nowhere else, and leaves that command only inside
//! the call to the customer's KMS: it is never printed, logged, written to disk or sent to the control plane.

mod args;
mod commands;
mod control_plane;
mod declared;
mod failure;
mod files;
mod kms;
mod output;
mod progress;
mod resolver;
mod vault;
mod wrap;

use std::process::ExitCode;

/// Wipes every block of memory as it is freed, so that the copies of a plaintext that libraries make (the request body
/// of a KMS call, a PEM decoder's buffer) do not outlive their use.
#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<std::alloc::System> = zeroizing_alloc::ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    let args = args::parse();
    let output = output::Output::new(args.global.format());
    match run(args, &output) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output.failure(&failure);
            failure.exit().into()
        }
    }
}

fn run(args: args::Args, output: &output::Output) -> Result<failure::Exit, failure::Failure> {
    files::forbid_core_dumps();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failure::Failure::Runtime)?
        .block_on(commands::run(args, output))
}
