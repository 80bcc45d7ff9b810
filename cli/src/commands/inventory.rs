//! What is registered: settings, flags, bouncers and protected resources. Thin: the control plane decides.

use super::view::View;
use crate::args::{Bouncers, Flags, Resources, Settings};
use crate::control_plane::{ControlPlane, Expects, segment};
use crate::failure::{Exit, Failure};
use crate::output::{Output, Table};
use serde_json::{Value, json};

/// The text, with the answer's warnings below it.
pub(super) fn with_warnings(mut text: String, answer: View<'_>) -> String {
    for warning in answer.warnings() {
        text.push_str("\nwarning: ");
        text.push_str(&warning);
    }
    text
}

/// Prints an answer: as it is for programs, by `human` for people.
pub(super) fn show(output: &Output, answer: &Value, human: impl FnOnce(View<'_>) -> String) -> Result<Exit, Failure> {
    if output.is_json() {
        output.json(answer)?;
    } else {
        output.text(&human(View(answer)))?;
    }
    Ok(Exit::Ok)
}

/// All of a list, page by page, as one answer. Pages are short, since each of their items may be as long as an envelope
/// with its chain.
pub(super) async fn all(
    api: &ControlPlane,
    path: &str,
    filters: &[(&'static str, Option<String>)],
) -> Result<Value, Failure> {
    let mut items = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("limit", "50".to_owned())];
        query.extend(filters.iter().filter_map(|(name, value)| Some((*name, value.clone()?))));
        query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
        let mut page = api.query(path, &query).await?;
        let next = View(&page).text("next_cursor").to_owned();
        match page.get_mut("items").map(Value::take) {
            Some(Value::Array(found)) if !next.is_empty() && !found.is_empty() => {
                items.extend(found);
                cursor = Some(next);
            }
            Some(Value::Array(found)) => {
                items.extend(found);
                return Ok(json!({"items": items}));
            }
            // Not paged, or no list at all: shown as it is.
            _ => return Ok(page),
        }
    }
}

/// `settings show|set`.
pub(super) async fn settings(command: &Settings, api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    const PATH: &str = "/v1/crypto/settings";
    let answer = match command {
        Settings::Show => match api.get(PATH).await {
            Err(error) if error.is_not_found() => json!({}),
            other => other?,
        },
        Settings::Set { provider, kms_key_arn, vault_namespace, notes } => {
            let mut body = json!({"provider": provider});
            let fields = [
                ("kms_key_arn", kms_key_arn.as_ref().map(|arn| arn.as_str())),
                ("vault_namespace", vault_namespace.as_deref()),
                ("notes", notes.as_deref()),
            ];
            for (field, value) in fields {
                if let Some(value) = value {
                    body[field] = value.into();
                }
            }
            api.put(PATH, &body).await?
        }
    };
    show(output, &answer, |view| {
        if view.text("provider").is_empty() {
            return "No provider is chosen yet: bouncerctl settings set --kms-key-arn ARN".to_owned();
        }
        let key = ["kms_key_arn", "vault_namespace"].iter().map(|name| view.text(name)).find(|text| !text.is_empty());
        let text = format!(
            "provider  {}\nkey       {}\nnotes     {}",
            view.cell("provider"),
            key.unwrap_or("-"),
            view.cell("notes")
        );
        with_warnings(text, view)
    })
}

/// `flags list|enable|disable`.
pub(super) async fn flags(command: &Flags, api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    const PATH: &str = "/v1/feature-flags";
    let (flag, enabled) = match command {
        Flags::List => {
            let answer = all(api, PATH, &[]).await?;
            return show(output, &answer, |view| {
                let mut table = Table::new(&["FLAG", "ENABLED", "WHAT IT DOES"]);
                for item in view.list("items") {
                    table.row([item.cell("name"), item.cell("enabled"), item.cell("description")]);
                }
                table.render("There are no flags.")
            });
        }
        Flags::Enable { flag } => (flag, true),
        Flags::Disable { flag } => (flag, false),
    };
    let answer = api.put(&format!("{PATH}/{}", segment(flag)), &json!({"enabled": enabled})).await?;
    show(output, &answer, |_| format!("{flag} is {}", if enabled { "on" } else { "off" }))
}

/// `bouncers list|add|remove`.
pub(super) async fn bouncers(command: &Bouncers, api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    const PATH: &str = "/v1/bouncers";
    match command {
        Bouncers::List { search } => show(output, &all(api, PATH, &[("q", search.clone())]).await?, |view| {
            let mut table = Table::new(&["BOUNCER", "IDENTITY", "STATE", "LAST SEEN"]);
            for item in view.list("items") {
                let bridge = item.get("bridge");
                let is_role = !item.text("iam_role_arn").is_empty();
                let identity = if is_role { "iam_role_arn" } else { "spiffe_id" };
                table.row([item.cell("name"), item.cell(identity), bridge.cell("state"), bridge.cell("last_seen_at")]);
            }
            table.render(match search {
                Some(_) => "No bouncer is called so.",
                None => "No bouncer is registered: bouncerctl bouncers add NAME --spiffe-id ID",
            })
        }),
        Bouncers::Add { name, spiffe_id, iam_role } => {
            let body = match iam_role {
                Some(role) => json!({"name": name, "iam_role_arn": role}),
                None => json!({"name": name, "spiffe_id": spiffe_id}),
            };
            let answer = api.register(PATH, &body, Expects::Anything).await?;
            show(output, &answer, |_| format!("added {name}"))
        }
        Bouncers::Remove { name } => {
            let answer = api.delete(&format!("{PATH}/{}", segment(name.as_str())), Expects::Anything).await?;
            show(output, &answer, |_| format!("removed {name}"))
        }
    }
}

/// `resources list|add|remove`.
pub(super) async fn resources(command: &Resources, api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    const PATH: &str = "/v1/protected-resources";
    match command {
        Resources::List(wanted) => {
            let filters = [
                ("q", wanted.search.clone()),
                ("bouncer", wanted.bouncer.as_ref().map(ToString::to_string)),
                ("logical_path", wanted.logical_path.as_ref().map(ToString::to_string)),
                ("enabled", wanted.state.wanted()),
            ];
            let is_filtered = filters.iter().any(|(_, value)| value.is_some());
            show(output, &all(api, PATH, &filters).await?, |view| resources_table(view, is_filtered))
        }
        Resources::Add(add) => {
            let body = json!({
                "name": add.name, "bouncer": add.bouncer, "cluster": add.cluster, "upstream": add.upstream,
                "protocol": add.protocol, "logical_path": add.logical_path, "callers": add.callers,
                "enabled": !add.disabled,
            });
            let answer = api.register(PATH, &body, Expects::Anything).await?;
            show(output, &answer, |view| with_warnings(format!("added {}", add.name), view))
        }
        Resources::Remove { name } => {
            let answer = api.delete(&format!("{PATH}/{}", segment(name.as_str())), Expects::Anything).await?;
            show(output, &answer, |_| format!("removed {name}"))
        }
    }
}

fn resources_table(view: View<'_>, is_filtered: bool) -> String {
    let mut table =
        Table::new(&["RESOURCE", "BOUNCER", "CLUSTER", "UPSTREAM", "PROTOCOL", "ENABLED", "CREDENTIAL", "CALLERS"]);
    for item in view.list("items") {
        table.row(
            ["name", "bouncer", "cluster", "upstream", "protocol", "enabled", "logical_path", "callers"]
                .map(|name| item.cell(name)),
        );
    }
    table.render(match is_filtered {
        true => "No protected resource is as asked for.",
        false => "No protected resource is registered: bouncerctl resources add --help",
    })
}
