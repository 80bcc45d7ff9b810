//! Credentials that stay in the customer's Vault, on a real OpenBao: every engine, both logins, and the binding that
//! comes with the secret.

use bouncer_custody::Reason;
use bouncer_tests::client::{Client, Protocol};
use bouncer_tests::leak::Needles;
use bouncer_tests::openbao::{AUDIENCE, CLIENT_NAME, TEAM};
use bouncer_tests::pki::{Ca, Leaf};
use bouncer_tests::stack::{AAD, BOUNCER_ID, CART, Credential, Login, Stack, caller};
use bouncer_tests::{Fault, Result};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);
const SECRET: &str = "kv2:secret/payments/upstream-tls";

/// A credential of the caller of the same name.
fn of(name: &str, namespace: &str, reference: &str) -> Credential {
    Credential::new(name, "payments").callers(&[&caller(name)]).in_vault(namespace, reference)
}

/// One that is registered, and that nobody put there.
fn unwritten(name: &str, reference: &str) -> Credential {
    let mut credential = of(name, "root", reference);
    credential.written = false;
    credential
}

async fn peer_of(client: &Client) -> Result<bouncer_tests::upstream::Peer> {
    client.get("/").await?.peer()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_upstream_sees_the_certificate_from_kv2_and_vault_is_asked_once() -> Result<()> {
    let credential = Credential::new("payments-api", "payments").in_vault("root", SECRET);
    let one_login = |setup: &mut bouncer_tests::resolver::Setup| setup.set("vault.namespace", "root");
    let builder = Stack::builder("vault").spire().vault(Login::JwtByProxy).resolver(one_login);
    let stack = builder.credential(credential).start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    for _ in 0..20 {
        assert_eq!(peer_of(&client).await?.common_name, "payments-api");
    }
    let proxy = stack.vault_proxy()?;
    assert_eq!((proxy.count("auth/jwt/login"), proxy.count("secret/data/")), (1, 1));

    // Of two workers the second one asks too, and is answered from the resolver's cache, without a call.
    let with_a_call =
        |event: &serde_json::Value| event["outcome"] == "inject" && event["backend_request_id"].is_string();
    let event = stack.audited("the injection that made the call", with_a_call).await?;
    let read = proxy.calls().into_iter().find(|call| call.path.starts_with("secret/data/"));
    let read = read.ok_or_else(|| Fault::new("no read"))?;
    assert_eq!(event["key_id"], "root");
    assert_eq!(event["backend_request_id"].as_str(), read.request_id.as_deref());
    // Neither the token nor the key is in any file of the scenario: logs, audit spool, snapshot, grants, database.
    let token = read.token.ok_or_else(|| Fault::new("no token"))?;
    let key = stack.credential("payments-api")?;
    let needles = Needles::of(&key.private_scalar()?)?.and(token.as_bytes(), "token");
    let hits = needles.search_files(stack.scratch.path())?;
    assert!(hits.is_empty(), "{hits:?}");
    // The control: the same search finds what is planted.
    stack.scratch.write("planted.log", format!("{token} {}", key.key_pem))?;
    assert!(needles.search_files(stack.scratch.path())?.iter().any(|hit| hit.shape == "token"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_engine_serves_over_tls_with_a_jwt_login_also_from_another_namespace() -> Result<()> {
    let stack = Stack::builder("vault-engines")
        .vault(Login::Jwt)
        .credential(of("kv2", "root", SECRET))
        .credential(of("bare", "root", "secret/bare"))
        .credential(of("kv1", "root", "kv1:old/payments"))
        .credential(of("transit", "root", "transit:transit/bouncer"))
        .credential(of("pki", "root", "pki:pki/client"))
        .credential(of("team", TEAM, SECRET))
        .start()
        .await?;
    for name in ["kv2", "bare", "kv1", "transit", "team"] {
        assert_eq!(peer_of(&stack.client(&caller(name), Protocol::Http1)?).await?.common_name, name);
    }
    let issued = peer_of(&stack.client(&caller("pki"), Protocol::Http1)?).await?;
    assert_eq!((issued.common_name.as_str(), issued.issuer.as_str()), (CLIENT_NAME, "customer"));
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_x509_svid_logs_in_and_no_other_identity_does() -> Result<()> {
    let stack = Stack::builder("vault-cert").vault(Login::Cert).credential(of("mtls", "root", SECRET)).start().await?;
    assert_eq!(peer_of(&stack.client(&caller("mtls"), Protocol::Http1)?).await?.common_name, "mtls");

    // The control: the same resolver, where the role allows another identity.
    let other = json!({"allowed_uri_sans": ["spiffe://example.org/bouncer/other"]});
    let mut stack = stack;
    stack.vault()?.call(Method::POST, "", "auth/cert/certs/bouncer", &other).await?;
    stack.restart_resolver_until_ready().await?;
    let refused = || async {
        let reply = stack.client(&caller("mtls"), Protocol::Http1).ok()?.get("/").await.ok()?;
        (reply.reason()? == Reason::VaultLoginFailed.code()).then_some(())
    };
    stack.until("the refused login", SOON, refused).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_the_configured_ca_does_not_name_is_told_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ca = folder.path().join("other-ca.pem");
    std::fs::write(&ca, Ca::new("other")?.pem())?;
    let ca = ca.display().to_string();
    let credential = of("wrong-ca", "root", SECRET);
    let builder = Stack::builder("vault-ca").vault(Login::Jwt).credential(credential);
    let stack = builder.resolver(move |setup| setup.set("vault.ca_file", ca)).start().await?;
    let reply = stack.client(&caller("wrong-ca"), Protocol::Http1)?.get("/").await?;
    assert_eq!(reply.reason(), Some(Reason::VaultUnavailable.code()));
    // The control is every other scenario over TLS, where the CA is the server's.
    assert_eq!(stack.upstream("payments")?.connections(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jwt_svid_of_another_audience_or_identity_buys_no_token() -> Result<()> {
    let stack = Stack::builder("vault-jwt")
        .vault(Login::JwtByProxy)
        .impatient()
        .credential(of("audience", "root", SECRET))
        .start()
        .await?;
    let client = || stack.client(&caller("audience"), Protocol::Http1);
    // The control first: with the role as it should be.
    assert_eq!(peer_of(&client()?).await?.common_name, "audience");
    let wrong = [json!({"bound_audiences": ["another"]}), json!({"bound_subject": CART})];
    for change in wrong {
        let role = |change: &serde_json::Value| {
            let mut role = json!({
                "role_type": "jwt", "bound_audiences": [AUDIENCE], "bound_subject": BOUNCER_ID, "user_claim": "sub",
                "token_policies": ["bouncer"],
            });
            role.as_object_mut()
                .into_iter()
                .for_each(|role| role.extend(change.as_object().cloned().unwrap_or_default()));
            role
        };
        let vault = stack.vault()?;
        vault.call(Method::POST, "", "auth/jwt/role/bouncer", &role(&change)).await?;
        vault.revoke_tokens("jwt").await?;
        let refused = || async {
            (client().ok()?.get("/").await.ok()?.reason()? == Reason::VaultLoginFailed.code()).then_some(())
        };
        stack.until("the refused login", SOON, refused).await?;
        vault.call(Method::POST, "", "auth/jwt/role/bouncer", &role(&json!({}))).await?;
        let serves = || async { peer_of(&client().ok()?).await.ok() };
        stack.until("the login of the right identity", Duration::from_secs(30), serves).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_metadata_binds_and_nothing_else_takes_its_place() -> Result<()> {
    let other_upstream = format!("{AAD},upstream=evil.internal:8443");
    let registered = |mut credential: Credential, aad: &str| {
        credential.registered_aad = Some(aad.to_owned());
        credential
    };
    let cases = [
        (of("unbound", "root", "kv2:secret/unbound").aad(""), Reason::BindingIncomplete),
        // What the control plane claims is no binding.
        (registered(of("claimed", "root", "kv2:secret/claimed").aad(""), AAD), Reason::BindingIncomplete),
        (of("upstream", "root", "kv2:secret/upstream").aad(&other_upstream), Reason::BindingUpstream),
        (of("bouncer", "root", "kv2:secret/bouncer").aad("bouncer=payments-west"), Reason::BindingBouncer),
        (of("env", "root", "kv2:secret/env").aad("bouncer=payments-east,env=staging"), Reason::BindingEnv),
        (of("caller", "root", "kv2:secret/caller").aad(&format!("{AAD},caller={CART}")), Reason::BindingCaller),
        (of("generation", "root", "kv2:secret/g").aad(&format!("{AAD},generation=2")), Reason::BindingGeneration),
        // The same secret by another engine would come without its metadata.
        (unwritten("engine", "kv1:secret/data/good"), Reason::KeyNotAllowed),
        (unwritten("mount", "kv2:elsewhere/good"), Reason::KeyNotAllowed),
        (of("role", "root", "pki:pki/admin"), Reason::KeyNotAllowed),
        // In the rails, but not on this cluster.
        (of("cluster", TEAM, "kv2:secret/team"), Reason::KeyNotAllowed),
    ];
    let mut builder = Stack::builder("vault-binding").vault(Login::JwtByProxy).resolver(|setup| {
        let own = |mount: &str| {
            toml::Table::from_iter([("namespace", "root"), ("mount", mount)].map(|(k, v)| (k.to_owned(), v.into())))
        };
        let clusters = setup.config["rails"]["cluster"].as_array_mut();
        clusters.into_iter().flatten().filter_map(toml::Value::as_table_mut).for_each(|cluster| {
            cluster.insert("vault_mounts".into(), ["secret", "pki"].map(own).to_vec().into());
        });
    });
    for (credential, _) in &cases {
        builder = builder.credential(credential.clone());
    }
    let stack = builder.credential(of("good", "root", "kv2:secret/good")).start().await?;
    for (credential, reason) in &cases {
        let name = credential.resource.as_str();
        let reply = stack.client(&caller(name), Protocol::Http1)?.get("/").await?;
        assert_eq!(reply.reason(), Some(reason.code()), "{name}");
    }
    assert_eq!(stack.upstream("payments")?.connections(), 0);
    let proxy = stack.vault_proxy()?;
    for path in ["secret/data/good", "elsewhere", "admin", "secret/data/team"] {
        assert_eq!(proxy.count(path), 0, "{path}");
    }
    // The control: bound as it should be, on the same stack.
    assert_eq!(peer_of(&stack.client(&caller("good"), Protocol::Http1)?).await?.common_name, "good");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_secret_is_another_name_and_a_changed_binding_counts() -> Result<()> {
    let stack = Stack::builder("vault-rotation")
        .vault(Login::JwtByProxy)
        .impatient()
        .credential(of("rotating", "root", SECRET))
        .start()
        .await?;
    let client = || stack.client(&caller("rotating"), Protocol::Http1);
    let first = peer_of(&client()?).await?.serial;

    let renewed = stack.customer_ca.issue(&Leaf::new("rotating"))?.bundle();
    stack.vault()?.write_kv2("", "secret/payments/upstream-tls", &json!({"pem": renewed}), AAD).await?;
    let rotated = || async { (peer_of(&client().ok()?).await.ok()?.serial != first).then_some(()) };
    stack.until("the rotated certificate upstream", SOON, rotated).await?;
    let tags = || {
        let tags = stack.envoy().ok()?.access_log().into_iter();
        let tags: std::collections::BTreeSet<_> =
            tags.filter_map(|line| line["bouncer_tag"].as_str().map(str::to_owned)).collect();
        (tags.len() == 2).then_some(tags)
    };
    stack.until("two tags", SOON, || async { tags() }).await?;

    let moved = format!("{AAD},upstream=evil.internal:8443");
    stack.vault()?.write_kv2("", "secret/payments/upstream-tls", &json!({"pem": renewed}), &moved).await?;
    let denied =
        || async { (client().ok()?.get("/").await.ok()?.reason()? == Reason::BindingUpstream.code()).then_some(()) };
    stack.until("the denial by the changed binding", SOON, denied).await?;
    // What was granted under the earlier pairs ends with it, long before a grant would by itself.
    let ended =
        || async { (stack.resolver().ok()?.metric("bouncer_resolver_grants").await.ok()? == Some(0)).then_some(()) };
    stack.until("the end of all grants", SOON, ended).await?;
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_lived_certificate_is_issued_anew_before_its_end_and_only_by_the_rails() -> Result<()> {
    let stack = Stack::builder("vault-pki")
        .vault(Login::JwtByProxy)
        .impatient()
        .credential(of("pki", "root", "pki:pki/client"))
        .start()
        .await?;
    let role = |more: serde_json::Value| {
        let mut role = json!({
            "allowed_domains": "example.org", "allow_subdomains": true, "max_ttl": "9s", "ttl": "9s",
            "key_type": "ec", "key_bits": 256, "client_flag": true, "server_flag": false,
        });
        if let (Some(role), serde_json::Value::Object(more)) = (role.as_object_mut(), more) {
            role.extend(more);
        }
        role
    };
    let vault = stack.vault()?;
    vault.call(Method::POST, "", "pki/roles/client", &role(json!({}))).await?;
    let client = || stack.client(&caller("pki"), Protocol::Http1);
    let first = peer_of(&client()?).await?.serial;
    assert_eq!(peer_of(&client()?).await?.serial, first, "one certificate for as long as it is fresh");
    let fresh = || async { (peer_of(&client().ok()?).await.ok()?.serial != first).then_some(()) };
    stack.until("a new certificate", SOON, fresh).await?;
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);

    // Certificates for servers are not what the rails allow, and the role now issues nothing else.
    let servers = role(json!({"client_flag": false, "server_flag": true}));
    vault.call(Method::POST, "", "pki/roles/client", &servers).await?;
    let refused = || async {
        let reply = client().ok()?.get("/").await.ok()?;
        (reply.reason()? == Reason::VaultCertificateNotAllowed.code()).then_some(())
    };
    stack.until("the refused certificate", SOON, refused).await
}
