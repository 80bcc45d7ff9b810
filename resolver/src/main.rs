//! `bouncer-resolver`: arguments, logs, and then the daemon.

use bouncer_resolver::config::Config;
use bouncer_resolver::{daemon, harden};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use zeroizing_alloc::ZeroAlloc;

/// Libraries copy what passes through them; every freed block is wiped.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

/// Decides beside Envoy which stream may use which credential, unwraps it in the customer's own KMS or Vault, and serves
/// it to Envoy by SDS. The application, the wasm sandbox and the control plane never hold it.
#[derive(Parser)]
#[command(name = "bouncer-resolver", version, args_conflicts_with_subcommands = true, after_long_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Option<Run>,
}

const AFTER: &str = "\
Examples:
  bouncer-resolver --config /etc/bouncer/resolver.toml
  bouncer-resolver check --config /etc/bouncer/resolver.toml
  bouncer-resolver health --config /etc/bouncer/resolver.toml   (for exec probes)

Environment:
  BOUNCER_SDS_KEY   the SDS key, where sds.key_file is not set
  RUST_LOG          which log lines are shown, such as info or bouncer_resolver=debug

Exit codes: 0 good, 1 not ready or failed, 2 wrong usage or configuration.";

#[derive(Args)]
struct Run {
    // Not `File` flattened: clap would not see that an optional group is there by an argument of an inner group.
    /// The configuration; resolver.example.toml explains every key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Allow plain HTTP and loopback backends. Never with real credentials; status, metrics and audit show it.
    #[arg(long)]
    dev: bool,
    /// How log lines are written.
    #[arg(long, value_enum, default_value_t = LogFormat::Human)]
    log_format: LogFormat,
}

#[derive(Args)]
struct File {
    /// The configuration; resolver.example.toml explains every key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Allow plain HTTP and loopback backends. Never with real credentials; status, metrics and audit show it.
    #[arg(long)]
    dev: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Validate the configuration and the files it names; print every fault at once.
    Check(File),
    /// Ask the running resolver whether it is ready; for exec probes.
    Health(File),
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Human,
    /// One JSON object per line.
    Json,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match (cli.command, cli.run) {
        (Some(Command::Check(file)), _) => check(&file),
        (Some(Command::Health(file)), _) => health(&file),
        (None, Some(run)) => serve(&run),
        (None, None) => say(2, "no --config was given; see bouncer-resolver --help"),
    }
}

#[expect(clippy::print_stderr, reason = "errors of a command line belong on its standard error")]
fn say(code: u8, text: &str) -> ExitCode {
    eprintln!("bouncer-resolver: {text}");
    ExitCode::from(code)
}

#[expect(clippy::print_stdout, reason = "the command's result belongs on its standard output")]
fn result(text: &str) -> ExitCode {
    println!("{text}");
    ExitCode::SUCCESS
}

fn check(file: &File) -> ExitCode {
    match Config::load(&file.config, file.dev) {
        Ok(config) => result(&format!(
            "{}: good; bouncer {}, known by its {}, {} clusters",
            file.config.display(),
            config.bouncer,
            config.bridge.login.word(),
            config.rails.clusters.len()
        )),
        Err(error) => say(2, &error.to_string()),
    }
}

fn health(file: &File) -> ExitCode {
    let config = match Config::load(&file.config, file.dev) {
        Ok(config) => config,
        Err(error) => return say(2, &error.to_string()),
    };
    match probe(config.http) {
        Ok((true, body)) => result(&body),
        Ok((false, body)) => say(1, &format!("not ready: {body}")),
        Err(error) => say(1, &format!("no resolver answers on {}: {error}", config.http)),
    }
}

/// One HTTP/1.0 request needs no client library.
fn probe(address: std::net::SocketAddr) -> std::io::Result<(bool, String)> {
    use std::io::{Read as _, Write as _};
    let timeout = std::time::Duration::from_secs(3);
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let mut stream = std::net::TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(64 << 10).read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    Ok((answer.split(' ').nth(1) == Some("200"), body))
}

fn serve(run: &Run) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match run.log_format {
        LogFormat::Human => logs.init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    let config = match Config::load(&run.config, run.dev) {
        Ok(config) => config,
        Err(error) => return say(2, &error.to_string()),
    };
    harden::close_to_others();
    if let Err(error) = daemon::make_state_folder(&config) {
        return say(1, &error.to_string());
    }
    // Read before the sandbox closes the files that say how much of the machine is this container's.
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // While this is the only thread: the runtime's workers inherit it.
    let confinement = match harden::confine(&config) {
        Ok(confinement) => confinement,
        Err(error) => return say(1, &error.to_string()),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return say(1, &format!("no runtime: {error}")),
    };
    match runtime.block_on(daemon::run(config, confinement)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => say(1, &error.to_string()),
    }
}
