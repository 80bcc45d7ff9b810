//! What is found on either database, against a scan. Each database's own tests run these on it, and ask it for its plans.

use super::*;
use crate::access::{Role, TokenFilter, TokenState};
use crate::certificate::CertificateChain;
use crate::edit::Edit;
use crate::model::{Actor, Bouncer, Envelope, Protocol, Resource, Terms};
use crate::store::{AdminFilter, Page, Store};
use bouncer_custody::{KeyId, LogicalPath, Provider};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use std::time::{Duration, SystemTime};

const KEYS: [&str; 2] =
    ["arn:aws:kms:ca-central-1:123456789012:key/abc-123", "arn:aws:kms:ca-central-1:123456789012:key/def-456"];

/// One database, empty at first.
pub(in crate::store) trait Place {
    fn store(&self) -> &impl Store;

    async fn page(&self, wanted: &Wanted, reach: Reach, after: &str, limit: u16) -> Vec<String>;
}

fn edit() -> Edit {
    Actor::operator().into()
}

/// A chain that ends so many days from now.
fn chain(days: u64) -> CertificateChain {
    let mut params = rcgen::CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
    params.not_after = (SystemTime::now() + Duration::from_secs(24 * 3_600 * days)).into();
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem().parse().unwrap()
}

/// What a registered secret is by, for the naive scan.
#[derive(Debug, Clone)]
struct Known {
    path: LogicalPath,
    provider: Provider,
    key: &'static str,
    enabled: bool,
    end: Option<Timestamp>,
}

fn paths() -> impl Strategy<Value = String> {
    let segment = select(vec!["a", "A", "ab", "payments", "Pay", "x.y", "b-c", "cab", "0"]);
    prop::collection::vec(segment, 1..4).prop_map(|segments| segments.join("/"))
}

#[derive(Debug, Clone)]
struct Made {
    path: String,
    delegate: bool,
    key: usize,
    enabled: bool,
    end: Option<usize>,
    deleted: bool,
}

fn made() -> impl Strategy<Value = Made> {
    let often = prop::bool::weighted;
    (paths(), often(0.4), 0..2_usize, often(0.6), prop::option::of(0..3_usize), often(0.15))
        .prop_map(|(path, delegate, key, enabled, end, deleted)| Made { path, delegate, key, enabled, end, deleted })
}

fn filters() -> impl Strategy<Value = EnvelopeFilter> {
    let pattern = (paths(), any::<bool>()).prop_map(|(path, below)| if below { format!("{path}/*") } else { path });
    let scope = prop_oneof![Just(vec![]), prop::collection::vec(pattern, 1..4)];
    let needles = [
        "a",
        "/",
        "pay",
        "PAYMENTS",
        "ab/",
        "b",
        "zz",
        "nothing",
        "y",
        "c",
        "a/b",
        "\"",
        "%",
        "é",
        "a b",
        ".",
        "'",
        "\\",
        "\0",
        "cab/",
        "x.y/a",
        "payments/",
    ];
    (
        scope,
        prop::option::of(select(needles.to_vec())),
        prop::option::of(any::<bool>()),
        prop::option::of(0..3_usize),
        prop::option::of(any::<bool>()),
        prop::option::of(0..40_i64),
    )
        .prop_map(|(scope, needle, delegate, key, enabled, days)| EnvelopeFilter {
            scope: Scope::of(scope.iter().map(|pattern| pattern.parse().unwrap()).collect()),
            contains: needle.map(str::to_owned),
            provider: delegate.map(|is| if is { Provider::VaultDelegate } else { Provider::KmsEnvelope }),
            key_id: key.map(|at| KEYS.get(at).copied().unwrap_or("team").to_owned()),
            enabled,
            expires_before: days.map(|days| Timestamp::now() + SignedDuration::from_hours(24 * days)),
        })
}

