//! The spool: over restarts, torn lines, segments and bounds; and its chain.

use super::*;
use bouncer_audit::Owner;

fn event(id: &str) -> Event {
    Event { id: id.into(), outcome: "inject".into(), ..Default::default() }
}

fn bouncer() -> BouncerName {
    "payments-east".parse().unwrap()
}

fn read(spool: &Spool, after: u64) -> Vec<Event> {
    spool.read(&mut Cursor::behind(after), usize::MAX).unwrap()
}

fn ids(spool: &Spool, after: u64) -> Vec<String> {
    read(spool, after).into_iter().map(|event| event.id).collect()
}

#[test]
fn events_survive_a_restart_and_a_torn_line_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Spool::open(folder.path(), &bouncer(), 1 << 20, false).unwrap();
    open().append(event("a")).unwrap();
    open().append(event("b")).unwrap();
    let segment = path_of(&folder.path().join("audit"), 1);
    let mut file = OpenOptions::new().append(true).open(&segment).unwrap();
    file.write_all(b"{\"id\":\"torn").unwrap();
    let spool = open();
    spool.append(event("c")).unwrap();
    assert_eq!(ids(&spool, 0), ["a", "b", "c"]);
    assert_eq!(read(&spool, 0).iter().map(|e| e.sequence).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn what_is_acknowledged_goes_and_the_sequence_stays() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Spool::open(folder.path(), &bouncer(), 64 << 20, false).unwrap();
    let spool = open();
    let long = "x".repeat(1_000);
    for _ in 0..3_000 {
        spool.append(event(&long)).unwrap();
    }
    assert!(spool.lock().segments.len() > 2);
    // Whatever it is said to have, the control plane has no more than it was sent.
    spool.acknowledge(u64::MAX, 2_999);
    assert_eq!((spool.acknowledged(), ids(&spool, 2_999).len()), (2_999, 1));
    assert_eq!(spool.lock().segments.len(), 1);
    spool.acknowledge(3_000, 3_000);
    assert_eq!(spool.usage().0, 0);
    drop(spool);
    let spool = open();
    spool.append(event("next")).unwrap();
    assert_eq!(read(&spool, 0)[0].sequence, 3_001);
}

#[test]
fn a_reader_goes_on_where_it_was_over_segments_and_torn_lines() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), &bouncer(), 64 << 20, false).unwrap();
    let mut cursor = Cursor::behind(0);
    let mut next =
        |limit| spool.read(&mut cursor, limit).unwrap().iter().map(|event| event.sequence).collect::<Vec<_>>();
    assert!(next(9).is_empty());
    let long = "x".repeat(1_000);
    for _ in 0..2_500 {
        spool.append(event(&long)).unwrap();
    }
    assert!(spool.lock().segments.len() > 2);
    assert_eq!(next(2), [1, 2]);
    assert_eq!(cursor.segment, 1, "it goes on in the middle of the segment, not behind it");
    let mut next =
        |limit| spool.read(&mut cursor, limit).unwrap().iter().map(|event| event.sequence).collect::<Vec<_>>();
    assert_eq!(next(usize::MAX), (3..=2_500).collect::<Vec<_>>());
    let tail = path_of(&spool.folder, spool.lock().segments.back().unwrap().first);
    OpenOptions::new().append(true).open(tail).unwrap().write_all(b"{\"id\":\"torn").unwrap();
    spool.lock().torn = true;
    assert!(next(9).is_empty());
    spool.append(event("a")).unwrap();
    assert_eq!(next(9), [2_501]);
    spool.acknowledge(2_501, 2_501);
    spool.append(event("b")).unwrap();
    assert_eq!(next(9), [2_502]);
}

#[test]
fn a_full_spool_takes_nothing_and_denials_fill_only_half() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), &bouncer(), 10_000, false).unwrap();
    let fill = |append: &dyn Fn(Event) -> Result<(), SpoolError>| while append(event("x")).is_ok() {};
    fill(&|event| spool.append_denial(event));
    assert!((4_000..=5_000).contains(&spool.usage().0), "{:?}", spool.usage());
    assert!(spool.append(event("released")).is_ok());
    fill(&|event| spool.append(event));
    assert!(matches!(spool.append(event("x")), Err(SpoolError::Full)));
    assert!(!spool.is_writable());
    let last = read(&spool, 0).len() as u64;
    spool.acknowledge(last, last);
    assert!(spool.append(event("x")).is_ok());
}

/// Every event is where the one before it leads, from the chain's origin or from `before` on.
#[track_caller]
fn linked(events: &[Event], before: Option<&Event>) {
    let owner = Owner::Bouncer(bouncer().to_string());
    let mut at = before.map(|event| event.point().unwrap()).unwrap_or_else(|| {
        let chain = events[0].chain.clone().unwrap();
        ChainPoint::origin(chain, &owner, events[0].sequence - 1)
    });
    for event in events {
        assert_eq!((event.chain.as_ref(), event.sequence), (Some(&at.chain), at.sequence + 1));
        assert_eq!(event.head, Some(at.head_with(&event.decision(&bouncer()).leaf())), "{}", event.sequence);
        at = event.point().unwrap();
    }
}

