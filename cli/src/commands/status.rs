//! `status`: what of the setup is done, and what is left to do.

use super::view::View;
use crate::control_plane::ControlPlane;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use jiff::Timestamp;

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
    Ok(Output::exit(is_ok(view)))
}

/// An answer without a verdict is no good one.
fn is_ok(part: View<'_>) -> bool {
    part.flag("ok") == Some(true)
}

fn mark(part: View<'_>) -> &'static str {
    if is_ok(part) { "ok  " } else { "open" }
}

fn render(answer: View<'_>) -> String {
    let mut lines = Vec::new();
    for step in answer.list("steps") {
        lines.push(format!("{}  {}. {}", mark(step), step.cell("step"), step.cell("title")));
        for name in step.list("checks").filter_map(|name| name.0.as_str()) {
            part(name, answer.get(name), &mut lines);
        }
    }
    lines.push(String::new());
    for envelope in answer.get("envelope_secrets").list("warnings") {
        let (path, generation) = (envelope.cell("logical_path"), envelope.cell("generation"));
        lines
            .extend(envelope.warnings().iter().map(|text| format!("warning: {path}, generation {generation}: {text}")));
    }
    lines.extend(ending(answer, Timestamp::now()));
    let loud = answer.text("dev_warning");
    if !loud.is_empty() {
        lines.push(loud.to_owned());
    }
    lines.push(match is_ok(answer) {
        true => answer.cell("detail"),
        false => "Not done yet: see what is marked open.".to_owned(),
    });
    lines.join("\n")
}

fn part(name: &str, part: View<'_>, lines: &mut Vec<String>) {
    lines.push(format!("      {}  {}: {}", mark(part), name.replace('_', " "), part.cell("detail")));
    let next = part.text("next");
    if !is_ok(part) && !next.is_empty() {
        lines.push(format!("            do: {next}"));
    }
}

/// The credentials in use that end within 30 days, the most urgent first.
fn ending(answer: View<'_>, now: Timestamp) -> Vec<String> {
    let mut found: Vec<(i64, String)> = Vec::new();
    for bouncer in answer.get("bouncers").list("items") {
        for secret in bouncer.get("bridge").list("secrets") {
            let Ok(end) = secret.text("not_after").parse::<Timestamp>() else { continue };
            let left = end.as_second() - now.as_second();
            let Some((level, when)) = level(left) else { continue };
            let (path, generation, name) =
                (secret.cell("logical_path"), secret.cell("generation"), bouncer.cell("name"));
            found.push((left, format!("{level}: {path}, generation {generation}, at {name}: its certificate {when} ({end})\n  do: wrap a renewed one and register it under the same path; it is taken up without a failed request")));
        }
    }
    found.sort();
    found.dedup();
    found.into_iter().map(|(_, text)| text).collect()
}

/// How loud to be about a certificate that has so many seconds left, and what to say; nothing above 30 days.
fn level(left: i64) -> Option<(&'static str, String)> {
    const DAY: i64 = 86_400;
    match left {
        ..=0 => Some(("URGENT", "has ended".to_owned())),
        _ if left <= DAY => Some(("URGENT", format!("ends in {} h", left / 3_600))),
        _ if left <= 7 * DAY => Some(("WARNING", format!("ends in {} days", left / DAY))),
        _ if left <= 30 * DAY => Some(("warning", format!("ends in {} days", left / DAY))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_left_to_do_stands_below_its_step() {
        let answer = json!({
            "ok": false, "detail": "x", "next": "y", "epoch": 3, "dev_mode": true, "dev_warning": "IT IS DEV",
            "steps": [
                {"step": 1, "title": "Choose", "ok": true, "detail": "", "next": "", "checks": ["feature_flag"]},
                {"step": 2, "title": "Map", "ok": false, "detail": "", "next": "", "checks": ["envelope_secrets"]},
            ],
            "feature_flag": {"ok": true, "detail": "The flag is on.", "next": ""},
            "envelope_secrets": {
                "ok": false, "detail": "None.", "next": "Wrap one.",
                "warnings": [{"logical_path": "a/b", "generation": 2, "warnings": [{"code": "c", "detail": "Odd."}]}],
            },
            "unknown_to_this_version": [1],
        });
        assert_eq!(
            render(View(&answer)),
            "ok    1. Choose\n      ok    feature flag: The flag is on.\n\
             open  2. Map\n      open  envelope secrets: None.\n            do: Wrap one.\n\n\
             warning: a/b, generation 2: Odd. (c)\nIT IS DEV\nNot done yet: see what is marked open."
        );
    }

    #[test]
    fn an_answer_without_a_verdict_is_not_ok() {
        assert!(!is_ok(View(&json!({"steps": []}))));
        assert!(!is_ok(View(&json!([]))));
        assert!(is_ok(View(&json!({"ok": true}))));
    }

    #[test]
    fn certificates_near_their_end_are_told_the_most_urgent_first() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let secret = |path: &str, end: &str| json!({"logical_path": path, "generation": 2, "not_after": end});
        let answer = json!({"bouncers": {"items": [{"name": "east", "bridge": {"secrets": [
            secret("far", "2030-02-01T00:00:00Z"), secret("month", "2030-01-20T00:00:00Z"),
            secret("week", "2030-01-06T12:00:00Z"), secret("day", "2030-01-01T20:00:00Z"),
            secret("gone", "2029-12-31T00:00:00Z"), {"logical_path": "endless", "generation": 1},
        ]}}]}});
        let told = ending(View(&answer), now);
        let firsts: Vec<_> = told.iter().map(|text| text.lines().next().unwrap_or_default()).collect();
        assert_eq!(
            firsts,
            [
                "URGENT: gone, generation 2, at east: its certificate has ended (2029-12-31T00:00:00Z)",
                "URGENT: day, generation 2, at east: its certificate ends in 20 h (2030-01-01T20:00:00Z)",
                "WARNING: week, generation 2, at east: its certificate ends in 5 days (2030-01-06T12:00:00Z)",
                "warning: month, generation 2, at east: its certificate ends in 19 days (2030-01-20T00:00:00Z)",
            ]
        );
    }
}
