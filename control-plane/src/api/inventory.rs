//! Everything that status looks at, read once.

use super::Api;
use super::problem::ApiError;
use super::warning::{self, Warning};
use crate::access::Scope;
use crate::bridge::health::{self, BridgeHealth, BridgeState};
use crate::model::{BouncerRecord, EnvelopeRecord, ResourceRecord};
use crate::store::{BouncerFilter, EnvelopeFilter, ResourceFilter, Result};

/// Reads a list of the store to its end. (A closure over the store's futures would not be `Send`.)
macro_rules! all {
    ($store:expr, $list:ident, $filter:expr, $key:expr) => {{
        let (filter, mut items) = ($filter, Vec::new());
        loop {
            let part =
                $store.$list(&filter, &$crate::store::Page { after: items.last().map($key), limit: 500 }).await?;
            items.extend(part.items);
            if !part.more {
                break items;
            }
        }
    }};
}
pub(super) use all;

/// A bouncer and its connection.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct BouncerHealth {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) spiffe_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) iam_role_arn: Option<String>,
    pub(super) bridge: BridgeHealth,
}

/// All envelopes, newest generations, with what is doubtful about each.
pub(super) async fn envelopes(
    api: &Api,
    scope: &Scope,
) -> std::result::Result<Vec<(EnvelopeRecord, Vec<Warning>)>, ApiError> {
    let wanted = EnvelopeFilter { scope: scope.clone(), ..EnvelopeFilter::default() };
    let records = all!(api.store, envelopes, wanted, |record: &EnvelopeRecord| record.envelope.path.clone());
    let warnings = warning::of_envelopes(api, &records).await?;
    Ok(records.into_iter().zip(warnings).collect())
}

/// All protected resources, with what is doubtful about each.
pub(super) async fn resources(
    api: &Api,
    scope: &Scope,
) -> std::result::Result<Vec<(ResourceRecord, Vec<Warning>)>, ApiError> {
    let wanted = ResourceFilter { scope: scope.clone(), ..ResourceFilter::default() };
    let records = all!(api.store, resources, wanted, |record: &ResourceRecord| record.resource.name.clone());
    let mut resources = Vec::with_capacity(records.len());
    for record in records {
        let warnings = warning::of_resource(api, &record, scope).await?;
        resources.push((record, warnings));
    }
    Ok(resources)
}

/// All bouncers, with their connections, and the epoch that they are measured by.
pub(super) async fn bouncers(api: &Api, scope: &Scope) -> Result<(u64, Vec<BouncerHealth>)> {
    let records =
        all!(api.store, bouncers, BouncerFilter::default(), |record: &BouncerRecord| record.bouncer.name.clone());
    let (epoch, now) = (api.store.epoch().await?, api.clock.now());
    let show = records.into_iter().map(|record| BouncerHealth {
        bridge: health::of(&api.live, &record, epoch, now, scope),
        name: record.bouncer.name.into(),
        spiffe_id: record.bouncer.identity.spiffe_id().map(ToString::to_string),
        iam_role_arn: record.bouncer.identity.iam_role().map(ToString::to_string),
    });
    Ok((epoch, show.collect()))
}

/// Whether any bouncer that is connected runs with `--dev`.
pub(super) fn any_dev(bouncers: &[BouncerHealth]) -> bool {
    bouncers.iter().any(|bouncer| bouncer.bridge.dev && bouncer.bridge.state == BridgeState::Connected)
}
