//! `tokens` and `whoami`: who may do what. A new token is made here. Its text goes to a file or to standard output and
//! nowhere else; the control plane is sent its hash.

use super::inventory::{all, show};
use super::view::View;
use crate::args::{TokenCreate, Tokens};
use crate::control_plane::{ControlPlane, ControlPlaneError, Expects, segment};
use crate::failure::{Exit, Failure};
use crate::files;
use crate::output::{Output, Table};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bouncer_custody::Hex;
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
        Tokens::List(wanted) => {
            let name = wanted.name.as_ref().map(ToString::to_string);
            let filters = [("name", name), ("role", wanted.role.clone()), ("state", wanted.state.clone())];
            let is_filtered = filters.iter().any(|(_, value)| value.is_some());
            show(output, &all(api, PATH, &filters).await?, |view| table(view, is_filtered))
        }
        Tokens::Revoke { token } => {
            let id = match uuid::Uuid::parse_str(token) {
                Ok(id) => id.to_string(),
                Err(_) => {
                    let filters = [("name", Some(token.clone())), ("state", Some("live".to_owned()))];
                    by_name(View(&all(api, PATH, &filters).await?), token)?
                }
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
    let token = generate()?;
    let hash = digest(&SHA256, token.as_bytes());
    let mut body = json!({"name": options.name, "role": options.role, "path_prefixes": options.path_prefixes});
    body["token_sha256"] = Hex(hash.as_ref()).to_string().into();
    if let Some(days) = options.expires_in_days {
        body["expires_in_days"] = days.into();
    }
    // Kept before anybody is asked: whatever breaks from here on, a token that was made is not lost.
    if let Some(path) = &options.out {
        files::keep_secret(path, "token file", &token)?;
    }
    let mut answer = match register(api, &body, &token).await {
        Ok(answer) => answer,
        Err(NotMade { error, open }) => {
            match &options.out {
                Some(path) if open => output.note(&format!(
                    "Whether the token was made is not known. It is kept: bouncerctl whoami --token-file {} tells.",
                    path.display()
                )),
                Some(path) => files::remove_secret(path),
                None => {}
            }
            return Err(error.into());
        }
    };
    let view = View(&answer);
    let said = format!(
        "made token {} (id {}), role {}, which ends {}",
        view.cell("name"),
        view.cell("id"),
        view.cell("role"),
        view.cell("expires_at")
    );
    match &options.out {
        Some(path) => {
            answer["token_file"] = path.to_string_lossy().into();
            show(output, &answer, |_| format!("{said}: in {}", path.display()))
        }
        None if output.is_json() => {
            answer["token"] = token.as_str().into();
            output.json(&answer)?;
            Ok(Exit::Ok)
        }
        None => {
            output.text(&token)?;
            output.note(&said);
            Ok(Exit::Ok)
        }
    }
}

/// A token of 256 random bits, in the form that the control plane takes (RFC 4648, section 5, without padding).
fn generate() -> Result<Zeroizing<String>, Failure> {
    let mut bits = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(bits.as_mut()).map_err(|_| Failure::Unexpected {
        what: "the operating system gave no random bytes for a token",
        advice: "Nothing was asked of the control plane. Try again; if it lasts, look at this machine.",
    })?;
    Ok(Zeroizing::new(format!("bnc_{}", URL_SAFE_NO_PAD.encode(*bits))))
}

/// No token was made, or nobody knows.
struct NotMade {
    error: ControlPlaneError,
    /// It may have been made all the same.
    open: bool,
}

/// Has the token's hash stored. Where the answer is lost the call is sent again, and is the same token; if it was the last
/// that its author could make, the token itself tells that it was made.
async fn register(api: &ControlPlane, body: &Value, token: &str) -> Result<Value, NotMade> {
    match api.post(PATH, body).await {
        Err(error) if error.is_open() => {}
        answered => return answered.map_err(|error| NotMade { error, open: false }),
    }
    let error = match api.post(PATH, body).await {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    let asked = match api.bearing(token) {
        Ok(theirs) => theirs.get("/v1/session").await,
        Err(error) => Err(error),
    };
    match asked {
        Ok(session) => Ok(json!({
            "id": session["token_id"], "name": body["name"], "role": session["role"],
            "path_prefixes": session["path_prefixes"], "expires_at": session["expires_at"],
        })),
        Err(refused) => {
            let open = error.is_open() || !matches!(refused, ControlPlaneError::Unauthorized { .. });
            Err(NotMade { error, open })
        }
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

fn table(view: View<'_>, is_filtered: bool) -> String {
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
    table.render(if is_filtered { "No token is as asked for." } else { "There are no tokens." })
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
