//! Signing in by an identity provider, in the browser: by OpenBao's own pages, and back across sites.

use crate::harness::arrived;
use crate::pages::look;
use bouncer_tests::Result;
use bouncer_tests::browser::Browser;
use bouncer_tests::oidc::{PASSWORD, Site};
use serde_json::json;

/// Signs somebody in on the provider's pages, which then send the browser back.
async fn at_the_provider(browser: &Browser, person: &str) -> Result<()> {
    let choose = "const select = document.querySelector('[data-test-select=auth-method]'); select.value = 'userpass'; \
                  select.dispatchEvent(new Event('change', {bubbles: true})); return true";
    browser.until("the provider's way to sign in", choose, &[]).await?;
    browser.fill("username", person).await?;
    browser.fill("password", PASSWORD).await?;
    browser.click("#auth-submit", "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_signs_in_by_the_identity_provider_and_is_back_where_one_was() -> Result<()> {
    let site = Site::start("console-oidc").await?;
    site.person("alice", &["admins"]).await?;
    site.person("carol", &["others"]).await?;
    let browser = Browser::start(&site.scratch).await?;
    let url = site.control_plane.url();
    let deep = format!("{url}/console/audit?outcome=deny");
    browser.open(&deep).await?;
    browser.sees("Sign in with Ops").await?;
    let mut found = look(&browser, "sign-in-oidc").await?;
    browser.resize(1280, 900).await?;

    // Whom the provider knows and nobody here does: said so, and nothing stays behind.
    browser.click("a", "Sign in with Ops").await?;
    at_the_provider(&browser, "carol").await?;
    browser.sees("none of your groups stands for a role here").await?;
    assert_eq!(browser.script("return sessionStorage.length", &[]).await?, 0);
    found.extend(look(&browser, "sign-in-no-role").await?);
    browser.resize(1280, 900).await?;

    // The provider's page has a memory of its own.
    let everything = json!({"origin": site.bao.address(), "storageTypes": "all"});
    browser.devtools("Storage.clearDataForOrigin", everything).await?;
    browser.click("a", "Sign in with Ops").await?;
    at_the_provider(&browser, "alice").await?;
    arrived(&browser, "Decisions").await?;
    assert_eq!(browser.address().await?, deep);
    assert_eq!(browser.script("return sessionStorage.length", &[]).await?, 0);
    let who = "return document.querySelector('.who').innerText";
    let who = browser.script(who, &[]).await?.to_string();
    assert!(who.contains("oidc:") && who.contains("admin"), "{who}");

    // The session's cookie is no script's, and no other site's: not even for going here from there.
    let cookies = browser.devtools("Network.getAllCookies", json!({})).await?;
    let ours = cookies["cookies"].as_array().into_iter().flatten().find(|one| one["sameSite"] == "Strict");
    assert_eq!(ours.map(|one| &one["httpOnly"]), Some(&json!(true)), "{cookies}");
    browser.open(&format!("{}/ui/", site.bao.address())).await?;
    browser.script("location.href = arguments[0]", &[format!("{url}/v1/session").into()]).await?;
    browser.sees("urn:bouncer:problem:unauthenticated").await?;
    browser.open(&format!("{url}/v1/session")).await?;
    browser.sees("\"role\":\"admin\"").await?;

    // What is changed in the session is theirs.
    browser.open(&format!("{url}/console/flags")).await?;
    browser.click("button", "Turn on …").await?;
    browser.click("dialog button", "Turn on").await?;
    browser.sees("Last changed by oidc:").await?;
    browser.click("button", "Sign out").await?;
    browser.sees("Sign in with Ops").await?;
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}
