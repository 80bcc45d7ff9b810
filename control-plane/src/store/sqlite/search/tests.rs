use super::*;
use crate::clock::SystemClock;
use crate::store::search::Reach;
use crate::store::search::tests::{self as shared, every_kind};
use crate::store::sqlite::{SqliteStore, audit, tokens};
use crate::store::{Page, Store};
use jiff::Timestamp;
use std::sync::Arc;
use tempfile::TempDir;
use uuid::Uuid;

struct Place {
    store: SqliteStore,
    _folder: TempDir,
}

async fn open() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("control-plane.db"), Arc::new(SystemClock)).await.unwrap();
    Place { store, _folder: folder }
}

impl shared::Place for Place {
    fn store(&self) -> &impl Store {
        &self.store
    }

    async fn page(&self, wanted: &Wanted, reach: Reach, after: &str, limit: u16) -> Vec<String> {
        let mut read = self.store.database.reader.acquire().await.unwrap();
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

/// How SQLite means to answer a query. An index that is named and cannot be used is an error already.
async fn plan(place: &Place, query: QueryBuilder<Sqlite>) -> Vec<String> {
    let sql = format!("EXPLAIN QUERY PLAN {}", query.sql().as_str());
    let rows: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&place.store.database.reader).await.unwrap();
    rows.into_iter().map(|(_, _, _, detail)| detail).collect()
}

/// Whether a step goes through a whole table. Through a list of its own making, or a table of trigrams, it does not.
fn scans(step: &str) -> bool {
    let indexed = step.contains("VIRTUAL TABLE INDEX") && !step.ends_with("VIRTUAL TABLE INDEX 0:");
    step.starts_with("SCAN") && !indexed && !step.contains("CONSTANT ROW") && !step.contains("(subquery")
}

#[tokio::test]
async fn no_page_is_found_by_going_through_a_whole_table() {
    let place = open().await;
    let told = async |query: QueryBuilder<Sqlite>, sorted: bool| {
        let steps = plan(&place, query).await;
        assert!(!steps.iter().any(|step| scans(step)), "{steps:#?}");
        assert!(sorted || !steps.iter().any(|step| step.contains("FOR ORDER BY")), "{steps:#?}");
    };
    for wanted in every_kind() {
        let ranges = wanted.left();
        for part in wanted.parts() {
            for range in &ranges {
                told(walk(&wanted, part, range, 10), false).await;
            }
        }
        for condition in &wanted.conditions {
            told(look_up(&wanted, condition, &ranges, 10), true).await;
            told(count(wanted.list, condition, 10), false).await;
        }
    }
    // The control: what a search was before it had trigrams.
    let naive = "SELECT * FROM envelope_search WHERE instr(logical_path, 'a') > 0";
    assert!(plan(&place, QueryBuilder::new(naive)).await.iter().any(|step| scans(step)));
}

#[tokio::test]
async fn no_page_of_tokens_or_changes_is_found_by_going_through_a_whole_table() {
    let place = open().await;
    let told = async |query: QueryBuilder<Sqlite>| {
        let steps = plan(&place, query).await;
        assert!(!steps.iter().any(|step| scans(step) || step.contains("FOR ORDER BY")), "{steps:#?}");
        steps.concat()
    };
    for (wanted, index) in shared::tokens() {
        let after = Some(Uuid::now_v7());
        let steps = told(tokens::some(&wanted, &Page { after, limit: 10 }, Timestamp::now())).await;
        // A table's own key has a name of SQLite's.
        assert!(steps.contains(index) || index == "tokens_pkey", "{index}: {steps}");
    }
    for (wanted, _) in shared::changes() {
        let steps = told(audit::changes(&wanted, &Page { after: None, limit: 10 }).unwrap()).await;
        assert!(steps.contains("admin_events_by_"), "{steps}");
    }
}
