use super::*;
use crate::access::Scope;
use crate::clock::SystemClock;
use crate::store::postgres::database::MIGRATIONS;
use crate::store::postgres::envelopes::select_latest;
use crate::store::postgres::{PostgresStore, audit, tokens};
use crate::store::search::Reach;
use crate::store::search::tests::{self as shared, every_kind};
use crate::store::{EnvelopeFilter, Page, ResourceFilter, Store};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection as _, migrate::Migrator};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

#[expect(dead_code, unreachable_pub, reason = "the harness of the end-to-end tests has more uses of it")]
#[path = "../../../../../tests/src/postgres.rs"]
mod server;

/// It ends with this process.
static SERVER: LazyLock<server::Server> =
    LazyLock::new(|| server::Server::start(&server::Settings::default()).unwrap());

struct Place {
    store: PostgresStore,
}

/// The address of a database that is new.
async fn create() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let name = format!("search_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut admin = PgConnection::connect(&SERVER.url("postgres")).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut admin).await.unwrap();
    admin.close().await.unwrap();
    SERVER.url(&name)
}

async fn open() -> Place {
    Place::at(&create().await).await
}

impl Place {
    async fn at(url: &str) -> Self {
        Self { store: PostgresStore::open(url.parse().unwrap(), Arc::new(SystemClock)).await.unwrap() }
    }
}

impl shared::Place for Place {
    fn store(&self) -> &impl Store {
        &self.store
    }

    async fn page(&self, wanted: &Wanted, reach: Reach, after: &str, limit: u16) -> Vec<String> {
        let mut read = self.store.database.begin_list().await.unwrap();
        wanted.keys_within(reach, &mut *read, after, limit).await.unwrap()
    }
}

#[test]
fn what_is_found_is_what_a_scan_finds() {
    shared::what_is_found_is_what_a_scan_finds(open);
}

#[tokio::test]
async fn resources_and_bouncers_are_found_and_forgotten() {
    shared::resources_and_bouncers_are_found_and_forgotten(open().await).await;
}

/// How PostgreSQL means to answer a query, whatever its parameters are.
async fn plan(read: &mut PgConnection, sql: &str) -> Vec<String> {
    let parameters = (1..).take_while(|number| sql.contains(&format!("${number}"))).count();
    let nulls = vec!["NULL"; parameters].join(", ");
    let execute = if parameters == 0 { String::new() } else { format!("({nulls})") };
    sqlx::raw_sql(AssertSqlSafe(format!("PREPARE asked AS {sql}"))).execute(&mut *read).await.unwrap();
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE asked {execute}");
    let steps = sqlx::query_scalar(AssertSqlSafe(explain)).persistent(false).fetch_all(&mut *read).await.unwrap();
    sqlx::raw_sql("DEALLOCATE asked").execute(read).await.unwrap();
    steps
}

fn has(steps: &[String], what: &str) -> bool {
    steps.iter().any(|step| step.contains(what))
}

/// The indexes that the plan goes by.
fn indexes(steps: &[String]) -> Vec<&str> {
    let after = |word| steps.iter().filter_map(move |step| step.split_once(word)?.1.split(' ').next());
    after(" using ").chain(after("Bitmap Index Scan on ")).collect()
}

/// Which index goes with a list's order, and which with its trigrams.
fn own(list: List) -> [&'static str; 2] {
    match list {
        List::Envelopes => ["envelope_search_in_order", "envelope_trigrams"],
        List::Resources => ["protected_resources_pkey", "resource_trigrams"],
        List::Bouncers => ["bouncers_pkey", "bouncer_trigrams"],
    }
}

/// Which index a walk goes by.
fn walked(list: List, part: Option<&Condition>) -> &'static str {
    match part {
        Some(Condition::Is { index, .. } | Condition::Before { in_order: index, .. }) => index,
        _ => own(list)[0],
    }
}

/// Which index what meets a condition is looked up by.
fn met(list: List, condition: &Condition) -> &'static str {
    match condition {
        Condition::Is { index, .. } | Condition::Before { index, .. } | Condition::Within { index, .. } => index,
        Condition::Contains { .. } => own(list)[1],
    }
}

/// Fails unless every page is found by the index that was chosen for it, and by nothing else.
async fn all_go_by_their_index(place: &Place) {
    let mut read = place.store.database.begin_list().await.unwrap();
    let mut goes_by = async |query: QueryBuilder<Postgres>, index: &str, sorted: bool| {
        let steps = plan(&mut read, query.sql().as_str()).await;
        let told = format!("{index}: {} {steps:#?}", query.sql().as_str());
        assert!(!has(&steps, "Seq Scan") && (sorted || !has(&steps, "Sort")), "{told}");
        let used = indexes(&steps);
        assert!(!used.is_empty() && used.iter().all(|used| *used == index), "{told}");
    };
    for wanted in every_kind() {
        let (list, ranges) = (wanted.list, wanted.left());
        for part in wanted.parts() {
            for range in &ranges {
                for near in [None, Some(5)] {
                    goes_by(walk(&wanted, part, near, range, 10), walked(list, part), false).await;
                }
                goes_by(passed(list, part, 5, range), walked(list, part), false).await;
            }
        }
        for condition in &wanted.conditions {
            goes_by(look_up(&wanted, condition, &ranges, 10), met(list, condition), true).await;
            goes_by(count(list, condition, 10), met(list, condition), false).await;
        }
    }
    for (wanted, index) in shared::tokens() {
        goes_by(tokens::some(&wanted, &Page { after: None, limit: 10 }, Timestamp::now()), index, false).await;
    }
    for (wanted, index) in shared::changes() {
        let query = audit::changes(&wanted, &Page { after: None, limit: 10 }).unwrap();
        let steps = plan(&mut read, query.sql().as_str()).await;
        let used = indexes(&steps);
        // Beside it, which chain they are in.
        assert!(
            !has(&steps, "Seq Scan") && !has(&steps, "Sort") && used == [index, "audit_own_chain"],
            "{index}: {steps:#?}"
        );
    }
    let rows = select_latest!("AND s.logical_path = ANY($1) ORDER BY s.logical_path");
    assert!(!has(&plan(&mut read, rows).await, "Seq Scan"));
}

