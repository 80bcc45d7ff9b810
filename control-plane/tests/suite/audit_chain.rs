//! The audit as evidence: what is exported verifies, what was changed in the database does not, and what contradicts a
//! chain as it comes in is kept and shown.

use crate::chained::{Domain, Spool};
use crate::harness::{ControlPlane, spiffe_id};
use crate::resolver::{Resolver, event};
use bouncer_audit::{ChainPoint, ChainReport, Owner, What};
use bouncer_control_plane::clock::SystemClock;
use bouncer_control_plane::model::Position;
use bouncer_control_plane::own_chain;
use bouncer_control_plane::store::{Pruned, Retention};
use bouncer_proto::bridge::v1::{AuditEvent, Checkpoint};
use futures::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

const EXPORT: &str = "/v1/audit/export";

struct Scene {
    plane: ControlPlane,
    resolver: Resolver,
    domain: Domain,
    spool: Spool,
}

/// A connected resolver that chains.
async fn scene() -> Scene {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    let mut resolver = Resolver::connect(&plane, "payments-east", 0).await;
    resolver.snapshot().await;
    let domain = Domain::new();
    let spool = Spool::new(&domain, "payments-east", 1);
    Scene { plane, resolver, domain, spool }
}

impl Scene {
    /// So many events, signed, and stored.
    async fn signed(&mut self, events: u64) {
        let events = self.spool.events(events);
        let checkpoint = Some(self.spool.checkpoint());
        self.resolver.batch(events, checkpoint).await;
        self.resolver.audit_ack().await;
    }

    async fn unsigned(&mut self, events: Vec<AuditEvent>) {
        self.resolver.audit(events).await;
        self.resolver.audit_ack().await;
    }

    async fn export(&self, query: &str) -> String {
        let answer = self.plane.get(&format!("{EXPORT}?{query}")).await;
        assert!(answer.status.is_success(), "{}", answer.text);
        answer.text
    }

    /// Signs the control plane's own chain, as it does from time to time.
    async fn sign_own(&self) {
        let signer = self.domain.svid("spiffe://example.org/bouncer/control-plane");
        own_chain::sign(&*self.plane.store, &SystemClock, &signer).await.unwrap();
    }

    /// What becomes of the export once the database was changed behind the control plane's back.
    async fn tampered(&self, sql: &'static str) -> Vec<What> {
        assert!(self.plane.place.execute(sql).await > 0, "{sql}");
        self.faults("").await
    }

    async fn faults(&self, query: &str) -> Vec<What> {
        let report = self.domain.verify(&self.export(query).await);
        report.faults.into_iter().map(|fault| fault.what).collect()
    }

    async fn divergences(&self) -> Vec<Value> {
        lines(&self.export("").await).into_iter().filter(|line| line["type"] == "divergence").collect()
    }
}

fn lines(export: &str) -> Vec<Value> {
    export.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn chain_of<'a>(chains: &'a [ChainReport], owner: &Owner) -> &'a ChainReport {
    chains.iter().find(|chain| chain.owner.as_ref() == Some(owner)).unwrap()
}

fn east() -> Owner {
    Owner::Bouncer("payments-east".into())
}

