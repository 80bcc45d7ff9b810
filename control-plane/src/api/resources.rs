//! Protected resources: which bouncer guards which upstream with which credential, and for whom.

use super::Api;
use super::extract::{Body, Keyed, Named, Params};
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
use crate::model::{Protocol, Resource, ResourceRecord};
use crate::store::ResourceFilter;
use axum::Json;
use axum::extract::State;
use bouncer_custody::{BouncerName, CallerPattern, ClusterName, LogicalPath, ResourceName, Upstream};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Most callers of one resource.
const CALLERS_LIMIT: usize = 100;

/// An upstream that a bouncer guards with a credential.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourceBody {
    /// May be left out where the path names it.
    #[schema(example = "payments-api")]
    name: Option<String>,
    /// The bouncer that guards it.
    #[schema(example = "payments-east")]
    bouncer: String,
    /// Envoy's cluster that leads to it.
    #[schema(example = "payments")]
    cluster: String,
    /// host:port. Informative: the resolver compares its own rails.
    #[schema(example = "payments.internal:8443")]
    upstream: String,
    /// "mtls" or "https".
    #[schema(example = "mtls")]
    protocol: String,
    /// The credential.
    #[schema(example = "protected-resources/payments-api/upstream-tls")]
    logical_path: String,
    /// SPIFFE IDs, or prefixes of whole path segments ending in "/*". Empty allows no one.
    #[schema(example = json!(["spiffe://example.org/ns/shop/*"]))]
    callers: Vec<String>,
    /// Whether streams to it may have the credential; true if left out.
    enabled: Option<bool>,
}

/// A protected resource, as stored.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResourceAnswer {
    name: String,
    bouncer: String,
    cluster: String,
    upstream: String,
    protocol: &'static str,
    logical_path: String,
    callers: Vec<String>,
    enabled: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    created_by: String,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    updated_by: String,
    /// Of the last change. `"r<revision>"` is the entity tag.
    revision: u64,
    /// What is stored but may not do what was meant.
    warnings: Vec<Warning>,
}

/// Which protected resources are wanted. What is left out matches all.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ResourceParams {
    /// At most so many items, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u16>,
    /// `next_cursor` of the part before.
    cursor: Option<String>,
    /// Only with this in their name.
    #[param(max_length = 255)]
    q: Option<String>,
    /// Only of this bouncer.
    bouncer: Option<String>,
    /// Only of this credential.
    logical_path: Option<String>,
    /// Only enabled ones, or only disabled ones.
    enabled: Option<bool>,
}

impl ResourceParams {
    fn filter(self, scope: Scope) -> Result<ResourceFilter, ApiError> {
        Ok(ResourceFilter {
            scope,
            contains: page::search(self.q)?,
            bouncer: page::name("The parameter 'bouncer' is no bouncer's name.", self.bouncer)?,
            path: page::name("The parameter 'logical_path' is no logical path.", self.logical_path)?,
            enabled: self.enabled,
        })
    }
}

impl ResourceBody {
    /// Parses the body of a call whose path names the resource, or does not.
    fn parse(self, named: Option<ResourceName>) -> Result<Resource, ApiError> {
        let mut faults = Faults::default();
        let name = match (self.name, named) {
            (None, None) => {
                faults.add("name", "is needed");
                None
            }
            (None, Some(named)) => Some(named),
            (Some(text), None) => faults.take("name", text.parse::<ResourceName>()),
            (Some(text), Some(named)) => {
                if text != named.as_str() {
                    faults.add("name", "must be the one that the path names, or be left out");
                }
                Some(named)
            }
        };
        let bouncer = faults.take("bouncer", self.bouncer.parse::<BouncerName>());
        let cluster = faults.take("cluster", self.cluster.parse::<ClusterName>());
        let upstream = faults.take("upstream", self.upstream.parse::<Upstream>());
        let protocol = faults.take("protocol", self.protocol.parse::<Protocol>());
        let path = faults.take("logical_path", self.logical_path.parse::<LogicalPath>());
        if self.callers.len() > CALLERS_LIMIT {
            faults.add("callers", format_args!("must not be more than {CALLERS_LIMIT}"));
        }
        let mut callers = Vec::new();
        for (index, text) in self.callers.iter().enumerate().take(CALLERS_LIMIT) {
            callers.extend(faults.take(&format!("callers[{index}]"), text.parse::<CallerPattern>()));
        }
        let enabled = self.enabled.unwrap_or(true);
        match (name, bouncer, cluster, upstream, protocol, path) {
            (Some(name), Some(bouncer), Some(cluster), Some(upstream), Some(protocol), Some(path))
                if faults.is_empty() =>
            {
                Ok(Resource { name, bouncer, cluster, upstream, protocol, path, callers, enabled })
            }
            _ => Err(faults.into_error()),
        }
    }
}

fn answer(record: ResourceRecord, warnings: Vec<Warning>) -> ResourceAnswer {
    let resource = record.resource;
    ResourceAnswer {
        name: resource.name.into(),
        bouncer: resource.bouncer.into(),
        cluster: resource.cluster.into(),
        upstream: resource.upstream.to_string(),
        protocol: resource.protocol.as_str(),
        logical_path: resource.path.into(),
        callers: resource.callers.iter().map(ToString::to_string).collect(),
        enabled: resource.enabled,
        created_at: record.created.at,
        created_by: record.created.by,
        updated_at: record.updated.at,
        updated_by: record.updated.by,
        revision: record.revision,
        warnings,
    }
}

