//! The control plane's state as a file, and back; tokens and roll-back by `bouncerctl`, on a real control plane and KMS.

use bouncer_tests::api::{Api, FLAG};
use bouncer_tests::control_plane::{ControlPlane, Setup};
use bouncer_tests::kms::Kms;
use bouncer_tests::operator::{self, Ended};
use bouncer_tests::scratch::Scratch;
use bouncer_tests::stack::Identities;
use bouncer_tests::{Fault, Result, tools};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

const KEY: &str = "arn:aws:kms:ca-central-1:123456789012:key/abc-123";
const PATH: &str = "protected-resources/payments-api/upstream-tls";
const SECRETS: &str = "/v1/crypto/envelope-secrets";

struct Ground {
    control_plane: ControlPlane,
    _identities: Identities,
    scratch: Scratch,
}

impl Ground {
    async fn new(scenario: &str) -> Result<Self> {
        Self::with(scenario, "").await
    }

    /// With more in the control plane's configuration.
    async fn with(scenario: &str, more: &str) -> Result<Self> {
        let scratch = Scratch::new(scenario)?;
        let identities = Identities::own(&scratch)?;
        let setup = Setup { more: more.to_owned(), ..Setup::new(&scratch, identities.control_plane())? };
        let control_plane = ControlPlane::start(&scratch, setup).await?;
        Ok(Self { control_plane, _identities: identities, scratch })
    }

    fn api(&self) -> Result<Api> {
        self.control_plane.api()
    }

    async fn ctl(&self, arguments: &[&str], input: &str) -> Result<Ended> {
        let child = operator::at(&self.control_plane.url(), self.control_plane.token(), arguments)?;
        operator::ended(child, input.as_bytes()).await
    }

    /// The same, which must end well; gives standard output.
    async fn done(&self, arguments: &[&str], input: &str) -> Result<String> {
        Ok(String::from_utf8(self.ctl(arguments, input).await?.success()?)?)
    }

