//! Each page in both themes and at a phone's width: nothing for axe-core to find, nothing in the browser's log, nothing that
//! sticks out. The pictures stay in `target/screenshots`.

use crate::harness::{envelope, sign_in, visit};
use bouncer_tests::Result;
use bouncer_tests::browser::Browser;
use bouncer_tests::control_plane::ControlPlane;
use bouncer_tests::intercept::{Decider, question};
use bouncer_tests::stack::{BOUNCER, CART, Credential, STRANGER, Stack};
use bouncer_tests::tools;
use serde_json::json;

const SIZES: [(&str, &str, u32, u32); 4] = [
    ("light", "light", 1280, 900),
    ("dark", "dark", 1280, 900),
    ("phone", "light", 390, 844),
    ("phone-dark", "dark", 390, 844),
];

/// Looks at the page that is shown, in every theme and size.
pub(crate) async fn look(browser: &Browser, name: &str) -> Result<Vec<String>> {
    let mut found = vec![];
    for (suffix, theme, width, height) in SIZES {
        browser.prefer(theme).await?;
        browser.resize(width, height).await?;
        let file = tools::root().join("target/screenshots").join(format!("{name}.{suffix}.png"));
        browser.screenshot(&file).await?;
        found.extend(browser.axe().await?.into_iter().map(|one| format!("{name} {suffix}: {one}")));
        let wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
        if browser.script(wide, &[]).await? == true {
            found.push(format!("{name} {suffix}: the page is wider than the window"));
        }
    }
    Ok(found)
}

async fn furnished() -> Result<Stack> {
    let stack = Stack::builder("console-pages")
        .without_envoy()
        .credential(Credential::new("payments-api", "payments"))
        .credential(Credential {
            enabled: false,
            ..Credential::new("ledger", "payments").callers(&["spiffe://example.org/ns/ledger/*"])
        })
        .start()
        .await?;
    let api = stack.api()?;
    api.put(
        "/v1/crypto/settings",
        &json!({"provider": "kms_envelope", "kms_key_arn": stack.key_arn, "notes": "Production"}),
    )
    .await?
    .success()?;
    api.register_bouncer("payments-west", "spiffe://example.org/bouncer/payments-west").await?;
    let role =
        json!({"name": "payments-north", "iam_role_arn": "arn:aws:iam::123456789012:role/bouncer-payments-north"});
    api.post("/v1/bouncers", &role).await?.success()?;
    let mut doubtful = envelope("saas/crm/api-token");
    doubtful["ciphertext_ref"] = json!("AQICAHh...opaque-envelope-blob...");
    api.register_envelope(&doubtful).await?;
    api.register_envelope(&envelope("saas/crm/api-token")).await?;
    let mut decider = Decider::at(&stack.resolver()?.setup().intercept_socket).await?;
    decider.decide(CART).await?;
    decider.ask(question(STRANGER)).await?;
    stack.audited("the denial", |event| event["outcome"] == "deny").await?;
    Ok(stack)
}

