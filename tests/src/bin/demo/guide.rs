//! The operator guide's four steps, in order, against what runs here.
//!
//! Called once by `main`. Every call is shown as a user would type it; a step that fails ends the demo.

use crate::operator::Operator;
use crate::parts::{Ground, Intercept, PAYMENTS};
use crate::screen::{Screen, Verdict, shorten};
use bouncer_tests::api::{Answer, FLAG};
use bouncer_tests::pki::{Identity, Leaf};
use bouncer_tests::stack::{AAD, BOUNCER, BOUNCER_ID, CART};
use bouncer_tests::{Fault, Result, fault::Doing as _};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

/// Where the credential is registered.
pub(crate) const LOGICAL_PATH: &str = "protected-resources/payments-api/upstream-tls";
/// The protected resource, and the common name of the customer's certificate.
pub(crate) const RESOURCE: &str = "payments-api";

const SETTINGS: &str = "/v1/crypto/settings";
/// Where envelopes are registered.
pub(crate) const SECRETS: &str = "/v1/crypto/envelope-secrets";
const SYNC: Duration = Duration::from_secs(20);

/// Step 1: the flag is off at first, so the settings are refused; then they are taken.
pub(crate) async fn provider(screen: Screen, operator: &Operator, ground: &Ground) -> Result<()> {
    screen.heading("Step 1: choose a cryptographic provider");
    let body = [
        ("provider", json!("kms_envelope")),
        ("kms_key_arn", json!(ground.key_arn)),
        ("notes", json!("Production CMK — dual custody")),
    ];
    let refused = operator.call(Method::PUT, SETTINGS, &body).await?;
    if refused.status != StatusCode::FORBIDDEN || !refused.text.contains(FLAG) {
        return Err(Fault::new(format!("with the flag off, expected a 403 that names it: {}", told(&refused))));
    }
    screen.refusal(&told(&refused));
    let flag = operator.call(Method::PUT, &format!("/v1/feature-flags/{FLAG}"), &[("enabled", true.into())]).await?;
    screen.answer(&format!("{}  the flag is on", ok(flag)?.0));
    let taken = operator.call(Method::PUT, SETTINGS, &body).await?;
    let (status, json) = ok(taken)?;
    screen.answer(&format!("{status}  {}", fields(&json, &["provider", "notes"])));
    Ok(())
}

/// Step 2: the customer wraps a client certificate, and its metadata is registered. Gives what was wrapped.
pub(crate) async fn metadata(screen: Screen, operator: &Operator, ground: &Ground) -> Result<Identity> {
    screen.heading("Step 2: map endpoint secret paths");
    screen.say(&format!(
        "The customer has a client certificate for the upstream: CN={RESOURCE}, issued by its own CA. The private key is \
         this demo's canary: it is looked for everywhere at the end."
    ));
    let credential = ground.customer_ca.issue(&Leaf::new(RESOURCE))?;
    let envelope = wrap(operator, ground, &credential, AAD, true).await?;
    screen.answer(&fields(&envelope, &["ciphertext_ref", "provider"]));
    screen.say("The plaintext file is deleted: from here on only KMS can open it.");

    let registered = operator.call(Method::POST, SECRETS, &body(LOGICAL_PATH, &envelope)).await?;
    let (status, json) = ok(registered)?;
    screen.answer(&format!("{status}  {}", fields(&json, &["id", "generation", "enabled"])));
    for warning in json["warnings"].as_array().into_iter().flatten() {
        screen.refusal(&format!("warning: {}", warning["detail"].as_str().unwrap_or_default()));
    }
    let (status, json) = ok(operator.call(Method::GET, SECRETS, &[]).await?)?;
    let paths = json["items"].as_array().into_iter().flatten();
    let paths = paths.map(|item| fields(item, &["logical_path", "generation", "enabled"]));
    screen.answer(&format!("{status}  {}", paths.collect::<Vec<_>>().join("; ")));
    Ok(credential)
}

/// Runs `bouncerctl wrap` over a credential, whose file is gone afterwards. Gives what it printed.
pub(crate) async fn wrap(
    operator: &Operator,
    ground: &Ground,
    credential: &Identity,
    aad: &str,
    shown: bool,
) -> Result<Value> {
    const BUNDLE: &str = "payments-api.pem";
    let bundle = operator.folder().join(BUNDLE);
    let name = format!("operator/{BUNDLE}");
    ground.scratch.write(&name, credential.bundle())?;
    if shown {
        operator.show(&format!(
            "bouncerctl wrap --key-arn \"$KMS_KEY_ARN\" --aad {aad} \\\n  --in {BUNDLE} --kms-endpoint \"$KMS_ENDPOINT\" --dev"
        ));
    }
    let endpoint = ground.kms.endpoint();
    let arguments =
        ["wrap", "--key-arn", &ground.key_arn, "--aad", aad, "--in", BUNDLE, "--kms-endpoint", &endpoint, "--dev"];
    let printed = operator.bouncerctl(&arguments).await;
    std::fs::remove_file(&bundle).doing("deleting the plaintext")?;
    Ok(serde_json::from_str(&printed?)?)
}

/// The body of a registration, in the guide's order.
pub(crate) fn body<'a>(path: &str, envelope: &Value) -> Vec<(&'a str, Value)> {
    let mut body = vec![("logical_path", json!(path))];
    for key in ["key_id", "ciphertext_ref", "aad", "provider", "certificate_chain"] {
        if let Some(value) = envelope.get(key) {
            body.push((key, value.clone()));
        }
    }
    body
}

