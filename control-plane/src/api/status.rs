//! `GET /v1/bootstrap/status` and `GET /v1/policy-bridge/health`: how far the set-up has come, what is in the way, and
//! what to do next.

use super::Api;
use super::guard::Caller;
use super::inventory::{self, BouncerHealth};
use super::problem::{ApiError, Problems};
use super::warning::Warning;
use crate::access::{Permission, Principal};
use crate::model::{EnvelopeRecord, Flag, ResourceRecord};
use axum::Json;
use axum::extract::State;
use bouncer_custody::Link;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// Whether something is as it should be, and what to do if not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Check {
    /// It is as it should be.
    ok: bool,
    /// What is, and why.
    detail: String,
    /// What to do; empty if nothing.
    next: String,
}

fn good(detail: impl Into<String>) -> Check {
    Check { ok: true, detail: detail.into(), next: String::new() }
}

fn bad(detail: impl Into<String>, next: impl Into<String>) -> Check {
    Check { ok: false, detail: detail.into(), next: next.into() }
}

/// The feature flag.
#[derive(Debug, Serialize, ToSchema)]
pub struct FlagStatus {
    #[serde(flatten)]
    check: Check,
    name: &'static str,
    enabled: bool,
}

/// The provider settings.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProviderStatus {
    #[serde(flatten)]
    check: Check,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'static str>,
    /// The KMS key's ARN, or the Vault namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
}

/// An envelope with something doubtful about it.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnvelopeWarnings {
    logical_path: String,
    generation: u64,
    warnings: Vec<Warning>,
}

/// The envelope secrets.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnvelopesStatus {
    #[serde(flatten)]
    check: Check,
    count: usize,
    enabled: usize,
    /// Those with something doubtful about them.
    warnings: Vec<EnvelopeWarnings>,
}

/// A protected resource with something doubtful about it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResourceWarnings {
    name: String,
    warnings: Vec<Warning>,
}

/// The protected resources.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResourcesStatus {
    #[serde(flatten)]
    check: Check,
    count: usize,
    enabled: usize,
    /// Those with something doubtful about them.
    warnings: Vec<ResourceWarnings>,
}

/// The bouncers.
#[derive(Debug, Serialize, ToSchema)]
pub struct BouncersStatus {
    #[serde(flatten)]
    check: Check,
    count: usize,
    connected: usize,
    /// Each of them.
    items: Vec<BouncerHealth>,
}

/// The audit, as far as it is about the caller's paths. Numbers and times are left out for those who may not see it.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditStatus {
    #[serde(flatten)]
    check: Check,
    /// All events.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    /// Events that released a credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    injected: Option<u64>,
    /// Events that denied one.
    #[serde(skip_serializing_if = "Option::is_none")]
    denied: Option<u64>,
    /// What ever contradicted its chain as it came in; the export shows each. Absent also for those who are limited to some
    /// paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    divergences: Option<u64>,
    /// The newest event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    last_event_at: Option<Timestamp>,
}

/// One step of the operator guide.
#[derive(Debug, Serialize, ToSchema)]
pub struct Step {
    /// 1 to 4.
    step: u8,
    title: &'static str,
    #[serde(flatten)]
    check: Check,
    /// The parts of this answer that the step consists of.
    checks: Vec<&'static str>,
}

/// How far the set-up has come.
#[derive(Debug, Serialize, ToSchema)]
pub struct BootstrapStatus {
    /// Every step is done.
    #[serde(flatten)]
    check: Check,
    /// The policy epoch.
    epoch: u64,
    /// A connected bouncer runs with --dev. Never for production.
    dev_mode: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dev_warning: Option<&'static str>,
    /// The steps of the operator guide.
    steps: Vec<Step>,
    feature_flag: FlagStatus,
    provider_settings: ProviderStatus,
    envelope_secrets: EnvelopesStatus,
    protected_resources: ResourcesStatus,
    bouncers: BouncersStatus,
    audit: AuditStatus,
}

/// The Policy Bridge's health.
#[derive(Debug, Serialize, ToSchema)]
pub struct BridgeStatus {
    #[serde(flatten)]
    check: Check,
    /// The first link that is broken, the control plane's own before those of bouncers: a code as in `bridge.link`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "svid")]
    link: Option<&'static str>,
    /// The policy epoch.
    epoch: u64,
    /// The Policy Bridge takes connections.
    listening: bool,
    /// The control plane has a valid SVID.
    identity: bool,
    /// Every bouncer.
    items: Vec<BouncerHealth>,
}

