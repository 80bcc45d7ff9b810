//! The operator: the calls of the guide, shown as they would be typed, and everything that came back to them.
//!
//! Called by the guide's steps and by the traffic. It keeps every answer, so that the search for the key goes over all
//! of what the control plane ever said.

use crate::screen::{Screen, shorten};
use bouncer_tests::api::{Answer, Api};
use bouncer_tests::{Fault, Result, fault::Doing as _, tools};
use http::Method;
use serde_json::{Map, Value};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// A body, in the order in which it is shown.
pub(crate) type Body<'a> = &'a [(&'a str, Value)];

/// One answer of the product.
pub(crate) struct Said {
    /// Which call it answered.
    pub(crate) to: String,
    /// All of it.
    pub(crate) text: String,
}

/// Someone with a token, a shell and a folder.
pub(crate) struct Operator {
    screen: Screen,
    api: Api,
    url: String,
    token: String,
    folder: PathBuf,
    said: Mutex<Vec<Said>>,
}

impl Operator {
    /// An operator of this control plane.
    pub(crate) fn new(screen: Screen, url: String, token: &str, folder: PathBuf) -> Result<Self> {
        let api = Api::new(url.clone(), Some(token))?;
        Ok(Self { screen, api, url, token: token.to_owned(), folder, said: Mutex::default() })
    }

    /// The operator's own folder.
    pub(crate) fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// A call that is shown.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Body<'_>) -> Result<Answer> {
        self.screen.call(&curl(&method, path, body));
        self.quietly(method, path, body).await
    }

    /// A call that is not shown; its answer is kept all the same.
    pub(crate) async fn quietly(&self, method: Method, path: &str, body: Body<'_>) -> Result<Answer> {
        let to = format!("{method} {path}");
        let json =
            Value::from(body.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect::<Map<_, _>>());
        let answer = self.api.call(method, path, (!body.is_empty()).then_some(&json)).await?;
        self.keep(to, answer.text.clone());
        Ok(answer)
    }

    /// A call that must succeed and is not worth showing.
    pub(crate) async fn must(&self, method: Method, path: &str, body: Body<'_>) -> Result<Value> {
        let what = format!("{method} {path}");
        self.quietly(method, path, body).await?.success().doing(what)
    }

    /// Runs bouncerctl, which finds URL and token in its environment. Gives its standard output if it succeeded.
    pub(crate) async fn bouncerctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::new(tools::binary("bouncerctl")?);
        command.args(arguments).current_dir(&self.folder).kill_on_drop(true);
        command.env("CONTROL_PLANE_URL", &self.url).env("TOKEN", &self.token).env("NO_COLOR", "1");
        let output = command.output().await.doing("bouncerctl")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, complained) = (text(&output.stdout), text(&output.stderr));
        let name = arguments.first().copied().unwrap_or_default();
        self.keep(format!("bouncerctl {name}"), format!("{said}{complained}"));
        if output.status.success() {
            return Ok(said);
        }
        Err(Fault::new(format!("bouncerctl {name}: {}", output.status)).with_evidence(format!("{said}{complained}")))
    }

    /// Shows a command, without running it.
    pub(crate) fn show(&self, command: &str) {
        self.screen.call(command);
    }

    /// Keeps an answer that came by another way.
    pub(crate) fn keep(&self, to: String, text: String) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).push(Said { to, text });
    }

    /// Every answer so far.
    pub(crate) fn said(&self) -> std::sync::MutexGuard<'_, Vec<Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The call as a curl line. Long values are shortened, so this is for reading.
fn curl(method: &Method, path: &str, body: Body<'_>) -> String {
    let mut text = "curl -sS ".to_owned();
    if *method != Method::GET {
        let _ = write!(text, "-X {method} ");
    }
    text.push_str("-H \"Authorization: Bearer $TOKEN\"");
    if !body.is_empty() {
        text.push_str(" -H \"Content-Type: application/json\"");
    }
    let _ = write!(text, " \\\n  \"$CONTROL_PLANE_URL{path}\"");
    let fields: Vec<String> = body.iter().map(|(key, value)| format!("\"{key}\": {}", shown(value))).collect();
    match fields.len() {
        0 => {}
        1 => {
            let _ = write!(text, " -d '{{{}}}'", fields.concat());
        }
        _ => {
            let _ = write!(text, " -d '{{\n  {}\n}}'", fields.join(",\n  "));
        }
    }
    text
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", shorten(&text.replace('\n', "\\n"), 78)),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_read_as_in_the_guide() {
        let get = curl(&Method::GET, "/v1/bootstrap/status", &[]);
        let expected = "curl -sS -H \"Authorization: Bearer $TOKEN\" \\\n  \"$CONTROL_PLANE_URL/v1/bootstrap/status\"";
        assert_eq!(get, expected);
        let put = curl(&Method::PUT, "/x", &[("enabled", true.into())]);
        assert!(put.ends_with("\"$CONTROL_PLANE_URL/x\" -d '{\"enabled\": true}'"), "{put}");
        let two = curl(&Method::PUT, "/x", &[("a", "b".into()), ("c", "d".into())]);
        assert!(two.ends_with(" -d '{\n  \"a\": \"b\",\n  \"c\": \"d\"\n}'"), "{two}");
    }
}
