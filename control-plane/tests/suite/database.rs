//! The database of this suite's control planes: an SQLite file for each.

use bouncer_control_plane::clock::Clock;
use bouncer_control_plane::store::Store;
use bouncer_control_plane::store::sqlite::SqliteStore;
use sqlx::AssertSqlSafe;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");

/// What each schema's program wrote that one before it could not have: at least a row in each new table.
pub(crate) const WRITTEN: [(i64, &str); 8] = [
    (1, include_str!("../upgrade/sqlite/0001.sql")),
    (3, include_str!("../upgrade/sqlite/0003.sql")),
    (4, include_str!("../upgrade/sqlite/0004.sql")),
    (5, include_str!("../upgrade/sqlite/0005.sql")),
    (7, include_str!("../upgrade/sqlite/0007.sql")),
    (8, include_str!("../upgrade/sqlite/0008.sql")),
    (10, include_str!("../upgrade/sqlite/0010.sql")),
    (12, include_str!("../upgrade/sqlite/0012.sql")),
];

/// Where one control plane's database is.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One with a database that is there already.
    pub(crate) fn with(database: &std::path::Path) -> Self {
        let place = Self::new();
        std::fs::copy(database, place.path()).unwrap();
        place
    }

    /// One as this schema left it, in whose tables is what each schema up to it wrote.
    pub(crate) async fn left_by(schema: i64) -> Self {
        let place = Self::new();
        let options = SqliteConnectOptions::new().filename(place.path()).create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        for version in MIGRATIONS.iter().map(|migration| migration.version).filter(|version| *version <= schema) {
            MIGRATIONS.run_to(version, &pool).await.unwrap();
            for (_, sql) in WRITTEN.iter().filter(|(since, _)| *since == version) {
                sqlx::raw_sql(*sql).execute(&pool).await.unwrap();
            }
        }
        // Without the tables that SQLite, sqlx and the index of trigrams keep for themselves.
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'
                      AND instr(name, '_trigrams') = 0 AND name <> '_sqlx_migrations'";
        let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&pool).await.unwrap();
        for table in tables {
            let any = format!("SELECT EXISTS (SELECT 1 FROM {table})");
            let any: bool = sqlx::query_scalar(AssertSqlSafe(any)).fetch_one(&pool).await.unwrap();
            assert!(any, "{schema}: {table} is empty");
        }
        pool.close().await;
        place
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("control-plane.db")
    }

    pub(crate) async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(&self.path(), clock).await.unwrap())
    }

    /// What a configuration says of it: it lies in the site's own folder.
    pub(crate) fn section(&self, site: &std::path::Path) -> String {
        format!("[database]\npath = \"{}\"\n", site.join("control-plane.db").display())
    }

    /// Changes it behind the control plane's back. Returns how many rows were.
    pub(crate) async fn execute(&self, sql: &'static str) -> u64 {
        let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(self.path())).await.unwrap();
        let changed = sqlx::query(sql).execute(&pool).await.unwrap().rows_affected();
        pool.close().await;
        changed
    }

    /// Every byte that it has on disk.
    pub(crate) fn bytes_on_disk(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.0.path()).unwrap();
        files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }
}
