//! Everything that runs: the stack, the upstream, the servers, and an Envoy for each variant.

use crate::checks::{Look, Sight};
use crate::cores::Cores;
use crate::load::{self, Slice};
use crate::variants::{self, Kind, Parts};
use crate::{Args, progress};
use bouncer_tests::envoy::{Bootstrap, Envoy, Rendered, Values, Version};
use bouncer_tests::pki::Leaf;
use bouncer_tests::process::Process;
use bouncer_tests::scratch::{Scratch, free_port, listens};
use bouncer_tests::stack::{BOUNCER_ID, Cluster, Credential, Stack, UPSTREAM_NAME};
use bouncer_tests::{Fault, Result, fault::Doing as _, tools};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const START: Duration = Duration::from_secs(30);
/// The client certificate of the variants with a static one.
pub(crate) const STATIC: &str = "static-client";
/// The client certificate that the customer wrapped.
pub(crate) const WRAPPED: &str = "payments-api";

/// All of it. What is last stops last.
pub(crate) struct Stage {
    /// In the order of their kinds.
    pub variants: Vec<Variant>,
    stack: Stack,
    http: reqwest::Client,
    _authz: Option<Process>,
    _upstream: Process,
    _scratch: Scratch,
}

/// A variant that runs.
pub(crate) struct Variant {
    kind: Kind,
    envoy: Envoy,
    server: Option<u32>,
    /// Requests that it was sent so far.
    pub requests: u64,
    _scratch: Scratch,
}

impl Variant {
    /// Its Envoy's process.
    pub(crate) fn pid(&self) -> u32 {
        self.envoy.process().pid()
    }
}

impl Stage {
    /// Starts all of it, with the Envoys on their own core.
    ///
    /// # Errors
    /// If a part is not built or does not get ready.
    pub(crate) async fn start(args: &Args, kinds: &[Kind], cores: &Cores) -> Result<Self> {
        let stack = stack().await?;
        let scratch = Scratch::new("bench")?;
        let (upstream, address) = upstream(&scratch, &stack, args).await?;
        let fixed = stack.customer_ca.issue(&Leaf::new(STATIC))?;
        let parts = Parts {
            upstream: address,
            static_tls: [
                scratch.write("static.pem", &fixed.cert_pem)?,
                scratch.write("static.key", &fixed.key_pem)?,
                scratch.write("servers.pem", stack.server_ca.pem())?,
            ],
            empty_wasm: scratch.write("empty.wasm", variants::empty_module())?,
            authz_socket: scratch.file("authz.sock"),
        };
        let mut rendered = vec![];
        for kind in kinds {
            let own = Scratch::new(&format!("bench-{}", kind.id()))?;
            let mut variant = render(&stack, &own, &parts)?;
            kind.edit(&mut variant.bootstrap, &parts, args).doing(kind.id())?;
            rendered.push((*kind, own, variant));
        }
        let authz = ext_authz(&scratch, &parts, &rendered).await?;
        let mut variants = vec![];
        for (kind, own, rendered) in rendered {
            let key = Some(stack.resolver()?.setup().sds_key.as_str());
            let envoy = Envoy::start(&own, Version::Current, &rendered, key, 1).await.doing(kind.id())?;
            cores.give_proxy_core(envoy.process().pid())?;
            let server = match kind {
                Kind::Bouncer => Some(stack.resolver()?.process().pid()),
                Kind::ExtAuthz | Kind::ExtAuthzTag => authz.as_ref().map(Process::pid),
                Kind::Plain | Kind::Native | Kind::EmptyWasm => None,
            };
            progress(format_args!("{} is up: {}", kind.id(), envoy.listener()));
            variants.push(Variant { kind, envoy, server, requests: 0, _scratch: own });
        }
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
        Ok(Self { variants, stack, http, _authz: authz, _upstream: upstream, _scratch: scratch })
    }

    /// One slice of load on one variant.
    ///
    /// # Errors
    /// If it can't be loaded.
    pub(crate) async fn slice(&mut self, index: usize, args: &Args) -> Result<Slice> {
        let variant = self.variants.get_mut(index).ok_or_else(|| Fault::new("no such variant"))?;
        let slice = load::slice(variant.envoy.listener(), variant.pid(), variant.server, args);
        let slice = slice.await.doing(variant.kind.id())?;
        variant.requests += slice.requests;
        Ok(slice)
    }

