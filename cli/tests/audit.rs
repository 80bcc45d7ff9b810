//! `audit export` and `audit verify` as people and scripts meet them. What `verify` catches is tested where it is done, in
//! the crate `bouncer-audit`; here it is what is read, printed and ended with.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use bouncer_audit::{AdminLine, ChainPoint, Checkpoint, EndLine, Line, Owner, Proof, Signer, Withheld};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const CHAIN: &str = "0199d7a0-0000-7000-8000-0000000000a1";
const OWN: &str = "spiffe://example.org/control-plane";

/// An export of three administrative changes, of which two are signed, and the bundle for it.
struct Scene {
    folder: TempDir,
    lines: Vec<Line>,
    end: ChainPoint,
}

fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    std::fs::write(folder.path().join("bundle.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.subject_alt_names = vec![SanType::URI(OWN.try_into().unwrap())];
    let certificate = leaf.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = Signer::new(&key, vec![certificate.der().to_vec()]).unwrap();

    let mut at = ChainPoint::origin(CHAIN.parse().unwrap(), &Owner::ControlPlane, 0);
    let mut lines = Vec::new();
    for sequence in 1..=3 {
        let mut line = AdminLine {
            time_ms: 1_750_000_000_000,
            sequence,
            actor: "token:bootstrap".into(),
            action: "bouncer.registered".into(),
            subject: format!("east-{sequence}"),
            detail: String::new(),
            proof: None,
        };
        at = ChainPoint { sequence, head: at.head_with(&line.change().leaf()), ..at };
        line.proof = Some(Proof { chain: at.chain.clone(), head: at.head, before: None, withheld: Withheld::new() });
        lines.push(Line::AdminEvent(line));
        if sequence == 2 {
            let ChainPoint { chain, sequence, head } = at.clone();
            let time_ms = jiff::Timestamp::now().as_millisecond();
            let checkpoint = Checkpoint { chain, owner: Owner::ControlPlane, number: 1, sequence, head, time_ms };
            lines.push(Line::AdminCheckpoint(signer.sign(checkpoint).unwrap()));
        }
    }
    lines.push(Line::End(EndLine { lines: lines.len() as u64 }));
    Scene { folder, lines, end: at }
}

impl Scene {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self) -> String {
        self.lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
    }

    fn write(&self, name: &str, content: &str) -> String {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Verifies the export from standard input, with the bundle.
    fn verify(&self, export: &str, more: &[&str]) -> (i32, String, String) {
        let bundle = format!("example.org={}", self.path("bundle.pem").display());
        let args = [&["audit", "verify", "-", "--bundle", &bundle], more].concat();
        ended(&run(&args, "", export))
    }
}

fn run(args: &[&str], url: &str, input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bouncerctl"));
    command.env_clear().env("CONTROL_PLANE_URL", url).env("TOKEN", "canary-token").args(args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that reads no input may have closed it already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn ended(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_good_export_is_said_to_be_good_by_whom_it_is_signed_and_what_is_not_yet() {
    let scene = scene();
    let (code, out, err) = scene.verify(&scene.text(), &[]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains(&format!("chain {CHAIN} of control-plane: good")), "{out}");
    assert!(out.contains(&format!("signed by {OWN}, by the export itself")), "{out}");
    assert!(out.contains("signed through 2 by 1 checkpoint(s), the last at "), "{out}");
    assert!(out.contains("1 event(s) behind the last checkpoint are not yet signed"), "{out}");
    let (code, out, _) = scene.verify(&scene.text(), &["--control-plane-id", OWN]);
    assert!(code == 0 && out.contains(&format!("signed by {OWN}, as expected")), "{out}");
    let (code, out, _) = scene.verify(&scene.text(), &["--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["good"], &json["chains"][0]["not_yet_signed"]), (0, &true.into(), &1.into()));
}

#[test]
fn a_broken_one_ends_in_1_and_names_chain_place_and_fault() {
    let scene = scene();
    let changed = scene.text().replace("east-2", "east-9");
    let (code, out, err) = scene.verify(&changed, &[]);
    assert_eq!(code, 1, "{out}{err}");
    let broken = format!("BROKEN: chain {CHAIN} at 2: the event, or its head, is not what was chained");
    assert!(out.contains(&broken), "{out}");
    let (code, out, _) = scene.verify(&changed, &["--json"]);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["good"]), (1, &false.into()));
    assert_eq!((&json["faults"][0]["chain"], &json["faults"][0]["sequence"]), (&CHAIN.into(), &2.into()));
    let (code, out, _) = scene.verify(&scene.text(), &["--control-plane-id", "spiffe://example.org/another"]);
    assert!(code == 1 && out.contains("and not by spiffe://example.org/another"), "{out}");
    let cut = scene.text().lines().take(2).map(|line| format!("{line}\n")).collect::<String>();
    let (code, out, _) = scene.verify(&cut, &[]);
    assert!(code == 1 && out.contains("the export is not whole"), "{out}");
    assert_eq!(scene.verify("not JSON\n", &[]).0, 1);
}

#[test]
fn what_is_named_and_not_there_or_not_signed_ends_in_1() {
    let scene = scene();
    let mut lines = scene.lines.clone();
    lines.retain(|line| matches!(line, Line::AdminEvent(_)));
    lines.push(Line::End(EndLine { lines: 3 }));
    let unsigned: String = lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
    let (code, out, _) = scene.verify(&unsigned, &["--control-plane-id", OWN]);
    assert!(code == 1 && out.contains("its checkpoints are missing"), "{out}");
    let (code, out, _) = scene.verify(&unsigned, &[]);
    assert!(code == 0 && out.contains(&format!("chain {CHAIN} of control-plane: UNSIGNED\n")), "{out}");
    assert!(out.contains("give it with --control-plane-id"), "{out}");

    let pins = ["--control-plane-id", OWN, "--bouncer", "payments-east=spiffe://example.org/bouncer/payments-east"];
    let (code, out, _) = scene.verify(&scene.text(), &pins);
    assert!(code == 1 && out.contains("BROKEN: nothing of bouncer:payments-east is here"), "{out}");
    assert_eq!(scene.verify(&scene.text(), &pins[..2]).0, 0, "the control");

    let (code, out, _) = scene.verify(&scene.text(), &["--max-unsigned", "0"]);
    assert!(code == 1 && out.contains("1 event(s) behind the last checkpoint are not signed"), "{out}");
    assert_eq!(scene.verify(&scene.text(), &["--max-unsigned", "1"]).0, 0, "the control");
}

#[test]
fn a_head_is_taken_as_a_file_as_the_answer_and_in_short() {
    let scene = scene();
    let ChainPoint { chain, sequence, head } = &scene.end;
    let answer = format!(r#"{{"chain":"{chain}","sequence":{sequence},"head":"{head}","acknowledged":3}}"#);
    let file = scene.write("head.json", &answer);
    let short = format!("{chain}:{sequence}:{head}");
    let mut shorter = scene.lines.clone();
    shorter.remove(3);
    *shorter.last_mut().unwrap() = Line::End(EndLine { lines: 3 });
    let shorter: String = shorter.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
    for form in [&answer, &file, &short] {
        let (code, out, err) = scene.verify(&scene.text(), &["--head", form]);
        assert_eq!(code, 0, "{form}: {out}{err}");
        let (code, out, err) = scene.verify(&shorter, &["--head", form]);
        assert!(code == 1 && out.contains("the tail is missing"), "{form}: {out}{err}");
    }
    assert_eq!(scene.verify(&shorter, &[]).0, 0, "the control: without a head it can't show");
    let none = scene.write("none", "hello");
    assert_eq!(scene.verify(&scene.text(), &["--head", &none]).0, 2);
}

#[test]
fn what_cannot_be_used_ends_in_2_and_says_what_to_do() {
    let scene = scene();
    let (code, _, err) = scene.verify("type,time\r\n", &[]);
    assert!(code == 2 && err.contains("--format jsonl"), "{err}");
    let bundle = scene.path("bundle.pem");
    let export = scene.write("export.jsonl", &scene.text());
    let args = ["audit", "verify", &export, "--bundle", bundle.to_str().unwrap()];
    let (code, _, err) = ended(&run(&args, "", ""));
    assert!(code == 2 && err.contains("--bundle example.org=FILE"), "its authority names no domain: {err}");
    let (code, _, err) = ended(&run(&["audit", "verify", &export], "", ""));
    assert!(code == 2 && err.contains("--bundle"), "{err}");
    let (code, _, _) =
        ended(&run(&["audit", "verify", "absent", "--bundle", &format!("example.org={}", bundle.display())], "", ""));
    assert_eq!(code, 2);
}

/// Answers one request with this body, of which it says that it is so long.
fn serve(body: String, length: usize) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        while lines.next().unwrap().unwrap() != "" {}
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        let _ = stream.write_all(format!("{head}{body}").as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read(&mut [0; 1]);
        first
    });
    (url, asked)
}

#[test]
fn an_export_is_written_whole_or_not_at_all() {
    let scene = scene();
    let text = scene.text();
    let out = scene.path("audit.jsonl");
    let args =
        ["audit", "export", "--from", "2026-11-01T00:00:00Z", "--bouncer", "east", "--out", out.to_str().unwrap()];
    let (url, asked) = serve(text.clone(), text.len());
    let (code, said, err) = ended(&run(&args, &url, ""));
    assert_eq!(code, 0, "{err}");
    assert_eq!(said, format!("wrote {} lines, {} bytes, to {}\n", text.lines().count(), text.len(), out.display()));
    assert_eq!(std::fs::read_to_string(&out).unwrap(), text);
    let asked = asked.join().unwrap();
    assert!(
        asked.starts_with("GET /v1/audit/export?format=jsonl&from=2026-11-01T00%3A00%3A00Z&bouncer=east "),
        "{asked}"
    );

    let (url, _) = serve(text.clone(), text.len() + 1);
    let (code, _, err) = ended(&run(&args, &url, ""));
    assert_eq!(code, 3, "{err}");
    assert_eq!(std::fs::read_to_string(&out).unwrap(), text, "what was there stays");
    let left: Vec<_> = std::fs::read_dir(scene.folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".part")), "{left:?}");

    let (url, _) = serve(text.clone(), text.len());
    let (code, said, _) = ended(&run(&["audit", "export"], &url, ""));
    assert_eq!((code, said), (0, text), "to standard output, as it is");
}
