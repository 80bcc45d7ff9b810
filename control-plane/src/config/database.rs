//! `[database]`: a file of SQLite's, or a PostgreSQL server.

use super::table::Section;
use crate::clock::Clock;
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Result, Store, StoreError};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the database is.
#[derive(Debug, Clone)]
pub enum DatabaseConfig {
    /// A file, for one control plane.
    Sqlite(PathBuf),
    /// A server, for one control plane or several.
    Postgres(Server),
}

/// How a PostgreSQL server is reached.
#[derive(Clone)]
pub struct Server(Box<PgConnectOptions>);

impl fmt::Debug for Server {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({}:{})", self.0.get_host(), self.0.get_port())
    }
}

impl DatabaseConfig {
    /// Opens it, and brings its schema up to date.
    ///
    /// # Errors
    /// [`crate::store::StoreError`].
    pub async fn open(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>> {
        Ok(match self {
            Self::Sqlite(path) => Arc::new(SqliteStore::open(path, clock).await?),
            Self::Postgres(Server(options)) => Arc::new(PostgresStore::open((**options).clone(), clock).await?),
        })
    }

    /// What to look at when it can't be opened, behind the error's own words. Nothing where those say what to do.
    #[must_use]
    pub const fn advice(&self, error: &StoreError) -> &'static str {
        match (error, self) {
            (StoreError::Newer { .. }, _) => "",
            (_, Self::Sqlite(_)) => {
                ". Check that the file of database.path and its folder belong to this user, and that the disk has room"
            }
            (_, Self::Postgres(_)) => {
                ". Check that the server of database.url runs and takes connections from here, that its certificate is for \
                 that host and issued under database.ca_file, and that the user may log in and owns the database"
            }
        }
    }
}

pub(super) fn database(mut section: Section<'_>) -> Option<DatabaseConfig> {
    let given = section.has("path") || section.has("url");
    let (path, url) = (section.optional_path("path"), section.optional_text("url"));
    let (password, ca) = (section.optional_path("password_file"), section.optional_path("ca_file"));
    let config = match (path, url) {
        (Some(path), None) => {
            if !crate::folder::of(&path).is_dir() {
                section.fault("path", "lies in a folder that does not exist; create it for the control plane's user");
            }
            if path.is_dir() {
                section.fault("path", "is a folder; it must be a file");
            }
            for (key, given) in [("password_file", password.is_some()), ("ca_file", ca.is_some())] {
                if given {
                    section.fault(key, "belongs to database.url");
                }
            }
            Some(DatabaseConfig::Sqlite(path))
        }
        (None, Some(url)) => server(&mut section, &url, password, ca).map(DatabaseConfig::Postgres),
        (Some(_), Some(_)) => {
            section.fault("url", "is given beside database.path; it is one or the other");
            None
        }
        (None, None) => {
            if !given {
                section.fault("path", "is missing; give it, or database.url for a PostgreSQL server");
            }
            None
        }
    };
    section.end();
    config
}

const FORM: &str = "must be postgres://USER@HOST:PORT/DATABASE; a Unix socket's folder as the host has its slashes written \
                    as %2F. Its one parameter is sslmode";

