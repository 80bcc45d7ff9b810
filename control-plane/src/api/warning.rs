//! Warnings: what is stored as it was sent, but could never do, or may not do, what was meant.

use super::Api;
use super::inventory::all;
use super::problem::ApiError;
use crate::access::Scope;
use crate::certificate::Validity;
use crate::model::{EnvelopeRecord, ResourceRecord, Settings, SettingsRecord};
use crate::store::EnvelopeFilter;
use bouncer_custody::{BouncerName, BoundBy, CallerPattern, EncryptionContext, KeyId, Reserved, UpstreamPattern};
use serde::Serialize;
use utoipa::ToSchema;

/// Something that was stored, and what is doubtful about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Warning {
    /// Stable, for programs.
    #[schema(example = "ciphertext_never_unwraps")]
    pub code: &'static str,
    /// For people: what, why, and what to do.
    pub detail: String,
}

fn warning(code: &'static str, detail: impl Into<String>) -> Warning {
    Warning { code, detail: detail.into() }
}

/// Codes of warnings after which no bouncer could ever use the envelope.
const FATAL: [&str; 4] =
    ["ciphertext_never_unwraps", "aad_upstream_malformed", "aad_caller_malformed", "aad_generation_mismatch"];

impl Warning {
    /// Whether no bouncer could ever use what this is about.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        FATAL.contains(&self.code)
    }
}

/// What is doubtful about an envelope.
pub(super) async fn of_envelope(api: &Api, record: &EnvelopeRecord) -> Result<Vec<Warning>, ApiError> {
    let settings = api.store.settings().await?;
    one_envelope(api, settings.as_ref(), record).await
}

/// What is doubtful about each of some envelopes, in their order.
pub(super) async fn of_envelopes(api: &Api, records: &[EnvelopeRecord]) -> Result<Vec<Vec<Warning>>, ApiError> {
    let settings = api.store.settings().await?;
    let mut warnings = Vec::with_capacity(records.len());
    for record in records {
        warnings.push(one_envelope(api, settings.as_ref(), record).await?);
    }
    Ok(warnings)
}

async fn one_envelope(
    api: &Api,
    settings: Option<&SettingsRecord>,
    record: &EnvelopeRecord,
) -> Result<Vec<Warning>, ApiError> {
    let mut warnings = Vec::new();
    ciphertext(record, &mut warnings);
    if let Some(settings) = settings {
        key(record, &settings.settings, &mut warnings);
    }
    match (bound_by(record), &record.envelope.aad) {
        (BoundBy::Aad, Some(aad)) => {
            pairs(record, aad, &mut warnings);
            bouncer(api, aad, &mut warnings).await?;
        }
        (BoundBy::Aad, None) => warnings.push(warning(
            "aad_missing",
            "No AAD binds this credential. A bouncer uses it only if its rails name bouncer, upstream and caller \
             themselves (a dedicated key, logical_paths, callers). Wrap it again with at least bouncer=<name>.",
        )),
        (BoundBy::Metadata, Some(_)) => warnings.push(warning(
            "aad_not_proven",
            "For KV v2 only the pairs in the secret's custom metadata bind it. What is registered as aad can deny a \
             stream and never allow one.",
        )),
        (BoundBy::Rails, Some(_)) => warnings.push(warning(
            "aad_ignored",
            "KV v1 and pki have no place for pairs, so bouncers ignore what is registered as aad. Bind the secret by \
             the bouncer's rails (dedicated = true on the mount, logical_paths, callers), or keep it in KV v2.",
        )),
        (BoundBy::Metadata | BoundBy::Rails, None) => {}
    }
    if let Some(chain) = &record.envelope.certificate_chain {
        match chain.validity_at(api.clock.now()) {
            Validity::Current => {}
            Validity::Expired => warnings.push(warning(
                "certificate_expired",
                "The leaf certificate has expired; bouncers refuse to present it. Register a current one.",
            )),
            Validity::NotYet => warnings.push(warning(
                "certificate_not_yet_valid",
                "The leaf certificate is not valid yet; until it is, bouncers refuse to present it.",
            )),
        }
    }
    Ok(warnings)
}

fn ciphertext(record: &EnvelopeRecord, warnings: &mut Vec<Warning>) {
    let is_kms = matches!(record.envelope.key_id, KeyId::Kms(_));
    if is_kms && record.envelope.ciphertext_ref.kms().is_err() {
        warnings.push(warning(
            "ciphertext_never_unwraps",
            "ciphertext_ref is not the standard base64 of a KMS ciphertext blob of at most 6,144 bytes, or of an \
             envelope around one, so no bouncer could ever unwrap it. It may be shortened or an example: register the whole output of 'bouncerctl wrap'.",
        ));
    }
    if !is_kms && record.envelope.ciphertext_ref.vault().is_err() {
        warnings.push(warning(
            "ciphertext_never_unwraps",
            "ciphertext_ref names nothing in a Vault, so no bouncer could ever use it. It must be kv2:mount/path (or only \
             mount/path), kv1:mount/path, pki:mount/role or transit:mount/key#vault:v1:<base64>.",
        ));
    }
}