#[tokio::test]
async fn an_export_verifies_with_nothing_but_the_bundle_also_after_a_restart() {
    let mut scene = scene().await;
    scene.signed(3).await;
    scene.sign_own().await;
    let tail = scene.spool.events(2);
    scene.unsigned(tail.clone()).await;
    // Again, as after a lost acknowledgement, and the checkpoint alone.
    let checkpoint = scene.spool.checkpoint();
    scene.resolver.batch(Vec::new(), Some(checkpoint.clone())).await;
    scene.resolver.batch(tail, Some(checkpoint)).await;
    scene.resolver.audit_ack().await;
    let more = scene.spool.events(1);
    scene.unsigned(more).await;
    let scene = Scene { plane: scene.plane.restarted().await, ..scene };
    scene.plane.register_bouncer("payments-west").await;
    scene.sign_own().await;

    let export = scene.export("").await;
    let report = scene.domain.verify(&export);
    assert!(report.faults.is_empty(), "{:?}\n{export}", report.faults);
    let chain = chain_of(&report.chains, &east());
    assert_eq!((chain.events, chain.checkpoints, chain.signed_through, chain.not_yet_signed), (6, 2, 5, 1));
    assert_eq!(chain.spiffe_id.as_ref().unwrap().as_str(), spiffe_id("payments-east"));
    let own = chain_of(&report.chains, &Owner::ControlPlane);
    let changes = lines(&export).iter().filter(|line| line["type"] == "admin_event").count();
    assert_eq!((own.events, own.checkpoints, own.not_yet_signed), (changes as u64, 2, 0));
    assert_eq!((report.unchained, report.divergences), (0, 0));
    let health = scene.plane.get("/v1/bouncers/payments-east").await.ok()["bridge"].clone();
    assert_eq!(health["audit_divergences"], 0);
}

#[tokio::test]
async fn what_is_changed_in_the_database_shows() {
    let changes = [
        ("UPDATE audit_events SET caller = 'x' WHERE sequence = 2", What::Changed),
        ("UPDATE audit_events SET outcome = 'deny' WHERE sequence = 2", What::Changed),
        ("UPDATE audit_events SET time_ms = time_ms + 1 WHERE sequence = 2", What::Changed),
        ("DELETE FROM audit_events WHERE sequence = 2", What::MissingBefore(1)),
        ("DELETE FROM audit_events WHERE sequence = 4", What::MissingBefore(3)),
        (
            "DELETE FROM audit_checkpoints WHERE number = 2 AND owner <> 'control-plane'",
            What::CheckpointMissing { expected: 2, found: 3 },
        ),
        ("UPDATE admin_events SET actor = 'x' WHERE sequence = 2", What::Changed),
        ("DELETE FROM admin_events WHERE sequence = 2", What::Gap { expected: 2, found: 3 }),
    ];
    for (sql, what) in changes {
        let mut scene = scene().await;
        for _ in 0..4 {
            scene.signed(1).await;
        }
        scene.sign_own().await;
        assert_eq!(scene.faults("").await, [], "the control");
        assert_eq!(scene.tampered(sql).await, [what], "{sql}");
    }
    // What was removed up to a checkpoint looks like retention, and is told as what is not there.
    let mut scene = scene().await;
    scene.signed(1).await;
    scene.signed(1).await;
    scene.tampered("DELETE FROM audit_events WHERE sequence = 1").await;
    let report = scene.domain.verify(&scene.export("").await);
    assert_eq!(chain_of(&report.chains, &east()).before, 1);
}

#[tokio::test]
async fn a_range_is_stretched_to_checkpoints_and_verifies_by_itself() {
    let mut scene = scene().await;
    for _ in 0..4 {
        scene.signed(3).await;
    }
    // Events 5 to 8, by the time that the resolver wrote.
    let time = |sequence: i64| Timestamp::from_millisecond(1_790_000_000_000 + sequence).unwrap();
    let query = format!("from={}&to={}&bouncer=payments-east", time(5), time(9));
    let export = scene.export(&query).await;
    let report = scene.domain.verify(&export);
    assert!(report.faults.is_empty(), "{:?}\n{export}", report.faults);
    let chain = chain_of(&report.chains, &east());
    assert_eq!((chain.before, chain.events, chain.last, chain.not_yet_signed), (3, 6, 9, 0));
    assert_eq!(report.chains.len(), 1, "only the bouncer's");
    let empty = lines(&scene.export("bouncer=payments-west").await);
    assert_eq!(empty, [json!({"type": "end", "lines": 0})]);
    for bad in ["format=xml", "from=yesterday", "since=1"] {
        assert_eq!(scene.plane.get(&format!("{EXPORT}?{bad}")).await.code(), "invalid_query", "{bad}");
    }
    let turned = format!("{EXPORT}?from={}&to={}", time(9), time(5));
    assert_eq!(scene.plane.get(&turned).await.code(), "invalid_query");
}

