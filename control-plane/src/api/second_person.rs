//! Which calls change a binding, and what happens to those that do where a second person is asked for.
//!
//! A binding is what gives a caller, a bouncer or an upstream a credential. What gives or moves one waits; what only takes
//! away never does, since an emergency needs no second person. A call that is let through is tied to the revision that was
//! looked at, so that it cannot become another change in between.

use super::Api;
use super::guard::Author;
use super::problem::ApiError;
use super::proposals::{self, ProposalAnswer};
use crate::edit::{Expects, Reason};
use crate::model::{Bouncer, Envelope, EnvelopeRecord, Flag, Resource, Settings, Terms};
use crate::proposal::{Asked, Proposed};
use crate::store::{Conflict, StoreError};
use bouncer_custody::{BouncerIdentity, EncryptionContext, Generation, Hex, LogicalPath, Provider, Reserved};
use http::Method;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What a call is to a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// It may give or move one: then it waits.
    MayGive,
    /// It only takes away.
    TakesAway,
    /// It changes none.
    None,
}

/// What the call of this method on this route is to a binding. `None` if nobody thought of it, and then nobody may make it.
pub(super) fn rule(method: &Method, route: &str) -> Option<Rule> {
    Some(match (method.as_str(), route) {
        ("GET" | "HEAD" | "OPTIONS", _) => Rule::None,
        // A protected resource: waits unless it is the same, or only disabled or closed to callers.
        ("POST", "/v1/protected-resources") | ("PUT", "/v1/protected-resources/{name}") => Rule::MayGive,
        ("DELETE", "/v1/protected-resources/{name}") => Rule::TakesAway,
        // A bouncer: waits unless it is the same.
        ("POST", "/v1/bouncers") | ("PUT", "/v1/bouncers/{name}") => Rule::MayGive,
        ("DELETE", "/v1/bouncers/{name}") => Rule::TakesAway,
        // A secret: waits if it is new, under another key or AAD, elsewhere in Vault, or enabled again.
        ("POST", "/v1/crypto/envelope-secrets" | "/v1/crypto/envelope-secrets/{id}/rollback") => Rule::MayGive,
        ("PATCH", "/v1/crypto/envelope-secrets/{id}") => Rule::MayGive,
        ("DELETE", "/v1/crypto/envelope-secrets/{id}") => Rule::TakesAway,
        // Waits when it is turned on.
        ("PUT", "/v1/feature-flags/{name}") => Rule::MayGive,
        // Waits unless only its notes change.
        ("PUT", "/v1/crypto/settings") => Rule::MayGive,
        // Who may call. A token that was made by whoever proposes is no second person.
        ("POST", "/v1/tokens" | "/v1/session") | ("DELETE", "/v1/tokens/{id}" | "/v1/session") => Rule::None,
        // Deciding on a proposal is what a second person does.
        ("POST", "/v1/proposals/{id}/approve" | "/v1/proposals/{id}/reject") => Rule::None,
        ("DELETE", "/v1/proposals/{id}") => Rule::None,
        _ => return None,
    })
}

/// A change, held against what is there.
struct Compared {
    subject: String,
    logical_path: Option<LogicalPath>,
    former_path: Option<LogicalPath>,
    revision: u64,
    before: Option<Value>,
    after: Value,
    gives: bool,
    reason: Option<Reason>,
}

/// The call's body, as it is stored where it waits. `None` if it need not be looked at: nobody asks for a second person, or one
/// has approved it.
pub(super) fn sent(api: &Api, author: &Author, body: &impl Serialize) -> Result<Option<Value>, ApiError> {
    let may_give = rule(&author.call.method, &author.call.route) == Some(Rule::MayGive);
    if !api.second_person || author.edit.approval.is_some() || !may_give {
        return Ok(None);
    }
    let mut value = serde_json::to_value(body).map_err(|_| ApiError::Internal)?;
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
    }
    Ok(Some(value))
}

type Waits = Option<Box<ProposalAnswer>>;

async fn hold(api: &Api, author: &mut Author, sent: Value, change: Compared) -> Result<Waits, ApiError> {
    if let Some(known) = api.store.proposed_before(&author.edit).await? {
        return proposals::show(api, &author.principal, known).await.map(|answer| Some(Box::new(answer)));
    }
    if change.gives {
        if !author.edit.expects.holds_for(change.revision) {
            return Err(StoreError::from(Conflict::ChangedMeanwhile).into());
        }
        let proposed = Proposed {
            method: author.call.method.to_string(),
            route: author.call.route.clone(),
            path: author.call.path.clone(),
            body: sent.to_string(),
            base_revision: change.revision,
            subject: change.subject,
            logical_path: change.logical_path,
            former_path: change.former_path,
            before: change.before,
            after: change.after,
            reason: change.reason,
        };
        api.store.expire_proposals().await?;
        return match api.store.propose(&proposed, &author.principal, &author.edit).await? {
            Asked::Stored(record) => {
                proposals::show(api, &author.principal, *record).await.map(|answer| Some(Box::new(answer)))
            }
            Asked::MadeBefore => {
                // It is answered by its key; nothing is of no revision, so that it cannot be made anew.
                author.edit.expects = Expects::OneOf(Vec::new());
                Ok(None)
            }
        };
    }
    // Were it to become another change in between, it would have to wait.
    let seen = Some(change.revision).filter(|revision| author.edit.expects.holds_for(*revision));
    author.edit.expects = Expects::OneOf(seen.into_iter().collect());
    Ok(None)
}

