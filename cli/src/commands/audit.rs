//! `audit list|tail|export|verify`: what the bouncers decided, and whether it is still what they recorded.

mod error;
mod export;
mod verify;

pub(crate) use error::EvidenceError;

use super::view::View;
use crate::args::{Audit, AuditFilter};
use crate::control_plane::{ControlPlane, ControlPlaneError};
use crate::failure::{Exit, Failure};
use crate::output::{Output, Table};
use serde_json::Value;
use std::collections::VecDeque;
use std::time::Duration;

/// How often `tail` asks.
const PERIOD: Duration = Duration::from_secs(1);
/// The largest page that the API gives.
const PAGE: u16 = 500;
/// How many ids `tail` remembers, so as to show none twice: two of the largest pages.
const REMEMBERED: usize = 2 * PAGE as usize;

/// Runs the command.
///
/// # Errors
/// [`Failure`]. `tail` rides out what passes by itself once it has had its first answer.
pub(super) async fn audit(
    command: &Audit,
    connect: impl FnOnce() -> Result<ControlPlane, ControlPlaneError>,
    output: &Output,
) -> Result<Exit, Failure> {
    match command {
        Audit::List(filter) => {
            let answer = page(filter, &connect()?).await?;
            if output.is_json() {
                output.json(&answer)?;
            } else {
                output.text(&table(View(&answer)))?;
            }
            Ok(Exit::Ok)
        }
        Audit::Tail(filter) => tail(filter, &connect()?, output).await,
        Audit::Export(options) => export::export(options, &connect()?, output).await,
        Audit::Verify(options) => verify::verify(options, output),
    }
}

async fn page(filter: &AuditFilter, api: &ControlPlane) -> Result<Value, ControlPlaneError> {
    let mut query = vec![("limit", filter.limit.to_string())];
    let optional = [
        ("outcome", filter.outcome.clone()),
        ("bouncer", filter.bouncer.as_ref().map(ToString::to_string)),
        ("reason", filter.reason.clone()),
        ("logical_path", filter.logical_path.as_ref().map(ToString::to_string)),
        ("cursor", filter.cursor.clone()),
    ];
    query.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    api.query("/v1/audit/events", &query).await
}

fn table(answer: View<'_>) -> String {
    let mut table = Table::new(&[
        "TIME",
        "BOUNCER",
        "OUTCOME",
        "REASON",
        "COUNT",
        "RESOURCE",
        "CALLER",
        "DESTINATION",
        "CREDENTIAL",
    ]);
    for event in answer.list("items") {
        table.row(
            ["time", "bouncer", "outcome", "reason", "count", "resource", "caller", "destination", "logical_path"]
                .map(|name| event.cell(name)),
        );
    }
    table.render("No decision matches.")
}

async fn tail(filter: &AuditFilter, api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    let mut shown: VecDeque<String> = VecDeque::new();
    // As many as there can be: what is known is not shown again.
    let asked = AuditFilter { limit: PAGE, cursor: None, ..filter.clone() };
    let mut to_show = usize::from(filter.limit);
    loop {
        match page(&asked, api).await {
            Ok(answer) => {
                let is_new = |event: &View<'_>| !shown.iter().any(|id| id == event.text("id"));
                let new: Vec<View<'_>> = View(&answer).list("items").filter(is_new).collect();
                // Newest first on the wire, newest last on a screen.
                for event in new.iter().take(to_show).rev() {
                    line(*event, output)?;
                }
                shown.extend(new.iter().rev().map(|event| event.text("id").to_owned()));
                shown.drain(..shown.len().saturating_sub(REMEMBERED));
                to_show = usize::MAX;
            }
            Err(error) if to_show == usize::MAX && passes(&error) => output.warning(&format!("{error}; asking again")),
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            _interrupted = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
        }
    }
}

/// Whether the fault may pass by itself.
const fn passes(error: &ControlPlaneError) -> bool {
    matches!(error, ControlPlaneError::Unreachable { .. } | ControlPlaneError::Timeout { .. })
}

fn line(event: View<'_>, output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.line(event.0);
    }
    let reason = match event.text("reason") {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    output.text(&format!(
        "{}  {}  {}{reason}  x{}  {} -> {}  {}",
        event.cell("time"),
        event.cell("bouncer"),
        event.cell("outcome"),
        event.cell("count"),
        event.cell("caller"),
        event.cell("destination"),
        event.cell("logical_path"),
    ))
}
