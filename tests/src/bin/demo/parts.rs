//! The parts that the demo runs, in two groups: what an operator already has, and what the guide's third step starts.
//!
//! Called by `main` and by the guide. Everything is on loopback, on free ports, in one temporary folder, and ends with
//! these values.

use crate::screen::Screen;
use bouncer_tests::client::{Client, ENVOY_NAME, Protocol};
use bouncer_tests::control_plane::{self, ControlPlane};
use bouncer_tests::envoy::{Bootstrap, Envoy, Rendered, Values, Version};
use bouncer_tests::kms::{Kms, ROLE_ARN};
use bouncer_tests::openbao::OpenBao;
use bouncer_tests::pki::{Ca, Identity, Leaf};
use bouncer_tests::resolver::{self, Resolver};
use bouncer_tests::scratch::Scratch;
use bouncer_tests::stack::{BOUNCER, CONTROL_PLANE_ID, Identities, UPSTREAM_NAME};
use bouncer_tests::upstream::{ClientAuth, Upstream};
use bouncer_tests::{Result, tools};

/// The protected upstream's cluster.
pub(crate) const PAYMENTS: &str = "payments";
/// A cluster that Envoy and the rails have, and nobody registered.
pub(crate) const REPORTS: &str = "reports";
/// The common name of the customer's authority.
pub(crate) const CUSTOMER_CA: &str = "Customer CA";
/// Envoy's workers. Each has a wasm VM of its own.
pub(crate) const WORKERS: usize = 2;

/// What is there before the guide begins.
pub(crate) struct Ground {
    pub(crate) control_plane: ControlPlane,
    pub(crate) kms: Kms,
    /// The customer's key.
    pub(crate) key_arn: String,
    pub(crate) identities: Identities,
    /// The upstream that demands the customer's certificate.
    pub(crate) payments: Upstream,
    /// The same for a cluster that nobody registered.
    pub(crate) reports: Upstream,
    /// Issues the customer's client certificates; the upstreams trust nobody else.
    pub(crate) customer_ca: Ca,
    /// Issues the certificates of Envoy and of the upstreams.
    pub(crate) server_ca: Ca,
    /// The customer's Vault, where the demo is kept up and OpenBao is installed.
    pub(crate) vault: Option<OpenBao>,
    /// Last, so that everything in it is stopped before it goes.
    pub(crate) scratch: Scratch,
}

/// The resolver, and Envoy beside it.
pub(crate) struct Intercept {
    pub(crate) envoy: Envoy,
    pub(crate) resolver: Resolver,
}

impl Ground {
    /// Starts the customer's part and the control plane.
    pub(crate) async fn start(screen: Screen, keep: bool) -> Result<Self> {
        let scratch = Scratch::new("demo")?;
        let (spire, source) = source();
        screen.say(&format!("identities     {source}"));
        screen.say("customer KMS   moto, an emulator of AWS KMS and STS (a real key would need your account)");
        screen.say(&format!("files          {}, gone at the end", scratch.path().display()));
        let identities =
            async { if spire { Identities::spire(&scratch, None).await } else { Identities::own(&scratch) } };
        let (identities, kms) = tokio::try_join!(identities, Kms::start(&scratch))?;
        let key_arn = kms.create_key().await?;
        let (customer_ca, server_ca) = (Ca::new(CUSTOMER_CA)?, Ca::new("Demo Server CA")?);
        let payments = upstream(&customer_ca, &server_ca).await?;
        let reports = upstream(&customer_ca, &server_ca).await?;
        let vault = if keep && tools::tool("bao").is_ok() {
            let (roots, jwt_key) = (identities.roots_pem()?, identities.jwt_key_pem()?);
            let vault = OpenBao::start(&scratch, &server_ca, &customer_ca, &roots, &jwt_key).await?;
            screen.say(&format!("customer Vault OpenBao at {}, for your own experiments", vault.address()));
            Some(vault)
        } else {
            None
        };
        let setup = control_plane::Setup::new(&scratch, identities.control_plane())?;
        let control_plane = ControlPlane::start(&scratch, setup).await?;
        Ok(Self { control_plane, kms, key_arn, identities, payments, reports, customer_ca, server_ca, vault, scratch })
    }

