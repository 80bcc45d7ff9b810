//! Traffic through the listener: what must pass, and what must not, each sent once for its own reason.
//!
//! Called by `main` after the guide. It also plays the control plane in hostile hands: it registers what the customer
//! never wrapped for this bouncer, and takes it back at the end.

use crate::guide::{self, SECRETS};
use crate::operator::Operator;
use crate::parts::{Ground, Intercept, REPORTS};
use crate::screen::{Screen, Verdict};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bouncer_custody::Reason;
use bouncer_tests::client::Reply;
use bouncer_tests::pki::{Identity, Leaf};
use bouncer_tests::stack::{AAD, BILLING, CART, STRANGER, caller};
use bouncer_tests::upstream::Seen;
use bouncer_tests::{Fault, Result};
use http::Method;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How many more streams the allowed caller sends.
const WARM: usize = 200;
/// How many warm connections the flag is turned off under.
pub(crate) const WARM_CLIENTS: usize = 8;
const OTHER_BOUNCER: &str = "env=production,bouncer=payments-west";
/// No denial may take longer.
const SOON: Duration = Duration::from_secs(1);

/// A stream that had to be refused.
pub(crate) struct Refusal {
    /// Whose it was, in words.
    pub(crate) what: &'static str,
    /// The caller's SPIFFE ID.
    pub(crate) caller: String,
    /// What the client got.
    pub(crate) reply: Reply,
    /// Refused as expected, and soon.
    pub(crate) verdict: Verdict,
}

/// What the allowed streams showed.
pub(crate) struct Allowed {
    /// What the upstream saw of the first.
    pub(crate) seen: Seen,
    /// KMS calls for all of them.
    pub(crate) decrypts: usize,
    /// A bearer token that the first one carried.
    pub(crate) bearer: String,
}

/// What the others showed.
pub(crate) struct Refusals {
    /// Connections that an upstream saw meanwhile.
    pub(crate) leaked_connections: u64,
    /// Each of them.
    pub(crate) streams: Vec<Refusal>,
    /// Whether a client without a certificate was kept out.
    pub(crate) without_certificate: Verdict,
    /// The credentials that were wrapped for them.
    pub(crate) credentials: Vec<Identity>,
}

/// Sends what must pass.
pub(crate) async fn allowed(screen: Screen, ground: &Ground, intercept: &Intercept) -> Result<Allowed> {
    screen.blank();
    screen.say("Test traffic through the Bouncer listener:");
    let bearer = format!("demo-{}", uuid::Uuid::new_v4().simple());
    let cart = ground.client(intercept, Some(&ground.identities.mint(CART)?))?;
    let authorization = format!("Bearer {bearer}");
    let headers = [("x-bouncer-facts", "forged by the client"), ("authorization", authorization.as_str())];
    let first = cart.get_with("/orders?id=1", &headers).await?;
    let seen = first.seen()?;
    screen.row(Verdict::Held, &row("cart, the caller that the resource names", &first));
    for _ in 0..WARM {
        cart.get("/orders").await?.seen()?;
    }
    let decrypts = ground.kms.proxy().count("Decrypt");
    let once = if decrypts == 1 { Verdict::Held } else { Verdict::Broken };
    screen.row(
        once,
        &format!("{:<56} 200   KMS was asked {decrypts} time(s) in all", format!("cart, {WARM} times more")),
    );
    Ok(Allowed { seen, decrypts, bearer })
}

/// Makes the filter read a text that nobody else has, which is then in its memory.
pub(crate) async fn plant(ground: &Ground, intercept: &Intercept) -> Result<String> {
    let planted = uuid::Uuid::new_v4().simple().to_string();
    let cart = ground.client(intercept, Some(&ground.identities.mint(CART)?))?;
    cart.get_with("/orders", &[("host", &format!("{planted}.example.org"))]).await?.seen()?;
    Ok(planted)
}

