//! The database of this suite's control planes: one for each on a PostgreSQL server that this process started.

use crate::server::{Server, Settings};
use bouncer_control_plane::clock::Clock;
use bouncer_control_plane::store::Store;
use bouncer_control_plane::store::postgres::PostgresStore;
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

/// It ends with this process.
static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&Settings::default()).unwrap());

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/postgres");

/// What each schema's program wrote that one before it could not have: at least a row in each new table.
pub(crate) const WRITTEN: [(i64, &str); 5] = [
    (1, include_str!("../upgrade/postgres/0001.sql")),
    (2, include_str!("../upgrade/postgres/0002.sql")),
    (3, include_str!("../upgrade/postgres/0003.sql")),
    (4, include_str!("../upgrade/postgres/0004.sql")),
    (6, include_str!("../upgrade/postgres/0006.sql")),
];

/// Where one control plane's database is.
pub(crate) struct Place {
    url: String,
}

/// Runs to its end, also within a test that is asynchronous itself.
pub(crate) fn wait<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(move || runtime().block_on(work)).join().unwrap()
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::on(&SERVER)
    }

    /// One that is there.
    pub(crate) const fn at(url: String) -> Self {
        Self { url }
    }

    pub(crate) fn on(server: &Server) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("control_plane_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let (create, admin) = (format!("CREATE DATABASE {name}"), server.url("postgres"));
        wait(async move {
            let mut admin = PgConnection::connect(&admin).await.unwrap();
            sqlx::query(AssertSqlSafe(create)).execute(&mut admin).await.unwrap();
            admin.close().await.unwrap();
        });
        Self { url: server.url(&name) }
    }

    /// One as this schema left it, in whose tables is what each schema up to it wrote.
    pub(crate) async fn left_by(schema: i64) -> Self {
        let place = Self::new();
        place.leave_by(schema).await;
        place
    }

    /// Makes an empty one so.
    pub(crate) async fn leave_by(&self, schema: i64) {
        let mut connection = self.connect().await;
        for version in MIGRATIONS.iter().map(|migration| migration.version).filter(|version| *version <= schema) {
            MIGRATIONS.run_to(version, &mut connection).await.unwrap();
            for (_, sql) in WRITTEN.iter().filter(|(since, _)| *since == version) {
                sqlx::raw_sql(*sql).execute(&mut connection).await.unwrap();
            }
        }
        let tables = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
                      AND relname <> '_sqlx_migrations'";
        let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut connection).await.unwrap();
        for table in tables {
            let any = format!("SELECT EXISTS (SELECT 1 FROM {table})");
            let any: bool = sqlx::query_scalar(AssertSqlSafe(any)).fetch_one(&mut connection).await.unwrap();
            assert!(any, "{schema}: {table} is empty");
        }
        connection.close().await.unwrap();
    }

    pub(crate) async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store> {
        Arc::new(PostgresStore::open(self.url.parse().unwrap(), clock).await.unwrap())
    }

    /// What a configuration says of it.
    pub(crate) fn section(&self, _site: &std::path::Path) -> String {
        format!("[database]\nurl = \"{}\"\n", self.url)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A connection of one's own.
    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Changes it behind the control plane's back. Returns how many rows were.
    pub(crate) async fn execute(&self, sql: &'static str) -> u64 {
        let mut connection = self.connect().await;
        let changed = sqlx::query(sql).execute(&mut connection).await.unwrap().rows_affected();
        connection.close().await.unwrap();
        changed
    }

    /// Every byte that its tables and indices have on disk, and those of the catalogue that names them.
    pub(crate) fn bytes_on_disk(&self) -> Vec<u8> {
        let url = self.url.clone();
        let files: Vec<String> = wait(async move {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            sqlx::query("CHECKPOINT").execute(&mut connection).await.unwrap();
            let own = "SELECT pg_relation_filepath(oid) FROM pg_class
                       WHERE relkind IN ('r', 'i', 't') AND (oid >= 16384 OR relname = 'pg_class')";
            sqlx::query_scalar(own).fetch_all(&mut connection).await.unwrap()
        });
        files.iter().flat_map(|file| std::fs::read(SERVER.data().join(file)).unwrap()).collect()
    }
}