/// Step 3: identity, protected resource, and a Policy Bridge that is in sync.
pub(crate) async fn prerequisites(screen: Screen, operator: &Operator, ground: &Ground) -> Result<Intercept> {
    screen.heading("Step 3: bouncer mTLS and TLS prerequisites");
    screen.say("The workload identity that may ask for this bouncer's metadata, and nobody else's:");
    let bouncer = [("name", json!(BOUNCER)), ("spiffe_id", json!(BOUNCER_ID))];
    let (status, json) = ok(operator.call(Method::POST, "/v1/bouncers", &bouncer).await?)?;
    screen.answer(&format!("{status}  {}", fields(&json, &["name", "spiffe_id"])));

    let resource = resource(RESOURCE, ground, LOGICAL_PATH, CART);
    let (status, json) = ok(operator.call(Method::POST, "/v1/protected-resources", &resource).await?)?;
    screen.answer(&format!("{status}  {}", fields(&json, &["name", "protocol", "enabled"])));

    operator.show("bouncer-resolver --config resolver.toml --dev &\nenvoy -c envoy.yaml &");
    let intercept = ground.intercept().await?;
    screen.answer("both ready: the resolver has its SVID, Envoy the filter and the upstreams' CA");

    operator.show("bouncerctl probe");
    let probe = || async { operator.bouncerctl(&["probe"]).await.ok() };
    let report = ground.scratch.until("a healthy Policy Bridge (bouncerctl probe)", SYNC, probe).await?;
    screen.verbatim(&report);
    Ok(intercept)
}

/// A protected resource on the payments cluster for one caller.
pub(crate) fn resource<'a>(name: &str, ground: &Ground, path: &str, caller: &str) -> Vec<(&'a str, Value)> {
    vec![
        ("name", json!(name)),
        ("bouncer", json!(BOUNCER)),
        ("cluster", json!(PAYMENTS)),
        ("upstream", json!(ground.payments.address().to_string())),
        ("protocol", json!("mtls")),
        ("logical_path", json!(path)),
        ("callers", json!([caller])),
    ]
}

/// Step 4, before the traffic: what the control plane says of the setup.
pub(crate) async fn verify(screen: Screen, operator: &Operator) -> Result<()> {
    screen.heading("Step 4: verify intercept");
    status(screen, operator).await.map(drop)
}

/// Step 4, after the first traffic: the audit shows it, and the control plane has nothing left to say.
pub(crate) async fn verified(screen: Screen, operator: &Operator, ground: &Ground) -> Result<()> {
    let api = ground.control_plane.api()?;
    let released = || async { api.audit("outcome=inject").await.ok()?.first().map(drop) };
    ground.scratch.until("an audit event of the released credential", SYNC, released).await?;
    let audit = operator.call(Method::GET, "/v1/audit/events?outcome=inject&limit=1", &[]).await?;
    let (code, json) = ok(audit)?;
    screen.answer(&format!("{code}"));
    for name in ["outcome", "caller", "resource", "logical_path", "generation", "destination"] {
        screen.verbatim(&fields(&json["items"][0], &[name]));
    }
    if status(screen, operator).await?["ok"] == true {
        return Ok(());
    }
    Err(Fault::new("the control plane says that the setup is not complete (GET /v1/bootstrap/status, above)"))
}

async fn status(screen: Screen, operator: &Operator) -> Result<Value> {
    let (code, json) = ok(operator.call(Method::GET, "/v1/bootstrap/status", &[]).await?)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    screen.answer(&format!("{code}"));
    for step in json["steps"].as_array().into_iter().flatten() {
        let mark = if step["ok"] == true { Verdict::Held } else { Verdict::NotChecked };
        screen.row(mark, &format!("step {}  {}  {}", step["step"], text(&step["detail"]), text(&step["next"])));
    }
    Ok(json)
}

/// Waits until the resolver has taken every change that was made.
pub(crate) async fn in_sync(operator: &Operator, ground: &Ground) -> Result<()> {
    let path = format!("/v1/bouncers/{BOUNCER}");
    let current = || async {
        let answer = operator.quietly(Method::GET, &path, &[]).await.ok()?;
        let bridge = &answer.json["bridge"];
        (bridge["state"] == "connected" && bridge["epoch_lag"] == 0).then_some(())
    };
    ground.scratch.until("the resolver's taking of the newest policy", SYNC, current).await
}

/// Status and body of a success.
fn ok(answer: Answer) -> Result<(u16, Value)> {
    Ok((answer.status.as_u16(), answer.success()?))
}

/// A refusal in one line: the status, and what the problem document says of it.
pub(crate) fn told(answer: &Answer) -> String {
    let text = |key: &str| answer.json[key].as_str().unwrap_or_default();
    let said = if text("detail").is_empty() { text("title") } else { text("detail") };
    format!("{}  {said}", answer.status.as_u16())
}

/// Some fields of an answer in one line.
fn fields(json: &Value, names: &[&str]) -> String {
    let shown = |name: &&str| match &json[*name] {
        Value::String(text) => format!("{name}={}", shorten(text, 60)),
        other => format!("{name}={other}"),
    };
    names.iter().map(shown).collect::<Vec<_>>().join("  ")
}
