//! A control plane of the bench's own: the shipped binary, with an identity from a Workload API of the tests'.

use crate::database::{Connection, Databases};
use bouncer_tests::control_plane::{ControlPlane, Setup};
use bouncer_tests::scratch::Scratch;
use bouncer_tests::workload_api::{TrustDomain, WorkloadApi};
use bouncer_tests::{Result, TRUST_DOMAIN};
use std::sync::Arc;

/// A running one.
pub(crate) struct Plane {
    /// The control plane.
    pub(crate) control_plane: ControlPlane,
    /// Who signs SVIDs.
    pub(crate) domain: Arc<TrustDomain>,
    /// Its folder.
    pub(crate) scratch: Scratch,
    url: Option<String>,
    _workload_api: WorkloadApi,
}

impl Plane {
    /// Starts one with an empty database, the flag on.
    ///
    /// # Errors
    /// If it is not built or does not start.
    pub(crate) async fn start(name: &str, databases: &Databases) -> Result<Self> {
        let scratch = Scratch::new(&format!("bench-scale-{name}"))?;
        let domain = TrustDomain::new()?;
        let id = format!("spiffe://{TRUST_DOMAIN}/control-plane");
        let workload_api = WorkloadApi::start(&domain, &scratch.file("workload.sock"), &id)?;
        let mut setup = Setup::new(&scratch, workload_api.address())?;
        setup.more = "[api]\nrequests_per_second = 100000\n".to_owned();
        let url = databases.create(name).await?;
        if let Some(url) = &url {
            setup.more.push_str(&format!("[database]\nurl = {url:?}\n"));
        }
        let control_plane = ControlPlane::start(&scratch, setup).await?;
        control_plane.api()?.set_flag(true).await?;
        Ok(Self { control_plane, domain, scratch, url, _workload_api: workload_api })
    }

    /// A connection of the bench's own to its database.
    ///
    /// # Errors
    /// If it can't be opened.
    pub(crate) async fn database(&self) -> Result<Connection> {
        Connection::open(self.url.as_deref(), &self.control_plane.setup().database).await
    }
}
