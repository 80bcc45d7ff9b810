//! A control plane and a browser beside it.

use bouncer_tests::api::Api;
use bouncer_tests::browser::Browser;
use bouncer_tests::control_plane::{ControlPlane, Setup};
use bouncer_tests::scratch::Scratch;
use bouncer_tests::stack::Identities;
use bouncer_tests::{Fault, Result};
use serde_json::{Value, json};

pub(crate) const KEY: &str = "arn:aws:kms:ca-central-1:123456789012:key/abc-123";
pub(crate) const PATH: &str = "protected-resources/payments-api/upstream-tls";
/// The base64 of something that looks like a KMS ciphertext blob.
pub(crate) const BLOB: &str =
    "AQICAHhQ4W1xvqRr0nZ6Yt3m8uJkL2pS5dFgHjKlMnBvCxZaQwEr7Ty9Ui0OpAsDfGhJkLzXcVbNm1Q2W3E4R5T6Y7U8I9O0PqAz";

/// A browser, and a control plane with the flag on; its parts stop in the order of the fields.
pub(crate) struct Desk {
    pub(crate) browser: Browser,
    pub(crate) plane: ControlPlane,
    _identities: Identities,
    pub(crate) scratch: Scratch,
}

impl Desk {
    /// Nobody is signed in.
    pub(crate) async fn new(scenario: &str) -> Result<Self> {
        let desk = Self::untouched(scenario, "").await?;
        desk.api()?.set_flag(true).await?;
        Ok(desk)
    }

    /// Nobody is signed in; the flag is off, and changes of binding wait for a second person.
    pub(crate) async fn asking_for_a_second_person(scenario: &str) -> Result<Self> {
        Self::untouched(scenario, "[access]\nsecond_person = true\n").await
    }

    /// Nobody is signed in, and no flag was ever set; with more in the control plane's configuration.
    pub(crate) async fn untouched(scenario: &str, more: &str) -> Result<Self> {
        let scratch = Scratch::new(scenario)?;
        let identities = Identities::own(&scratch)?;
        let setup = Setup { more: more.to_owned(), ..Setup::new(&scratch, identities.control_plane())? };
        let plane = ControlPlane::start(&scratch, setup).await?;
        let browser = Browser::start(&scratch).await?;
        Ok(Self { browser, plane, _identities: identities, scratch })
    }

    /// The administrator is signed in, and sees the overview.
    pub(crate) async fn signed_in(scenario: &str) -> Result<Self> {
        let desk = Self::new(scenario).await?;
        sign_in(&desk.browser, &desk.plane).await?;
        Ok(desk)
    }

    pub(crate) fn api(&self) -> Result<Api> {
        self.plane.api()
    }

    /// Goes to a page of the console and waits until it is there.
    pub(crate) async fn visit(&self, page: &str) -> Result<()> {
        visit(&self.browser, &self.plane, page).await
    }
}

pub(crate) async fn sign_in(browser: &Browser, plane: &ControlPlane) -> Result<()> {
    browser.open(&format!("{}/", plane.url())).await?;
    sign_in_here(browser, plane.token()).await?;
    arrived(browser, "Overview").await
}

/// On the sign-in page.
pub(crate) async fn sign_in_here(browser: &Browser, token: &str) -> Result<()> {
    browser.fill("token", token).await?;
    browser.click("button[type=submit]", "Sign in").await
}

/// Waits until the page of this title is drawn.
pub(crate) async fn arrived(browser: &Browser, title: &str) -> Result<()> {
    let drawn = "const main = document.querySelector('main[aria-busy=false]'); \
                 return main?.querySelector('h1')?.textContent.includes(arguments[0])";
    browser.until(&format!("the page {title:?}"), drawn, &[title.into()]).await.map(drop)
}

pub(crate) async fn visit(browser: &Browser, plane: &ControlPlane, page: &str) -> Result<()> {
    browser.open(&format!("{}/console/{page}", plane.url())).await?;
    browser.until(page, "return document.querySelector('main[aria-busy=false] h1') !== null", &[]).await.map(drop)
}

/// Has the pages that are loaded from now on see some answers otherwise, for what would take thousands of registrations
/// or several resolvers: `alter` is the body of a function of the call's `path` and of `ask`, which makes a call and gives
/// its JSON. It gives the JSON that the page sees, or undefined for what the control plane answers.
pub(crate) async fn altering(browser: &Browser, alter: &str) -> Result<()> {
    let source = format!(
        "const real = window.fetch;
         const ask = async (path) => (await real(path)).json();
         const alter = async (path, ask) => {{ {alter} }};
         window.fetch = async (path, options) => {{
             const altered = options.method === 'GET' ? await alter(path, ask) : undefined;
             return altered === undefined ? real(path, options) : new Response(JSON.stringify(altered));
         }};"
    );
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({"source": source})).await.map(drop)
}

/// The body of an envelope that warns of little.
pub(crate) fn envelope(path: &str) -> Value {
    json!({
        "logical_path": path, "key_id": KEY, "ciphertext_ref": BLOB, "provider": "kms_envelope",
        "aad": "env=production,bouncer=payments-east",
    })
}

pub(crate) fn resource(name: &str) -> Value {
    json!({
        "name": name, "bouncer": "payments-east", "cluster": "payments", "upstream": "payments.internal:8443",
        "protocol": "mtls", "logical_path": PATH, "callers": ["spiffe://example.org/ns/shop/*"],
    })
}

/// Registers a bouncer, and gives the client that did.
pub(crate) async fn with_bouncer(desk: &Desk) -> Result<Api> {
    let api = desk.api()?;
    api.register_bouncer("payments-east", "spiffe://example.org/bouncer/payments-east").await?;
    Ok(api)
}

/// How often something was counted by the control plane, over all labels that hold a text.
pub(crate) async fn counted(api: &Api, metric: &str, label: &str) -> Result<f64> {
    let text = api.get("/metrics").await?.text;
    let lines = text.lines().filter(|line| line.starts_with(metric) && line.contains(label));
    lines
        .map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or_default())
        .map(Ok)
        .sum()
}

/// The token of another role.
pub(crate) async fn token_of(api: &Api, role: &str) -> Result<(String, String)> {
    let body = json!({"name": format!("{role}-of-the-test"), "role": role});
    let made = api.post("/v1/tokens", &body).await?.success()?;
    let text =
        |field: &str| made[field].as_str().map(str::to_owned).ok_or_else(|| Fault::new(format!("no {field}: {made}")));
    Ok((text("id")?, text("token")?))
}
