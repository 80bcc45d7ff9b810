//! The customer's Vault: a real OpenBao server over TLS, with its own port and nothing on disk.
//!
//! It trusts the scenario's trust domain twice, by JWT-SVID and by certificate, and holds one engine of each kind, in
//! the root namespace and in `team-a`.

use crate::pki::{Ca, Leaf};
use crate::process::Process;
use crate::scratch::{Scratch, free_port};
use crate::stack::BOUNCER_ID;
use crate::{Fault, Result, fault::Doing as _, tools};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// The audience that its roles want of a JWT-SVID.
pub const AUDIENCE: &str = "vault";
/// The role of both auth methods.
pub const ROLE: &str = "bouncer";
/// The namespace beside the root.
pub const TEAM: &str = "team-a";
/// The name that `pki` issues for.
pub const CLIENT_NAME: &str = "payments-east.example.org";
/// How long `pki`'s role lets a certificate live, in seconds.
pub const CLIENT_LIFE: u64 = 3_600;

const POLICY: &str = r#"
path "secret/data/*" { capabilities = ["read"] }
path "old/*" { capabilities = ["read"] }
path "transit/decrypt/*" { capabilities = ["update"] }
path "pki/issue/*" { capabilities = ["update"] }
"#;

/// A running server.
pub struct OpenBao {
    process: Process,
    address: String,
    token: String,
    unseal_key: String,
    http: reqwest::Client,
}

impl OpenBao {
    /// Starts it with a certificate of `servers`; identities of `domain_pem` and of the JWT key may log in, and `pki`
    /// issues as `clients`.
    ///
    /// # Errors
    /// If it is not installed or does not start.
    pub async fn start(scratch: &Scratch, servers: &Ca, clients: &Ca, domain_pem: &str, jwt_key: &str) -> Result<Self> {
        let port = free_port()?;
        // Else the next port, which may be another scenario's.
        let cluster_port = free_port()?;
        let identity = servers.issue(&Leaf::server("vault.test")?)?;
        let cert = scratch.write("vault.pem", &identity.cert_pem)?;
        let key = scratch.write("vault.key", &identity.key_pem)?;
        let listener = format!(
            "address = \"127.0.0.1:{port}\"\n  cluster_address = \"127.0.0.1:{cluster_port}\"\n  \
             tls_cert_file = {cert:?}\n  tls_key_file = {key:?}"
        );
        let config = format!("ui = true\nstorage \"inmem\" {{}}\nlistener \"tcp\" {{\n  {listener}\n}}\n");
        let config = scratch.write("openbao.hcl", config)?;
        let mut command = Command::new(tools::tool("bao")?);
        command.arg("server").arg("-config").arg(config).env_clear().env("HOME", scratch.path());
        let process = Process::spawn("openbao", scratch, command)?;
        let address = format!("https://127.0.0.1:{port}");
        let root = reqwest::Certificate::from_pem(servers.pem().as_bytes())?;
        let http =
            reqwest::Client::builder().no_proxy().tls_certs_only([root]).timeout(Duration::from_secs(20)).build()?;
        let up = || async { http.get(format!("{address}/v1/sys/seal-status")).send().await.ok() };
        process.until("answers", Duration::from_secs(60), up).await?;
        let mut bao = Self { process, address, token: String::new(), unseal_key: String::new(), http };
        let made = bao.call(Method::PUT, "", "sys/init", &json!({"secret_shares": 1, "secret_threshold": 1})).await?;
        bao.unseal_key = text(&made["keys"][0])?;
        bao.token = text(&made["root_token"])?;
        bao.unseal().await?;
        bao.call(Method::POST, "", &format!("sys/namespaces/{TEAM}"), &json!({})).await?;
        for namespace in ["", TEAM] {
            bao.furnish(namespace, clients, domain_pem, jwt_key).await?;
        }
        Ok(bao)
    }

