//! The provider `vault_delegate`: a secret, a certificate or a plaintext from the customer's Vault or OpenBao.
//!
//! Logs in with the resolver's own SVID. One attempt at each server per call: the [`crate::cache`] decides when to try
//! again. Never asks a mount that the rails do not name with its engine, and never shows a token to anyone else.

mod answer;
mod client;
mod issued;
mod session;

use crate::config::{VaultConfig, VaultMountRail};
use crate::identity::Identity;
use crate::policy::Envelope;
use crate::unwrap::{Unwrap, UnwrapError, Unwrapped};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bouncer_custody::{KeyId, Reason, VaultEngine, VaultItem, VaultNamespace, VaultRef};
use client::{Answer, Call, Client};
use futures::future::BoxFuture;
use reqwest::Method;
use session::Sessions;
use std::sync::Arc;
use std::time::Duration;

/// How long logins ahead of need may take, all together.
const PREPARE: Duration = Duration::from_secs(2);

/// Why there can be no client for Vault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// The CA certificates can't be used.
    #[error("the CA certificates can't be used")]
    Ca,
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// The HTTP client can't be set up.
    #[error("HTTP: {0}")]
    Client(reqwest::Error),
}

/// One Vault: all its servers, and all its namespaces.
#[derive(Debug)]
pub struct Vault {
    client: Client,
    sessions: Sessions,
    mounts: Vec<VaultMountRail>,
}

impl Vault {
    /// Prepares the client; calls nothing yet.
    ///
    /// # Errors
    /// [`VaultError`], if the configured CA certificates can't be used.
    pub fn new(config: &VaultConfig, mounts: Vec<VaultMountRail>, identity: Arc<Identity>) -> Result<Self, VaultError> {
        let client = Client::new(config)?;
        Ok(Self { client, sessions: Sessions::new(identity, config.login.clone()), mounts })
    }

    async fn read(&self, envelope: &Envelope) -> Result<Unwrapped, UnwrapError> {
        let (KeyId::Vault(namespace), Some(reference)) = (&envelope.key_id, &envelope.vault) else {
            return Err(Reason::ProviderUnavailable.into());
        };
        // The engine of decisions has checked it; this is the last place before a call that would do something else.
        let rail = self.mounts.iter().find(|rail| rail.mount.holds(namespace, reference));
        let rail = rail.ok_or(UnwrapError::from(Reason::KeyNotAllowed))?;
        let call = call(namespace, reference, envelope, rail)?;
        let answer = self.ask(namespace, &call).await?;
        match answer.status.as_u16() {
            200 if answer.cut => Err(Reason::CredentialMalformed.into()),
            200 => understand(&answer, reference, rail),
            status => Err(refusal(status, reference.engine()).into()),
        }
    }

    /// As a holder of a token that Vault takes: one that it refuses is replaced once.
    async fn ask(&self, namespace: &VaultNamespace, call: &Call<'_>) -> Result<Answer, Reason> {
        let session = self.sessions.of(namespace);
        let (token, new) = self.sessions.token(&self.client, &session).await?;
        let answer = self.client.send(call, Some(token.secret())).await?;
        if answer.status.as_u16() != 403 || new {
            return Ok(answer);
        }
        let token = self.sessions.replace(&self.client, &session, &token).await?;
        self.client.send(call, Some(token.secret())).await
    }
}

impl Unwrap for Vault {
    fn unwrap<'a>(&'a self, envelope: &'a Envelope) -> BoxFuture<'a, Result<Unwrapped, UnwrapError>> {
        Box::pin(self.read(envelope))
    }

    fn prepare(&self) -> BoxFuture<'_, ()> {
        let namespaces: Vec<_> = self.mounts.iter().map(|rail| &rail.mount.namespace).collect();
        Box::pin(async move {
            // What is not there by then, a stream brings. Other chores wait meanwhile.
            let _ = tokio::time::timeout(PREPARE, self.sessions.prepare(&self.client, &namespaces)).await;
        })
    }
}

fn call<'a>(
    namespace: &'a VaultNamespace,
    reference: &VaultRef,
    envelope: &Envelope,
    rail: &VaultMountRail,
) -> Result<Call<'a>, UnwrapError> {
    let mount = &reference.mount;
    let (method, path, body) = match &reference.what {
        VaultItem::Kv2(path) => (Method::GET, format!("{mount}/data/{path}"), None),
        VaultItem::Kv1(path) => (Method::GET, format!("{mount}/{path}"), None),
        VaultItem::Pki(role) => {
            let rail = rail.pki.as_ref().filter(|rail| rail.role == *role);
            let rail = rail.ok_or(UnwrapError::from(Reason::KeyNotAllowed))?;
            (Method::POST, format!("{mount}/issue/{role}"), Some(issued::request(rail)?))
        }
        VaultItem::Transit(key, ciphertext) => {
            let mut body = vec![("ciphertext", ciphertext.as_str())];
            let aad = envelope.aad.as_ref().map(|aad| STANDARD.encode(aad.as_str()));
            body.extend(aad.as_deref().map(|aad| ("associated_data", aad)));
            (Method::POST, format!("{mount}/decrypt/{key}"), Some(answer::body(&body)?))
        }
    };
    Ok(Call { method, namespace: namespace.path(), path, body })
}

fn understand(answer: &Answer, reference: &VaultRef, rail: &VaultMountRail) -> Result<Unwrapped, UnwrapError> {
    match (reference.engine(), &rail.pki) {
        (VaultEngine::Kv2, _) => answer::kv2(&answer.body),
        (VaultEngine::Kv1, _) => answer::kv1(&answer.body),
        (VaultEngine::Transit, _) => answer::transit(&answer.body),
        (VaultEngine::Pki, Some(rail)) => issued::check(&answer.body, rail, jiff::Timestamp::now().as_second()),
        (VaultEngine::Pki, None) => Err(Reason::KeyNotAllowed.into()),
    }
}

/// What a final no means. [`client`] has dealt with those that pass.
const fn refusal(status: u16, engine: VaultEngine) -> Reason {
    match (status, engine) {
        (401 | 403, _) => Reason::VaultDenied,
        (404, _) => Reason::VaultNotFound,
        (400, VaultEngine::Transit) => Reason::VaultInvalidCiphertext,
        (400..=499, _) => Reason::VaultRequestRefused,
        _ => Reason::VaultUnavailable,
    }
}
