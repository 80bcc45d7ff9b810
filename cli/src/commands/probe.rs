//! `probe`: whether every bouncer is in sync with the control plane, and which link is broken where one is not: as the
//! control plane sees all of them, or as one resolver sees its own way up.

use super::view::View;
use crate::control_plane::ControlPlane;
use crate::failure::{Exit, Failure};
use crate::output::{Output, Table};
use crate::resolver::Resolver;
use std::path::Path;

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

/// Asks one resolver, and ends with [`Exit::Refused`] if a link is broken.
///
/// # Errors
/// [`Failure`] if the resolver does not answer.
pub(super) async fn resolver(socket: &Path, output: &Output) -> Result<Exit, Failure> {
    let answer = Resolver::new(socket)?.get("/v1/policy-bridge").await?;
    let view = View(&answer);
    if output.is_json() {
        output.json(&answer)?;
    } else {
        output.text(&own_way(view))?;
    }
    Ok(Output::exit(view.flag("ok") == Some(true)))
}

/// The broken link and what to do, then each address and what is in use.
fn own_way(answer: View<'_>) -> String {
    let link = answer.text("link");
    let link = if link.is_empty() { String::new() } else { format!("[{link}] ") };
    let mut text = format!("{}: {link}{}\n", answer.cell("bouncer"), answer.text("detail"));
    if !answer.text("next").is_empty() {
        text.push_str(&format!("  do: {}\n", answer.text("next")));
    }
    text.push('\n');
    for address in answer.list("addresses") {
        let why = match (address.flag("connected"), address.text("link")) {
            (Some(true), _) => "connected".to_owned(),
            (_, "") => "not in use".to_owned(),
            (_, link) => format!("[{link}] {}", address.text("detail")),
        };
        text.push_str(&format!("{}: {why}\n", address.cell("address")));
    }
    let heard = age(answer.number("policy_age_ms"));
    text.push_str(&format!("Its policy is of epoch {}, last confirmed: {heard}.", answer.cell("policy_epoch")));
    text
}

/// The control plane's own verdict and that of each bouncer. No bouncer at all is not healthy: nothing is protected.
fn is_healthy(answer: View<'_>) -> bool {
    let mut bouncers = answer.list("items").peekable();
    let is_ok = |bouncer: View<'_>| bouncer.get("bridge").flag("ok") == Some(true);
    bouncers.peek().is_some() && answer.flag("ok") != Some(false) && bouncers.all(is_ok)
}

fn render(answer: View<'_>) -> String {
    let mut table = Table::new(&["BOUNCER", "HEALTHY", "STATE", "LINK", "EPOCH", "LAG", "LAST HEARD OF"]);
    let mut advice = String::new();
    for bouncer in answer.list("items") {
        let bridge = bouncer.get("bridge");
        table.row([
            bouncer.cell("name"),
            bridge.cell("ok"),
            bridge.cell("state"),
            bridge.cell("link"),
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
    let link = part.text("link");
    let link = if link.is_empty() { String::new() } else { format!("[{link}] ") };
    let mut text = format!("{name}: {link}{detail}\n");
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
    fn a_resolver_names_its_broken_link_and_each_address() {
        let answer = json!({"ok": false, "link": "tls", "detail": "No TLS: odd.", "next": "Look.", "bouncer": "east",
            "policy_epoch": 7, "policy_age_ms": 3_000, "addresses": [
                {"address": "a:1", "connected": false, "link": "tls", "detail": "odd"},
                {"address": "b:1", "connected": true}, {"address": "c:1", "connected": false}]});
        assert_eq!(
            own_way(View(&answer)),
            "east: [tls] No TLS: odd.\n  do: Look.\n\na:1: [tls] odd\nb:1: connected\nc:1: not in use\n\
             Its policy is of epoch 7, last confirmed: 3 s ago."
        );
    }

    #[test]
    fn ages_are_short() {
        let said: Vec<_> =
            [None, Some(999), Some(119_999), Some(120_000), Some(7_200_000), Some(200_000_000)].map(age).into();
        assert_eq!(said, ["never", "0 s ago", "119 s ago", "2 min ago", "2 h ago", "2 days ago"]);
    }
}
