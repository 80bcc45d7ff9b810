//! A client of the control plane's REST API, as an operator's script would be one.

use crate::{Fault, Result, fault::Doing as _};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

/// The flag that everything hangs on.
pub const FLAG: &str = "flags.crypto.dual_custody_intercept";

/// A client with or without a token.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body; null where it is no JSON.
    pub json: Value,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// The body, if the status is a success.
    ///
    /// # Errors
    /// If it is not, with what the control plane said.
    #[track_caller]
    pub fn success(self) -> Result<Value> {
        if self.status.is_success() {
            Ok(self.json)
        } else {
            Err(Fault::new(format!("the control plane answered {}: {}", self.status, self.text)))
        }
    }
}

impl Api {
    /// A client of the API at a base URL.
    ///
    /// # Errors
    /// If no client can be made.
    pub fn new(base: String, token: Option<&str>) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
        Ok(Self { http, base, token: token.map(str::to_owned) })
    }

    /// Any call.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let what = format!("{method} {path}");
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.doing(&what)?;
        let status = answer.status();
        let text = answer.text().await.doing(&what)?;
        Ok(Answer { status, json: serde_json::from_str(&text).unwrap_or_default(), text })
    }

    /// GET.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.call(Method::GET, path, None).await
    }

    /// POST.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// PUT.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        self.call(Method::PUT, path, Some(body)).await
    }

    /// Turns the flag on or off.
    ///
    /// # Errors
    /// If the control plane says no.
    pub async fn set_flag(&self, enabled: bool) -> Result<()> {
        let path = format!("/v1/feature-flags/{FLAG}");
        self.put(&path, &json!({"enabled": enabled})).await?.success().doing("the flag").map(drop)
    }

    /// Registers a bouncer.
    ///
    /// # Errors
    /// If the control plane says no.
    pub async fn register_bouncer(&self, name: &str, spiffe_id: &str) -> Result<Value> {
        let body = json!({"name": name, "spiffe_id": spiffe_id});
        self.post("/v1/bouncers", &body).await?.success().doing("registering the bouncer")
    }

    /// Registers an envelope, or another generation of one.
    ///
    /// # Errors
    /// If the control plane says no.
    pub async fn register_envelope(&self, envelope: &Value) -> Result<Value> {
        self.post("/v1/crypto/envelope-secrets", envelope).await?.success().doing("registering an envelope")
    }

    /// Enables or disables an envelope.
    ///
    /// # Errors
    /// If the control plane says no.
    pub async fn enable_envelope(&self, id: &str, enabled: bool) -> Result<Value> {
        let path = format!("/v1/crypto/envelope-secrets/{id}");
        self.call(Method::PATCH, &path, Some(&json!({"enabled": enabled}))).await?.success().doing("an envelope")
    }

    /// All audit events that match a query such as `outcome=deny`, newest first as the API gives them, over all pages.
    ///
    /// # Errors
    /// If the control plane says no.
    pub async fn audit(&self, query: &str) -> Result<Vec<Value>> {
        let mut events = vec![];
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/audit/events?limit=200&{query}{cursor}");
            let page = self.get(&path).await?.success().doing("the audit")?;
            let items = page["items"].as_array().ok_or_else(|| Fault::new(format!("audit without items: {page}")))?;
            events.extend(items.iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(events),
            }
        }
    }
}
