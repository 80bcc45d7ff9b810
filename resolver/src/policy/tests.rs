use super::*;

fn parse(raw: &wire::Snapshot) -> Policy {
    Policy::parse(raw.clone(), &Endings::default())
}

pub(crate) fn snapshot(epoch: u64) -> wire::Snapshot {
    let envelope = |path: &str| wire::Envelope {
        logical_path: path.into(),
        generation: 1,
        provider: "kms_envelope".into(),
        key_id: "arn:aws:kms:ca-central-1:123456789012:key/abc-123".into(),
        ciphertext_ref: "AQICAHg=".into(),
        aad: Some("env=production,bouncer=payments-east".into()),
        ..Default::default()
    };
    let resource = |name: &str, caller: &str, path: &str| wire::ProtectedResource {
        name: name.into(),
        cluster: "payments".into(),
        upstream: "payments.internal:8443".into(),
        protocol: "mtls".into(),
        logical_path: path.into(),
        callers: vec![caller.into()],
        enabled: true,
    };
    wire::Snapshot {
        epoch,
        bouncer: "payments-east".into(),
        issued_ms: 0,
        intercept_enabled: true,
        resources: vec![
            resource("alice", "spiffe://example.org/alice", "creds/alice"),
            resource("bob", "spiffe://example.org/bob", "creds/bob"),
        ],
        envelopes: vec![envelope("creds/alice"), envelope("creds/bob")],
        more: false,
    }
}

/// One envelope, as the control plane would push it.
pub(crate) fn envelope(path: &str, generation: u64, activation: u64) -> wire::Envelope {
    let like = snapshot(1).envelopes.remove(0);
    wire::Envelope { logical_path: path.into(), generation, activation, ..like }
}

/// A policy with this envelope alone.
pub(crate) fn policy_of(envelope: wire::Envelope) -> Policy {
    parse(&wire::Snapshot { envelopes: vec![envelope], ..snapshot(1) })
}

fn store(folder: &Path) -> PolicyStore {
    PolicyStore::open("payments-east".parse().unwrap(), folder, Duration::from_secs(60)).0
}

fn tags(policy: &Policy, path: &str) -> Tag {
    policy.envelope(&path.parse().unwrap()).unwrap().tag.clone()
}

#[test]
fn callers_of_one_cluster_get_their_own_resource() {
    let policy = parse(&snapshot(1));
    let cluster = "payments".parse().unwrap();
    let resource = |caller: &str| policy.resource(&cluster, &caller.parse().unwrap());
    assert_eq!(resource("spiffe://example.org/alice").unwrap().name.as_str(), "alice");
    assert_eq!(resource("spiffe://example.org/bob").unwrap().name.as_str(), "bob");
    assert_eq!(resource("spiffe://example.org/eve"), Err(Reason::CallerNotAllowed));
    let other = "other".parse().unwrap();
    assert_eq!(policy.resource(&other, &"spiffe://example.org/bob".parse().unwrap()), Err(Reason::NotRegistered));
}

#[test]
fn a_cluster_with_two_credentials_is_told_from_one_with_two_callers() {
    let cluster = "payments".parse().unwrap();
    assert!(!parse(&snapshot(1)).has_one_path(&cluster));
    let mut raw = snapshot(1);
    raw.resources[1].logical_path = "creds/alice".into();
    assert!(parse(&raw).has_one_path(&cluster));
}

#[test]
fn what_can_not_be_used_is_a_reason_and_not_a_guess() {
    let mut raw = snapshot(1);
    raw.envelopes[0].ciphertext_ref = "AQICAHh...opaque-envelope-blob...".into();
    raw.envelopes.push(raw.envelopes[1].clone());
    raw.resources[1].callers = vec!["spiffe://example.org/alice".into()];
    let policy = parse(&raw);
    assert_eq!(policy.envelope(&"creds/alice".parse().unwrap()).unwrap_err(), Reason::EnvelopeMalformed);
    assert_eq!(policy.envelope(&"creds/bob".parse().unwrap()).unwrap_err(), Reason::EnvelopeMalformed);
    assert_eq!(policy.envelope(&"creds/eve".parse().unwrap()).unwrap_err(), Reason::EnvelopeMissing);
    let alice = "spiffe://example.org/alice".parse().unwrap();
    assert_eq!(policy.resource(&"payments".parse().unwrap(), &alice), Err(Reason::ResourceAmbiguous));
    assert_eq!(policy.problems[0], ("creds/alice".to_owned(), Reason::EnvelopeMalformed));
}

#[test]
fn epochs_only_go_up_and_never_change_their_content() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    store.install(snapshot(5)).unwrap();
    assert_eq!(store.install(snapshot(4)).unwrap_err(), Refused::Replayed);
    assert!(store.install(wire::Snapshot { issued_ms: 9, ..snapshot(5) }).is_ok());
    let mut changed = snapshot(5);
    changed.resources[0].callers = vec!["spiffe://example.org/*".into()];
    assert_eq!(store.install(changed).unwrap_err(), Refused::Replayed);
    let other = wire::Snapshot { bouncer: "other".into(), ..snapshot(6) };
    assert_eq!(store.install(other).unwrap_err(), Refused::OtherBouncer);
    assert_eq!(store.epoch(), 5);
}

#[test]
fn the_last_good_snapshot_survives_a_restart_and_a_bad_file_does_not() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(store(folder.path()).current().unwrap_err(), Reason::PolicyMissing);
    store(folder.path()).install(snapshot(5)).unwrap();
    assert_eq!(store(folder.path()).current().unwrap().epoch, 5);
    let (other, problem) = PolicyStore::open("other".parse().unwrap(), folder.path(), Duration::from_secs(60));
    assert!(matches!(problem, Some(LoadError::OtherBouncer)) && other.current().is_err());
    let (old, problem) = PolicyStore::open("payments-east".parse().unwrap(), folder.path(), Duration::ZERO);
    assert!(matches!(problem, Some(LoadError::TooOld)) && old.current().is_err());
    let file = folder.path().join("snapshot");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.truncate(bytes.len() - 1);
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(store(folder.path()).current().unwrap_err(), Reason::PolicyMissing);
}

#[test]
fn changes_name_what_must_end_and_what_must_be_asked_anew() {
    let old = parse(&snapshot(1));
    let after = |change: fn(&mut wire::Snapshot)| {
        let mut raw = snapshot(2);
        change(&mut raw);
        Changes::between(&old, &parse(&raw))
    };
    let payments = vec!["payments".parse().unwrap()];
    assert_eq!(after(|_| {}), Changes::default());
    let rotated = after(|raw| raw.envelopes[0].generation = 2);
    assert_eq!(rotated, Changes { clusters: payments.clone(), revoked: vec![] });
    let revoked = vec![tags(&old, "creds/alice")];
    let expected = Changes { clusters: payments, revoked };
    assert_eq!(after(|raw| drop(raw.envelopes.remove(0))), expected);
    assert_eq!(after(|raw| drop(raw.resources.remove(0))), expected);
    assert_eq!(after(|raw| raw.resources[0].enabled = false), expected);
    assert_eq!(after(|raw| raw.resources[0].callers = vec!["spiffe://example.org/other".into()]), expected);
    assert_eq!(after(|raw| raw.intercept_enabled = false).revoked.len(), 2);
}
