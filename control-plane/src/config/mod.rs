//! `control-plane.toml`, parsed once into values that cannot be wrong any more. Every fault is found before any is
//! reported, and each names its key, never its value.

mod database;
mod forward;
mod iam;
mod oidc;
mod table;

pub use self::database::{DatabaseConfig, Server};
use crate::forward::Outlet;
use crate::http_server;
use crate::oidc::OidcConfig;
pub use iam::IamConfig;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use table::Section;

/// Everything that the file says.
#[derive(Debug)]
pub struct Config {
    /// Where the REST API listens, and with what certificate.
    pub api: ApiConfig,
    /// Where the Policy Bridge listens.
    pub bridge_listen: SocketAddr,
    /// Where resolvers without an SVID enrol, if they may.
    pub iam: Option<IamConfig>,
    /// The SPIFFE Workload API's endpoint.
    pub workload_api: String,
    /// The database.
    pub database: DatabaseConfig,
    /// The identity provider whose tokens are taken, if any's are.
    pub oidc: Option<OidcConfig>,
    /// Whether changes of binding wait for a second person.
    pub second_person: bool,
    /// Who is told of the audit as it comes in.
    pub outlets: Vec<Outlet>,
    /// How many days audit events are kept; absent, for good.
    pub audit_retention_days: Option<u32>,
}

/// Calls each second of one caller, unless the file says otherwise.
const REQUESTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(100).expect("not zero");

/// The REST API's listener.
#[derive(Debug)]
pub struct ApiConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its certificate and key. Absent only on loopback.
    pub tls: Option<TlsFiles>,
    /// How many calls each second one caller may make.
    pub requests_per_second: NonZeroU32,
    /// How many connections one address may have.
    pub connections_per_address: u32,
}

/// A certificate and its key, as files.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// What is wrong with a key of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    key: String,
    what: String,
}

impl Fault {
    fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { key: key.into(), what: what.into() }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.key, self.what)
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {kind}. Give its path with --config", path = path.display(), kind = source.kind())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{path} is not TOML at line {line}", path = path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where.
        line: usize,
    },
    /// Keys are wrong; all of them.
    #[error("the configuration has {} fault(s):{}", .0.len(), listed(.0))]
    Faults(Vec<Fault>),
}

fn listed(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("\n  - {fault}")).collect()
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`ConfigError`], with every fault at once.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut file: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            ConfigError::Syntax { path: path.to_owned(), line }
        })?;
        let mut faults = Vec::new();
        let api = api(Section::take(&mut file, "api", &mut faults));
        let mut section = Section::take(&mut file, "bridge", &mut faults);
        let bridge_listen = section.address("listen");
        let table = section.table("iam");
        section.end();
        let iam = table.and_then(|table| iam::iam(Section::of("bridge.iam", table, &mut faults)));
        let workload_api = workload_api(Section::take(&mut file, "identity", &mut faults));
        let database = database::database(Section::take(&mut file, "database", &mut faults));
        let mut section = Section::take(&mut file, "audit", &mut faults);
        let audit_retention_days = section.optional_number("retention_days", 1..=100_000);
        let tables = section.tables("forward");
        section.end();
        let outlets = forward::outlets(tables, &mut faults);
        let mut section = Section::take(&mut file, "access", &mut faults);
        let second_person = section.switch("second_person");
        section.end();
        let oidc =
            file.contains_key("oidc").then(|| oidc::oidc(Section::take(&mut file, "oidc", &mut faults))).flatten();
        oidc.iter().for_each(|oidc| oidc::check(oidc, &mut faults));
        for key in file.keys() {
            faults.push(Fault::new(crate::plaintext::speakable(key), "is not a known section"));
        }
        match (api, bridge_listen, workload_api, database) {
            (Some(api), Some(bridge_listen), Some(workload_api), Some(database)) if faults.is_empty() => Ok(Self {
                api,
                bridge_listen,
                iam,
                workload_api,
                database,
                outlets,
                audit_retention_days,
                second_person,
                oidc,
            }),
            _ => Err(ConfigError::Faults(faults)),
        }
    }
}

