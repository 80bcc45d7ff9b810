//! `inventory`: which credentials hang on which key.

use super::registered::{self, Registered, Unreadable};
use crate::args::Inventory;
use crate::control_plane::ControlPlane;
use crate::failure::{Exit, Failure};
use crate::output::{Output, Table};
use serde_json::{Value, json};
use std::collections::BTreeMap;

type ByKey = BTreeMap<String, Vec<Registered>>;

/// Lists them, and prints them by key.
///
/// # Errors
/// [`Failure`] if the control plane does not answer, or refuses.
pub(super) async fn inventory(args: &Inventory, api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    let (mut keys, mut unreadable) = (ByKey::new(), Vec::new());
    for secret in registered::list(api).await? {
        match secret {
            Ok(secret) if args.key.as_ref().is_none_or(|key| key == secret.key.as_str()) => {
                keys.entry(secret.key.as_str().to_owned()).or_default().push(secret);
            }
            Ok(_) => {}
            Err(Unreadable(path)) => unreadable.push(path),
        }
    }
    if output.is_json() {
        output.json(&as_json(&keys, &unreadable))?;
    } else {
        output.text(&render(&keys))?;
    }
    for path in unreadable {
        output.warning(&format!("{path} is registered in a way that this version of bouncerctl can't read"));
    }
    Ok(Exit::Ok)
}

fn as_json(keys: &ByKey, unreadable: &[String]) -> Value {
    let secret = |secret: &Registered| {
        json!({
            "id": secret.id, "logical_path": secret.path, "generation": secret.generation, "form": secret.form(),
            "aad": secret.aad, "enabled": secret.enabled,
        })
    };
    let key = |(key, secrets): (&String, &Vec<Registered>)| {
        let provider = secrets.first().map(|secret| secret.key.provider());
        json!({"key_id": key, "provider": provider, "secrets": secrets.iter().map(secret).collect::<Vec<_>>()})
    };
    json!({"keys": keys.iter().map(key).collect::<Vec<_>>(), "unreadable": unreadable})
}

fn render(keys: &ByKey) -> String {
    let mut table = Table::new(&["KEY", "LOGICAL PATH", "GENERATION", "FORM", "ENABLED"]);
    for (key, secrets) in keys {
        for secret in secrets {
            table.row([
                key.clone(),
                secret.path.to_string(),
                secret.generation.to_string(),
                secret.form().to_owned(),
                if secret.enabled { "yes" } else { "no" }.to_owned(),
            ]);
        }
    }
    let mut text = table.render("No credential hangs on any key, or on this one.");
    if !keys.is_empty() {
        text.push('\n');
    }
    for (key, secrets) in keys {
        text.push_str(&format!("\n{}  {key}", secrets.len()));
    }
    text
}
