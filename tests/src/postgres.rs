//! A PostgreSQL server of one's own: Debian's binaries on a folder that is new, on a Unix socket that only its owner can
//! reach. It ends when it is dropped, and also when the process that has it is killed: a shell beside it waits for the end
//! of its standard input, stops the server and removes the folder.
//!
//! The control plane's suite has this file as its own, too; so it needs nothing but the standard library.

use std::io::{BufRead as _, BufReader, Error, ErrorKind, Result, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What the server is asked for over TCP; on its socket it asks for nothing.
pub const PASSWORD: &str = "scram-of-a-test";

/// Strings are sorted as people do by default (ICU), so that whoever forgets to ask for the order of bytes is found out.
/// Without fsync, unless it is asked for: what is killed here is processes, not machines.
const SCRIPT: &str = r#"
set -eu
umask 077
dir=$(mktemp -d "${TMPDIR:-/tmp}/bouncer-postgres.XXXXXX")
pid=
halt() {
    if [ -n "$pid" ]; then kill -QUIT "$pid" 2>/dev/null || :; wait "$pid" 2>/dev/null || :; pid=; fi
}
trap 'halt; rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
cd "$dir"
exec 2>"$dir/log"
printf '%s\n' "$PASSWORD" >password
"$BIN/initdb" -D data -U postgres -E UTF8 --locale=C.UTF-8 --locale-provider=icu --icu-locale=en-US \
    --auth-local=trust --auth-host=scram-sha-256 --pwfile=password --no-sync >&2 </dev/null || { cat log; exit 1; }
if [ -n "$TLS_KEY" ]; then
    printf '%s\n' "$TLS_KEY" >data/server.key
    printf '%s\n' "$TLS_CERTIFICATE" >data/server.crt
    set -- -c listen_addresses=127.0.0.1 -c port="$TCP_PORT" -c ssl=on
    port=$TCP_PORT
else
    set -- -c listen_addresses=
    port=5432
fi
start() {
    "$BIN/postgres" -D data -k "$dir" -c fsync="$SYNC" -c full_page_writes="$SYNC" -c shared_buffers=64MB \
        -c max_connections=500 -c unix_socket_permissions=0777 "$@" >&2 </dev/null &
    pid=$!
    tries=0
    until "$BIN/pg_isready" -q -h "$dir" -p "$port" </dev/null; do
        tries=$((tries + 1))
        if [ $tries -gt 600 ] || ! kill -0 "$pid"; then cat log; exit 1; fi
        sleep 0.05
    done
}
start "$@"
echo "ready $dir"
while read -r what; do
    case $what in
    stop) halt; echo "stopped $dir" ;;
    start) start "$@"; echo "ready $dir" ;;
    esac
done
"#;

/// A certificate and its key, and the port on which the server takes them.
pub struct Tls {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: String,
    /// On 127.0.0.1.
    pub port: u16,
}

/// What a server is to be like: by default on its socket only, and not safe from the end of the machine.
#[derive(Default)]
pub struct Settings {
    /// It listens on TCP, too.
    pub tls: Option<Tls>,
    /// Every commit is on the disk before it is answered.
    pub synced: bool,
}

/// A running server.
pub struct Server {
    shell: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    folder: PathBuf,
}

impl Server {
    /// Makes one and starts it.
    ///
    /// # Errors
    /// If there is none to start, or it does not.
    pub fn start(settings: &Settings) -> Result<Self> {
        let (tls, sync) = (settings.tls.as_ref(), if settings.synced { "on" } else { "off" });
        let bin = binaries()?;
        let mut command = unprivileged()?;
        command.args(["sh", "-c", SCRIPT]).env("BIN", &bin).env("PASSWORD", PASSWORD).env("SYNC", sync);
        command.env("TLS_CERTIFICATE", tls.map_or("", |tls| &tls.certificate));
        command.env("TLS_KEY", tls.map_or("", |tls| &tls.key));
        command.env("TCP_PORT", tls.map_or(0, |tls| tls.port).to_string());
        let mut shell =
            command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let input = shell.stdin.take();
        let output = BufReader::new(shell.stdout.take().ok_or(ErrorKind::BrokenPipe)?);
        let mut server = Self { shell, input, output, folder: PathBuf::new() };
        server.folder = server.answer("ready")?.into();
        Ok(server)
    }

    fn answer(&mut self, wanted: &str) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        match line.trim_end().split_once(' ') {
            Some((word, rest)) if word == wanted => Ok(rest.to_owned()),
            _ => {
                std::io::Read::read_to_string(&mut self.output, &mut line)?;
                Err(Error::other(format!("PostgreSQL did not start: {line}")))
            }
        }
    }

    fn ask(&mut self, what: &str, wanted: &str) -> Result<()> {
        writeln!(self.input.as_ref().ok_or(ErrorKind::BrokenPipe)?, "{what}")?;
        self.answer(wanted).map(drop)
    }

    /// Ends it at once, as a crash would: what was committed is recovered at the next start.
    ///
    /// # Errors
    /// If it is gone.
    pub fn stop(&mut self) -> Result<()> {
        self.ask("stop", "stopped")
    }

    /// Starts it again.
    ///
    /// # Errors
    /// If it does not.
    pub fn start_again(&mut self) -> Result<()> {
        self.ask("start", "ready")
    }

    /// Its databases.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// One of its databases, over its socket.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{folder}/{database}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.shell.wait();
    }
}

/// Where the newest that is installed has its programs.
///
/// # Errors
/// If there is none.
pub fn binaries() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = versions.map(|version| version.path()).filter(|path| path.join("bin/postgres").exists());
    let newest = versions.max_by_key(number).map(|path| path.join("bin"));
    newest.ok_or_else(|| {
        Error::other("there is no /usr/lib/postgresql/*/bin/postgres; on Debian: apt-get install postgresql")
    })
}

/// What runs a program as somebody who may run PostgreSQL, which root may not.
fn unprivileged() -> Result<Command> {
    let mut command = Command::new("env");
    if !rooted() {
        return Ok(command);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let of = |name: &str| {
        let mut fields =
            users.lines().map(|line| line.split(':')).find(|fields| fields.clone().next() == Some(name))?;
        Some((fields.nth(2)?.to_owned(), fields.next()?.to_owned()))
    };
    let (user, group) = of("postgres").or_else(|| of("nobody")).ok_or(ErrorKind::NotFound)?;
    command.args(["setpriv", &format!("--reuid={user}"), &format!("--regid={group}"), "--clear-groups"]);
    Ok(command)
}

fn rooted() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(Path::new("/proc/self")).is_ok_and(|own| own.uid() == 0)
}
