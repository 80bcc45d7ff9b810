//! The binary as a process: configuration, bootstrap, life and death.

use crate::database::Place;
use crate::harness::DEADLINE;
use crate::ports::free_port;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;
use tempfile::TempDir;

pub(crate) struct Site {
    folder: TempDir,
    place: Place,
    api: SocketAddr,
}

pub(crate) fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port().unwrap()).into()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bouncer-control-plane"));
    command.args(arguments);
    command
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::on(Place::new())
    }

    /// One whose database this is.
    pub(crate) fn on(place: Place) -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap(), place, api: free_address() };
        site.configure("");
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn configure(&self, in_api: &str) {
        let text = format!(
            "[api]\nlisten = \"{}\"\nrequests_per_second = 100000\n{in_api}\n[bridge]\nlisten = \"{}\"\n\
             [identity]\nworkload_api = \"unix://{}\"\n{}",
            self.api,
            free_address(),
            self.path("no-agent.sock").display(),
            self.place.section(self.folder.path()),
        );
        std::fs::write(self.path("control-plane.toml"), text).unwrap();
    }

    pub(crate) fn run(&self, subcommand: &str, more: &[&str]) -> Output {
        let config = self.path("control-plane.toml");
        command(&[subcommand, "--config", config.to_str().unwrap()]).args(more).output().unwrap()
    }

    pub(crate) fn bootstrap(&self, file: &str, more: &[&str]) -> Output {
        let path = self.path(file);
        let arguments: Vec<&str> = ["--token-file", path.to_str().unwrap()].iter().chain(more).copied().collect();
        self.run("bootstrap", &arguments)
    }

    /// A token to work with, for the one in the file, which is used up by it.
    pub(crate) fn admin(&self, file: &str) -> String {
        let body = r#"{"name":"admin","role":"admin"}"#;
        let (status, answer) = self.call("POST", "/v1/tokens", &self.token(file), body).unwrap();
        assert_eq!(status, 201, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }

    fn token(&self, file: &str) -> String {
        std::fs::read_to_string(self.path(file)).unwrap().trim().to_owned()
    }

    pub(crate) fn serve(&self, log: &str) -> Process {
        let config = self.path("control-plane.toml");
        let log = std::fs::File::create(self.path(log)).unwrap();
        let child = command(&["serve", "--log-format", "json", "--log", "debug", "--config"])
            .arg(config)
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(self.api).is_err() {
            assert!(Instant::now() < deadline, "it does not listen");
            std::thread::yield_now();
        }
        Process(child)
    }

    /// One call over a connection of its own.
    pub(crate) fn call(&self, method: &str, path: &str, token: &str, body: &str) -> std::io::Result<(u16, Value)> {
        let mut tcp = TcpStream::connect(self.api)?;
        tcp.set_read_timeout(Some(DEADLINE))?;
        write!(
            tcp,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        tcp.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok((status, serde_json::from_str(body).unwrap_or_default()))
    }
}

pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub(crate) fn ended(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_first_token_is_written_once_to_a_file_of_its_own() {
    let site = Site::new();
    assert!(site.bootstrap("token", &[]).status.success());
    assert_eq!(mode(&site.path("token")), 0o600);
    let first = site.token("token");
    assert!(first.starts_with("bnc_") && first.len() == 47);

    let again = site.bootstrap("token-2", &[]);
    assert!(!again.status.success() && text(&again).contains("--replace-tokens"), "{}", text(&again));
    assert!(!site.path("token-2").exists());

    let over = site.bootstrap("token", &["--replace-tokens"]);
    assert!(!over.status.success() && text(&over).contains("never overwritten"), "{}", text(&over));
    assert_eq!(site.token("token"), first);

    assert!(site.bootstrap("token-3", &["--replace-tokens"]).status.success());
    let _process = site.serve("log");
    assert_eq!(site.call("GET", "/v1/bouncers", &first, "").unwrap().0, 401, "the old one is revoked");
    let admin = site.admin("token-3");
    assert_eq!(site.call("GET", "/v1/bouncers", &admin, "").unwrap().0, 200);
    assert_eq!(site.call("GET", "/v1/bouncers", &site.token("token-3"), "").unwrap().0, 401, "it is used up");
}

#[test]
fn check_prints_every_fault_at_once_and_serve_refuses_the_same() {
    let site = Site::new();
    let good = site.run("check", &[]);
    assert!(good.status.success(), "{}", text(&good));
    let bad = "[api]\nlisten = \"0.0.0.0:80\"\nextra = 1\n[bridge]\n[identity]\nworkload_api = \"tcp://hunter2\"\n\
               [database]\npath = \"/no/such/folder/x.db\"\n";
    std::fs::write(site.path("control-plane.toml"), bad).unwrap();
    for subcommand in ["check", "serve"] {
        let output = site.run(subcommand, &[]);
        let text = text(&output);
        assert!(!output.status.success());
        for key in ["api.listen", "api.extra", "bridge.listen", "identity.workload_api", "database.path"] {
            assert!(text.contains(key), "{subcommand} does not name {key}: {text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }
    let missing = command(&["check", "--config", "no-such-file.toml"]).output().unwrap();
    assert!(!missing.status.success() && text(&missing).contains("--config"));
}

#[test]
fn the_description_is_printed_without_a_configuration() {
    let output = command(&["openapi"]).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document["paths"]["/v1/bootstrap/status"].is_object());
}

#[test]
fn a_signal_ends_it_well_and_health_follows_its_life() {
    let site = Site::new();
    assert!(site.bootstrap("token", &[]).status.success());
    let away = site.run("health", &[]);
    assert!(!away.status.success() && text(&away).contains("no control plane answers"), "{}", text(&away));
    for signal in ["-TERM", "-INT"] {
        let mut process = site.serve("log");
        let ready = site.run("health", &[]);
        assert!(!ready.status.success() && text(&ready).contains("\"identity\":false"), "{}", text(&ready));
        assert!(site.run("health", &["--live"]).status.success());
        process.signal(signal);
        assert!(process.ended().success());
    }
}

#[test]
fn over_tls_too_and_only_there_beyond_loopback() {
    let site = Site::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["cp.example".into()]).unwrap().self_signed(&key).unwrap();
    let (certificate_file, key_file) = (site.path("tls.pem"), site.path("tls.key"));
    std::fs::write(&certificate_file, certificate.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let lines =
        format!("tls_certificate_file = \"{}\"\ntls_key_file = \"{}\"", certificate_file.display(), key_file.display());
    site.configure(&lines);
    assert!(site.run("check", &[]).status.success());
    let _process = site.serve("log");
    let live = site.run("health", &["--live"]);
    assert!(live.status.success(), "{}", text(&live));
    assert!(site.call("GET", "/healthz", "", "").is_err(), "plain HTTP is not answered");

    // A key that belongs to another certificate is found before anything is served.
    std::fs::write(&key_file, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let wrong = site.run("check", &[]);
    assert!(!wrong.status.success() && text(&wrong).contains("api.tls_key_file"), "{}", text(&wrong));
}

/// Whether what serves at the address presents the certificate.
fn presents(address: SocketAddr, certificate: &rcgen::Certificate) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "cp.example".try_into().unwrap();
    let mut tls = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    tls.complete_io(&mut tcp).is_ok() && !tls.is_handshaking()
}

#[test]
fn a_renewed_certificate_is_presented_without_a_restart_and_a_bad_one_is_not() {
    let site = Site::new();
    let (certificate_file, key_file) = (site.path("tls.pem"), site.path("tls.key"));
    let issue = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["cp.example".into()]).unwrap();
        (parameters.self_signed(&key).unwrap(), key.serialize_pem())
    };
    let (first, key) = issue();
    std::fs::write(&certificate_file, first.pem()).unwrap();
    std::fs::write(&key_file, key).unwrap();
    site.configure(&format!(
        "tls_certificate_file = \"{}\"\ntls_key_file = \"{}\"",
        certificate_file.display(),
        key_file.display()
    ));
    let _process = site.serve("log");
    let said = |text: &str| {
        let deadline = Instant::now() + DEADLINE;
        while !std::fs::read_to_string(site.path("log")).unwrap().contains(text) {
            assert!(Instant::now() < deadline, "the log never said: {text}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    assert!(presents(site.api, &first));
    // A certificate without its key, as when one of the two files was renewed: the one before stays.
    let (second, key) = issue();
    std::fs::write(&certificate_file, second.pem()).unwrap();
    said("stays in use");
    assert!(presents(site.api, &first) && !presents(site.api, &second));
    std::fs::write(&key_file, key).unwrap();
    said("presents a renewed certificate");
    assert!(presents(site.api, &second) && !presents(site.api, &first));
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let site = Site::new();
    assert!(site.bootstrap("token", &[]).status.success());
    let token = {
        let _process = site.serve("log");
        site.admin("token")
    };
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let process = site.serve("log");
        let pid = process.0.id().to_string();
        for n in 0..30 {
            let name = format!("bouncer-{round}-{n}");
            let body = json!({"name": name, "spiffe_id": format!("spiffe://example.org/{name}")}).to_string();
            if n == 20 {
                // From here on calls race with the kill; those that are answered count.
                assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
            }
            if let Ok((201, _)) = site.call("POST", "/v1/bouncers", &token, &body) {
                acknowledged.push(name);
            }
        }
        drop(process);
    }
    assert!(acknowledged.len() >= 60);
    let _process = site.serve("log");
    let (_, list) = site.call("GET", "/v1/bouncers?limit=500", &token, "").unwrap();
    let kept: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
    for name in &acknowledged {
        assert!(kept.contains(&name.as_str()), "{name} was acknowledged and is lost");
    }
}

#[test]
fn the_log_holds_neither_tokens_nor_bodies_nor_queries() {
    let site = Site::new();
    assert!(site.bootstrap("token", &[]).status.success());
    let mut process = site.serve("log");
    let token = site.admin("token");
    site.call("GET", "/v1/bouncers?cursor=hunter2-query", &token, "").unwrap();
    site.call("GET", "/v1/hunter2-path", &token, "").unwrap();
    site.call("GET", "/v1/bouncers", "hunter2-token", "").unwrap();
    let plaintext = json!({"name": "a", "spiffe_id": "AKIAIOSFODNN7EXAMPLE", "hunter2-field": "hunter2-body"});
    assert_eq!(site.call("POST", "/v1/bouncers", &token, &plaintext.to_string()).unwrap().0, 422);
    process.signal("-TERM");
    process.ended();
    let log = std::fs::read_to_string(site.path("log")).unwrap();
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "not JSON: {line}");
    }
    for secret in ["hunter2", "AKIAIOSFODNN7EXAMPLE", &token] {
        assert!(!log.contains(secret), "the log holds {secret}");
    }
    assert!(log.contains("\"route\":\"/v1/bouncers\""), "the control: calls are logged, by route");
    assert!(log.contains("refused a plaintext credential"));
}
