//! The command line: `serve`, `bootstrap`, `backup`, `restore`, `check`, `openapi`, `health`.

use crate::backup::{self, BackupError, RestoreError};
use crate::bootstrap::{self, BootstrapError};
use crate::clock::SystemClock;
use crate::config::{Config, ConfigError, DatabaseConfig};
use crate::health::{self, HealthError};
use crate::serve::{self, ServeError};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Bouncer's control plane: envelope metadata, policy and audit. It stores no plaintext credential and cannot decrypt
/// one.
#[derive(Debug, Parser)]
#[command(name = "bouncer-control-plane", version, propagate_version = true)]
struct Cli {
    /// How log lines are written, to standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Human, env = "BOUNCER_LOG_FORMAT")]
    log_format: LogFormat,
    /// What is logged, as in "info" or "info,bouncer_control_plane=debug".
    #[arg(long, global = true, default_value = "info", env = "BOUNCER_LOG")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(
        long,
        short,
        value_name = "PATH",
        env = "BOUNCER_CONTROL_PLANE_CONFIG",
        default_value = "control-plane.toml"
    )]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the REST API and the Policy Bridge until SIGTERM or SIGINT.
    Serve(ConfigFile),
    /// Bring the database up to date and write the first token, good for one exchange, to a new file (mode 0600). Once per
    /// database.
    Bootstrap {
        #[command(flatten)]
        file: ConfigFile,
        /// Where the token is written. The file must not exist.
        #[arg(long, value_name = "PATH")]
        token_file: PathBuf,
        /// Revoke every token there is and write a new one: for when all were lost.
        #[arg(long)]
        replace_tokens: bool,
    },
    /// Write a backup of the database to a new file (mode 0600). The control plane goes on meanwhile. For an SQLite file; a
    /// PostgreSQL server has pg_dump, whose backup is restored into a new database.
    Backup {
        #[command(flatten)]
        file: ConfigFile,
        /// Where the backup is written. The file must not exist.
        #[arg(long, value_name = "PATH")]
        output: PathBuf,
    },
    /// Check a backup and put it at the place of the database. The control plane must be stopped. For an SQLite file.
    Restore {
        #[command(flatten)]
        file: ConfigFile,
        /// The backup.
        #[arg(long, value_name = "PATH")]
        input: PathBuf,
        /// Replace the database that is there. Its content is kept in a file beside it.
        #[arg(long)]
        replace: bool,
    },
    /// Check the configuration and print every fault at once.
    Check(ConfigFile),
    /// Print the API's OpenAPI description.
    Openapi,
    /// Ask a running control plane whether it is ready. Exit code 0 if so; for exec probes.
    Health {
        #[command(flatten)]
        file: ConfigFile,
        /// Ask only whether it is alive.
        #[arg(long)]
        live: bool,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Health(#[from] HealthError),
    #[error("--log is not a valid filter; \"info\" is one")]
    LogFilter,
    #[error("cannot start the runtime: {}", .0.kind())]
    Runtime(#[source] std::io::Error),
    #[error("cannot write to standard output: {}", .0.kind())]
    Output(#[source] std::io::Error),
}

/// Runs the command that the arguments name. Its exit code is 0 if it did what it was asked.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match command(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is closed there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "bouncer-control-plane: {error}");
            ExitCode::FAILURE
        }
    }
}

fn command(cli: Cli) -> Result<(), CliError> {
    log(cli.log_format, &cli.log)?;
    match cli.command {
        Command::Serve(file) => {
            let config = Config::load(&file.config)?;
            Ok(runtime()?.block_on(serve::serve(config))?)
        }
        Command::Bootstrap { file, token_file, replace_tokens } => {
            let config = Config::load(&file.config)?;
            runtime()?.block_on(bootstrap::bootstrap(&config.database, &token_file, replace_tokens))?;
            print(&format!(
                "The first token is in {0}. Whoever has it administers this control plane, by one exchange for a token of \
                 their own: 'bouncerctl tokens create admin --role admin --out FILE --token-file {0}'. Its file is of no use \
                 after that.",
                token_file.display()
            ))
        }
        Command::Backup { file, output } => {
            let config = Config::load(&file.config)?;
            let DatabaseConfig::Sqlite(database) = &config.database else { return Err(BackupError::Server.into()) };
            let manifest = runtime()?.block_on(backup::backup(database, &output, &SystemClock))?;
            print(&format!("Backed up to {}: {manifest}.", output.display()))
        }
        Command::Restore { file, input, replace } => {
            let config = Config::load(&file.config)?;
            let DatabaseConfig::Sqlite(database) = &config.database else { return Err(RestoreError::Server.into()) };
            let restored = runtime()?.block_on(backup::restore(database, &input, replace))?;
            print(&restored.to_string())
        }
        Command::Check(file) => {
            Config::load(&file.config)?;
            print("The configuration is good.")
        }
        Command::Openapi => {
            let text = crate::api::openapi().to_pretty_json();
            print(&text.map_err(|error| CliError::Output(error.into()))?)
        }
        Command::Health { file, live } => {
            let config = Config::load(&file.config)?;
            let answer = runtime()?.block_on(health::ask(&config.api, live))?;
            print(answer.trim_end())
        }
    }
}

fn print(text: &str) -> Result<(), CliError> {
    writeln!(std::io::stdout(), "{text}").map_err(CliError::Output)
}

fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::Runtime)
}

fn log(format: LogFormat, filter: &str) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(filter).map_err(|_| CliError::LogFilter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Human => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
