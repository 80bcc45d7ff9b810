//! Policy → wire.

use crate::model::{EnvelopeRecord, Policy, Resource};
use bouncer_proto::bridge::v1 as wire;
use jiff::Timestamp;

/// The snapshot of everything that one bouncer may know.
pub(super) fn of(policy: Policy, now: Timestamp) -> wire::Snapshot {
    wire::Snapshot {
        epoch: policy.epoch,
        bouncer: policy.bouncer.name.into(),
        issued_ms: now.as_millisecond(),
        intercept_enabled: policy.intercept_enabled,
        resources: policy.resources.into_iter().map(resource).collect(),
        envelopes: policy.envelopes.into_iter().map(envelope).collect(),
        more: false,
    }
}

fn resource(resource: Resource) -> wire::ProtectedResource {
    wire::ProtectedResource {
        name: resource.name.into(),
        cluster: resource.cluster.into(),
        upstream: resource.upstream.to_string(),
        protocol: resource.protocol.as_str().to_owned(),
        logical_path: resource.path.into(),
        callers: resource.callers.iter().map(ToString::to_string).collect(),
        enabled: resource.enabled,
    }
}

fn envelope(record: EnvelopeRecord) -> wire::Envelope {
    let envelope = record.envelope;
    wire::Envelope {
        logical_path: envelope.path.into(),
        generation: record.generation.get(),
        provider: envelope.key_id.provider().as_str().to_owned(),
        key_id: envelope.key_id.as_str().to_owned(),
        ciphertext_ref: envelope.ciphertext_ref.into(),
        aad: envelope.aad.map(String::from),
        certificate_chain: envelope.certificate_chain.map(|chain| chain.as_str().to_owned()).unwrap_or_default(),
        activation: record.activation,
        revoked_through: record.revoked_through,
    }
}
