//! Plaintext credentials, each made up or made here, in every form that one may be sent in by accident.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use rcgen::KeyPair;

/// What is inside the DER structure at `der`.
fn inside(der: &[u8]) -> &[u8] {
    let header = match der[1] {
        0x82 => 4,
        0x81 => 3,
        _ => 2,
    };
    &der[header..]
}

/// The structure within PKCS#8 (RFC 5958): PKCS#1 for RSA, SEC1 for elliptic curves.
pub(super) fn inner_key(pkcs8: &[u8]) -> Vec<u8> {
    let after_version = &inside(pkcs8)[3..];
    let algorithm = 2 + usize::from(after_version[1]);
    inside(&after_version[algorithm..]).to_vec()
}

/// The textual encoding of RFC 7468.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines(&STANDARD.encode(der), "\n"))
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn lines(text: &str, end: &str) -> String {
    text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect::<Vec<_>>().join(end)
}

/// Private keys in DER: PKCS#8 of several algorithms, PKCS#1, SEC1.
fn der_keys() -> Vec<Vec<u8>> {
    let ec = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_der();
    let ec384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_der();
    let ed = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_der();
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().serialize_der();
    let (sec1, sec1_384, pkcs1) = (inner_key(&ec), inner_key(&ec384), inner_key(&rsa));
    vec![ec, ec384, ed, rsa, sec1, sec1_384, pkcs1]
}

/// Every credential in the corpus, with a word for what it is.
pub(crate) fn credentials() -> Vec<(String, String)> {
    [private_keys(), tokens()].concat()
}

fn private_keys() -> Vec<(String, String)> {
    let mut corpus: Vec<(String, String)> = Vec::new();
    let mut add = |what: &str, text: String| corpus.push((what.to_owned(), text));

    let pem = KeyPair::generate().unwrap().serialize_pem();
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"] {
        add("PEM", pem.replace("PRIVATE KEY", label));
    }
    add("PEM in one line", pem.replace('\n', "\\n"));
    add("PEM, spaces for line breaks", pem.replace('\n', " "));
    add("PEM, only its beginning", pem[..60].to_owned());
    add("PEM, percent-encoded", percent(&pem));
    add("PEM, form-encoded", pem.replace(' ', "+").replace('\n', "%0A"));
    add("PEM in base64", STANDARD.encode(&pem));
    add("PEM in base64 lines", lines(&STANDARD.encode(&pem), "\n"));
    add("PEM in base64url", URL_SAFE_NO_PAD.encode(&pem));
    add("PEM in base64 in base64", STANDARD.encode(STANDARD.encode(&pem)));
    add("PEM in JSON in base64", STANDARD.encode(format!("{{\"kind\":\"client_certificate\",\"key\":{pem:?}}}")));
    add("PGP", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOYBF".to_owned());
    add("PuTTY", "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n".to_owned());
    for der in der_keys() {
        for (what, text) in [
            ("DER in base64", STANDARD.encode(&der)),
            ("DER in unpadded base64", STANDARD_NO_PAD.encode(&der)),
            ("DER in base64url", URL_SAFE.encode(&der)),
            ("DER in base64 lines", lines(&STANDARD.encode(&der), "\r\n")),
            ("DER in base64, written line breaks", lines(&STANDARD.encode(&der), "\\n")),
            ("DER after a word", format!("key={}", STANDARD.encode(&der))),
            ("DER in a sentence", format!("the key is {}, keep it", STANDARD.encode(&der))),
            ("DER in base64, percent-encoded", percent(&STANDARD.encode(&der))),
        ] {
            add(what, text);
        }
    }
    add("OpenSSH in base64", format!("b3BlbnNzaC1rZXktdjEAAAAABG5vbmU{}", "A".repeat(40)));
    add("JWK", r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2","y":"x_FEzRu9","d":"jpsQnnGQ"}"#.to_owned());

    corpus
}

fn tokens() -> Vec<(String, String)> {
    let mut corpus: Vec<(String, String)> = Vec::new();
    let mut add = |what: &str, text: String| corpus.push((what.to_owned(), text));

    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let jwt = format!("{}.{}.{}", part(r#"{"alg":"RS256","typ":"JWT"}"#), part(r#"{"sub":"a"}"#), "c2lnbmF0dXJl");
    add("JWT", jwt.clone());
    add("JWT in a sentence", format!("use {jwt} please"));
    add("JWT in base64", STANDARD.encode(&jwt));
    add("JWT, unsigned", format!("{}.{}.", part(r#"{"alg":"none"}"#), part(r#"{"sub":"a"}"#)));
    add("Bearer", "Authorization: Bearer 2YotnFZFEjr1zCsicMWpAA".to_owned());
    add("bearer in lower case", "bearer 2YotnFZFEjr1zCsicMWpAA".to_owned());
    add("Basic", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==".to_owned());
    add("URL with a password", "postgres://app:hunter2@db.internal:5432/app".to_owned());

    // Put together here, so that no scanner mistakes this file for a leak.
    let tail = "0123456789abcdefABCDEF0123456789abcdefABCDEF0123456789abcdef0123456789";
    for (what, prefix, length) in [
        ("Vault service token", "hvs.", 24),
        ("Vault batch token", "hvb.", 60),
        ("Vault recovery token", "hvr.", 24),
        ("Vault legacy token", "s.", 24),
        ("GitHub", "ghp_", 36),
        ("GitHub OAuth", "gho_", 36),
        ("GitHub fine-grained", "github_pat_", 60),
        ("GitLab", "glpat-", 20),
        ("Slack bot", "xoxb-", 40),
        ("Slack user", "xoxp-", 40),
        ("Slack app", "xapp-", 40),
        ("Stripe", "sk_live_", 24),
        ("Stripe restricted", "rk_live_", 24),
        ("Google API key", "AIza", 35),
        ("Google OAuth", "ya29.", 60),
        ("OpenAI", "sk-proj-", 40),
        ("Anthropic", "sk-ant-", 40),
        ("npm", "npm_", 36),
        ("our own", "bnc_", 43),
    ] {
        add(what, format!("{prefix}{}", &tail[..length]));
        add(what, format!("token={prefix}{}", &tail[..length]));
        add(what, STANDARD.encode(format!("token={prefix}{}", &tail[..length])));
    }
    for prefix in ["AKIA", "ASIA"] {
        add("AWS key id", format!("{prefix}IOSFODNN7EXAMPLE"));
        add("AWS key id in a list", format!("a,{prefix}IOSFODNN7EXAMPLE,b"));
    }
    let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    add("AWS secret, as in the credentials file", format!("aws_secret_access_key = {secret}"));
    add("AWS secret, as in the environment", format!("AWS_SECRET_ACCESS_KEY={secret}"));
    add("AWS secret, as STS answers", format!(r#"{{"SecretAccessKey": "{secret}"}}"#));
    add("AWS session token", format!("aws_session_token={}", tail));
    corpus
}
