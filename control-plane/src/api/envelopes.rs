//! Envelope secrets: the metadata of wrapped credentials, by logical path, in generations.

use super::Api;
use super::extract::{Body, Keyed, Named, PageParams, Params};
use super::fields::Faults;
use super::guard::{Author, Caller};
use super::outcome::Outcome;
use super::page::{self, List};
use super::problem::{ApiError, Problems};
use super::proposals::ProposalAnswer;
use super::second_person;
use super::tagged::Tagged;
use super::warning::{self, Warning};
use crate::access::{Principal, Scope};
use crate::certificate::CertificateChain;
use crate::edit::Reason;
use crate::model::{Envelope, EnvelopeRecord, Terms};
use crate::store::EnvelopeFilter;
use axum::Json;
use axum::extract::State;
use bouncer_custody::{CiphertextRef, EncryptionContext, Generation, KeyId, LogicalPath, Provider};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// The metadata of one wrapped credential. No field may hold plaintext.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
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
    /// Why, for people: one line, at most 500 bytes.
    #[schema(example = "yearly rotation")]
    reason: Option<String>,
}

/// Enables or disables.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvelopePatch {
    /// Whether bouncers may use it.
    enabled: bool,
    /// Why, for people: one line, at most 500 bytes. It is kept in the list of changes.
    #[schema(example = "key leaked, see INC-1")]
    reason: Option<String>,
}

/// Back to an earlier generation.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollBack {
    /// The generation whose content is registered again.
    #[schema(minimum = 1)]
    generation: u64,
    /// Why, for people: one line, at most 500 bytes.
    #[schema(example = "generation 7 has the wrong chain")]
    reason: Option<String>,
}

/// Which envelope secrets are wanted. What is left out matches all.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EnvelopeParams {
    /// At most so many items, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u16>,
    /// `next_cursor` of the part before.
    cursor: Option<String>,
    /// Only with this in their path.
    #[param(max_length = 255)]
    q: Option<String>,
    /// "kms_envelope" or "vault_delegate".
    provider: Option<String>,
    /// Only under this key or namespace.
    key_id: Option<String>,
    /// Only enabled ones, or only disabled ones.
    enabled: Option<bool>,
    /// Only those whose registered certificate ends before this (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    expires_before: Option<Timestamp>,
}

impl EnvelopeParams {
    fn filter(self, scope: Scope) -> Result<EnvelopeFilter, ApiError> {
        Ok(EnvelopeFilter {
            scope,
            contains: page::search(self.q)?,
            provider: page::name("The parameter 'provider' is no provider.", self.provider)?,
            key_id: self.key_id,
            enabled: self.enabled,
            expires_before: self.expires_before,
        })
    }
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
    /// Why it was registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When the registered certificate ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// Of the secret's last change. `"r<revision>"` is the entity tag.
    revision: u64,
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
        let reason = self.reason.and_then(|text| faults.take("reason", text.parse::<Reason>()));
        let terms = Terms { generation, enabled: self.enabled.unwrap_or(true), reason };
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
        certificate_chain: envelope.certificate_chain.as_ref().map(|chain| chain.as_str().to_owned()),
        enabled: record.enabled,
        activation: record.activation,
        created_at: record.created.at,
        created_by: record.created.by,
        reason: record.reason.map(|reason| reason.as_str().to_owned()),
        expires_at: envelope.certificate_chain.as_ref().map(CertificateChain::not_after),
        revision: record.revision,
        changed_at,
        changed_by,
        warnings,
    }
}

async fn with_warnings(api: &Api, record: EnvelopeRecord) -> Result<Tagged<EnvelopeAnswer>, ApiError> {
    let warnings = warning::of_envelope(api, &record).await?;
    Ok(Tagged { revision: record.revision, body: answer(record, warnings) })
}

const MISSING: ApiError = ApiError::NotFound("envelope secret");

/// The secret's newest generation, if the caller may know of it. A secret never changes its path.
async fn visible(api: &Api, caller: &Principal, id: Uuid) -> Result<EnvelopeRecord, ApiError> {
    let record = api.store.envelope(id).await?;
    record.filter(|record| caller.scope.holds(&record.envelope.path)).ok_or(MISSING)
}

fn reason(text: Option<&str>) -> Result<Option<Reason>, ApiError> {
    let mut faults = Faults::default();
    let reason = text.and_then(|text| faults.take("reason", text.parse::<Reason>()));
    if faults.is_empty() { Ok(reason) } else { Err(faults.into_error()) }
}

/// Registers an envelope: the first generation of its path, or the next.
#[utoipa::path(
    post, path = "/v1/crypto/envelope-secrets", tag = "crypto", operation_id = "register_envelope_secret",
    request_body = EnvelopeBody,
    responses(
        (status = 201, body = EnvelopeAnswer),
        (status = 202, description = "It waits for a second person", body = ProposalAnswer),
        Problems,
    )
)]
pub(super) async fn register(
    State(api): State<Api>,
    mut author: Author,
    Keyed(body, key): Keyed<EnvelopeBody>,
) -> Result<Outcome<(StatusCode, Tagged<EnvelopeAnswer>)>, ApiError> {
    author.edit.key = key;
    let sent = second_person::sent(&api, &author, &body)?;
    let (envelope, terms) = body.parse()?;
    author.require(&envelope.path)?;
    if let Some(waits) = second_person::envelope(&api, &mut author, sent, &envelope, &terms).await? {
        return Ok(Outcome::Waits(waits));
    }
    let record = api.store.register_envelope(&envelope, &terms, &author.edit).await?;
    Ok(Outcome::Done((StatusCode::CREATED, with_warnings(&api, record).await?)))
}

