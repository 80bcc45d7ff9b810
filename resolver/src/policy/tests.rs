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

/// A revocation that the disk does not take must hold over a restart, and the snapshot before it must not be kept fresh.
#[test]
fn a_snapshot_that_could_not_be_saved_is_tried_again_and_the_one_before_it_is_never_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let running = store(folder.path());
    running.install(snapshot(5)).unwrap();
    running.heard();
    assert_eq!(store(folder.path()).epoch(), 5, "the control");
    let heard = std::fs::read(running.heard_file()).ok();
    let in_the_way = folder.path().join("snapshot.new");
    std::fs::create_dir(&in_the_way).unwrap();
    let revoked = wire::Snapshot { envelopes: vec![envelope("creds/bob", 1, 0)], ..snapshot(6) };
    running.install(revoked.clone()).unwrap();
    for _ in 0..2 {
        assert_eq!(running.current().unwrap().epoch, 6, "it serves on");
        assert_eq!(store(folder.path()).current().unwrap_err(), Reason::PolicyMissing);
        running.state.write().unwrap().saved = None;
        running.heard();
        assert_eq!(std::fs::read(running.heard_file()).ok(), heard, "of a snapshot that is not on disk");
    }
    // Deltas go on meanwhile.
    let next = wire::Snapshot { epoch: 7, ..revoked.clone() };
    running.update(delta(&revoked, &next)).unwrap();
    std::fs::remove_dir(&in_the_way).unwrap();
    running.heard();
    let restarted = store(folder.path());
    let policy = restarted.current().unwrap();
    assert_eq!((policy.epoch, policy.envelope(&"creds/alice".parse().unwrap()).is_err()), (7, true));
    restarted.update(delta(&next, &snapshot(8))).unwrap();
}

#[test]
fn what_was_heard_counts_for_the_snapshot_that_was_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let running = store(folder.path());
    running.install(snapshot(5)).unwrap();
    running.state.write().unwrap().saved = None;
    running.heard();
    let old = |epoch| {
        let contact = unix_ms() - 61_000;
        let content = [&contact.to_be_bytes()[..], &encode(&mut snapshot(epoch))].concat();
        state_file::write(&folder.path().join("snapshot"), &content).unwrap();
        store(folder.path()).current().map(|policy| policy.epoch)
    };
    assert_eq!(old(5), Ok(5), "it was heard since");
    assert_eq!(old(4), Err(Reason::PolicyMissing));
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

fn delta(from: &wire::Snapshot, to: &wire::Snapshot) -> wire::PolicyDelta {
    let outline = bouncer_proto::Outline::of;
    wire::PolicyDelta::between(from.epoch, &outline(from), to.clone(), &outline(to)).unwrap()
}

/// What is in use.
fn shown(store: &PolicyStore) -> (u64, bool, HashMap<ClusterName, Resources>, Vec<String>) {
    let policy = store.latest().unwrap();
    let mut envelopes: Vec<_> = policy.envelopes.iter().map(|one| format!("{one:?}")).collect();
    envelopes.sort();
    (policy.epoch, policy.enabled, policy.resources.clone(), envelopes)
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(48))]

    /// Whatever the policies: by deltas, by snapshots, and by both with restarts between, the same is in use, says the same
    /// of what it changes, and is on disk.
    #[test]
    fn deltas_make_what_snapshots_make(
        steps in proptest::collection::vec((0..3_usize, 1..4_u64, 0..2_u64, proptest::bool::ANY, proptest::bool::ANY), 1..8),
    ) {
        let (by_delta, by_snapshot) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut deltas, snapshots) = (store(by_delta.path()), store(by_snapshot.path()));
        let mut held = snapshot(1);
        deltas.install(held.clone()).unwrap();
        snapshots.install(held.clone()).unwrap();
        for (epoch, (which, generation, activation, drop_one, restart)) in (2..).zip(steps) {
            let mut next = snapshot(epoch);
            match which {
                0 => next.envelopes[0] = envelope("creds/alice", generation, activation),
                1 => next.envelopes.push(envelope("creds/new", generation, activation)),
                _ => next.intercept_enabled = drop_one,
            }
            if drop_one {
                next.resources.pop();
            }
            let changes = deltas.update(delta(&held, &next)).unwrap().1;
            proptest::prop_assert_eq!(&changes, &snapshots.install(next.clone()).unwrap().1);
            if restart {
                deltas = store(by_delta.path());
            }
            proptest::prop_assert_eq!(shown(&deltas), shown(&snapshots));
            proptest::prop_assert_eq!(deltas.held(), snapshots.held());
            held = next;
        }
    }
}

