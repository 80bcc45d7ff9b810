//! The program as people and scripts meet it: what it sends, prints and ends with, against a server that answers as the
//! control plane does.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use support::{KEY, Server, TOKEN, ended, problem, run};

#[test]
fn register_sends_what_wrap_printed_and_tells_id_generation_and_warnings() {
    let server = Server::new(
        201,
        json!({"id": "0190-x", "generation": 2, "new_field": {}, "warnings": [{"code": "aad_bouncer_unknown", "detail": "No such bouncer."}]}),
    );
    let wrapped = json!({"key_id": KEY, "ciphertext_ref": "AQICAHg=", "aad": "env=production,bouncer=payments-east", "provider": "kms_envelope"});
    let url = format!("http://{}", server.address);
    let output = run(&url, &["register", "--logical-path", "a/b", "--from", "-"], &wrapped.to_string());
    let (code, out, err) = ended(&output);
    assert_eq!((code, out.as_str()), (0, "registered a/b: id 0190-x, generation 2\n"), "{err}");
    assert_eq!(err, "warning: No such bouncer. (aad_bouncer_unknown)\n");
    let asked = server.only_request();
    assert_eq!(asked.line, "POST /v1/crypto/envelope-secrets");
    assert_eq!(asked.authorization, format!("Bearer {TOKEN}"));
    let mut body = wrapped;
    body["logical_path"] = "a/b".into();
    assert_eq!(asked.body, body);
}

#[test]
fn register_takes_the_fields_one_by_one() {
    let server = Server::new(201, json!({"id": "x", "generation": 1, "warnings": []}));
    let fields =
        ["register", "--logical-path", "a/b", "--key-id", KEY, "--ciphertext-ref", "AQICAHg=", "--output", "json"];
    let (code, out, _) = ended(&server.run(&fields));
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["generation"], 1);
    let body = json!({"logical_path": "a/b", "key_id": KEY, "ciphertext_ref": "AQICAHg=", "provider": "kms_envelope"});
    assert_eq!(server.only_request().body, body);
}

#[test]
fn the_flag_that_is_off_is_a_refusal_with_its_cure() {
    let server =
        Server::new(403, problem("feature_disabled", "The flag flags.crypto.dual_custody_intercept is off.", "PUT …"));
    let fields = ["register", "--logical-path", "a/b", "--key-id", KEY, "--ciphertext-ref", "AQICAHg="];
    let (code, out, err) = ended(&server.run(&fields));
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("The flag flags.crypto.dual_custody_intercept is off."), "{err}");
    assert!(err.contains("bouncerctl flags enable"), "{err}");
}

fn status(done: bool) -> Value {
    json!({
        "ok": done, "detail": "Every step is done.", "next": "", "epoch": 7, "dev_mode": false,
        "steps": [{"step": 1, "title": "Choose a provider", "ok": done, "detail": "", "next": "", "checks": ["provider_settings"]}],
        "provider_settings": {"ok": done, "detail": "A provider.", "next": "PUT /v1/crypto/settings."},
    })
}

#[test]
fn status_ends_with_0_when_done_and_with_1_and_the_next_step_when_not() {
    let (code, out, _) = ended(&Server::new(200, status(true)).run(&["status"]));
    assert_eq!(code, 0);
    assert!(out.ends_with("Every step is done.\n"), "{out}");
    let (code, out, _) = ended(&Server::new(200, status(false)).run(&["status"]));
    assert_eq!(code, 1);
    assert!(out.contains("open  1. Choose a provider") && out.contains("do: PUT /v1/crypto/settings."), "{out}");
    let (code, out, _) = ended(&Server::new(200, status(false)).run(&["status", "--output", "json"]));
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()), (1, status(false)));
}

