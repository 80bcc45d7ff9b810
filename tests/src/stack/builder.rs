//! What a scenario wants of its stack, and the order in which it comes up.

use super::{
    BOUNCER, BOUNCER_ID, CONTROL_PLANE_ID, Cluster, Credential, Identities, Login, Stack, UPSTREAM_NAME, Wants, vault,
};
use crate::bridge::{self, Bridge};
use crate::client::ENVOY_NAME;
use crate::control_plane::ControlPlane;
use crate::envoy::{Bootstrap, Envoy, Rendered, Values, Version};
use crate::kms::{Kms, ROLE_ARN};
use crate::kms_proxy::Behaviour;
use crate::openbao::OpenBao;
use crate::pki::{self, Ca, Identity, Leaf};
use crate::resolver::{self, Resolver};
use crate::scratch::Scratch;
use crate::sts::{self, Trust};
use crate::tls_front::TlsFront;
use crate::upstream::{ClientAuth, Upstream};
use crate::vault_proxy::VaultProxy;
use crate::{Fault, Result, control_plane, tools};
use bouncer_proto::bridge::v1 as wire;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

type EditBootstrap = Box<dyn FnOnce(&mut Bootstrap) -> Result<()> + Send>;
type EditResolver = Box<dyn FnOnce(&mut resolver::Setup) + Send>;

/// Who tells the resolver what is registered.
struct Authority {
    control_plane: Option<ControlPlane>,
    bridge: Option<Bridge>,
    address: String,
    // Ids by the resource's name.
    envelopes: BTreeMap<String, String>,
}

/// What a scenario wants.
pub struct Builder {
    scenario: String,
    spire: bool,
    vault: Option<Login>,
    unprivileged: bool,
    login: bool,
    named: bool,
    version: Version,
    workers: usize,
    with_envoy: bool,
    own_bridge: bool,
    kms_over_tls: bool,
    flag: bool,
    control_plane: String,
    filter: Option<PathBuf>,
    clusters: Vec<Cluster>,
    credentials: Vec<Credential>,
    edit_bootstrap: Vec<EditBootstrap>,
    edit_resolver: Vec<EditResolver>,
}

impl Builder {
    pub(super) fn new(scenario: &str) -> Self {
        Self {
            scenario: scenario.to_owned(),
            spire: false,
            vault: None,
            unprivileged: false,
            login: true,
            named: false,
            version: Version::Current,
            workers: 2,
            with_envoy: true,
            own_bridge: false,
            kms_over_tls: false,
            flag: true,
            control_plane: String::new(),
            filter: None,
            clusters: vec![],
            credentials: vec![],
            edit_bootstrap: vec![],
            edit_resolver: vec![],
        }
    }

    /// Identities by real SPIRE.
    #[must_use]
    pub fn spire(mut self) -> Self {
        self.spire = true;
        self
    }

    /// With the customer's Vault.
    #[must_use]
    pub fn vault(mut self, login: Login) -> Self {
        self.vault = Some(login);
        self
    }

    /// The resolver as a user without any privilege, where the scenario runs as root; else it is one already.
    #[must_use]
    pub fn unprivileged(mut self) -> Self {
        self.unprivileged = true;
        self
    }

    /// STS answers nobody, until the scenario lets it.
    #[must_use]
    pub fn without_login(mut self) -> Self {
        self.login = false;
        self
    }

    /// More of the control plane's configuration, in TOML.
    #[must_use]
    pub fn control_plane(mut self, more: &str) -> Self {
        more.clone_into(&mut self.control_plane);
        self
    }

    /// Mode `named`, on a given Envoy.
    #[must_use]
    pub fn named(mut self, version: Version) -> Self {
        (self.named, self.version) = (true, version);
        self
    }

    /// So many of Envoy's workers.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Everything but Envoy.
    #[must_use]
    pub fn without_envoy(mut self) -> Self {
        self.with_envoy = false;
        self
    }

    /// A bridge in the scenario's hands instead of the control plane.
    #[must_use]
    pub fn own_bridge(mut self) -> Self {
        self.own_bridge = true;
        self
    }

    /// KMS and STS over HTTPS, and the resolver without `--dev`: as it runs at a customer's.
    #[must_use]
    pub fn kms_over_tls(mut self) -> Self {
        self.kms_over_tls = true;
        self
    }

    /// Leaves the feature flag off (and registers by turning it off afterwards).
    #[must_use]
    pub fn flag_off(mut self) -> Self {
        self.flag = false;
        self
    }

    /// Another wasm module in the place of ours.
    #[must_use]
    pub fn filter(mut self, path: PathBuf) -> Self {
        self.filter = Some(path);
        self
    }

