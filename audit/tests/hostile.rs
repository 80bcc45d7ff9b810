//! A control plane in hostile hands exports what it likes. Each test takes an honest export, which verifies, and changes
//! it as such a control plane could: it holds every line, and no resolver's key.

#![expect(clippy::unwrap_used, reason = "what fails here fails a test, at its line")]

use bouncer_audit::{
    AdminLine, Bundles, ChainId, ChainPoint, Checkpoint, CheckpointError, Decision, DecisionLine, EndLine, Expected,
    Line, Owner, Proof, Report, Signed, Signer, Verifier, WITHHELD, What, Withheld,
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType, SignatureAlgorithm, date_time_ymd,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::BTreeMap;

const EAST: &str = "spiffe://example.org/bouncer/payments-east";
const OWN: &str = "spiffe://example.org/control-plane";
const CHAIN: &str = "0199d7a0-0000-7000-8000-0000000000a1";
const OTHER_CHAIN: &str = "0199d7a0-0000-7000-8000-0000000000b2";
/// 2025-06-15, in the middle of the SVIDs' lives.
const NOW: i64 = 1_749_945_600_000;

/// The authority of a trust domain.
struct Domain {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Domain {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{name}").as_str().try_into().unwrap())];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// An SVID of the years from and to, with a key of that kind.
    fn svid_of(&self, id: &str, years: (i32, i32), kind: &'static SignatureAlgorithm) -> Signer {
        let key = KeyPair::generate_for(kind).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Signer::new(&key, vec![certificate.der().to_vec()]).unwrap()
    }

    fn svid(&self, id: &str) -> Signer {
        self.svid_of(id, (2025, 2026), &PKCS_ECDSA_P256_SHA256)
    }

    fn bundles(&self) -> Bundles {
        let mut bundles = Bundles::default();
        bundles.add(None, self.pem.as_bytes()).unwrap();
        bundles
    }
}

/// Chains as resolvers do, and lays out lines as the control plane does.
struct Spool<'a> {
    at: ChainPoint,
    owner: Owner,
    signer: &'a Signer,
    number: u64,
    lines: Vec<Line>,
}

impl<'a> Spool<'a> {
    fn new(chain: &str, bouncer: &str, signer: &'a Signer) -> Self {
        let owner = Owner::Bouncer(bouncer.to_owned());
        let at = ChainPoint::origin(chain.parse().unwrap(), &owner, 0);
        Self { at, owner, signer, number: 0, lines: Vec::new() }
    }

    fn append(&mut self) {
        self.append_at(NOW + i64::try_from(self.at.sequence + 1).unwrap());
    }

    fn append_at(&mut self, time_ms: i64) {
        let sequence = self.at.sequence + 1;
        let Owner::Bouncer(bouncer) = &self.owner else { panic!("no bouncer's chain") };
        let mut line = DecisionLine {
            time_ms,
            bouncer: bouncer.clone(),
            sequence,
            id: format!("0199d7a0-0000-7000-8000-{sequence:012}"),
            outcome: "inject".into(),
            reason: String::new(),
            caller: "spiffe://example.org/ns/shop/sa/cart".into(),
            resource: "payments-api".into(),
            logical_path: "a/b".into(),
            generation: 1,
            key_id: "k".into(),
            aad_sha256: String::new(),
            cluster: "payments".into(),
            destination: "payments.internal:8443".into(),
            authority: "payments.internal".into(),
            backend_request_id: String::new(),
            decision_id: String::new(),
            count: 1,
            received_ms: NOW,
            dev: false,
            proof: None,
        };
        self.chain(&mut line);
        self.lines.push(Line::Event(Box::new(line)));
    }

    fn chain(&mut self, line: &mut DecisionLine) {
        let head = self.at.head_with(&line.decision().leaf());
        self.at = ChainPoint { sequence: line.sequence, head, ..self.at.clone() };
        let chain = self.at.chain.clone();
        line.proof = Some(Proof { chain, head, before: None, withheld: Withheld::new() });
    }

    fn sign(&mut self) {
        self.sign_as(self.signer, NOW);
    }

    fn sign_as(&mut self, signer: &Signer, time_ms: i64) {
        self.number += 1;
        let ChainPoint { chain, sequence, head } = self.at.clone();
        let (owner, number) = (self.owner.clone(), self.number);
        let signed = signer.sign(Checkpoint { chain, owner, number, sequence, head, time_ms }).unwrap();
        self.lines.push(Line::Checkpoint(signed));
    }

    /// Three checkpoints, each over three events, and two events that are not signed yet.
    fn filled(mut self) -> Self {
        for _ in 0..3 {
            (0..3).for_each(|_| self.append());
            self.sign();
        }
        self.append();
        self.append();
        self
    }
}

/// The control plane's own chain: two checkpoints, each over two changes, and a change that is not signed yet.
fn own_chain(signer: &Signer) -> Vec<Line> {
    let mut at = ChainPoint::origin(OTHER_CHAIN.parse().unwrap(), &Owner::ControlPlane, 0);
    let mut lines = Vec::new();
    for sequence in 1..=5 {
        let mut line = AdminLine {
            time_ms: NOW + i64::try_from(sequence).unwrap(),
            sequence,
            actor: "token:ana".into(),
            action: "token.created".into(),
            subject: format!("token-{sequence}"),
            detail: String::new(),
            proof: None,
        };
        at = ChainPoint { sequence, head: at.head_with(&line.change().leaf()), ..at };
        let chain = at.chain.clone();
        line.proof = Some(Proof { chain, head: at.head, before: None, withheld: Withheld::new() });
        lines.push(Line::AdminEvent(line));
        if sequence % 2 == 0 {
            let ChainPoint { chain, sequence, head } = at.clone();
            let (owner, number) = (Owner::ControlPlane, sequence / 2);
            let checkpoint = Checkpoint { chain, owner, number, sequence, head, time_ms: NOW };
            lines.push(Line::AdminCheckpoint(signer.sign(checkpoint).unwrap()));
        }
    }
    lines
}

fn verified(mut verifier: Verifier, lines: &[Line]) -> Report {
    for line in lines.iter().chain([&Line::End(EndLine { lines: lines.len() as u64 })]) {
        verifier.line(&serde_json::to_string(line).unwrap());
    }
    verifier.finish()
}

fn verify_with(lines: &[Line], bundles: Bundles, pinned: Option<&str>, heads: Vec<Expected>) -> Report {
    let signers = pinned.map(|id| (east(), id.parse().unwrap()));
    verified(Verifier::new(bundles, BTreeMap::from_iter(signers), heads), lines)
}

/// An honest export, and what it takes to verify it.
struct Scene {
    domain: Domain,
    lines: Vec<Line>,
    end: ChainPoint,
}

fn scene() -> Scene {
    let domain = Domain::new("example.org");
    let signer = domain.svid(EAST);
    let spool = Spool::new(CHAIN, "payments-east", &signer).filled();
    let (lines, end) = (spool.lines, spool.at);
    Scene { domain, lines, end }
}

impl Scene {
    fn verify(&self) -> Report {
        verify_with(&self.lines, self.domain.bundles(), Some(EAST), Vec::new())
    }

    #[track_caller]
    fn only_fault(&self) -> (Option<u64>, What) {
        only(self.verify())
    }

    /// Where the event of this sequence stands.
    fn event(&mut self, sequence: u64) -> (usize, &mut DecisionLine) {
        let all = self.lines.iter_mut().enumerate();
        all.filter_map(|(i, line)| match line {
            Line::Event(event) if event.sequence == sequence => Some((i, event.as_mut())),
            _ => None,
        })
        .next()
        .unwrap()
    }

    /// Where the checkpoint of this number stands.
    fn signed(&mut self, number: u64) -> (usize, &mut Signed) {
        let all = self.lines.iter_mut().enumerate();
        all.filter_map(|(i, line)| match line {
            Line::Checkpoint(signed) if signed.checkpoint.number == number => Some((i, signed)),
            _ => None,
        })
        .next()
        .unwrap()
    }

    /// Chains everything anew from the first event on, as whoever holds the database can. The signatures stay.
    fn rechain(&mut self) {
        let signer = self.domain.svid(EAST);
        let mut spool = Spool::new(CHAIN, "payments-east", &signer);
        for line in &mut self.lines {
            if let Line::Event(event) = line {
                spool.chain(event);
            }
        }
    }
}

fn east() -> Owner {
    Owner::Bouncer("payments-east".into())
}

#[track_caller]
fn only(report: Report) -> (Option<u64>, What) {
    assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
    let fault = report.faults.into_iter().next().unwrap();
    (fault.sequence, fault.what)
}

#[test]
fn an_honest_export_verifies_and_its_tail_is_said_to_be_unsigned() {
    let report = scene().verify();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    let chain = &report.chains[0];
    assert_eq!((chain.events, chain.checkpoints, chain.signed_through, chain.not_yet_signed), (11, 3, 9, 2));
    assert_eq!((chain.before, chain.last, chain.good, chain.expected), (0, 11, true, true));
    assert_eq!(chain.spiffe_id.as_ref().unwrap().as_str(), EAST);
    assert_eq!(chain.last_checkpoint_ms, Some(NOW));
}

#[test]
fn keys_of_every_kind_sign() {
    let domain = Domain::new("example.org");
    for kind in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let signer = domain.svid_of(EAST, (2025, 2026), kind);
        let lines = Spool::new(CHAIN, "payments-east", &signer).filled().lines;
        assert!(verify_with(&lines, domain.bundles(), Some(EAST), Vec::new()).faults.is_empty());
    }
}

