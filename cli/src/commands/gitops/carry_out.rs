//! A plan, carried out change by change: each only if what it changes is as the plan saw it.

use super::super::registered::PATH as SECRETS;
use crate::control_plane::{ControlPlane, ControlPlaneError, Expects, segment};
use crate::declared::{Action, Change, Kind};
use crate::failure::Failure;
use bouncer_custody::{EncryptionContext, Reserved};
use reqwest::Method;
use serde_json::{Value, json};

/// A change of the plan, and what became of it.
#[derive(Debug)]
pub(super) struct Done {
    change: Change,
    end: End,
    /// The proposal as which it waits.
    proposal: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Proposed,
    Failed,
    NotTried,
}

/// Carries out the changes in their order, up to the first that fails; what is to be off is turned off all the same. Notes what
/// became of each.
pub(super) async fn carry_out(api: &ControlPlane, changes: Vec<Change>, done: &mut Vec<Done>) -> Option<Failure> {
    let mut failed = None;
    for change in changes {
        let (end, proposal) = match &failed {
            Some(_) if !change.turns(false) => (End::NotTried, None),
            _ => match one(api, &change).await {
                Ok(_) => (End::Done, None),
                // What waits holds up nothing: what follows is made, waits as well, or fails for want of it.
                Err(error) if error.proposal().is_some() => {
                    let id = error.proposal().and_then(|proposal| proposal["id"].as_str()).unwrap_or_default();
                    (End::Proposed, Some(id.to_owned()))
                }
                Err(error) => {
                    failed = failed.or(Some(Failure::from(error)));
                    (End::Failed, None)
                }
            },
        };
        done.push(Done { change, end, proposal });
    }
    failed
}

async fn one(api: &ControlPlane, change: &Change) -> Result<Value, ControlPlaneError> {
    let on = change.before.as_ref().map_or(Expects::Nothing, |before| Expects::Revision(before.revision));
    let named = |field: &str| {
        let mut body = Value::Object(change.fields.clone());
        body[field] = change.name.as_str().into();
        body
    };
    let name = segment(&change.name);
    match (change.kind, change.action) {
        (Kind::Flag, _) => {
            let body = Value::Object(change.fields.clone());
            api.change(Method::PUT, &format!("/v1/feature-flags/{name}"), &body, on).await
        }
        (Kind::Settings, _) => {
            api.change(Method::PUT, "/v1/crypto/settings", &Value::Object(change.fields.clone()), on).await
        }
        (Kind::Bouncer, Action::Create) => api.register("/v1/bouncers", &named("name"), on).await,
        (Kind::Bouncer, Action::Change) => {
            api.change(Method::PUT, &format!("/v1/bouncers/{name}"), &named("name"), on).await
        }
        (Kind::Bouncer, Action::Delete) => api.delete(&format!("/v1/bouncers/{name}"), on).await,
        (Kind::Resource, Action::Create) => api.register("/v1/protected-resources", &named("name"), on).await,
        (Kind::Resource, Action::Change) => {
            api.change(Method::PUT, &format!("/v1/protected-resources/{name}"), &named("name"), on).await
        }
        (Kind::Resource, Action::Delete) => api.delete(&format!("/v1/protected-resources/{name}"), on).await,
        (Kind::Secret, Action::Delete) => api.delete(&secret(change), on).await,
        (Kind::Secret, Action::Change) if change.differing().all(|field| field.name() == "enabled") => {
            let body = json!({"enabled": change.fields.get("enabled")});
            api.change(Method::PATCH, &secret(change), &body, on).await
        }
        (Kind::Secret, Action::Create | Action::Change) => {
            let mut body = named("logical_path");
            let aad = change.fields.get("aad").and_then(Value::as_str);
            let aad = aad.and_then(|text| text.parse::<EncryptionContext>().ok());
            // Under another number no bouncer could use it.
            if let Some(number) = aad.as_ref().and_then(|aad| aad.get(Reserved::Generation)?.parse::<u64>().ok()) {
                body["generation"] = number.into();
            }
            api.register(SECRETS, &body, on).await
        }
    }
}

fn secret(change: &Change) -> String {
    let id = change.before.as_ref().and_then(|before| before.id.as_deref()).unwrap_or_default();
    format!("{SECRETS}/{}", segment(id))
}

impl Done {
    /// For programs.
    pub(super) fn json(&self) -> Value {
        let mut json = self.change.json();
        json["result"] = match self.end {
            End::Done => "done",
            End::Proposed => "proposed",
            End::Failed => "failed",
            End::NotTried => "not_done",
        }
        .into();
        if let Some(id) = &self.proposal {
            json["proposal"] = id.as_str().into();
        }
        json
    }

    /// Whether it waits for a second person.
    pub(super) const fn waits(&self) -> bool {
        matches!(self.end, End::Proposed)
    }
}

/// What became of each change, for people.
pub(super) fn told(done: &[Done]) -> String {
    let mut lines = vec![String::new()];
    for Done { change, end, proposal } in done {
        let word = match end {
            End::Done => "done",
            End::Proposed => "proposed",
            End::Failed => "FAILED",
            End::NotTried => "not done",
        };
        let how = proposal.as_ref().map(|id| format!(": bouncerctl proposals approve {id}")).unwrap_or_default();
        lines.push(format!("{word:<8}  {}{how}", change.title()));
    }
    let count = |wanted| done.iter().filter(|done| done.end == wanted).count();
    let left = count(End::Failed) + count(End::NotTried);
    let made = match count(End::Proposed) {
        0 => format!("{} done", count(End::Done)),
        waiting => format!("{} done, {waiting} waiting for a second person", count(End::Done)),
    };
    lines.push(match left {
        0 => made,
        _ => format!("{made}, {left} left: what is left is taken up by the next run"),
    });
    lines.join("\n")
}
