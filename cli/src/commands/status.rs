//! `status`: what of the setup is done, and what is left to do.

use super::view::View;
use crate::control_plane::ControlPlane;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use std::fmt::Write as _;

/// Asks, prints, and ends with [`Exit::Refused`] while something is left to do.
///
/// # Errors
/// [`Failure`] if the control plane does not answer, or refuses.
pub(super) async fn status(api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    let answer = api.get("/v1/bootstrap/status").await?;
    let view = View(&answer);
    if output.is_json() {
        output.json(&answer)?;
    } else {
        output.text(&render(view))?;
    }
    Ok(Output::exit(is_ready(view)))
}

/// The control plane's own verdict; without one, that of its checks. An answer without either is not healthy.
fn is_ready(answer: View<'_>) -> bool {
    let checks: Vec<_> = answer.list("checks").map(is_ok).collect();
    answer.flag("ready").unwrap_or(!checks.is_empty()) && checks.iter().all(|ok| *ok)
}

fn is_ok(check: View<'_>) -> bool {
    check.flag("ok").unwrap_or_else(|| check.text("status") == "ok")
}

fn render(answer: View<'_>) -> String {
    let mut text = String::new();
    for check in answer.list("checks") {
        let mark = if is_ok(check) { "ok  " } else { "TODO" };
        let _infallible = writeln!(text, "{mark}  {}: {}", check.cell("name"), check.cell("detail"));
        let action = check.text("action");
        if !is_ok(check) && !action.is_empty() {
            let _infallible = writeln!(text, "      do: {action}");
        }
    }
    text.push_str(if is_ready(answer) { "\nEverything is in order." } else { "\nNot ready: see what is marked TODO." });
    text
}