#[tokio::test]
async fn events_that_do_not_follow_are_kept_and_shown() {
    // What is missing, what was chained otherwise, what is there twice, and what comes again as something else.
    type Wrong = fn(&mut Spool) -> Vec<AuditEvent>;
    let wrongs: [(&str, Wrong); 4] = [
        ("gap", |spool| spool.events(3).split_off(2)),
        ("link", |spool| spool.events(1).into_iter().map(|event| AuditEvent { count: 9, ..event }).collect()),
        ("conflict", |spool| {
            let before = spool.at.clone();
            let honest = spool.next_with(|_| {});
            spool.at = before;
            let id = "0199d7a0-0000-7000-8000-00000000ffff";
            vec![honest, spool.next_with(|event| event.id = id.into())]
        }),
        ("conflict", |spool| {
            let before = spool.at.clone();
            let honest = spool.next_with(|_| {});
            spool.at = before;
            vec![honest, spool.next_with(|event| event.count = 9)]
        }),
    ];
    for (kind, wrong) in wrongs {
        let mut scene = scene().await;
        scene.signed(2).await;
        assert_eq!(scene.divergences().await, Vec::<Value>::new(), "the control");
        let events = wrong(&mut scene.spool);
        scene.unsigned(events).await;
        let divergences = scene.divergences().await;
        assert_eq!(divergences.len(), 1, "{kind}: {divergences:?}");
        assert_eq!((&divergences[0]["kind"], &divergences[0]["bouncer"]), (&json!(kind), &json!("payments-east")));
        let health = scene.plane.get("/v1/bouncers/payments-east").await.ok()["bridge"].clone();
        assert_eq!((&health["audit_divergences"], &health["ok"]), (&json!(1), &json!(false)), "{kind}");
        assert_eq!(scene.plane.get("/v1/bootstrap/status").await.ok()["audit"]["divergences"], 1);
        let metrics = scene.plane.get("/metrics").await.text;
        assert!(metrics.contains("bouncer_control_plane_audit_divergences_total 1"), "{metrics}");
    }
}

#[tokio::test]
async fn checkpoints_that_are_no_good_are_kept_and_shown() {
    let mut scene = scene().await;
    scene.signed(2).await;
    // Made for another bouncer, and passed off as this one's.
    let mut west = Spool::new(&scene.domain, "payments-west", 1);
    (west.at, west.number) = (scene.spool.at.clone(), scene.spool.number);
    let foreign = Checkpoint { bouncer: "payments-east".into(), ..west.checkpoint() };
    scene.resolver.batch(Vec::new(), Some(foreign)).await;
    scene.spool.number += 1;
    let events = scene.spool.events(1);
    let mut forged = scene.spool.checkpoint();
    forged.time_ms += 1;
    scene.resolver.batch(events, Some(forged)).await;
    scene.resolver.audit_ack().await;
    let mut over_others = scene.spool.checkpoint();
    over_others.number = 1;
    scene.resolver.batch(scene.spool.events(1), Some(over_others)).await;
    scene.resolver.audit_ack().await;
    let kinds: Vec<_> = scene.divergences().await.iter().map(|line| line["kind"].clone()).collect();
    assert_eq!(kinds, ["checkpoint_signature", "checkpoint_signature", "checkpoint_conflict"]);
    let checkpoints = lines(&scene.export("").await);
    assert_eq!(checkpoints.iter().filter(|line| line["type"] == "checkpoint").count(), 3, "kept all the same");
    assert!(!scene.faults("").await.is_empty());
}

#[tokio::test]
async fn a_checkpoint_under_another_identity_is_told() {
    let mut scene = scene().await;
    let mut impostor = Spool::new(&scene.domain, "payments-east", 1);
    impostor.sign_as(&scene.domain, "payments-west");
    scene.resolver.batch(impostor.events(1), Some(impostor.checkpoint())).await;
    scene.resolver.audit_ack().await;
    let divergences = scene.divergences().await;
    assert_eq!(divergences[0]["kind"], "checkpoint_identity");
}

