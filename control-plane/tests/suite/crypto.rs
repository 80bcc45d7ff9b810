//! Settings and envelopes: fields, generations, warnings, history.

use crate::harness::{ControlPlane, KEY, PATH, envelope};
use bouncer_custody::{EnvelopeHeader, SealedEnvelope, Wrapped};
use serde_json::{Value, json};

fn codes(answer: &Value) -> Vec<&str> {
    answer["warnings"].as_array().unwrap().iter().map(|warning| warning["code"].as_str().unwrap()).collect()
}

async fn settled() -> ControlPlane {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    plane.put("/v1/crypto/settings", &json!({"provider": "kms_envelope", "kms_key_arn": KEY})).await.ok();
    plane
}

#[tokio::test]
async fn settings_belong_to_their_provider() {
    let plane = ControlPlane::enabled().await;
    assert_eq!(plane.get("/v1/crypto/settings").await.code(), "not_found");
    let cases = [
        (json!({"provider": "kms_envelope"}), "kms_key_arn"),
        (json!({"provider": "kms_envelope", "kms_key_arn": "alias/x"}), "kms_key_arn"),
        (json!({"provider": "kms_envelope", "kms_key_arn": KEY, "vault_namespace": "a"}), "vault_namespace"),
        (json!({"provider": "vault_delegate", "kms_key_arn": KEY, "vault_namespace": "a"}), "kms_key_arn"),
        (json!({"provider": "vault_delegate"}), "vault_namespace"),
        (json!({"provider": "plain"}), "provider"),
        (json!({"provider": "kms_envelope", "kms_key_arn": KEY, "notes": "x".repeat(2_001)}), "notes"),
    ];
    for (body, field) in cases {
        let answer = plane.put("/v1/crypto/settings", &body).await;
        assert_eq!(answer.code(), "invalid_fields", "{body}");
        assert_eq!(answer.json["errors"][0]["field"], field, "{body}");
    }
    let vault = json!({"provider": "vault_delegate", "vault_namespace": "team-a"});
    assert_eq!(plane.put("/v1/crypto/settings", &vault).await.ok()["vault_namespace"], "team-a");
    plane.post("/v1/crypto/envelope-secrets", &envelope(PATH)).await.ok();
    assert_eq!(codes(&plane.get("/v1/crypto/settings").await.ok()), ["envelopes_differ"]);
}

#[tokio::test]
async fn each_registration_of_a_path_is_a_new_generation_of_one_secret() {
    let plane = settled().await;
    let first = plane.post("/v1/crypto/envelope-secrets", &envelope(PATH)).await.ok();
    let mut body = envelope(PATH);
    body["ciphertext_ref"] = json!("AQICAHk=");
    let second = plane.post("/v1/crypto/envelope-secrets", &body).await.ok();
    assert_eq!((&first["generation"], &second["generation"]), (&json!(1), &json!(2)));
    assert_eq!(first["id"], second["id"]);
    let at = format!("/v1/crypto/envelope-secrets/{}", first["id"].as_str().unwrap());
    assert_eq!(plane.get(&at).await.ok(), second);
    assert_eq!(plane.get("/v1/crypto/envelope-secrets").await.ok()["items"], json!([second]));

    let history = plane.get(&format!("{at}/history?limit=1")).await.ok();
    assert_eq!(history["items"][0]["generation"], 2);
    let rest = plane.get(&format!("{at}/history?cursor={}", history["next_cursor"].as_str().unwrap())).await.ok();
    assert_eq!(rest["items"][0]["generation"], 1);
    assert_eq!(rest["items"][0]["ciphertext_ref"], "AQICAHg=");
    assert_eq!(rest["items"][0]["created_by"], "token:admin");
    assert!(rest.get("next_cursor").is_none());
}

#[tokio::test]
async fn the_longest_envelope_is_taken_and_is_no_plaintext() {
    let plane = settled().await;
    let mut state = 1_u32;
    let mut noise = |length: usize| -> Vec<u8> {
        let byte = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        (0..length).map(byte).collect()
    };
    let header = EnvelopeHeader::new(EnvelopeHeader::MAX_PAYLOAD, [7; 12]).unwrap();
    let sealed = noise(EnvelopeHeader::MAX_PAYLOAD + EnvelopeHeader::TAG);
    let longest = Wrapped::Envelope(SealedEnvelope::new(header, &noise(6_144), &sealed).unwrap()).to_reference();
    let register = async |reference: &str| {
        let mut body = envelope(PATH);
        body["ciphertext_ref"] = json!(reference);
        plane.post("/v1/crypto/envelope-secrets", &body).await
    };
    let answer = register(longest.as_str()).await.ok();
    assert_eq!((answer["ciphertext_ref"].as_str(), codes(&answer)), (Some(longest.as_str()), vec![]));
    // Another version of it, and one that is cut off.
    let other_version = longest.as_str().replacen("vEJOQwEB", "vEJOQwIB", 1);
    for reference in [other_version.as_str(), &longest.as_str()[..40_000]] {
        assert_eq!(codes(&register(reference).await.ok()), ["ciphertext_never_unwraps"]);
    }
    assert_eq!(register(&"A".repeat(longest.as_str().len() + 1)).await.code(), "invalid_fields");
}

