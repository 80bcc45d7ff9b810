//! Decisions over time, counted by outcome: what a plot of the audit needs, without its events.

use super::extract::Params;
use super::guard::Caller;
use super::problem::{ApiError, Problems};
use super::{Api, audit};
use crate::store::{AuditBuckets, AuditFilter};
use axum::Json;
use axum::extract::State;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

const DEFAULT: u16 = 60;
const MOST: u16 = 200;
/// Every event of the time is read, so the time is bounded.
const LONGEST: SignedDuration = SignedDuration::from_hours(31 * 24);

/// Which decisions are counted, and how finely. What is left out matches all.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistogramParams {
    /// Not before this (RFC 3339).
    #[param(value_type = String, format = DateTime)]
    from: Timestamp,
    /// Before this (RFC 3339), at most 31 days later.
    #[param(value_type = String, format = DateTime)]
    to: Timestamp,
    /// Into so many parts of the same length at most, 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 60)]
    buckets: Option<u16>,
    /// "inject", "deny", "pass_through", "uses", "rotate" or "revoke".
    #[param(example = "deny")]
    outcome: Option<String>,
    /// A bouncer's name.
    bouncer: Option<String>,
    /// A reason code.
    reason: Option<String>,
    /// A credential's logical path.
    logical_path: Option<String>,
    /// A caller's SPIFFE ID.
    caller: Option<String>,
}

/// Decisions over time.
#[derive(Debug, Serialize, ToSchema)]
pub struct HistogramAnswer {
    #[schema(value_type = String, format = DateTime)]
    from: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    to: Timestamp,
    /// How long each part is, in milliseconds. The last one may be cut off by `to`.
    bucket_ms: i64,
    /// The parts, oldest first, empty ones included.
    items: Vec<BucketAnswer>,
}

/// One part of the time.
#[derive(Debug, Serialize, ToSchema)]
pub struct BucketAnswer {
    /// Where it begins.
    #[schema(value_type = String, format = DateTime)]
    time: Timestamp,
    /// How many streams its events stand for, by outcome. An outcome without any is left out.
    outcomes: BTreeMap<String, u64>,
}

/// How many streams were decided how, over time.
#[utoipa::path(
    get, path = "/v1/audit/histogram", tag = "operations", operation_id = "audit_histogram",
    params(HistogramParams),
    responses(
        (status = 200, body = HistogramAnswer),
        Problems,
    )
)]
pub(super) async fn histogram(
    State(api): State<Api>,
    Caller(principal): Caller,
    Params(params): Params<HistogramParams>,
) -> Result<Json<HistogramAnswer>, ApiError> {
    let (from, to) = (params.from, params.to);
    let (span, items) = parts(from, to, params.buckets.unwrap_or(DEFAULT))?;
    let filter = AuditFilter {
        outcome: audit::outcome(params.outcome)?,
        bouncer: params.bouncer,
        reason: params.reason,
        logical_path: params.logical_path,
        caller: params.caller,
        from: Some(from),
        to: Some(to),
        scope: principal.scope,
    };
    let mut answer = HistogramAnswer { from, to, bucket_ms: span.bucket_ms, items };
    for count in api.store.audit_histogram(&filter, span).await? {
        let bucket = usize::try_from(count.bucket).ok().and_then(|at| answer.items.get_mut(at));
        if let Some(bucket) = bucket {
            bucket.outcomes.insert(count.outcome, count.streams);
        }
    }
    Ok(Json(answer))
}

/// The time in parts, none of them filled.
fn parts(from: Timestamp, to: Timestamp, buckets: u16) -> Result<(AuditBuckets, Vec<BucketAnswer>), ApiError> {
    if !(1..=MOST).contains(&buckets) {
        return Err(ApiError::Query("The parameter 'buckets' must be 1 to 200."));
    }
    let length = to.duration_since(from);
    if length <= SignedDuration::ZERO || length > LONGEST {
        return Err(ApiError::Query("The parameter 'to' must be after 'from', and at most 31 days after it."));
    }
    let (from_ms, to_ms, buckets) = (from.as_millisecond(), to.as_millisecond(), i64::from(buckets));
    // Rounded up, so that there are never more parts than were asked for.
    let bucket_ms = ((to_ms - from_ms + buckets - 1) / buckets).max(1);
    let mut items = Vec::new();
    let mut at = from_ms;
    while at < to_ms {
        let time = Timestamp::from_millisecond(at).map_err(|_| ApiError::Internal)?;
        items.push(BucketAnswer { time, outcomes: BTreeMap::new() });
        at += bucket_ms;
    }
    Ok((AuditBuckets { from_ms, bucket_ms }, items))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_time_and_are_never_more_than_wanted() {
        let at = |ms: i64| Timestamp::from_millisecond(ms).unwrap();
        for (length, buckets) in [(1, 1), (1, 200), (7, 3), (60_000, 60), (3_600_001, 60), (86_400_000, 96)] {
            let (span, items) = parts(at(5), at(5 + length), buckets).unwrap();
            assert!(!items.is_empty() && items.len() <= usize::from(buckets), "{length} {buckets}");
            assert!(span.bucket_ms * i64::try_from(items.len()).unwrap() >= length);
        }
        assert!(parts(at(5), at(5), 1).is_err() && parts(at(5), at(4), 1).is_err());
        assert!(parts(at(0), at(31 * 86_400_000), 201).is_err() && parts(at(0), at(31 * 86_400_000 + 1), 60).is_err());
        assert!(parts(Timestamp::MIN, Timestamp::MAX, 60).is_err());
    }
}
