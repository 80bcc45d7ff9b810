//! The control plane cannot decrypt, because nothing that could is linked into it. Read off cargo's own tree.

use std::process::Command;

/// Crates by which a customer's credential could be unwrapped, and the prefixes of their families.
const NEVER: [&str; 14] = [
    "aws-sdk-",
    "aws-config",
    "aws-credential-types",
    "vaultrs",
    "aes-gcm",
    "aes",
    "chacha20poly1305",
    "rsa",
    "openssl",
    "native-tls",
    "ring",
    "bouncer-resolver",
    "google-cloud-",
    "azure_",
];

fn tree(package: &str, depth: Option<&str>) -> Vec<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--offline", "--locked", "-e", "normal", "--prefix", "none", "-p", package]);
    cargo.args(["--format", "{p}"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if let Some(depth) = depth {
        cargo.args(["--depth", depth]);
    }
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut names: Vec<String> = text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

fn forbidden(package: &str) -> Vec<String> {
    let is_forbidden = |name: &String| {
        NEVER.iter().any(|never| name == never || (never.ends_with(['-', '_']) && name.starts_with(never)))
    };
    tree(package, None).into_iter().filter(is_forbidden).collect()
}

#[test]
fn nothing_that_could_unwrap_a_credential_is_linked() {
    assert_eq!(forbidden("bouncer-control-plane"), Vec::<String>::new());
    // The control: the same search finds what the resolver unwraps with.
    assert!(forbidden("bouncer-resolver").contains(&"aws-sdk-kms".to_owned()));
}

/// The cryptography that TLS needs comes with rustls. The control plane itself names no cipher: what it names is here,
/// and another crate is added to this list knowingly or not at all.
#[test]
fn its_own_dependencies_are_these_and_no_others() {
    let expected = [
        "axum",
        "base64",
        "bouncer-audit",
        "bouncer-control-plane",
        "bouncer-custody",
        "bouncer-proto",
        "clap",
        "futures",
        "governor",
        "http",
        "http-body-util",
        "hyper-util",
        "jiff",
        "jsonwebtoken",
        "prometheus-client",
        "rand",
        "reqwest",
        "rustls",
        "rustls-pki-types",
        "serde",
        "serde_json",
        "sha2",
        "spiffe",
        "spiffe-rustls",
        "sqlx",
        "subtle",
        "thiserror",
        "tokio",
        "tokio-rustls",
        "tokio-stream",
        "tokio-util",
        "toml",
        "tonic",
        "tracing",
        "tracing-subscriber",
        "utoipa",
        "utoipa-axum",
        "uuid",
        "x509-parser",
    ];
    assert_eq!(tree("bouncer-control-plane", Some("1")), expected);
}

/// Neither the evidence nor its cryptography is in the sandbox.
#[test]
fn the_filter_links_nothing_of_the_audit() {
    assert!(!tree("bouncer-wasm-filter", None).contains(&"bouncer-audit".to_owned()));
    assert!(tree("bouncer-resolver", None).contains(&"bouncer-audit".to_owned()), "the control");
}
