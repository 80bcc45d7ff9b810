//! Envelope secrets: the metadata of wrapped credentials, by logical path, in generations.

use super::Api;
use super::extract::{Body, Named, PageParams, Params};
use super::fields::Faults;
use super::middleware::Caller;
use super::page::List;
use super::problem::{ApiError, Problems};
use super::warning::{self, Warning};
use crate::certificate::CertificateChain;
use crate::model::{Envelope, EnvelopeRecord, Terms};
use axum::Json;
use axum::extract::State;
use bouncer_custody::{CiphertextRef, EncryptionContext, Generation, KeyId, LogicalPath, Provider};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The metadata of one wrapped credential. No field may hold plaintext.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeBody {
    /// What the credential is called. Registered again, it is a new generation.
    #[schema(example = "protected-resources/payments-api/upstream-tls")]
    logical_path: String,
    /// The KMS key's ARN, or the Vault namespace.
    #[schema(example = "arn:aws:kms:ca-central-1:123456789012:key/abc-123")]
    key_id: String,
    /// The base64 ciphertext blob, or the Vault path. Opaque to the control plane.
    ciphertext_ref: String,
    /// The encryption context, `k=v,k=v`.
    #[schema(example = "env=production,bouncer=payments-east")]
    aad: Option<String>,
    /// "kms_envelope" or "vault_delegate".
    #[schema(example = "kms_envelope")]
    provider: String,
    /// The public chain, PEM of CERTIFICATE blocks only, leaf first.
    certificate_chain: Option<String>,
    /// The generation that this must become; 409 if it would become another, since somebody else registered meanwhile.
    generation: Option<u64>,
    /// Whether bouncers may use it at once; true unless given.
    enabled: Option<bool>,
}

/// Enables or disables.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvelopePatch {
    /// Whether bouncers may use it.
    enabled: bool,
}

/// One generation of an envelope secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnvelopeAnswer {
    /// Of the secret; all generations share it.
    id: Uuid,
    logical_path: String,
    /// Counts the registrations of the path, from 1.
    generation: u64,
    provider: &'static str,
    key_id: String,
    ciphertext_ref: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    aad: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_chain: Option<String>,
    enabled: bool,
    /// How often this generation was disabled and enabled again.
    activation: u64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    created_by: String,
    /// When it was last enabled or disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    changed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed_by: Option<String>,
    /// What is stored but may not do what was meant.
    warnings: Vec<Warning>,
}

impl EnvelopeBody {
    fn parse(self) -> Result<(Envelope, Terms), ApiError> {
        let mut faults = Faults::default();
        let path = faults.take("logical_path", self.logical_path.parse::<LogicalPath>());
        let provider = faults.take("provider", self.provider.parse::<Provider>());
        let key_id = provider.and_then(|provider| faults.take("key_id", KeyId::parse(provider, &self.key_id)));
        let ciphertext_ref = faults.take("ciphertext_ref", self.ciphertext_ref.parse::<CiphertextRef>());
        let aad = self.aad.and_then(|text| faults.take("aad", text.parse::<EncryptionContext>()));
        let certificate_chain =
            self.certificate_chain.and_then(|text| faults.take("certificate_chain", text.parse::<CertificateChain>()));
        let generation = self.generation.and_then(Generation::new);
        if self.generation.is_some() && generation.is_none() {
            faults.add("generation", "must be 1 or more");
        }
        let terms = Terms { generation, enabled: self.enabled.unwrap_or(true) };
        match (path, key_id, ciphertext_ref) {
            (Some(path), Some(key_id), Some(ciphertext_ref)) if faults.is_empty() => {
                Ok((Envelope { path, key_id, ciphertext_ref, aad, certificate_chain }, terms))
            }
            _ => Err(faults.into_error()),
        }
    }
}

fn answer(record: EnvelopeRecord, warnings: Vec<Warning>) -> EnvelopeAnswer {
    let envelope = record.envelope;
    let (changed_at, changed_by) = record.changed.map(|change| (change.at, change.by)).unzip();
    EnvelopeAnswer {
        id: record.id,
        logical_path: envelope.path.into(),
        generation: record.generation.get(),
        provider: envelope.key_id.provider().as_str(),
        key_id: envelope.key_id.as_str().to_owned(),
        ciphertext_ref: envelope.ciphertext_ref.into(),
        aad: envelope.aad.map(String::from),
        certificate_chain: envelope.certificate_chain.map(|chain| chain.as_str().to_owned()),
        enabled: record.enabled,
        activation: record.activation,
        created_at: record.created.at,
        created_by: record.created.by,
        changed_at,
        changed_by,
        warnings,
    }
}

