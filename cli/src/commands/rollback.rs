//! `secrets rollback`: an earlier generation's content, registered again as the next one.
//!
//! The control plane copies it. Where the AAD names its generation, KMS first has to bind it to the new number.

use super::inventory::{all, show, with_warnings};
use super::registered::{PATH, Registered, Unreadable, find};
use super::rewrap::Unmovable;
use super::successor::{self, Content, Moving};
use super::view::View;
use crate::args::Rollback;
use crate::control_plane::{ControlPlane, Expects, segment};
use crate::failure::{Exit, Failure};
use crate::kms::{self, Kms};
use crate::output::Output;
use bouncer_custody::{Generation, KeyId};
use serde_json::{Value, json};

/// Rolls back, and says what it became.
///
/// # Errors
/// [`Failure`]: nothing of that name or number is registered, KMS does not re-encrypt it, or somebody else changed the
/// credential meanwhile.
pub(super) async fn rollback(options: &Rollback, api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    // Before anything is changed.
    let endpoint = options.kms_endpoint.as_deref().map(|url| kms::endpoint(url, options.dev)).transpose()?;
    let found = find(api, &options.secret).await?;
    let view = View(&found);
    let mut body = json!({"generation": options.to});
    if let Some(reason) = &options.reason {
        body["reason"] = reason.as_str().into();
    }
    let path = format!("{PATH}/{}/rollback", segment(view.text("id")));
    let answer = match api.register(&path, &body, Expects::from(view.number("revision"))).await {
        Err(error) if error.code() == "bound_to_generation" => {
            bind_anew(options, endpoint.as_deref(), view, api).await?
        }
        other => other?,
    };
    show(output, &answer, |answer| {
        let to = format!("what generation {} held is generation {}", options.to, answer.cell("generation"));
        let state = if answer.flag("enabled") == Some(false) { ", and disabled as the one before it" } else { "" };
        with_warnings(format!("rolled back {}: {to}{state}", answer.cell("logical_path")), answer)
    })
}

async fn bind_anew(
    options: &Rollback,
    endpoint: Option<&str>,
    newest: View<'_>,
    api: &ControlPlane,
) -> Result<Value, Failure> {
    let unreadable = |_: Unreadable| Unmovable::Unreadable;
    let newest = Registered::read(newest).map_err(unreadable)?;
    let history = all(api, &format!("{PATH}/{}/history", segment(&newest.id)), &[]).await?;
    let wanted = View(&history).list("items").find(|item| item.number("generation") == Some(options.to));
    let old = Registered::read(wanted.ok_or(Unmovable::NotRegistered)?).map_err(unreadable)?;
    let KeyId::Kms(key) = &old.key else { return Err(Unmovable::GenerationInVault.into()) };
    let next: Generation = newest.generation.next();
    let moving = Moving::new(&old, None, next)?;
    let kms = Kms::connect(key.region(), endpoint, options.dev).await;
    let reference = moving.carry_out(&kms).await?;
    let content = Content { key: &old.key, reference: &reference, aad: moving.aad(), chain: old.chain.as_deref() };
    successor::register(api, &newest, content, options.reason.as_deref()).await
}
