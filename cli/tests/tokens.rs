//! Tokens: made into a file of their own, listed, revoked.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod support;

use aws_lc_rs::digest::{SHA256, digest};
use bouncer_custody::Hex;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use support::{Asked, Server, TOKEN, ended, finish, problem, text};

fn made() -> Value {
    json!({"id": "0190-t", "name": "ci", "role": "operator", "expires_at": "2030-01-01T00:00:00Z"})
}

/// What the control plane is sent of a token.
fn hash(token: &str) -> String {
    Hex(digest(&SHA256, token.trim_end().as_bytes()).as_ref()).to_string()
}

#[test]
fn a_new_token_goes_to_standard_output_alone_and_the_control_plane_gets_its_hash() {
    let server = Server::new(201, made());
    let options = "tokens create ci --role operator --path-prefix a/* --path-prefix b/c --expires-in-days 7";
    let options: Vec<_> = options.split(' ').collect();
    let (code, token, err) = ended(&server.run(&options));
    assert!(code == 0 && token.starts_with("bnc_") && token.len() == 48, "{token}");
    assert!(err.contains("made token ci") && !err.contains(token.trim_end()), "{err}");
    let asked = server.only_request();
    assert_eq!(asked.line, "POST /v1/tokens");
    let body = json!({
        "name": "ci", "role": "operator", "path_prefixes": ["a/*", "b/c"], "expires_in_days": 7, "token_sha256": hash(&token),
    });
    assert_eq!(asked.body, body);
    let server = Server::new(201, made());
    let (_, out, _) = ended(&server.run(&["tokens", "create", "ci", "--role", "viewer", "--json"]));
    let mut answer: Value = serde_json::from_str(&out).unwrap();
    let other = answer.as_object_mut().unwrap().remove("token").unwrap();
    assert_eq!(
        (answer, server.only_request().body["token_sha256"].clone()),
        (made(), json!(hash(other.as_str().unwrap())))
    );
    assert_ne!(other, token.trim_end(), "each is another");
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
        let token = std::fs::read_to_string(&path).unwrap();
        assert!(code == 0 && out.contains(name) && !format!("{out}{err}").contains(token.trim_end()), "{out}{err}");
        assert_eq!(server.only_request().body["token_sha256"], hash(&token));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // There already: nothing is asked, and it stays.
        let server = Server::new(201, made());
        let (code, _, err) = ended(&server.run(&["tokens", "create", "ci", "--role", "operator", "--out", name]));
        assert!(code == 2 && err.contains("never overwritten") && server.asked.lock().unwrap().is_empty(), "{err}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), token);
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

/// A control plane that loses its answers to the making of tokens, so many of them; then it says `then`. Under a new token it
/// answers only if it has `stored` it.
fn lossy(lost: usize, then: (u16, Value), stored: bool) -> Server {
    let seen = std::cell::Cell::new(0);
    Server::with(move |asked: &Asked| match asked.line.as_str() {
        "POST /v1/tokens" => {
            seen.set(seen.get() + 1);
            if seen.get() <= lost { (0, Value::Null) } else { then.clone() }
        }
        "GET /v1/session" if stored && asked.authorization.starts_with("Bearer bnc_") => (
            200,
            json!({"token_id": "0190-t", "actor": "token:ci", "role": "operator", "expires_at": "2030-01-01T00:00:00Z"}),
        ),
        _ => (401, problem("unauthenticated", "No.", "Ask.")),
    })
}

#[test]
fn an_answer_that_is_lost_loses_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let create = ["tokens", "create", "ci", "--role", "operator", "--out", path.to_str().unwrap()];
    let spent = (401, problem("unauthenticated", "No.", "Ask."));
    // Sent again it is answered; or the one that it was exchanged for is spent, and the new one says that it is there.
    for server in [lossy(1, (201, made()), true), lossy(1, spent.clone(), true), lossy(9, (201, made()), true)] {
        let (code, out, err) = ended(&server.run(&create));
        assert!(code == 0 && out.contains("made token ci (id 0190-t), role operator"), "{out}{err}");
        let token = std::fs::read_to_string(&path).unwrap();
        let asked = server.asked.lock().unwrap();
        let sent: Vec<_> = asked.iter().filter(|asked| asked.line.starts_with("POST")).collect();
        assert!(sent.len() == 2 && sent.iter().all(|sent| sent.body["token_sha256"] == hash(&token)), "{sent:?}");
        std::fs::remove_file(&path).unwrap();
    }
    // Known not to be made: nothing is left. Nobody knows: it is kept, and said.
    let (code, _, err) = ended(&lossy(1, spent, false).run(&create));
    assert!(code == 1 && !path.exists() && !err.contains("is kept"), "{err}");
    let (code, _, err) = ended(&lossy(9, (201, made()), false).run(&create));
    assert!(code == 3 && path.exists() && err.contains("whoami --token-file"), "{err}");
}

#[test]
fn a_token_is_revoked_by_its_id_or_its_name() {
    const ID: &str = "0190f3b0-0000-7000-8000-000000000001";
    let tokens = || {
        Server::with(|asked| match asked.line.split('?').next().unwrap_or_default() {
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
    assert_eq!(server.lines(), ["GET /v1/tokens?limit=50&name=ci&state=live", "DELETE /v1/tokens/new"]);
    let server = tokens();
    assert_eq!(ended(&server.run(&["tokens", "revoke", ID])).0, 0);
    assert_eq!(server.lines(), [format!("DELETE /v1/tokens/{ID}")]);
    let (code, _, err) = ended(&tokens().run(&["tokens", "revoke", "none"]));
    assert!(code == 1 && err.contains("no token that is in use has this name"), "{err}");
    let server = tokens();
    let (_, out, _) = ended(&server.run(&["tokens", "list"]));
    assert!(out.contains("viewer, for one exchange") && out.contains("a/*"), "{out}");
    assert_eq!(server.lines(), ["GET /v1/tokens?limit=50"]);
}

#[test]
fn tokens_are_listed_by_filters() {
    let server = Server::with(|asked| match asked.line.contains("cursor=") {
        false => (200, json!({"items": [{"id": "1", "name": "one"}], "next_cursor": "abc"})),
        true => (200, json!({"items": [{"id": "2", "name": "two"}]})),
    });
    let (code, out, _) = ended(&server.run(&["tokens", "list", "--role", "admin", "--state", "live"]));
    assert!(code == 0 && out.contains("one") && out.contains("two"), "{out}");
    let first = "GET /v1/tokens?limit=50&role=admin&state=live".to_owned();
    assert_eq!(server.lines(), [first.clone(), format!("{first}&cursor=abc")]);
    let server = Server::new(200, json!({"items": []}));
    let (_, out, _) = ended(&server.run(&["tokens", "list", "--name", "ci"]));
    assert!(out.contains("No token is as asked for."), "{out}");
    assert_eq!(server.lines(), ["GET /v1/tokens?limit=50&name=ci"]);
    for bad in [["--role", "root"], ["--state", "gone"], ["--name", "A B"]] {
        assert_eq!(ended(&Server::new(200, json!({})).run(&["tokens", "list", bad[0], bad[1]])).0, 2, "{bad:?}");
    }
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
