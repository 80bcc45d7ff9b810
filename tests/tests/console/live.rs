//! With a real resolver: what it reports is seen as it changes, and its decisions as they arrive.

use crate::harness::{arrived, sign_in, visit};
use bouncer_tests::Result;
use bouncer_tests::intercept::{Decider, question};
use bouncer_tests::stack::{BOUNCER, CART, STRANGER, Stack};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_decisions_are_seen_as_they_happen() -> Result<()> {
    let mut stack = Stack::builder("console-live").without_envoy().start().await?;
    let browser = bouncer_tests::browser::Browser::start(&stack.scratch).await?;
    let socket = stack.resolver()?.setup().intercept_socket.clone();
    let mut decider = Decider::at(&socket).await?;
    {
        let plane = stack.control_plane()?;
        sign_in(&browser, plane).await?;
        browser.sees("Development mode — not for production.").await?;
        browser.sees("payments-east runs with --dev").await?;

        visit(&browser, plane, "bouncers").await?;
        browser.until(
            "the bouncer, healthy and in sync",
            "const row = document.querySelector(`[data-bouncer=\"${arguments[0]}\"]`)?.innerText ?? ''; return row.includes('Healthy') && row.includes('in sync')",
            &[BOUNCER.into()],
        ).await?;
        browser.sees(env!("CARGO_PKG_VERSION")).await?;

        // The tail is live: an event appears without anybody touching the page.
        visit(&browser, plane, "audit").await?;
        browser.sees("No decision was audited yet").await?;
        decider.decide(CART).await?;
        browser
            .until("the release", "return document.querySelector('.table tbody')?.innerText.includes('Released')", &[])
            .await?;
        decider.ask(question(STRANGER)).await?;
        browser
            .until(
                "the denial",
                "return /Denied[^]*caller_not_allowed/.test(document.querySelector('.table tbody')?.innerText)",
                &[],
            )
            .await?;
        browser
            .until(
                "the plot",
                "return document.querySelector('.plot figcaption')?.innerText.includes('Denied: 1')",
                &[],
            )
            .await?;
        browser.click("button", "Live").await?;
        browser.sees("Paused").await?;
        visit(&browser, plane, "audit?outcome=deny").await?;
        browser.until("only denials", "const rows = [...document.querySelectorAll('.table tbody tr')]; return rows.length === 1 && rows[0].innerText.includes('Denied')", &[]).await?;
        // What is drawn above the table moves it.
        browser.until("the plot", "return document.querySelector('.plot') !== null", &[]).await?;
        browser.click(".table tbody summary", "All fields").await?;
        browser.sees("Authority, as the client sent it").await?;

        // Export: what the filter leaves.
        let folder = stack.scratch.folder("downloads")?;
        let downloads = json!({"behavior": "allow", "downloadPath": folder});
        browser.devtools("Browser.setDownloadBehavior", downloads).await?;
        browser.click("button", "CSV").await?;
        let exported = stack.until("the export", Duration::from_secs(30), || async {
            let files = std::fs::read_dir(&folder).ok()?.flatten().map(|entry| entry.path());
            let done = files.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "csv"))?;
            std::fs::read_to_string(done).ok().filter(|text| text.lines().count() == 2)
        });
        let exported = exported.await?;
        assert!(exported.starts_with("id,bouncer,sequence,time,"), "{exported}");
        assert!(exported.contains("deny") && exported.contains(STRANGER) && !exported.contains("inject"), "{exported}");

        // What is in effect, beside what is saved.
        visit(&browser, plane, "overview").await?;
        browser.until("the credential in effect", "return document.querySelector('[aria-labelledby=effective-title]')?.innerText.includes('generation 1')", &[]).await?;
        visit(&browser, plane, &format!("bouncers/{BOUNCER}")).await?;
        browser.sees("agrees with the control plane's").await?;
    }
    stack.kill_resolver();
    browser.sees("No resolver of 'payments-east' is connected.").await?;
    browser.sees("goes on with its last policy").await?;

    // A control plane that is gone is said to be, and found again.
    visit(&browser, stack.control_plane()?, "overview").await?;
    let (setup, token) = stack.kill_control_plane()?;
    browser.sees("The control plane does not answer").await?;
    let again = bouncer_tests::control_plane::ControlPlane::serve(&stack.scratch, setup, token).await?;
    browser.until("it is found again", "return !document.body.innerText.includes('does not answer')", &[]).await?;
    arrived(&browser, "Overview").await?;
    drop(again);
    Ok(())
}
