//! The binary `bouncer-control-plane`: arguments in, library called, exit code out. Nothing else.

use bouncer_control_plane::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