#[test]
fn a_rewritten_field_shows() {
    let rewrites: [fn(&mut DecisionLine); 8] = [
        |event| event.caller = "spiffe://example.org/ns/shop/sa/billing".into(),
        |event| event.outcome = "deny".into(),
        |event| event.time_ms += 1,
        |event| event.count = 2,
        |event| event.generation = 2,
        |event| event.destination.clear(),
        |event| event.backend_request_id = "r-1".into(),
        |event| event.id = event.id.replace("0199", "0198"),
    ];
    for rewrite in rewrites {
        let mut scene = scene();
        rewrite(scene.event(5).1);
        assert_eq!(scene.only_fault(), (Some(5), What::Changed));
        // With all heads made to fit, the next checkpoint speaks against it.
        scene.rechain();
        assert_eq!(scene.only_fault(), (Some(6), What::OtherHead));
    }
}

#[test]
fn an_event_that_is_dropped_in_the_middle_shows() {
    let mut scene = scene();
    let at = scene.event(5).0;
    scene.lines.remove(at);
    assert_eq!(scene.only_fault(), (Some(6), What::Gap { expected: 5, found: 6 }));
    // Numbered anew and chained anew.
    for sequence in 6..=11 {
        scene.event(sequence).1.sequence -= 1;
    }
    scene.rechain();
    assert_eq!(scene.only_fault(), (Some(6), What::MissingBefore(5)));
}