async fn every_page(browser: &Browser, plane: &ControlPlane, stack: &Stack) -> Result<Vec<String>> {
    let secret = &stack.envelopes["payments-api"];
    let crm = stack.api()?.get("/v1/crypto/envelope-secrets").await?.success()?;
    let crm = crm["items"].as_array().into_iter().flatten().find(|item| item["logical_path"] == "saas/crm/api-token");
    let crm = crm.and_then(|item| item["id"].as_str()).unwrap_or_default().to_owned();
    let pages = [
        ("overview", "overview".to_owned()),
        ("setup", "setup".to_owned()),
        ("bouncers", "bouncers".to_owned()),
        ("bouncer", format!("bouncers/{BOUNCER}")),
        ("bouncer-role", "bouncers/payments-north".to_owned()),
        ("bouncer-new", "bouncers/new".to_owned()),
        ("resources", "resources".to_owned()),
        ("resource", "resources/payments-api".to_owned()),
        ("resource-new", "resources/new".to_owned()),
        ("resource-change", "resources/ledger/edit".to_owned()),
        ("secrets", "secrets".to_owned()),
        ("secret", format!("secrets/{secret}")),
        ("secret-generations", format!("secrets/{crm}")),
        ("secret-new", "secrets/new".to_owned()),
        ("audit", "audit".to_owned()),
        ("audit-nothing", "audit?reason=none_such".to_owned()),
        ("changes", "changes".to_owned()),
        ("flags", "flags".to_owned()),
        ("provider", "provider".to_owned()),
        ("proposals", "proposals".to_owned()),
        ("tokens", "tokens".to_owned()),
        ("token-new", "tokens/new".to_owned()),
        ("not-found", "bouncers/none-such".to_owned()),
    ];
    let mut found = vec![];
    for (name, page) in pages {
        visit(browser, plane, &page).await?;
        if ["overview", "audit"].contains(&name) {
            browser.until("the plot", "return document.querySelector('.plot') !== null", &[]).await?;
        }
        found.extend(look(browser, name).await?);
        // A call that is refused stands in the browser's log by itself; nothing else may.
        let refused = name == "not-found";
        let complaints = browser.complaints().await?.into_iter().filter(|one| !(refused && one.contains("404")));
        found.extend(complaints.map(|one| format!("{name}: {one}")));
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_in_every_theme_and_size_is_without_violation_and_complaint() -> Result<()> {
    let stack = furnished().await?;
    let browser = Browser::start(&stack.scratch).await?;
    let plane = stack.control_plane()?;
    browser.open(&format!("{}/", plane.url())).await?;
    browser.sees("Sign in to the control plane").await?;
    let mut found = look(&browser, "sign-in").await?;
    browser.resize(1280, 900).await?;
    sign_in(&browser, plane).await?;
    // Nobody was signed in before, which the log says too.
    browser.complaints().await?;
    found.extend(every_page(&browser, plane, &stack).await?);

    // What comes up over a page.
    browser.resize(1280, 900).await?;
    visit(&browser, plane, "flags").await?;
    browser.click("button", "Turn off …").await?;
    browser.sees("Every bouncer denies every protected stream").await?;
    found.extend(look(&browser, "dialog").await?);
    browser.resize(1280, 900).await?;
    visit(&browser, plane, "bouncers/new").await?;
    browser.click("label", "IAM role").await?;
    browser.fill("iam_role_arn", "arn:aws:iam::123456789012:role/team/bouncer-payments-south").await?;
    browser.click("main button[type=submit]", "Register").await?;
    browser.sees("something is missing").await?;
    found.extend(look(&browser, "bouncer-new-role").await?);
    visit(&browser, plane, "secrets/new").await?;
    browser.resize(1280, 900).await?;
    browser.paste("ciphertext_ref", concat!("AKIA", "IOSFODNN7EXAMPLE")).await?;
    browser.sees("so it is refused here").await?;
    browser.click("main button[type=submit]", "Register").await?;
    browser.sees("something is missing").await?;
    found.extend(look(&browser, "refused").await?);
    browser.resize(390, 844).await?;
    visit(&browser, plane, "overview").await?;
    browser.click("button", "Menu").await?;
    browser.sees("Administrative changes").await?;
    found.extend(browser.axe().await?);
    browser.screenshot(&tools::root().join("target/screenshots/menu.phone.png")).await?;
    assert!(found.is_empty(), "{}", found.join("\n"));

    // The control: the same look finds what is planted.
    browser.script(
        "const main = document.querySelector('main'); const image = document.createElement('img'); image.src = '/console/assets/icon.svg'; \
         main.append(image, document.createElement('button'));",
        &[],
    ).await?;
    let planted = browser.axe().await?.join("\n");
    assert!(planted.contains("image-alt") && planted.contains("button-name"), "{planted}");
    Ok(())
}
