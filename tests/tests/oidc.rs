//! Signing in by an identity provider: OpenBao's own OpenID provider, with its discovery, its keys and their rotation, and
//! the code flow with PKCE.

use bouncer_tests::api::Api;
use bouncer_tests::control_plane::{ControlPlane, Setup};
use bouncer_tests::openbao::OpenBao;
use bouncer_tests::pki::Ca;
use bouncer_tests::scratch::Scratch;
use bouncer_tests::stack::Identities;
use bouncer_tests::workload_api::TrustDomain;
use bouncer_tests::{Fault, Result};
use reqwest::{Method, Url, header};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;

const PROVIDER: &str = "identity/oidc/provider/ops";
/// Another issuer, of the same keys, clients and people.
const OTHER_PROVIDER: &str = "identity/oidc/provider/other";

struct Site {
    bao: OpenBao,
    control_plane: ControlPlane,
    client_id: String,
    client_secret: String,
    callback: String,
    scratch: Scratch,
    _identities: Identities,
}

fn text(json: &Value) -> Result<String> {
    json.as_str().map(str::to_owned).ok_or_else(|| Fault::new(format!("no text: {json}")))
}

impl Site {
    async fn start(name: &str) -> Result<Self> {
        let scratch = Scratch::new(name)?;
        let (servers, clients, domain) = (Ca::new("servers")?, Ca::new("clients")?, TrustDomain::new()?);
        let identities = Identities::own(&scratch)?;
        let jwt_key = identities.jwt_key_pem()?;
        let bao = OpenBao::start(&scratch, &servers, &clients, domain.ca().pem(), &jwt_key).await?;
        let mut setup = Setup::new(&scratch, identities.control_plane())?;
        let callback = format!("http://127.0.0.1:{}/v1/session/oidc/callback", setup.api_port);
        let template = r#"{"groups": {{identity.entity.groups.names}}}"#;
        let steps = [
            ("sys/auth/userpass", json!({"type": "userpass"})),
            ("identity/oidc/config", json!({"issuer": bao.address()})),
            (
                "identity/oidc/key/ops",
                json!({"algorithm": "ES256", "allowed_client_ids": ["*"], "verification_ttl": "1h"}),
            ),
            ("identity/oidc/scope/groups", json!({"template": template})),
            (PROVIDER, json!({"issuer": bao.address(), "allowed_client_ids": ["*"], "scopes_supported": ["groups"]})),
            (
                "identity/oidc/client/bouncer",
                json!({
                    "redirect_uris": [callback], "assignments": ["allow_all"], "key": "ops", "id_token_ttl": "30m",
                }),
            ),
        ];
        for (path, body) in steps {
            bao.call(Method::POST, "", path, &body).await?;
        }
        let client = bao.call(Method::GET, "", "identity/oidc/client/bouncer", &json!({})).await?["data"].clone();
        let (client_id, client_secret) = (text(&client["client_id"])?, text(&client["client_secret"])?);
        let ca = scratch.write("issuer-ca.pem", servers.pem())?;
        let secret = scratch.write("client-secret", &client_secret)?;
        setup.more = format!(
            "[oidc]\nissuer = \"{}/v1/{PROVIDER}\"\naudience = \"{client_id}\"\nca_file = {ca:?}\nname = \"Ops\"\n\
             client_id = \"{client_id}\"\nclient_secret_file = {secret:?}\npublic_url = \"http://127.0.0.1:{}\"\n\
             scopes = [\"groups\"]\n\
             [[oidc.roles]]\nvalue = \"admins\"\nrole = \"admin\"\n\
             [[oidc.roles]]\nvalue = \"payments\"\nrole = \"operator\"\npath_prefixes = [\"payments/*\"]\n",
            bao.address(),
            setup.api_port
        );
        let control_plane = ControlPlane::start(&scratch, setup).await?;
        Ok(Self { bao, control_plane, client_id, client_secret, callback, scratch, _identities: identities })
    }

    /// Someone at the provider, in these groups: their token there.
    async fn person(&self, name: &str, groups: &[&str]) -> Result<String> {
        let password = json!({"password": "correct horse"});
        self.bao.call(Method::POST, "", &format!("auth/userpass/users/{name}"), &password).await?;
        let login = self.bao.call_as("", Method::POST, "", &format!("auth/userpass/login/{name}"), &password).await?;
        let entity = text(&login["auth"]["entity_id"])?;
        for group in groups {
            let body = json!({"name": group, "member_entity_ids": [entity], "type": "internal"});
            self.bao.call(Method::POST, "", "identity/group", &body).await?;
        }
        // Its policies let it ask the provider for a code.
        let path = "identity/oidc/provider/+/authorize";
        let policy = json!({"policy": format!("path \"{path}\" {{ capabilities = [\"read\", \"update\"] }}")});
        self.bao.call(Method::POST, "", "sys/policies/acl/sign-in", &policy).await?;
        let body = json!({"token_policies": ["sign-in"]});
        self.bao.call(Method::POST, "", &format!("auth/userpass/users/{name}"), &body).await?;
        let login = self.bao.call_as("", Method::POST, "", &format!("auth/userpass/login/{name}"), &password).await?;
        text(&login["auth"]["client_token"])
    }

    /// What the provider's page does once somebody said who they are: the answer holds code and state.
    async fn consent(&self, person: &str, provider: &str, query: &str) -> Result<Value> {
        self.bao.call_as(person, Method::GET, "", &format!("{provider}/authorize?{query}"), &json!({})).await
    }

    /// An ID token, as another program of the same person would get one.
    async fn id_token(&self, person: &str) -> Result<String> {
        self.id_token_of(PROVIDER, person).await
    }

    async fn id_token_of(&self, provider: &str, person: &str) -> Result<String> {
        let mut query = Url::parse("http://x/")?;
        query.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", &self.client_id),
            ("redirect_uri", &self.callback),
            ("scope", "openid groups"),
            ("state", "s"),
            ("nonce", "n"),
        ]);
        let consent = self.consent(person, provider, query.query().unwrap_or_default()).await?;
        let answer = self
            .bao
            .http()
            .post(format!("{}/v1/{provider}/token", self.bao.address()))
            .basic_auth(&self.client_id, Some(&self.client_secret))
            .form(&[
                ("grant_type", "authorization_code"),
                ("code", &text(&consent["code"])?),
                ("redirect_uri", &self.callback),
            ])
            .send()
            .await?;
        text(&answer.json::<Value>().await?["id_token"])
    }

    fn api(&self, token: &str) -> Result<Api> {
        Api::new(self.control_plane.url(), Some(token))
    }
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
    let elsewhere =
        Site { client_id: text(&client["client_id"])?, client_secret: text(&client["client_secret"])?, ..site };
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