#[test]
fn two_swapped_events_show() {
    let mut scene = scene();
    let (four, five) = (scene.event(4).0, scene.event(5).0);
    scene.lines.swap(four, five);
    assert_eq!(scene.only_fault(), (Some(5), What::Gap { expected: 4, found: 5 }));
    scene.event(5).1.sequence = 0;
    scene.event(4).1.sequence = 5;
    scene.event(0).1.sequence = 4;
    scene.rechain();
    assert_eq!(scene.only_fault(), (Some(6), What::OtherHead));
}

#[test]
fn a_dropped_checkpoint_shows() {
    let mut scene = scene();
    let at = scene.signed(2).0;
    scene.lines.remove(at);
    assert_eq!(scene.only_fault(), (Some(9), What::CheckpointMissing { expected: 2, found: 3 }));
}

#[test]
fn a_chain_without_any_checkpoint_proves_nothing_and_is_no_good() {
    let mut scene = scene();
    scene.lines.retain(|line| matches!(line, Line::Event(_)));
    assert_eq!(scene.only_fault(), (None, What::Unsigned));
}

#[test]
fn a_chain_is_unsigned_only_where_whoever_verifies_says_so() {
    let mut scene = scene();
    scene.lines.retain(|line| matches!(line, Line::Event(_)));
    let verify = |lines: &[Line], owner: &str| {
        let owner = Owner::Bouncer(owner.to_owned());
        verified(Verifier::new(Bundles::default(), BTreeMap::new(), Vec::new()).unsigned([owner]), lines)
    };
    let report = verify(&scene.lines, "payments-east");
    assert_eq!(report.faults, Vec::new());
    let chain = &report.chains[0];
    assert!(chain.unsigned && chain.good && chain.signed_through == 0 && chain.spiffe_id.is_none(), "{chain:?}");
    assert_eq!(only(verify(&scene.lines, "west")), (None, What::Unsigned), "that was said of another");
    // Its order holds all the same.
    scene.event(4).1.cluster = "other".to_owned();
    assert_eq!(only(verify(&scene.lines, "payments-east")), (Some(4), What::Changed));
}