fn bridge(name: &str, ok: bool, lag: u64) -> Value {
    json!({"name": name, "spiffe_id": format!("spiffe://example.org/{name}"), "bridge": {
        "ok": ok, "detail": "It is behind.", "next": "Look at its log.", "state": "connected", "instances": 1,
        "epoch_acked": 7 - lag, "epoch_lag": lag, "age_ms": 2100, "dev": false,
        "link": if lag > 0 { json!("lag") } else { Value::Null },
    }})
}

#[test]
fn probe_shows_each_bouncer_and_ends_with_1_if_one_is_not_well() {
    let health = |items: Value, ok: bool| json!({"ok": ok, "detail": "d", "next": "n", "epoch": 7, "listening": true, "identity": true, "items": items});
    let server = Server::new(200, health(json!([bridge("east", true, 0), bridge("west", false, 2)]), false));
    let (code, out, _) = ended(&server.run(&["probe"]));
    assert_eq!(server.only_request().line, "GET /v1/policy-bridge/health");
    assert_eq!(code, 1);
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1], ["east", "yes", "connected", "-", "7", "0", "2", "s", "ago"]);
    assert_eq!(lines[2], ["west", "no", "connected", "lag", "5", "2", "2", "s", "ago"]);
    assert!(out.contains("west: [lag] It is behind.\n  do: Look at its log."), "{out}");
    assert!(!out.contains("east: "), "{out}");

    let (code, ..) = ended(&Server::new(200, health(json!([bridge("east", true, 0)]), true)).run(&["probe"]));
    assert_eq!(code, 0);
    let (code, out, _) = ended(&Server::new(200, health(json!([]), false)).run(&["probe"]));
    assert_eq!(code, 1);
    assert!(out.contains("bouncerctl bouncers add"), "{out}");
}

/// A server with a certificate that nobody has signed but itself, and the certificate as a file.
fn tls_server() -> (SocketAddr, tempfile::NamedTempFile) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(certificate.pem().as_bytes()).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            // Fails where the client does not trust it.
            if stream.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {
                let body = r#"{"ok":false,"items":[]}"#;
                let answer = format!("HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).unwrap();
                stream.flush().unwrap();
            }
        }
    });
    (address, ca)
}

#[test]
fn probe_tells_unreachable_untrusted_unauthorized_and_foreign_apart() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, _, err) = ended(&run(&format!("http://{nobody}"), &["probe"], ""));
    assert!(code == 3 && err.contains("is not reachable") && err.contains("Connection refused"), "{err}");

    let (tls, ca) = tls_server();
    let (code, _, err) = ended(&run(&format!("https://{tls}"), &["probe"], ""));
    assert!(code == 3 && err.contains("no trusted TLS connection"), "{err}");
    let (code, out, err) =
        ended(&run(&format!("https://{tls}"), &["probe", "--ca-file", ca.path().to_str().unwrap()], ""));
    assert!(code == 1 && out.contains("No bouncer is registered"), "{out}{err}");

    let unauthorized = Server::new(401, problem("unauthenticated", "No such token.", "Send another."));
    let (code, _, err) = ended(&unauthorized.run(&["probe"]));
    assert!(code == 1 && err.contains("does not accept the token") && err.contains("No such token."), "{err}");

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let (code, _, err) = ended(&run(&url, &["probe", "--timeout", "1"], ""));
    assert!(code == 3 && err.contains("did not answer in time"), "{err}");

    let foreign = Server::new(302, json!("<html>"));
    let (code, _, err) = ended(&foreign.run(&["probe"]));
    assert!(code == 3 && err.contains("is not the control plane's API"), "{err}");
}

#[test]
fn failures_are_json_for_programs() {
    let server = Server::new(503, problem("unavailable", "The database is away.", "Try again shortly."));
    let (code, out, err) = ended(&server.run(&["status", "--output", "json"]));
    let failure: Value = serde_json::from_str(&err).unwrap();
    assert_eq!((code, out.as_str(), &failure["exit_code"]), (1, "", &json!(1)));
    assert_eq!(failure["advice"], "Try again shortly.");
}