    /// What the upstream sees of each variant, and what Bouncer's parts have counted so far.
    ///
    /// # Errors
    /// If someone does not answer.
    pub(crate) async fn look(&self) -> Result<Look> {
        let mut look = Look::default();
        for variant in &self.variants {
            look.sights.push(self.sight(variant.envoy.listener()).await.doing(variant.kind.id())?);
            if variant.kind == Kind::Bouncer {
                look.certificates = variant.envoy.stat("cluster.payments.on_demand_secret.cert_active").await?;
            }
        }
        let (_, metrics) = self.stack.resolver()?.get("/metrics").await?;
        let sum = |name: &str, label: &str| -> u64 {
            let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        look.injections = sum("bouncer_resolver_decisions_total", "outcome=\"inject\"");
        look.denials = sum("bouncer_resolver_decisions_total", "outcome=\"deny\"");
        look.uses = sum("bouncer_resolver_decision_uses_total", "");
        // Last: the first sight is the one that unwraps.
        look.decrypts = self.stack.kms.proxy().count("Decrypt");
        Ok(look)
    }

    /// As [`Self::look`], once the filter has reported the uses of the last slices; it does so every few seconds.
    ///
    /// # Errors
    /// If someone does not answer.
    pub(crate) async fn look_after(&self, before: &Look) -> Result<Look> {
        let requests = self.variants.iter().find(|variant| variant.kind == Kind::Bouncer).map_or(0, |v| v.requests);
        let reported = || async {
            let look = self.look().await.ok()?;
            look.most_uses_since(before, requests).then_some(look)
        };
        match self.stack.until("the report of uses", START, reported).await {
            Ok(look) => Ok(look),
            // What is missing is for the checks to say.
            Err(_) => self.look().await,
        }
    }

    /// Whom the upstream sees, for a client that sends facts of its own.
    async fn sight(&self, listener: SocketAddr) -> Result<Sight> {
        // Facts that no resolver would take.
        let forged = "forged 1 HTTP/1.1 spiffe://example.org/forged forged.example";
        let request = self.http.get(format!("http://{listener}/seen")).header("x-bouncer-facts", forged);
        let answer = request.send().await?;
        let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        Ok(Sight {
            status: answer.status().as_u16(),
            subject: header("x-seen-subject"),
            facts: header("x-seen-facts"),
            reason: header("x-bouncer-reason"),
        })
    }
}

/// Control plane, resolver and KMS, with the credential registered for the resolver's own identity.
async fn stack() -> Result<Stack> {
    let mut cluster = Cluster::new("payments");
    cluster.callers = vec![BOUNCER_ID.to_owned()];
    Stack::builder("bench-stack")
        .without_envoy()
        .cluster(cluster)
        .credential(Credential::new(WRAPPED, "payments").callers(&[BOUNCER_ID]))
        .resolver(|setup| setup.set("intercept.caller", "own-svid"))
        .start()
        .await
}

/// The shipped bootstrap with its values.
fn render(stack: &Stack, scratch: &Scratch, parts: &Parts) -> Result<Rendered> {
    let resolver = stack.resolver()?.setup();
    let [certificate, key, ca] = &parts.static_tls;
    let values = Values {
        tls: [certificate, key, ca],
        filter: &tools::filter()?,
        intercept_socket: &resolver.intercept_socket,
        sds_socket: &resolver.sds_socket,
        sds_key: &resolver.sds_key,
    };
    Rendered::new(Bootstrap::on_demand()?, &values, scratch)
}

/// An upstream that answers from memory. The stack's own one, which remembers every request, would be the bottleneck.
async fn upstream(scratch: &Scratch, stack: &Stack, args: &Args) -> Result<(Process, SocketAddr)> {
    let server = stack.server_ca.issue(&Leaf::server(UPSTREAM_NAME)?)?;
    let port = free_port()?;
    let path = |path: &Path| path.display().to_string();
    let config = include_str!("../../../bench/upstream.yaml")
        .replace("PORT", &port.to_string())
        .replace("PROTOCOL", if args.upstream_h2 { "h2" } else { "http/1.1" })
        .replace("SERVER_CERTIFICATE", &path(&scratch.write("upstream.pem", &server.cert_pem)?))
        .replace("SERVER_KEY", &path(&scratch.write("upstream.key", &server.key_pem)?))
        .replace("CUSTOMER_CA", &path(&scratch.write("customers.pem", stack.customer_ca.pem())?));
    let mut command = Command::new(Version::Current.program()?);
    command.arg("-c").arg(scratch.write("upstream.yaml", config)?);
    command.args(["--disable-hot-restart", "--concurrency", "1", "-l", "warning"]);
    let process = Process::spawn("upstream", scratch, command)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    process.until("listens", START, || async { listens(address).await.then_some(()) }).await?;
    Ok((process, address))
}

/// The ext_authz server, where a variant wants it.
async fn ext_authz(
    scratch: &Scratch,
    parts: &Parts,
    rendered: &[(Kind, Scratch, Rendered)],
) -> Result<Option<Process>> {
    let mut allowed = vec![];
    for (kind, _, variant) in rendered {
        match kind {
            Kind::ExtAuthz => allowed.push(variant.listener.to_string()),
            Kind::ExtAuthzTag => allowed.push(format!("{}={}", variant.listener, variants::TAG)),
            Kind::Plain | Kind::Native | Kind::EmptyWasm | Kind::Bouncer => {}
        }
    }
    if allowed.is_empty() {
        return Ok(None);
    }
    let mut command = Command::new(tools::binary("ext_authz")?);
    command.arg("--socket").arg(&parts.authz_socket);
    for host in allowed {
        command.arg("--allow").arg(host);
    }
    let process = Process::spawn("ext_authz", scratch, command)?;
    let up = || async { tokio::net::UnixStream::connect(&parts.authz_socket).await.ok().map(drop) };
    process.until("listens", START, up).await?;
    Ok(Some(process))
}
