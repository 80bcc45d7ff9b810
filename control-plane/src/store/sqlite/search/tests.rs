use super::*;
use crate::certificate::CertificateChain;
use crate::clock::SystemClock;
use crate::edit::Edit;
use crate::model::{Actor, Bouncer, Envelope, Protocol, Resource, Terms};
use crate::store::sqlite::database::Database;
use crate::store::sqlite::{bouncers, envelopes, registry};
use crate::store::{BouncerFilter, EnvelopeFilter, Page, ResourceFilter};
use bouncer_custody::{BouncerName, KeyId, LogicalPath, Provider, ResourceName};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::sample::select;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

const KEYS: [&str; 2] =
    ["arn:aws:kms:ca-central-1:123456789012:key/abc-123", "arn:aws:kms:ca-central-1:123456789012:key/def-456"];

fn edit() -> Edit {
    Actor::operator().into()
}

async fn open() -> (TempDir, Database) {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(&folder.path().join("control-plane.db"), Arc::new(SystemClock)).await.unwrap();
    (folder, database)
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
    let needles =
        ["a", "/", "pay", "PAYMENTS", "ab/", "b", "zz", "nothing", "y", "c", "a/b", "\"", "%", "é", "a b", "."];
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

async fn register(database: &Database, chains: &[CertificateChain], made: &[Made]) -> Vec<Known> {
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
        let record = envelopes::register(database, &envelope, &terms, &edit()).await.unwrap();
        if !one.enabled {
            envelopes::set_enabled(database, record.id, false, None, &edit()).await.unwrap();
        }
        known.retain(|other| other.path != envelope.path);
        if one.deleted {
            envelopes::delete(database, record.id, &edit()).await.unwrap();
        } else {
            let end = one.end.map(|at| chains[at].not_after());
            known.push(Known { path: envelope.path, provider, key, enabled: one.enabled, end });
        }
    }
    known.sort_by(|one, other| one.path.cmp(&other.path));
    known
}

/// Every key, page by page.
async fn all(wanted: &Wanted, few: u16, database: &Database, limit: i64) -> Vec<String> {
    let mut read = database.reader.acquire().await.unwrap();
    let (mut keys, mut after) = (Vec::new(), String::new());
    loop {
        let page = wanted.keys_among(few, &mut read, &after, limit).await.unwrap();
        let Some(last) = page.last() else { return keys };
        after = last.clone();
        keys.extend(page);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn what_is_found_is_what_a_scan_finds(
        made in prop::collection::vec(made(), 1..40),
        wanted in prop::collection::vec(filters(), 25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_folder, database) = open().await;
            let chains = [chain(1), chain(10), chain(30)];
            let known = register(&database, &chains, &made).await;
            for wanted in &wanted {
                let scanned: Vec<_> = known.iter().filter(|known| meets(known, wanted)).collect();
                let scanned: Vec<_> = scanned.iter().map(|known| known.path.as_str().to_owned()).collect();
                // Many, some and none of the conditions are met by few.
                for few in [1, 3, FEW] {
                    for limit in [1, 4, 100] {
                        let found = all(&envelopes::found(wanted), few, &database, limit).await;
                        prop_assert_eq!(&found, &scanned, "{:?}, few {}, limit {}", wanted, few, limit);
                    }
                }
                let page = Page { after: None, limit: 3 };
                let part = envelopes::list(&database, wanted, &page).await.unwrap();
                prop_assert_eq!(part.more, scanned.len() > 3);
                let listed: Vec<_> = part.items.iter().map(|record| record.envelope.path.as_str()).collect();
                prop_assert_eq!(listed, scanned.iter().take(3).collect::<Vec<_>>());
            }
            Ok(())
        })?;
    }
}

async fn registered(database: &Database) {
    for name in ["east", "west", "payments-east"] {
        let identity = format!("spiffe://example.org/bouncer/{name}").parse().unwrap();
        bouncers::register(database, &Bouncer { name: name.parse().unwrap(), identity }, &edit()).await.unwrap();
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
        registry::register_resource(database, &resource, &edit()).await.unwrap();
        let resource = Resource { enabled: name != "two", path: path.parse().unwrap(), ..resource };
        registry::replace_resource(database, &resource, &edit()).await.unwrap();
    }
}

#[tokio::test]
async fn resources_and_bouncers_are_found_and_forgotten() {
    let (_folder, database) = open().await;
    registered(&database).await;
    let scope = |pattern: &str| Scope::of(vec![pattern.parse().unwrap()]);
    let text = |text: &str| Some(text.to_owned());
    let names = async |wanted: ResourceFilter| {
        let wanted = registry::found(&wanted);
        let few = all(&wanted, FEW, &database, 2).await;
        assert_eq!(few, all(&wanted, 1, &database, 2).await);
        few.join(" ")
    };
    let any = ResourceFilter::default;
    assert_eq!(names(any()).await, "one three two");
    assert_eq!(names(ResourceFilter { contains: text("E"), ..any() }).await, "one three");
    assert_eq!(names(ResourceFilter { contains: text("hre"), ..any() }).await, "three");
    assert_eq!(names(ResourceFilter { scope: scope("a/*"), ..any() }).await, "one two");
    assert_eq!(names(ResourceFilter { scope: scope("a/*"), enabled: Some(true), ..any() }).await, "one");
    assert_eq!(names(ResourceFilter { bouncer: Some("east".parse().unwrap()), ..any() }).await, "one three");
    assert_eq!(names(ResourceFilter { path: Some("b/x".parse().unwrap()), ..any() }).await, "three");
    let three: ResourceName = "three".parse().unwrap();
    registry::delete_resource(&database, &three, &edit()).await.unwrap();
    assert_eq!(names(ResourceFilter { contains: text("hre"), ..any() }).await, "");

    let found = async |text: &str| {
        let wanted = BouncerFilter { contains: Some(text.to_owned()) };
        all(&bouncers::found(&wanted), FEW, &database, 2).await.join(" ")
    };
    assert_eq!(
        (found("east").await, found("S").await),
        ("east payments-east".into(), "east payments-east west".into())
    );
    let west: BouncerName = "west".parse().unwrap();
    registry::delete_resource(&database, &"two".parse().unwrap(), &edit()).await.unwrap();
    bouncers::delete(&database, &west, &edit()).await.unwrap();
    assert_eq!((found("west").await, found("st").await), (String::new(), "east payments-east".into()));
}