#[test]
fn the_chain_goes_on_over_restarts_and_a_torn_line() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Spool::open(folder.path(), &bouncer(), 1 << 20, false).unwrap();
    // Never closed in order, as a killed process is not.
    std::mem::forget(open());
    for id in ["a", "b"] {
        let spool = open();
        spool.append(event(id)).unwrap();
        std::mem::forget(spool);
    }
    let segment = path_of(&folder.path().join("audit"), 1);
    let whole = fs::read(&segment).unwrap();
    for cut in [1, 40, whole.len() / 2 - 1] {
        fs::write(&segment, &whole[..whole.len() - cut]).unwrap();
        let spool = open();
        spool.append(event("c")).unwrap();
        let events = read(&spool, 0);
        assert_eq!(events.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["a", "c"], "cut by {cut}");
        linked(&events, None);
        assert_eq!(spool.at(), events[1].point().unwrap());
    }
}

#[test]
fn the_chain_goes_on_when_every_event_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Spool::open(folder.path(), &bouncer(), 1 << 20, false).unwrap();
    let spool = open();
    spool.append(event("a")).unwrap();
    spool.append(event("b")).unwrap();
    let last = read(&spool, 1).remove(0);
    spool.acknowledge(2, 2);
    assert_eq!(spool.usage().0, 0);
    let spool = open();
    assert_eq!(spool.at(), last.point().unwrap());
    spool.append(event("c")).unwrap();
    linked(&read(&spool, 2), Some(&last));
    // Acknowledged in the middle: the events that are left say where the chain is.
    spool.append(event("d")).unwrap();
    spool.acknowledge(3, 3);
    let spool = open();
    let third = read(&spool, 2).remove(0);
    spool.append(event("e")).unwrap();
    linked(&read(&spool, 3), Some(&third));
}

#[test]
fn a_chain_of_its_own_begins_on_a_new_disk_and_under_a_new_name() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, two] = folders.each_ref().map(|folder| {
        let spool = Spool::open(folder.path(), &bouncer(), 1 << 20, false).unwrap();
        spool.append(event("a")).unwrap();
        linked(&read(&spool, 0), None);
        spool.at()
    });
    assert_ne!(one.chain, two.chain);
    let renamed = Spool::open(folders[0].path(), &"payments-west".parse().unwrap(), 1 << 20, false).unwrap();
    assert_ne!(renamed.at().chain, one.chain);
    assert_eq!(renamed.at().sequence, 1);
    // Nothing of it was recorded, so nothing has to go on with it.
    let again = Spool::open(folders[0].path(), &"payments-west".parse().unwrap(), 1 << 20, false).unwrap();
    assert_eq!(again.at().sequence, 1);
}

#[test]
fn a_spool_that_lost_its_place_begins_a_chain_and_never_forks_one() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Spool::open(folder.path(), &bouncer(), 1 << 20, false).unwrap();
    let spool = open();
    spool.append(event("a")).unwrap();
    spool.append(event("b")).unwrap();
    spool.acknowledge(2, 2);
    let chain = spool.at().chain;
    assert_eq!(open().at().chain, chain, "the control");
    fs::write(folder.path().join("audit/acked"), b"damaged").unwrap();
    let spool = open();
    assert_ne!(spool.at().chain, chain);
    spool.append(event("c")).unwrap();
    linked(&read(&spool, 0), None);
}

#[test]
fn a_spool_of_before_there_were_chains_is_sent_and_a_chain_begins_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let audit = folder.path().join("audit");
    fs::create_dir_all(&audit).unwrap();
    crate::state_file::write(&audit.join("acked"), &1_u64.to_be_bytes()).unwrap();
    let old = |sequence| format!("{{\"id\":\"old-{sequence}\",\"sequence\":{sequence},\"outcome\":\"inject\"}}\n");
    fs::write(path_of(&audit, 1), format!("{}{}{}", old(1), old(2), old(3))).unwrap();
    let spool = Spool::open(folder.path(), &bouncer(), 1 << 20, false).unwrap();
    assert_eq!(spool.acknowledged(), 1);
    spool.append(event("new")).unwrap();
    let events = read(&spool, 1);
    assert_eq!(events.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["old-2", "old-3", "new"]);
    assert_eq!((events[1].chain.as_ref(), events[2].sequence), (None, 4));
    linked(&events[2..], None);
}

#[test]
fn what_is_chained_is_what_the_control_plane_can_store() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::open(folder.path(), &bouncer(), 1 << 20, false).unwrap();
    let authority = format!("a\u{7}{}", "x".repeat(5_000));
    spool.append(Event { authority, ..event("a") }).unwrap();
    let events = read(&spool, 0);
    assert!(events[0].authority.len() <= bouncer_audit::TEXT_LIMIT && events[0].authority.starts_with("ax"));
    linked(&events, None);
}