async fn with_warnings(api: &Api, scope: &Scope, record: ResourceRecord) -> Result<Tagged<ResourceAnswer>, ApiError> {
    let warnings = warning::of_resource(api, &record, scope).await?;
    Ok(Tagged { revision: record.revision, body: answer(record, warnings) })
}

/// The resource of that name, if the caller may know of it.
async fn visible(api: &Api, caller: &Principal, name: &ResourceName) -> Result<ResourceRecord, ApiError> {
    let record = api.store.resource(name).await?.filter(|record| caller.scope.holds(&record.resource.path));
    record.ok_or(ApiError::NotFound("protected resource"))
}

/// Registers a protected resource. The same registration again is no change.
#[utoipa::path(
    post, path = "/v1/protected-resources", tag = "registry", operation_id = "register_protected_resource",
    request_body = ResourceBody,
    responses(
        (status = 201, body = ResourceAnswer),
        (status = 202, description = "It waits for a second person", body = ProposalAnswer),
        Problems,
    )
)]
pub(super) async fn register(
    State(api): State<Api>,
    mut author: Author,
    Keyed(body, key): Keyed<ResourceBody>,
) -> Result<Outcome<(StatusCode, Tagged<ResourceAnswer>)>, ApiError> {
    author.edit.key = key;
    let sent = second_person::sent(&api, &author, &body)?;
    let resource = body.parse(None)?;
    author.require(&resource.path)?;
    if let Some(waits) = second_person::resource(&api, &mut author, sent, &resource).await? {
        return Ok(Outcome::Waits(waits));
    }
    let record = api.store.register_resource(&resource, &author.edit).await?;
    Ok(Outcome::Done((StatusCode::CREATED, with_warnings(&api, &author.principal.scope, record).await?)))
}

/// All protected resources, by name.
#[utoipa::path(
    get, path = "/v1/protected-resources", tag = "registry", operation_id = "list_protected_resources",
    params(ResourceParams),
    responses(
        (status = 200, body = List<ResourceAnswer>),
        Problems,
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    Caller(principal): Caller,
    Params(params): Params<ResourceParams>,
) -> Result<Json<List<ResourceAnswer>>, ApiError> {
    let page = page::parse(params.limit, params.cursor.as_deref())?;
    let part = api.store.resources(&params.filter(principal.scope.clone())?, &page).await?;
    let mut warnings = Vec::with_capacity(part.items.len());
    for record in &part.items {
        warnings.push(warning::of_resource(&api, record, &principal.scope).await?);
    }
    let mut warnings = warnings.into_iter();
    let show = |record| answer(record, warnings.next().unwrap_or_default());
    Ok(Json(List::of(part, |record| record.resource.name.clone(), show)))
}

/// One protected resource.
#[utoipa::path(
    get, path = "/v1/protected-resources/{name}", tag = "registry", operation_id = "get_protected_resource",
    params(("name" = String, Path)),
    responses(
        (status = 200, body = ResourceAnswer),
        Problems,
    )
)]
pub(super) async fn get(
    State(api): State<Api>,
    Caller(principal): Caller,
    Named(name): Named<ResourceName>,
) -> Result<Tagged<ResourceAnswer>, ApiError> {
    let record = visible(&api, &principal, &name).await?;
    with_warnings(&api, &principal.scope, record).await
}

/// Replaces a protected resource.
#[utoipa::path(
    put, path = "/v1/protected-resources/{name}", tag = "registry", operation_id = "put_protected_resource",
    params(("name" = String, Path)),
    request_body = ResourceBody,
    responses(
        (status = 200, body = ResourceAnswer),
        (status = 202, description = "It waits for a second person", body = ProposalAnswer),
        Problems,
    )
)]
pub(super) async fn put(
    State(api): State<Api>,
    mut author: Author,
    Named(name): Named<ResourceName>,
    Body(body): Body<ResourceBody>,
) -> Result<Outcome<Tagged<ResourceAnswer>>, ApiError> {
    let sent = second_person::sent(&api, &author, &body)?;
    let resource = body.parse(Some(name))?;
    let known = visible(&api, &author.principal, &resource.name).await?;
    author.require(&resource.path)?;
    author.pin(known.revision);
    if let Some(waits) = second_person::resource(&api, &mut author, sent, &resource).await? {
        return Ok(Outcome::Waits(waits));
    }
    let record = api.store.replace_resource(&resource, &author.edit).await?;
    Ok(Outcome::Done(with_warnings(&api, &author.principal.scope, record).await?))
}

/// Removes a protected resource.
#[utoipa::path(
    delete, path = "/v1/protected-resources/{name}", tag = "registry", operation_id = "delete_protected_resource",
    params(("name" = String, Path)),
    responses(
        (status = 204),
        Problems,
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    mut author: Author,
    Named(name): Named<ResourceName>,
) -> Result<StatusCode, ApiError> {
    let known = visible(&api, &author.principal, &name).await?;
    author.pin(known.revision);
    api.store.delete_resource(&name, &author.edit).await?;
    Ok(StatusCode::NO_CONTENT)
}
