//! A move to another KMS key: inside KMS, whole or not at all for each credential, and repeatable.

use bouncer_custody::Reason;
use bouncer_tests::api::{Api, FLAG};
use bouncer_tests::client::Protocol;
use bouncer_tests::control_plane::{ControlPlane, Setup};
use bouncer_tests::kms::Kms;
use bouncer_tests::kms_proxy::Behaviour;
use bouncer_tests::operator::{self, Ended, bouncerctl, run};
use bouncer_tests::scratch::Scratch;
use bouncer_tests::stack::{AAD, Credential, Identities, Login, Stack, caller};
use bouncer_tests::{Fault, Result};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const NUMBERED: &str = "env=production,bouncer=payments-east,generation=1";

fn path(name: &str) -> String {
    format!("protected-resources/{name}/upstream-tls")
}

async fn rewrap(stack: &Stack, to: &str, arguments: &[&str]) -> Result<Ended> {
    run(stack, &with_rewrap(&stack.kms.endpoint(), to, arguments), b"").await
}

fn with_rewrap<'a>(endpoint: &'a str, to: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["rewrap", "--kms-endpoint", endpoint, "--dev", "--json", "--to-key", to];
    all.extend(arguments);
    all
}

/// The newest registration under a name.
async fn registered(stack: &Stack, name: &str) -> Result<Value> {
    let listed = stack.api()?.get("/v1/crypto/envelope-secrets").await?.success()?;
    let found = listed["items"].as_array().and_then(|all| all.iter().find(|item| item["logical_path"] == path(name)));
    found.cloned().ok_or_else(|| Fault::new(format!("{name} is not registered")))
}

