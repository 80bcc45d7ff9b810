//! The database of this suite's control planes: an SQLite file for each.

use bouncer_control_plane::clock::Clock;
use bouncer_control_plane::store::Store;
use bouncer_control_plane::store::sqlite::SqliteStore;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

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