/// Sends what must not pass.
pub(crate) async fn refusals(
    screen: Screen,
    operator: &Operator,
    ground: &Ground,
    intercept: &Intercept,
) -> Result<Refusals> {
    screen.blank();
    screen.say("And what must not pass:");
    let before = ground.payments.connections() + ground.reports.connections();
    let mut streams = vec![];
    let unregistered = format!("/{REPORTS}/");
    for (what, spiffe_id, path, reasons) in [
        ("billing, whom the resource does not name", BILLING, "/orders", &[Reason::CallerNotAllowed][..]),
        ("a stranger, whom the rails do not allow", STRANGER, "/orders", &[Reason::CallerNotAllowed]),
        ("cart, to an upstream that nobody registered", CART, &unregistered, &[Reason::NotRegistered]),
    ] {
        streams.push(refused(screen, ground, intercept, (what, spiffe_id, path), reasons).await?);
    }
    let without = ground.client(intercept, None)?.get("/orders").await;
    let without_certificate = if without.is_err() { Verdict::Held } else { Verdict::Broken };
    screen.row(without_certificate, &format!("{:<56} no TLS connection", "nobody: a client without a certificate"));
    let (credentials, forged) = hostile(screen, operator, ground, intercept).await?;
    streams.extend(forged);
    let leaked_connections = ground.payments.connections() + ground.reports.connections() - before;
    Ok(Refusals { leaked_connections, streams, without_certificate, credentials })
}

/// What a control plane in hostile hands would register.
struct Forgery {
    what: &'static str,
    /// The protected resource, and the caller's short name.
    name: &'static str,
    /// The pairs that the customer wrapped it with.
    wrapped: &'static str,
    /// The pairs that are registered.
    registered: &'static str,
    /// Flips a bit of the ciphertext.
    flip: bool,
    reasons: &'static [Reason],
}

const FORGERIES: [Forgery; 3] = [
    Forgery {
        what: "tampered AAD: made for payments-west, relabelled",
        name: "ledger",
        wrapped: OTHER_BOUNCER,
        registered: AAD,
        flip: false,
        reasons: &[Reason::KmsInvalidCiphertext],
    },
    Forgery {
        what: "made for payments-west, and labelled so",
        name: "payroll",
        wrapped: OTHER_BOUNCER,
        registered: OTHER_BOUNCER,
        flip: false,
        reasons: &[Reason::BindingBouncer],
    },
    Forgery {
        what: "tampered ciphertext: one bit of it flipped",
        name: "refunds",
        wrapped: AAD,
        registered: AAD,
        flip: true,
        reasons: &[Reason::KmsInvalidCiphertext],
    },
];

async fn hostile(
    screen: Screen,
    operator: &Operator,
    ground: &Ground,
    intercept: &Intercept,
) -> Result<(Vec<Identity>, Vec<Refusal>)> {
    screen.blank();
    screen.say("The same with a control plane in hostile hands, which registers what is not for this bouncer:");
    let (mut ids, mut credentials) = (vec![], vec![]);
    for forgery in &FORGERIES {
        let credential = ground.customer_ca.issue(&Leaf::new(forgery.name))?;
        let mut envelope = guide::wrap(operator, ground, &credential, forgery.wrapped, false).await?;
        envelope["aad"] = forgery.registered.into();
        if forgery.flip {
            envelope["ciphertext_ref"] = flip_a_bit(&envelope["ciphertext_ref"])?;
        }
        let path = format!("protected-resources/{}/upstream-tls", forgery.name);
        let stored = operator.must(Method::POST, SECRETS, &guide::body(&path, &envelope)).await?;
        ids.push(stored["id"].as_str().ok_or_else(|| Fault::new("an envelope without id"))?.to_owned());
        let resource = guide::resource(forgery.name, ground, &path, &caller(forgery.name));
        operator.must(Method::POST, "/v1/protected-resources", &resource).await?;
        credentials.push(credential);
    }
    guide::in_sync(operator, ground).await?;
    let mut refusals = vec![];
    for forgery in &FORGERIES {
        let caller = caller(forgery.name);
        refusals.push(refused(screen, ground, intercept, (forgery.what, &caller, "/orders"), forgery.reasons).await?);
    }
    for (forgery, id) in FORGERIES.iter().zip(ids) {
        operator.must(Method::DELETE, &format!("/v1/protected-resources/{}", forgery.name), &[]).await?;
        operator.must(Method::DELETE, &format!("{SECRETS}/{id}"), &[]).await?;
    }
    guide::in_sync(operator, ground).await?;
    Ok((credentials, refusals))
}