#[test]
fn a_dropped_tail_shows_against_the_resolvers_own_head() {
    let mut scene = scene();
    let head = |acknowledged| vec![Expected { point: scene.end.clone(), acknowledged }];
    let full = verify_with(&scene.lines, scene.domain.bundles(), Some(EAST), head(11));
    assert!(full.faults.is_empty(), "{:?}", full.faults);
    assert_eq!(full.chains[0].not_delivered, Some(0));
    // Dropped at a checkpoint, so that nothing in the file speaks of it.
    let (gone, late) = (head(11), head(6));
    let at = scene.signed(2).0;
    scene.lines.truncate(at + 1);
    assert!(scene.verify().faults.is_empty(), "the control: without a head it can't show");
    let report = verify_with(&scene.lines, scene.domain.bundles(), Some(EAST), gone);
    assert_eq!(only(report), (None, What::Tail { acknowledged: 11, last: 6 }));
    // What was never acknowledged is not missing, and counted.
    let report = verify_with(&scene.lines, scene.domain.bundles(), Some(EAST), late);
    assert!(report.faults.is_empty());
    assert_eq!(report.chains[0].not_delivered, Some(5));
}

#[test]
fn a_tail_of_other_events_shows_against_the_resolvers_own_head() {
    let mut scene = scene();
    let head = Expected { point: scene.end.clone(), acknowledged: 11 };
    scene.event(10).1.outcome = "deny".into();
    scene.rechain();
    assert!(scene.verify().faults.is_empty(), "the control: it is not signed yet");
    let report = verify_with(&scene.lines, scene.domain.bundles(), Some(EAST), vec![head]);
    assert_eq!(only(report), (Some(11), What::NotTheResolvers));
}

#[test]
fn a_chain_that_is_not_there_at_all_shows_against_the_resolvers_own_head() {
    let scene = scene();
    let head = Expected { point: scene.end.clone(), acknowledged: 11 };
    let report = verify_with(&[], scene.domain.bundles(), None, vec![head]);
    assert_eq!(only(report), (None, What::Tail { acknowledged: 11, last: 0 }));
}

