//! The results as a picture: one panel for each measure, one bar for each variant, readable on light and on dark.

use crate::report::{Report, Row};
use bouncer_tests::stats::Spread;
use std::fmt::Write as _;

const WIDTH: f64 = 1180.0;
const LABELS: f64 = 268.0;
const PANEL: f64 = 216.0;
const GAP: f64 = 12.0;
const TOP: f64 = 146.0;
const LINE: f64 = 42.0;
const BAR: f64 = 18.0;
/// Right of the longest whisker, for the number.
const NUMBER: f64 = 44.0;

// Without variables, which not every viewer of pictures knows.
const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1b2430}\
.ground{fill:#ffffff}.title{font-size:19px;font-weight:600}.sub{font-size:13px;fill:#5b6878}\
.head{font-size:14px;font-weight:600}.label{font-size:14px}.strong{font-weight:700}.number{font-size:13px}\
.number{paint-order:stroke;stroke:#ffffff;stroke-width:4px;stroke-linejoin:round}\
.axis{stroke:#d3d9e0;stroke-width:1}.one{stroke:#5b6878;stroke-width:1.2;stroke-dasharray:3 3}\
.whisker{stroke:#1b2430;stroke-width:1.4}\
.plain{fill:#8b97a5}.part{fill:#7fb0dd}.bouncer{fill:#1668b8}.authz{fill:#d2803a}\
@media(prefers-color-scheme:dark){text{fill:#e8edf3}\
.number{stroke:#12181f}.ground{fill:#12181f}.sub{fill:#9fabb9}\
.axis{stroke:#3a4552}\
.one{stroke:#9fabb9}.whisker{stroke:#e8edf3}.plain{fill:#77838f}.part{fill:#39648c}\
.bouncer{fill:#5aa9f0}.authz{fill:#e0975a}}";

/// A panel: its heading, which way is good, and the measure.
type Panel = (&'static str, &'static str, fn(&Row) -> &Spread);

const PANELS: [Panel; 4] = [
    ("Throughput", "more is better", |row| &row.throughput),
    ("Latency, p50", "less is better", |row| &row.p50),
    ("Latency, p99", "less is better", |row| &row.p99),
    ("CPU per request", "Envoy + its server; less is better", |row| &row.cpu),
];

/// The SVG file's text.
pub(crate) fn svg(report: &Report) -> String {
    let rows = report.variants.len() as f64;
    let (bottom, height) = (TOP + rows * LINE, TOP + rows * LINE + 34.0 + 20.0 * report.targets.len().max(1) as f64);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" \
         role=\"img\" aria-label=\"Warm HTTP path, ratios to plain Envoy\">\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\" rx=\"8\"/>\n"
    );
    let setting = &report.setting;
    let void = if report.valid() { "" } else { "VOID: " };
    text(
        &mut out,
        "title",
        24.0,
        36.0,
        &format!("{void}Warm HTTP path: ratio to plain Envoy with a static client certificate (= 1)"),
    );
    let about = format!(
        "{} rounds of {} s slices in turn; {} connections, one worker, mTLS and {} to the upstream; {}.",
        setting.rounds, setting.slice_seconds, setting.connections, setting.upstream, setting.processor
    );
    text(&mut out, "sub", 24.0, 59.0, &about);
    let how =
        "Bars: median of the ratios to the plain Envoy's slice of the same round. Whiskers: smallest and largest.";
    text(&mut out, "sub", 24.0, 78.0, how);
    for (index, row) in report.variants.iter().enumerate() {
        let class = if row.id == "bouncer" { "label strong" } else { "label" };
        text(&mut out, class, 24.0, middle(index) + 5.0, row.label);
    }
    for (index, panel) in PANELS.iter().enumerate() {
        draw(&mut out, report, panel, LABELS + index as f64 * (PANEL + GAP), bottom);
    }
    for (index, target) in report.targets.iter().enumerate() {
        let met = if target.met { "met" } else { "not met" };
        let line = format!("Target, {}: {met} ({:.2})", target.promise, target.measured.median);
        text(&mut out, "sub", 24.0, bottom + 32.0 + 20.0 * index as f64, &line);
    }
    out.push_str("</svg>\n");
    out
}

fn middle(index: usize) -> f64 {
    TOP + (index as f64 + 0.5) * LINE
}

fn draw(out: &mut String, report: &Report, panel: &Panel, left: f64, bottom: f64) {
    let (heading, note, measure) = panel;
    text(out, "head", left, TOP - 30.0, heading);
    text(out, "sub", left, TOP - 13.0, note);
    let largest = report.variants.iter().map(|row| measure(row).max).fold(1.0, f64::max);
    let scale = (PANEL - NUMBER) / largest;
    let at = |value: f64| left + value * scale;
    line(out, "axis", (left, TOP), (left, bottom));
    line(out, "one", (at(1.0), TOP), (at(1.0), bottom));
    for (index, row) in report.variants.iter().enumerate() {
        let (spread, y) = (measure(row), middle(index));
        let _ = writeln!(
            out,
            "<rect class=\"{}\" x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\"/>",
            class(row.id),
            y - BAR / 2.0,
            spread.median * scale
        );
        // The plain Envoy is 1 in every round.
        if spread.max > spread.min {
            line(out, "whisker", (at(spread.min), y), (at(spread.max), y));
            for end in [spread.min, spread.max] {
                line(out, "whisker", (at(end), y - 4.0), (at(end), y + 4.0));
            }
        }
        let number = if row.id == "bouncer" { "number strong" } else { "number" };
        text(out, number, at(spread.max.max(spread.median)) + 6.0, y + 4.5, &format!("{:.2}", spread.median));
    }
}

fn class(id: &str) -> &'static str {
    match id {
        "plain" => "plain",
        "bouncer" => "bouncer",
        "ext-authz" | "ext-authz-tag" => "authz",
        _ => "part",
    }
}

fn line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        out,
        "<line class=\"{class}\" x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(out: &mut String, class: &str, x: f64, y: f64, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(out, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>");
}
