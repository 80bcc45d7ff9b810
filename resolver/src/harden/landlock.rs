//! Which files and ports stay in reach (landlock(7)). [`super::confine`] calls it.
//!
//! Denied is what is not listed here: every other file, directory and device, running any program, TCP to and on other
//! ports, abstract sockets, signals to others. Not covered by the kernel's rights so far: UDP, connecting to Unix sockets
//! that have a path, `stat`, `chmod` and `chown`.

use super::Level;
use crate::config::Config;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, make_bitflags,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The rights of Linux 6.12. Later ones are not asked for before they were tried on a kernel that has them.
const TRIED: ABI = ABI::V6;

/// For a folder: look at it and read what is in it.
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
/// For the state folder: files are written anew, renamed and removed.
const KEEP: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile});
/// For a socket's folder: bound under another name, renamed, removed at the end.
const LISTEN: BitFlags<AccessFs> = make_bitflags!(AccessFs::{MakeSock | RemoveFile});

/// What libraries read while the process runs: name resolution with its modules, CA certificates, the time zone. All of
/// `/etc`, since its `resolv.conf` may be replaced by another file at any time, and a rule on a file goes with the file.
const SYSTEM: [&str; 4] = ["/etc", "/usr", "/lib", "/lib64"];

/// Binds this thread and all that it starts.
pub(super) fn restrict(config: &Config) -> Result<Level, RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(TRIED))?
        .handle_access(AccessNet::from_all(TRIED))?
        .scope(Scope::from_all(TRIED))?
        .create()?;
    rules = beneath(rules, &config.state_dir, KEEP)?;
    let sockets = [Some(&config.intercept), Some(&config.sds), config.admin.as_ref()];
    for socket in sockets.into_iter().flatten() {
        if let Some(folder) = socket.path.parent() {
            rules = beneath(rules, folder, LISTEN)?;
        }
    }
    for folder in SYSTEM.iter().map(PathBuf::from).chain(outside_system(config)) {
        rules = beneath(rules, &folder, READ)?;
    }
    for port in ports(config) {
        rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    rules = rules.add_rule(NetPort::new(config.http.port(), AccessNet::BindTcp))?;
    Ok(match rules.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Level::Enforced,
        RulesetStatus::PartiallyEnforced => Level::Partial,
        RulesetStatus::NotEnforced => Level::Unavailable,
    })
}

/// What can't be opened now needs no rule: it is not there, or out of this user's reach anyway.
fn beneath(rules: RulesetCreated, path: &Path, rights: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    let Ok(place) = PathFd::new(path) else { return Ok(rules) };
    // The kernel refuses rights on folders where the path is a file.
    let rights = if path.is_dir() { rights } else { rights & AccessFs::from_file(TRIED) };
    rules.add_rule(PathBeneath::new(place, rights))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Folders and files that the environment names.
fn outside_system(config: &Config) -> Vec<PathBuf> {
    let mut read = Vec::new();
    // systemd-resolved and its like keep the true file elsewhere, and replace it there.
    let resolv = std::fs::canonicalize("/etc/resolv.conf").ok();
    read.extend(resolv.as_deref().and_then(folder_of).filter(|folder| folder != Path::new("/etc")));
    read.extend(["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().filter_map(variable).map(PathBuf::from));
    if config.uses_default_chain() {
        read.extend(variable("HOME").map(|home| Path::new(&home).join(".aws")));
        // Tokens are replaced by other files under the same name, so their folder is what counts.
        let files = [
            "AWS_CONFIG_FILE",
            "AWS_SHARED_CREDENTIALS_FILE",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        ];
        read.extend(files.into_iter().filter_map(variable).filter_map(|file| folder_of(Path::new(&file))));
    }
    read
}

/// The folder of a file; never the root, which would allow everything.
fn folder_of(file: &Path) -> Option<PathBuf> {
    file.parent().filter(|folder| folder.parent().is_some()).map(Path::to_path_buf)
}

/// The ports of all servers that are configured: the control plane, Vault, KMS, STS, the collector of traces, and DNS for long answers.
fn ports(config: &Config) -> BTreeSet<u16> {
    const DNS: u16 = 53;
    const HTTPS: u16 = 443;
    let mut ports = BTreeSet::from([DNS]);
    let fronts = config.bridge.addresses.iter().filter_map(|address| address.rsplit_once(':'));
    ports.extend(fronts.filter_map(|(_, port)| port.parse::<u16>().ok()));
    if let Some(vault) = &config.vault {
        ports.extend(vault.addresses.iter().filter_map(|address| port_of(address)));
    }
    ports.extend(config.telemetry.as_ref().and_then(|telemetry| port_of(&telemetry.endpoint)));
    if let Some(kms) = &config.kms {
        ports.extend(kms.kms_endpoints.values().filter_map(|url| port_of(url)));
        for endpoint in [&kms.kms_endpoint, &kms.sts_endpoint] {
            ports.extend(endpoint.as_deref().map_or(Some(HTTPS), port_of));
        }
    }
    if config.uses_default_chain() {
        // Roles of machines, tasks and pods come from link-local servers over plain HTTP.
        ports.extend([80, HTTPS]);
        let servers = [
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
            "AWS_ENDPOINT_URL",
            "AWS_ENDPOINT_URL_STS",
        ];
        ports.extend(servers.into_iter().filter_map(variable).filter_map(|url| port_of(&url)));
    }
    ports
}

fn port_of(url: &str) -> Option<u16> {
    let url: http::Uri = url.parse().ok()?;
    url.port_u16().or_else(|| match url.scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_its_own_port_or_that_of_its_scheme() {
        assert_eq!(port_of("https://kms.ca-central-1.amazonaws.com"), Some(443));
        assert_eq!(port_of("https://kms.internal:8443/path"), Some(8443));
        assert_eq!(port_of("http://127.0.0.1:4566"), Some(4566));
        assert_eq!(port_of("http://169.254.170.2/credentials"), Some(80));
        assert_eq!(port_of("no url"), None);
    }

    #[test]
    fn the_root_is_nobodys_folder() {
        assert_eq!(folder_of(Path::new("/token")), None);
        assert_eq!(folder_of(Path::new("/run/secrets/token")), Some("/run/secrets".into()));
    }
}
