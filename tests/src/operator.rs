//! The operator at a shell: `bouncerctl` against a scenario's control plane and KMS, and Python with AWS's own SDK.

use crate::stack::Stack;
use crate::{Fault, Result, fault::Doing as _, tools};
use serde_json::Value;
use std::process::Stdio;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; -1 if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error.
    pub err: String,
}

impl Ended {
    /// Standard output, if it went well.
    ///
    /// # Errors
    /// If it did not, with what it said.
    #[track_caller]
    pub fn success(self) -> Result<Vec<u8>> {
        if self.code == 0 {
            return Ok(self.out);
        }
        Err(Fault::new(format!("exit code {}", self.code)).with_evidence(self.err))
    }

    /// Standard output as JSON, however it ended.
    ///
    /// # Errors
    /// If it is none.
    #[track_caller]
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.out).map_err(|error| Fault::from(error).with_evidence(&self.err))
    }
}

/// Starts `bouncerctl` with the stack's URL and token.
///
/// # Errors
/// If it is not built, or the control plane was stopped.
pub fn bouncerctl(stack: &Stack, arguments: &[&str]) -> Result<Child> {
    let control_plane = stack.control_plane()?;
    at(&control_plane.url(), control_plane.token(), arguments)
}

/// Starts `bouncerctl` with a URL and a token.
///
/// # Errors
/// If it is not built.
pub fn at(url: &str, token: &str, arguments: &[&str]) -> Result<Child> {
    let mut command = Command::new(tools::binary("bouncerctl")?);
    command.args(arguments).env_clear().env("CONTROL_PLANE_URL", url).env("TOKEN", token);
    spawn(command)
}

/// Runs `bouncerctl` to its end, with something on its standard input.
///
/// # Errors
/// If it can't be run. How it ended is the caller's to judge.
pub async fn run(stack: &Stack, arguments: &[&str], input: &[u8]) -> Result<Ended> {
    ended(bouncerctl(stack, arguments)?, input).await
}

/// Wraps a bundle under the stack's key and registers it, with `bouncerctl wrap`, which answers in JSON.
///
/// # Errors
/// If it can't be run. How it ended is the caller's to judge.
pub async fn wrap(stack: &Stack, form: &str, aad: &str, path: &str, bundle: &str) -> Result<Ended> {
    let endpoint = stack.kms.endpoint();
    let key = ["wrap", "--key-arn", &stack.key_arn, "--aad", aad, "--in", "-", "--form", form];
    let to = ["--kms-endpoint", &endpoint, "--dev", "--register", path, "--json"];
    run(stack, &[key.as_slice(), &to].concat(), bundle.as_bytes()).await
}

/// Runs one of `tests/python` with the Python that has AWS's SDK.
///
/// # Errors
/// If it can't be run. How it ended is the caller's to judge.
pub async fn python(script: &str, arguments: &[&str], input: &[u8]) -> Result<Ended> {
    let mut command = Command::new(tools::root().join(".tools/kms-venv/bin/python"));
    // Nothing is written beside the sources, and no proxy of the environment stands between.
    command.arg("-B").arg(tools::root().join("tests/python").join(script)).args(arguments).env_clear();
    ended(spawn(command).doing("Python: run `make tools` (scripts/tools all)")?, input).await
}

/// Waits for a program's end.
///
/// # Errors
/// If it can't be waited for.
pub async fn ended(mut child: Child, input: &[u8]) -> Result<Ended> {
    if let Some(mut stdin) = child.stdin.take() {
        // Who reads nothing may have closed it.
        let _ = stdin.write_all(input).await;
    }
    let output = child.wait_with_output().await?;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(Ended { code: output.status.code().unwrap_or(-1), out: output.stdout, err })
}

fn spawn(mut command: Command) -> Result<Child> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command.spawn()?)
}
