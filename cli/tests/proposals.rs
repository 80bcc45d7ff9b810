//! Changes that wait for a second person: how commands say so, and how people decide.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use serde_json::{Value, json};
use support::{KEY, Server, ended, problem};

const ID: &str = "019a0000-0000-7000-8000-000000000001";

fn proposal(state: &str) -> Value {
    json!({
        "id": ID, "state": state, "method": "POST", "route": "/v1/bouncers", "subject": "payments-east",
        "changes": [{"field": "spiffe_id", "before": "spiffe://a.b/x", "after": "spiffe://a.b/y"}],
        "proposed_by": "token:alice", "expires_at": "2030-01-01T00:00:00Z", "mine": true, "may_decide": false,
    })
}

#[test]
fn whatever_waits_is_told_with_the_command_to_approve_it_and_ends_with_4() {
    for options in [
        &["bouncers", "add", "payments-east", "--spiffe-id", "spiffe://a.b/y"][..],
        &["register", "--logical-path", "a/b", "--key-id", KEY, "--ciphertext-ref", "AQICAHg="],
        &["flags", "enable"],
        &["settings", "set", "--kms-key-arn", KEY],
    ] {
        let (code, out, err) = ended(&Server::new(202, proposal("pending")).run(options));
        assert_eq!(code, 4, "{options:?}: {out}{err}");
        assert!(out.contains("waits for a second person") && out.contains(&format!("proposals approve {ID}")), "{out}");
        let json: Vec<&str> = options.iter().copied().chain(["--json"]).collect();
        let (code, out, _) = ended(&Server::new(202, proposal("pending")).run(&json));
        assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()), (4, proposal("pending")));
    }
    // The control: made at once, it is told as before.
    let (code, out, _) = ended(&Server::new(200, json!({})).run(&["flags", "enable"]));
    assert!(code == 0 && !out.contains("second person"), "{out}");
}

#[test]
fn proposals_are_listed_shown_and_decided_on() {
    let server = Server::new(200, json!({"items": [proposal("pending")]}));
    let (code, out, _) = ended(&server.run(&["proposals", "list"]));
    assert!(code == 0 && out.contains(ID) && out.contains("token:alice"), "{out}");
    assert_eq!(server.lines(), ["GET /v1/proposals?limit=50&state=pending"]);
    let (_, out, _) = ended(&Server::new(200, proposal("pending")).run(&["proposals", "show", ID]));
    assert!(out.contains("spiffe://a.b/x  ->  spiffe://a.b/y"), "{out}");
    for (word, state, line) in [
        ("approve", "approved", format!("POST /v1/proposals/{ID}/approve")),
        ("reject", "rejected", format!("POST /v1/proposals/{ID}/reject")),
    ] {
        let server = Server::new(200, proposal(state));
        let (code, out, _) = ended(&server.run(&["proposals", word, ID, "--reason", "agreed"]));
        assert!(code == 0 && out.starts_with(state), "{out}");
        let asked = server.only_request();
        assert_eq!((asked.line, asked.body), (line, json!({"reason": "agreed"})));
    }
    let server = Server::new(204, Value::Null);
    assert_eq!(ended(&server.run(&["proposals", "withdraw", ID])).0, 0);
    assert_eq!(server.lines(), [format!("DELETE /v1/proposals/{ID}")]);
    let own = Server::new(403, problem("own_proposal", "The caller proposed it.", "Let somebody else decide."));
    let (code, _, err) = ended(&own.run(&["proposals", "approve", ID]));
    assert!(code == 1 && err.contains("Let somebody else decide."), "{err}");
}

#[test]
fn apply_goes_on_past_what_waits_and_tells_each() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    std::fs::write(
        &file,
        "version: 1\nbouncers:\n- {name: a, spiffe_id: spiffe://a.b/a}\n- {name: b, spiffe_id: spiffe://a.b/b}\n",
    )
    .unwrap();
    let answers = || {
        Server::with(|asked| match (asked.line.as_str(), asked.body["name"].as_str()) {
            ("POST /v1/bouncers", Some("a")) => (202, proposal("pending")),
            ("POST /v1/bouncers", _) => (201, json!({})),
            _ => (200, json!({"items": []})),
        })
    };
    let options = ["apply", "-f", file.to_str().unwrap(), "--yes"];
    let (code, out, err) = ended(&answers().run(&options));
    assert_eq!(code, 4, "{out}{err}");
    assert!(out.contains(&format!("proposals approve {ID}")) && out.contains("1 done, 1 waiting"), "{out}");
    let json: Vec<&str> = options.iter().copied().chain(["--json"]).collect();
    let (code, out, _) = ended(&answers().run(&json));
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &told["changes"][0]["result"], &told["changes"][0]["proposal"]),
        (4, &json!("proposed"), &json!(ID))
    );
    assert_eq!(told["changes"][1]["result"], "done");
}