fn server(section: &mut Section<'_>, text: &str, password: Option<PathBuf>, ca: Option<PathBuf>) -> Option<Server> {
    let url = reqwest::Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "postgres" | "postgresql")
            && !url.username().is_empty()
            && url.host_str().is_some_and(|host| !host.is_empty())
            && url.path().len() > 1
            && url.fragment().is_none()
    });
    let Some(url) = url else {
        section.fault("url", FORM);
        return None;
    };
    if url.password().is_some() {
        section
            .fault("url", "has a password in it; put that in a file of its own and name it in database.password_file");
        return None;
    }
    let mut mode = None;
    for (key, value) in url.query_pairs() {
        match (&*key, value.parse::<PgSslMode>()) {
            ("sslmode", Ok(value)) => mode = Some(value),
            _ => {
                section.fault("url", FORM);
                return None;
            }
        }
    }
    let Ok(mut options) = text.parse::<PgConnectOptions>() else {
        section.fault("url", FORM);
        return None;
    };
    let here = options.get_socket().is_some() || is_loopback(options.get_host());
    let mode = mode.unwrap_or(if here { PgSslMode::Prefer } else { PgSslMode::VerifyFull });
    if !here && !matches!(mode, PgSslMode::VerifyFull) {
        section.fault(
            "url",
            "has an sslmode under which whoever is between here and the server could be it; beyond this machine only \
             sslmode=verify-full is taken, which is also what there is without any",
        );
        return None;
    }
    options = options.ssl_mode(mode);
    if let Some(file) = password {
        match std::fs::read_to_string(file) {
            Ok(text) if !text.trim_end_matches(['\r', '\n']).is_empty() => {
                options = options.password(text.trim_end_matches(['\r', '\n']));
            }
            Ok(_) => section.fault("password_file", "is empty"),
            Err(error) => section.fault("password_file", format!("cannot be read: {}", error.kind())),
        }
    }
    if let Some(file) = ca {
        use rustls_pki_types::pem::PemObject as _;
        let read = rustls_pki_types::CertificateDer::pem_file_iter(&file);
        if !read.is_ok_and(|mut all| all.next().is_some_and(|first| first.is_ok()) && all.all(|one| one.is_ok())) {
            section.fault("ca_file", "is no readable file of PEM certificates");
        }
        options = options.ssl_root_cert(file);
    }
    Some(Server(Box::new(options)))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigError};
    use super::{DatabaseConfig, Server};
    use crate::serve::ServeError;
    use crate::store::StoreError;
    use std::path::Path;

    const REST: &str = "[api]\nlisten='127.0.0.1:8080'\n[bridge]\nlisten='0.0.0.0:8443'\n\
                        [identity]\nworkload_api='unix:///run/a.sock'\n[database]\n";

    fn faults(database: &str) -> Vec<String> {
        match Config::parse(&format!("{REST}{database}\n"), Path::new("control-plane.toml")) {
            Err(ConfigError::Faults(faults)) => faults.iter().map(|fault| fault.key().to_owned()).collect(),
            Err(other) => panic!("{other}"),
            Ok(_) => Vec::new(),
        }
    }

    #[test]
    fn a_server_is_named_whole_and_without_its_password() {
        for good in [
            "url='postgres://bouncer@db.internal/bouncer'",
            "url='postgres://bouncer@db.internal:5433/bouncer?sslmode=verify-full'",
            "url='postgresql://bouncer@%2Frun%2Fpostgresql/bouncer'",
            "url='postgres://bouncer@localhost/bouncer?sslmode=disable'",
        ] {
            assert_eq!(faults(good), Vec::<String>::new(), "{good}");
        }
        for bad in [
            "url='mysql://bouncer@db/bouncer'",
            "url='postgres://db/bouncer'",
            "url='postgres://bouncer@db'",
            "url='postgres://bouncer:hunter2@db/bouncer'",
            "url='postgres://bouncer@db/bouncer?password=hunter2'",
            "url='postgres://bouncer@localhost/bouncer?host=db.internal'",
            "url='postgres://bouncer@localhost/bouncer?hostaddr=192.0.2.1'",
        ] {
            assert_eq!(faults(bad), ["database.url"], "{bad}");
        }
        assert_eq!(faults("path='a.db'\nurl='postgres://a@b/c'"), ["database.url"]);
        assert_eq!(faults("path='a.db'\npassword_file='a'"), ["database.password_file"]);
        assert_eq!(faults("url='postgres://a@b/c'\nca_file='/no/such'"), ["database.ca_file"]);
        assert_eq!(faults("url='postgres://a@b/c'\npassword_file='/no/such'"), ["database.password_file"]);
    }

    #[test]
    fn beyond_this_machine_the_server_must_prove_who_it_is() {
        for mode in ["disable", "allow", "prefer", "require", "verify-ca"] {
            let url = |host: &str| format!("url='postgres://bouncer@{host}/bouncer?sslmode={mode}'");
            for host in ["db.internal", "192.0.2.1", "localhost.example.org", "127.0.0.1.example.org"] {
                assert_eq!(faults(&url(host)), ["database.url"], "{host} {mode}");
            }
            for host in ["localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpostgresql"] {
                assert_eq!(faults(&url(host)), Vec::<String>::new(), "{host} {mode}");
            }
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "hunter2\n").unwrap();
        let text = format!("{REST}url='postgres://a@b/c'\npassword_file='{}'\n", file.display());
        let config = Config::parse(&text, Path::new("control-plane.toml")).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_database_of_a_newer_program_is_no_matter_of_disks_and_logins() {
        let server = DatabaseConfig::Postgres(Server(Box::default()));
        for database in [DatabaseConfig::Sqlite("/a.db".into()), server] {
            let said = |source| ServeError::Store { advice: database.advice(&source), source }.to_string();
            let newer = said(StoreError::Newer { schema: 9, known: 8 });
            assert!(
                newer.ends_with("Start the newer version again, or restore a backup from before the upgrade"),
                "{newer}"
            );
            let other = said(StoreError::OutOfRange);
            assert!(other.contains(". Check that the "), "{other}");
        }
    }
}
