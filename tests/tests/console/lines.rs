//! The lines to copy into a terminal: every one of them is run by a shell, as it stands on the page, and does what the
//! page says.

use crate::harness::{Desk, PATH, sign_in};
use bouncer_tests::api::Api;
use bouncer_tests::browser::Browser;
use bouncer_tests::kms::Kms;
use bouncer_tests::operator::Ended;
use bouncer_tests::pki::{Ca, Leaf};
use bouncer_tests::{Fault, Result, tools};
use http::Method;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

const SECRETS: &str = "/v1/crypto/envelope-secrets";
const EAST: &str = "spiffe://example.org/bouncer/payments-east";
const UPSTREAM: &str = "payments.internal:9443";
const CALLERS: [&str; 2] = ["spiffe://example.org/ns/shop/sa/cart", "spiffe://example.org/ns/billing/*"];

/// An operator's terminal: `bouncerctl` is installed, the token is in its variable, and a bundle lies in the folder.
struct Terminal {
    desk: Desk,
    api: Api,
    kms: Kms,
    key: String,
    folder: PathBuf,
    path: OsString,
}

impl Terminal {
    async fn open(scenario: &str) -> Result<Self> {
        let desk = Desk::untouched(scenario, "").await?;
        let kms = Kms::start(&desk.scratch).await?;
        let key = kms.create_key().await?;
        let folder = desk.scratch.folder("operator")?;
        let identity = Ca::new("clients")?.issue(&Leaf::svid(EAST)?)?;
        std::fs::write(folder.join("bundle.pem"), identity.bundle())?;
        let programs = tools::binary("bouncerctl")?.parent().map(PathBuf::from).into_iter();
        let others = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(programs.chain(std::env::split_paths(&others)))?;
        sign_in(&desk.browser, &desk.plane).await?;
        let api = desk.api()?;
        Ok(Self { desk, api, kms, key, folder, path })
    }

    fn browser(&self) -> &Browser {
        &self.desk.browser
    }

    async fn run(&self, line: &str) -> Result<Ended> {
        let mut shell = tokio::process::Command::new("sh");
        shell.args(["-e", "-c", line]).current_dir(&self.folder).stdin(Stdio::null()).kill_on_drop(true);
        shell.env_clear().env("PATH", &self.path).env("TOKEN", self.desk.plane.token()).env("KMS_KEY_ARN", &self.key);
        shell.env("CONTROL_PLANE_URL", self.desk.plane.url());
        let output = shell.output().await?;
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(Ended { code: output.status.code().unwrap_or(-1), out: output.stdout, err })
    }

    /// Runs a line, after which the API must say this.
    async fn does(&self, line: &str, path: &str, pointer: &str, wanted: &Value) -> Result<()> {
        let before = self.api.get(path).await?.json;
        assert_ne!(before.pointer(pointer), Some(wanted), "the line has nothing to do: {line}");
        let ended = self.run(line).await?;
        let now = self.api.get(path).await?.json;
        assert_eq!(now.pointer(pointer), Some(wanted), "{line}\n{ended:?}");
        ended.success().map(drop)
    }

    /// Runs a line that asks for something; its answer.
    async fn says(&self, line: &str) -> Result<Value> {
        let ended = self.run(line).await?;
        let said = ended.json()?;
        ended.success().map(|_| said)
    }

    /// Runs a line that wraps under the local KMS, in the place of AWS's.
    async fn wraps(&self, line: &str, path: &str) -> Result<Value> {
        let saved =
            async || Ok::<_, Fault>(self.api.get(&format!("{SECRETS}?q={path}")).await?.success()?["items"][0].clone());
        let before = saved().await?["generation"].as_u64().unwrap_or_default();
        let ended = self.run(&format!("{line} --kms-endpoint {} --dev", self.kms.endpoint())).await?;
        let now = saved().await?;
        assert_eq!((&now["generation"], &now["logical_path"]), (&json!(before + 1), &json!(path)), "{line}\n{ended:?}");
        ended.success()?;
        Ok(now)
    }

    /// The lines that are on the page, by name.
    async fn lines(&self) -> Result<Vec<(String, String)>> {
        let all = "return [...document.querySelectorAll('main .commands')].map((one) => \
                   [one.querySelector('figcaption').firstChild.textContent, one.querySelector('code').textContent])";
        Ok(serde_json::from_value(self.browser().script(all, &[]).await?)?)
    }

    /// The only line of this name.
    async fn line(&self, name: &str) -> Result<String> {
        let line = self.lines().await?.into_iter().find(|(found, _)| found == name);
        line.map(|(_, line)| line).ok_or_else(|| Fault::new(format!("no line {name:?}")))
    }

    async fn delete(&self, path: &str) -> Result<()> {
        self.api.call(Method::DELETE, path, None).await.map(drop)
    }
}

