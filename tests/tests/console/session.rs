//! Signing in and out, what a role sees, and the way back after a session has ended.

use crate::harness::{Desk, arrived, sign_in_here, token_of, with_bouncer};
use bouncer_tests::Result;
use bouncer_tests::api::Api;
use http::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_signs_in_where_one_wanted_to_go_and_again_when_the_session_has_ended() -> Result<()> {
    let desk = Desk::new("console-session").await?;
    let (browser, api) = (&desk.browser, desk.api()?);
    let deep = format!("{}/console/audit?outcome=deny", desk.plane.url());
    browser.open(&deep).await?;
    browser.sees("Sign in to the control plane").await?;

    sign_in_here(browser, &format!("bnc_{}", "A".repeat(43))).await?;
    browser.sees("This token is not known here").await?;
    browser.click("button[type=submit]", "Sign in").await?;
    let (id, token) = token_of(&api, "operator").await?;
    sign_in_here(browser, &token).await?;
    arrived(browser, "Decisions").await?;
    assert_eq!(browser.address().await?, deep);
    let kept = "return JSON.stringify([Object.entries(localStorage), Object.entries(sessionStorage), document.cookie])";
    let kept = browser.script(kept, &[]).await?.to_string();
    assert!(!kept.contains("bnc_") && !kept.contains("session"), "{kept}");

    // Its token is revoked, so the session ends with the next look at the audit.
    assert_eq!(api.call(Method::DELETE, &format!("/v1/tokens/{id}"), None).await?.status, 204);
    browser.sees("Your session has ended").await?;
    let (_, token) = token_of(&api, "admin").await?;
    sign_in_here(browser, &token).await?;
    arrived(browser, "Decisions").await?;
    assert_eq!(browser.address().await?, deep);

    // By an identity provider one comes back to the front door, and is led on to where one was.
    let (here, front) = ("audit?outcome=deny", format!("{}/console/", desk.plane.url()));
    browser.script("sessionStorage.setItem('bouncer.return', arguments[0])", &[here.into()]).await?;
    browser.open(&front).await?;
    arrived(browser, "Decisions").await?;
    assert_eq!(browser.address().await?, deep);

    browser.click("button", "Sign out").await?;
    browser.sees("Sign in to the control plane").await?;
    browser.open(&deep).await?;
    browser.sees("Sign in to the control plane").await?;
    // Who comes back without being signed in leaves nothing behind, and is led on after signing in otherwise.
    browser.script("sessionStorage.setItem('bouncer.return', arguments[0])", &[here.into()]).await?;
    browser.open(&format!("{front}?error=no_role")).await?;
    browser.sees("none of your groups stands for a role here").await?;
    assert_eq!(browser.script("return sessionStorage.length", &[]).await?, 0);
    sign_in_here(browser, desk.plane.token()).await?;
    arrived(browser, "Decisions").await?;
    assert_eq!(browser.address().await?, deep);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_names_nothing_says_so() -> Result<()> {
    let desk = Desk::signed_in("console-addresses").await?;
    for address in ["bouncers/%zz", "none-such", "toString"] {
        desk.visit(address).await?;
        desk.browser.sees("The console has nothing at this address.").await?;
    }
    let said = desk.browser.complaints().await?;
    let others: Vec<_> = said.iter().filter(|one| !one.contains("401") && !one.contains("404")).collect();
    assert!(others.is_empty(), "{others:?}");
    desk.browser.click("main a", "Go to the overview").await?;
    arrived(&desk.browser, "Overview").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_is_offered_nothing_that_is_refused_and_sees_the_refusal_all_the_same() -> Result<()> {
    let desk = Desk::new("console-viewer").await?;
    let api = with_bouncer(&desk).await?;
    let browser = &desk.browser;
    let (_, token) = token_of(&api, "viewer").await?;
    browser.open(&format!("{}/console/bouncers", desk.plane.url())).await?;
    sign_in_here(browser, &token).await?;
    arrived(browser, "Bouncers").await?;
    browser.sees("payments-east").await?;
    let text = browser.text().await?;
    assert!(!text.contains("Register a bouncer") && !text.contains("Administrative changes"), "{text}");

    desk.visit("bouncers/payments-east").await?;
    assert!(!browser.text().await?.contains("Remove"), "no way to remove");
    desk.visit("flags").await?;
    assert_eq!(browser.script("return document.querySelector('.flag button').disabled", &[]).await?, true);

    // Whoever types the address is refused by the API, and told why, what to do, and by which call.
    desk.visit("changes").await?;
    browser.sees("The role is not enough").await?;
    browser.sees("What to do:").await?;
    browser
        .until("the request's id", "return /[0-9a-f-]{36}/.test(document.querySelector('.request-id')?.innerText)", &[])
        .await?;
    desk.visit("bouncers/new").await?;
    browser.fill("name", "payments-west").await?;
    browser.fill("spiffe_id", "spiffe://example.org/bouncer/payments-west").await?;
    browser.click("main button[type=submit]", "Register").await?;
    browser.sees("The role is not enough").await?;
    let list = api.get("/v1/bouncers").await?.success()?;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "nothing was registered");
    assert_eq!(
        api.post("/v1/tokens", &json!({"name": "X", "role": "viewer"})).await?.status,
        422,
        "the control: the API answers"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_made_shown_once_and_revoked() -> Result<()> {
    let desk = Desk::signed_in("console-tokens").await?;
    let browser = &desk.browser;
    desk.visit("tokens/new").await?;
    browser.fill("name", "Deploy Pipeline").await?;
    browser.fill("expires_in_days", "soon").await?;
    browser.fill("path_prefixes", "payments/*\n../etc").await?;
    browser.click("main button[type=submit]", "Make the token").await?;
    browser.sees("Must be at most 63").await?;
    browser.sees("Must be 1 to 366.").await?;
    browser.sees("Line 2: ").await?;
    browser.fill("name", "deploy-pipeline").await?;
    browser.fill("expires_in_days", "30").await?;
    browser.fill("path_prefixes", "payments/*").await?;
    browser.click("label", "Operator").await?;
    browser.click("main button[type=submit]", "Make the token").await?;
    browser.sees("It is shown this once.").await?;
    let token = browser.script("return document.querySelector('code.token').innerText", &[]).await?;
    let token = token.as_str().unwrap_or_default().to_owned();
    let theirs = Api::new(desk.plane.url(), Some(&token))?;
    let session = theirs.get("/v1/session").await?.success()?;
    assert_eq!((&session["role"], &session["path_prefixes"]), (&json!("operator"), &json!(["payments/*"])));

    browser.click("main a", "Back to the tokens").await?;
    // Its name is on the page that is left, too.
    let listed = "return !!document.querySelector(\"button[aria-label='Revoke deploy-pipeline']\")";
    browser.until("the list, with the new token", listed, &[]).await?;
    assert!(!browser.script("return document.documentElement.outerHTML", &[]).await?.to_string().contains(&token));
    browser.click("button[aria-label='Revoke deploy-pipeline']", "").await?;
    browser.sees("It stops working at once").await?;
    browser.click("dialog button", "Revoke").await?;
    browser.sees("The token deploy-pipeline is revoked").await?;
    assert_eq!(theirs.get("/v1/session").await?.status, 401);
    // The last one of an administrator stays, and the console says why.
    browser.click("button[aria-label='Revoke admin']", "").await?;
    browser.click("dialog button", "Revoke").await?;
    browser.sees("This is the last token of an administrator").await
}