async fn flag(api: &Api) -> Result<FlagStatus, ApiError> {
    let flag = Flag::DualCustodyIntercept;
    let enabled = api.store.flag(flag).await?.enabled;
    let check = if enabled {
        good("The feature flag is on.")
    } else {
        bad(
            format!("The feature flag {} is off: every /v1/crypto call is refused, and bouncers deny.", flag.name()),
            format!("PUT /v1/feature-flags/{} with the body {{\"enabled\":true}}.", flag.name()),
        )
    };
    Ok(FlagStatus { check, name: flag.name(), enabled })
}

async fn provider(api: &Api) -> Result<ProviderStatus, ApiError> {
    Ok(match api.store.settings().await? {
        None => ProviderStatus {
            check: bad(
                "No cryptographic provider is chosen.",
                "PUT /v1/crypto/settings with the provider and the customer's key.",
            ),
            provider: None,
            key_id: None,
        },
        Some(record) => {
            let key = &record.settings.key_id;
            ProviderStatus {
                check: good(format!("The provider is {}.", key.provider())),
                provider: Some(key.provider().as_str()),
                key_id: Some(key.as_str().to_owned()),
            }
        }
    })
}

fn envelopes(records: &[(EnvelopeRecord, Vec<Warning>)]) -> EnvelopesStatus {
    let enabled = records.iter().filter(|(record, _)| record.enabled).count();
    let fatal = records.iter().find(|(record, warnings)| record.enabled && warnings.iter().any(Warning::is_fatal));
    let doubtful = records.iter().filter(|(_, warnings)| !warnings.is_empty()).count();
    let check = if enabled == 0 {
        bad("No enabled envelope is registered.", "Wrap a credential with 'bouncerctl wrap' and register the result.")
    } else if let Some((record, _)) = fatal {
        bad(
            format!("The envelope at '{}' could never be unwrapped by any bouncer.", record.envelope.path),
            "See its entry in 'warnings', and register it again.",
        )
    } else if doubtful > 0 {
        Check { next: "See 'warnings'.".into(), ..good(format!("{enabled} enabled, {doubtful} with warnings.")) }
    } else {
        good(format!("{enabled} enabled."))
    };
    let warnings =
        records.iter().filter(|(_, warnings)| !warnings.is_empty()).map(|(record, warnings)| EnvelopeWarnings {
            logical_path: record.envelope.path.to_string(),
            generation: record.generation.get(),
            warnings: warnings.clone(),
        });
    EnvelopesStatus { check, count: records.len(), enabled, warnings: warnings.collect() }
}

fn resources(records: &[(ResourceRecord, Vec<Warning>)]) -> ResourcesStatus {
    let enabled = records.iter().filter(|(record, _)| record.resource.enabled).count();
    // Each of a resource's warnings means that streams to it are denied.
    let denied = records.iter().filter(|(record, _)| record.resource.enabled);
    let denied = denied.flat_map(|(record, warnings)| warnings.iter().map(move |warning| (record, warning))).next();
    let check = if enabled == 0 {
        bad(
            "No enabled protected resource is registered.",
            "POST /v1/protected-resources: which bouncer guards which cluster with which credential, and for whom.",
        )
    } else if let Some((record, warning)) = denied {
        bad(
            format!("'{}': {}", record.resource.name, warning.detail),
            "Register the envelope, or correct the resource with PUT /v1/protected-resources/{name}.",
        )
    } else {
        good(format!("{enabled} enabled."))
    };
    let warnings = records.iter().filter(|(_, warnings)| !warnings.is_empty()).map(|(record, warnings)| {
        ResourceWarnings { name: record.resource.name.to_string(), warnings: warnings.clone() }
    });
    ResourcesStatus { check, count: records.len(), enabled, warnings: warnings.collect() }
}

/// The verdict over all bouncers: the first that is not well.
fn bouncers_check(api: &Api, items: &[BouncerHealth]) -> Check {
    if !api.readiness.identity() {
        return bad(
            "The Policy Bridge is not up: the control plane has no SVID.",
            "Check the Workload API of identity.workload_api and this process's entry there.",
        );
    }
    if !api.readiness.bridge() {
        return bad(
            "The Policy Bridge takes no connections.",
            "Restart the control plane; its log says why the Policy Bridge ended.",
        );
    }
    match items.iter().find(|item| !item.bridge.ok) {
        _ if items.is_empty() => {
            bad("No bouncer is registered.", "POST /v1/bouncers with its name and its resolver's SPIFFE ID.")
        }
        Some(item) => bad(format!("{}: {}", item.name, item.bridge.detail), item.bridge.next.clone()),
        None => good(format!("{} connected, current and ready.", items.len())),
    }
}

