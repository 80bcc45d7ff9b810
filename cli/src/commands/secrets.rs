//! `secrets`: what is registered of each credential, and whether it may be used.

use super::inventory::{all, show, with_warnings};
use super::registered::{PATH, find};
use super::rollback::rollback;
use super::view::View;
use crate::args::{SecretFilter, Secrets};
use crate::control_plane::{ControlPlane, Expects, segment};
use crate::failure::{Exit, Failure};
use crate::output::{Output, Table};
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

/// Runs the command.
///
/// # Errors
/// [`Failure`] if nothing of that name is registered, or the control plane refuses.
pub(super) async fn secrets(command: &Secrets, api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    match command {
        Secrets::List(filter) => list(filter, api, output).await,
        Secrets::Show { secret } => {
            let answer = find(api, secret).await?;
            show(output, &answer, |view| with_warnings(in_full(view), view))
        }
        Secrets::History { secret } => {
            // By its id it is found after its removal too.
            let id = match uuid::Uuid::parse_str(secret) {
                Ok(id) => id.to_string(),
                Err(_) => View(&find(api, secret).await?).text("id").to_owned(),
            };
            let answer = all(api, &format!("{PATH}/{}/history", segment(&id)), &[]).await?;
            show(output, &answer, history_table)
        }
        Secrets::Rollback(options) => rollback(options, api, output).await,
        Secrets::Remove { secret } => {
            let found = find(api, secret).await?;
            let view = View(&found);
            let path = format!("{PATH}/{}", segment(view.text("id")));
            let answer = api.delete(&path, Expects::from(view.number("revision"))).await?;
            show(output, &answer, |_| format!("removed {}, all generations", view.cell("logical_path")))
        }
        Secrets::Enable { secret, reason } => set(secret, true, reason.as_deref(), api, output).await,
        Secrets::Disable { secret, reason } => set(secret, false, reason.as_deref(), api, output).await,
    }
}

async fn list(filter: &SecretFilter, api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    let before = filter.expires_within.map(|days| Timestamp::now() + SignedDuration::from_hours(i64::from(days) * 24));
    let filters = [
        ("q", filter.search.clone()),
        ("provider", filter.provider.map(|provider| provider.as_str().to_owned())),
        ("key_id", filter.key.clone()),
        ("enabled", filter.state.wanted()),
        ("expires_before", before.map(|before| before.to_string())),
    ];
    let empty = match filters.iter().any(|(_, value)| value.is_some()) {
        true => "No registered credential is as asked for.",
        false => "No credential is registered: bouncerctl wrap … --register PATH",
    };
    show(output, &all(api, PATH, &filters).await?, |view| secrets_table(view, empty))
}

async fn set(
    secret: &str,
    enabled: bool,
    reason: Option<&str>,
    api: &ControlPlane,
    output: &Output,
) -> Result<Exit, Failure> {
    let answer = enable(&find(api, secret).await?, enabled, reason, api).await?;
    let word = if enabled { "enabled" } else { "disabled" };
    show(output, &answer, |view| {
        format!("{word} {}, generation {}", view.cell("logical_path"), view.cell("generation"))
    })
}

/// Enables or disables a credential, if it is as it was found.
///
/// # Errors
/// [`Failure`] if the control plane refuses, or somebody else changed it meanwhile.
pub(super) async fn enable(
    found: &Value,
    enabled: bool,
    reason: Option<&str>,
    api: &ControlPlane,
) -> Result<Value, Failure> {
    let view = View(found);
    let mut body = json!({"enabled": enabled});
    if let Some(reason) = reason {
        body["reason"] = reason.into();
    }
    let path = format!("{PATH}/{}", segment(view.text("id")));
    Ok(api.change(Method::PATCH, &path, &body, Expects::from(view.number("revision"))).await?)
}

fn secrets_table(view: View<'_>, empty: &str) -> String {
    let mut table = Table::new(&["LOGICAL PATH", "GENERATION", "ENABLED", "PROVIDER", "AAD", "WARNINGS", "ID"]);
    for item in view.list("items") {
        let warnings = match item.warnings().as_slice() {
            [] => "-".to_owned(),
            warnings => warnings.len().to_string(),
        };
        table.row([
            item.cell("logical_path"),
            item.cell("generation"),
            item.cell("enabled"),
            item.cell("provider"),
            item.cell("aad"),
            warnings,
            item.cell("id"),
        ]);
    }
    table.render(empty)
}

fn history_table(view: View<'_>) -> String {
    let mut table = Table::new(&["GENERATION", "ENABLED", "REGISTERED", "BY", "CHANGED", "BY", "AAD", "REASON"]);
    for item in view.list("items") {
        table.row(
            ["generation", "enabled", "created_at", "created_by", "changed_at", "changed_by", "aad", "reason"]
                .map(|name| item.cell(name)),
        );
    }
    table.render("No history.")
}

fn in_full(view: View<'_>) -> String {
    let names = [
        "logical_path",
        "id",
        "generation",
        "enabled",
        "provider",
        "key_id",
        "aad",
        "expires_at",
        "created_at",
        "created_by",
        "reason",
        "changed_at",
        "changed_by",
        "revision",
        "ciphertext_ref",
        "certificate_chain",
    ];
    let line = |name: &str| {
        let cell = view.cell(name);
        match cell.contains('\n') {
            true => format!("{}\n{}", name.replace('_', " "), cell.trim_end()),
            false => format!("{:<18} {cell}", name.replace('_', " ")),
        }
    };
    names.map(line).join("\n")
}