#[test]
fn the_token_goes_nowhere_in_clear() {
    for url in ["http://192.0.2.1:8080", "http://control-plane.example.org"] {
        let (code, _, err) = ended(&run(url, &["status"], ""));
        assert!(code == 2 && err.contains("plain HTTP is refused"), "{err}");
    }
    let (code, _, err) = ended(&run("", &["status"], ""));
    assert!(code == 2 && err.contains("URL is missing"), "{err}");
}

#[test]
fn long_lists_are_fetched_whole() {
    let server = Server::with(|asked| match asked.line.contains("cursor=") {
        false => {
            (200, json!({"items": [{"name": "east", "spiffe_id": "spiffe://example.org/e"}], "next_cursor": "abc"}))
        }
        true => (200, json!({"items": [{"name": "west", "spiffe_id": "spiffe://example.org/w"}]})),
    });
    let (code, out, _) = ended(&server.run(&["bouncers", "list"]));
    assert!(code == 0 && out.contains("east") && out.contains("west"), "{out}");
    let asked = server.asked.lock().unwrap();
    assert_eq!(asked[1].line, "GET /v1/bouncers?limit=50&cursor=abc");
}

#[test]
fn flags_bouncers_and_resources_are_sent_as_the_api_takes_them() {
    let check = |args: &[&str], line: &str, body: Value| {
        let server = Server::new(200, json!({"warnings": []}));
        let (code, _, err) = ended(&server.run(args));
        let asked = server.only_request();
        assert_eq!((code, asked.line.as_str(), asked.body), (0, line, body), "{err}");
    };
    check(&["flags", "enable"], "PUT /v1/feature-flags/flags.crypto.dual_custody_intercept", json!({"enabled": true}));
    let id = "spiffe://example.org/bouncer/east";
    check(
        &["bouncers", "add", "east", "--spiffe-id", id],
        "POST /v1/bouncers",
        json!({"name": "east", "spiffe_id": id}),
    );
    let role = "arn:aws:iam::123456789012:role/east";
    check(
        &["bouncers", "add", "east", "--iam-role", role],
        "POST /v1/bouncers",
        json!({"name": "east", "iam_role_arn": role}),
    );
    check(&["bouncers", "remove", "east"], "DELETE /v1/bouncers/east", Value::Null);
    check(
        &["settings", "set", "--kms-key-arn", KEY, "--notes", "n"],
        "PUT /v1/crypto/settings",
        json!({"provider": "kms_envelope", "kms_key_arn": KEY, "notes": "n"}),
    );
    let resource = "resources add pay --bouncer east --cluster outbound|18443||pay.example.org --upstream pay.example.org:443 \
                    --logical-path a/b --caller spiffe://example.org/ns/shop/*";
    check(
        &resource.split_whitespace().collect::<Vec<_>>(),
        "POST /v1/protected-resources",
        json!({
            "name": "pay", "bouncer": "east", "cluster": "outbound|18443||pay.example.org", "upstream": "pay.example.org:443",
            "protocol": "mtls", "logical_path": "a/b", "callers": ["spiffe://example.org/ns/shop/*"], "enabled": true,
        }),
    );
    check(
        &["resources", "list", "--bouncer", "east", "--disabled"],
        "GET /v1/protected-resources?limit=50&bouncer=east&enabled=false",
        Value::Null,
    );
    check(&["bouncers", "list", "--search", "ea"], "GET /v1/bouncers?limit=50&q=ea", Value::Null);
    check(
        &["secrets", "list", "--search", "pay", "--provider", "kms_envelope", "--key", KEY, "--enabled"],
        &format!(
            "GET /v1/crypto/envelope-secrets?limit=50&q=pay&provider=kms_envelope&key_id={}&enabled=true",
            KEY.replace(':', "%3A").replace('/', "%2F")
        ),
        Value::Null,
    );
    check(
        &["audit", "list", "--outcome", "deny", "--limit", "5"],
        "GET /v1/audit/events?limit=5&outcome=deny",
        Value::Null,
    );
}

