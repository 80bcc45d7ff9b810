//! The program, and a server that answers as the control plane does.

#![allow(dead_code, reason = "each test program uses what it needs of it")]
#![allow(missing_docs, reason = "of no library")]

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

pub(crate) const TOKEN: &str = "canary-token-0123456789";
pub(crate) const KEY: &str = "arn:aws:kms:ca-central-1:123456789012:key/abc-123";

/// What the program asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Method and path.
    pub(crate) line: String,
    pub(crate) authorization: String,
    /// If-Match or If-None-Match, by its value.
    pub(crate) condition: String,
    /// The Idempotency-Key.
    pub(crate) key: String,
    pub(crate) body: Value,
}

/// A server of one answer, for as long as the test runs.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(crate) fn new(status: u16, body: Value) -> Self {
        Self::with(move |_| (status, body.clone()))
    }

    /// Status 0 is an answer that is lost: the connection ends without it. With 429, `retry_after` of the body is the header.
    pub(crate) fn with(answer: impl Fn(&Asked) -> (u16, Value) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(request) = read(&stream) else { continue };
                let (status, body) = answer(&request);
                seen.lock().unwrap().push(request);
                if status == 0 {
                    continue;
                }
                let wait = body.get("retry_after").map(|wait| format!("retry-after: {wait}\r\n")).unwrap_or_default();
                let body = if body.is_null() { String::new() } else { body.to_string() };
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{wait}content-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        Self { address, asked }
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        run(&format!("http://{}", self.address), args, "")
    }

    /// What was asked for, in order: method, path and condition.
    pub(crate) fn lines(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|asked| format!("{} {}", asked.line, asked.condition).trim_end().to_owned()).collect()
    }

    pub(crate) fn only_request(&self) -> Asked {
        let asked = self.asked.lock().unwrap();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked[0].clone()
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let (mut authorization, mut condition, mut key, mut length) = (String::new(), String::new(), String::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = value.to_owned(),
            "if-match" => condition = value.to_owned(),
            "if-none-match" => condition = format!("none {value}"),
            "idempotency-key" => key = value.to_owned(),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = line.rsplit_once(' ').map(|(line, _)| line.to_owned())?;
    Some(Asked { line, authorization, condition, key, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
}

/// The program, without the environment of whoever runs the tests.
pub(crate) fn run(url: &str, args: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bouncerctl"));
    command.env_clear().env("CONTROL_PLANE_URL", url).env("TOKEN", TOKEN).args(args);
    let output = finish(command, input);
    let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(!all.contains(TOKEN), "the token is printed: {all}");
    output
}

/// Runs a command to its end.
pub(crate) fn finish(mut command: Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that reads no input may have closed it already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit code, standard output, standard error.
pub(crate) fn ended(output: &Output) -> (i32, String, String) {
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

pub(crate) fn problem(code: &str, detail: &str, next: &str) -> Value {
    json!({"type": format!("urn:bouncer:problem:{code}"), "title": "No", "status": 0, "detail": detail, "next": next})
}
