//! The whole of it, for one scenario: identities, KMS, upstreams, control plane, resolver, Envoy, and what is registered.
//!
//! Start with [`Stack::builder`], change what the scenario is about, and `start`. What is not changed is the seed guide's
//! case: the bouncer `payments-east`, the cluster `payments`, one credential that binds `env` and `bouncer` by its AAD,
//! and rails for the rest.

mod builder;
mod identities;
mod spec;
mod vault;

pub use builder::Builder;
pub use identities::Identities;
pub use spec::{Bundle, Cluster, Credential, InVault, Wants};
pub use vault::Login;

use crate::api::Api;
use crate::bridge::Bridge;
use crate::client::{Client, Protocol};
use crate::control_plane::ControlPlane;
use crate::envoy::{Envoy, Rendered};
use crate::kms::Kms;
use crate::openbao::OpenBao;
use crate::pki::{Ca, Identity};
use crate::resolver::Resolver;
use crate::scratch::Scratch;
use crate::tls_front::TlsFront;
use crate::upstream::Upstream;
use crate::vault_proxy::VaultProxy;
use crate::{Fault, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// This bouncer.
pub const BOUNCER: &str = "payments-east";
/// Its resolver's identity.
pub const BOUNCER_ID: &str = "spiffe://example.org/bouncer/payments-east";
/// The control plane's identity.
pub const CONTROL_PLANE_ID: &str = "spiffe://example.org/bouncer/control-plane";
/// A caller that is allowed by default.
pub const CART: &str = "spiffe://example.org/ns/shop/sa/cart";

/// The SPIFFE ID of a caller of this name.
#[must_use]
pub fn caller(name: &str) -> String {
    format!("spiffe://example.org/ns/shop/sa/{name}")
}
/// Another one, which no credential is registered for by default.
pub const BILLING: &str = "spiffe://example.org/ns/shop/sa/billing";
/// One that the rails do not allow.
pub const STRANGER: &str = "spiffe://example.org/ns/other/sa/stranger";
/// The AAD of the seed guide.
pub const AAD: &str = "env=production,bouncer=payments-east";
/// The name that upstreams' certificates carry.
pub const UPSTREAM_NAME: &str = "payments.internal";

/// A running stack. Its parts stop in the order of the fields.
pub struct Stack {
    /// Envoy, unless the scenario wanted none.
    pub envoy: Option<Envoy>,
    /// The resolver, unless it was stopped.
    pub resolver: Option<Resolver>,
    /// The control plane, unless it was stopped or the scenario has a bridge of its own.
    pub control_plane: Option<ControlPlane>,
    /// The scenario's own bridge, if it wanted one.
    pub bridge: Option<Bridge>,
    /// The upstreams by cluster.
    pub upstreams: BTreeMap<String, Upstream>,
    /// KMS and STS.
    pub kms: Kms,
    /// TLS in front of it, if the scenario wanted that.
    pub kms_front: Option<TlsFront>,
    /// The customer's key.
    pub key_arn: String,
    /// The proxy in front of Vault, if the scenario wanted one.
    pub vault_proxy: Option<VaultProxy>,
    /// The customer's Vault, if the scenario wanted one.
    pub vault: Option<OpenBao>,
    /// Who gives identities.
    pub identities: Identities,
    /// What the customer wrapped, by the resource's name.
    pub credentials: BTreeMap<String, Identity>,
    /// The id that the control plane gave each envelope, by the resource's name.
    pub envelopes: BTreeMap<String, String>,
    /// The authority of the customer's client certificates.
    pub customer_ca: Ca,
    /// The authority of all servers' certificates.
    pub server_ca: Ca,
    /// What Envoy runs.
    pub rendered: Rendered,
    resolver_setup: crate::resolver::Setup,
    /// The folder; last, so that everything in it is stopped before it goes.
    pub scratch: Scratch,
}

impl Stack {
    /// A stack of the default case, to be changed.
    #[must_use]
    pub fn builder(scenario: &str) -> Builder {
        Builder::new(scenario)
    }

    /// Envoy.
    ///
    /// # Errors
    /// If the scenario wanted none.
    pub fn envoy(&self) -> Result<&Envoy> {
        self.envoy.as_ref().ok_or_else(|| Fault::new("this stack has no Envoy"))
    }

    /// The resolver.
    ///
    /// # Errors
    /// If it was stopped.
    pub fn resolver(&self) -> Result<&Resolver> {
        self.resolver.as_ref().ok_or_else(|| Fault::new("this stack's resolver was stopped"))
    }

    /// The control plane.
    ///
    /// # Errors
    /// If it was stopped.
    pub fn control_plane(&self) -> Result<&ControlPlane> {
        self.control_plane.as_ref().ok_or_else(|| Fault::new("this stack's control plane was stopped"))
    }

    /// The control plane's API.
    ///
    /// # Errors
    /// If it was stopped.
    pub fn api(&self) -> Result<Api> {
        self.control_plane()?.api()
    }

    /// The scenario's own bridge.
    ///
    /// # Errors
    /// If it wanted none.
    pub fn bridge(&self) -> Result<&Bridge> {
        self.bridge.as_ref().ok_or_else(|| Fault::new("this stack has a control plane"))
    }

    /// The customer's Vault.
    ///
    /// # Errors
    /// If the scenario wanted none.
    pub fn vault(&self) -> Result<&OpenBao> {
        self.vault.as_ref().ok_or_else(|| Fault::new("this stack has no Vault"))
    }

    /// The proxy in front of it.
    ///
    /// # Errors
    /// If the scenario wanted none.
    pub fn vault_proxy(&self) -> Result<&VaultProxy> {
        self.vault_proxy.as_ref().ok_or_else(|| Fault::new("this stack has no proxy in front of Vault"))
    }

    /// The upstream behind a cluster.
    ///
    /// # Errors
    /// If there is no such cluster.
    pub fn upstream(&self, cluster: &str) -> Result<&Upstream> {
        self.upstreams.get(cluster).ok_or_else(|| Fault::new(format!("no cluster {cluster}")))
    }

    /// The client certificate that the customer wrapped for a resource.
    ///
    /// # Errors
    /// If there is no such resource.
    pub fn credential(&self, resource: &str) -> Result<&Identity> {
        self.credentials.get(resource).ok_or_else(|| Fault::new(format!("no resource {resource}")))
    }

    /// A client of Envoy with the given identity.
    ///
    /// # Errors
    /// If it can't be issued.
    pub fn client(&self, spiffe_id: &str, protocol: Protocol) -> Result<Client> {
        let identity = self.identities.mint(spiffe_id)?;
        Client::new(self.envoy()?.listener(), self.server_ca.pem(), Some(&identity), protocol)
    }

    /// A client of Envoy with any certificate, or none.
    ///
    /// # Errors
    /// If it can't be used.
    pub fn client_with(&self, identity: Option<&Identity>, protocol: Protocol) -> Result<Client> {
        Client::new(self.envoy()?.listener(), self.server_ca.pem(), identity, protocol)
    }

    /// Waits for a condition on the stack.
    ///
    /// # Errors
    /// After `deadline`, with the ends of all logs.
    #[track_caller]
    pub fn until<T, F>(
        &self,
        what: impl Into<String>,
        deadline: Duration,
        condition: impl FnMut() -> F,
    ) -> impl Future<Output = Result<T>>
    where
        F: Future<Output = Option<T>>,
    {
        self.scratch.until(what, deadline, condition)
    }

    /// Waits for the first audit event that a condition holds for, as the control plane lists it.
    ///
    /// # Errors
    /// If none arrives in time.
    pub async fn audited(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        self.until(format!("an audit event: {what}"), Duration::from_secs(15), || async {
            self.audit().await.ok()?.into_iter().find(&condition)
        })
        .await
    }

    /// The audit events so far: of the control plane, or what the resolver told the scenario's own bridge.
    ///
    /// # Errors
    /// If the control plane does not answer.
    pub async fn audit(&self) -> Result<Vec<Value>> {
        match &self.bridge {
            None => self.api()?.audit("").await,
            Some(bridge) => Ok(bridge.said().events.iter().map(crate::bridge::event_json).collect()),
        }
    }

    /// Kills the resolver as `kill -9` does.
    pub fn kill_resolver(&mut self) {
        if let Some(resolver) = self.resolver.take() {
            resolver.process().kill();
        }
    }

    /// Starts the resolver again, without waiting for it.
    ///
    /// # Errors
    /// If it does not start.
    pub fn restart_resolver(&mut self) -> Result<()> {
        self.kill_resolver();
        self.resolver = Some(Resolver::spawn(&self.scratch, self.resolver_setup.clone())?);
        Ok(())
    }

    /// Starts the resolver again and waits for it.
    ///
    /// # Errors
    /// If it does not get ready.
    pub async fn restart_resolver_until_ready(&mut self) -> Result<()> {
        self.restart_resolver()?;
        self.resolver()?.ready().await
    }

    /// Starts the resolver as on a new node, with nothing on disk and nothing registered, and waits for it.
    ///
    /// # Errors
    /// If the scenario has no bridge of its own, or the resolver does not get ready.
    pub async fn fresh_resolver(&mut self) -> Result<()> {
        self.kill_resolver();
        std::fs::remove_dir_all(self.scratch.file("resolver"))?;
        self.scratch.folder("resolver")?;
        self.bridge()?.push(|snapshot| {
            snapshot.resources.clear();
            snapshot.envelopes.clear();
        });
        self.restart_resolver_until_ready().await
    }

    /// Starts the resolver again with another configuration, as an operator does who changes it, and waits for it.
    ///
    /// # Errors
    /// If it does not get ready.
    pub async fn reconfigure_resolver(&mut self, edit: impl FnOnce(&mut crate::resolver::Setup)) -> Result<()> {
        edit(&mut self.resolver_setup);
        self.restart_resolver_until_ready().await
    }

    /// Stops the control plane as `kill -9` does.
    ///
    /// # Errors
    /// If it was stopped before.
    pub fn kill_control_plane(&mut self) -> Result<(crate::control_plane::Setup, String)> {
        let control_plane = self.control_plane.take().ok_or_else(|| Fault::new("no control plane"))?;
        control_plane.process().kill();
        Ok((control_plane.setup().clone(), control_plane.token().to_owned()))
    }

    /// Starts the control plane again on its old database.
    ///
    /// # Errors
    /// If it does not get ready.
    pub async fn restart_control_plane(&mut self) -> Result<()> {
        let (setup, token) = self.kill_control_plane()?;
        self.control_plane = Some(ControlPlane::serve(&self.scratch, setup, token).await?);
        Ok(())
    }
}