/// The newest generations of all envelope secrets, by logical path.
#[utoipa::path(
    get, path = "/v1/crypto/envelope-secrets", tag = "crypto", operation_id = "list_envelope_secrets",
    params(EnvelopeParams),
    responses(
        (status = 200, body = List<EnvelopeAnswer>),
        Problems,
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    Caller(principal): Caller,
    Params(params): Params<EnvelopeParams>,
) -> Result<Json<List<EnvelopeAnswer>>, ApiError> {
    let page = page::parse(params.limit, params.cursor.as_deref())?;
    let part = api.store.envelopes(&params.filter(principal.scope)?, &page).await?;
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
pub(super) async fn get(
    State(api): State<Api>,
    Caller(principal): Caller,
    Named(id): Named<Uuid>,
) -> Result<Tagged<EnvelopeAnswer>, ApiError> {
    let record = visible(&api, &principal, id).await?;
    with_warnings(&api, record).await
}

/// Enables or disables the newest generation. Enabled again, it gets a new tag.
#[utoipa::path(
    patch, path = "/v1/crypto/envelope-secrets/{id}", tag = "crypto", operation_id = "enable_envelope_secret",
    params(("id" = Uuid, Path)),
    request_body = EnvelopePatch,
    responses(
        (status = 200, body = EnvelopeAnswer),
        (status = 202, description = "It waits for a second person", body = ProposalAnswer),
        Problems,
    )
)]
pub(super) async fn patch(
    State(api): State<Api>,
    mut author: Author,
    Named(id): Named<Uuid>,
    Body(body): Body<EnvelopePatch>,
) -> Result<Outcome<Tagged<EnvelopeAnswer>>, ApiError> {
    let sent = second_person::sent(&api, &author, &body)?;
    let latest = visible(&api, &author.principal, id).await?;
    let reason = reason(body.reason.as_deref())?;
    if let Some(waits) = second_person::enable(&api, &mut author, sent, &latest, body.enabled, reason.as_ref()).await? {
        return Ok(Outcome::Waits(waits));
    }
    let record = api.store.set_envelope_enabled(id, body.enabled, reason.as_ref(), &author.edit).await?;
    Ok(Outcome::Done(with_warnings(&api, record).await?))
}

/// Registers what an earlier generation held as the next one. Refused where its AAD names its number: then it must be
/// wrapped again. What is disabled stays so.
#[utoipa::path(
    post, path = "/v1/crypto/envelope-secrets/{id}/rollback", tag = "crypto",
    operation_id = "roll_envelope_secret_back",
    params(("id" = Uuid, Path)),
    request_body = RollBack,
    responses(
        (status = 201, body = EnvelopeAnswer),
        (status = 202, description = "It waits for a second person", body = ProposalAnswer),
        Problems,
    )
)]
pub(super) async fn roll_back(
    State(api): State<Api>,
    mut author: Author,
    Named(id): Named<Uuid>,
    Keyed(body, key): Keyed<RollBack>,
) -> Result<Outcome<(StatusCode, Tagged<EnvelopeAnswer>)>, ApiError> {
    author.edit.key = key;
    let sent = second_person::sent(&api, &author, &body)?;
    let latest = visible(&api, &author.principal, id).await?;
    let reason = reason(body.reason.as_deref())?;
    let generation = Generation::new(body.generation).ok_or(ApiError::NotFound("generation"))?;
    if let Some(waits) = second_person::roll_back(&api, &mut author, sent, &latest, generation, reason.as_ref()).await?
    {
        return Ok(Outcome::Waits(waits));
    }
    let record = api.store.roll_envelope_back(id, generation, reason.as_ref(), &author.edit).await?;
    Ok(Outcome::Done((StatusCode::CREATED, with_warnings(&api, record).await?)))
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
    author: Author,
    Named(id): Named<Uuid>,
) -> Result<StatusCode, ApiError> {
    visible(&api, &author.principal, id).await?;
    api.store.delete_envelope(id, &author.edit).await?;
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
    Caller(principal): Caller,
    Named(id): Named<Uuid>,
    Params(params): Params<PageParams>,
) -> Result<Json<List<EnvelopeAnswer>>, ApiError> {
    let page = params.page::<u64>()?;
    let part = api.store.envelope_history(id, &page).await?;
    let hidden = part.items.first().is_some_and(|record| !principal.scope.holds(&record.envelope.path));
    if hidden || (part.items.is_empty() && page.after.is_none()) {
        return Err(MISSING);
    }
    Ok(Json(List::of(part, |record| record.generation.get(), |record| answer(record, Vec::new()))))
}
