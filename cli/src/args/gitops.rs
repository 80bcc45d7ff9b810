//! What `export`, `diff` and `apply` take.

use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// Write to this file, in place of what it held, instead of to standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// A YAML file, of one document or several; `-` for standard input. Repeatable.
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
    pub files: Vec<PathBuf>,
    /// Also delete what is registered and not in the files, of the kinds that they have a section for.
    #[arg(long)]
    pub prune: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    pub what: Diff,
    /// Change nothing: print what would be done.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask before the first change. Nothing is asked where no terminal is.
    #[arg(long)]
    pub yes: bool,
}
