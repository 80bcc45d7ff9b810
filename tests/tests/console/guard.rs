//! The paste guard: what looks like a plaintext credential does not leave the browser, whichever way it came in.

use crate::harness::{BLOB, Desk, KEY, PATH, arrived, counted, envelope};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bouncer_tests::Result;
use bouncer_tests::browser::Browser;
use rcgen::KeyPair;
use serde_json::json;

const REFUSED: &str = "bouncer_control_plane_plaintext_refused";
const REQUESTS: &str = "bouncer_control_plane_requests";

/// Put together here, so that no scanner mistakes this file for a leak.
fn credentials() -> Result<Vec<(&'static str, String)>> {
    let key = KeyPair::generate()?;
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?;
    let joined = |parts: &[&str]| parts.concat();
    Ok(vec![
        ("a private key", key.serialize_pem()),
        ("a private key", key.serialize_pem().replace('\n', "\\n")),
        ("a private key", STANDARD.encode(key.serialize_der())),
        ("a private key", STANDARD.encode(rsa.serialize_der())),
        ("a private key", STANDARD.encode(key.serialize_pem())),
        ("a JSON Web Token", joined(&["eyJhbGciOiJIUzI1NiJ9", ".eyJzdWIiOiIxIn0.", "c2lnbmF0dXJlLXNpZ25hdHVyZQ"])),
        ("an AWS access key", joined(&["AKIA", "IOSFODNN7EXAMPLE"])),
        ("an AWS access key", joined(&["ASIA", "IOSFODNN7EXAMPLE"])),
        ("a Vault token", joined(&["hvs.", "CAESIJ1a2b3c4d5e6f7g8h9i0j"])),
        ("a Vault token", joined(&["hvb.", "AAAAAQJ1a2b3c4d5e6f7g8h9i0j"])),
        ("a service's API token", joined(&["ghp_", "0123456789abcdefABCDEF0123456789abcd"])),
        ("a service's API token", joined(&["xoxb-", "123456789012-abcdefghijkl"])),
        ("a service's API token", joined(&["sk_live_", "0123456789abcdefABCDEF01"])),
        ("a service's API token", joined(&["AIza", "SyA0123456789abcdefABCDEF0123456789"])),
        ("a service's API token", joined(&["npm_", "0123456789abcdefABCDEF0123456789abcd"])),
        ("a token of this control plane", joined(&["bnc_", &"A".repeat(43)])),
        ("a URL with a password", joined(&["https://user:", "hunter2@example.org/"])),
    ])
}