#[test]
fn wrap_refuses_before_it_asks_kms() {
    let endpoint = Server::new(200, json!({}));
    let url = format!("http://{}", endpoint.address);
    let wrap = |aad: &str, extra: &[&str], input: &str| {
        let mut args = vec!["wrap", "--key-arn", KEY, "--in", "-", "--kms-endpoint", &url, "--aad", aad];
        args.extend(extra);
        ended(&run("", &args, input))
    };
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let (code, _, err) = wrap("bouncer=east", &[], &pem);
    assert!(code == 2 && err.contains("plain HTTP is refused"), "{err}");
    let (code, _, err) = wrap("upstream=nowhere", &["--dev"], &pem);
    assert!(code == 1 && err.contains("upstream="), "{err}");
    let (code, _, err) = wrap("bouncer=east", &["--dev"], &pem);
    assert!(code == 1 && err.contains("no certificate"), "{err}");
    let (code, _, err) = wrap("bouncer=east", &["--dev", "--register", "a/b"], &pem);
    assert!(code == 2 && err.contains("URL is missing"), "{err}");
    assert!(endpoint.asked.lock().unwrap().is_empty());
}

/// A list of credentials, two of them under `KEY`.
fn registered() -> Value {
    let item = |path: &str, key: &str, provider: &str, reference: &str| {
        json!({
            "id": path, "logical_path": path, "generation": 4, "provider": provider, "key_id": key, "enabled": true,
            "ciphertext_ref": reference, "aad": "bouncer=east,generation=4", "certificate_chain": "PEM", "warnings": [],
        })
    };
    json!({"items": [
        item("a/one", KEY, "kms_envelope", "AQICAHg="),
        item("a/two", KEY, "kms_envelope", "AQICAHg="),
        item("b/new", NEW, "kms_envelope", "AQICAHg="),
        item("c/vault", "team-a", "vault_delegate", "kv2:secret/x"),
        item("d/example", "arn:aws:kms:eu-west-1:123456789012:key/x", "kms_envelope", "AQI...opaque..."),
    ]})
}

const NEW: &str = "arn:aws:kms:ca-central-1:123456789012:key/new-456";

#[test]
fn the_inventory_groups_by_key_and_says_what_hangs_on_it() {
    let server = Server::new(200, registered());
    let (code, out, err) = ended(&server.run(&["inventory"]));
    assert_eq!(code, 0, "{err}");
    for line in ["a/one", "unusable", "reference", &format!("2  {KEY}"), &format!("1  {NEW}")] {
        assert!(out.contains(line), "{line} in {out}");
    }
    let (_, out, _) = ended(&server.run(&["inventory", "--json", "--key", KEY]));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["keys"].as_array().map(Vec::len), Some(1));
    assert_eq!(answer["keys"][0]["secrets"][1]["logical_path"], "a/two");
    assert_eq!(answer["keys"][0]["secrets"][1]["form"], "direct");
}

/// KMS and the control plane at one address, told apart by the path.
fn mover(refused: &'static str) -> Server {
    Server::with(move |asked| match asked.line.as_str() {
        "POST /" => (200, json!({"CiphertextBlob": "AQICAHk=", "KeyId": NEW, "SourceKeyId": KEY})),
        line if line.starts_with("GET ") => (200, registered()),
        _ if asked.body["logical_path"] == refused => {
            (409, problem("generation_taken", "Somebody else did.", "Again."))
        }
        _ => (201, json!({"generation": asked.body["generation"], "warnings": []})),
    })
}