#[tokio::test]
async fn no_bouncer_can_write_into_anothers_chain() {
    let mut scene = scene().await;
    scene.signed(2).await;
    scene.plane.register_bouncer("payments-west").await;
    let mut west = Resolver::connect(&scene.plane, "payments-west", 0).await;
    west.snapshot().await;
    let mut intruder = Spool::new(&scene.domain, "payments-west", 1);
    west.batch(intruder.events(3), Some(intruder.checkpoint())).await;
    west.audit_ack().await;
    let report = scene.domain.verify(&scene.export("").await);
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert_eq!(chain_of(&report.chains, &east()).events, 2);
    assert_eq!((report.unchained, report.divergences), (3, 4));
}

#[tokio::test]
async fn a_withheld_text_leaves_the_rest_proven() {
    let mut scene = scene().await;
    let token = format!("{}{}", "ghp_", "0123456789abcdefABCDEF0123456789abcd");
    let denied = scene.spool.next_with(|event| event.authority = token.clone());
    let checkpoint = Some(scene.spool.checkpoint());
    scene.resolver.batch(vec![denied], checkpoint).await;
    scene.resolver.audit_ack().await;
    let export = scene.export("").await;
    assert!(!export.contains(&token));
    let report = scene.domain.verify(&export);
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert_eq!(chain_of(&report.chains, &east()).withheld, 1);
}

#[tokio::test]
async fn events_from_before_the_chain_are_exported_as_such() {
    let mut scene = scene().await;
    scene.unsigned(vec![event(1, "inject"), event(2, "deny")]).await;
    scene.plane.place.execute("UPDATE admin_events SET sequence = NULL, leaf = NULL, head = NULL").await;
    scene.plane.place.execute("DELETE FROM audit_chains").await;
    scene.plane.register_bouncer("payments-west").await;
    let export = scene.export("").await;
    let report = scene.domain.verify(&export);
    assert!(report.faults.is_empty(), "{:?}\n{export}", report.faults);
    let before = lines(&export).iter().filter(|line| line["chain"].is_null() && line["type"] != "end").count();
    assert!(before > 2, "both kinds: {export}");
    assert_eq!(report.unchained, before as u64, "{export}");
    assert_eq!(chain_of(&report.chains, &Owner::ControlPlane).events, 1);
}

#[tokio::test]
async fn retention_removes_what_is_old_and_signed_and_the_rest_still_verifies() {
    let mut scene = scene().await;
    for _ in 0..3 {
        scene.signed(3).await;
    }
    let tail = scene.spool.events(2);
    scene.unsigned(tail).await;
    let time = |sequence: i64| Timestamp::from_millisecond(1_790_000_000_000 + sequence).unwrap();
    let old = |before| Retention { before, ..Retention::default() };
    assert_eq!(scene.plane.store.prune_audit(&old(time(1))).await.unwrap().events, 0, "nothing is that old");
    // Event 5 is to stay, so all that the second checkpoint covers beside it is too.
    assert_eq!(scene.plane.store.prune_audit(&old(time(5))).await.unwrap().events, 3);
    let report = scene.domain.verify(&scene.export("").await);
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    let chain = chain_of(&report.chains, &east());
    assert_eq!((chain.before, chain.events, chain.last), (3, 8, 11));
    // All are old now, and the unsigned tail stays.
    assert_eq!(scene.plane.store.prune_audit(&old(time(100))).await.unwrap().events, 6);
    let report = scene.domain.verify(&scene.export("").await);
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    let chain = chain_of(&report.chains, &east());
    assert_eq!((chain.before, chain.events, chain.not_yet_signed), (9, 2, 2));
    let pruned = scene.plane.get("/v1/audit/admin-events?limit=1").await.ok()["items"][0].clone();
    assert_eq!((&pruned["action"], &pruned["actor"]), (&json!("audit.pruned"), &json!("control-plane")));
    // Then the tail is signed, goes too, and its checkpoint still tells of it.
    let checkpoint = Some(scene.spool.checkpoint());
    let more = scene.spool.events(1);
    scene.resolver.batch(more, checkpoint).await;
    scene.resolver.audit_ack().await;
    scene.signed(1).await;
    assert_eq!(scene.plane.store.prune_audit(&old(time(100))).await.unwrap().events, 4);
    let report = scene.domain.verify(&scene.export("").await);
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert_eq!(chain_of(&report.chains, &east()).before, 13);
}