/// What binds an envelope's secret; a reference that names nothing in a Vault is read as the guide's own.
fn bound_by(record: &EnvelopeRecord) -> BoundBy {
    match record.envelope.key_id {
        KeyId::Kms(_) => BoundBy::Aad,
        KeyId::Vault(_) => {
            record.envelope.ciphertext_ref.vault().map_or(BoundBy::Aad, |reference| reference.engine().bound_by())
        }
    }
}

fn key(record: &EnvelopeRecord, settings: &Settings, warnings: &mut Vec<Warning>) {
    let (own, chosen) = (&record.envelope.key_id, &settings.key_id);
    if own.provider() != chosen.provider() {
        warnings.push(warning(
            "provider_differs",
            format!("The envelope's provider is {}, the settings choose {}.", own.provider(), chosen.provider()),
        ));
    } else if own != chosen {
        warnings.push(warning(
            "key_differs",
            "key_id is another key than the settings name. That works if the bouncer's rails allow the key and its \
             role may use it.",
        ));
    }
}

fn pairs(record: &EnvelopeRecord, aad: &EncryptionContext, warnings: &mut Vec<Warning>) {
    if aad.get(Reserved::Upstream).is_some_and(|text| text.parse::<UpstreamPattern>().is_err()) {
        warnings.push(warning(
            "aad_upstream_malformed",
            "The AAD's upstream= is neither host:port nor '*.' and a suffix, so it matches no destination. Wrap again.",
        ));
    }
    if aad.get(Reserved::Caller).is_some_and(|text| text.parse::<CallerPattern>().is_err()) {
        warnings.push(warning(
            "aad_caller_malformed",
            "The AAD's caller= is no SPIFFE ID or prefix of one, so it matches no caller. Wrap again.",
        ));
    }
    if aad.get(Reserved::Generation).is_some_and(|text| text != record.generation.to_string()) {
        warnings.push(warning(
            "aad_generation_mismatch",
            format!(
                "The AAD's generation= is not {}, which this registration is. Bouncers refuse it; wrap again with \
                 generation={} before registering.",
                record.generation,
                record.generation.get().saturating_add(1)
            ),
        ));
    }
}

async fn bouncer(api: &Api, aad: &EncryptionContext, warnings: &mut Vec<Warning>) -> Result<(), ApiError> {
    let Some(text) = aad.get(Reserved::Bouncer) else {
        warnings.push(warning(
            "aad_bouncer_missing",
            "The AAD does not name a bouncer. Only a bouncer with a key dedicated to it by its rails can use this.",
        ));
        return Ok(());
    };
    let known = match text.parse::<BouncerName>() {
        Ok(name) => api.store.bouncer(&name).await?.is_some(),
        Err(_) => false,
    };
    if !known {
        warnings.push(warning(
            "aad_bouncer_unknown",
            "The AAD's bouncer= names no registered bouncer. Register it with POST /v1/bouncers, or wrap again.",
        ));
    }
    Ok(())
}

/// What is doubtful about a protected resource.
pub(super) async fn of_resource(api: &Api, record: &ResourceRecord, scope: &Scope) -> Result<Vec<Warning>, ApiError> {
    let mut warnings = Vec::new();
    let resource = &record.resource;
    if resource.callers.is_empty() {
        warnings.push(warning("callers_empty", "No caller is listed, so every stream to this resource is denied."));
    }
    match api.store.envelope_at(&resource.path).await? {
        None => warnings.push(warning(
            "envelope_missing",
            "No envelope is registered under the logical path; until one is, streams are denied with envelope_missing.",
        )),
        Some(envelope) if !envelope.enabled => warnings.push(warning(
            "envelope_disabled",
            "The envelope under the logical path is disabled; streams are denied with envelope_missing.",
        )),
        Some(_) => {}
    }
    // Whether a disabled one or not: the resolver does not choose between two that allow a caller.
    let behind = api.store.resources_behind(&resource.bouncer, &resource.cluster).await?;
    let rival = behind.iter().find(|other| other.name != resource.name && other.shares_callers_with(resource));
    if let Some(rival) = rival {
        warnings.push(warning(
            "callers_overlap",
            format!(
                "{} is behind the same cluster and allows some of the same callers; their streams are denied with \
                 resource_ambiguous. Give each caller one resource per cluster.",
                // Of resources that the caller may not know of, it learns only that there is one.
                if scope.holds(&rival.path) { format!("'{}'", rival.name) } else { "Another resource".into() }
            ),
        ));
    }
    Ok(warnings)
}

/// What is doubtful about the provider settings: registered envelopes within the scope that they do not fit.
pub(super) async fn of_settings(api: &Api, settings: &Settings, scope: &Scope) -> Result<Vec<Warning>, ApiError> {
    let wanted = EnvelopeFilter { scope: scope.clone(), ..EnvelopeFilter::default() };
    let records = all!(api.store, envelopes, wanted, |record: &EnvelopeRecord| record.envelope.path.clone());
    let others = records.iter().filter(|record| record.envelope.key_id != settings.key_id).count();
    Ok(if others == 0 {
        Vec::new()
    } else {
        vec![warning(
            "envelopes_differ",
            format!(
                "{others} registered envelope(s) are wrapped under another provider or key. They go on working as \
                 registered; to move them, wrap them again and register the result."
            ),
        )]
    })
}