async fn value(browser: &Browser, name: &str) -> Result<String> {
    let value =
        browser.script("return document.querySelector(`[name=\"${arguments[0]}\"]`).value", &[name.into()]).await?;
    Ok(value.as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pasted_dropped_or_typed_credential_never_leaves_the_browser_and_a_ciphertext_does() -> Result<()> {
    let desk = Desk::signed_in("console-guard").await?;
    let (browser, api) = (&desk.browser, desk.api()?);
    desk.visit("secrets/new").await?;
    for (what, credential) in credentials()? {
        browser.paste("ciphertext_ref", &credential).await?;
        browser.sees(&format!("This looks like {what}, so it is refused here. Nothing was sent.")).await?;
        browser.sees("bouncerctl wrap --key-arn").await?;
        assert_eq!(value(browser, "ciphertext_ref").await?, "", "{what} was pasted");
        let tied = "const field = document.querySelector('[name=ciphertext_ref]'); return field.ariaInvalid === 'true' && \
                    field.getAttribute('aria-describedby').split(' ').some((id) => document.getElementById(id)?.innerText.includes(arguments[0]))";
        assert_eq!(browser.script(tied, &[what.into()]).await?, true, "{what}: the explanation belongs to the field");
        let dropped = "const data = new DataTransfer(); data.setData('text/plain', arguments[0]); \
                       return document.querySelector('[name=aad]').dispatchEvent(new DragEvent('drop', \
                       {bubbles: true, cancelable: true, dataTransfer: data}))";
        assert_eq!(browser.script(dropped, &[credential.clone().into()]).await?, false, "{what} may be dropped");
    }

    // The control: the same paste of what belongs there.
    browser.paste("ciphertext_ref", BLOB).await?;
    browser
        .until(
            "the ciphertext",
            "return document.querySelector('[name=ciphertext_ref]').value === arguments[0]",
            &[BLOB.into()],
        )
        .await?;
    browser
        .until(
            "no refusal",
            "return document.querySelector('.guard') === null || document.querySelectorAll('.guard').length === 1",
            &[],
        )
        .await?;

    // Typed in, it is found when it is sent.
    browser.fill("logical_path", PATH).await?;
    browser.fill("key_id", KEY).await?;
    for (what, credential) in credentials()?.into_iter().filter(|(_, text)| !text.contains('\n')) {
        browser.fill("aad", &credential).await?;
        browser.click("main button[type=submit]", "Register").await?;
        browser.sees("Nothing was sent: a plaintext credential is in this form.").await?;
        browser.sees(&format!("This looks like {what}")).await?;
    }
    // And where the form itself is gone around, by what sends.
    let module = "return import('/console/assets/js/api.js').then((api) => api.call('POST', '/v1/bouncers', \
                  {body: {name: 'a', spiffe_id: arguments[0]}})).then(() => 'sent', (problem) => problem.code)";
    for (what, credential) in credentials()? {
        assert_eq!(browser.script(module, &[credential.into()]).await?, "plaintext_held_back", "{what}");
    }
    assert_eq!(counted(&api, REFUSED, "").await?, 0.0, "none reached the control plane");
    assert_eq!(counted(&api, REQUESTS, "method=\"POST\",status=\"4").await?, 0.0);
    assert_eq!(counted(&api, REQUESTS, "/v1/bouncers\",method=\"POST\"").await?, 0.0);

    browser.fill("aad", "env=production,bouncer=payments-east").await?;
    browser.click("main button[type=submit]", "Register").await?;
    arrived(browser, PATH).await?;
    let stored = api.get("/v1/crypto/envelope-secrets").await?.success()?;
    assert_eq!(stored["items"][0]["ciphertext_ref"], BLOB);

    // The control of the metric: sent around the console, it is refused and counted.
    let mut body = envelope(PATH);
    body["aad"] = json!(credentials()?[6].1);
    assert_eq!(api.post("/v1/crypto/envelope-secrets", &body).await?.status, 422);
    assert_eq!(counted(&api, REFUSED, "").await?, 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_script_does_not_run() -> Result<()> {
    let desk = Desk::signed_in("console-policy").await?;
    let browser = &desk.browser;
    // As an attacker would whose text became markup: an inline script, a handler in an attribute, another site.
    let plant = "
        window.planted = []; window.violations = [];
        document.addEventListener('securitypolicyviolation', (event) => window.violations.push(event.effectiveDirective));
        const attempts = [
            () => { const script = document.createElement('script'); script.append('window.planted.push(\"inline\")'); document.body.append(script); },
            () => { document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.planted.push(1)\">'); },
            () => { const image = document.createElement('img'); image.setAttribute('onerror', 'window.planted.push(\"attribute\")'); image.src = '/console/assets/icon.svg?x'; image.dispatchEvent(new Event('error')); document.body.append(image); },
            () => { setTimeout('window.planted.push(\"timer\")', 0); },
            () => { const script = document.createElement('script'); script.src = 'data:text/javascript,window.planted.push(\"data\")'; document.body.append(script); },
        ];
        for (const attempt of attempts) try { attempt(); } catch (refused) { window.violations.push(refused.name); }";
    browser.script(plant, &[]).await?;
    browser.until("each of the five refused", "return window.violations.length >= 5", &[]).await?;
    // A script of the console's own that is asked for behind them has run, and a turn of the events after it.
    let own = "return import('/console/assets/js/time.js?behind').then((own) => new Promise((done) => \
               setTimeout(() => done(own.ago(Date.now())), 0)))";
    assert_eq!(browser.script(own, &[]).await?, "now");
    let seen = browser.script("return [window.planted, window.violations]", &[]).await?;
    assert_eq!(seen[0], json!([]), "{seen}");

    // The control: the same on a page without our policy.
    browser.open("data:text/html,<!doctype html><title>free</title><body>").await?;
    browser.script(plant, &[]).await?;
    browser.until("they run", "return window.planted.length >= 4", &[]).await?;
    Ok(())
}