    /// Starts the resolver and, once it is ready, Envoy.
    pub(crate) async fn intercept(&self) -> Result<Intercept> {
        let setup = self.resolver_setup()?;
        let resolver = Resolver::spawn(&self.scratch, setup.clone())?;
        resolver.ready().await?;
        let rendered = self.render(&setup)?;
        let key = Some(setup.sds_key.as_str());
        let envoy = Envoy::start(&self.scratch, Version::Current, &rendered, key, WORKERS).await?;
        Ok(Intercept { envoy, resolver })
    }

    fn resolver_setup(&self) -> Result<resolver::Setup> {
        let surroundings = resolver::Surroundings {
            bouncer: BOUNCER,
            workload_api: &self.identities.resolver(),
            bridge: &self.control_plane.setup().bridge(),
            bridge_id: CONTROL_PLANE_ID,
            kms_endpoint: &self.kms.endpoint(),
            role_arn: ROLE_ARN,
            kms_keys: std::slice::from_ref(&self.key_arn),
        };
        let mut setup = resolver::Setup::new(&self.scratch, &surroundings)?;
        let ca_file = self.scratch.write("upstream-ca.pem", self.server_ca.pem())?.display().to_string();
        for (name, upstream) in [(PAYMENTS, &self.payments), (REPORTS, &self.reports)] {
            let mut rail = toml::Table::new();
            rail.insert("name".into(), name.into());
            rail.insert("upstream".into(), upstream.address().to_string().into());
            rail.insert("ca_file".into(), ca_file.clone().into());
            rail.insert("server_names".into(), vec![UPSTREAM_NAME.to_owned()].into());
            rail.insert("callers".into(), vec!["spiffe://example.org/ns/shop/*".to_owned()].into());
            rail.insert("logical_paths".into(), vec!["protected-resources/*".to_owned()].into());
            rail.insert("mode".into(), "on_demand".into());
            setup.add_rail(rail);
        }
        if let Some(vault) = &self.vault {
            setup.set_vault(vault.address(), &self.scratch.file("upstream-ca.pem"), false);
        }
        Ok(setup)
    }

    /// The shipped bootstrap, with its documented values set, and a second cluster.
    fn render(&self, setup: &resolver::Setup) -> Result<Rendered> {
        let server = self.server_ca.issue(&Leaf::server(ENVOY_NAME)?)?;
        let certificate = self.scratch.write("envoy-server.pem", &server.cert_pem)?;
        let key = self.scratch.write("envoy-server.key", &server.key_pem)?;
        let clients = self.scratch.write("envoy-clients-ca.pem", self.identities.roots_pem()?)?;
        let values = Values {
            tls: [&certificate, &key, &clients],
            filter: &tools::filter()?,
            intercept_socket: &setup.intercept_socket,
            sds_socket: &setup.sds_socket,
            sds_key: &setup.sds_key,
        };
        let mut rendered = Rendered::new(Bootstrap::on_demand()?, &values, &self.scratch)?;
        rendered.bootstrap.point(PAYMENTS, self.payments.address())?;
        rendered.bootstrap.add_cluster(REPORTS, self.reports.address())?;
        rendered.bootstrap.add_route(&format!("{{match: {{prefix: /{REPORTS}/}}, route: {{cluster: {REPORTS}}}}}"))?;
        Ok(rendered)
    }

    /// A client of Envoy, with this certificate or with none.
    pub(crate) fn client(&self, intercept: &Intercept, identity: Option<&Identity>) -> Result<Client> {
        Client::new(intercept.envoy.listener(), self.server_ca.pem(), identity, Protocol::Http1)
    }
}

async fn upstream(customer_ca: &Ca, server_ca: &Ca) -> Result<Upstream> {
    let server = server_ca.issue(&Leaf::server(UPSTREAM_NAME)?)?;
    Upstream::start(&server, &ClientAuth::Required(customer_ca.roots()?)).await
}

/// Whether SPIRE gives the identities, and what to say of it.
fn source() -> (bool, &'static str) {
    let built = tools::tool("spire-server").is_ok() && tools::tool("spire-agent").is_ok();
    match (built, rustix::process::geteuid().is_root()) {
        (true, true) => (true, "SPIRE, server and agent, from .tools/bin"),
        // The resolver lets no other process of its user look at it, and so not at its path either.
        (true, false) => (false, "the tests' own Workload API; SPIRE's agent could attest the resolver only as root"),
        (false, _) => (false, "the tests' own Workload API; SPIRE is not built (scripts/tools spire, with Go)"),
    }
}