#[tokio::test]
async fn retention_removes_what_is_old_of_a_chain_that_nothing_signs_and_the_rest_still_verifies() {
    let mut scene = scene().await;
    let time = |sequence: i64| Timestamp::from_millisecond(1_790_000_000_000 + sequence).unwrap();
    let old = |before| Retention { before, ..Retention::default() };
    // More than is removed in one transaction.
    for _ in 0..4 {
        let events = scene.spool.events(600);
        scene.unsigned(events).await;
    }
    assert_eq!(scene.plane.store.prune_audit(&old(time(1))).await.unwrap().events, 0, "nothing is that old");
    assert_eq!(scene.plane.store.prune_audit(&old(time(2_301))).await.unwrap().events, 2_300);
    let export = scene.export("").await;
    let unsigned = |scene: &Scene, export: &str| scene.domain.verify_unsigned(export, Some(east()));
    let report = unsigned(&scene, &export);
    assert_eq!(report.faults, []);
    let chain = chain_of(&report.chains, &east());
    assert_eq!((chain.before, chain.events, chain.last, chain.unsigned), (2_300, 100, 2_400, true));
    let faults: Vec<_> = scene.domain.verify(&export).faults.into_iter().map(|fault| fault.what).collect();
    assert_eq!(faults, [What::Unsigned], "the control: it is good only where that was said of it");

    // All are old now, and it goes on from there.
    assert_eq!(scene.plane.store.prune_audit(&old(time(9_000))).await.unwrap().events, 100);
    let none = lines(&scene.export("bouncer=payments-east").await);
    assert_eq!(none, [json!({"type": "end", "lines": 0})]);
    let more = scene.spool.events(2);
    scene.unsigned(more).await;
    let report = unsigned(&scene, &scene.export("").await);
    assert_eq!(report.faults, []);
    assert_eq!(chain_of(&report.chains, &east()).before, 2_400);

    // With its first checkpoint it is a chain as others are: what is signed speaks for what is there, and what is not stays.
    scene.signed(1).await;
    let tail = scene.spool.events(1);
    scene.unsigned(tail).await;
    let report = scene.domain.verify(&scene.export("").await);
    assert_eq!(report.faults, []);
    let chain = chain_of(&report.chains, &east());
    assert_eq!((chain.before, chain.events, chain.signed_through, chain.not_yet_signed), (2_400, 4, 2_403, 1));
    assert_eq!(scene.plane.store.prune_audit(&old(time(9_000))).await.unwrap().events, 3);
    let report = scene.domain.verify(&scene.export("").await);
    assert_eq!((report.faults, chain_of(&report.chains, &east()).not_yet_signed), (vec![], 1));
}

#[tokio::test]
async fn where_an_unsigned_chain_was_cut_can_not_be_changed_unseen() {
    let mut scene = scene().await;
    let events = scene.spool.events(4);
    scene.unsigned(events).await;
    let before = Timestamp::from_millisecond(1_790_000_000_003).unwrap();
    let old = Retention { before, ..Retention::default() };
    assert_eq!(scene.plane.store.prune_audit(&old).await.unwrap().events, 2);
    for (sql, what) in [
        ("DELETE FROM audit_events WHERE sequence = 3", What::NoStart),
        (
            "UPDATE audit_cuts SET sequence = sequence + 1, head = (SELECT head FROM audit_chains c WHERE c.chain = \
          audit_cuts.chain)",
            What::NoStart,
        ),
    ] {
        assert!(scene.plane.place.execute(sql).await > 0, "{sql}");
        let report = scene.domain.verify_unsigned(&scene.export("").await, Some(east()));
        let faults: Vec<_> = report.faults.into_iter().map(|fault| fault.what).collect();
        assert_eq!(faults, [what], "{sql}");
    }
}