#[test]
fn a_pinned_owner_of_whom_nothing_is_there_shows() {
    let scene = scene();
    let signer = scene.domain.svid(OWN);
    let own = own_chain(&signer);
    let both = BTreeMap::from([(east(), EAST.parse().unwrap()), (Owner::ControlPlane, OWN.parse().unwrap())]);
    let verify = |lines: &[Line]| {
        let verifier = Verifier::new(scene.domain.bundles(), both.clone(), Vec::new()).complete();
        verified(verifier, lines)
    };
    let all = [scene.lines.as_slice(), &own].concat();
    assert_eq!(verify(&all).faults, Vec::new(), "the control");
    assert_eq!(only(verify(&own)), (None, What::Nothing(east())));
    assert_eq!(only(verify(&scene.lines)), (None, What::Nothing(Owner::ControlPlane)));
    // A checkpoint alone is something: so a range tells of whoever recorded nothing in it.
    let last = scene.lines.iter().rfind(|line| matches!(line, Line::Checkpoint(_))).unwrap().clone();
    let range = [&[last], own.as_slice()].concat();
    let report = verified(Verifier::new(scene.domain.bundles(), both.clone(), Vec::new()), &range);
    assert_eq!(report.faults, Vec::new());
    assert_eq!((report.chains[0].events, report.chains[0].before), (0, 9));
}

#[test]
fn the_control_planes_own_chain_without_its_checkpoints_shows_where_it_was_said_to_sign() {
    let domain = Domain::new("example.org");
    let signer = domain.svid(OWN);
    let honest = own_chain(&signer);
    let verify = |lines: &[Line], pinned: Option<&str>| {
        let signers = pinned.map(|id| (Owner::ControlPlane, id.parse().unwrap()));
        verified(Verifier::new(domain.bundles(), BTreeMap::from_iter(signers), Vec::new()), lines)
    };
    let report = verify(&honest, Some(OWN));
    assert_eq!(report.faults, Vec::new(), "the control");
    assert_eq!((report.chains[0].signed_through, report.chains[0].not_yet_signed), (4, 1));

    // Who may write to the database takes an administrator out of it, makes all heads fit, and deletes the checkpoints.
    let mut at = ChainPoint::origin(OTHER_CHAIN.parse().unwrap(), &Owner::ControlPlane, 0);
    let mut rewritten = Vec::new();
    for line in honest {
        let Line::AdminEvent(mut change) = line else { continue };
        change.actor = "token:joe".into();
        at = ChainPoint { sequence: change.sequence, head: at.head_with(&change.change().leaf()), ..at };
        change.proof.as_mut().unwrap().head = at.head;
        rewritten.push(Line::AdminEvent(change));
    }
    assert_eq!(only(verify(&rewritten, Some(OWN))), (None, What::OwnUnsigned));
    // One that has no SVID signs nothing; nobody said that it has, and it is shown for what it is.
    let report = verify(&rewritten, None);
    assert_eq!(report.faults, Vec::new());
    assert!(report.chains[0].unsigned, "{:?}", report.chains[0]);
}

