//! The provider settings.

use super::Api;
use super::extract::Body;
use super::fields::Faults;
use super::guard::{Author, Caller};
use super::outcome::Outcome;
use super::problem::{ApiError, Problems};
use super::proposals::ProposalAnswer;
use super::second_person;
use super::tagged::Tagged;
use super::warning::{self, Warning};
use crate::model::{Settings, SettingsRecord};
use axum::extract::State;
use bouncer_custody::{KeyId, Provider};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Longest `notes`, in bytes.
const NOTES_LIMIT: usize = 2_000;

/// Which provider wraps the credentials, and under which key.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsBody {
    /// "kms_envelope" or "vault_delegate".
    #[schema(example = "kms_envelope")]
    provider: String,
    /// For "kms_envelope": the ARN of the customer's KMS key.
    #[schema(example = "arn:aws:kms:ca-central-1:123456789012:key/abc-123")]
    kms_key_arn: Option<String>,
    /// For "vault_delegate": the customer's namespace.
    vault_namespace: Option<String>,
    /// Free text, at most 2,000 bytes.
    notes: Option<String>,
}

/// The provider settings, as stored.
#[derive(Debug, Serialize, ToSchema)]
pub struct SettingsAnswer {
    provider: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kms_key_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vault_namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notes: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    updated_by: String,
    /// Of the last change. `"r<revision>"` is the entity tag.
    revision: u64,
    /// What is stored but may not do what was meant.
    warnings: Vec<Warning>,
}

impl SettingsBody {
    fn parse(self) -> Result<Settings, ApiError> {
        let mut faults = Faults::default();
        let provider = faults.take("provider", self.provider.parse::<Provider>());
        let (field, wanted, other) = match provider {
            Some(Provider::VaultDelegate) => {
                ("vault_namespace", self.vault_namespace, ("kms_key_arn", self.kms_key_arn))
            }
            _ => ("kms_key_arn", self.kms_key_arn, ("vault_namespace", self.vault_namespace)),
        };
        let mut key_id = None;
        if let Some(provider) = provider {
            match wanted {
                Some(text) => key_id = faults.take(field, KeyId::parse(provider, &text)),
                None => faults.add(field, format_args!("is needed for the provider {provider}")),
            }
            if other.1.is_some() {
                faults.add(other.0, format_args!("does not belong to the provider {provider}"));
            }
        }
        if self.notes.as_ref().is_some_and(|notes| notes.len() > NOTES_LIMIT) {
            faults.add("notes", format_args!("must not be longer than {NOTES_LIMIT} bytes"));
        }
        // Not every database can hold one.
        if self.notes.as_ref().is_some_and(|notes| notes.contains('\0')) {
            faults.add("notes", "must not contain a NUL character");
        }
        match key_id {
            Some(key_id) if faults.is_empty() => Ok(Settings { key_id, notes: self.notes }),
            _ => Err(faults.into_error()),
        }
    }
}

fn answer(record: SettingsRecord, warnings: Vec<Warning>) -> SettingsAnswer {
    let key = record.settings.key_id.as_str().to_owned();
    let provider = record.settings.key_id.provider();
    let (kms_key_arn, vault_namespace) = match provider {
        Provider::KmsEnvelope => (Some(key), None),
        Provider::VaultDelegate => (None, Some(key)),
    };
    SettingsAnswer {
        provider: provider.as_str(),
        kms_key_arn,
        vault_namespace,
        notes: record.settings.notes,
        updated_at: record.changed.at,
        updated_by: record.changed.by,
        revision: record.revision,
        warnings,
    }
}

/// Chooses the cryptographic provider.
#[utoipa::path(
    put, path = "/v1/crypto/settings", tag = "crypto", operation_id = "put_crypto_settings",
    request_body = SettingsBody,
    responses(
        (status = 200, body = SettingsAnswer),
        (status = 202, description = "It waits for a second person", body = ProposalAnswer),
        Problems,
    )
)]
pub(super) async fn put(
    State(api): State<Api>,
    mut author: Author,
    Body(body): Body<SettingsBody>,
) -> Result<Outcome<Tagged<SettingsAnswer>>, ApiError> {
    let sent = second_person::sent(&api, &author, &body)?;
    let settings = body.parse()?;
    if let Some(waits) = second_person::settings(&api, &mut author, sent, &settings).await? {
        return Ok(Outcome::Waits(waits));
    }
    let record = api.store.put_settings(&settings, &author.edit).await?;
    let warnings = warning::of_settings(&api, &settings, &author.principal.scope).await?;
    Ok(Outcome::Done(Tagged { revision: record.revision, body: answer(record, warnings) }))
}

/// The cryptographic provider that was chosen.
#[utoipa::path(
    get, path = "/v1/crypto/settings", tag = "crypto", operation_id = "get_crypto_settings",
    responses(
        (status = 200, body = SettingsAnswer),
        Problems,
    )
)]
pub(super) async fn get(State(api): State<Api>, Caller(principal): Caller) -> Result<Tagged<SettingsAnswer>, ApiError> {
    let record = api.store.settings().await?.ok_or(ApiError::NotFound("provider setting"))?;
    let warnings = warning::of_settings(&api, &record.settings, &principal.scope).await?;
    Ok(Tagged { revision: record.revision, body: answer(record, warnings) })
}
