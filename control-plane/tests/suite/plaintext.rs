//! Plaintext is refused in every field, and leaves no trace; ciphertext passes.

use crate::harness::{ControlPlane, FLAG, PATH, envelope, resource};
use crate::lookalikes::everyday;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bouncer_control_plane::plaintext;
use http::Method;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

/// Every call that takes a body, with every field that it knows.
fn bodies() -> Vec<(Method, String, Value)> {
    let id = "0199d7a0-0000-7000-8000-000000000001";
    let mut with_chain = envelope(PATH);
    with_chain["certificate_chain"] = json!("");
    with_chain["reason"] = json!("");
    vec![
        (Method::PUT, "/v1/crypto/settings".into(), json!({"provider": "", "kms_key_arn": "", "notes": ""})),
        (Method::PUT, "/v1/crypto/settings".into(), json!({"provider": "", "vault_namespace": "", "notes": ""})),
        (Method::POST, "/v1/crypto/envelope-secrets".into(), with_chain),
        (Method::PATCH, format!("/v1/crypto/envelope-secrets/{id}"), json!({"enabled": "", "reason": ""})),
        (Method::PUT, format!("/v1/feature-flags/{FLAG}"), json!({"enabled": ""})),
        (Method::POST, "/v1/bouncers".into(), json!({"name": "", "spiffe_id": ""})),
        (Method::POST, "/v1/protected-resources".into(), resource("a", PATH)),
        (Method::PUT, "/v1/protected-resources/a".into(), resource("a", PATH)),
        (Method::POST, "/v1/tokens".into(), json!({"name": "", "role": "", "path_prefixes": [""]})),
        (Method::PUT, "/v1/bouncers/a".into(), json!({"name": "", "spiffe_id": ""})),
        (Method::POST, format!("/v1/crypto/envelope-secrets/{id}/rollback"), json!({"generation": "", "reason": ""})),
        (Method::POST, "/v1/bouncers".into(), json!({"name": "", "spiffe_id": "", "unknown": ""})),
    ]
}

#[tokio::test]
async fn every_credential_is_refused_in_every_field() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    let corpus = everyday::credentials();
    for (what, credential) in &corpus {
        for (method, path, body) in bodies() {
            for field in body.as_object().unwrap().keys() {
                let mut body = body.clone();
                body[field] = if body[field].is_array() { json!(["a", credential]) } else { json!(credential) };
                let answer = plane.raw(method.clone(), &path, body.to_string()).await;
                assert_eq!(answer.status, 422, "{what} in {field} of {method} {path}: {}", answer.text);
                assert_eq!(answer.code(), "plaintext_refused", "{what} in {field} of {method} {path}");
                assert!(answer.json["detail"].as_str().unwrap().contains(field.as_str()), "{}", answer.text);
                assert!(!answer.text.contains(credential.as_str()), "{what} is repeated");
            }
        }
        let name = json!({"name": "a", credential: "b"});
        assert_eq!(plane.post("/v1/bouncers", &name).await.code(), "plaintext_refused", "{what} as a field's name");
    }
    // Nothing of it is stored, in whatever form: not in the answers, not on the disk.
    let disk = plane.bytes_on_disk();
    for (what, credential) in &corpus {
        let needle = &credential.as_bytes()[..credential.len().min(40)];
        assert!(!disk.windows(needle.len()).any(|window| window == needle), "{what} is on the disk");
    }
    assert!(disk.windows(7).any(|window| window == b"example"), "the control: the search finds what is stored");
}

#[tokio::test]
async fn in_an_aad_too() {
    let plane = ControlPlane::enabled().await;
    let mut body = envelope(PATH);
    body["aad"] = json!("env=production,token=hvs.CAESIJlWh7N7gBvXGZbXGZbXGZbXGZ,bouncer=payments-east");
    assert_eq!(plane.post("/v1/crypto/envelope-secrets", &body).await.code(), "plaintext_refused");
    body["aad"] = json!("env=production,key=AKIAIOSFODNN7EXAMPLE");
    assert_eq!(plane.post("/v1/crypto/envelope-secrets", &body).await.code(), "plaintext_refused");
}

proptest! {
    // The same noise in each run: among all ciphertexts there are such as hold what a short token looks like (SECURITY.md says
    // how rarely), and no build is to fail by one.
    #![proptest_config(ProptestConfig { cases: 512, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

    #[test]
    fn ciphertext_blobs_pass(random in proptest::collection::vec(any::<u8>(), 1..6_144)) {
        // As KMS begins its blobs, and bare.
        let kms = [&[1, 2, 2, 0, 0x78][..], &random].concat();
        prop_assert_eq!(plaintext::find(&STANDARD.encode(&kms)), None);
        prop_assert_eq!(plaintext::find(&STANDARD.encode(&random)), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_judged_without_a_panic(text in ".{0,300}") {
        let _ = plaintext::find(&text);
        let _ = plaintext::find(&text.replace('a', "%").replace('b', "\\n"));
    }

    #[test]
    fn a_key_is_found_wherever_it_stands(before in "[ -~]{0,40}", after in "[ -~]{0,40}") {
        let text = format!("{before} -----BEGIN EC PRIVATE KEY-----{after}");
        prop_assert!(plaintext::find(&text).is_some());
    }
}