fn resource_value(resource: &Resource) -> Value {
    json!({
        "name": resource.name.as_str(),
        "bouncer": resource.bouncer.as_str(),
        "cluster": resource.cluster.as_str(),
        "upstream": resource.upstream.to_string(),
        "protocol": resource.protocol.as_str(),
        "logical_path": resource.path.as_str(),
        "callers": resource.callers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "enabled": resource.enabled,
    })
}

/// Whether the second is the first with less: disabled, or for fewer callers.
fn takes_away(before: &Resource, after: &Resource) -> bool {
    let fewer = after.callers.iter().all(|caller| before.callers.contains(caller));
    let same = Resource { callers: after.callers.clone(), enabled: after.enabled, ..before.clone() } == *after;
    same && fewer && (before.enabled || !after.enabled)
}

/// A protected resource.
pub(super) async fn resource(
    api: &Api,
    author: &mut Author,
    sent: Option<Value>,
    resource: &Resource,
) -> Result<Waits, ApiError> {
    let Some(sent) = sent else { return Ok(None) };
    let known = api.store.resource(&resource.name).await?;
    let gives = match &known {
        None => true,
        // The name is taken, or it is registered already.
        Some(_) if author.call.method == Method::POST => false,
        Some(known) => !takes_away(&known.resource, resource),
    };
    let change = Compared {
        subject: resource.name.to_string(),
        logical_path: Some(resource.path.clone()),
        former_path: known.as_ref().map(|known| known.resource.path.clone()),
        revision: known.as_ref().map_or(0, |known| known.revision),
        before: known.as_ref().map(|known| resource_value(&known.resource)),
        after: resource_value(resource),
        gives,
        reason: None,
    };
    hold(api, author, sent, change).await
}

/// A bouncer.
pub(super) async fn bouncer(
    api: &Api,
    author: &mut Author,
    sent: Option<Value>,
    bouncer: &Bouncer,
) -> Result<Waits, ApiError> {
    let Some(sent) = sent else { return Ok(None) };
    let known = api.store.bouncer(&bouncer.name).await?;
    let gives = match &known {
        None => true,
        Some(_) if author.call.method == Method::POST => false,
        Some(known) => known.bouncer != *bouncer,
    };
    let value = |bouncer: &Bouncer| match &bouncer.identity {
        BouncerIdentity::Spiffe(id) => json!({"name": bouncer.name.as_str(), "spiffe_id": id.as_str()}),
        BouncerIdentity::IamRole(role) => json!({"name": bouncer.name.as_str(), "iam_role_arn": role.as_str()}),
    };
    let change = Compared {
        subject: bouncer.name.to_string(),
        logical_path: None,
        former_path: None,
        revision: known.as_ref().map_or(0, |known| known.revision),
        before: known.as_ref().map(|known| value(&known.bouncer)),
        after: value(bouncer),
        gives,
        reason: None,
    };
    hold(api, author, sent, change).await
}

/// The pairs without the generation's number, which every registration has anew.
fn pairs(aad: Option<&EncryptionContext>) -> Option<Vec<(&str, &str)>> {
    let number = Reserved::Generation.as_str();
    aad.map(|aad| aad.pairs().filter(|(key, _)| *key != number).collect())
}

/// Whether they are the same binding: one key, one set of pairs and, in Vault, one place.
fn same_binding(one: &Envelope, other: &Envelope) -> bool {
    let vault = other.key_id.provider() == Provider::VaultDelegate;
    one.key_id == other.key_id
        && pairs(one.aad.as_ref()) == pairs(other.aad.as_ref())
        && (!vault || one.ciphertext_ref == other.ciphertext_ref)
}

fn envelope_value(envelope: &Envelope, generation: Option<Generation>, enabled: bool) -> Value {
    let reference = match envelope.key_id.provider() {
        Provider::VaultDelegate => envelope.ciphertext_ref.as_str().to_owned(),
        // Nobody reads a ciphertext; whether it is another one is what can be seen.
        Provider::KmsEnvelope => format!("sha256:{}", Hex(&Sha256::digest(envelope.ciphertext_ref.as_str()))),
    };
    let mut value = json!({
        "logical_path": envelope.path.as_str(),
        "provider": envelope.key_id.provider().as_str(),
        "key_id": envelope.key_id.as_str(),
        "ciphertext_ref": reference,
        "enabled": enabled,
    });
    if let Some(aad) = &envelope.aad {
        value["aad"] = aad.as_str().into();
    }
    if let Some(chain) = &envelope.certificate_chain {
        value["expires_at"] = chain.not_after().to_string().into();
    }
    if let Some(generation) = generation {
        value["generation"] = generation.get().into();
    }
    value
}

