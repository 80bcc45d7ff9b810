//! Every form: what it sends, what it says where the API refuses, and what it asks before traffic is cut.

use crate::harness::{BLOB, Desk, KEY, PATH, arrived, envelope, resource, sign_in, with_bouncer};
use bouncer_tests::Result;
use bouncer_tests::api::{Api, FLAG};
use bouncer_tests::browser::{Browser, key};
use http::Method;
use serde_json::json;

/// The error beside a field: shown, and tied to it.
async fn error_at(browser: &Browser, name: &str, text: &str) -> Result<()> {
    let tied = "const field = document.querySelector(`[name=\"${arguments[0]}\"]`); \
                const ids = (field?.getAttribute('aria-describedby') ?? '').split(' '); \
                return field?.ariaInvalid === 'true' && ids.some((id) => document.getElementById(id)?.innerText.includes(arguments[1]))";
    browser.until(&format!("at {name}: {text}"), tied, &[name.into(), text.into()]).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_flag_is_turned_on_and_off_after_being_told_what_happens() -> Result<()> {
    let desk = Desk::signed_in("console-flags").await?;
    let (browser, api) = (&desk.browser, desk.api()?);
    let is_on = async || {
        Ok::<_, bouncer_tests::Fault>(api.get("/v1/feature-flags").await?.success()?["items"][0]["enabled"] == true)
    };
    desk.visit("flags").await?;
    browser.sees(FLAG).await?;
    browser.click("nav a", "Cryptographic provider").await?;
    arrived(browser, "Cryptographic provider").await?;
    browser.click("nav a", "Feature flags").await?;

    browser.click("button", "Turn off …").await?;
    browser.sees("Every bouncer denies every protected stream").await?;
    browser.press(&[key::ESCAPE]).await?;
    browser.until("no dialog", "return !document.querySelector('dialog')", &[]).await?;
    assert!(is_on().await?, "thought better of");
    browser.click("button", "Turn off …").await?;
    browser.click("dialog button", "Turn off, and deny").await?;
    browser.sees(&format!("{FLAG} is off")).await?;
    assert!(!is_on().await?);
    browser
        .until(
            "no provider in the menu",
            "return !document.querySelector('nav').innerText.includes('Cryptographic provider')",
            &[],
        )
        .await?;

    // What needs the flag says so, and where it is.
    for page in ["provider", "secrets", "secrets/new"] {
        desk.visit(page).await?;
        browser.sees("The feature flag is off").await?;
    }
    browser.click("main a", "Open feature flags").await?;
    browser.click("button", "Turn on …").await?;
    browser.click("dialog button", "Turn on").await?;
    browser.sees(&format!("{FLAG} is on")).await?;
    browser
        .until(
            "the provider in the menu",
            "return document.querySelector('nav').innerText.includes('Cryptographic provider')",
            &[],
        )
        .await?;
    assert!(is_on().await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_provider_is_chosen_and_who_changed_it_meanwhile_is_named() -> Result<()> {
    let desk = Desk::signed_in("console-provider").await?;
    let (browser, api) = (&desk.browser, desk.api()?);
    desk.visit("provider").await?;
    browser.sees("No provider is chosen yet").await?;
    browser.click("main button[type=submit]", "Save").await?;
    error_at(browser, "kms_key_arn", "This is needed.").await?;
    browser.fill("kms_key_arn", "arn:aws:kms:ca-central-1:123456789012:alias/payments").await?;
    browser.click("main button[type=submit]", "Save").await?;
    browser.sees("Fields are not valid. Nothing was changed.").await?;
    error_at(browser, "kms_key_arn", "").await?;
    let focused = "return document.activeElement?.getAttribute('name')";
    assert_eq!(browser.script(focused, &[]).await?, "kms_key_arn", "the focus is where the fault is");
    browser.fill("kms_key_arn", KEY).await?;
    browser.click("main button[type=submit]", "Save").await?;
    browser.sees("The provider is saved").await?;
    assert_eq!(api.get("/v1/crypto/settings").await?.success()?["kms_key_arn"], KEY);
    browser.click("label", "Vault delegate").await?;
    browser.fill("vault_namespace", "team-a/payments").await?;
    browser.click("main button[type=submit]", "Save").await?;
    browser
        .until("the Vault", "return document.querySelector('.facts')?.innerText.includes('team-a/payments')", &[])
        .await?;

    // Somebody else is faster.
    let theirs = json!({"provider": "kms_envelope", "kms_key_arn": KEY, "notes": "theirs"});
    api.put("/v1/crypto/settings", &theirs).await?.success()?;
    browser.fill("notes", "mine").await?;
    browser.click("main button[type=submit]", "Save").await?;
    browser.sees("It was changed meanwhile").await?;
    let actor = api.get("/v1/crypto/settings").await?.success()?["updated_by"].as_str().unwrap_or_default().to_owned();
    browser.sees(&format!("{actor} changed it")).await?;
    assert_eq!(api.get("/v1/crypto/settings").await?.success()?["notes"], "theirs");
    browser.click("button", "Reload and look").await?;
    browser.until("theirs", "return document.querySelector('[name=notes]')?.value === 'theirs'", &[]).await?;
    browser.fill("notes", "ours").await?;
    browser.click("main button[type=submit]", "Save").await?;
    let saved = "return document.querySelector('.facts')?.innerText.includes('ours')";
    browser.until("ours", saved, &[]).await?;
    assert_eq!(api.get("/v1/crypto/settings").await?.success()?["notes"], "ours");
    Ok(())
}

/// The refusal of a change that somebody else was faster with, and who that was.
async fn overtaken(browser: &Browser, api: &Api) -> Result<()> {
    let actor = api.get("/v1/session").await?.success()?["actor"].as_str().unwrap_or_default().to_owned();
    browser.sees("It was changed meanwhile").await?;
    browser.sees(&format!("{actor} changed it")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_the_first_to_set_something_is_not_overwritten_either() -> Result<()> {
    let desk = Desk::untouched("console-first", "").await?;
    let (browser, api) = (&desk.browser, desk.api()?);
    sign_in(browser, &desk.plane).await?;
    // A flag that nobody ever set.
    desk.visit("flags").await?;
    browser.click("button", "Turn on …").await?;
    browser.sees("Bouncers may then unwrap").await?;
    api.set_flag(true).await?;
    api.set_flag(false).await?;
    browser.click("dialog button", "Turn on").await?;
    overtaken(browser, &api).await?;
    browser.click("button", "Reload and look").await?;
    browser.click("button", "Turn on …").await?;
    browser.click("dialog button", "Turn on").await?;
    browser.sees(&format!("{FLAG} is on")).await?;

    // A provider where none was chosen.
    desk.visit("provider").await?;
    browser.sees("No provider is chosen yet").await?;
    let theirs = json!({"provider": "kms_envelope", "kms_key_arn": KEY, "notes": "theirs"});
    api.put("/v1/crypto/settings", &theirs).await?.success()?;
    browser.fill("kms_key_arn", "arn:aws:kms:ca-central-1:123456789012:key/mine").await?;
    browser.click("main button[type=submit]", "Save").await?;
    overtaken(browser, &api).await?;
    assert_eq!(api.get("/v1/crypto/settings").await?.success()?["kms_key_arn"], KEY);
    assert_eq!(browser.axe().await?, Vec::<String>::new());
    browser.click("button", "Reload and look").await?;
    browser.until("theirs", "return document.querySelector('[name=notes]')?.value === 'theirs'", &[]).await?;

    // The first generation of a path.
    desk.visit("secrets/new").await?;
    for (name, value) in [("logical_path", PATH), ("ciphertext_ref", BLOB), ("aad", "bouncer=mine")] {
        browser.fill(name, value).await?;
    }
    api.register_envelope(&envelope(PATH)).await?;
    browser.click("main button[type=submit]", "Register").await?;
    overtaken(browser, &api).await?;
    let saved = api.get("/v1/crypto/envelope-secrets").await?.success()?;
    assert_eq!(saved["items"][0]["generation"], 1, "{saved}");
    browser.click("button", "Reload and look").await?;
    arrived(browser, PATH).await?;
    let id = saved["items"][0]["id"].as_str().unwrap_or_default();
    assert!(browser.address().await?.ends_with(&format!("/console/secrets/{id}")));

    // What is removed is what was looked at.
    api.register_bouncer("payments-east", "spiffe://example.org/bouncer/payments-east").await?;
    desk.visit("bouncers/payments-east").await?;
    browser.click("button", "Remove …").await?;
    browser.sees("Its sessions on the Policy Bridge end").await?;
    let moved = json!({"spiffe_id": "spiffe://example.org/bouncer/moved"});
    api.put("/v1/bouncers/payments-east", &moved).await?.success()?;
    browser.click("dialog button", "Remove the bouncer").await?;
    overtaken(browser, &api).await?;
    assert_eq!(api.get("/v1/bouncers/payments-east").await?.success()?["spiffe_id"], moved["spiffe_id"]);
    browser.click("button", "Reload and look").await?;
    browser.sees("spiffe://example.org/bouncer/moved").await?;
    browser.click("button", "Remove …").await?;
    browser.click("dialog button", "Remove the bouncer").await?;
    browser.sees("No bouncer is registered").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bouncers_and_resources_are_registered_changed_and_removed_and_every_refusal_is_shown() -> Result<()> {
    let desk = Desk::signed_in("console-registry").await?;
    let (browser, api) = (&desk.browser, desk.api()?);
    desk.visit("resources/new").await?;
    browser.sees("There is no bouncer yet").await?;
    browser.click("main a", "Register a bouncer").await?;
    arrived(browser, "Register a bouncer").await?;
    browser.fill("name", "Payments East").await?;
    browser.fill("spiffe_id", "payments-east").await?;
    browser.click("main button[type=submit]", "Register").await?;
    error_at(browser, "name", "").await?;
    error_at(browser, "spiffe_id", "").await?;
    browser.fill("name", "payments-east").await?;
    browser.fill("spiffe_id", "spiffe://example.org/bouncer/payments-east").await?;
    browser.click("main button[type=submit]", "Register").await?;
    arrived(browser, "payments-east").await?;
    browser.sees("No resolver of 'payments-east' has ever connected.").await?;
    desk.visit("bouncers/new").await?;
    browser.fill("name", "payments-west").await?;
    browser.fill("spiffe_id", "spiffe://example.org/bouncer/payments-east").await?;
    browser.click("main button[type=submit]", "Register").await?;
    error_at(browser, "spiffe_id", "The SPIFFE ID is registered for another bouncer").await?;

    desk.visit("resources/new").await?;
    for (name, value) in [
        ("name", "payments-api"),
        ("cluster", "payments"),
        ("upstream", "payments.internal"),
        ("logical_path", "a/../b"),
    ] {
        browser.fill(name, value).await?;
    }
    browser.fill("callers", "spiffe://example.org/ns/shop/*\nnobody").await?;
    browser.click("main button[type=submit]", "Protect").await?;
    error_at(browser, "upstream", "").await?;
    error_at(browser, "logical_path", "").await?;
    error_at(browser, "callers", "Line 2: ").await?;
    browser.fill("upstream", "payments.internal:8443").await?;
    browser.fill("logical_path", PATH).await?;
    browser.fill("callers", "spiffe://example.org/ns/shop/*").await?;
    browser.click("label", "HTTPS").await?;
    browser.click("main button[type=submit]", "Protect").await?;
    arrived(browser, "payments-api").await?;
    browser.sees("HTTPS: a credential in a header").await?;
    browser.sees("No envelope is registered under the logical path").await?;

    browser.click("main a", "Change").await?;
    arrived(browser, "Change payments-api").await?;
    browser.click("label", "mTLS").await?;
    browser.click("main button[type=submit]", "Save").await?;
    browser.sees("mTLS: a client certificate").await?;
    let stored = api.get("/v1/protected-resources/payments-api").await?.success()?;
    assert_eq!((&stored["protocol"], &stored["enabled"]), (&json!("mtls"), &json!(true)));

    browser.click("button", "Disable …").await?;
    browser.sees("are denied within about a second (resource_disabled)").await?;
    browser.click("dialog button", "Disable, and deny").await?;
    browser.sees("payments-api is disabled").await?;
    assert_eq!(api.get("/v1/protected-resources/payments-api").await?.success()?["enabled"], false);
    // A bouncer that still guards something stays.
    desk.visit("bouncers/payments-east").await?;
    browser.click("button", "Remove …").await?;
    browser.click("dialog button", "Remove the bouncer").await?;
    browser.sees("The bouncer still guards protected resources.").await?;

    // Changed meanwhile, from the page that shows it.
    desk.visit("resources/payments-api").await?;
    api.put("/v1/protected-resources/payments-api", &resource("payments-api")).await?.success()?;
    browser.click("button", "Delete …").await?;
    browser.click("dialog button", "Delete, and deny").await?;
    browser.sees("It was changed meanwhile").await?;
    browser.click("button", "Reload and look").await?;
    browser
        .until("the new state", "return document.querySelector('.facts .pill')?.innerText.includes('Enabled')", &[])
        .await?;
    browser.click("button", "Delete …").await?;
    browser.click("dialog button", "Delete, and deny").await?;
    browser.sees("No resource is protected").await?;
    desk.visit("bouncers/payments-east").await?;
    browser.click("button", "Remove …").await?;
    browser.click("dialog button", "Remove the bouncer").await?;
    browser.sees("No bouncer is registered").await
}

/// What is read out of the field's text, tied to it.
async fn reads(browser: &Browser, name: &str, text: &str) -> Result<()> {
    let tied = "const field = document.querySelector(`[name=\"${arguments[0]}\"]`); \
                return field.getAttribute('aria-describedby').split(' ').map((id) => document.getElementById(id)) \
                .some((one) => one?.checkVisibility() && one.innerText === arguments[1])";
    browser.until(&format!("at {name}: {text}"), tied, &[name.into(), text.into()]).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bouncer_is_known_by_a_spiffe_id_or_by_an_iam_role_and_each_refusal_is_at_its_field() -> Result<()> {
    const ROLE: &str = "arn:aws:iam::123456789012:role/bouncer-payments-west";
    let desk = Desk::signed_in("console-iam").await?;
    let api = with_bouncer(&desk).await?;
    let browser = &desk.browser;
    desk.visit("bouncers/new").await?;
    browser.fill("spiffe_id", "spiffe://Example.org/bouncer").await?;
    reads(browser, "spiffe_id", "Not a SPIFFE ID yet: spiffe://TRUST-DOMAIN/PATH, the trust domain in lower case.")
        .await?;
    browser.fill("spiffe_id", "spiffe://example.org/bouncer/west").await?;
    reads(browser, "spiffe_id", "/bouncer/west in the trust domain example.org.").await?;
    browser.fill("spiffe_id", ROLE).await?;
    reads(browser, "spiffe_id", "An ARN is no SPIFFE ID. Choose “IAM role” for it.").await?;

    // The choice is made by keyboard, and only the field that belongs to it is there.
    browser.fill("name", "payments-east").await?;
    browser.press(&[key::TAB, key::DOWN]).await?;
    let fields = "return [...document.querySelectorAll('main input[type=text]')].filter((one) => one.checkVisibility()).map((one) => one.name).join()";
    browser.until("the role's field", &format!("{fields} === 'name,iam_role_arn'"), &[]).await?;
    for (text, reading) in [
        ("spiffe://example.org/bouncer", "A SPIFFE ID is no role. Choose “SPIFFE ID” for it."),
        (
            "arn:aws:iam::123456789012:user/west",
            "Not the ARN of an IAM role yet: arn:aws:iam::ACCOUNT:role/NAME, with an account of 12 digits.",
        ),
        (
            "arn:aws:sts::123456789012:assumed-role/bouncer-payments-west/i-1",
            &format!("A session of a role. Give the role itself: {ROLE}"),
        ),
        ("arn:aws:iam::123456789012:role/team/bouncer-payments-west", &format!("Leave the role's path out: {ROLE}")),
    ] {
        browser.fill("iam_role_arn", text).await?;
        reads(browser, "iam_role_arn", reading).await?;
    }
    // A hint holds nothing back: what is refused is refused by the API, at the field.
    browser.click("main button[type=submit]", "Register").await?;
    error_at(browser, "iam_role_arn", "without the role's path").await?;
    browser.fill("iam_role_arn", ROLE).await?;
    reads(browser, "iam_role_arn", "The role bouncer-payments-west of the account 123456789012.").await?;
    browser.click("main button[type=submit]", "Register").await?;
    error_at(browser, "name", "Something else is registered under this name").await?;
    browser.fill("name", "payments-west").await?;
    let line = "return [...document.querySelectorAll('.commands code')].map((one) => one.textContent).find((one) => one.includes(arguments[0]))";
    let bouncerctl = browser.script(line, &["bouncerctl".into()]).await?;
    let wanted = format!("bouncerctl bouncers add payments-west --iam-role {ROLE}");
    assert!(bouncerctl.as_str().is_some_and(|line| line.ends_with(&wanted)), "{bouncerctl}");
    browser.click("main button[type=submit]", "Register").await?;
    arrived(browser, "payments-west").await?;
    browser.until("the role", "return [...document.querySelectorAll('.facts > div')].some((one) => one.innerText.startsWith('IAM role') && one.innerText.includes(arguments[0]))", &[ROLE.into()]).await?;
    let stored = api.get("/v1/bouncers/payments-west").await?.success()?;
    assert_eq!((&stored["iam_role_arn"], &stored["spiffe_id"]), (&json!(ROLE), &json!(null)));

    desk.visit("bouncers").await?;
    browser.sees(&format!("IAM role {ROLE}")).await?;
    browser.sees("SPIFFE ID spiffe://example.org/bouncer/payments-east").await?;
    desk.visit("bouncers/new").await?;
    browser.fill("name", "payments-north").await?;
    browser.click("label", "IAM role").await?;
    browser.fill("iam_role_arn", ROLE).await?;
    browser.click("main button[type=submit]", "Register").await?;
    error_at(browser, "iam_role_arn", "The IAM role is registered for another bouncer").await?;

    // The line beside the form does what the form does.
    browser.fill("iam_role_arn", "arn:aws:iam::123456789012:role/north").await?;
    let curl = browser.script(line, &["curl".into()]).await?;
    let mut shell = tokio::process::Command::new("sh");
    shell.arg("-c").arg(curl.as_str().unwrap_or_default()).env("TOKEN", desk.plane.token()).kill_on_drop(true);
    let output = shell.output().await?;
    let stored = api.get("/v1/bouncers/payments-north").await?;
    assert_eq!(stored.success()?["iam_role_arn"], "arn:aws:iam::123456789012:role/north", "{curl}\n{output:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_gets_generations_is_rolled_back_disabled_found_and_deleted() -> Result<()> {
    let desk = Desk::signed_in("console-secrets").await?;
    let api = with_bouncer(&desk).await?;
    let browser = &desk.browser;
    api.register_envelope(&envelope("other/path")).await?;
    let first = api.register_envelope(&envelope(PATH)).await?;
    let id = first["id"].as_str().unwrap_or_default().to_owned();
    desk.visit(&format!("secrets/{id}")).await?;
    browser.click("main a", "New generation").await?;
    arrived(browser, "Register a new generation").await?;
    browser.fill("ciphertext_ref", &format!("{BLOB}\nQUJD")).await?;
    browser.fill("reason", "key rotated").await?;
    // Somebody registers in between, and is not overtaken.
    api.register_envelope(&envelope(PATH)).await?;
    browser.click("main button[type=submit]", "Register generation 2").await?;
    browser.sees("The registration would not get the generation that it names").await?;
    desk.visit(&format!("secrets/new?path={PATH}&from={id}")).await?;
    browser.fill("ciphertext_ref", BLOB).await?;
    browser.fill("reason", "key rotated").await?;
    browser.click("main button[type=submit]", "Register generation 3").await?;
    arrived(browser, PATH).await?;
    browser.sees("key rotated").await?;

    browser.click("button", "Roll back").await?;
    browser.sees("is registered again, as generation 4").await?;
    browser.fill("reason", "generation 3 has the wrong chain").await?;
    browser.click("dialog button", "Register 2 again").await?;
    browser.sees("Generation 2 is registered again").await?;
    browser.sees("generation 3 has the wrong chain").await?;
    assert_eq!(api.get(&format!("/v1/crypto/envelope-secrets/{id}")).await?.success()?["generation"], 4);

    browser.click("button", "Disable …").await?;
    browser.sees("live streams that carry it are reset").await?;
    browser.click("dialog button", "Disable, and cut off").await?;
    browser.sees("The credential is disabled").await?;
    let stored = api.get(&format!("/v1/crypto/envelope-secrets/{id}")).await?.success()?;
    assert_eq!(stored["enabled"], false);

    desk.visit("secrets").await?;
    browser.sees("other/path").await?;
    browser.fill("q", "payments-api").await?;
    browser.press(&[key::ENTER]).await?;
    browser.until("only one", "return document.querySelectorAll('.table tbody tr').length === 1 && document.querySelector('.table tbody').innerText.includes('payments-api')", &[]).await?;
    assert!(browser.address().await?.ends_with("/console/secrets?q=payments-api"));
    desk.visit("secrets?enabled=true").await?;
    browser.until("the other", "return document.querySelectorAll('.table tbody tr').length === 1 && document.querySelector('.table tbody').innerText.includes('other/path')", &[]).await?;
    desk.visit("secrets?provider=vault_delegate").await?;
    browser.sees("No envelope secret fits these filters.").await?;

    desk.visit(&format!("secrets/{id}")).await?;
    browser.click("button", "Delete …").await?;
    browser.click("dialog button", "Delete, and deny").await?;
    browser.until("gone", "return document.querySelectorAll('.table tbody tr').length === 1", &[]).await?;
    assert_eq!(api.call(Method::GET, &format!("/v1/crypto/envelope-secrets/{id}"), None).await?.status, 404);
    desk.visit(&format!("secrets/{id}")).await?;
    browser.sees("Not found").await
}