#[test]
fn checkpoints_that_are_kept_back_show_once_there_should_have_been_one() {
    let domain = Domain::new("example.org");
    let signer = domain.svid(EAST);
    let verify = |lines: &[Line], most: Option<u64>| {
        let pin = BTreeMap::from([(east(), EAST.parse().unwrap())]);
        let verifier = Verifier::new(domain.bundles(), pin, Vec::new());
        verified(most.into_iter().fold(verifier, Verifier::max_unsigned), lines)
    };
    let tail = |events: u64| {
        let mut spool = Spool::new(CHAIN, "payments-east", &signer);
        spool.append();
        spool.sign();
        (0..events).for_each(|_| spool.append());
        spool.lines
    };
    // As many as there can be between two checkpoints, and one more.
    assert_eq!(verify(&tail(1_000), None).faults, Vec::new(), "the control");
    let long = What::TailTooLong { found: 1_001, most: 1_000 };
    assert_eq!(only(verify(&tail(1_001), None)), (None, long));
    assert_eq!(verify(&tail(1_001), Some(1_001)).faults, Vec::new(), "it was said that there may be");
    assert_eq!(only(verify(&tail(1), Some(0))).1, What::TailTooLong { found: 1, most: 0 });

    // A few, of which one is from when the next checkpoint had long been due.
    let late = |after_ms: i64| {
        let mut spool = Spool::new(CHAIN, "payments-east", &signer);
        spool.append();
        spool.sign();
        for time_ms in [NOW, NOW + after_ms, NOW + after_ms + 1] {
            spool.append_at(time_ms);
        }
        spool
    };
    assert_eq!(verify(&late(59_000).lines, None).faults, Vec::new(), "the control");
    assert_eq!(only(verify(&late(61_000).lines, None)), (Some(3), What::TailTooLate));
    assert_eq!(verify(&late(61_000).lines, Some(3)).faults, Vec::new());
    let mut signed = late(61_000);
    signed.sign_as(&signer, NOW + 61_500);
    assert_eq!(verify(&signed.lines, None).faults, Vec::new(), "signed later is signed");
    // What was recorded while the control plane was away is older than the checkpoint that came with it.
    let mut away = Spool::new(CHAIN, "payments-east", &signer);
    away.append_at(NOW);
    away.sign_as(&signer, NOW + 7_200_000);
    [NOW + 1_000, NOW + 3_600_000, NOW + 7_000_000].into_iter().for_each(|time_ms| away.append_at(time_ms));
    assert_eq!(verify(&away.lines, None).faults, Vec::new());
}

#[test]
fn the_control_planes_checkpoints_that_are_kept_back_show_too() {
    let domain = Domain::new("example.org");
    let signer = domain.svid(OWN);
    // The first change after a long pause is signed a little later, and what follows it with it.
    let tail = |apart_ms: i64| {
        let mut lines = own_chain(&signer);
        let Some(Line::AdminEvent(mut last)) = lines.pop() else { panic!("no change") };
        let Some(Line::AdminCheckpoint(signed)) = lines.last() else { panic!("no checkpoint") };
        let mut at = signed.checkpoint.point();
        for (sequence, time_ms) in [(5, NOW + 3_600_000), (6, NOW + 3_600_000 + apart_ms)] {
            (last.sequence, last.time_ms) = (sequence, time_ms);
            at = ChainPoint { sequence, head: at.head_with(&last.change().leaf()), ..at };
            last.proof.as_mut().unwrap().head = at.head;
            lines.push(Line::AdminEvent(last.clone()));
        }
        verified(Verifier::new(domain.bundles(), BTreeMap::new(), Vec::new()), &lines)
    };
    assert_eq!(tail(9_000).faults, Vec::new(), "the control");
    assert_eq!(only(tail(61_000)), (Some(6), What::TailTooLate));
}