fn envelope_change(known: Option<&EnvelopeRecord>, envelope: &Envelope, terms: &Terms) -> Compared {
    let gives = known.is_none_or(|known| !same_binding(&known.envelope, envelope) || (terms.enabled && !known.enabled));
    Compared {
        subject: envelope.path.to_string(),
        logical_path: Some(envelope.path.clone()),
        former_path: known.map(|known| known.envelope.path.clone()),
        revision: known.map_or(0, |known| known.revision),
        before: known.map(|known| envelope_value(&known.envelope, Some(known.generation), known.enabled)),
        after: envelope_value(envelope, terms.generation, terms.enabled),
        gives,
        reason: terms.reason.clone(),
    }
}

/// A registration of an envelope.
pub(super) async fn envelope(
    api: &Api,
    author: &mut Author,
    sent: Option<Value>,
    envelope: &Envelope,
    terms: &Terms,
) -> Result<Waits, ApiError> {
    let Some(sent) = sent else { return Ok(None) };
    let known = api.store.envelope_at(&envelope.path).await?;
    hold(api, author, sent, envelope_change(known.as_ref(), envelope, terms)).await
}

/// Back to an earlier generation of `latest`.
pub(super) async fn roll_back(
    api: &Api,
    author: &mut Author,
    sent: Option<Value>,
    latest: &EnvelopeRecord,
    to: Generation,
    reason: Option<&Reason>,
) -> Result<Waits, ApiError> {
    let Some(sent) = sent else { return Ok(None) };
    let page = crate::store::Page { after: to.get().checked_add(1), limit: 1 };
    let old = api.store.envelope_history(latest.id, &page).await?.items.into_iter().find(|old| old.generation == to);
    let old = old.ok_or(ApiError::NotFound("generation"))?;
    if old.is_bound_to_its_generation() {
        return Err(StoreError::from(Conflict::BoundToGeneration).into());
    }
    let terms = Terms { generation: None, enabled: latest.enabled, reason: reason.cloned() };
    hold(api, author, sent, envelope_change(Some(latest), &old.envelope, &terms)).await
}

/// Enabling or disabling what `latest` is.
pub(super) async fn enable(
    api: &Api,
    author: &mut Author,
    sent: Option<Value>,
    latest: &EnvelopeRecord,
    enabled: bool,
    reason: Option<&Reason>,
) -> Result<Waits, ApiError> {
    // Disabled, it takes away, whatever it is by now.
    let Some(sent) = sent.filter(|_| enabled) else { return Ok(None) };
    let terms = Terms { generation: Some(latest.generation), enabled, reason: reason.cloned() };
    hold(api, author, sent, envelope_change(Some(latest), &latest.envelope, &terms)).await
}

/// A flag.
pub(super) async fn flag(
    api: &Api,
    author: &mut Author,
    sent: Option<Value>,
    flag: Flag,
    enabled: bool,
) -> Result<Waits, ApiError> {
    let Some(sent) = sent.filter(|_| enabled) else { return Ok(None) };
    let known = api.store.flag(flag).await?;
    let change = Compared {
        subject: flag.name().to_owned(),
        logical_path: None,
        former_path: None,
        revision: known.revision,
        before: Some(json!({"enabled": known.enabled})),
        after: json!({"enabled": enabled}),
        gives: !known.enabled,
        reason: None,
    };
    hold(api, author, sent, change).await
}

/// The provider settings.
pub(super) async fn settings(
    api: &Api,
    author: &mut Author,
    sent: Option<Value>,
    settings: &Settings,
) -> Result<Waits, ApiError> {
    let Some(sent) = sent else { return Ok(None) };
    let known = api.store.settings().await?;
    let value = |settings: &Settings| {
        json!({
            "provider": settings.key_id.provider().as_str(),
            "key_id": settings.key_id.as_str(),
            "notes": settings.notes,
        })
    };
    let change = Compared {
        subject: "crypto.settings".to_owned(),
        logical_path: None,
        former_path: None,
        revision: known.as_ref().map_or(0, |known| known.revision),
        before: known.as_ref().map(|known| value(&known.settings)),
        after: value(settings),
        gives: known.is_none_or(|known| known.settings.key_id != settings.key_id),
        reason: None,
    };
    hold(api, author, sent, change).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_that_changes_something_has_its_rule() {
        for (route, item) in &super::super::description().paths.paths {
            for (method, call) in [
                (Method::PUT, &item.put),
                (Method::POST, &item.post),
                (Method::DELETE, &item.delete),
                (Method::PATCH, &item.patch),
            ] {
                assert!(call.is_none() || rule(&method, route).is_some(), "{method} {route}");
            }
        }
        assert_eq!(rule(&Method::POST, "/v1/forgotten"), None, "the control");
    }
}
