//! The program as an operator meets it: its checks, its probes, its end.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

#[expect(unreachable_pub, reason = "it is a public module of the end-to-end harness")]
#[path = "../../tests/src/ports.rs"]
mod ports;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_bouncer-resolver");

/// The shipped example, made to fit into a folder.
fn config(folder: &Path) -> (PathBuf, SocketAddr) {
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertificateParams::new(vec!["ca.test".to_owned()]).unwrap().self_signed(&key).unwrap();
    fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    fs::write(folder.join("sds.key"), "ab".repeat(32)).unwrap();
    let http = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free_port().unwrap()));
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let text = include_str!("../resolver.example.toml")
        .replace("/etc/bouncer/payments-ca.pem", &at("ca.pem"))
        .replace("/etc/bouncer/vault-ca.pem", &at("ca.pem"))
        .replace("/run/bouncer/", &at(""))
        .replace("/var/lib/bouncer", &at("state"))
        .replace("/run/spire/sockets/agent.sock", &at("no-agent.sock"))
        .replace("127.0.0.1:9090", &http.to_string())
        .replace("allowed_uids = [101]", "");
    let path = folder.join("resolver.toml");
    fs::write(&path, text).unwrap();
    (path, http)
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).env_remove("BOUNCER_SDS_KEY").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Ended with the test, however that ends.
struct Running(Child);

impl Running {
    fn terminate(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        until("the end", || self.0.try_wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match condition() {
            Some(found) => return found,
            None => assert!(Instant::now() < deadline, "{what} did not happen"),
        }
        std::thread::yield_now();
    }
}

fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn check_names_every_fault_at_once_and_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = config(folder.path());
    let path = path.to_str().unwrap();
    let good = run(&["check", "--config", path]);
    assert!(good.status.success(), "{}", text(&good.stderr));
    let broken = fs::read_to_string(path).unwrap().replace("payments-east", "NO").replace(":8443", ":none");
    fs::write(path, broken).unwrap();
    let bad = run(&["check", "--config", path]);
    assert_eq!(bad.status.code(), Some(2));
    for key in ["bouncer:", "bridge.address:", "rails.cluster[0].upstream:"] {
        assert!(text(&bad.stderr).contains(key), "{}", text(&bad.stderr));
    }
    assert_eq!(run(&[]).status.code(), Some(2));
}

#[test]
fn without_its_surroundings_it_lives_is_not_ready_says_why_and_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let (path, http) = config(folder.path());
    let path = path.to_str().unwrap();
    assert_eq!(run(&["health", "--config", path]).status.code(), Some(1), "nothing runs yet");
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let child = Command::new(PROGRAM).args(["--config", path]).stderr(log).stdout(Stdio::null()).spawn().unwrap();
    let mut child = Running(child);
    assert!(until("an answer", || get(http, "/healthz")).contains("200 OK"));
    let ready = get(http, "/readyz").unwrap();
    assert!(
        ready.contains("503") && ready.contains("policy_missing") && ready.contains("identity_unavailable"),
        "{ready}"
    );
    let health = run(&["health", "--config", path]);
    assert_eq!(health.status.code(), Some(1));
    assert!(text(&health.stderr).contains("policy_missing"), "{}", text(&health.stderr));
    let metrics = get(http, "/metrics").unwrap();
    assert!(metrics.contains("bouncer_resolver_ready 0") && metrics.ends_with("# EOF\n"), "{metrics}");
    let sockets = ["intercept.sock", "sds.sock"].map(|name| folder.path().join(name));
    assert!(sockets.iter().all(|socket| socket.exists()));

    let status = child.terminate();
    assert!(status.success(), "{}", fs::read_to_string(folder.path().join("log")).unwrap());
    assert!(sockets.iter().all(|socket| !socket.exists()));
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(!log.contains(&"ab".repeat(32)), "the SDS key is in the log");
}

#[test]
fn each_line_of_its_log_is_a_json_object_where_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let (path, http) = config(folder.path());
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["--log-format", "json", "--config", path.to_str().unwrap()]).env("RUST_LOG", "info");
    let mut child = Running(command.stderr(log).stdout(Stdio::null()).spawn().unwrap());
    until("an answer", || get(http, "/healthz"));
    assert!(child.terminate().success());
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = |message: &str| lines.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("{log}"));
    // As the control plane has it: what a line says of itself stands beside its level.
    let runs = said("the resolver runs");
    assert_eq!((&runs["level"], &runs["bouncer"]), (&"INFO".into(), &"payments-east".into()), "{log}");
    said("draining");
}