#[test]
fn hostile_deltas_are_refused_and_what_is_in_use_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let first = delta(&snapshot(4), &snapshot(5));
    assert_eq!(store.update(first.clone()).unwrap_err(), DeltaFault::OtherBase.into(), "without a policy");
    store.install(snapshot(5)).unwrap();
    let (before, file) = (shown(&store), std::fs::read(folder.path().join("snapshot")).unwrap());
    let next = wire::Snapshot { envelopes: vec![envelope("creds/alice", 2, 0)], ..snapshot(6) };
    let good = delta(&snapshot(5), &next);
    let refused = |change: &dyn Fn(&mut wire::PolicyDelta)| {
        let mut delta = good.clone();
        change(&mut delta);
        let refused = store.update(delta).unwrap_err().to_string();
        assert_eq!(
            (shown(&store), std::fs::read(folder.path().join("snapshot")).unwrap()),
            (before.clone(), file.clone())
        );
        refused
    };
    assert_eq!(refused(&|d| d.bouncer = "other".into()), "snapshot_of_another_bouncer");
    assert_eq!(refused(&|d| d.from_epoch = 4), "delta_of_another_base");
    assert_eq!(refused(&|d| d.from_epoch = 6), "delta_of_another_base");
    assert_eq!(refused(&|d| d.epoch = 5), "snapshot_replayed");
    assert_eq!(refused(&|d| d.epoch = 3), "snapshot_replayed");
    assert_eq!(refused(&|d| d.digest[31] ^= 1), "delta_diverged");
    assert_eq!(refused(&|d| d.envelopes[0].generation = 9), "delta_diverged");
    assert_eq!(refused(&|d| d.intercept_enabled = false), "delta_diverged");
    assert_eq!(refused(&|d| d.removed_envelopes.push("creds/eve".into())), "delta_malformed");
    assert_eq!(refused(&|d| d.removed_resources.push("eve".into())), "delta_malformed");
    // The control, and then the same again: a replay.
    store.update(good.clone()).unwrap();
    assert_eq!(store.epoch(), 6);
    assert_eq!(store.update(good).unwrap_err(), DeltaFault::OtherBase.into());
    assert_eq!(store.epoch(), 6);
}

#[test]
fn a_delta_never_builds_on_a_file_that_is_not_what_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    store.install(snapshot(5)).unwrap();
    let next = wire::Snapshot { envelopes: vec![], ..snapshot(6) };
    // Whole, of the same epoch, and of something else.
    let mut other = snapshot(5);
    other.resources[0].callers = vec!["spiffe://example.org/*".into()];
    let content = [&unix_ms().to_be_bytes()[..], &encode(&mut other)].concat();
    state_file::write(&folder.path().join("snapshot"), &content).unwrap();
    assert_eq!(store.update(delta(&snapshot(5), &next)).unwrap_err(), DeltaFault::OtherBase.into());
    std::fs::remove_file(folder.path().join("snapshot")).unwrap();
    assert_eq!(store.update(delta(&snapshot(5), &next)).unwrap_err(), DeltaFault::OtherBase.into());
    // What needs no base still counts: the same epoch is confirmed.
    store.update(delta(&snapshot(5), &snapshot(5))).unwrap();
    // The whole puts it right.
    store.install(next.clone()).unwrap();
    store.update(delta(&next, &snapshot(7))).unwrap();
    assert_eq!(store.epoch(), 7);
}

#[test]
fn a_delta_never_makes_a_policy_that_is_too_large() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let long = |path: &str| wire::Envelope { certificate_chain: "x".repeat(LARGEST / 2), ..envelope(path, 1, 0) };
    let half = wire::Snapshot { envelopes: vec![long("creds/alice")], ..snapshot(5) };
    store.install(half.clone()).unwrap();
    let whole = wire::Snapshot { envelopes: vec![long("creds/alice"), long("creds/bob")], ..snapshot(6) };
    assert_eq!(store.update(delta(&half, &whole)).unwrap_err(), Refused::TooLarge);
    assert_eq!(store.epoch(), 5);
}
