//! `export`, `diff` and `apply` on the wire: what is asked, on what condition, in which order, and what is told.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use serde_json::{Value, json};
use std::sync::Mutex;
use support::{KEY, Server, ended, problem, run};

const FLAG: &str = "flags.crypto.dual_custody_intercept";

/// A control plane with one of each; it refuses what `refused` is part of.
fn control_plane(is_on: bool, refused: &'static str) -> Server {
    let is_on = Mutex::new(is_on);
    Server::with(move |asked| {
        let mut on = is_on.lock().unwrap();
        let (method, path) = asked.line.split_once(' ').unwrap();
        let path = path.split('?').next().unwrap();
        if path.starts_with("/v1/crypto") && !*on {
            return (403, problem("feature_disabled", "The flag is off.", ""));
        }
        if method != "GET" && !refused.is_empty() && path.contains(refused) {
            return (412, problem("changed_meanwhile", "Changed.", "Read it."));
        }
        match (method, path) {
            ("GET", "/v1/feature-flags") => {
                (200, json!({"items": [{"name": FLAG, "enabled": *on, "revision": u64::from(*on)}]}))
            }
            ("GET", "/v1/crypto/settings") => {
                (200, json!({"provider": "kms_envelope", "kms_key_arn": KEY, "revision": 2, "warnings": []}))
            }
            ("GET", "/v1/bouncers") => {
                (200, json!({"items": [{"name": "east", "spiffe_id": "spiffe://x.org/e", "revision": 3}]}))
            }
            ("GET", "/v1/crypto/envelope-secrets") => (
                200,
                json!({"items": [{
                    "id": "0190-s", "logical_path": "a/b", "generation": 4, "provider": "kms_envelope", "key_id": KEY,
                    "ciphertext_ref": "AQICAHhCANARY=", "aad": "bouncer=east", "enabled": true, "revision": 4,
                }]}),
            ),
            ("GET", "/v1/protected-resources") => (
                200,
                json!({"items": [{
                    "name": "pay", "bouncer": "east", "cluster": "pay", "upstream": "pay.x.org:443", "protocol": "mtls",
                    "logical_path": "a/b", "callers": ["spiffe://x.org/b", "spiffe://x.org/a"], "enabled": true, "revision": 5,
                }]}),
            ),
            ("PUT", path) if path.starts_with("/v1/feature-flags/") => {
                *on = asked.body["enabled"] == true;
                (200, json!({}))
            }
            ("DELETE", _) => (204, Value::Null),
            _ => (200, json!({"generation": 5})),
        }
    })
}

fn exported() -> String {
    let (code, out, err) = ended(&control_plane(true, "").run(&["export"]));
    assert_eq!((code, err.as_str()), (0, ""));
    out
}

fn with(server: &Server, args: &[&str], file: &str) -> (i32, String, String) {
    ended(&run(&format!("http://{}", server.address), args, file))
}

/// What was changed, on which condition.
fn changes(server: &Server) -> Vec<String> {
    server.lines().into_iter().filter(|line| !line.starts_with("GET")).collect()
}