#[tokio::test]
async fn who_builds_on_a_generation_does_not_overtake_another_registration() {
    let plane = settled().await;
    let register = async |generation: u64, enabled: bool| {
        let mut body = envelope(PATH);
        body["generation"] = json!(generation);
        body["enabled"] = json!(enabled);
        plane.post("/v1/crypto/envelope-secrets", &body).await
    };
    let epoch = async || plane.get("/v1/bootstrap/status").await.ok()["epoch"].clone();
    assert_eq!(register(2, true).await.code(), "generation_taken", "there is no first one yet");
    assert_eq!(register(1, true).await.ok()["generation"], 1);
    let before = epoch().await;
    let refused = register(1, true).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "generation_taken"));
    assert_eq!(epoch().await, before, "a refusal changes nothing");
    let next = register(2, false).await.ok();
    assert_eq!((&next["generation"], &next["enabled"]), (&json!(2), &json!(false)), "a revoked one stays revoked");
    assert_eq!(register(0, true).await.json["errors"][0]["field"], "generation");
}

#[tokio::test]
async fn enabled_again_is_another_activation_and_deleted_goes_on_counting() {
    let plane = settled().await;
    let id = plane.post("/v1/crypto/envelope-secrets", &envelope(PATH)).await.ok()["id"].as_str().unwrap().to_owned();
    let at = format!("/v1/crypto/envelope-secrets/{id}");
    let state = |answer: &Value| (answer["enabled"].as_bool().unwrap(), answer["activation"].as_u64().unwrap());
    let set = async |enabled: bool| state(&plane.patch(&at, &json!({"enabled": enabled})).await.ok());
    assert_eq!(set(true).await, (true, 0), "no change is no activation");
    assert_eq!(set(false).await, (false, 0));
    assert_eq!(set(false).await, (false, 0));
    assert_eq!(set(true).await, (true, 1));
    assert_eq!(set(false).await, (false, 1));
    let again = plane.post("/v1/crypto/envelope-secrets", &envelope(PATH)).await.ok();
    assert_eq!((state(&again), &again["generation"]), ((true, 0), &json!(2)), "a new generation starts enabled");

    assert_eq!(plane.delete(&at).await.status, 204);
    assert_eq!(plane.get(&at).await.code(), "not_found");
    assert_eq!(plane.delete(&at).await.code(), "not_found");
    assert_eq!(plane.patch(&at, &json!({"enabled": true})).await.code(), "not_found");
    assert_eq!(plane.get("/v1/crypto/envelope-secrets").await.ok()["items"], json!([]));
    assert_eq!(plane.get(&format!("{at}/history")).await.ok()["items"].as_array().unwrap().len(), 2);
    let revived = plane.post("/v1/crypto/envelope-secrets", &envelope(PATH)).await.ok();
    assert_eq!((&revived["generation"], revived["id"].as_str()), (&json!(3), Some(&*id)), "no number is used twice");
}