#[test]
fn every_part_of_a_text_has_its_say() {
    let told = |text: &str| {
        let characters: Vec<char> = text.chars().collect();
        telling(&characters).into_iter().map(|three| three.iter().collect::<String>()).collect::<Vec<_>>()
    };
    assert_eq!(told("abc"), ["abc"]);
    assert_eq!(told("abcd"), ["bcd", "abc"]);
    assert_eq!(told("aaaaaaa"), ["aaa"]);
    let long = told("team-07/service-077307/upstream-tls");
    assert_eq!(long.len(), TRIGRAMS);
    assert!(long[0].bytes().all(|byte| byte.is_ascii_digit()), "{long:?}");
}

/// How SQLite means to answer a query. An index that is named and cannot be used is an error already.
async fn plan(database: &Database, query: QueryBuilder<Sqlite>) -> Vec<String> {
    let sql = format!("EXPLAIN QUERY PLAN {}", sqlx::SqlStr::as_str(&query.into_sql()));
    let rows: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&database.reader).await.unwrap();
    rows.into_iter().map(|(_, _, _, detail)| detail).collect()
}

/// Whether a step goes through a whole table. Through a list of its own making, or a table of trigrams, it does not.
fn scans(step: &str) -> bool {
    let indexed = step.contains("VIRTUAL TABLE INDEX") && !step.ends_with("VIRTUAL TABLE INDEX 0:");
    step.starts_with("SCAN") && !indexed && !step.contains("CONSTANT ROW") && !step.contains("(subquery")
}

#[tokio::test]
async fn no_page_is_found_by_going_through_a_whole_table() {
    let (_folder, database) = open().await;
    let needles = [None, Some("a"), Some("ab"), Some("abc"), Some("payments-east")];
    let scope = |patterns: &[&str]| Scope::of(patterns.iter().map(|pattern| pattern.parse().unwrap()).collect());
    let scopes = [Scope::default(), scope(&["a/*"]), scope(&["a/*", "b"])];
    let mut all = Vec::new();
    for needle in needles {
        let contains = needle.map(str::to_owned);
        all.push(bouncers::found(&BouncerFilter { contains: contains.clone() }));
        for scope in &scopes {
            for bits in 0..16_u8 {
                let bit = |at: u8| bits & (1 << at) != 0;
                all.push(envelopes::found(&EnvelopeFilter {
                    scope: scope.clone(),
                    contains: contains.clone(),
                    provider: bit(0).then_some(Provider::KmsEnvelope),
                    key_id: bit(1).then(|| KEYS[0].to_owned()),
                    enabled: bit(2).then_some(false),
                    expires_before: bit(3).then(Timestamp::now),
                }));
                all.push(registry::found(&ResourceFilter {
                    scope: scope.clone(),
                    contains: contains.clone(),
                    bouncer: bit(0).then(|| "east".parse().unwrap()),
                    path: bit(1).then(|| "a/x".parse().unwrap()),
                    enabled: bit(2).then_some(true),
                }));
            }
        }
    }
    for wanted in &all {
        let equalities = wanted.conditions.iter().enumerate();
        let equalities =
            equalities.filter(|(_, condition)| matches!(condition, Condition::Is { .. } | Condition::Before { .. }));
        let ways = equalities.map(|(at, _)| By::Part(at)).chain([By::Order]);
        let ways = ways.chain((0..wanted.conditions.len()).map(By::Condition));
        for by in ways {
            for range in wanted.ranges.iter().filter_map(|range| range.after("a/m")) {
                let steps = plan(&database, wanted.page(by, &range, 10)).await;
                assert!(!steps.iter().any(|step| scans(step)), "{by:?} {:?}: {steps:#?}", wanted.conditions);
                let sorts = steps.iter().any(|step| step.contains("FOR ORDER BY"));
                assert!(!sorts || matches!(by, By::Condition(_)), "{by:?} {:?}: {steps:#?}", wanted.conditions);
            }
        }
        for condition in &wanted.conditions {
            let steps = plan(&database, wanted.count(condition, FEW)).await;
            assert!(!steps.iter().any(|step| scans(step)), "{condition:?}: {steps:#?}");
        }
    }
    // The control: what a search was before it had trigrams.
    let naive = "SELECT * FROM envelope_search WHERE instr(logical_path, 'a') > 0";
    assert!(plan(&database, QueryBuilder::new(naive)).await.iter().any(|step| scans(step)));
}
