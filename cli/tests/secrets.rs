//! Credentials by their paths, changes on what was read, and registrations that are sent once more.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use support::{KEY, Server, ended, problem, run};

const ID: &str = "0190f3b0-0000-7000-8000-000000000001";
const SECRETS: &str = "/v1/crypto/envelope-secrets";

fn generation(number: u64, aad: &str) -> Value {
    json!({
        "id": ID, "logical_path": "a/b", "generation": number, "provider": "kms_envelope", "key_id": KEY, "enabled": false,
        "ciphertext_ref": "AQICAHg=", "aad": aad, "certificate_chain": format!("chain {number}"), "revision": 40 + number,
        "created_by": "token:alice", "reason": format!("reason {number}"), "warnings": [],
    })
}

/// Two generations of one credential; a roll-back is refused where the AAD is bound. KMS is at the same address.
fn two(aad: &'static str) -> Server {
    Server::with(move |asked| {
        let path = asked.line.split_once(' ').unwrap().1;
        match asked.line.as_str() {
            "POST /" => (200, json!({"CiphertextBlob": "AQICAHk=", "KeyId": KEY, "SourceKeyId": KEY})),
            _ if path.contains("/history") => {
                (200, json!({"items": [generation(2, &aad.replace('1', "2")), generation(1, aad)]}))
            }
            _ if path.ends_with("/rollback") && !aad.contains("generation") => (201, generation(3, aad)),
            _ if path.ends_with("/rollback") => (409, problem("bound_to_generation", "Bound.", "Wrap it again.")),
            line if line.starts_with("POST") => {
                (201, json!({"logical_path": "a/b", "generation": 3, "enabled": false, "warnings": []}))
            }
            line if line.starts_with("GET") && path.contains(ID) => (200, generation(2, aad)),
            line if line.starts_with("GET") => (200, json!({"items": [{"logical_path": "a/bc"}, generation(2, aad)]})),
            line if line.starts_with("PATCH") => (412, problem("changed_meanwhile", "Changed.", "Read it again.")),
            _ => (204, Value::Null),
        }
    })
}

#[test]
fn a_path_is_as_good_as_an_id_and_a_change_is_on_what_was_read() {
    for (name, found) in [("a/b", format!("GET {SECRETS}?limit=50&q=a%2Fb")), (ID, format!("GET {SECRETS}/{ID}"))] {
        let server = two("");
        let (code, _, err) = ended(&server.run(&["secrets", "disable", name, "--reason", "leaked"]));
        assert!(code == 1 && err.contains("Somebody else changed it"), "{err}");
        assert_eq!(server.lines(), [found.clone(), format!("PATCH {SECRETS}/{ID} \"r42\"")]);
        assert_eq!(server.asked.lock().unwrap()[1].body, json!({"enabled": false, "reason": "leaked"}));
        let server = two("");
        let (code, out, _) = ended(&server.run(&["secrets", "remove", name]));
        assert_eq!((code, out.as_str()), (0, "removed a/b, all generations\n"));
        assert_eq!(server.lines()[1], format!("DELETE {SECRETS}/{ID} \"r42\""));
    }
    let server = two("");
    let (code, _, err) = ended(&server.run(&["revoke", "a/b", "--reason", "leaked"]));
    assert!(code == 1 && err.contains("Somebody else"), "{err}");
    assert_eq!(server.asked.lock().unwrap()[1].body["reason"], "leaked");
    let (code, _, err) = ended(&two("").run(&["secrets", "enable", "a/"]));
    assert!(code == 1 && err.contains("no credential is registered under this path or id"), "{err}");
}

#[test]
fn history_says_who_and_why_and_show_says_all() {
    let (code, out, err) = ended(&two("").run(&["secrets", "history", "a/b"]));
    assert!(
        code == 0 && out.contains("token:alice") && out.contains("reason 1") && out.contains("reason 2"),
        "{out}{err}"
    );
    let (code, out, _) = ended(&two("").run(&["secrets", "show", "a/b"]));
    assert!(code == 0 && out.contains("AQICAHg=") && out.contains(KEY) && out.contains("reason 2"), "{out}");
}

#[test]
fn a_rollback_is_the_control_planes_where_it_can_be() {
    let server = two("bouncer=east");
    let (code, out, err) = ended(&server.run(&["secrets", "rollback", "a/b", "--to", "1", "--reason", "why"]));
    assert!(code == 0 && out.contains("what generation 1 held is generation 3, and disabled"), "{out}{err}");
    let asked = server.asked.lock().unwrap();
    assert_eq!((asked.len(), &asked[1].line), (2, &format!("POST {SECRETS}/{ID}/rollback")));
    assert_eq!((&asked[1].body, asked[1].condition.as_str()), (&json!({"generation": 1, "reason": "why"}), "\"r42\""));
    assert!(asked[1].key.len() >= 36);
}

#[test]
fn a_rollback_of_what_is_bound_goes_through_kms_and_carries_ciphertext_only() {
    let server = two("bouncer=east,generation=1");
    let endpoint = format!("http://{}", server.address);
    let options = ["secrets", "rollback", "a/b", "--to", "1", "--reason", "why", "--kms-endpoint", &endpoint, "--dev"];
    let (code, out, err) = ended(&server.run(&options));
    assert!(code == 0 && out.contains("what generation 1 held is generation 3"), "{out}{err}");
    let asked = server.asked.lock().unwrap();
    let kms = asked.iter().find(|asked| asked.line == "POST /").unwrap();
    assert_eq!(
        kms.body,
        json!({
            "CiphertextBlob": "AQICAHg=", "SourceKeyId": KEY, "DestinationKeyId": KEY,
            "SourceEncryptionContext": {"bouncer": "east", "generation": "1"},
            "DestinationEncryptionContext": {"bouncer": "east", "generation": "3"},
        })
    );
    let last = asked.last().unwrap();
    assert_eq!((last.line.as_str(), last.condition.as_str()), (&*format!("POST {SECRETS}"), "\"r42\""));
    assert_eq!(
        last.body,
        json!({
            "logical_path": "a/b", "key_id": KEY, "provider": "kms_envelope", "ciphertext_ref": "AQICAHk=", "reason": "why",
            "aad": "bouncer=east,generation=3", "certificate_chain": "chain 1", "generation": 3, "enabled": false,
        })
    );
}

/// Reads one request; gives its key, or nothing where none came.
fn key_of(stream: &std::net::TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let (mut key, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
        match line.trim_end().to_ascii_lowercase().split_once(": ") {
            Some(("idempotency-key", value)) => key = Some(value.to_owned()),
            Some(("content-length", value)) => length = value.parse().unwrap(),
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    key
}

#[test]
fn a_registration_whose_connection_broke_is_sent_once_more_under_the_same_key() {
    for (breaks, code) in [(1, 0), (2, 3)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut keys = Vec::new();
            for turn in 0..2 {
                let mut stream = listener.accept().unwrap().0;
                keys.push(key_of(&stream).unwrap());
                // Broken without an answer, or answered.
                if turn >= breaks {
                    let body = r#"{"id":"x","generation":1,"warnings":[]}"#;
                    write!(stream, "HTTP/1.1 201 X\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
                }
            }
            keys
        });
        let fields =
            ["register", "--logical-path", "a/b", "--key-id", KEY, "--ciphertext-ref", "AQICAHg=", "--reason", "x"];
        let (ended_with, _, err) = ended(&run(&url, &fields, ""));
        assert_eq!(ended_with, code, "{err}");
        let keys = server.join().unwrap();
        assert!(keys[0] == keys[1] && keys[0].len() == 36, "{keys:?}");
    }
}