fn meets(known: &Known, wanted: &EnvelopeFilter) -> bool {
    let text = |needle: &String| known.path.as_str().to_ascii_lowercase().contains(&needle.to_ascii_lowercase());
    wanted.scope.holds(&known.path)
        && wanted.contains.as_ref().is_none_or(text)
        && wanted.provider.is_none_or(|provider| provider == known.provider)
        && wanted.key_id.as_ref().is_none_or(|key| key == known.key)
        && wanted.enabled.is_none_or(|enabled| enabled == known.enabled)
        && wanted.expires_before.is_none_or(|before| known.end.is_some_and(|end| end < before))
}

async fn register(store: &impl Store, chains: &[CertificateChain], made: &[Made]) -> Vec<Known> {
    let mut known: Vec<Known> = Vec::new();
    for one in made {
        let provider = if one.delegate { Provider::VaultDelegate } else { Provider::KmsEnvelope };
        let key = if one.delegate { "team" } else { KEYS[one.key] };
        let envelope = Envelope {
            path: one.path.parse().unwrap(),
            key_id: KeyId::parse(provider, key).unwrap(),
            ciphertext_ref: "AQICAHg=".parse().unwrap(),
            aad: None,
            certificate_chain: one.end.map(|at| chains[at].clone()),
        };
        let terms = Terms { generation: None, enabled: true, reason: None };
        let record = store.register_envelope(&envelope, &terms, &edit()).await.unwrap();
        if !one.enabled {
            store.set_envelope_enabled(record.id, false, None, &edit()).await.unwrap();
        }
        known.retain(|other| other.path != envelope.path);
        if one.deleted {
            store.delete_envelope(record.id, &edit()).await.unwrap();
        } else {
            let end = one.end.map(|at| chains[at].not_after());
            known.push(Known { path: envelope.path, provider, key, enabled: one.enabled, end });
        }
    }
    known.sort_by(|one, other| one.path.cmp(&other.path));
    known
}

/// Every key, page by page.
async fn all(place: &impl Place, wanted: &Wanted, reach: Reach, limit: u16) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    loop {
        let after = keys.last().map_or("", String::as_str).to_owned();
        let page = place.page(wanted, reach, &after, limit).await;
        assert!(page.len() <= limit.into(), "{page:?}");
        if page.is_empty() {
            return keys;
        }
        keys.extend(page);
    }
}

/// Random lists, each asked for random pages.
pub(in crate::store) fn what_is_found_is_what_a_scan_finds<P: Place>(open: impl AsyncFn() -> P) {
    let strategy = (prop::collection::vec(made(), 1..40), prop::collection::vec(filters(), 25));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let chains = [chain(1), chain(10), chain(30)];
    let outcome = TestRunner::new(Config::with_cases(12)).run(&strategy, |(made, wanted)| {
        runtime.block_on(async {
            let place = open().await;
            let known = register(place.store(), &chains, &made).await;
            for wanted in &wanted {
                let scanned: Vec<_> = known.iter().filter(|known| meets(known, wanted)).collect();
                let scanned: Vec<_> = scanned.iter().map(|known| known.path.as_str().to_owned()).collect();
                let found = Wanted::envelopes(wanted);
                // Many, some and none of the conditions are met by few, and near.
                for (few, near, limit) in
                    [(1, 0, 1), (1, 0, 100), (3, 0, 4), (3, 1, 1), (3, 2, 4), (2_000, 0, 4), (2_000, 12, 4)]
                {
                    let found = all(&place, &found, Reach { few, near }, limit).await;
                    prop_assert_eq!(&found, &scanned, "{:?}, {}, {}, {}", wanted, few, near, limit);
                }
                let part = place.store().envelopes(wanted, &Page { after: None, limit: 3 }).await.unwrap();
                prop_assert_eq!(part.more, scanned.len() > 3);
                let listed: Vec<_> = part.items.iter().map(|record| record.envelope.path.as_str()).collect();
                prop_assert_eq!(listed, scanned.iter().take(3).collect::<Vec<_>>());
            }
            place.store().close().await;
            Ok(())
        })
    });
    outcome.unwrap_or_else(|found| panic!("{found}"));
}

