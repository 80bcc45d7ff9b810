//! `proposals`: changes of binding that wait for a second person, and what a command says whose change does.

use super::inventory::{all, show};
use super::view::View;
use crate::args::{Decision, Proposals};
use crate::control_plane::{ControlPlane, Expects};
use crate::failure::{Exit, Failure};
use crate::output::{Output, Table};
use serde_json::{Value, json};

const PATH: &str = "/v1/proposals";

/// Runs the command.
///
/// # Errors
/// [`Failure`]: there is no such proposal, it does not wait, or the caller is no second person.
pub(super) async fn proposals(command: &Proposals, api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    match command {
        Proposals::List { state } => {
            let wanted = Some(state.clone()).filter(|state| state != "any");
            show(output, &all(api, PATH, &[("state", wanted)]).await?, table)
        }
        Proposals::Show { id } => show(output, &api.get(&format!("{PATH}/{id}")).await?, in_full),
        Proposals::Approve(decision) => {
            let answer = decide(decision, "approve", api).await?;
            show(output, &answer, |view| format!("approved and made: {}", what(view)))
        }
        Proposals::Reject(decision) => {
            let answer = decide(decision, "reject", api).await?;
            show(output, &answer, |view| format!("rejected: {}", what(view)))
        }
        Proposals::Withdraw { id } => {
            let answer = api.delete(&format!("{PATH}/{id}"), Expects::Anything).await?;
            show(output, &answer, |_| format!("withdrawn: proposal {id}"))
        }
    }
}

async fn decide(decision: &Decision, how: &str, api: &ControlPlane) -> Result<Value, Failure> {
    let body = decision.reason.as_ref().map_or_else(|| json!({}), |reason| json!({"reason": reason}));
    Ok(api.post(&format!("{PATH}/{}/{how}", decision.id), &body).await?)
}

/// What a proposal is about, in one line.
fn what(proposal: View<'_>) -> String {
    format!("{} {} about {}", proposal.cell("method"), proposal.cell("route"), proposal.cell("subject"))
}

/// What is said where a change waits.
pub(super) fn waits(proposal: &Value) -> String {
    let view = View(proposal);
    let id = view.cell("id");
    match view.text("state") {
        "pending" => format!(
            "waits for a second person, until {}: {}\nproposal {id}; somebody else approves it with: bouncerctl \
             proposals approve {id}",
            view.cell("expires_at"),
            what(view)
        ),
        state => format!("was proposed before, and is {state}: {}\nproposal {id}", what(view)),
    }
}

fn table(view: View<'_>) -> String {
    let mut table = Table::new(&["ID", "STATE", "CHANGE", "ABOUT", "PROPOSED BY", "UNTIL", "YOURS TO DECIDE"]);
    for item in view.list("items") {
        table.row([
            item.cell("id"),
            item.cell("state"),
            format!("{} {}", item.cell("method"), item.cell("route")),
            item.cell("subject"),
            item.cell("proposed_by"),
            item.cell("expires_at"),
            item.cell("may_decide"),
        ]);
    }
    table.render("No proposal is in this state.")
}

fn in_full(view: View<'_>) -> String {
    let names = [
        "id",
        "state",
        "method",
        "route",
        "subject",
        "reason",
        "proposed_by",
        "proposed_at",
        "expires_at",
        "decided_by",
        "decided_at",
        "decision_reason",
    ];
    let mut lines: Vec<String> =
        names.iter().map(|name| format!("{:<16} {}", name.replace('_', " "), view.cell(name))).collect();
    lines.push(String::new());
    for change in view.list("changes") {
        lines.push(format!("{:<16} {}  ->  {}", change.cell("field"), change.cell("before"), change.cell("after")));
    }
    lines.join("\n")
}
