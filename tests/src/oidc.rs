//! A control plane that signs people in by an identity provider: OpenBao's own OpenID provider, with its discovery, its keys
//! and its pages.

use crate::api::Api;
use crate::control_plane::{ControlPlane, Setup};
use crate::openbao::OpenBao;
use crate::pki::Ca;
use crate::scratch::Scratch;
use crate::stack::Identities;
use crate::workload_api::TrustDomain;
use crate::{Fault, Result};
use reqwest::{Method, Url};
use serde_json::{Value, json};

/// The issuer that the control plane trusts.
pub const PROVIDER: &str = "identity/oidc/provider/ops";
/// The password of everyone at the provider.
pub const PASSWORD: &str = "correct horse";

/// A control plane, and the provider that it trusts.
pub struct Site {
    /// The provider.
    pub bao: OpenBao,
    /// The control plane, which calls the provider "Ops".
    pub control_plane: ControlPlane,
    /// The control plane's name at the provider.
    pub client_id: String,
    /// By which the provider knows it.
    pub client_secret: String,
    /// Where the provider sends browsers back to.
    pub callback: String,
    /// The scenario's folder.
    pub scratch: Scratch,
    _identities: Identities,
}

fn text(json: &Value) -> Result<String> {
    json.as_str().map(str::to_owned).ok_or_else(|| Fault::new(format!("no text: {json}")))
}

impl Site {
    /// Starts both. The group `admins` stands for an administrator there, `payments` for an operator of `payments/*`.
    ///
    /// # Errors
    /// If one does not start.
    pub async fn start(name: &str) -> Result<Self> {
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
    ///
    /// # Errors
    /// If the provider says no.
    pub async fn person(&self, name: &str, groups: &[&str]) -> Result<String> {
        let password = json!({"password": PASSWORD});
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
    ///
    /// # Errors
    /// If the provider says no.
    pub async fn consent(&self, person: &str, provider: &str, query: &str) -> Result<Value> {
        self.bao.call_as(person, Method::GET, "", &format!("{provider}/authorize?{query}"), &json!({})).await
    }

    /// An ID token, as another program of the same person would get one.
    ///
    /// # Errors
    /// If the provider says no.
    pub async fn id_token(&self, person: &str) -> Result<String> {
        self.id_token_of(PROVIDER, person).await
    }

    /// The same of another provider with the same clients and people.
    ///
    /// # Errors
    /// If the provider says no.
    pub async fn id_token_of(&self, provider: &str, person: &str) -> Result<String> {
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

    /// A client of the control plane with this token.
    ///
    /// # Errors
    /// If no client can be made.
    pub fn api(&self, token: &str) -> Result<Api> {
        Api::new(self.control_plane.url(), Some(token))
    }
}