    /// Adds a cluster. Without any, there is `payments`.
    #[must_use]
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.clusters.push(cluster);
        self
    }

    /// Adds a protected resource with its credential. Without any, there is `payments-api` on `payments`.
    #[must_use]
    pub fn credential(mut self, credential: Credential) -> Self {
        self.credentials.push(credential);
        self
    }

    /// Changes the bootstrap after its values are set.
    #[must_use]
    pub fn bootstrap(mut self, edit: impl FnOnce(&mut Bootstrap) -> Result<()> + Send + 'static) -> Self {
        self.edit_bootstrap.push(Box::new(edit));
        self
    }

    /// Changes the resolver's configuration.
    #[must_use]
    pub fn resolver(mut self, edit: impl FnOnce(&mut resolver::Setup) + Send + 'static) -> Self {
        self.edit_resolver.push(Box::new(edit));
        self
    }

    /// Every decision is made anew, and what a backend said is asked for again after a second.
    #[must_use]
    pub fn impatient(self) -> Self {
        self.resolver(|setup| {
            setup.set("limits.decision_ttl_ms", 0);
            setup.set("limits.recheck_s", 1);
        })
    }

    /// Starts everything, registers everything, and waits until all of it is ready.
    ///
    /// # Errors
    /// If a part is not installed, not built, or does not get ready.
    pub async fn start(mut self) -> Result<Stack> {
        if self.clusters.is_empty() {
            self.clusters.push(Cluster::new("payments"));
        }
        if self.credentials.is_empty() {
            self.credentials.push(Credential::new("payments-api", "payments"));
        }
        let scratch = Scratch::new(&self.scenario)?;
        let (customer_ca, server_ca) = (Ca::new("customer")?, Ca::new("servers")?);
        let user = (self.unprivileged && rustix::process::getuid().is_root()).then_some(resolver::NOBODY);
        let identities =
            async { if self.spire { Identities::spire(&scratch, user).await } else { Identities::own(&scratch) } };
        let (identities, kms) = tokio::try_join!(identities, Kms::start(&scratch))?;
        // As the customer would set the role up: this trust domain, this audience, this resolver.
        kms.proxy().trust(Trust::new(&identities.jwks()?, sts::AUDIENCE, BOUNCER_ID)?);
        if !self.login {
            kms.proxy().behave("AssumeRoleWithWebIdentity", Behaviour::Refuse);
        }
        let key_arn = kms.create_key().await?;
        let upstreams = self.upstreams(&customer_ca, &server_ca).await?;

        let (vault, vault_proxy) = vault::start(self.vault, &scratch, &identities, &customer_ca, &server_ca).await?;
        let wrapped = self.wrap(&kms, &key_arn, vault.as_ref(), &customer_ca).await?;
        let authority = self.authority(&scratch, &identities, &key_arn, &wrapped, &upstreams).await?;
        let credentials = self.credentials.iter().map(|c| c.resource.clone()).zip(wrapped.into_iter().map(|w| w.0));
        let credentials = credentials.collect();
        let surroundings = resolver::Surroundings {
            bouncer: BOUNCER,
            workload_api: &identities.resolver(),
            bridge: &authority.address,
            bridge_id: CONTROL_PLANE_ID,
            kms_endpoint: &kms.endpoint(),
            role_arn: ROLE_ARN,
            kms_keys: std::slice::from_ref(&key_arn),
        };
        let address = vault_proxy.as_ref().map(VaultProxy::endpoint);
        let address = address.or_else(|| vault.as_ref().map(|vault| vault.address().to_owned()));
        let mut resolver_setup = self.resolver_setup(&scratch, &surroundings, &server_ca, &upstreams, address)?;
        let kms_front = match self.kms_over_tls {
            true => Some(TlsFront::start(&server_ca.issue(&Leaf::server("localhost")?)?, kms.proxy().address()).await?),
            false => None,
        };
        if let Some(front) = &kms_front {
            let endpoint = format!("https://localhost:{}", front.address().port());
            resolver_setup.set("kms.kms_endpoint", endpoint.as_str());
            resolver_setup.set("kms.sts_endpoint", endpoint);
            resolver_setup.https_roots = Some(scratch.write("https-roots.pem", server_ca.pem())?);
            resolver_setup.dev = false;
        }
        if let Some(uid) = user {
            resolver_setup.run_as(&scratch, uid)?;
        }
        let resolver = Resolver::spawn(&scratch, resolver_setup.clone())?;
        resolver.ready().await?;

        let rendered = self.render(&scratch, &identities, &server_ca, &resolver_setup, &upstreams)?;
        let envoy = if self.with_envoy {
            let key = (!self.named).then_some(resolver_setup.sds_key.as_str());
            Some(Envoy::start(&scratch, self.version, &rendered, key, self.workers).await?)
        } else {
            None
        };
        Ok(Stack {
            envoy,
            resolver: Some(resolver),
            control_plane: authority.control_plane,
            bridge: authority.bridge,
            upstreams,
            kms,
            kms_front,
            key_arn,
            vault_proxy,
            vault,
            identities,
            credentials,
            envelopes: authority.envelopes,
            customer_ca,
            server_ca,
            rendered,
            resolver_setup,
            scratch,
        })
    }

    async fn upstreams(&self, customer_ca: &Ca, server_ca: &Ca) -> Result<BTreeMap<String, Upstream>> {
        let mut upstreams = BTreeMap::new();
        for cluster in &self.clusters {
            let server = server_ca.issue(&Leaf::server(UPSTREAM_NAME)?)?;
            let clients = match cluster.wants_certificate {
                Wants::Required => ClientAuth::Required(customer_ca.roots()?),
                Wants::Optional => ClientAuth::Optional(customer_ca.roots()?),
                Wants::Nothing => ClientAuth::None,
            };
            let upstream = Upstream::start_with(&server, &clients, cluster.protocols).await?;
            upstreams.insert(cluster.name.clone(), upstream);
        }
        Ok(upstreams)
    }

    /// The control plane with everything registered, or the scenario's own bridge with the same.
    async fn authority(
        &self,
        scratch: &Scratch,
        identities: &Identities,
        key_arn: &str,
        wrapped: &[(Identity, Value)],
        upstreams: &BTreeMap<String, Upstream>,
    ) -> Result<Authority> {
        if self.own_bridge {
            let svid = identities.mint(CONTROL_PLANE_ID)?;
            let clients = pki::roots(&identities.roots_pem()?)?;
            let bridge = Bridge::start(&svid, clients, self.snapshot(wrapped)).await?;
            let address = bridge.address().to_string();
            return Ok(Authority { control_plane: None, bridge: Some(bridge), address, envelopes: BTreeMap::new() });
        }
        let mut setup = control_plane::Setup::new(scratch, identities.control_plane())?;
        setup.more.clone_from(&self.control_plane);
        let control_plane = ControlPlane::start(scratch, setup).await?;
        let envelopes = self.register(&control_plane, key_arn, wrapped, upstreams).await?;
        let address = control_plane.setup().bridge();
        Ok(Authority { control_plane: Some(control_plane), bridge: None, address, envelopes })
    }

    /// What the customer does before anything is registered.
    async fn wrap(
        &self,
        kms: &Kms,
        key_arn: &str,
        vault: Option<&OpenBao>,
        customer_ca: &Ca,
    ) -> Result<Vec<(Identity, Value)>> {
        let mut wrapped = vec![];
        for credential in &self.credentials {
            wrapped.push(credential.wrap(kms, key_arn, vault, customer_ca).await?);
        }
        Ok(wrapped)
    }

    /// The seed guide's steps, over the API; gives the envelopes' ids.
    async fn register(
        &self,
        control_plane: &ControlPlane,
        key_arn: &str,
        wrapped: &[(Identity, Value)],
        upstreams: &BTreeMap<String, Upstream>,
    ) -> Result<BTreeMap<String, String>> {
        let api = control_plane.api()?;
        api.set_flag(true).await?;
        let settings = json!({"provider": "kms_envelope", "kms_key_arn": key_arn, "notes": "one scenario's key"});
        api.put("/v1/crypto/settings", &settings).await?.success()?;
        api.register_bouncer(BOUNCER, BOUNCER_ID).await?;
        let mut envelopes = BTreeMap::new();
        for (credential, (_, body)) in self.credentials.iter().zip(wrapped) {
            if credential.with_envelope {
                let answer = api.register_envelope(body).await?;
                let id =
                    answer["id"].as_str().ok_or_else(|| Fault::new(format!("an envelope without id: {answer}")))?;
                envelopes.insert(credential.resource.clone(), id.to_owned());
            }
            let upstream = upstreams.get(&credential.cluster).map(|upstream| upstream.address().to_string());
            let resource = json!({
                "name": credential.resource, "bouncer": BOUNCER, "cluster": credential.cluster, "upstream": upstream,
                "protocol": "mtls", "logical_path": credential.logical_path, "callers": credential.callers,
                "enabled": credential.enabled,
            });
            api.post("/v1/protected-resources", &resource).await?.success()?;
        }
        if !self.flag {
            api.set_flag(false).await?;
        }
        Ok(envelopes)
    }

    /// The same, as the control plane would push it.
    fn snapshot(&self, wrapped: &[(Identity, Value)]) -> wire::Snapshot {
        let resource = |credential: &Credential| wire::ProtectedResource {
            name: credential.resource.clone(),
            cluster: credential.cluster.clone(),
            upstream: String::new(),
            protocol: "mtls".to_owned(),
            logical_path: credential.logical_path.clone(),
            callers: credential.callers.clone(),
            enabled: credential.enabled,
        };
        let text = |body: &Value, key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let envelope = |body: &Value| wire::Envelope {
            logical_path: text(body, "logical_path"),
            generation: 1,
            provider: text(body, "provider"),
            key_id: text(body, "key_id"),
            ciphertext_ref: text(body, "ciphertext_ref"),
            aad: body["aad"].as_str().map(str::to_owned),
            certificate_chain: String::new(),
            activation: 0,
            revoked_through: 0,
        };
        let registered = self.credentials.iter().zip(wrapped).filter(|(credential, _)| credential.with_envelope);
        wire::Snapshot {
            epoch: 1,
            bouncer: BOUNCER.to_owned(),
            issued_ms: bridge::now_ms(),
            intercept_enabled: self.flag,
            resources: self.credentials.iter().map(resource).collect(),
            envelopes: registered.map(|(_, (_, body))| envelope(body)).collect(),
            more: false,
        }
    }

    fn resolver_setup(
        &mut self,
        scratch: &Scratch,
        surroundings: &resolver::Surroundings<'_>,
        server_ca: &Ca,
        upstreams: &BTreeMap<String, Upstream>,
        vault: Option<String>,
    ) -> Result<resolver::Setup> {
        let mut setup = resolver::Setup::new(scratch, surroundings)?;
        let ca_file = scratch.write("upstream-ca.pem", server_ca.pem())?;
        if let Some(address) = vault {
            setup.set_vault(&address, &ca_file, self.vault == Some(Login::Cert));
        }
        for cluster in self.clusters.iter().filter(|cluster| cluster.in_rails) {
            let Some(upstream) = upstreams.get(&cluster.name) else { continue };
            let mut rail = toml::Table::new();
            rail.insert("name".into(), cluster.name.clone().into());
            rail.insert("upstream".into(), upstream.address().to_string().into());
            rail.insert("ca_file".into(), ca_file.display().to_string().into());
            rail.insert("server_names".into(), vec![UPSTREAM_NAME.to_owned()].into());
            rail.insert("callers".into(), cluster.callers.clone().into());
            rail.insert("logical_paths".into(), cluster.logical_paths.clone().into());
            rail.insert("mode".into(), if self.named { "named" } else { "on_demand" }.into());
            setup.add_rail(rail);
        }
        for edit in self.edit_resolver.drain(..) {
            edit(&mut setup);
        }
        Ok(setup)
    }

    fn render(
        &mut self,
        scratch: &Scratch,
        identities: &Identities,
        server_ca: &Ca,
        setup: &resolver::Setup,
        upstreams: &BTreeMap<String, Upstream>,
    ) -> Result<Rendered> {
        let server = server_ca.issue(&Leaf::server(ENVOY_NAME)?)?;
        let cert = scratch.write("envoy-server.pem", &server.cert_pem)?;
        let key = scratch.write("envoy-server.key", &server.key_pem)?;
        let clients = scratch.write("envoy-clients-ca.pem", identities.roots_pem()?)?;
        let filter = match self.filter.take() {
            Some(filter) => filter,
            None if self.with_envoy => tools::filter()?,
            None => PathBuf::new(),
        };
        let values = Values {
            tls: [&cert, &key, &clients],
            filter: &filter,
            intercept_socket: &setup.intercept_socket,
            sds_socket: &setup.sds_socket,
            sds_key: &setup.sds_key,
        };
        let bootstrap = if self.named { Bootstrap::named()? } else { Bootstrap::on_demand()? };
        let mut rendered = Rendered::new(bootstrap, &values, scratch)?;
        for (name, upstream) in upstreams {
            if name == "payments" {
                rendered.bootstrap.point(name, upstream.address())?;
                continue;
            }
            rendered.bootstrap.add_cluster(name, upstream.address())?;
            let route = format!("{{match: {{prefix: /{name}/}}, route: {{cluster: {name:?}, timeout: 30s}}}}");
            rendered.bootstrap.add_route(&route)?;
        }
        for edit in self.edit_bootstrap.drain(..) {
            edit(&mut rendered.bootstrap)?;
        }
        Ok(rendered)
    }
}