fn api(mut section: Section<'_>) -> Option<ApiConfig> {
    let listen = section.address("listen");
    let certificate = section.optional_path("tls_certificate_file");
    let key = section.optional_path("tls_key_file");
    let tls = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let files = TlsFiles { certificate, key };
            check(&files, &mut section);
            Some(files)
        }
        (Some(_), None) => {
            section.fault("tls_key_file", "is missing; it belongs to api.tls_certificate_file");
            None
        }
        (None, Some(_)) => {
            section.fault("tls_certificate_file", "is missing; it belongs to api.tls_key_file");
            None
        }
        (None, None) => {
            if listen.is_some_and(|listen| !listen.ip().is_loopback()) {
                section.fault(
                    "listen",
                    "is not on loopback, where plain HTTP would carry tokens in clear; set api.tls_certificate_file \
                     and api.tls_key_file, or listen on 127.0.0.1 behind a proxy that does TLS",
                );
            }
            None
        }
    };
    let requests_per_second = section.optional_number("requests_per_second", 1..=100_000).and_then(NonZeroU32::new);
    let connections_per_address = section.optional_number("connections_per_address", 1..=http_server::CONNECTIONS);
    section.end();
    Some(ApiConfig {
        listen: listen?,
        tls,
        requests_per_second: requests_per_second.unwrap_or(REQUESTS_PER_SECOND),
        connections_per_address: connections_per_address.unwrap_or(http_server::PER_ADDRESS),
    })
}

/// Notes what is wrong with a section's certificate or key.
fn check(files: &TlsFiles, section: &mut Section<'_>) {
    match files.load() {
        Ok(_) => {}
        Err(TlsFault::Certificate(what)) => section.fault("tls_certificate_file", what),
        Err(TlsFault::Key(what)) => section.fault("tls_key_file", what),
    }
}

fn workload_api(mut section: Section<'_>) -> Option<String> {
    let endpoint = section.text("workload_api");
    let well_formed = endpoint.as_deref().is_none_or(|endpoint| {
        endpoint.strip_prefix("unix:").is_some_and(|path| path.trim_start_matches("//").starts_with('/'))
    });
    if !well_formed {
        section
            .fault("workload_api", "must be a Unix socket with an absolute path, such as unix:///run/spire/agent.sock");
    }
    section.end();
    endpoint.filter(|_| well_formed)
}