/// Of the control plane's other provider.
fn vault() -> Value {
    json!({"provider": "vault_delegate", "vault_namespace": "root"})
}

/// Undoes what a line of the guided set-up does, and runs it.
async fn follow(terminal: &Terminal, name: &str, line: &str) -> Result<()> {
    let (api, key) = (&terminal.api, json!(terminal.key));
    match name {
        "Turn on the feature flag, bouncerctl" | "Turn on the feature flag, curl" => {
            api.set_flag(false).await?;
            terminal.does(line, "/v1/feature-flags", "/items/0/enabled", &json!(true)).await
        }
        "Choose the provider, bouncerctl" | "Choose the provider, curl" => {
            api.put("/v1/crypto/settings", &vault()).await?.success()?;
            terminal.does(line, "/v1/crypto/settings", "/kms_key_arn", &key).await
        }
        "Register envelope secrets, bouncerctl: wrap and register" => {
            let saved = terminal.wraps(line, PATH).await?;
            let bound = format!("env=production,bouncer=payments-east,upstream={UPSTREAM},caller={}", CALLERS[0]);
            assert_eq!((&saved["key_id"], &saved["aad"]), (&key, &json!(bound)), "{line}");
            Ok(())
        }
        "Register envelope secrets, curl: register what was wrapped" => {
            let wrapped = terminal.kms.encrypt(&terminal.key, "bouncer=payments-east", b"a credential").await?;
            let line = line.replace("THE_CIPHERTEXT_THAT_WRAP_PRINTED", &wrapped);
            terminal.does(&line, SECRETS, "/items/0/ciphertext_ref", &json!(wrapped)).await
        }
        "Register envelope secrets, curl: list mappings" => {
            assert_eq!(terminal.says(line).await?["items"][0]["logical_path"], PATH);
            Ok(())
        }
        "Register a bouncer and let it connect, bouncerctl" | "Register a bouncer and let it connect, curl" => {
            terminal.delete("/v1/bouncers/payments-east").await?;
            terminal.does(line, "/v1/bouncers", "/items/0/spiffe_id", &json!(EAST)).await
        }
        "Protect a resource, bouncerctl" | "Protect a resource, curl" => {
            terminal.delete("/v1/protected-resources/payments-api").await?;
            terminal.does(line, "/v1/protected-resources", "/items/0/callers", &json!([CALLERS[0]])).await
        }
        "See a credential released, bouncerctl" => {
            // Each by itself: the first two say by their exit codes that no resolver is there yet.
            let commands: Vec<&str> = line.lines().filter(|one| one.starts_with("bouncerctl")).collect();
            assert_eq!(commands.len(), 3, "{line}");
            for (command, code) in commands.into_iter().zip([1, 1, 0]) {
                let ended = terminal.run(command).await?;
                assert_eq!(ended.code, code, "{command}: {ended:?}");
                assert!(!ended.out.is_empty(), "{command}: {ended:?}");
            }
            Ok(())
        }
        "See a credential released, curl" => {
            // jq only lays it out.
            assert_eq!(
                terminal.says(line.trim_end_matches(" | jq .")).await?["steps"].as_array().map(Vec::len),
                Some(4)
            );
            Ok(())
        }
        "See a credential released, curl: why was it denied?" => {
            assert_eq!(terminal.says(line).await?["items"], json!([]));
            Ok(())
        }
        other => Err(Fault::new(format!("a line that nobody runs: {other}: {line}"))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_line_of_the_guided_setup_does_what_its_step_says() -> Result<()> {
    let terminal = Terminal::open("console-setup-lines").await?;
    terminal.desk.visit("setup").await?;
    let browser = terminal.browser();
    browser.click("summary", "Put your own names into the lines").await?;
    for (name, value) in [("key", terminal.key.as_str()), ("upstream", UPSTREAM), ("callers", CALLERS[0])] {
        browser.fill(name, value).await?;
    }
    browser.click("main button[type=submit]", "Put into the lines").await?;
    browser
        .until(
            "the upstream",
            "return document.querySelector('.steps').textContent.includes(arguments[0])",
            &[UPSTREAM.into()],
        )
        .await?;
    let lines = terminal.lines().await?;
    assert_eq!(lines.len(), 14, "{lines:?}");
    for (name, line) in &lines {
        follow(&terminal, name, line).await?;
    }
    browser.sees("No resolver of 'payments-east' has ever connected.").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_beside_a_form_do_what_the_form_would() -> Result<()> {
    const ROLE: &str = "arn:aws:iam::123456789012:role/bouncer-west";
    let terminal = Terminal::open("console-form-lines").await?;
    let (browser, api, desk) = (terminal.browser(), &terminal.api, &terminal.desk);
    api.set_flag(true).await?;
    api.put("/v1/crypto/settings", &vault()).await?.success()?;

    for name in ["bouncerctl", "curl"] {
        api.put("/v1/crypto/settings", &vault()).await?.success()?;
        desk.visit("provider").await?;
        let line = terminal.line(name).await?;
        terminal.does(&line, "/v1/crypto/settings", "/provider", &json!("kms_envelope")).await?;
    }

    desk.visit("bouncers/new").await?;
    browser.fill("name", "west").await?;
    browser.click("label", "IAM role").await?;
    browser.fill("iam_role_arn", ROLE).await?;
    for name in ["bouncerctl", "curl"] {
        terminal.delete("/v1/bouncers/west").await?;
        let line = terminal.line(name).await?;
        terminal.does(&line, "/v1/bouncers/west", "/iam_role_arn", &json!(ROLE)).await?;
    }

    // All that a form holds: another protocol than the first, several callers, not enabled.
    desk.visit("resources/new").await?;
    for (name, value) in [("name", "ledger"), ("cluster", "ledger"), ("upstream", UPSTREAM), ("logical_path", PATH)] {
        browser.fill(name, value).await?;
    }
    browser.fill("callers", &CALLERS.join("\n")).await?;
    browser.click("label", "HTTPS").await?;
    browser.click("label", "Enabled").await?;
    let ledger = "/v1/protected-resources/ledger";
    for name in ["bouncerctl", "curl"] {
        terminal.delete(ledger).await?;
        let line = terminal.line(name).await?;
        terminal.does(&line, ledger, "/callers", &json!(CALLERS)).await?;
        let made = api.get(ledger).await?.success()?;
        assert_eq!((&made["protocol"], &made["enabled"]), (&json!("https"), &json!(false)), "{line}");
    }

    // What is registered is changed by them, not registered again; where nothing was typed, to what it is.
    desk.visit("resources/ledger/edit").await?;
    for line in [terminal.line("bouncerctl").await?, terminal.line("curl").await?] {
        assert!(CALLERS.iter().all(|caller| line.contains(caller)) && line.contains("https"), "{line}");
    }
    browser.fill("cluster", "ledger-two").await?;
    let line = terminal.line("bouncerctl").await?;
    terminal.does(&line, ledger, "/cluster", &json!("ledger-two")).await?;
    // Built on what was there before that.
    let late = terminal.line("curl").await?.replace("ledger-two", "ledger-late");
    assert_eq!(terminal.says(&late).await?["type"], "urn:bouncer:problem:changed_meanwhile", "{late}");
    desk.visit("resources/ledger/edit").await?;
    browser.fill("callers", "").await?;
    let empty = "const field = document.querySelector('[name=callers]'); field.dispatchEvent(new Event('input', {bubbles: true}))";
    browser.script(empty, &[]).await?;
    let line = terminal.line("curl").await?;
    terminal.does(&line, ledger, "/callers", &json!([])).await?;
    let made = api.get(ledger).await?.success()?;
    assert_eq!((&made["protocol"], &made["enabled"]), (&json!("https"), &json!(false)), "{line}");
    desk.visit("resources/ledger/edit").await?;
    browser.click("label", "mTLS").await?;
    let line = terminal.line("bouncerctl").await?;
    terminal.does(&line, ledger, "/protocol", &json!("mtls")).await?;
    assert_eq!(api.get(ledger).await?.success()?["callers"], json!([]), "{line}");

    // The provider's key is in the lines beside the form of envelopes.
    let settings = json!({"provider": "kms_envelope", "kms_key_arn": terminal.key});
    api.put("/v1/crypto/settings", &settings).await?.success()?;
    desk.visit("secrets/new?path=saas/crm").await?;
    let line = terminal.line("bouncerctl: wrap and register").await?;
    assert_eq!(terminal.wraps(&line, "saas/crm").await?["key_id"], json!(terminal.key));
    let line = terminal.line("curl: register what was wrapped").await?;
    let wrapped = terminal.kms.encrypt(&terminal.key, "bouncer=payments-east", b"a credential").await?;
    let line = line.replace("THE_CIPHERTEXT_THAT_WRAP_PRINTED", &wrapped);
    terminal.does(&line, SECRETS, "/items/0/ciphertext_ref", &json!(wrapped)).await?;
    let list = terminal.says(&terminal.line("curl: list mappings").await?).await?;
    assert_eq!(list["items"][0]["generation"], 2, "{list}");

    // And what is told to whoever pastes a credential.
    browser.paste("ciphertext_ref", concat!("AKIA", "IOSFODNN7EXAMPLE")).await?;
    browser.sees("so it is refused here").await?;
    let line = terminal.line("Wrap and register").await?;
    let line = line.replace("NAME", "payments-east").replace("HOST:PORT", UPSTREAM).replace("LOGICAL_PATH", "saas/hr");
    terminal.wraps(&line, "saas/hr").await.map(drop)
}