#[test]
fn an_export_is_stable_and_no_difference() {
    let text = exported();
    assert_eq!(text, exported());
    let order = ["version: 1", "feature_flags:", "settings:", "bouncers:", "envelope_secrets:", "protected_resources:"];
    let places: Vec<_> = order.iter().map(|section| text.find(section).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");
    assert!(!text.contains("generation") && !text.contains("revision"), "{text}");
    let server = control_plane(true, "");
    let (code, out, err) = with(&server, &["diff", "-f", "-", "--prune"], &text);
    assert_eq!((code, out.as_str()), (0, "No difference.\n"), "{err}");
    let (code, out, err) = with(&server, &["apply", "-f", "-", "--prune"], &text);
    assert_eq!((code, out.as_str()), (0, "No difference.\n"), "{err}");
    assert!(changes(&server).is_empty());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.yaml");
    std::fs::write(&path, "old").unwrap();
    assert_eq!(ended(&server.run(&["export", "--out", path.to_str().unwrap()])).0, 0);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

/// The export with another key in the settings, a new bouncer, another ciphertext, a disabled resource.
fn changed() -> String {
    exported()
        .replace("settings:\n", "settings:\n  notes: new\n")
        .replace("bouncers:\n", "bouncers:\n- name: west\n  spiffe_id: spiffe://x.org/w\n")
        .replace("AQICAHhCANARY=", "AQICAHhRENEWED")
        .replace("logical_path: a/b\n  callers", "logical_path: a/b\n  enabled: false\n  callers")
        .replace("spiffe://x.org/b\n  enabled: true\n", "spiffe://x.org/b\n")
}

#[test]
fn a_difference_is_told_field_by_field_with_exit_code_1() {
    let server = control_plane(true, "");
    let (code, out, err) = with(&server, &["diff", "-f", "-"], &changed());
    assert_eq!(code, 1, "{out}{err}");
    for told in [
        "~ settings\n    notes: (none) → \"new\"\n",
        "+ bouncer west\n    spiffe_id: \"spiffe://x.org/w\"\n",
        "~ credential a/b\n    ciphertext_ref: AQICAHh… (14 bytes, sha256 ",
        "~ resource pay\n    enabled: true → false\n",
        "1 to create, 3 to change, 0 to delete",
    ] {
        assert!(out.contains(told), "{told} in {out}");
    }
    assert!(!out.contains("CANARY") && !out.contains("RENEWED"), "{out}");
    let (_, json, _) = with(&server, &["diff", "-f", "-", "--json"], &changed());
    let plan: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(plan["changes"].as_array().map(Vec::len), Some(4));
    assert!(!json.contains("CANARY") && !json.contains("RENEWED"), "{json}");
    // A rehearsal and a diff change nothing.
    assert_eq!(with(&server, &["apply", "-f", "-", "--dry-run"], &changed()).0, 0);
    assert!(changes(&server).is_empty());
}

#[test]
fn apply_goes_in_order_and_each_change_is_on_what_the_plan_saw() {
    let server = control_plane(true, "");
    let (code, out, err) = with(&server, &["apply", "-f", "-", "--yes"], &changed());
    assert!(code == 0 && out.contains("4 done"), "{out}{err}");
    assert_eq!(
        changes(&server),
        [
            "PUT /v1/crypto/settings \"r2\"",
            "POST /v1/bouncers none *",
            "POST /v1/crypto/envelope-secrets \"r4\"",
            "PUT /v1/protected-resources/pay \"r5\"",
        ]
    );
    let asked = server.asked.lock().unwrap();
    let secret = asked.iter().find(|asked| asked.line == "POST /v1/crypto/envelope-secrets").unwrap();
    let body = json!({
        "logical_path": "a/b", "provider": "kms_envelope", "key_id": KEY, "ciphertext_ref": "AQICAHhRENEWED",
        "aad": "bouncer=east", "enabled": true,
    });
    assert_eq!((&secret.body, secret.key.len()), (&body, 36));
}

#[test]
fn only_whether_it_is_enabled_makes_no_new_generation() {
    let server = control_plane(true, "");
    let text = exported().replace("aad: bouncer=east\n  enabled: true", "aad: bouncer=east\n  enabled: false");
    let (code, ..) = with(&server, &["apply", "-f", "-"], &text);
    assert_eq!((code, changes(&server)), (0, vec!["PATCH /v1/crypto/envelope-secrets/0190-s \"r4\"".to_owned()]));
}

#[test]
fn the_first_that_fails_ends_it_and_the_rest_is_told() {
    let server = control_plane(true, "envelope-secrets");
    let (code, out, err) = with(&server, &["apply", "-f", "-"], &changed());
    assert!(code == 1 && err.contains("Somebody else changed it"), "{err}");
    for told in [
        "done      change settings",
        "done      create bouncer west",
        "FAILED    change credential a/b",
        "not done  change resource pay",
    ] {
        assert!(out.contains(told), "{told} in {out}");
    }
    assert_eq!(changes(&server).len(), 3);
}

#[test]
fn only_prune_deletes_and_only_kinds_that_the_file_has_a_section_for() {
    let text = "version: 1\nbouncers: []\nprotected_resources: []\n";
    let server = control_plane(true, "");
    let (code, out, _) = with(&server, &["apply", "-f", "-"], text);
    assert!(code == 0 && out.contains("2 registered and not declared"), "{out}");
    assert!(changes(&server).is_empty());
    let (code, _, err) = with(&server, &["apply", "-f", "-", "--prune"], text);
    assert_eq!(code, 0, "{err}");
    assert_eq!(changes(&server), ["DELETE /v1/protected-resources/pay \"r5\"", "DELETE /v1/bouncers/east \"r3\""]);
}

#[test]
fn a_flag_that_is_off_is_turned_on_before_what_it_guards_is_compared() {
    let text = changed();
    let server = control_plane(false, "");
    let (code, out, _) = with(&server, &["diff", "-f", "-"], &text);
    assert!(code == 1 && out.contains("? settings, envelope_secrets: can't be read before the flag is on"), "{out}");
    let (code, out, err) = with(&server, &["apply", "-f", "-"], &text);
    assert!(code == 0 && out.contains("5 done"), "{out}{err}");
    let changes = changes(&server);
    assert_eq!(changes[0], format!("PUT /v1/feature-flags/{FLAG} none *"));
    assert_eq!(changes[1], "PUT /v1/crypto/settings \"r2\"");
    assert_eq!(changes.len(), 5);
    // Nobody turns it on: as the control plane says it.
    let server = control_plane(false, "");
    let (code, _, err) =
        with(&server, &["diff", "-f", "-"], &text.replace(&format!("{FLAG}: true"), &format!("{FLAG}: false")));
    assert!(code == 1 && err.contains("bouncerctl flags enable"), "{err}");
    let (code, out, err) = ended(&server.run(&["export"]));
    assert!(code == 0 && err.contains("left out") && !out.contains("envelope_secrets"), "{out}{err}");
}

#[test]
fn a_file_that_can_not_be_meant_asks_nobody_and_says_every_fault() {
    let server = control_plane(true, "");
    let text = "version: 1\nbouncers:\n- name: e\n  spifeid: x\nother: 1\n";
    let (code, _, err) = with(&server, &["apply", "-f", "-"], text);
    assert_eq!(code, 2, "{err}");
    for fault in
        ["-:5: other is no key", "-:4: bouncers[0].spifeid is no key", "-:3: bouncers[0] lacks the key spiffe_id"]
    {
        assert!(err.contains(fault), "{fault} in {err}");
    }
    assert!(server.asked.lock().unwrap().is_empty());
    let (code, ..) = ended(&run("http://127.0.0.1:9", &["diff", "-f", "-"], "version: 1\nbouncers: []\n"));
    assert_eq!(code, 3);
}

#[test]
fn what_a_flag_guards_is_changed_before_it_goes_off_and_it_goes_off_whatever_fails() {
    let text = changed().replace(&format!("{FLAG}: true"), &format!("{FLAG}: false"));
    let off = format!("PUT /v1/feature-flags/{FLAG} \"r1\"");
    let server = control_plane(true, "");
    let (code, out, err) = with(&server, &["apply", "-f", "-"], &text);
    assert!(code == 0 && out.contains("5 done"), "{out}{err}");
    let wanted = [
        "PUT /v1/crypto/settings \"r2\"",
        "POST /v1/crypto/envelope-secrets \"r4\"",
        &off,
        "POST /v1/bouncers none *",
        "PUT /v1/protected-resources/pay \"r5\"",
    ];
    assert_eq!(changes(&server), wanted);
    let asked = server.asked.lock().unwrap().iter().find(|asked| asked.line.contains(FLAG)).unwrap().clone();
    assert_eq!(asked.body, json!({"enabled": false}));

    let server = control_plane(true, "settings");
    let (code, out, err) = with(&server, &["apply", "-f", "-"], &text);
    assert!(code == 1 && err.contains("Somebody else changed it"), "{out}{err}");
    assert_eq!(changes(&server), [wanted[0], wanted[2]]);
    for told in
        ["FAILED    change settings", "not done  change credential a/b", &format!("done      change flag {FLAG}")]
    {
        assert!(out.contains(told), "{told} in {out}");
    }
}

/// A control plane that asks each caller to wait so long, once before a list and once before a change.
fn busy(seconds: u32) -> Server {
    let refused = Mutex::new(std::collections::BTreeSet::new());
    Server::with(move |asked| {
        let mut wait = problem("too_many_requests", "Too many.", "Wait.");
        wait["retry_after"] = seconds.into();
        match asked.line.split('?').next().unwrap() {
            line @ ("GET /v1/bouncers" | "POST /v1/bouncers") if refused.lock().unwrap().insert(line.to_owned()) => {
                (429, wait)
            }
            "GET /v1/bouncers" => (200, json!({"items": []})),
            _ => (201, json!({})),
        }
    })
}

#[test]
fn apply_waits_as_it_is_told_to_and_goes_on() {
    const TEXT: &str =
        "version: 1\nbouncers:\n- {name: a, spiffe_id: spiffe://a.b/a}\n- {name: b, spiffe_id: spiffe://a.b/b}\n";
    let server = busy(1);
    let start = std::time::Instant::now();
    let (code, out, err) = with(&server, &["apply", "-f", "-"], TEXT);
    assert!(code == 0 && out.contains("2 done"), "{out}{err}");
    assert!(start.elapsed() >= std::time::Duration::from_secs(2), "both waits");
    assert_eq!(err.matches("going on in 1 s").count(), 2, "{err}");
    let asked = server.asked.lock().unwrap();
    let sent: Vec<_> = asked.iter().filter(|asked| asked.line.starts_with("POST")).collect();
    assert_eq!(sent.iter().map(|sent| &sent.body["name"]).collect::<Vec<_>>(), ["a", "a", "b"]);
    assert!(sent[0].key == sent[1].key && sent[1].key != sent[2].key, "the same call again, and then another");
    // For a program, standard error stays empty.
    let (code, _, err) = with(&busy(1), &["apply", "-f", "-", "--json"], TEXT);
    assert_eq!((code, err.as_str()), (0, ""));
    // Too long is said at once, with the time; and one call by hand does not wait.
    let (code, _, err) = with(&busy(3600), &["apply", "-f", "-"], TEXT);
    assert!(code == 1 && !err.contains("going on") && err.contains("in 3600 seconds"), "{err}");
    let (code, _, err) = ended(&busy(1).run(&["bouncers", "add", "a", "--spiffe-id", "spiffe://a.b/a"]));
    assert!(code == 1 && !err.contains("going on"), "{err}");
}
