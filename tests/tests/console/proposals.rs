//! Changes of binding that wait for a second person: one proposes, another approves.

use crate::harness::{Desk, arrived, sign_in, sign_in_here, token_of};
use bouncer_tests::browser::Browser;
use bouncer_tests::{Result, tools};
use serde_json::json;

const ID: &str = "spiffe://example.org/bouncer/payments-east";
const CARD: &str = "main li[data-proposal] button";

/// In every theme, at a desk's and at a phone's width.
async fn look(browser: &Browser, name: &str) -> Result<()> {
    for (size, width, height) in [("desk", 1280, 900), ("phone", 390, 844)] {
        for theme in ["light", "dark"] {
            browser.resize(width, height).await?;
            browser.prefer(theme).await?;
            assert_eq!(browser.axe().await?, Vec::<String>::new(), "{name}, {size}, {theme}");
            let wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
            assert_eq!(browser.script(wide, &[]).await?, false, "{name}, {size}: nothing hangs over");
            let file = tools::root().join(format!("target/screenshots/{name}.{size}.{theme}.png"));
            std::fs::create_dir_all(tools::root().join("target/screenshots"))?;
            browser.screenshot(&file).await?;
        }
    }
    browser.resize(1280, 900).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_proposes_and_another_approves() -> Result<()> {
    let desk = Desk::asking_for_a_second_person("console-proposals").await?;
    let (browser, api) = (&desk.browser, desk.api()?);
    let (_, alice) = token_of(&api, "admin").await?;
    let (_, bob) = token_of(&api, "operator").await?;

    browser.open(&format!("{}/console/bouncers/new", desk.plane.url())).await?;
    sign_in_here(browser, &alice).await?;
    arrived(browser, "Register a bouncer").await?;
    browser.fill("name", "payments-east").await?;
    browser.fill("spiffe_id", ID).await?;
    browser.click("main button[type=submit]", "Register").await?;
    browser.sees("The change waits for a second person").await?;
    assert_eq!(api.get("/v1/bouncers").await?.success()?["items"].as_array().map(Vec::len), Some(0), "it is not made");
    desk.visit("proposals").await?;
    browser.sees("Yours: somebody else decides.").await?;
    browser.sees("waiting for a second person").await?;
    let offered = format!("return [...document.querySelectorAll('{CARD}')].map((button) => button.innerText).join()");
    assert_eq!(browser.script(&offered, &[]).await?, "Take back", "nobody approves their own");
    look(browser, "proposals-mine").await?;
    browser.click("button", "Sign out").await?;

    browser.sees("Sign in to the control plane").await?;
    sign_in_here(browser, &bob).await?;
    arrived(browser, "Proposals").await?;
    browser.sees(ID).await?;
    assert_eq!(browser.script(&offered, &[]).await?, "Approve,Reject");
    look(browser, "proposals").await?;
    browser.click(CARD, "Approve").await?;
    browser.sees("It is made at once").await?;
    browser.click("dialog button[type=submit]", "Approve").await?;
    browser.sees("Nothing waits").await?;
    browser.sees("Approved, and made").await?;
    let made = api.get("/v1/bouncers").await?.success()?;
    assert_eq!(
        (&made["items"][0]["spiffe_id"], &made["items"][0]["created_by"]),
        (&ID.into(), &"token:admin-of-the-test".into())
    );
    let badge = "return document.querySelector('#nav .badge') === null";
    browser.until("no badge", badge, &[]).await?;
    look(browser, "proposals-decided").await?;
    let complaints = browser.complaints().await?;
    let others: Vec<_> = complaints.iter().filter(|one| !one.contains("401")).collect();
    assert!(others.is_empty(), "{others:?}");
    Ok(())
}

/// What the frame asks for, with each page that is loaded: all of it at once.
async fn asked_by_the_frame(desk: &Desk) -> Result<String> {
    let source = "window.asked = []; const real = window.fetch; \
                  window.fetch = (path, ...rest) => { window.asked.push(path.split('?')[0]); return real(path, ...rest); }";
    desk.browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({"source": source})).await?;
    desk.visit("bouncers").await?;
    let asked = "return window.asked.includes('/v1/policy-bridge/health') && window.asked.join(' ')";
    Ok(desk.browser.until("the frame", asked, &[]).await?.as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_second_person_nobody_asks_what_waits() -> Result<()> {
    let desk = Desk::signed_in("console-alone").await?;
    let asked = asked_by_the_frame(&desk).await?;
    assert!(asked.contains("/v1/feature-flags") && !asked.contains("/v1/proposals"), "{asked}");

    // The control.
    let desk = Desk::asking_for_a_second_person("console-together").await?;
    sign_in(&desk.browser, &desk.plane).await?;
    let asked = asked_by_the_frame(&desk).await?;
    assert!(asked.contains("/v1/proposals"), "{asked}");
    Ok(())
}