#[tokio::test]
async fn no_page_is_found_by_going_through_a_whole_table() {
    let place = open().await;
    all_go_by_their_index(&place).await;
    // What it takes the tables for makes no difference: here that they are too short for any index.
    shared::registered(&place.store).await;
    sqlx::query("ANALYZE").execute(&place.store.database.writer).await.unwrap();
    all_go_by_their_index(&place).await;
    // The control: what a search was before it had trigrams.
    let mut read = place.store.database.begin_list().await.unwrap();
    let naive = "SELECT * FROM envelope_search WHERE strpos(logical_path, 'a') > 0";
    assert!(has(&plan(&mut read, naive).await, "Seq Scan"));
}

/// What the migration finds there: a secret with two generations, one that was deleted, and one that is disabled.
const BEFORE: &str = r"
    INSERT INTO envelope_secrets (id, logical_path, latest, deleted_ms, revision) VALUES
        ('0199d7a0-0000-7000-8000-000000000001', 'Payments/old', 2, NULL, 1),
        ('0199d7a0-0000-7000-8000-000000000002', 'payments/gone', 1, 5, 1),
        ('0199d7a0-0000-7000-8000-000000000003', 'orders/off', 1, NULL, 1);
    INSERT INTO envelope_generations (secret_id, generation, provider, key_id, ciphertext_ref, enabled, created_ms, created_by)
    SELECT id, number, 'kms_envelope', 'arn:aws:kms:ca-central-1:123456789012:key/' || number, 'AQICAHg=',
        logical_path <> 'orders/off', 1, 'operator' FROM envelope_secrets, generate_series(1, latest) AS number;
    INSERT INTO bouncers (name, identity, created_ms, created_by, revision)
        VALUES ('east', 'spiffe://example.org/bouncer/east', 1, 'operator', 1);
    INSERT INTO protected_resources (name, bouncer, cluster, upstream, protocol, logical_path, callers, enabled, created_ms,
            created_by, updated_ms, updated_by, revision)
        VALUES ('payments-api', 'east', 'payments', 'payments.internal:8443', 'mtls', 'Payments/old', '[]', TRUE, 1,
            'operator', 1, 'operator', 1);
    INSERT INTO audit_events (bouncer, id, sequence, time_ms, received_ms, caller, resource, logical_path, generation, key_id,
            aad_sha256, cluster, destination, outcome, reason, backend_request_id, count, decision_id, authority, dev)
        SELECT 'east', number, number, number, 1, '', '', path, 1, '', '', '', '', outcome, '', '', 1, '', '', FALSE
        FROM (VALUES (1, 'payments/a', 'inject'), (2, 'payments/a', 'deny'), (3, 'payments/a', 'inject'),
            (4, 'orders/a', 'inject'), (5, '', 'deny')) AS event (number, path, outcome);
";

#[tokio::test]
async fn what_was_there_before_is_found_after_the_upgrade() {
    let url = create().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let search = MIGRATIONS.iter().find(|migration| migration.description == "search").unwrap().version;
    let earlier = MIGRATIONS.iter().filter(|migration| migration.version < search).cloned().collect();
    Migrator::with_migrations(earlier).run(&mut connection).await.unwrap();
    sqlx::raw_sql(BEFORE).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();

    let place = Place::at(&url).await;
    let summary = async |path: &str| {
        let scope = Scope::of(vec![path.parse().unwrap()]);
        let summary = place.store.audit_summary(&scope).await.unwrap();
        (summary.events, summary.injected, summary.denied, summary.last.map(Timestamp::as_millisecond))
    };
    assert_eq!(summary("payments/*").await, (3, 2, 1, Some(3)));
    assert_eq!(summary("orders/a").await, (1, 1, 0, Some(4)));
    assert_eq!(summary("orders").await, (0, 0, 0, None));
    let found = async |wanted: Wanted| {
        let few = shared::Place::page(&place, &wanted, Reach { few: 9, near: 0 }, "", 9).await;
        assert_eq!(few, shared::Place::page(&place, &wanted, Reach { few: 9, near: 9 }, "", 9).await);
        few.join(" ")
    };
    let secrets = async |wanted: EnvelopeFilter| found(Wanted::envelopes(&wanted)).await;
    let any = EnvelopeFilter::default;
    assert_eq!(secrets(any()).await, "Payments/old orders/off");
    assert_eq!(secrets(EnvelopeFilter { contains: Some("payments".to_owned()), ..any() }).await, "Payments/old");
    assert_eq!(secrets(EnvelopeFilter { contains: Some("ff".to_owned()), ..any() }).await, "orders/off");
    assert_eq!(secrets(EnvelopeFilter { enabled: Some(false), ..any() }).await, "orders/off");
    let key = |number: u8| Some(format!("arn:aws:kms:ca-central-1:123456789012:key/{number}"));
    assert_eq!(secrets(EnvelopeFilter { key_id: key(2), ..any() }).await, "Payments/old");
    assert_eq!(secrets(EnvelopeFilter { key_id: key(1), ..any() }).await, "orders/off");
    let resources = ResourceFilter { contains: Some("api".to_owned()), ..ResourceFilter::default() };
    assert_eq!(found(Wanted::resources(&resources)).await, "payments-api");
}
