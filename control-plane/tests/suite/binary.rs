//! The binary as a process: configuration, bootstrap, life and death.

use crate::database::Place;
use crate::harness::DEADLINE;
use crate::ports::free_port;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{ErrorKind, Read as _, Write as _};
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
    assert!(site.bootstrap("token", &[]).status.success());
    let _process = site.serve("log");
    let live = site.run("health", &["--live"]);
    assert!(live.status.success(), "{}", text(&live));
    assert!(site.call("GET", "/healthz", "", "").is_err(), "plain HTTP is not answered");

    // What browsers are told, by every answer; and the cookie of a session, which they keep for this host and for TLS.
    let call = |line: &str, header: &str| over_tls(site.api, &certificate, line, header);
    let signed_in = call("POST /v1/session", &format!("Authorization: Bearer {}", site.token("token")));
    assert_eq!(signed_in.status, 201);
    let (pair, attributes) = signed_in.headers["set-cookie"].split_once("; ").unwrap();
    assert!(pair.starts_with("__Host-bouncer-session=bnc_"), "its name");
    let (fixed, life) = attributes.split_once("; Max-Age=").unwrap();
    assert_eq!(fixed, "Path=/; HttpOnly; SameSite=Strict");
    let (seconds, secure) = life.split_once("; ").unwrap();
    assert!((1..=8 * 3_600).contains(&seconds.parse().unwrap()) && secure == "Secure", "{life}");
    let by_cookie = call("GET /v1/session", &format!("Cookie: {pair}"));
    assert_eq!(by_cookie.status, 200);
    let unprefixed = call("GET /v1/session", &format!("Cookie: {}", pair.trim_start_matches("__Host-")));
    assert_eq!(unprefixed.status, 401, "anybody beside us could have set that one");
    let page = call("GET /console/", "Accept: */*");
    for (what, answer) in [("page", page), ("done", signed_in), ("data", by_cookie), ("problem", unprefixed)] {
        let header = |name: &str| answer.headers.get(name).map_or("", String::as_str);
        assert_eq!(header("strict-transport-security"), "max-age=31536000", "{what}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{what}");
        assert_eq!(header("x-frame-options"), "DENY", "{what}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{what}");
        assert!(header("content-security-policy").contains("frame-ancestors 'none'"), "{what}");
        if what != "page" {
            assert_eq!(header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'", "{what}");
            assert_eq!(header("cache-control"), "no-store", "{what}");
        }
    }

    // A key that belongs to another certificate is found before anything is served.
    std::fs::write(&key_file, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let wrong = site.run("check", &[]);
    assert!(!wrong.status.success() && text(&wrong).contains("api.tls_key_file"), "{}", text(&wrong));
}

/// A TLS client that trusts the certificate alone, and a connection for it.
fn tls_client(address: SocketAddr, certificate: &rcgen::Certificate) -> (rustls::ClientConnection, TcpStream) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "cp.example".try_into().unwrap();
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    (rustls::ClientConnection::new(config.into(), name).unwrap(), tcp)
}

/// Whether what serves at the address presents the certificate.
fn presents(address: SocketAddr, certificate: &rcgen::Certificate) -> bool {
    let (mut tls, mut tcp) = tls_client(address, certificate);
    tls.complete_io(&mut tcp).is_ok() && !tls.is_handshaking()
}

struct Answer {
    status: u16,
    headers: HashMap<String, String>,
}

/// One call over TLS, with a header of its own and without a body.
fn over_tls(address: SocketAddr, certificate: &rcgen::Certificate, line: &str, header: &str) -> Answer {
    let (tls, tcp) = tls_client(address, certificate);
    let mut stream = rustls::StreamOwned::new(tls, tcp);
    write!(stream, "{line} HTTP/1.1\r\nHost: cp.example\r\nConnection: close\r\n{header}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let mut lines = answer.split_once("\r\n\r\n").unwrap().0.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    Answer { status, headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect() }
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
fn peers_that_keep_it_waiting_are_let_go_and_others_are_served() {
    let site = Site::new();
    assert!(site.bootstrap("token", &[]).status.success());
    site.configure("connections_per_address = 4");
    let _process = site.serve("log");
    // The one that waited for it to listen may still be counted.
    let deadline = Instant::now() + DEADLINE;
    let token = loop {
        if site.call("GET", "/healthz", "", "").is_ok() {
            break site.admin("token");
        }
        assert!(Instant::now() < deadline, "it is not there");
    };
    let half_a_body = format!(
        "POST /v1/bouncers HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    // More than its share, since a call of before may have ended for us and not yet for the server.
    let held = [&half_a_body, "GET /healthz HTT", "GET /healthz HTTP/1.1\r\nX-Half: ", "", "", ""];
    let held = held.map(|sent| {
        let mut tcp = TcpStream::connect(site.api).unwrap();
        tcp.set_read_timeout(Some(DEADLINE)).unwrap();
        tcp.write_all(sent.as_bytes()).unwrap();
        tcp
    });
    assert!(site.call("GET", "/healthz", "", "").is_err(), "the control: they have the share of their address");
    let answers = held.map(|mut tcp| {
        let mut answer = String::new();
        // Ended, by a reset where something was not read; waited for no longer than the deadline.
        if let Err(error) = tcp.read_to_string(&mut answer) {
            assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "it is still waited for");
        }
        answer
    });
    assert_eq!(answers[3..], ["", "", ""]);
    let slow = &answers[0];
    assert!(slow.starts_with("HTTP/1.1 408 ") && slow.contains("urn:bouncer:problem:body_timeout"), "{slow}");
    assert_eq!(site.call("GET", "/v1/bouncers", &token, "").unwrap().0, 200);
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