#[test]
fn rewrap_carries_ciphertext_only_and_one_failure_stops_no_other() {
    let server = mover("a/one");
    let endpoint = format!("http://{}", server.address);
    let args = ["rewrap", "--all", "--from-key", KEY, "--to-key", NEW, "--kms-endpoint", &endpoint, "--dev"];
    let (code, out, err) = ended(&server.run(&args));
    assert_eq!(code, 1, "{err}");
    assert!(out.contains("1 moved, 1 there already, 1 failed"), "{out}");
    assert!(out.contains("Somebody else did."), "why it failed is said: {out}");
    assert!(err.contains("1/2 FAILED: a/one") && err.contains("2/2 moved: a/two"), "one line for each: {err}");
    let asked = server.asked.lock().unwrap();
    let to_kms: Vec<_> = asked.iter().filter(|asked| asked.line == "POST /").collect();
    assert_eq!(to_kms.len(), 2);
    assert_eq!(
        to_kms[0].body,
        json!({
            "CiphertextBlob": "AQICAHg=", "SourceKeyId": KEY, "DestinationKeyId": NEW,
            "SourceEncryptionContext": {"bouncer": "east", "generation": "4"},
            "DestinationEncryptionContext": {"bouncer": "east", "generation": "5"},
        })
    );
    let registered = asked.iter().rfind(|asked| asked.line == "POST /v1/crypto/envelope-secrets").unwrap();
    assert_eq!(
        registered.body,
        json!({
            "logical_path": "a/two", "key_id": NEW, "provider": "kms_envelope", "ciphertext_ref": "AQICAHk=",
            "aad": "bouncer=east,generation=5", "certificate_chain": "PEM", "generation": 5, "enabled": true,
        })
    );
}

#[test]
fn rewrap_refuses_what_can_not_be_before_it_asks_anyone() {
    let server = mover("");
    for (from, to, why) in [
        (KEY, KEY, "is the key to move to"),
        (KEY, "arn:aws:kms:eu-west-1:123456789012:key/x", "different regions"),
        (KEY, "arn:aws:kms:ca-central-1:123456789012:alias/x", "alias"),
    ] {
        let (code, _, err) = ended(&server.run(&["rewrap", "--all", "--from-key", from, "--to-key", to]));
        assert!(code == 2 && err.contains(why), "{err}");
    }
    assert!(server.asked.lock().unwrap().is_empty());
    let (code, out, _) = ended(&server.run(&["rewrap", "--to-key", NEW, "--json", "b/new", "c/vault", "no/where"]));
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &answer["already"], &answer["failed"]), (1, &json!(1), &json!(2)), "{out}");
    let advice = answer["items"].as_array().unwrap().iter().filter_map(|item| item["advice"].as_str());
    assert!(advice.into_iter().any(|advice| advice.starts_with("Vault rotates its own keys.")), "{out}");
    // And a Vault without a token, or by a way that would show it.
    for (vault, why) in [("https://vault.test", "no Vault token"), ("http://vault.test", "plain HTTP")] {
        let (code, _, err) = ended(&server.run(&["rewrap", "--all", "--vault", vault]));
        assert!(code == 2 && err.contains(why), "{err}");
    }
}

#[test]
fn completion_scripts_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = ended(&run("", &["completion", shell], ""));
        assert!(code == 0 && out.contains("protected") | out.contains("resources"), "{shell}");
    }
}

#[test]
fn help_names_examples_and_exit_codes() {
    let (code, out, _) = ended(&run("", &["--help"], ""));
    assert!(code == 0 && out.contains("Exit codes:") && out.contains("bouncerctl status && bouncerctl probe"), "{out}");
    for command in [
        "wrap",
        "rewrap",
        "inventory",
        "register",
        "status",
        "probe",
        "settings",
        "flags",
        "bouncers",
        "resources",
        "audit",
        "completion",
        "secrets",
        "tokens",
        "whoami",
        "export",
        "diff",
        "apply",
    ] {
        let (_, out, _) = ended(&run("", &[command, "--help"], ""));
        assert!(out.contains("Examples:"), "{command}");
    }
}