async fn audit(api: &Api, caller: &Principal) -> Result<AuditStatus, ApiError> {
    let summary = api.store.audit_summary(&caller.scope).await?;
    let sees = caller.may(Permission::Audit);
    let check = match (summary.injected > 0, sees) {
        (true, true) => {
            good(format!("{} event(s), {} of them released a credential.", summary.events, summary.injected))
        }
        (true, false) => good("Credentials were released, and audited."),
        (false, true) if summary.events > 0 => bad(
            format!("{} event(s), but none released a credential yet.", summary.events),
            "GET /v1/audit/events?outcome=deny shows why streams were denied.",
        ),
        (false, true) => bad("No decision was audited yet.", "Send test traffic through the bouncer's listener."),
        (false, false) => bad(
            "No credential was released yet.",
            "Send test traffic through the bouncer's listener. An auditor sees why streams are denied.",
        ),
    };
    Ok(AuditStatus {
        check,
        count: sees.then_some(summary.events),
        injected: sees.then_some(summary.injected),
        denied: sees.then_some(summary.denied),
        divergences: summary.divergences.filter(|_| sees),
        last_event_at: summary.last.filter(|_| sees),
    })
}

/// The verdict over some parts: the first that is not well.
fn together(parts: &[&Check], all_good: &str) -> Check {
    parts.iter().find(|part| !part.ok).map_or_else(|| good(all_good), |part| (*part).clone())
}

/// How far the set-up has come, what is in the way, and what to do next.
#[utoipa::path(
    get, path = "/v1/bootstrap/status", tag = "operations", operation_id = "bootstrap_status",
    responses(
        (status = 200, body = BootstrapStatus),
        Problems,
    )
)]
pub(super) async fn bootstrap(
    State(api): State<Api>,
    Caller(principal): Caller,
) -> Result<Json<BootstrapStatus>, ApiError> {
    let feature_flag = flag(&api).await?;
    let provider_settings = provider(&api).await?;
    let records = inventory::envelopes(&api, &principal.scope).await?;
    let envelope_secrets = envelopes(&records);
    let protected_resources = resources(&inventory::resources(&api, &principal.scope).await?);
    let (epoch, items) = inventory::bouncers(&api, &principal.scope).await?;
    let dev_mode = inventory::any_dev(&items);
    let bouncers = BouncersStatus {
        check: bouncers_check(&api, &items),
        count: items.len(),
        connected: items.iter().filter(|item| item.bridge.instances > 0).count(),
        items,
    };
    let audit = audit(&api, &principal).await?;
    let step = |step, title, parts: &[&Check], all_good, checks: &[&'static str]| Step {
        step,
        title,
        check: together(parts, all_good),
        checks: checks.to_vec(),
    };
    let steps = vec![
        step(
            1,
            "Choose a cryptographic provider",
            &[&feature_flag.check, &provider_settings.check],
            "The flag is on and a provider is chosen.",
            &["feature_flag", "provider_settings"],
        ),
        step(2, "Map secret paths", &[&envelope_secrets.check], "Envelopes are registered.", &["envelope_secrets"]),
        step(
            3,
            "Connect bouncers and protect resources",
            &[&bouncers.check, &protected_resources.check],
            "Bouncers are connected and guard resources.",
            &["bouncers", "protected_resources"],
        ),
        step(4, "Verify intercept", &[&audit.check], "Credentials were released, and audited.", &["audit"]),
    ];
    let parts: Vec<_> = steps.iter().map(|step| &step.check).collect();
    let check = together(&parts, "Every step is done.");
    let dev_warning = dev_mode.then_some(
        "A BOUNCER RUNS WITH --dev: plain HTTP, loopback backends and file identities are allowed. NOT FOR PRODUCTION.",
    );
    Ok(Json(BootstrapStatus {
        check,
        epoch,
        dev_mode,
        dev_warning,
        steps,
        feature_flag,
        provider_settings,
        envelope_secrets,
        protected_resources,
        bouncers,
        audit,
    }))
}

/// Whether the Policy Bridge is in sync, per bouncer.
#[utoipa::path(
    get, path = "/v1/policy-bridge/health", tag = "operations", operation_id = "policy_bridge_health",
    responses(
        (status = 200, body = BridgeStatus),
        Problems,
    )
)]
pub(super) async fn bridge(State(api): State<Api>, Caller(principal): Caller) -> Result<Json<BridgeStatus>, ApiError> {
    let (epoch, items) = inventory::bouncers(&api, &principal.scope).await?;
    let check = bouncers_check(&api, &items);
    let (listening, identity) = (api.readiness.bridge(), api.readiness.identity());
    let link = match identity {
        false => Some(Link::Svid.code()),
        true => items.iter().find_map(|item| item.bridge.link),
    };
    Ok(Json(BridgeStatus { check, link, epoch, listening, identity, items }))
}
