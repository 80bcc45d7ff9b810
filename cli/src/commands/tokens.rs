//! `tokens` and `whoami`: who may do what. A new token's text goes to a file or to standard output, and nowhere else.

use super::inventory::show;
use super::view::View;
use crate::args::{TokenCreate, Tokens};
use crate::control_plane::{ControlPlane, Expects, segment};
use crate::failure::{Exit, Failure};
use crate::files::Reserved;
use crate::output::{Output, Table};
use serde_json::{Value, json};
use zeroize::Zeroizing;

const PATH: &str = "/v1/tokens";

/// Runs `tokens …`.
///
/// # Errors
/// [`Failure`]: a file that can't be made, then nothing is asked; or what the control plane says against it.
pub(super) async fn tokens(command: &Tokens, api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    match command {
        Tokens::Create(options) => create(options, api, output).await,
        Tokens::List => show(output, &api.get(PATH).await?, table),
        Tokens::Revoke { token } => {
            let id = match uuid::Uuid::parse_str(token) {
                Ok(id) => id.to_string(),
                Err(_) => by_name(View(&api.get(PATH).await?), token)?,
            };
            let answer = api.delete(&format!("{PATH}/{}", segment(&id)), Expects::Anything).await?;
            show(output, &answer, |_| format!("revoked {token}, and ended its sessions"))
        }
    }
}

/// Runs `whoami`.
///
/// # Errors
/// [`Failure`] if the control plane does not answer, or refuses the token.
pub(super) async fn whoami(api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    let answer = api.get("/v1/session").await?;
    show(output, &answer, |view| {
        let limit = match view.cell("path_prefixes").as_str() {
            "-" => "every logical path".to_owned(),
            paths => paths.to_owned(),
        };
        format!(
            "actor        {}\nrole         {}\npermissions  {}\nlimited to   {limit}\nends         {}",
            view.cell("actor"),
            view.cell("role"),
            view.cell("permissions"),
            view.cell("expires_at")
        )
    })
}

async fn create(options: &TokenCreate, api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    let mut body = json!({"name": options.name, "role": options.role, "path_prefixes": options.path_prefixes});
    if let Some(days) = options.expires_in_days {
        body["expires_in_days"] = days.into();
    }
    // First of all a place to keep it: a token for one exchange is used up by the answer.
    let file = options.out.as_deref().map(|path| Reserved::new(path, "token file")).transpose()?;
    let mut answer = match api.post(PATH, &body).await {
        Ok(answer) => answer,
        Err(error) => {
            if let Some(file) = file {
                file.remove();
            }
            return Err(error.into());
        }
    };
    let Some(token) = take(&mut answer) else {
        if let Some(file) = file {
            file.remove();
        }
        return Err(Failure::Unexpected {
            what: "the control plane made a token and did not say which",
            advice: "Revoke it (bouncerctl tokens list), and update the control plane or this program.",
        });
    };
    let view = View(&answer);
    let said = format!(
        "made token {} (id {}), role {}, which ends {}",
        view.cell("name"),
        view.cell("id"),
        view.cell("role"),
        view.cell("expires_at")
    );
    match (file, &options.out) {
        (Some(file), Some(path)) => {
            if let Err(error) = file.fill(&token) {
                output.note(&format!("{said}. Revoke it: it could not be kept."));
                return Err(error.into());
            }
            let mut answer = answer.clone();
            answer["token_file"] = path.to_string_lossy().into();
            show(output, &answer, |_| format!("{said}: in {}", path.display()))
        }
        _ if output.is_json() => {
            answer["token"] = token.as_str().into();
            output.json(&answer)?;
            Ok(Exit::Ok)
        }
        _ => {
            output.text(&token)?;
            output.note(&said);
            Ok(Exit::Ok)
        }
    }
}

/// The token out of the answer to its making.
fn take(answer: &mut Value) -> Option<Zeroizing<String>> {
    match answer.as_object_mut()?.remove("token") {
        Some(Value::String(token)) if !token.is_empty() => Some(Zeroizing::new(token)),
        _ => None,
    }
}

fn by_name(list: View<'_>, name: &str) -> Result<String, Failure> {
    let in_use = |item: &View<'_>| item.text("name") == name && item.text("revoked_at").is_empty();
    let mut found = list.list("items").filter(in_use).map(|item| item.text("id").to_owned());
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => Err(Failure::Usage {
            what: "several tokens that are in use have this name",
            advice: "Give the id of the one that is meant, from `bouncerctl tokens list`.",
        }),
        (None, _) => Err(Failure::Unexpected {
            what: "no token that is in use has this name or id",
            advice: "`bouncerctl tokens list` shows which there are.",
        }),
    }
}

fn table(view: View<'_>) -> String {
    let mut table = Table::new(&["TOKEN", "ROLE", "LIMITED TO", "MADE", "BY", "ENDS", "REVOKED", "ID"]);
    for item in view.list("items") {
        let role = match item.flag("single_use") {
            Some(true) => format!("{}, for one exchange", item.cell("role")),
            _ => item.cell("role"),
        };
        let [name, paths, made, by, ends, revoked, id] =
            ["name", "path_prefixes", "created_at", "created_by", "expires_at", "revoked_at", "id"]
                .map(|name| item.cell(name));
        table.row([name, role, paths, made, by, ends, revoked, id]);
    }
    table.render("There are no tokens.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_one_token_that_is_in_use() {
        let list = json!({"items": [
            {"id": "1", "name": "ci", "revoked_at": "2030-01-01T00:00:00Z"}, {"id": "2", "name": "ci"},
            {"id": "3", "name": "two"}, {"id": "4", "name": "two"},
        ]});
        assert_eq!(by_name(View(&list), "ci").unwrap(), "2");
        assert!(matches!(by_name(View(&list), "two"), Err(Failure::Usage { .. })));
        assert!(matches!(by_name(View(&list), "none"), Err(Failure::Unexpected { .. })));
    }
}
