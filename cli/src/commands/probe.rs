//! `probe`: whether every bouncer is in sync with the control plane.

use super::view::View;
use crate::control_plane::ControlPlane;
use crate::failure::{Exit, Failure};
use crate::output::{Output, Table};

/// Asks, prints, and ends with [`Exit::Refused`] if a bouncer is not healthy.
///
/// # Errors
/// [`Failure`] if the control plane can't be asked: which of the ways that is stands in the message and the exit code.
pub(super) async fn probe(api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    let answer = api.get("/v1/policy-bridge/health").await?;
    let view = View(&answer);
    if output.is_json() {
        output.json(&answer)?;
    } else {
        output.text(&render(view))?;
    }
    Ok(Output::exit(is_healthy(view)))
}

/// The control plane's own verdict and that of each bouncer. No bouncer at all is not healthy: nothing is protected.
fn is_healthy(answer: View<'_>) -> bool {
    let mut bouncers = answer.list("items").peekable();
    let is_ok = |bouncer: View<'_>| bouncer.get("bridge").flag("ok") == Some(true);
    bouncers.peek().is_some() && answer.flag("ok") != Some(false) && bouncers.all(is_ok)
}

fn render(answer: View<'_>) -> String {
    let mut table = Table::new(&["BOUNCER", "HEALTHY", "STATE", "EPOCH", "LAG", "LAST HEARD OF"]);
    let mut advice = String::new();
    for bouncer in answer.list("items") {
        let bridge = bouncer.get("bridge");
        table.row([
            bouncer.cell("name"),
            bridge.cell("ok"),
            bridge.cell("state"),
            bridge.cell("epoch_acked"),
            bridge.cell("epoch_lag"),
            age(bridge.number("age_ms")),
        ]);
        advice.push_str(&remark(bridge, &bouncer.cell("name")));
    }
    let mut text = table.render("No bouncer is registered: bouncerctl bouncers add NAME --spiffe-id ID");
    if let Some(epoch) = answer.number("epoch") {
        text.push_str(&format!("\n\nThe control plane is at epoch {epoch}."));
    }
    if answer.flag("identity") == Some(false) || answer.flag("listening") == Some(false) {
        advice.insert_str(0, &remark(answer, "control plane"));
    }
    if !advice.is_empty() {
        text.push_str("\n\n");
        text.push_str(advice.trim_end());
    }
    text
}

/// What is wrong with a part and what to do; what is loud about a healthy one.
fn remark(part: View<'_>, name: &str) -> String {
    let (detail, next, ok) = (part.text("detail"), part.text("next"), part.flag("ok") == Some(true));
    if ok && part.flag("dev") != Some(true) {
        return String::new();
    }
    let mut text = format!("{name}: {detail}\n");
    if !next.is_empty() {
        text.push_str(&format!("  do: {next}\n"));
    }
    text
}

/// A time ago as people say it.
fn age(ms: Option<u64>) -> String {
    match ms.map(|ms| ms / 1000) {
        None => "never".to_owned(),
        Some(s @ 0..=119) => format!("{s} s ago"),
        Some(s @ 120..=7199) => format!("{} min ago", s / 60),
        Some(s @ 7200..=172_799) => format!("{} h ago", s / 3600),
        Some(s) => format!("{} days ago", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_sick_bouncer_is_enough() {
        let healthy = |bouncers: serde_json::Value| is_healthy(View(&json!({"items": bouncers})));
        let (well, sick) = (json!({"bridge": {"ok": true}}), json!({"bridge": {"ok": false}}));
        assert!(healthy(json!([well])));
        assert!(!healthy(json!([well, sick])));
        assert!(!healthy(json!([well, {}])));
        assert!(!healthy(json!([])));
        assert!(!is_healthy(View(&json!({"ok": false, "items": [well]}))));
    }

    #[test]
    fn ages_are_short() {
        let said: Vec<_> =
            [None, Some(999), Some(119_999), Some(120_000), Some(7_200_000), Some(200_000_000)].map(age).into();
        assert_eq!(said, ["never", "0 s ago", "119 s ago", "2 min ago", "2 h ago", "2 days ago"]);
    }
}