pub(in crate::store) async fn registered(store: &impl Store) {
    for name in ["east", "west", "payments-east"] {
        let identity = format!("spiffe://example.org/bouncer/{name}").parse().unwrap();
        store.register_bouncer(&Bouncer { name: name.parse().unwrap(), identity }, &edit()).await.unwrap();
    }
    for (name, bouncer, path) in [("one", "east", "a/x"), ("two", "west", "a/y"), ("three", "east", "b/x")] {
        let resource = Resource {
            name: name.parse().unwrap(),
            bouncer: bouncer.parse().unwrap(),
            cluster: "payments".parse().unwrap(),
            upstream: "payments.internal:8443".parse().unwrap(),
            protocol: Protocol::Mtls,
            path: path.parse().unwrap(),
            callers: vec![],
            enabled: true,
        };
        store.register_resource(&resource, &edit()).await.unwrap();
        let resource = Resource { enabled: name != "two", ..resource };
        store.replace_resource(&resource, &edit()).await.unwrap();
    }
}

pub(in crate::store) async fn resources_and_bouncers_are_found_and_forgotten(place: impl Place) {
    let store = place.store();
    registered(store).await;
    let scope = |patterns: &[&str]| Scope::of(patterns.iter().map(|pattern| pattern.parse().unwrap()).collect());
    let text = |text: &str| Some(text.to_owned());
    let found = async |wanted: Wanted| {
        let found = all(&place, &wanted, REACH, 2).await;
        assert_eq!(found, all(&place, &wanted, Reach { few: 1, near: 0 }, 2).await);
        assert_eq!(found, all(&place, &wanted, Reach { near: 0, ..REACH }, 2).await);
        found.join(" ")
    };
    let names = async |wanted: ResourceFilter| found(Wanted::resources(&wanted)).await;
    let any = ResourceFilter::default;
    assert_eq!(names(any()).await, "one three two");
    assert_eq!(names(ResourceFilter { contains: text("E"), ..any() }).await, "one three");
    assert_eq!(names(ResourceFilter { contains: text("hre"), ..any() }).await, "three");
    assert_eq!(names(ResourceFilter { scope: scope(&["a/*"]), ..any() }).await, "one two");
    assert_eq!(names(ResourceFilter { scope: scope(&["a/y", "b/*"]), ..any() }).await, "three two");
    assert_eq!(names(ResourceFilter { scope: scope(&["a/*"]), enabled: Some(true), ..any() }).await, "one");
    assert_eq!(names(ResourceFilter { bouncer: Some("east".parse().unwrap()), ..any() }).await, "one three");
    assert_eq!(names(ResourceFilter { path: Some("b/x".parse().unwrap()), ..any() }).await, "three");
    store.delete_resource(&"three".parse().unwrap(), &edit()).await.unwrap();
    assert_eq!(names(ResourceFilter { contains: text("hre"), ..any() }).await, "");

    let names = async |text: &str| found(Wanted::bouncers(&BouncerFilter { contains: Some(text.to_owned()) })).await;
    assert_eq!(names("east").await, "east payments-east");
    assert_eq!(names("S").await, "east payments-east west");
    store.delete_resource(&"two".parse().unwrap(), &edit()).await.unwrap();
    store.delete_bouncer(&"west".parse().unwrap(), &edit()).await.unwrap();
    assert_eq!((names("west").await, names("st").await), (String::new(), "east payments-east".into()));
    store.close().await;
}

