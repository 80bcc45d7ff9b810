//! Without a mouse, and for who does not see the page: skip link, focus, names, live regions, the guided set-up.

use crate::harness::{Desk, arrived};
use bouncer_tests::Result;
use bouncer_tests::browser::key;
use serde_json::json;

const FOCUSED: &str = "return document.activeElement?.innerText?.trim() || document.activeElement?.ariaLabel || document.activeElement?.id";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_can_be_done_without_a_mouse() -> Result<()> {
    let desk = Desk::signed_in("console-keyboard").await?;
    let browser = &desk.browser;
    desk.visit("flags").await?;
    assert_eq!(
        browser.script("return document.activeElement?.id", &[]).await?,
        "page-title",
        "the focus follows the page"
    );
    // The first thing that the keyboard reaches, and seen once it is reached.
    let skip = "const first = document.querySelector('a, button, input'); first.focus(); \
                return getComputedStyle(first).clipPath === 'none' && first.innerText";
    browser.until("the skip link", skip, &[]).await?;
    assert_eq!(browser.script(FOCUSED, &[]).await?, "Skip to content");
    browser.press(&[key::ENTER]).await?;
    browser.until("the content", "return document.activeElement?.id === 'main'", &[]).await?;
    browser.press(&[key::TAB]).await?;
    assert_eq!(browser.script(FOCUSED, &[]).await?, "Turn off …");

    // A dialog takes the focus, keeps it, and gives it back.
    browser.press(&[key::ENTER]).await?;
    browser
        .until("the dialog", "return document.querySelector('dialog[open]')?.contains(document.activeElement)", &[])
        .await?;
    assert_eq!(browser.script(FOCUSED, &[]).await?, "Cancel", "not on what cuts traffic");
    for _ in 0..6 {
        browser.press(&[key::TAB]).await?;
        let inside = "const at = document.activeElement; return at === document.body || document.querySelector('dialog').contains(at)";
        assert_eq!(browser.script(inside, &[]).await?, true);
    }
    browser.press(&[key::ESCAPE]).await?;
    browser.until("the focus is back", "return document.activeElement?.innerText === 'Turn off …'", &[]).await?;

    // The outcome is said, not only shown.
    browser.press(&[key::ENTER]).await?;
    browser.until("the dialog", "return document.querySelector('dialog[open]') !== null", &[]).await?;
    browser.press(&[key::TAB, key::ENTER]).await?;
    browser.until("said", "return document.getElementById('announcer').innerText.includes('is off')", &[]).await?;

    // The menu leads on, and the title and the focus follow.
    browser
        .script("[...document.querySelectorAll('nav a')].find((link) => link.innerText === 'Bouncers').focus()", &[])
        .await?;
    browser.press(&[key::ENTER]).await?;
    arrived(browser, "Bouncers").await?;
    assert_eq!(
        browser.script("return [document.title, document.activeElement.id]", &[]).await?,
        json!(["Bouncers · Bouncer", "page-title"])
    );
    assert_eq!(
        browser.script("return document.querySelector('nav [aria-current=page]').innerText", &[]).await?,
        "Bouncers"
    );
    browser.script("history.back()", &[]).await?;
    arrived(browser, "Feature flags").await?;

    // Every control has a name, on every page.
    for page in ["overview", "setup", "bouncers/new", "resources", "audit", "secrets"] {
        desk.visit(page).await?;
        let nameless = "return [...document.querySelectorAll('button, a[href], input, select, textarea')].filter((one) => \
                        one.checkVisibility() && !(one.innerText?.trim() || one.ariaLabel || one.labels?.length)).map((one) => one.outerHTML)";
        assert_eq!(browser.script(nameless, &[]).await?, json!([]), "{page}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chosen_colours_hold_and_the_system_decides_until_then() -> Result<()> {
    let desk = Desk::signed_in("console-theme").await?;
    let browser = &desk.browser;
    let background = "return getComputedStyle(document.body).backgroundColor";
    browser.prefer("light").await?;
    let light = browser.script(background, &[]).await?;
    browser.prefer("dark").await?;
    let dark = browser.script(background, &[]).await?;
    assert_ne!(light, dark);
    browser.click(".theme button[aria-label=Light]", "").await?;
    assert_eq!(browser.script(background, &[]).await?, light);
    desk.visit("overview").await?;
    assert_eq!(browser.script(background, &[]).await?, light, "after a reload");
    browser.click(".theme button[aria-label='As the system']", "").await?;
    assert_eq!(browser.script(background, &[]).await?, dark);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guided_setup_gives_lines_for_this_control_plane_and_follows_what_was_done() -> Result<()> {
    let desk = Desk::new("console-setup").await?;
    let (browser, api) = (&desk.browser, desk.api()?);
    api.set_flag(false).await?;
    crate::harness::sign_in(browser, &desk.plane).await?;
    desk.visit("setup").await?;
    browser.sees("0 of 4 steps done").await?;
    let lines = "return [...document.querySelectorAll('.commands code')].map((one) => one.textContent)";
    let lines = browser.script(lines, &[]).await?;
    let lines: Vec<&str> = lines.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
    assert!(lines.len() >= 10, "{lines:?}");
    for line in &lines {
        assert!(line.contains(&desk.plane.url()), "{line}");
        assert!(!line.contains("bnc_"), "{line}");
        assert_eq!(line.contains("curl"), line.contains("Bearer $TOKEN"), "{line}");
    }

    // What is copied is what a shell takes, and does what the page says.
    let permissions = json!({"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]});
    browser.devtools("Browser.grantPermissions", permissions).await?;
    browser.click("button[aria-label='Copy Turn on the feature flag, curl']", "").await?;
    browser.sees("Copied").await?;
    browser.script("const field = document.createElement('textarea'); field.id = 'paste'; document.body.append(field); field.focus()", &[]).await?;
    browser.press(&[key::CONTROL, "v"]).await?;
    let copied = browser.until("the clipboard", "return document.getElementById('paste').value", &[]).await?;
    let copied = copied.as_str().unwrap_or_default().to_owned();
    let mut shell = tokio::process::Command::new("sh");
    shell.arg("-c").arg(&copied).env("TOKEN", desk.plane.token()).kill_on_drop(true);
    let output = shell.output().await?;
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"enabled\":true"), "{copied}\n{output:?}");
    browser.sees("The feature flag is on.").await?;

    // One's own names go into the lines, quoted for a shell.
    browser.click("summary", "Put your own names into the lines").await?;
    browser.fill("bouncer", "it's mine").await?;
    browser.click("main button[type=submit]", "Put into the lines").await?;
    browser
        .until(
            "the name, quoted",
            "return document.querySelector('.steps').textContent.includes(\"bouncers add 'it'\\\\''s mine'\")",
            &[],
        )
        .await?;
    Ok(())
}
