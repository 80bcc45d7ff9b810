//! Tokens: made into a file of their own, listed, revoked.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use support::{Server, TOKEN, ended, finish, problem, text};

const NEW: &str = "canary-new-token-0123456789";

fn made() -> Value {
    json!({"id": "0190-t", "name": "ci", "role": "operator", "expires_at": "2030-01-01T00:00:00Z", "token": NEW})
}

#[test]
fn a_new_token_goes_to_standard_output_alone() {
    let server = Server::new(201, made());
    let options = [
        "tokens",
        "create",
        "ci",
        "--role",
        "operator",
        "--path-prefix",
        "a/*",
        "--path-prefix",
        "b/c",
        "--expires-in-days",
        "7",
    ];
    let (code, out, err) = ended(&server.run(&options));
    assert_eq!((code, out.as_str()), (0, &*format!("{NEW}\n")));
    assert!(err.contains("made token ci") && !err.contains(NEW), "{err}");
    let asked = server.only_request();
    assert_eq!(asked.line, "POST /v1/tokens");
    let body = json!({"name": "ci", "role": "operator", "path_prefixes": ["a/*", "b/c"], "expires_in_days": 7});
    assert_eq!(asked.body, body);
    let (_, out, _) = ended(&Server::new(201, made()).run(&["tokens", "create", "ci", "--role", "viewer", "--json"]));
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), made());
}

#[test]
fn a_new_token_goes_to_a_new_file_which_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let name = path.to_str().unwrap();
    for format in ["human", "json"] {
        let server = Server::new(201, made());
        let (code, out, err) =
            ended(&server.run(&["tokens", "create", "ci", "--role", "operator", "--out", name, "--output", format]));
        assert!(code == 0 && out.contains(name) && !out.contains(NEW) && !err.contains(NEW), "{out}{err}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{NEW}\n"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // There already: nothing is asked, and it stays.
        let server = Server::new(201, made());
        let (code, _, err) = ended(&server.run(&["tokens", "create", "ci", "--role", "operator", "--out", name]));
        assert!(code == 2 && err.contains("never overwritten") && server.asked.lock().unwrap().is_empty(), "{err}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{NEW}\n"));
        std::fs::remove_file(&path).unwrap();
    }
    // Refused: no file is left.
    let server = Server::new(403, problem("forbidden", "No.", "Ask."));
    let (code, _, _) = ended(&server.run(&["tokens", "create", "ci", "--role", "operator", "--out", name]));
    assert!(code == 1 && !path.exists());
    let nowhere = folder.path().join("none/token");
    let server = Server::new(201, made());
    let (code, ..) =
        ended(&server.run(&["tokens", "create", "ci", "--role", "viewer", "--out", nowhere.to_str().unwrap()]));
    assert!(code == 2 && server.asked.lock().unwrap().is_empty());
}

#[test]
fn a_token_is_revoked_by_its_id_or_its_name() {
    const ID: &str = "0190f3b0-0000-7000-8000-000000000001";
    let tokens = || {
        Server::with(|asked| match asked.line.as_str() {
            "GET /v1/tokens" => (
                200,
                json!({"items": [
                    {"id": "old", "name": "ci", "role": "viewer", "revoked_at": "2030-01-01T00:00:00Z", "single_use": true},
                    {"id": "new", "name": "ci", "role": "operator", "path_prefixes": ["a/*"]},
                ]}),
            ),
            _ => (204, Value::Null),
        })
    };
    let server = tokens();
    assert_eq!(ended(&server.run(&["tokens", "revoke", "ci"])).0, 0);
    assert_eq!(server.lines(), ["GET /v1/tokens", "DELETE /v1/tokens/new"]);
    let server = tokens();
    assert_eq!(ended(&server.run(&["tokens", "revoke", ID])).0, 0);
    assert_eq!(server.lines(), [format!("DELETE /v1/tokens/{ID}")]);
    let (code, _, err) = ended(&tokens().run(&["tokens", "revoke", "none"]));
    assert!(code == 1 && err.contains("no token that is in use has this name"), "{err}");
    let (_, out, _) = ended(&tokens().run(&["tokens", "list"]));
    assert!(out.contains("viewer, for one exchange") && out.contains("a/*"), "{out}");
}

#[test]
fn token_and_trust_come_from_files_that_the_environment_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "from-the-file\n").unwrap();
    let session =
        json!({"actor": "token:ci", "role": "operator", "permissions": ["read", "write"], "path_prefixes": []});
    let server = Server::new(200, session);
    let whoami = |more: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bouncerctl"));
        let url = format!("http://{}", server.address);
        command.env_clear().env("CONTROL_PLANE_URL", url).env("TOKEN", TOKEN).arg("whoami").envs(more.iter().copied());
        finish(command, "")
    };
    let output = whoami(&[("BOUNCER_TOKEN_FILE", path.to_str().unwrap())]);
    assert!(output.status.success() && text(&output.stdout).contains("token:ci"), "{}", text(&output.stderr));
    let asked = server.only_request();
    assert_eq!((asked.line.as_str(), asked.authorization.as_str()), ("GET /v1/session", "Bearer from-the-file"));
    let output = whoami(&[("BOUNCER_CA_FILE", path.to_str().unwrap())]);
    assert!(text(&output.stderr).contains("no PEM certificate"), "{}", text(&output.stderr));
}