/// What became of one credential, by the command's answer.
fn item<'a>(answer: &'a Value, name: &str) -> &'a Value {
    answer["items"]
        .as_array()
        .and_then(|all| all.iter().find(|item| item["logical_path"] == path(name)))
        .unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_credential_moves_inside_kms_and_is_served_under_the_new_key_alone() -> Result<()> {
    let credential = |name: &str, aad: &str| Credential::new(name, "payments").callers(&[&caller(name)]).aad(aad);
    let sealed = Credential { with_envelope: false, ..credential("sealed", NUMBERED) };
    let broken = Credential { tampered: true, ..credential("broken", AAD) };
    let mut stack = Stack::builder("rewrap")
        .credential(credential("plain", AAD))
        .credential(credential("numbered", NUMBERED))
        .credential(credential("revoked", AAD))
        .credential(sealed)
        .credential(broken)
        .start()
        .await?;
    let (old, endpoint) = (stack.key_arn.clone(), stack.kms.endpoint());
    let new = stack.kms.create_key().await?;
    let bundle = stack.credential("sealed")?.bundle();
    operator::wrap(&stack, "envelope", NUMBERED, &path("sealed"), &bundle).await?.success()?;
    let revoked = stack.envelopes.get("revoked").ok_or_else(|| Fault::new("no id"))?.clone();
    stack.api()?.enable_envelope(&revoked, false).await?;
    let everything = ["--all", "--from-key", &old];

    // A rehearsal changes nothing.
    let dry = rewrap(&stack, &new, &[&everything[..], &["--dry-run"]].concat()).await?;
    assert_eq!((dry.json()?["would_move"].as_u64(), dry.json()?["failed"].as_u64()), (Some(4), Some(1)), "{}", dry.err);
    for name in ["plain", "numbered", "sealed"] {
        assert_eq!(registered(&stack, name).await?["generation"], 1, "{name}");
    }

    // Killed in the middle of a move, and run again.
    stack.kms.proxy().reset();
    stack.kms.proxy().behave("ReEncrypt", Behaviour::Hold);
    let mut killed = bouncerctl(&stack, &with_rewrap(&endpoint, &new, &everything))?;
    let asked = || async { (stack.kms.proxy().count("ReEncrypt") == 1).then_some(()) };
    stack.until("the first ReEncrypt", Duration::from_secs(20), asked).await?;
    killed.kill().await?;
    stack.kms.proxy().behave("ReEncrypt", Behaviour::Forward);
    let one = rewrap(&stack, &new, &[&path("plain")]).await?;
    assert_eq!((one.code, &item(&one.json()?, "plain")["result"]), (0, &json!("moved")), "{}", one.err);

    // All of them; the broken one stops no other, and shows in the exit code.
    let all = rewrap(&stack, &new, &everything).await?;
    let answer = all.json()?;
    assert_eq!(all.code, 1, "{}", all.err);
    let counts = ["moved", "already", "failed", "not_tried"].map(|name| answer[name].as_u64().unwrap_or(99));
    assert_eq!(counts, [3, 1, 1, 0], "{answer}");
    assert!(
        item(&answer, "broken")["error"].as_str().is_some_and(|error| error.contains("InvalidCiphertext")),
        "{answer}"
    );
    for call in stack.kms.proxy().calls() {
        let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        assert_eq!((&*call.operation, &body["SourceKeyId"]), ("ReEncrypt", &json!(old)), "nothing is decrypted");
        assert_eq!(body["SourceEncryptionContext"]["bouncer"], "payments-east");
        assert_eq!(body["DestinationEncryptionContext"]["bouncer"], "payments-east");
    }
    for (name, aad, enabled) in [
        ("plain", AAD, true),
        ("numbered", "env=production,bouncer=payments-east,generation=2", true),
        ("sealed", "env=production,bouncer=payments-east,generation=2", true),
        ("revoked", AAD, false),
    ] {
        let secret = registered(&stack, name).await?;
        let shown = json!([secret["generation"], secret["key_id"], secret["aad"], secret["enabled"]]);
        assert_eq!(shown, json!([2, new, aad, enabled]), "{name}");
    }
    // Once more, and there is nothing left but what can't be moved.
    let calls = stack.kms.proxy().count("ReEncrypt");
    let again = rewrap(&stack, &new, &everything).await?.json()?;
    assert_eq!((&again["already"], &again["moved"]), (&json!(4), &json!(0)), "{again}");
    assert_eq!(stack.kms.proxy().count("ReEncrypt"), calls + 1, "of the broken one alone");
    let inventory = run(&stack, &["inventory", "--json", "--key", &old], b"").await?.json()?;
    assert_eq!(inventory["keys"][0]["secrets"].as_array().map(Vec::len), Some(1), "{inventory}");

    // Served by the new key alone.
    stack.kms.disable_key(&old).await?;
    stack.reconfigure_resolver(|setup| setup.set("rails.kms_keys", vec![new.clone()])).await?;
    stack.kms.proxy().reset();
    for name in ["plain", "numbered", "sealed"] {
        let client = stack.client(&caller(name), Protocol::Http1)?;
        let serves = || client.serves();
        stack.until(format!("service with {name}"), Duration::from_secs(15), serves).await?;
    }
    let decrypted = stack.kms.proxy().calls().into_iter().filter(|call| call.operation == "Decrypt");
    let keys: Vec<Value> = decrypted.filter_map(|call| serde_json::from_slice(&call.body).ok()).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|body| body["KeyId"] == new), "{keys:?}");
    let denied = stack.client(&caller("revoked"), Protocol::Http1)?.get("/").await?;
    assert_eq!(denied.reason(), Some(Reason::EnvelopeMissing.code()), "a revoked one stays revoked");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_never_overtakes_a_registration_that_came_between() -> Result<()> {
    let stack = Stack::builder("rewrap-race").without_envoy().start().await?;
    let (old, new, endpoint) = (stack.key_arn.clone(), stack.kms.create_key().await?, stack.kms.endpoint());
    stack.kms.proxy().behave("ReEncrypt", Behaviour::Hold);
    let (name, mover) = (path("payments-api"), ["--all", "--from-key", &old]);
    let moving = bouncerctl(&stack, &with_rewrap(&endpoint, &new, &mover))?;
    let asked = || async { (stack.kms.proxy().count("ReEncrypt") == 1).then_some(()) };
    stack.until("the ReEncrypt", Duration::from_secs(20), asked).await?;
    let renewed = stack.kms.encrypt(&old, AAD, b"the renewed credential").await?;
    let body = json!({
        "logical_path": name, "key_id": old, "ciphertext_ref": renewed, "aad": AAD, "provider": "kms_envelope",
    });
    stack.api()?.register_envelope(&body).await?;
    stack.kms.proxy().behave("ReEncrypt", Behaviour::Forward);
    let overtaken = operator::ended(moving, b"").await?;
    let answer = overtaken.json()?;
    assert_eq!((overtaken.code, &answer["failed"]), (1, &json!(1)), "{answer}");
    let newest = registered(&stack, "payments-api").await?;
    assert_eq!((&newest["generation"], &newest["ciphertext_ref"]), (&json!(2), &json!(renewed)));

    let again = rewrap(&stack, &new, &mover).await?;
    assert_eq!((again.code, &again.json()?["moved"]), (0, &json!(1)), "{}", again.err);
    let moved = registered(&stack, "payments-api").await?;
    let reference = moved["ciphertext_ref"].as_str().unwrap_or_default();
    assert_eq!(stack.kms.decrypt(&new, AAD, reference).await?, b"the renewed credential");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_vault_a_credential_moves_to_the_newest_version_of_its_key_unless_it_is_bound() -> Result<()> {
    let credential = |name: &str, aad: &str| {
        let credential = Credential::new(name, "payments").callers(&[&caller(name)]).aad(aad);
        credential.in_vault("root", "transit:transit/bouncer")
    };
    // Without associated data nothing binds it but the rails.
    let dedicated = |setup: &mut bouncer_tests::resolver::Setup| {
        let mounts = setup.config.get_mut("rails").and_then(|rails| rails.get_mut("vault_mounts"));
        for mount in mounts.and_then(toml::Value::as_array_mut).into_iter().flatten() {
            if let Some(mount) = mount.as_table_mut() {
                mount.insert("dedicated".into(), true.into());
            }
        }
    };
    let stack = Stack::builder("rewrap-vault")
        .vault(Login::Jwt)
        .impatient()
        .resolver(dedicated)
        .credential(credential("free", ""))
        .credential(credential("bound", AAD))
        .start()
        .await?;
    let vault = stack.vault()?;
    let transit = async |path: &str, body: Value| vault.call(Method::POST, "", path, &body).await;
    let (ca, token) = (stack.scratch.file("upstream-ca.pem"), stack.scratch.write("vault.token", vault.token())?);
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let text = |path: &std::path::Path| path.display().to_string();
    let (ca, token) = (text(&ca), text(&token));
    let moved = async |more: &[&str]| {
        let to = ["rewrap", "--all", "--json", "--vault", vault.address()];
        let trusted = ["--vault-ca-file", &ca, "--vault-token-file", &token];
        run(&stack, &[&to[..], &trusted, more].concat(), b"").await
    };
    let clients = [stack.client(&caller("free"), Protocol::Http1)?, stack.client(&caller("bound"), Protocol::Http1)?];
    for client in &clients {
        assert_eq!(client.get("/").await?.status, 200);
    }
    let newest = moved(&[]).await?.json()?;
    assert_eq!(item(&newest, "free")["result"], "already", "{newest}");

    transit("transit/keys/bouncer/rotate", json!({})).await?;
    let dry = moved(&["--dry-run"]).await?.json()?;
    assert_eq!((&dry["would_move"], &registered(&stack, "free").await?["generation"]), (&json!(2), &json!(1)), "{dry}");
    let done = moved(&[]).await?;
    let answer = done.json()?;
    assert_eq!((done.code, &item(&answer, "free")["result"]), (1, &json!("moved")), "{}", done.err);
    let bound = item(&answer, "bound");
    assert_eq!(bound["error"], "Vault does not rewrap what is bound by associated data", "{answer}");
    assert!(bound["advice"].as_str().is_some_and(|advice| advice.contains("transit/encrypt")), "{answer}");
    let reference = |secret: &Value| secret["ciphertext_ref"].as_str().unwrap_or_default().to_owned();
    let free = registered(&stack, "free").await?;
    assert!(reference(&free).starts_with("transit:transit/bouncer#vault:v2:") && free["generation"] == 2, "{free}");
    assert_eq!(registered(&stack, "bound").await?["generation"], 1);

    // The old version of the key is gone: what was moved works without it, and what was not shows that it is gone.
    let known = || clients[0].serves();
    transit("transit/keys/bouncer/config", json!({"min_decryption_version": 2})).await?;
    let denied = || async { (clients[1].get("/").await.ok()?.status != 200).then_some(()) };
    stack.until("what is under the old version to be denied", Duration::from_secs(20), denied).await?;
    stack.until("what was moved to be served", Duration::from_secs(20), known).await?;
    let again = moved(&[]).await?.json()?;
    assert_eq!(item(&again, "free")["result"], "already", "{again}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_waits_for_a_second_person_is_proposed_once() -> Result<()> {
    let scratch = Scratch::new("rewrap-waits")?;
    let identities = Identities::own(&scratch)?;
    let setup = Setup::new(&scratch, identities.control_plane())?;
    let setup = Setup { more: "[access]\nsecond_person = true\n".to_owned(), ..setup };
    let plane = ControlPlane::start(&scratch, setup).await?;
    let (kms, first) = (Kms::start(&scratch).await?, plane.api()?);
    let mut people = vec![];
    for name in ["alice", "bob"] {
        let made = first.post("/v1/tokens", &json!({"name": name, "role": "admin"})).await?.success()?;
        people.push(made["token"].as_str().unwrap_or_default().to_owned());
    }
    let (alice, bob) = (Api::new(plane.url(), Some(&people[0]))?, Api::new(plane.url(), Some(&people[1]))?);
    let approve = async |proposal: &Value| {
        let id = proposal["id"].as_str().unwrap_or_default();
        bob.post(&format!("/v1/proposals/{id}/approve"), &json!({})).await?.success()
    };
    let flag = format!("/v1/feature-flags/{FLAG}");
    approve(&alice.put(&flag, &json!({"enabled": true})).await?.success()?).await?;
    let (old, new) = (kms.create_key().await?, kms.create_key().await?);
    for name in ["one", "two"] {
        let aad = format!("bouncer=payments-east,generation=1,env={name}");
        let reference = kms.encrypt(&old, &aad, name.as_bytes()).await?;
        let body = json!({
            "logical_path": path(name), "key_id": old, "ciphertext_ref": reference, "aad": aad, "provider": "kms_envelope",
        });
        approve(&alice.post("/v1/crypto/envelope-secrets", &body).await?.success()?).await?;
    }
    let endpoint = kms.endpoint();
    let rewrap = async |to: &str, person: &str, more: &[&str]| {
        let options = [&with_rewrap(&endpoint, to, &["--all", "--from-key", &old])[..], more].concat();
        operator::ended(operator::at(&plane.url(), person, &options)?, b"").await
    };
    let pending = async || {
        let list = first.get("/v1/proposals?state=pending").await?.success()?;
        Ok::<_, Fault>(list["items"].as_array().cloned().unwrap_or_default())
    };

    kms.proxy().reset();
    let proposed = rewrap(&new, &people[0], &[]).await?;
    let answer = proposed.json()?;
    assert_eq!((proposed.code, &answer["proposed"]), (4, &json!(2)), "{answer}");
    assert_eq!((pending().await?.len(), kms.proxy().count("ReEncrypt")), (2, 2));
    // Again, by whomever, and as a rehearsal: the same proposals, and KMS is not even asked.
    for (person, more) in [(&people[0], &[][..]), (&people[1], &[]), (&people[0], &["--dry-run"])] {
        let again = rewrap(&new, person, more).await?;
        assert_eq!((again.code, &again.json()?["items"]), (4, &answer["items"]), "{}", again.err);
    }
    assert_eq!((pending().await?.len(), kms.proxy().count("ReEncrypt")), (2, 2));
    // The control: a move to another key is another change.
    let other = kms.create_key().await?;
    let elsewhere = rewrap(&other, &people[0], &[]).await?;
    assert_eq!((elsewhere.code, pending().await?.len()), (4, 4), "{}", elsewhere.err);

    // One is approved, the other rejected: the one is there, the other is proposed anew.
    let id = |name: &str| item(&answer, name)["proposal"].as_str().unwrap_or_default().to_owned();
    approve(&json!({"id": id("one")})).await?;
    bob.post(&format!("/v1/proposals/{}/reject", id("two")), &json!({})).await?.success()?;
    let after = rewrap(&new, &people[0], &[]).await?;
    let after = after.json()?;
    assert_eq!(
        (&item(&after, "one")["result"], &item(&after, "two")["result"]),
        (&json!("already"), &json!("proposed"))
    );
    assert_ne!(item(&after, "two")["proposal"], json!(id("two")));
    Ok(())
}
