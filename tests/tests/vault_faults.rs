//! Vault says no, or says nothing: a reason that names which, no login too many, no token in foreign hands, and never a
//! stream without its credential.

use bouncer_custody::Reason;
use bouncer_tests::Result;
use bouncer_tests::client::Protocol;
use bouncer_tests::scratch::free_port;
use bouncer_tests::stack::{Credential, Login, Stack, caller};
use bouncer_tests::vault_proxy::{Behaviour, VaultProxy};
use std::collections::BTreeSet;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(15);

fn of(name: &str, reference: &str) -> Credential {
    Credential::new(name, "payments").callers(&[&caller(name)]).in_vault("root", reference)
}

/// The end of one request: `None` for success, else the reason.
async fn end(stack: &Stack, name: &str) -> Result<Option<String>> {
    let reply = stack.client(&caller(name), Protocol::Http1)?.get("/").await?;
    assert!(reply.reason().is_some() || reply.status == 200, "{name}: {}", reply.status);
    Ok(reply.reason().map(str::to_owned))
}

async fn ends(stack: &Stack, name: &str, reason: Option<Reason>) -> Result<()> {
    let expected = reason.map(|reason| reason.code().to_owned());
    let ended = || async { (end(stack, name).await.ok()? == expected).then_some(()) };
    stack.until(format!("{name} ends with {reason:?}"), SOON, ended).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_no_is_named_and_costs_one_login_at_most() -> Result<()> {
    let mut missing = of("missing", "kv2:secret/missing");
    missing.written = false;
    let mut tampered = of("aad", "transit:transit/bouncer");
    tampered.registered_aad = Some(format!("{},x=y", bouncer_tests::stack::AAD));
    let stack = Stack::builder("vault-no")
        .vault(Login::JwtByProxy)
        .credential(missing)
        .credential(tampered)
        .credential(of("denied", "kv2:secret/denied"))
        .start()
        .await?;
    let deny = r#"path "secret/data/missing" { capabilities = ["read"] }
        path "transit/decrypt/*" { capabilities = ["update"] }"#;
    stack.vault()?.set_policy(deny).await?;
    let proxy = stack.vault_proxy()?;
    let cases = [
        ("missing", "secret/data/missing", Reason::VaultNotFound, 1),
        ("aad", "transit/decrypt/bouncer", Reason::VaultInvalidCiphertext, 1),
        // Asked again with a new token, once, unless the first was made for it.
        ("denied", "secret/data/denied", Reason::VaultDenied, 2),
    ];
    for (name, path, reason, calls) in cases {
        let logins = proxy.count("login");
        for _ in 0..5 {
            assert_eq!(end(&stack, name).await?.as_deref(), Some(reason.code()), "{name}");
        }
        assert!((1..=calls).contains(&proxy.count(path)), "{name}: {}", proxy.count(path));
        assert!(proxy.count("login") <= logins + 1, "{name}");
    }
    assert_eq!(stack.upstream("payments")?.connections(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_costs_one_login_and_no_stream() -> Result<()> {
    let stack = Stack::builder("vault-revoked")
        .vault(Login::JwtByProxy)
        .impatient()
        .credential(of("steady", "kv2:secret/steady"))
        .start()
        .await?;
    ends(&stack, "steady", None).await?;
    let proxy = stack.vault_proxy()?;
    let tokens = || -> BTreeSet<String> { proxy.calls().into_iter().filter_map(|call| call.token).collect() };
    let before = tokens();
    proxy.reset();
    stack.vault()?.revoke_tokens("jwt").await?;
    let read_anew = || async {
        assert_eq!(end(&stack, "steady").await.ok()?, None);
        (tokens().difference(&before).count() > 0 && proxy.count("secret/data/steady") >= 3).then_some(())
    };
    stack.until("reads with a new token", SOON, read_anew).await?;
    assert_eq!(proxy.count("login"), 1);
    // The control, by which a denial that stays would show: the policy that is taken away evicts the credential.
    stack.vault()?.set_policy("path \"sys/none\" { capabilities = [\"read\"] }").await?;
    ends(&stack, "steady", Some(Reason::VaultDenied)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sealed_vault_is_bridged_by_the_cache_until_the_cap() -> Result<()> {
    let stack = Stack::builder("vault-sealed")
        .vault(Login::JwtByProxy)
        .impatient()
        .resolver(|setup| setup.set("limits.hard_cap_s", 8))
        .credential(of("warm", "kv2:secret/warm"))
        .credential(of("cold", "kv2:secret/cold"))
        .start()
        .await?;
    ends(&stack, "warm", None).await?;
    stack.vault()?.seal().await?;
    let proxy = stack.vault_proxy()?;
    proxy.reset();
    let rechecked = || async {
        assert_eq!(end(&stack, "warm").await.ok()?, None, "served from the cache");
        (proxy.count("secret/data/warm") >= 1).then_some(())
    };
    stack.until("a recheck of the sealed Vault", SOON, rechecked).await?;
    ends(&stack, "warm", None).await?;
    ends(&stack, "cold", Some(Reason::VaultSealed)).await?;
    // The control: what bridges is bounded.
    ends(&stack, "warm", Some(Reason::VaultSealed)).await?;
    stack.vault()?.unseal().await?;
    ends(&stack, "warm", None).await?;
    ends(&stack, "cold", None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_takes_over_and_a_standby_is_no_verdict() -> Result<()> {
    let dead = format!("http://127.0.0.1:{}", free_port()?);
    let statuses = [429, 472, 473, 500, 503];
    let mut builder = Stack::builder("vault-standby").vault(Login::JwtByProxy).resolver(move |setup| {
        let live = setup.config["vault"]["addresses"][0].clone();
        setup.set("vault.addresses", vec![toml::Value::from(dead), live]);
    });
    for status in statuses {
        builder = builder.credential(of(&format!("s{status}"), &format!("kv2:secret/s{status}")));
    }
    let stack = builder.credential(of("plain", "kv2:secret/plain")).start().await?;
    assert_eq!(end(&stack, "plain").await?, None);
    for status in statuses {
        let name = format!("s{status}");
        stack.vault_proxy()?.behave(Behaviour::Fail(status));
        assert_eq!(end(&stack, &name).await?.as_deref(), Some(Reason::VaultUnavailable.code()), "{status}");
        stack.vault_proxy()?.behave(Behaviour::Forward);
        ends(&stack, &name, None).await?;
    }
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_redirect_is_followed_with_a_token() -> Result<()> {
    let stack = Stack::builder("vault-redirect")
        .vault(Login::JwtByProxy)
        .credential(of("lured", "kv2:secret/lured"))
        .start()
        .await?;
    let stranger = VaultProxy::stranger().await?;
    let proxy = stack.vault_proxy()?;
    proxy.behave(Behaviour::Redirect(stranger.endpoint()));
    assert_eq!(end(&stack, "lured").await?.as_deref(), Some(Reason::VaultUnavailable.code()));
    assert!(proxy.count("secret/data/lured") >= 1, "the redirect was never offered");
    assert!(stranger.calls().is_empty(), "{:?}", stranger.calls());

    // The control: a client that follows redirects, as most do, hands the token over.
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("{}/v1/secret/data/lured", proxy.endpoint());
    client.get(url).header("x-vault-token", "planted").send().await?;
    assert_eq!(stranger.calls().first().and_then(|call| call.token.clone()).as_deref(), Some("planted"));

    proxy.behave(Behaviour::Forward);
    ends(&stack, "lured", None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_before_its_end_and_replaced_at_its_last() -> Result<()> {
    let stack = Stack::builder("vault-renewal")
        .vault(Login::JwtByProxy)
        .impatient()
        .credential(of("steady", "kv2:secret/steady"))
        .start()
        .await?;
    let role = serde_json::json!({
        "role_type": "jwt", "bound_audiences": [bouncer_tests::openbao::AUDIENCE], "user_claim": "sub",
        "bound_subject": bouncer_tests::stack::BOUNCER_ID, "token_policies": ["bouncer"], "token_ttl": "3s",
        "token_max_ttl": "9s",
    });
    let vault = stack.vault()?;
    vault.call(reqwest::Method::POST, "", "auth/jwt/role/bouncer", &role).await?;
    vault.revoke_tokens("jwt").await?;
    let proxy = stack.vault_proxy()?;
    proxy.reset();
    let steady = || async {
        // No request may ever show that a token ended.
        assert_eq!(end(&stack, "steady").await.ok()?, None);
        (proxy.count("renew-self") >= 2 && proxy.count("login") >= 2).then_some(())
    };
    stack.until("renewals, and a login after the last", Duration::from_secs(40), steady).await?;
    // A 403 would have cost a login of its own.
    assert!(proxy.count("login") <= 4, "{}", proxy.count("login"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_resolver_serves_what_it_granted_if_vault_still_has_it() -> Result<()> {
    let mut stack = Stack::builder("vault-restart")
        .vault(Login::JwtByProxy)
        .credential(of("kept", "kv2:secret/kept"))
        .start()
        .await?;
    ends(&stack, "kept", None).await?;
    stack.restart_resolver_until_ready().await?;
    for _ in 0..20 {
        assert_eq!(end(&stack, "kept").await?, None);
    }
    let tags = || -> BTreeSet<String> {
        let lines = stack.envoy().map(bouncer_tests::envoy::Envoy::access_log).unwrap_or_default();
        lines.iter().filter_map(|line| line["bouncer_tag"].as_str().map(str::to_owned)).collect()
    };
    stack.until("the access log", SOON, || async { (!tags().is_empty()).then_some(()) }).await?;
    assert_eq!(tags().len(), 1, "the same version is the same name, before and after: {:?}", tags());
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}