#[test]
fn a_chain_may_begin_where_retention_cut_it_and_only_there() {
    let mut scene = scene();
    let before = scene.event(4).1.proof.as_ref().unwrap().head;
    let at = scene.event(5).0;
    let mut lines = scene.lines.split_off(at);
    let cut = |lines: &mut [Line], head| {
        let Line::Event(first) = &mut lines[0] else { panic!("no event") };
        first.proof.as_mut().unwrap().before = head;
    };
    let pinned = |lines: &[Line]| verify_with(lines, scene.domain.bundles(), Some(EAST), Vec::new());
    let unsigned = |lines: &[Line]| {
        let lines: Vec<_> = lines.iter().filter(|line| matches!(line, Line::Event(_))).cloned().collect();
        verified(Verifier::new(Bundles::default(), BTreeMap::new(), Vec::new()).unsigned([east()]), &lines)
    };
    let whole = lines.clone();
    cut(&mut lines, Some(before));
    for report in [pinned(&lines), unsigned(&lines)] {
        assert_eq!(report.faults, Vec::new());
        assert_eq!((report.chains[0].before, report.chains[0].events), (4, 7), "what is not there is told");
    }
    let verifier = Verifier::new(scene.domain.bundles(), BTreeMap::new(), Vec::new()).complete();
    assert_eq!(only(verified(verifier, &lines)), (None, What::Incomplete(4)));
    // Behind another head it is another event; with all heads made to fit, the next checkpoint speaks against it.
    cut(&mut lines, Some(Decision::commitment("another")));
    assert_eq!(only(pinned(&lines)), (Some(5), What::NoStart));
    let mut at = ChainPoint { sequence: 4, head: Decision::commitment("another"), chain: CHAIN.parse().unwrap() };
    for line in &mut lines {
        let Line::Event(event) = line else { continue };
        at = ChainPoint { sequence: event.sequence, head: at.head_with(&event.decision().leaf()), ..at };
        event.proof.as_mut().unwrap().head = at.head;
    }
    assert_eq!(only(pinned(&lines)), (Some(6), What::OtherHead));
    for report in [pinned(&whole), unsigned(&whole)] {
        assert_eq!(only(report), (Some(5), What::NoStart), "without it nothing ties it to what was");
    }
}

#[test]
fn another_chains_checkpoint_shows() {
    let mut scene = scene();
    let signer = scene.domain.svid(EAST);
    let other = Spool::new(OTHER_CHAIN, "payments-east", &signer).filled().lines;
    let foreign = other.into_iter().filter(|line| matches!(line, Line::Checkpoint(_))).nth(1).unwrap();
    let Line::Checkpoint(foreign) = foreign else { panic!("no checkpoint") };
    *scene.signed(2).1 = foreign.clone();
    // It stands alone in its own chain, and is missed in this one.
    assert_eq!(scene.only_fault(), (Some(9), What::CheckpointMissing { expected: 2, found: 3 }));
    let renamed = Checkpoint { chain: CHAIN.parse::<ChainId>().unwrap(), ..foreign.checkpoint.clone() };
    *scene.signed(2).1 = Signed { checkpoint: renamed, ..foreign };
    assert_eq!(scene.only_fault(), (Some(6), What::Checkpoint(CheckpointError::Signature)));
}

#[test]
fn a_chain_signed_anew_by_others_shows() {
    let outside = Domain::new("evil.example");
    let impostor = Domain::new("example.org");
    let scene = scene();
    let resigned = |signer: &Signer, time_ms: i64| {
        let mut spool = Spool::new(CHAIN, "payments-east", signer);
        (0..3).for_each(|_| spool.append());
        spool.sign_as(signer, time_ms);
        spool.lines
    };
    let verify = |lines: &[Line], pinned| verify_with(lines, scene.domain.bundles(), pinned, Vec::new());
    let fault = |signer: &Signer| only(verify(&resigned(signer, NOW), Some(EAST))).1;
    assert!(verify(&resigned(&scene.domain.svid(EAST), NOW), Some(EAST)).faults.is_empty(), "the control");

    let untrusted = What::Checkpoint(CheckpointError::Untrusted);
    assert_eq!(
        fault(&outside.svid("spiffe://evil.example/bouncer/payments-east")),
        What::Checkpoint(CheckpointError::NoBundle)
    );
    assert_eq!(fault(&outside.svid(EAST)), untrusted, "another domain's authority vouches for no one here");
    assert_eq!(fault(&impostor.svid(EAST)), untrusted, "an authority of the same name");
    let west = "spiffe://example.org/bouncer/payments-west";
    let identity = What::Identity { expected: EAST.parse().unwrap(), found: west.parse().unwrap() };
    assert_eq!(fault(&scene.domain.svid(west)), identity);
    let expired = scene.domain.svid_of(EAST, (2023, 2024), &PKCS_ECDSA_P256_SHA256);
    assert_eq!(fault(&expired), What::Checkpoint(CheckpointError::NotValidThen));

    // Without a pin the identity is read out of the export, and said to be.
    let report = verify(&resigned(&scene.domain.svid(west), NOW), None);
    assert!(report.faults.is_empty());
    assert_eq!((report.chains[0].spiffe_id.as_ref().unwrap().as_str(), report.chains[0].expected), (west, false));
}