    /// A first token once more; those of before are revoked.
    fn bootstrap_again(&self, token_file: &Path) -> Result<()> {
        let mut bootstrap = std::process::Command::new(tools::binary("bouncer-control-plane")?);
        bootstrap.arg("bootstrap").arg("--config").arg(self.scratch.file("control-plane.toml"));
        let output = bootstrap.arg("--replace-tokens").arg("--token-file").arg(token_file).output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    async fn secret(&self, path: &str) -> Result<Value> {
        let list = self.api()?.get(&format!("{SECRETS}?q={path}")).await?.success()?;
        Ok(list["items"][0].clone())
    }
}

fn declared() -> String {
    format!(
        "version: 1
feature_flags: {{{FLAG}: true}}
settings: {{provider: kms_envelope, kms_key_arn: '{KEY}', notes: production}}
bouncers:
- {{name: payments-east, spiffe_id: spiffe://example.org/bouncer/payments-east}}
---
version: 1
envelope_secrets:
- logical_path: {PATH}
  provider: kms_envelope
  key_id: {KEY}
  ciphertext_ref: AQICAHhFIRST=
  aad: env=production,bouncer=payments-east
protected_resources:
- name: payments-api
  bouncer: payments-east
  cluster: payments
  upstream: payments.internal:8443
  protocol: mtls
  logical_path: {PATH}
  callers: [spiffe://example.org/ns/shop/*, spiffe://example.org/ns/cart/*]
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_becomes_the_state_and_the_state_that_file() -> Result<()> {
    let ground = Ground::new("gitops").await?;
    // Nothing yet, and the flag is off.
    let empty = ground.done(&["export"], "").await?;
    assert!(empty.contains(&format!("{FLAG}: false")) && empty.contains("bouncers: []"), "{empty}");
    assert_eq!(ground.ctl(&["diff", "-f", "-"], &empty).await?.code, 0);

    let dry = ground.ctl(&["apply", "-f", "-", "--dry-run"], &declared()).await?;
    assert_eq!((dry.code, ground.done(&["export"], "").await?), (0, empty), "a rehearsal changes nothing");
    ground.done(&["apply", "-f", "-"], &declared()).await?;
    let first = ground.done(&["export"], "").await?;
    for text in [declared(), first.clone()] {
        let diff = ground.ctl(&["diff", "-f", "-", "--prune"], &text).await?;
        assert_eq!(diff.code, 0, "{}", String::from_utf8_lossy(&diff.out));
    }
    assert_eq!(ground.done(&["apply", "-f", "-", "--prune"], &first).await?, "No difference.\n");
    assert_eq!(ground.done(&["export"], "").await?, first);

    // Changed in a repository: a renewed credential, a second bouncer with a resource, another cluster.
    let changed = first
        .replace("AQICAHhFIRST=", "AQICAHhSECOND")
        .replace("cluster: payments\n", "cluster: payments-v2\n")
        .replace("bouncers:\n", "bouncers:\n- name: west\n  spiffe_id: spiffe://example.org/bouncer/west\n")
        + &format!(
            "- name: reports\n  bouncer: west\n  cluster: reports\n  upstream: reports.internal:443\n  protocol: https\n  \
             logical_path: {PATH}\n  callers: []\n"
        );
    let diff = ground.ctl(&["diff", "-f", "-"], &changed).await?;
    let told = String::from_utf8_lossy(&diff.out).into_owned();
    assert_eq!(diff.code, 1, "{}", diff.err);
    for line in ["+ bouncer west", "+ resource reports", "cluster: \"payments\" → \"payments-v2\"", "~ credential "] {
        assert!(told.contains(line), "{line} in {told}");
    }
    assert!(!told.contains("HhFIRST") && !told.contains("HhSECOND"), "{told}");
    ground.done(&["apply", "-f", "-"], &changed).await?;
    let second = ground.done(&["export"], "").await?;
    assert_eq!(ground.ctl(&["diff", "-f", "-", "--prune"], &second).await?.code, 0);
    assert_eq!(ground.secret(PATH).await?["generation"], 2);
    ground.done(&["apply", "-f", "-"], &second.replace("payments-v2", "payments-v3")).await?;
    assert_eq!(ground.secret(PATH).await?["generation"], 2, "equal content is no new generation");

    // Deleted where the file does not have it, the resource before its bouncer, and only with --prune.
    let kept = ground.ctl(&["apply", "-f", "-"], &first).await?;
    assert!(String::from_utf8_lossy(&kept.success()?).contains("2 registered and not declared"));
    assert_eq!(ground.api()?.get("/v1/bouncers/west").await?.status, 200);
    ground.done(&["apply", "-f", "-", "--prune"], &first).await?;
    assert_eq!(ground.api()?.get("/v1/bouncers/west").await?.status, 404);
    assert_eq!(ground.api()?.get("/v1/protected-resources/reports").await?.status, 404);
    assert_eq!(ground.done(&["export"], "").await?, first, "and that is the state of before");

    // What looks like a plaintext credential is refused there too, and nothing of it is repeated.
    let token = format!("ghp_{}", "a1B2".repeat(9));
    let leaked =
        ground.ctl(&["apply", "-f", "-"], &first.replace("notes: production", &format!("notes: {token}"))).await?;
    assert!(leaked.code == 1 && !leaked.err.contains(&token), "{}", leaked.err);
    assert_eq!(ground.done(&["export"], "").await?, first);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_more_changes_than_calls_are_taken_in_a_second_is_applied_in_one_run() -> Result<()> {
    let ground = Ground::with("gitops-many", "[api]\nrequests_per_second = 2\n").await?;
    let bouncers: Vec<_> =
        (0..12).map(|n| format!("- {{name: b-{n}, spiffe_id: spiffe://example.org/bouncer/b-{n}}}\n")).collect();
    let many = format!("version: 1\nbouncers:\n{}", bouncers.concat());
    let applied = ground.ctl(&["apply", "-f", "-"], &many).await?;
    assert!(applied.err.contains("going on in "), "{}", applied.err);
    assert!(String::from_utf8(applied.success()?)?.contains("12 done"));

    // The control: the same by a command that does not wait is refused.
    let refused = async {
        loop {
            let ended = ground.ctl(&["bouncers", "list"], "").await?;
            if ended.code != 0 {
                return Ok::<_, Fault>(ended);
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(60), refused).await;
    let refused = refused.map_err(|_| Fault::new("nothing is refused"))??;
    assert!(refused.code == 1 && refused.err.contains("429"), "{}", refused.err);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_file_changes_what_the_flag_guards_and_turns_it_off() -> Result<()> {
    let ground = Ground::new("gitops-off").await?;
    ground.done(&["apply", "-f", "-"], &declared()).await?;
    let off = declared()
        .replace(&format!("{FLAG}: true"), &format!("{FLAG}: false"))
        .replace("AQICAHhFIRST=", "AQICAHhSECOND")
        .replace("notes: production", "notes: retired");
    let applied = ground.done(&["apply", "-f", "-", "--prune"], &off).await?;
    assert!(applied.contains("3 done"), "{applied}");
    let api = ground.api()?;
    assert_eq!(api.get("/v1/feature-flags").await?.success()?["items"][0]["enabled"], false);
    api.set_flag(true).await?;
    assert_eq!(api.get("/v1/crypto/settings").await?.success()?["notes"], "retired");
    let secret = ground.secret(PATH).await?;
    assert_eq!((&secret["generation"], &secret["ciphertext_ref"]), (&json!(2), &json!("AQICAHhSECOND")));
    Ok(())
}

/// Between an operator and the control plane: holds the first call that changes something until it is let through.
async fn gate(to: &str) -> Result<(String, Arc<Notify>, Arc<Notify>)> {
    let to = to.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (held, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (signal, wait) = (Arc::clone(&held), Arc::clone(&go));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (to, signal, wait) = (to.clone(), Arc::clone(&signal), Arc::clone(&wait));
            tokio::spawn(async move {
                let (mut from, mut back) = client.into_split();
                let (mut answers, mut on) = TcpStream::connect(to).await?.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
                let (mut chunk, mut is_held) = (vec![0; 64 * 1024], false);
                loop {
                    let length = from.read(&mut chunk).await?;
                    if length == 0 {
                        return on.shutdown().await;
                    }
                    if !is_held && !chunk.starts_with(b"GET ") {
                        is_held = true;
                        signal.notify_one();
                        wait.notified().await;
                    }
                    on.write_all(&chunk[..length]).await?;
                }
            });
        }
    });
    Ok((url, held, go))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_operator_changed_between_plan_and_change_is_not_overwritten() -> Result<()> {
    let ground = Ground::new("gitops-conflict").await?;
    ground.done(&["apply", "-f", "-"], &declared()).await?;
    let first = ground.done(&["export"], "").await?;
    let mine = first.replace("upstream: payments.internal:8443", "upstream: payments.internal:9443");

    let (url, held, go) = gate(&ground.control_plane.url()).await?;
    let late = operator::at(&url, ground.control_plane.token(), &["apply", "-f", "-"])?;
    let late = tokio::spawn(async move { operator::ended(late, mine.as_bytes()).await });
    tokio::time::timeout(Duration::from_secs(60), held.notified())
        .await
        .map_err(|_| Fault::new("nothing was changed"))?;
    let theirs = first.replace("cluster: payments\n", "cluster: payments-theirs\n");
    ground.done(&["apply", "-f", "-"], &theirs).await?;
    go.notify_one();
    let late = late.await.map_err(|_| Fault::new("the late operator"))??;
    assert!(late.code == 1 && late.err.contains("Somebody else changed it"), "{}", late.err);
    assert!(String::from_utf8_lossy(&late.out).contains("FAILED    change resource payments-api"));
    assert_eq!(ground.done(&["export"], "").await?, theirs, "nothing of theirs is lost");

    // Run again it goes on from what is there now.
    let mine = theirs.replace("upstream: payments.internal:8443", "upstream: payments.internal:9443");
    ground.done(&["apply", "-f", "-"], &mine).await?;
    assert_eq!(ground.done(&["export"], "").await?, mine);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_of_bootstrap_is_exchanged_once_for_one_in_a_file() -> Result<()> {
    let ground = Ground::new("gitops-tokens").await?;
    let (first, admin) = (ground.scratch.file("first.token"), ground.scratch.file("admin.token"));
    ground.bootstrap_again(&first)?;
    let (first, admin) = (first.display().to_string(), admin.display().to_string());

    // It is good for the exchange alone, and a file that can't be made does not use it up.
    let status = ground.ctl(&["status", "--token-file", &first], "").await?;
    assert!(status.code == 1 && status.err.contains("bouncerctl tokens create"), "{}", status.err);
    let create = ["tokens", "create", "alice", "--role", "admin", "--token-file", &first, "--out"];
    assert_eq!(ground.ctl(&[&create[..], &[&first]].concat(), "").await?.code, 2);
    let said = ground.done(&[&create[..], &[&admin]].concat(), "").await?;
    let token = std::fs::read_to_string(&admin)?;
    assert!(said.contains(&admin) && !said.contains(token.trim()), "{said}");
    let again = ground.ctl(&["tokens", "create", "eve", "--role", "admin", "--token-file", &first], "").await?;
    assert!(again.code == 1 && again.out.is_empty(), "{}", again.err);

    let whoami = ground.done(&["whoami", "--token-file", &admin], "").await?;
    assert!(whoami.contains("token:alice") && whoami.contains("admin"), "{whoami}");
    let limited =
        ["tokens", "create", "deploy", "--role", "operator", "--path-prefix", "protected-resources/*", "--json"];
    let made: Value =
        serde_json::from_str(&ground.done(&[&limited[..], &["--token-file", &admin]].concat(), "").await?)?;
    assert_eq!(made["path_prefixes"], json!(["protected-resources/*"]));
    ground.done(&["tokens", "revoke", "deploy", "--token-file", &admin], "").await?;
    let list = ground.done(&["tokens", "list", "--json", "--token-file", &admin], "").await?;
    let list: Value = serde_json::from_str(&list)?;
    let revoked = list["items"].as_array().into_iter().flatten().find(|item| item["name"] == "deploy");
    assert!(revoked.is_some_and(|item| item["revoked_at"].is_string()), "{list}");
    Ok(())
}

/// Between an operator and the control plane: loses the answer to the first call that changes something.
async fn lossy(to: &str) -> Result<String> {
    let to = to.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let lost = Arc::new(AtomicBool::new(false));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (to, lost) = (to.clone(), Arc::clone(&lost));
            tokio::spawn(async move {
                let mut first = [0; 1];
                client.peek(&mut first).await?;
                let (mut from, mut back) = client.into_split();
                let (mut answers, mut on) = TcpStream::connect(to).await?.into_split();
                let asking = tokio::spawn(async move { tokio::io::copy(&mut from, &mut on).await });
                if first != *b"G" && !lost.swap(true, Ordering::SeqCst) {
                    // It was carried out, or there would be no answer.
                    answers.readable().await?;
                    asking.abort();
                    return Ok(0);
                }
                tokio::io::copy(&mut answers, &mut back).await
            });
        }
    });
    Ok(url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_of_bootstrap_is_not_lost_with_the_answer_to_its_exchange() -> Result<()> {
    let ground = Ground::new("gitops-lost").await?;
    let (first, admin) = (ground.scratch.file("first.token"), ground.scratch.file("admin.token"));
    ground.bootstrap_again(&first)?;
    let (first, admin) = (first.display().to_string(), admin.display().to_string());
    let url = lossy(&ground.control_plane.url()).await?;
    let create = ["tokens", "create", "alice", "--role", "admin", "--token-file", &first, "--out", &admin];
    let said = operator::ended(operator::at(&url, "", &create)?, b"").await?.success()?;
    let said = String::from_utf8(said)?;
    let list = ground.done(&["tokens", "list", "--json", "--token-file", &admin], "").await?;
    let list: Value = serde_json::from_str(&list)?;
    let found = |name: &str| -> Vec<&Value> {
        list["items"].as_array().into_iter().flatten().filter(|item| item["name"] == name).collect()
    };
    let alice = found("alice");
    assert_eq!(alice.len(), 1, "{list}");
    assert!(said.contains(alice[0]["id"].as_str().unwrap_or("no id")), "{said}");
    assert!(found("bootstrap").iter().all(|item| item["revoked_at"].is_string()), "{list}");

    // The control: the same exchange by a caller that leaves the token to the control plane loses both.
    std::fs::remove_file(&first)?;
    ground.bootstrap_again(first.as_ref())?;
    let spent = std::fs::read_to_string(&first)?;
    let url = lossy(&ground.control_plane.url()).await?;
    let exchange = || {
        let body = json!({"name": "bob", "role": "admin"});
        reqwest::Client::new().post(format!("{url}/v1/tokens")).bearer_auth(spent.trim()).json(&body).send()
    };
    assert!(exchange().await.is_err());
    assert_eq!(exchange().await?.status(), 401);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_earlier_generation_comes_back_also_where_it_is_bound_to_its_number() -> Result<()> {
    let ground = Ground::new("rollback").await?;
    let (api, kms) = (ground.api()?, Kms::start(&ground.scratch).await?);
    let (key, endpoint) = (kms.create_key().await?, kms.endpoint());
    api.set_flag(true).await?;
    let aad = |generation: u64| format!("env=production,bouncer=payments-east,generation={generation}");
    let free = "env=production,bouncer=payments-east";
    let mut firsts = vec![];
    for generation in [1, 2] {
        for (path, aad) in [("bound/x", aad(generation)), ("free/x", free.to_owned())] {
            let reference = kms.encrypt(&key, &aad, format!("content {generation}").as_bytes()).await?;
            firsts.push(reference.clone());
            let body = json!({
                "logical_path": path, "key_id": key, "ciphertext_ref": reference, "aad": aad, "provider": "kms_envelope",
            });
            api.register_envelope(&body).await?;
        }
    }
    kms.proxy().reset();
    let back = |path: &'static str| {
        let (ground, endpoint) = (&ground, &endpoint);
        async move {
            let options = ["secrets", "rollback", path, "--to", "1", "--reason", "2 is wrong", "--json"];
            ground.ctl(&[&options[..], &["--kms-endpoint", endpoint, "--dev"]].concat(), "").await
        }
    };

    back("free/x").await?.success()?;
    let secret = ground.secret("free/x").await?;
    assert_eq!((&secret["generation"], &secret["ciphertext_ref"]), (&json!(3), &json!(firsts[1])));
    assert!(kms.proxy().calls().is_empty(), "KMS is not needed");

    back("bound/x").await?.success()?;
    let secret = ground.secret("bound/x").await?;
    assert_eq!(
        (&secret["generation"], &secret["aad"], &secret["reason"]),
        (&json!(3), &json!(aad(3)), &json!("2 is wrong"))
    );
    let reference = secret["ciphertext_ref"].as_str().unwrap_or_default();
    assert_eq!(kms.decrypt(&key, &aad(3), reference).await?, b"content 1");
    assert!(kms.decrypt(&key, &aad(1), reference).await.is_err(), "it is bound to its new number alone");
    let calls: Vec<_> = kms.proxy().calls().into_iter().map(|call| call.operation).collect();
    assert_eq!(calls, ["ReEncrypt"], "nothing is decrypted here");

    // What is revoked stays so, and what transit bound is to be encrypted anew.
    ground.done(&["secrets", "disable", "bound/x", "--reason", "leaked"], "").await?;
    back("bound/x").await?.success()?;
    let secret = ground.secret("bound/x").await?;
    assert_eq!((&secret["generation"], &secret["enabled"]), (&json!(4), &json!(false)));
    for generation in [1, 2] {
        let reference = "transit:transit/bouncer#vault:v1:QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB";
        let body = json!({
            "logical_path": "vault/x", "key_id": "root", "ciphertext_ref": reference, "aad": aad(generation),
            "provider": "vault_delegate",
        });
        api.register_envelope(&body).await?;
    }
    let vault = back("vault/x").await?;
    assert!(vault.code == 1 && vault.err.contains("ncrypt it anew"), "{}", vault.err);
    assert_eq!(ground.secret("vault/x").await?["generation"], 2);
    let history = ground.done(&["secrets", "history", "bound/x"], "").await?;
    assert!(history.contains("2 is wrong") && history.contains("token:admin"), "{history}");
    Ok(())
}