#[tokio::test]
async fn retention_that_comes_while_an_export_is_written_makes_it_no_broken_one() {
    let mut scene = scene().await;
    let old = |before| Retention { before, ..Retention::default() };
    let time = |sequence: i64| Timestamp::from_millisecond(1_790_000_000_000 + sequence).unwrap();
    // A long chain of young events, and behind it a short one of old events.
    for _ in 0..4 {
        let young = |event: &mut AuditEvent| event.time_ms += 1_000_000;
        let events = (0..700).map(|_| scene.spool.next_with(young)).collect();
        let checkpoint = Some(scene.spool.checkpoint());
        scene.resolver.batch(events, checkpoint).await;
        scene.resolver.audit_ack().await;
    }
    let long = scene.spool.at.chain.clone();
    scene.spool = Spool::new(&scene.domain, "payments-east", 2);
    scene.spool.at = ChainPoint::origin(scene.spool.at.chain.clone(), &east(), 2_800);
    for _ in 0..3 {
        scene.signed(3).await;
    }
    let short = scene.spool.at.chain.clone();

    // Between two chains: the export's first bytes are read, and what it has not come to is removed.
    let mut body = scene.plane.body(EXPORT).await.into_data_stream();
    let mut export = body.next().await.unwrap().unwrap().to_vec();
    assert_eq!(scene.plane.store.prune_audit(&old(time(2_808))).await.unwrap().events, 6);
    while let Some(bytes) = body.next().await {
        export.extend_from_slice(&bytes.unwrap());
    }
    let report = scene.domain.verify(std::str::from_utf8(&export).unwrap());
    assert_eq!(report.faults, []);
    let of = |id| report.chains.iter().find(|chain| &chain.chain == id).map(|chain| (chain.before, chain.events));
    assert_eq!((of(&long), of(&short)), (Some((0, 2_800)), Some((2_806, 3))));

    // In the middle of one: what it needs next is gone, and it breaks off. Again, it is whole and good.
    let mut body = scene.plane.body(EXPORT).await.into_data_stream();
    body.next().await.unwrap().unwrap();
    assert_eq!(scene.plane.store.prune_audit(&old(time(2_000_000))).await.unwrap().events, 2_803);
    let rest: Vec<_> = body.collect().await;
    assert!(rest.last().unwrap().is_err(), "a part is not taken for the whole");
    let report = scene.domain.verify(&scene.export("").await);
    assert_eq!(report.faults, []);
    let chains = report.chains.iter().filter(|chain| chain.owner == Some(east()));
    let told: Vec<_> = chains.map(|chain| (chain.before, chain.events)).collect();
    assert_eq!(told, [(2_800, 0), (2_809, 0)]);
}

#[tokio::test]
async fn a_range_tells_of_chains_in_which_nothing_happened() {
    let mut scene = scene().await;
    scene.signed(2).await;
    scene.sign_own().await;
    let report = scene.domain.verify(&scene.export("from=2999-01-01T00:00:00Z").await);
    assert_eq!(report.faults, []);
    for owner in [east(), Owner::ControlPlane] {
        let chain = chain_of(&report.chains, &owner);
        assert_eq!((chain.events, chain.checkpoints, chain.not_yet_signed), (0, 1, 0), "{owner}");
        assert_eq!(chain.before, chain.last, "{owner}");
    }
    // Before they began, there is nothing to tell.
    let none = lines(&scene.export("to=2001-01-01T00:00:00Z").await);
    assert_eq!(none, [json!({"type": "end", "lines": 0})]);
}