    async fn furnish(&self, namespace: &str, clients: &Ca, domain_pem: &str, jwt_key: &str) -> Result<()> {
        let steps = [
            ("sys/policies/acl/bouncer", json!({"policy": POLICY})),
            ("sys/mounts/secret", json!({"type": "kv", "options": {"version": "2"}})),
            ("sys/mounts/old", json!({"type": "kv", "options": {"version": "1"}})),
            ("sys/mounts/transit", json!({"type": "transit"})),
            ("transit/keys/bouncer", json!({})),
            ("sys/mounts/pki", json!({"type": "pki"})),
            ("pki/config/ca", json!({"pem_bundle": clients.bundle()})),
            (
                "pki/roles/client",
                json!({
                    "allowed_domains": "example.org", "allow_subdomains": true, "max_ttl": CLIENT_LIFE, "key_type": "ec",
                    "key_bits": 256, "client_flag": true, "server_flag": false,
                }),
            ),
            ("sys/auth/jwt", json!({"type": "jwt"})),
            ("auth/jwt/config", json!({"jwt_validation_pubkeys": [jwt_key]})),
            (
                "auth/jwt/role/bouncer",
                json!({
                    "role_type": "jwt", "bound_audiences": [AUDIENCE], "bound_subject": BOUNCER_ID, "user_claim": "sub",
                    "token_policies": ["bouncer"], "token_ttl": "1h",
                }),
            ),
            ("sys/auth/cert", json!({"type": "cert"})),
            (
                "auth/cert/certs/bouncer",
                json!({
                    "certificate": domain_pem, "allowed_uri_sans": [BOUNCER_ID], "token_policies": ["bouncer"],
                }),
            ),
        ];
        for (path, body) in steps {
            self.call(Method::POST, namespace, path, &body).await.doing(path)?;
        }
        Ok(())
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its root token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A client that trusts its certificate.
    #[must_use]
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The server.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Calls it as the customer, who may do everything. The root namespace is "".
    ///
    /// # Errors
    /// If it says no.
    pub async fn call(&self, method: Method, namespace: &str, path: &str, body: &Value) -> Result<Value> {
        self.call_as(&self.token, method, namespace, path, body).await
    }

    /// Calls it as the bearer of another token.
    ///
    /// # Errors
    /// If it says no.
    pub async fn call_as(
        &self,
        token: &str,
        method: Method,
        namespace: &str,
        path: &str,
        body: &Value,
    ) -> Result<Value> {
        let answer = self
            .http
            .request(method, format!("{}/v1/{path}", self.address))
            .header("x-vault-token", token)
            .header("x-vault-namespace", namespace)
            .json(body)
            .send()
            .await
            .doing(path)?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            return Err(Fault::new(format!("OpenBao {path}: {status} {text}")));
        }
        if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }

    /// Writes a KV v2 secret and its custom metadata (`k=v,k=v`; empty for none).
    ///
    /// # Errors
    /// If it says no.
    pub async fn write_kv2(&self, namespace: &str, path: &str, data: &Value, custom: &str) -> Result<()> {
        let (mount, below) = path.split_once('/').ok_or_else(|| Fault::new("a path without mount"))?;
        self.call(Method::POST, namespace, &format!("{mount}/data/{below}"), &json!({"data": data})).await?;
        let custom: Value = custom
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), Value::from(v)))
            .collect();
        let custom = if custom.is_object() { custom } else { json!({}) };
        let path = format!("{mount}/metadata/{below}");
        self.call(Method::POST, namespace, &path, &json!({"custom_metadata": custom})).await.map(drop)
    }

    /// Encrypts with `transit`; gives the ciphertext.
    ///
    /// # Errors
    /// If it says no.
    pub async fn encrypt(&self, namespace: &str, path: &str, aad: &str, plaintext: &[u8]) -> Result<String> {
        let (mount, key) = path.split_once('/').ok_or_else(|| Fault::new("a path without mount"))?;
        let body = json!({"plaintext": STANDARD.encode(plaintext), "associated_data": STANDARD.encode(aad)});
        let answer = self.call(Method::POST, namespace, &format!("{mount}/encrypt/{key}"), &body).await?;
        text(&answer["data"]["ciphertext"])
    }

    /// What the resolver's policy allows from now on.
    ///
    /// # Errors
    /// If it says no.
    pub async fn set_policy(&self, policy: &str) -> Result<()> {
        self.call(Method::POST, "", "sys/policies/acl/bouncer", &json!({"policy": policy})).await.map(drop)
    }

    /// Revokes every token that a method has given.
    ///
    /// # Errors
    /// If it says no.
    pub async fn revoke_tokens(&self, method: &str) -> Result<()> {
        self.call(Method::PUT, "", &format!("sys/leases/revoke-prefix/auth/{method}"), &json!({})).await.map(drop)
    }

    /// Seals it.
    ///
    /// # Errors
    /// If it says no.
    pub async fn seal(&self) -> Result<()> {
        self.call(Method::PUT, "", "sys/seal", &json!({})).await.map(drop)
    }

    /// Unseals it, and waits until it serves.
    ///
    /// # Errors
    /// If it does not.
    pub async fn unseal(&self) -> Result<()> {
        self.call(Method::PUT, "", "sys/unseal", &json!({"key": self.unseal_key})).await?;
        let serves = || async {
            let answer = self.http.get(format!("{}/v1/sys/health", self.address)).send().await.ok()?;
            answer.status().is_success().then_some(())
        };
        self.process.until("is unsealed", Duration::from_secs(20), serves).await
    }
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).ok_or_else(|| Fault::new("OpenBao: an answer without the expected field"))
}