async fn with_warnings(api: &Api, record: EnvelopeRecord) -> Result<EnvelopeAnswer, ApiError> {
    let warnings = warning::of_envelope(api, &record).await?;
    Ok(answer(record, warnings))
}

/// Registers an envelope: the first generation of its path, or the next.
#[utoipa::path(
    post, path = "/v1/crypto/envelope-secrets", tag = "crypto", operation_id = "register_envelope_secret",
    request_body = EnvelopeBody,
    responses(
        (status = 201, body = EnvelopeAnswer),
        Problems,
    )
)]
pub(super) async fn register(
    State(api): State<Api>,
    Caller(actor): Caller,
    Body(body): Body<EnvelopeBody>,
) -> Result<(StatusCode, Json<EnvelopeAnswer>), ApiError> {
    let (envelope, terms) = body.parse()?;
    let record = api.store.register_envelope(&envelope, terms, &actor).await?;
    Ok((StatusCode::CREATED, Json(with_warnings(&api, record).await?)))
}

/// The newest generations of all envelope secrets, by logical path.
#[utoipa::path(
    get, path = "/v1/crypto/envelope-secrets", tag = "crypto", operation_id = "list_envelope_secrets",
    params(PageParams),
    responses(
        (status = 200, body = List<EnvelopeAnswer>),
        Problems,
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<PageParams>,
) -> Result<Json<List<EnvelopeAnswer>>, ApiError> {
    let part = api.store.envelopes(&params.page()?).await?;
    let mut warnings = warning::of_envelopes(&api, &part.items).await?.into_iter();
    let show = |record| answer(record, warnings.next().unwrap_or_default());
    Ok(Json(List::of(part, |record| record.envelope.path.clone(), show)))
}

/// The newest generation of one envelope secret.
#[utoipa::path(
    get, path = "/v1/crypto/envelope-secrets/{id}", tag = "crypto", operation_id = "get_envelope_secret",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = EnvelopeAnswer),
        Problems,
    )
)]
pub(super) async fn get(State(api): State<Api>, Named(id): Named<Uuid>) -> Result<Json<EnvelopeAnswer>, ApiError> {
    let record = api.store.envelope(id).await?.ok_or(ApiError::NotFound("envelope secret"))?;
    Ok(Json(with_warnings(&api, record).await?))
}

/// Enables or disables the newest generation. Enabled again, it gets a new tag.
#[utoipa::path(
    patch, path = "/v1/crypto/envelope-secrets/{id}", tag = "crypto", operation_id = "enable_envelope_secret",
    params(("id" = Uuid, Path)),
    request_body = EnvelopePatch,
    responses(
        (status = 200, body = EnvelopeAnswer),
        Problems,
    )
)]
pub(super) async fn patch(
    State(api): State<Api>,
    Caller(actor): Caller,
    Named(id): Named<Uuid>,
    Body(body): Body<EnvelopePatch>,
) -> Result<Json<EnvelopeAnswer>, ApiError> {
    let record = api.store.set_envelope_enabled(id, body.enabled, &actor).await?;
    Ok(Json(with_warnings(&api, record).await?))
}

/// Deletes an envelope secret. Its history stays, and its path goes on counting generations.
#[utoipa::path(
    delete, path = "/v1/crypto/envelope-secrets/{id}", tag = "crypto", operation_id = "delete_envelope_secret",
    params(("id" = Uuid, Path)),
    responses(
        (status = 204),
        Problems,
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    Caller(actor): Caller,
    Named(id): Named<Uuid>,
) -> Result<StatusCode, ApiError> {
    api.store.delete_envelope(id, &actor).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// All generations of an envelope secret, newest first, also after its deletion.
#[utoipa::path(
    get, path = "/v1/crypto/envelope-secrets/{id}/history", tag = "crypto", operation_id = "envelope_secret_history",
    params(("id" = Uuid, Path), PageParams),
    responses(
        (status = 200, body = List<EnvelopeAnswer>),
        Problems,
    )
)]
pub(super) async fn history(
    State(api): State<Api>,
    Named(id): Named<Uuid>,
    Params(params): Params<PageParams>,
) -> Result<Json<List<EnvelopeAnswer>>, ApiError> {
    let page = params.page::<u64>()?;
    let part = api.store.envelope_history(id, &page).await?;
    if part.items.is_empty() && page.after.is_none() {
        return Err(ApiError::NotFound("envelope secret"));
    }
    Ok(Json(List::of(part, |record| record.generation.get(), |record| answer(record, Vec::new()))))
}