#[tokio::test]
async fn retention_waits_for_an_outlet_but_not_for_good() {
    let time = |sequence: i64| Timestamp::from_millisecond(1_790_000_000_000 + sequence).unwrap();
    let old =
        |outlet: &str, unsent_before| Retention { before: time(100), outlets: vec![outlet.into()], unsent_before };
    for chained in [true, false] {
        let mut scene = scene().await;
        let store = scene.plane.store.clone();
        let holder = uuid::Uuid::now_v7();
        let begin = store.lease_outlet("siem", holder, Duration::from_secs(60)).await.unwrap().unwrap();
        if chained {
            scene.signed(2).await;
            scene.signed(2).await;
        } else {
            scene.unsigned((1..=4).map(|n| event(n, "inject")).collect()).await;
        }
        let arrived: Vec<_> = store.decisions_behind(0, 10).await.unwrap().iter().map(|record| record.seq).collect();
        assert_eq!(arrived.len(), 4);
        let prune = async |told: Option<usize>, unsent_before| {
            if let Some(told) = told {
                let to = Position { decisions: arrived[told - 1], ..begin };
                assert!(store.advance_outlet("siem", holder, to).await.unwrap());
            }
            let Pruned { events, unsent } = store.prune_audit(&old("siem", unsent_before)).await.unwrap();
            (events, unsent)
        };
        assert_eq!(prune(None, time(1)).await, (0, 0), "the outlet has been told nothing");
        assert_eq!(prune(Some(2), time(1)).await, (2, 0), "what it was told goes");
        assert_eq!(prune(Some(3), time(100)).await, (2, 1), "and in the end the rest, whatever it was told");
        let pruned = scene.plane.get("/v1/audit/admin-events?limit=1").await.ok()["items"][0].clone();
        let detail = pruned["detail"].as_str().unwrap();
        assert!(detail.starts_with("2 event(s)") && detail.contains("; 1 of them had not gone out"), "{detail}");
    }
    // The control: for an outlet that nobody configures nothing waits.
    let mut scene = scene().await;
    let store = scene.plane.store.clone();
    store.lease_outlet("siem", uuid::Uuid::now_v7(), Duration::from_secs(60)).await.unwrap().unwrap();
    scene.signed(2).await;
    assert_eq!(store.prune_audit(&old("other", time(1))).await.unwrap(), Pruned { events: 2, unsent: 0 });
}

#[tokio::test]
async fn an_export_for_spreadsheets_has_one_row_for_each_line() {
    let mut scene = scene().await;
    let formula = scene.spool.next_with(|event| event.authority = "=HYPERLINK(\"http://x\",\"y\")".into());
    let checkpoint = Some(scene.spool.checkpoint());
    scene.resolver.batch(vec![formula], checkpoint).await;
    scene.resolver.audit_ack().await;
    let json = lines(&scene.export("format=jsonl").await);
    let answer = scene.plane.get(&format!("{EXPORT}?format=csv")).await;
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/csv"));
    assert_eq!(answer.text.matches("\r\n").count(), json.len(), "a head more, and no end");
    assert!(answer.text.contains("\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\""), "{}", answer.text);
}

#[tokio::test]
async fn a_long_export_comes_in_parts_and_one_that_breaks_off_is_no_whole_one() {
    let mut scene = scene().await;
    for _ in 0..4 {
        scene.signed(700).await;
    }
    let report = scene.domain.verify(&scene.export("").await);
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert_eq!(chain_of(&report.chains, &east()).events, 2_800);

    let mut body = scene.plane.body(EXPORT).await.into_data_stream();
    let first = body.next().await.unwrap().unwrap();
    assert!(first.len() < 200_000, "not gathered: {}", first.len());
    scene.plane.store.close().await;
    let rest: Vec<_> = body.collect().await;
    assert!(rest.last().unwrap().is_err(), "a part is not taken for the whole");
}