#[tokio::test]
async fn fields_of_an_envelope_are_parsed_at_the_edge() {
    let plane = settled().await;
    for path in ["../x", "a/%2e%2e/b", "a//b", "/a", "a\u{0430}", "a/b\u{0}", ""] {
        let answer = plane.post("/v1/crypto/envelope-secrets", &envelope(path)).await;
        assert_eq!((answer.code(), &answer.json["errors"][0]["field"]), ("invalid_fields", &json!("logical_path")));
    }
    let mut all_wrong = envelope("../x");
    all_wrong["provider"] = json!("kms_envelope");
    all_wrong["key_id"] = json!("alias/x");
    all_wrong["ciphertext_ref"] = json!("two words");
    all_wrong["aad"] = json!("env");
    all_wrong["certificate_chain"] = json!("not pem");
    let answer = plane.post("/v1/crypto/envelope-secrets", &all_wrong).await;
    let fields: Vec<_> = answer.json["errors"].as_array().unwrap().iter().map(|e| e["field"].clone()).collect();
    assert_eq!(fields, ["logical_path", "key_id", "ciphertext_ref", "aad", "certificate_chain"]);
    let mut vault = envelope("team/secret");
    vault["provider"] = json!("vault_delegate");
    vault["key_id"] = json!("team-a");
    vault["ciphertext_ref"] = json!("kv2:secret/payments/upstream-tls");
    let answer = plane.post("/v1/crypto/envelope-secrets", &vault).await.ok();
    let expected = ["provider_differs", "aad_not_proven"];
    assert_eq!(codes(&answer), expected, "a Vault path is no KMS blob, and need not be; its binding is in Vault");
    vault.as_object_mut().unwrap().remove("aad");
    let answer = plane.post("/v1/crypto/envelope-secrets", &vault).await.ok();
    assert_eq!(codes(&answer), ["provider_differs"]);
    for rails_only in ["kv1:secret/payments/upstream-tls", "pki:pki/payments"] {
        vault["ciphertext_ref"] = json!(rails_only);
        let answer = plane.post("/v1/crypto/envelope-secrets", &vault).await.ok();
        assert_eq!(codes(&answer), ["provider_differs"], "{rails_only}: nothing is promised");
        vault["aad"] = json!("bouncer=payments-east");
        let answer = plane.post("/v1/crypto/envelope-secrets", &vault).await.ok();
        assert_eq!(codes(&answer), ["provider_differs", "aad_ignored"], "{rails_only}: it would bind nothing");
        vault.as_object_mut().unwrap().remove("aad");
    }
    vault["ciphertext_ref"] = json!("transit:transit/payments#vault:v1:AAAA");
    let answer = plane.post("/v1/crypto/envelope-secrets", &vault).await.ok();
    assert_eq!(codes(&answer), ["provider_differs", "aad_missing"], "transit proves its pairs");
    vault["ciphertext_ref"] = json!("kv2:secret/../sys");
    let answer = plane.post("/v1/crypto/envelope-secrets", &vault).await.ok();
    assert!(codes(&answer).contains(&"ciphertext_never_unwraps"));
}

#[tokio::test]
async fn warnings_say_what_a_bouncer_could_not_use() {
    let plane = settled().await;
    let warned = async |change: &dyn Fn(&mut Value)| {
        let mut body = envelope("a/b");
        change(&mut body);
        let answer = plane.post("/v1/crypto/envelope-secrets", &body).await.ok();
        codes(&answer).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(warned(&|_| {}).await, Vec::<String>::new(), "the control");
    assert_eq!(warned(&|body| body["ciphertext_ref"] = json!("A".repeat(8_196))).await, ["ciphertext_never_unwraps"]);
    assert_eq!(warned(&|body| drop(body.as_object_mut().unwrap().remove("aad"))).await, ["aad_missing"]);
    assert_eq!(warned(&|body| body["aad"] = json!("env=production")).await, ["aad_bouncer_missing"]);
    assert_eq!(warned(&|body| body["aad"] = json!("bouncer=payments-west")).await, ["aad_bouncer_unknown"]);
    let other = "arn:aws:kms:ca-central-1:123456789012:key/other";
    assert_eq!(warned(&|body| body["key_id"] = json!(other)).await, ["key_differs"]);
    let pairs = "bouncer=payments-east,upstream=nonsense,caller=nobody,generation=99";
    assert_eq!(
        warned(&|body| body["aad"] = json!(pairs)).await,
        ["aad_upstream_malformed", "aad_caller_malformed", "aad_generation_mismatch"]
    );
    assert_eq!(warned(&|body| body["aad"] = json!("bouncer=payments-east,generation=8")).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_chain_is_certificates_and_nothing_else() {
    let plane = settled().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = |year| {
        let mut params = rcgen::CertificateParams::new(vec!["payments.internal".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.self_signed(&key).unwrap().pem()
    };
    let (good, expired) = (certificate(4_000), certificate(2_021));
    let register = async |chain: &str| {
        let mut body = envelope("a/b");
        body["certificate_chain"] = json!(chain);
        plane.post("/v1/crypto/envelope-secrets", &body).await
    };
    let answer = register(&format!("{good}\r\n{good}")).await.ok();
    assert_eq!((codes(&answer), answer["certificate_chain"].as_str().unwrap().matches("BEGIN").count()), (vec![], 2));
    assert_eq!(codes(&register(&expired).await.ok()), ["certificate_expired"]);
    let bad = [
        String::new(),
        format!("payload {good}"),
        format!("{good}payload"),
        format!("{good}payload{good}"),
        good.replace("CERTIFICATE", "PUBLIC KEY"),
        good.replace("CERTIFICATE", "TRUSTED CERTIFICATE"),
        good.replacen("MII", "MIA", 1),
        good.repeat(11),
        "-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END CERTIFICATE-----".to_owned(),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----".to_owned(),
    ];
    for chain in bad {
        let answer = register(&chain).await;
        assert_eq!(
            (answer.code(), &answer.json["errors"][0]["field"]),
            ("invalid_fields", &json!("certificate_chain"))
        );
    }
    assert_eq!(register(&key.serialize_pem()).await.code(), "plaintext_refused");
    assert_eq!(register(&format!("{good}{}", key.serialize_pem())).await.code(), "plaintext_refused");
}