#[test]
fn a_chain_keeps_its_identity_without_a_pin_too() {
    let mut scene = scene();
    let west = scene.domain.svid("spiffe://example.org/bouncer/payments-west");
    let checkpoint = scene.signed(2).1.checkpoint.clone();
    *scene.signed(2).1 = west.sign(checkpoint).unwrap();
    let report = verify_with(&scene.lines, scene.domain.bundles(), None, Vec::new());
    assert!(matches!(only(report), (Some(6), What::Identity { .. })));
}

#[test]
fn a_rotated_svid_of_the_same_identity_is_no_fault() {
    let domain = Domain::new("example.org");
    let (old, new) = (domain.svid(EAST), domain.svid(EAST));
    let mut spool = Spool::new(CHAIN, "payments-east", &old);
    spool.append();
    spool.sign();
    spool.append();
    spool.sign_as(&new, NOW + 1);
    assert!(verify_with(&spool.lines, domain.bundles(), Some(EAST), Vec::new()).faults.is_empty());
}

#[test]
fn an_event_under_anothers_name_shows() {
    let mut scene = scene();
    scene.event(5).1.bouncer = "payments-west".into();
    assert_eq!(scene.only_fault(), (Some(5), What::Owner));
}

#[test]
fn nothing_can_hide_behind_a_withheld_text() {
    let mut scene = scene();
    let event = scene.event(5).1;
    let commitment = Decision::commitment(&event.authority);
    event.authority = WITHHELD.into();
    event.proof.as_mut().unwrap().withheld = Withheld::from([("authority".to_owned(), commitment)]);
    let report = scene.verify();
    assert!(report.faults.is_empty(), "the control: {:?}", report.faults);
    assert_eq!(report.chains[0].withheld, 1);
    let event = scene.event(5).1;
    event.authority = "harmless.internal".into();
    assert_eq!(scene.only_fault(), (Some(5), What::Withheld));
    let event = scene.event(5).1;
    event.authority = WITHHELD.into();
    event.caller = "spiffe://example.org/ns/shop/sa/billing".into();
    assert_eq!(scene.only_fault(), (Some(5), What::Changed));
}

#[test]
fn an_export_begins_at_a_chains_start_or_at_a_checkpoint() {
    let mut scene = scene();
    let at = scene.signed(1).0;
    let from_checkpoint = scene.lines.split_off(at);
    let report = verify_with(&from_checkpoint, scene.domain.bundles(), Some(EAST), Vec::new());
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert_eq!((report.chains[0].before, report.chains[0].events), (3, 8));
    let strict = Verifier::new(scene.domain.bundles(), BTreeMap::new(), Vec::new()).complete();
    assert_eq!(only(verified(strict, &from_checkpoint)), (None, What::Incomplete(3)));
    let report = verify_with(&from_checkpoint[1..], scene.domain.bundles(), Some(EAST), Vec::new());
    assert_eq!(only(report), (Some(4), What::NoStart));
}

#[test]
fn an_export_that_was_cut_off_shows() {
    let scene = scene();
    let mut verifier = Verifier::new(scene.domain.bundles(), BTreeMap::new(), Vec::new());
    for line in &scene.lines {
        verifier.line(&serde_json::to_string(line).unwrap());
    }
    assert_eq!(only(verifier.finish()), (None, What::CutOff));
    let mut verifier = Verifier::new(scene.domain.bundles(), BTreeMap::new(), Vec::new());
    verifier.line("{\"type\":\"event\"");
    assert_eq!(verifier.finish().faults[0].what, What::Line(1));
}
