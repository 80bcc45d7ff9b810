//! The control plane cannot decrypt, because nothing that could is linked into it. Read off cargo's own tree, for every
//! target and with every feature; build scripts and macros included.

use std::collections::BTreeSet;
use std::process::Command;

/// Crates by which a customer's credential could be unwrapped or asked for, and the prefixes of their families.
const NEVER: [&str; 32] = [
    // KMS, Vault and other keepers of secrets
    "aws-config",
    "aws-credential-types",
    "aws-runtime",
    "aws-sdk-",
    "aws-sigv4",
    "aws-smithy-",
    "azure_",
    "google-cloud-",
    "hashicorp",
    "rusoto_",
    "vaultrs",
    "yup-oauth2",
    // Clients that speak HTTP to anybody; one is here, `reqwest`, which speaks to whom the configuration names
    "curl",
    "isahc",
    "surf",
    "ureq",
    // Ciphers
    "aead",
    "aes",
    "aes-gcm",
    "age",
    "chacha20poly1305",
    "cipher",
    "crypto_box",
    "hpke",
    "josekit",
    "native-tls",
    "openssl",
    "orion",
    "ring",
    "rsa",
    "sodiumoxide",
    // What does unwrap
    "bouncer-resolver",
];

/// What in the tree calls itself cryptography, and why it is there. A list of bad names knows no new one; this one is
/// added to knowingly or not at all. Of these only `aws-lc-rs` has ciphers, for TLS, and the control plane's own code
/// does not name it.
const CRYPTOGRAPHY: [&str; 37] = [
    // An allocator, whose keyword "encrypted-heap" means the links of its free lists
    "mimalloc",
    "libmimalloc-sys",
    // TLS and its certificates
    "aws-lc-rs",
    "aws-lc-sys",
    "rustls",
    "rustls-pki-types",
    "rustls-webpki",
    "tokio-rustls",
    "spiffe",
    "spiffe-rustls",
    "x509-parser",
    "base64ct",
    "const-oid",
    "der",
    "pem-rfc7468",
    "pkcs8",
    "spki",
    // The system's authorities, for the OpenID provider's certificate
    "rustls-native-certs",
    "security-framework",
    "security-framework-sys",
    // How a signature is named, without one: the OpenID provider's tokens are verified by `aws-lc-rs`
    "signature",
    // Digests
    "block-buffer",
    "cmov",
    "cpufeatures",
    "crypto-common",
    "ctutils",
    "digest",
    "sha1",
    "sha2",
    "subtle",
    "zeroize",
    "zeroize_derive",
    // The generator of random numbers in `rand`
    "chacha20",
    // The log-in to PostgreSQL
    "hkdf",
    "hmac",
    "md-5",
    // A feature of SQLite's bindings that is not on
    "libsqlite3-sys",
];

fn cargo(arguments: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo.args(arguments).arg("--locked").current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Names and versions.
fn tree(package: &str, more: &[&str]) -> BTreeSet<(String, String)> {
    let tree = ["tree", "--prefix", "none", "--format", "{p}", "--target", "all", "--all-features", "-p", package];
    let text = cargo(&[&tree, more].concat());
    let mut packages = text.lines().map(|line| line.split(' '));
    let pair = |line: &mut std::str::Split<'_, char>| Some((line.next()?.to_owned(), line.next()?.to_owned()));
    packages.by_ref().filter_map(|mut line| pair(&mut line)).collect()
}

fn whole_tree(package: &str) -> BTreeSet<(String, String)> {
    tree(package, &["-e", "normal,build"])
}

fn forbidden(package: &str) -> Vec<String> {
    let is_forbidden = |name: &String| {
        NEVER.iter().any(|never| name == never || (never.ends_with(['-', '_']) && name.starts_with(never)))
    };
    whole_tree(package).into_iter().map(|(name, _)| name).filter(is_forbidden).collect()
}

/// The packages of the tree that by their own word have to do with ciphers, clouds and keepers of secrets.
fn by_their_own_word(package: &str) -> BTreeSet<String> {
    const WORDS: [&str; 9] = ["crypto", "cipher", "crypt", "aead", "kms", "vault", "aws", "azure", "gcp"];
    let metadata: serde_json::Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1"])).unwrap();
    let tree = whole_tree(package);
    let packages = metadata["packages"].as_array().unwrap().iter().filter(|package| {
        let is = |key: &str| package[key].as_str().unwrap().to_owned();
        tree.contains(&(is("name"), format!("v{}", is("version"))))
    });
    let says = |package: &&serde_json::Value| {
        let words = ["name", "keywords", "categories"].map(|key| package[key].to_string().to_lowercase()).concat();
        WORDS.iter().any(|word| words.contains(word))
    };
    packages.filter(says).map(|package| package["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn nothing_that_could_unwrap_a_credential_is_linked() {
    assert_eq!(forbidden("bouncer-control-plane"), Vec::<String>::new());
    // The control: the same search finds what the resolver unwraps with.
    assert!(forbidden("bouncer-resolver").contains(&"aws-sdk-kms".to_owned()));
}

#[test]
fn no_other_crate_calls_itself_cryptography() {
    let unknown = |package: &str| -> Vec<String> {
        let found = by_their_own_word(package).into_iter();
        found.filter(|name| !CRYPTOGRAPHY.contains(&name.as_str()) && !name.starts_with("bouncer-")).collect()
    };
    assert_eq!(unknown("bouncer-control-plane"), Vec::<String>::new());
    // The control: the same search, in the resolver, finds crates that no list here names.
    assert!(unknown("bouncer-resolver").contains(&"aws-types".to_owned()));
}

/// `rustls` and `aws-lc-rs` are linked for TLS; what is not named is not called. TLS itself is named by one function.
#[test]
fn its_own_code_names_no_cipher() {
    const CIPHERS: [&str; 6] = ["aws_lc_rs::", "aead", "hpke", "cipher::", "aes_", "decrypt("];
    fn named_in(folder: &std::path::Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let found = entries.flat_map(|path| {
            if path.is_dir() {
                return named_in(&path);
            }
            let text = std::fs::read_to_string(&path).unwrap().to_lowercase();
            let text = text.replace("rustls::crypto::aws_lc_rs::default_provider()", "");
            let named = CIPHERS.iter().filter(|cipher| text.contains(**cipher));
            named.map(|cipher| format!("{cipher} in {}", path.display())).collect()
        });
        found.collect()
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(named_in(&root.join("src")), Vec::<String>::new());
    // The control: the resolver's does.
    assert!(named_in(&root.join("../resolver/src")).iter().any(|found| found.starts_with("aead")));
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
        "http-body",
        "http-body-util",
        "hyper-util",
        "jiff",
        "jsonwebtoken",
        "mimalloc",
        "prometheus-client",
        "rand",
        "reqwest",
        "roxmltree",
        "rustix",
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
        "tower",
        "tracing",
        "tracing-subscriber",
        "utoipa",
        "utoipa-axum",
        "uuid",
        "x509-parser",
    ];
    let own: BTreeSet<String> =
        tree("bouncer-control-plane", &["-e", "normal", "--depth", "1"]).into_iter().map(|(name, _)| name).collect();
    assert_eq!(own, expected.into_iter().map(str::to_owned).collect());
}

/// Neither the evidence nor its cryptography is in the sandbox.
#[test]
fn the_filter_links_nothing_of_the_audit() {
    let links = |package: &str| whole_tree(package).iter().any(|(name, _)| name == "bouncer-audit");
    assert!(!links("bouncer-wasm-filter"));
    assert!(links("bouncer-resolver"), "the control");
}
