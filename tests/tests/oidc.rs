//! Signing in by an identity provider: OpenBao's own OpenID provider, with its discovery, its keys and their rotation, and
//! the code flow with PKCE.

use bouncer_tests::oidc::{PROVIDER, Site};
use bouncer_tests::{Fault, Result};
use reqwest::{Method, Url, header};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

/// Another issuer, of the same keys, clients and people.
const OTHER_PROVIDER: &str = "identity/oidc/provider/other";

fn text(json: &Value) -> Result<String> {
    json.as_str().map(str::to_owned).ok_or_else(|| Fault::new(format!("no text: {json}")))
}

/// A browser as far as it matters: it keeps cookies and does not go where it is sent by itself.
struct Browser {
    http: reqwest::Client,
    cookies: HashMap<String, String>,
}

impl Browser {
    fn new() -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .build()?;
        Ok(Self { http, cookies: HashMap::new() })
    }

    async fn get(&mut self, url: &str) -> Result<(u16, String, Value)> {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = self.http.get(url).header(header::COOKIE, cookies.join("; ")).send().await?;
        for cookie in answer.headers().get_all(header::SET_COOKIE) {
            let pair = cookie.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let status = answer.status().as_u16();
        let location = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default();
        Ok((status, location.to_owned(), answer.json().await.unwrap_or_default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_the_identity_provider_vouches_for_has_the_role_of_their_group() -> Result<()> {
    let site = Site::start("oidc-bearer").await?;
    let (alice, bob) = (site.person("alice", &["admins"]).await?, site.person("bob", &["payments"]).await?);
    let carol = site.person("carol", &["others"]).await?;

    let admin = site.id_token(&alice).await?;
    let who = site.api(&admin)?.get("/v1/session").await?.success()?;
    assert_eq!((&who["role"], &who["path_prefixes"]), (&json!("admin"), &json!([])));
    assert!(who["actor"].as_str().is_some_and(|actor| actor.starts_with("oidc:")), "{who}");
    site.api(&admin)?.set_flag(true).await?;
    let changes = site.control_plane.api()?.get("/v1/audit/admin-events?limit=1").await?.success()?;
    assert_eq!(changes["items"][0]["actor"], who["actor"], "the audit names the subject");

    let operator = site.api(&site.id_token(&bob).await?)?;
    let who = operator.get("/v1/session").await?.success()?;
    assert_eq!((&who["role"], &who["path_prefixes"]), (&json!("operator"), &json!(["payments/*"])));
    let refused = operator.get("/v1/tokens").await?;
    assert_eq!((refused.status.as_u16(), &refused.json["type"]), (403, &json!("urn:bouncer:problem:forbidden")));
    let nobody = site.api(&site.id_token(&carol).await?)?.get("/v1/session").await?;
    assert_eq!((nobody.status.as_u16(), &nobody.json["type"]), (403, &json!("urn:bouncer:problem:no_role")));

    // Keys are rotated: the new one is found, and the one before goes on.
    site.bao.call(Method::POST, "", "identity/oidc/key/ops/rotate", &json!({"verification_ttl": "1h"})).await?;
    let rotated = site.id_token(&alice).await?;
    assert_ne!(kid(&rotated)?, kid(&admin)?);
    let api = site.api(&rotated)?;
    let taken = || async { (api.get("/v1/session").await.ok()?.status == 200).then_some(()) };
    site.scratch.until("the rotated key is taken", Duration::from_secs(60), taken).await?;
    assert_eq!(site.api(&admin)?.get("/v1/session").await?.status, 200);

    // Another issuer's is none, also where the key, the audience and the person are the same.
    let provider = json!({"issuer": site.bao.address(), "allowed_client_ids": ["*"], "scopes_supported": ["groups"]});
    site.bao.call(Method::POST, "", OTHER_PROVIDER, &provider).await?;
    let others = site.id_token_of(OTHER_PROVIDER, &alice).await?;
    assert_eq!(kid(&others)?, kid(&rotated)?);
    assert_eq!(site.api(&others)?.get("/v1/session").await?.status, 401, "another issuer's token");

    // What is changed, or signed by nobody, or for another audience is none.
    let parts: Vec<&str> = admin.split('.').collect();
    let claims = parts[1].replacen(&parts[1][..1], if parts[1].starts_with('e') { "f" } else { "e" }, 1);
    let (head, body, signature) = (parts[0], parts[1], parts[2]);
    let reversed: String = signature.chars().rev().collect();
    let unsigned = "eyJhbGciOiJub25lIn0";
    let symmetric = "eyJhbGciOiJIUzI1NiJ9";
    for (what, forged) in [
        ("claims", format!("{head}.{claims}.{signature}")),
        ("signature", format!("{head}.{body}.{reversed}")),
        ("none", format!("{unsigned}.{body}.{signature}")),
        ("symmetric", format!("{symmetric}.{body}.{signature}")),
        ("no signature", format!("{head}.{body}.")),
    ] {
        assert_eq!(site.api(&forged)?.get("/v1/session").await?.status, 401, "{what}");
    }
    let other =
        json!({"redirect_uris": [site.callback], "assignments": ["allow_all"], "key": "ops", "id_token_ttl": "30m"});
    site.bao.call(Method::POST, "", "identity/oidc/client/other", &other).await?;
    let client = site.bao.call(Method::GET, "", "identity/oidc/client/other", &json!({})).await?["data"].clone();
    let mut elsewhere = site;
    (elsewhere.client_id, elsewhere.client_secret) = (text(&client["client_id"])?, text(&client["client_secret"])?);
    let token = elsewhere.id_token(&alice).await?;
    assert_eq!(elsewhere.api(&token)?.get("/v1/session").await?.status, 401, "another program's token");
    assert_eq!(elsewhere.api(&rotated)?.get("/v1/session").await?.status, 200, "the control");
    Ok(())
}

fn kid(token: &str) -> Result<String> {
    use base64::Engine as _;
    let head = token.split('.').next().unwrap_or_default();
    let head: Value = serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(head)?)?;
    text(&head["kid"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_signs_in_by_the_code_flow_and_a_code_is_good_for_it_alone() -> Result<()> {
    let site = Site::start("oidc-browser").await?;
    let alice = site.person("alice", &["admins"]).await?;
    let url = site.control_plane.url();
    let methods = site.control_plane.api()?.get("/v1/session/methods").await?.success()?;
    assert_eq!(methods, json!({"token": true, "oidc": {"name": "Ops"}}));

    let mut browser = Browser::new()?;
    let (status, to, _) = browser.get(&format!("{url}/v1/session/oidc/start")).await?;
    assert_eq!(status, 303);
    let to = Url::parse(&to)?;
    let asked: HashMap<_, _> = to.query_pairs().into_owned().collect();
    assert_eq!((asked["code_challenge_method"].as_str(), asked["code_challenge"].len()), ("S256", 43));
    assert_eq!((asked["scope"].as_str(), asked["redirect_uri"].as_str()), ("openid groups", site.callback.as_str()));
    let consent = site.consent(&alice, PROVIDER, to.query().unwrap_or_default()).await?;
    let back = format!("{}?code={}&state={}", site.callback, text(&consent["code"])?, text(&consent["state"])?);

    // Another browser that was lured to the way back is not signed in, and does not use the code up.
    let mut victim = Browser::new()?;
    let (status, to, _) = victim.get(&back).await?;
    assert_eq!((status, to.as_str()), (303, "/console/?error=csrf"));
    victim.get(&format!("{url}/v1/session/oidc/start")).await?;
    assert_eq!(victim.get(&back).await?.1, "/console/?error=csrf", "nor with an attempt of its own");
    assert_eq!(victim.get(&format!("{url}/v1/session")).await?.0, 401);

    let (status, to, _) = browser.get(&back).await?;
    assert_eq!((status, to.as_str()), (303, "/console/"));
    let (status, _, who) = browser.get(&format!("{url}/v1/session")).await?;
    assert_eq!((status, &who["role"]), (200, &json!("admin")), "{who}");
    assert!(who["csrf_token"].is_string() && who["expires_at"].is_string());
    // Once more with the same code: the provider has it no longer, and the attempt's cookie is gone.
    assert_eq!(browser.get(&back).await?.1, "/console/?error=csrf");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_down_is_said_so_and_tokens_of_our_own_go_on() -> Result<()> {
    let site = Site::start("oidc-down").await?;
    let alice = site.person("alice", &["admins"]).await?;
    let token = site.id_token(&alice).await?;
    site.bao.seal().await?;
    let answer = site.api(&token)?.get("/v1/session").await?;
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert_eq!(answer.json["type"], "urn:bouncer:problem:identity_provider_unavailable");
    assert_eq!(site.control_plane.api()?.get("/v1/session").await?.status, 200);
    site.bao.unseal().await?;
    let api = site.api(&token)?;
    let back = || async { (api.get("/v1/session").await.ok()?.status == 200).then_some(()) };
    site.scratch.until("the provider is found again", Duration::from_secs(60), back).await?;
    Ok(())
}