/// In the last byte, which every authenticated ciphertext covers.
fn flip_a_bit(base64: &Value) -> Result<Value> {
    let mut bytes = STANDARD.decode(base64.as_str().unwrap_or_default())?;
    *bytes.last_mut().ok_or_else(|| Fault::new("an empty ciphertext"))? ^= 1;
    Ok(STANDARD.encode(bytes).into())
}

/// Sends one stream that must be refused.
async fn refused(
    screen: Screen,
    ground: &Ground,
    intercept: &Intercept,
    (what, spiffe_id, path): (&'static str, &str, &str),
    reasons: &[Reason],
) -> Result<Refusal> {
    let identity = ground.identities.mint(spiffe_id)?;
    let reply = ground.client(intercept, Some(&identity))?.get(path).await?;
    let reason = reply.reason().and_then(|code| code.parse::<Reason>().ok());
    let good = reason.is_some_and(|reason| reasons.contains(&reason) && reply.status == reason.http_status());
    let good = good && reply.took < SOON && reply.decision().is_some();
    let verdict = if good { Verdict::Held } else { Verdict::Broken };
    screen.row(verdict, &row(what, &reply));
    Ok(Refusal { what, caller: spiffe_id.to_owned(), reply, verdict })
}

fn row(what: &str, reply: &Reply) -> String {
    let reason = reply.reason().unwrap_or_default();
    format!("{what:<56} {:<5} {reason:<24} {:>5} ms", reply.status.as_u16(), reply.took.as_millis())
}

/// How the control plane took two tries to register plaintext: the status of each.
pub(crate) struct Plaintext {
    pub(crate) statuses: Vec<u16>,
    /// The key that was offered: another one than the credential's.
    pub(crate) decoy: Identity,
}

/// Offers the control plane a private key instead of a ciphertext, as PEM and as base64 of DER.
pub(crate) async fn offer_plaintext(operator: &Operator, ground: &Ground) -> Result<Plaintext> {
    let decoy = ground.customer_ca.issue(&Leaf::new("decoy"))?;
    let mut statuses = vec![];
    for plaintext in [decoy.key_pem.clone(), STANDARD.encode(&decoy.key_der)] {
        let body = [
            ("logical_path", json!("protected-resources/decoy/upstream-tls")),
            ("key_id", json!(ground.key_arn)),
            ("ciphertext_ref", json!(plaintext)),
            ("provider", json!("kms_envelope")),
        ];
        statuses.push(operator.quietly(Method::POST, SECRETS, &body).await?.status.as_u16());
    }
    Ok(Plaintext { statuses, decoy })
}

/// Turns the flag off under warm traffic, and on again. Gives how long a warm stream still went through.
pub(crate) async fn turn_off(operator: &Operator, ground: &Ground, intercept: &Intercept) -> Result<Duration> {
    let flag = format!("/v1/feature-flags/{}", bouncer_tests::api::FLAG);
    let deadline = Duration::from_secs(10);
    // Each worker of Envoy has decisions of its own: enough connections for every one of them.
    let identity = ground.identities.mint(CART)?;
    let mut clients = vec![];
    for _ in 0..WARM_CLIENTS {
        let client = ground.client(intercept, Some(&identity))?;
        client.get("/orders").await?.seen()?;
        clients.push(client);
    }
    let start = Instant::now();
    operator.must(Method::PUT, &flag, &[("enabled", false.into())]).await?;
    for client in &clients {
        let denied = || async {
            let reply = client.get("/orders").await.ok()?;
            (reply.reason()? == Reason::FeatureDisabled.code()).then_some(())
        };
        ground.scratch.until("the denial of a warm stream with the flag off", deadline, denied).await?;
    }
    let took = start.elapsed();
    operator.must(Method::PUT, &flag, &[("enabled", true.into())]).await?;
    for client in &clients {
        let allowed = || async { (client.get("/orders").await.ok()?.status == 200).then_some(()) };
        ground.scratch.until("streams passing again with the flag on", deadline, allowed).await?;
    }
    Ok(took)
}