/// What is wrong with a certificate or its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// The certificate.
    #[error("tls_certificate_file {0}")]
    Certificate(&'static str),
    /// The key.
    #[error("tls_key_file {0}")]
    Key(&'static str),
}

impl TlsFiles {
    /// Loads both, and holds one against the other.
    ///
    /// # Errors
    /// [`TlsFault`], which names the key that is wrong.
    pub fn load(&self) -> Result<CertifiedKey, TlsFault> {
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|_| TlsFault::Key("is no readable PEM private key"))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        CertifiedKey::from_der(self.certificates()?, key, &provider)
            .map_err(|_| TlsFault::Key("does not belong to the certificate of tls_certificate_file"))
    }

    /// The certificate chain, leaf first.
    ///
    /// # Errors
    /// [`TlsFault::Certificate`].
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
        let unreadable = TlsFault::Certificate("is no readable PEM certificate chain");
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(&self.certificate).map_err(|_| unreadable)?.collect();
        let chain = chain.map_err(|_| unreadable)?;
        if chain.is_empty() { Err(unreadable) } else { Ok(chain) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        match Config::parse(text, Path::new("control-plane.toml")) {
            Err(ConfigError::Faults(faults)) => faults.into_iter().map(|fault| fault.key).collect(),
            Err(other) => panic!("{other}"),
            Ok(_) => Vec::new(),
        }
    }

    const GOOD: &str = "[api]\nlisten='127.0.0.1:8080'\n[bridge]\nlisten='0.0.0.0:8443'\n\
                        [identity]\nworkload_api='unix:///run/a.sock'\n[database]\npath='control-plane.db'\n";

    #[test]
    fn a_good_file_has_no_faults() {
        assert_eq!(faults(GOOD), Vec::<String>::new());
    }

    #[test]
    fn the_example_is_good_where_its_folder_is() {
        let example = include_str!("../../control-plane.example.toml").replace("/var/lib/bouncer/", "");
        assert_eq!(faults(&example), Vec::<String>::new());
    }

    #[test]
    fn audit_is_kept_for_good_unless_days_are_given() {
        let days =
            |extra: &str| Config::parse(&format!("{GOOD}{extra}"), Path::new("c.toml")).unwrap().audit_retention_days;
        assert_eq!(days(""), None);
        assert_eq!(days("[audit]\nretention_days = 400\n"), Some(400));
        for bad in ["0", "-1", "100001", "'400'", "1.5"] {
            assert_eq!(faults(&format!("{GOOD}[audit]\nretention_days = {bad}\n")), ["audit.retention_days"], "{bad}");
        }
    }

    #[test]
    fn an_address_may_have_a_share_of_the_connections_or_all() {
        let share = |extra: &str| {
            let text = GOOD.replace("[bridge]", &format!("{extra}[bridge]"));
            Config::parse(&text, Path::new("c.toml")).map(|config| config.api.connections_per_address).ok()
        };
        assert_eq!(share(""), Some(256));
        assert_eq!(share("connections_per_address = 2048\n"), Some(2_048));
        assert!(share("connections_per_address = 0\n").or(share("connections_per_address = 2049\n")).is_none());
    }

    #[test]
    fn a_second_person_is_asked_for_where_the_file_says_so() {
        let on = |extra: &str| Config::parse(&format!("{GOOD}{extra}"), Path::new("c.toml")).unwrap().second_person;
        assert!(!on("") && !on("[access]\nsecond_person = false\n") && on("[access]\nsecond_person = true\n"));
        assert_eq!(faults(&format!("{GOOD}[access]\nsecond_person = 'yes'\n")), ["access.second_person"]);
        assert_eq!(faults(&format!("{GOOD}[access]\nsecond = true\n")), ["access.second"]);
    }

    #[test]
    fn all_faults_are_found_at_once_and_name_their_keys() {
        assert_eq!(faults(""), ["api.listen", "bridge.listen", "identity.workload_api", "database.path"]);
        let bad = "[api]\nlisten='0.0.0.0:8080'\nlisten_too='x'\n[bridge]\nlisten=8443\n\
                   [identity]\nworkload_api='http://x'\n[database]\npath=''\n[extra]\n";
        assert_eq!(
            faults(bad),
            ["api.listen", "api.listen_too", "bridge.listen", "identity.workload_api", "database.path", "extra"]
        );
    }

    #[test]
    fn an_identity_provider_is_checked_whole() {
        let oidc = "[oidc]\nissuer='https://login.example.org/realms/ops'\naudience='bouncer'\nclient_id='console'\n\
                    public_url='https://bouncer.example.org'\n[[oidc.roles]]\nvalue='ops'\nrole='operator'\n\
                    path_prefixes=['payments/*']\n";
        assert_eq!(faults(&format!("{GOOD}{oidc}")), Vec::<String>::new());
        for (good, bad, key) in [
            ("https://login.example.org/realms/ops", "http://login.example.org", "oidc.issuer"),
            ("https://login.example.org/realms/ops", "https://login.example.org/?a=b", "oidc.issuer"),
            ("audience='bouncer'", "", "oidc.audience"),
            ("https://bouncer.example.org", "https://bouncer.example.org/console", "oidc.public_url"),
            ("client_id='console'\n", "", "oidc.client_id"),
            ("role='operator'", "role='root'", "oidc.roles.role"),
            ("payments/*", "payments/../x", "oidc.roles.path_prefixes"),
            ("value='ops'", "valeu='ops'", "oidc.roles.value"),
        ] {
            let faults = faults(&format!("{GOOD}{}", oidc.replace(good, bad)));
            assert_eq!(faults.first().map(String::as_str), Some(key), "{bad}");
        }
        let nobody = oidc.split("[[").next().unwrap();
        assert_eq!(faults(&format!("{GOOD}{nobody}")), ["oidc.roles"]);
    }

    #[test]
    fn enrolment_by_iam_role_is_checked_whole() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["control-plane.example.org".to_owned()]).unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let iam = format!(
            "[bridge.iam]\nlisten='0.0.0.0:8444'\naudience='control-plane.example.org'\ntls_certificate_file={:?}\n\
             tls_key_file={:?}\nsts_endpoints=['https://sts.internal:8443']\n",
            certificate, key
        );
        assert_eq!(faults(&format!("{GOOD}{iam}")), Vec::<String>::new());
        for (good, bad, fault) in [
            ("listen='0.0.0.0:8444'", "", "bridge.iam.listen"),
            ("control-plane.example.org'", "two words'", "bridge.iam.audience"),
            ("audience", "audeince", "bridge.iam.audience"),
            ("https://sts.internal:8443", "http://sts.internal:8443", "bridge.iam.sts_endpoints"),
            ("https://sts.internal:8443", "https://user@sts.internal", "bridge.iam.sts_endpoints"),
            ("https://sts.internal:8443", "https://sts.internal/path", "bridge.iam.sts_endpoints"),
            ("cert.pem", "key.pem", "bridge.iam.tls_certificate_file"),
            ("key.pem", "none.pem", "bridge.iam.tls_key_file"),
            ("sts_endpoints", "sts_ca_file='/none'\nsts_endpoints", "bridge.iam.sts_ca_file"),
        ] {
            let faults = faults(&format!("{GOOD}{}", iam.replace(good, bad)));
            assert_eq!(faults.first().map(String::as_str), Some(fault), "{bad}");
        }
    }

    #[test]
    fn values_are_never_repeated() {
        let bad = GOOD.replace("127.0.0.1:8080", "hunter2").replace("unix:///run/a.sock", "hunter2");
        let error = Config::parse(&bad, Path::new("c.toml")).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        let error = Config::parse("[api]\nlisten = hunter2", Path::new("c.toml")).unwrap_err().to_string();
        assert!(!error.contains("hunter2") && error.contains("line 2"), "{error}");
    }
}
