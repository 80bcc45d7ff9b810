//! The binary `bouncer-control-plane`: arguments in, library called, exit code out. Nothing else.

use bouncer_control_plane::cli;
use mimalloc::MiMalloc;
use std::process::ExitCode;

/// A change is read by one thread and told by others: memory that one takes and another gives back is what the C library's
/// allocator makes threads wait for each other over.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