/// Pages of every kind.
pub(in crate::store) fn every_kind() -> Vec<Wanted> {
    let scope = |patterns: &[&str]| Scope::of(patterns.iter().map(|pattern| pattern.parse().unwrap()).collect());
    let scopes = [Scope::default(), scope(&["a/*"]), scope(&["a/*", "b"])];
    let mut all = Vec::new();
    for needle in [None, Some("a"), Some("ab"), Some("abc"), Some("payments-east")] {
        let contains = needle.map(str::to_owned);
        all.push(Wanted::bouncers(&BouncerFilter { contains: contains.clone() }));
        for scope in &scopes {
            for bits in 0..16_u8 {
                let bit = |at: u8| bits & (1 << at) != 0;
                all.push(Wanted::envelopes(&EnvelopeFilter {
                    scope: scope.clone(),
                    contains: contains.clone(),
                    provider: bit(0).then_some(Provider::KmsEnvelope),
                    key_id: bit(1).then(|| KEYS[0].to_owned()),
                    enabled: bit(2).then_some(false),
                    expires_before: bit(3).then(Timestamp::now),
                }));
                all.push(Wanted::resources(&ResourceFilter {
                    scope: scope.clone(),
                    contains: contains.clone(),
                    bouncer: bit(0).then(|| "east".parse().unwrap()),
                    path: bit(1).then(|| "a/x".parse().unwrap()),
                    enabled: bit(2).then_some(true),
                }));
            }
        }
    }
    all
}

/// Pages of tokens of every kind, each with what leaves out most.
pub(in crate::store) fn tokens() -> Vec<(TokenFilter, &'static str)> {
    let mut all = Vec::new();
    for name in [None, Some("ci")] {
        for role in [None, Some(Role::Viewer)] {
            for state in [None, Some(TokenState::Live), Some(TokenState::Ended), Some(TokenState::Revoked)] {
                let index = match (name, state, role) {
                    (Some(_), _, _) => "tokens_by_name",
                    (None, Some(TokenState::Revoked), _) => "tokens_revoked",
                    (None, Some(_), _) => "tokens_not_revoked",
                    (None, None, Some(_)) => "tokens_by_role",
                    (None, None, None) => "tokens_pkey",
                };
                all.push((TokenFilter { name: name.map(|name| name.parse().unwrap()), role, state }, index));
            }
        }
    }
    all
}

/// Pages of administrative changes of every kind, each with the index of one of its filters.
pub(in crate::store) fn changes() -> Vec<(AdminFilter, &'static str)> {
    let kind = |bits: u8| {
        let bit = |at: u8| bits & (1 << at) != 0;
        let text = |at: u8| bit(at).then(|| "a".to_owned());
        let index = match bits & 7 {
            0 => "admin_events_by_time",
            4 => "admin_events_by_action",
            bits if bits & 1 != 0 => "admin_events_by_subject",
            _ => "admin_events_by_actor",
        };
        let time = bit(3).then(Timestamp::now);
        (AdminFilter { subject: text(0), actor: text(1), action: text(2), from: time, to: time }, index)
    };
    (0..16).map(kind).collect()
}

impl Wanted {
    /// Everything that its list may be walked by.
    pub(in crate::store) fn parts(&self) -> impl Iterator<Item = Option<&Condition>> {
        let in_order = |condition: &&Condition| matches!(condition, Condition::Is { .. } | Condition::Before { .. });
        self.conditions.iter().filter(in_order).map(Some).chain([None])
    }

    /// What is left of its ranges in the middle of the list.
    pub(in crate::store) fn left(&self) -> Vec<Range> {
        self.ranges.iter().filter_map(|range| range.after("a/m")).collect()
    }
}

#[test]
fn every_part_of_a_text_has_its_say() {
    assert_eq!(telling("ab"), [""; 0]);
    assert_eq!(telling("abc"), ["abc"]);
    assert_eq!(telling("abcd"), ["bcd", "abc"]);
    assert_eq!(telling("aaaaaaa"), ["aaa"]);
    let long = telling("team-07/service-077307/upstream-tls");
    assert_eq!(long.len(), TRIGRAMS);
    assert!(long[0].bytes().all(|byte| byte.is_ascii_digit()), "{long:?}");
}
