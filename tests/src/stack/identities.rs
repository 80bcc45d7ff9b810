//! Who gives the identities of a scenario: real SPIRE, or the Workload API of our own.

use crate::pki::Identity;
use crate::scratch::Scratch;
use crate::spire::{Entry, Selector, Spire};
use crate::stack::{BOUNCER_ID, CONTROL_PLANE_ID};
use crate::sts;
use crate::workload_api::{TrustDomain, WorkloadApi};
use crate::{Fault, Result, tools};
use std::sync::Arc;

/// The source of all SVIDs.
pub enum Identities {
    /// Real SPIRE.
    Spire(Box<Spire>),
    /// Our own, one socket for each program.
    Own {
        /// The authority.
        domain: Arc<TrustDomain>,
        /// The control plane's.
        control_plane: WorkloadApi,
        /// The resolver's.
        resolver: WorkloadApi,
    },
}

impl Identities {
    /// Starts SPIRE, with entries for our two servers; the resolver's may have a user of its own.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn spire(scratch: &Scratch, resolver_uid: Option<u32>) -> Result<Self> {
        let (control_plane, resolver) = (tools::binary("bouncer-control-plane")?, tools::binary("bouncer-resolver")?);
        let entries = [
            Entry { spiffe_id: CONTROL_PLANE_ID, known_by: Selector::Path(&control_plane) },
            Entry { spiffe_id: BOUNCER_ID, known_by: resolver_uid.map_or(Selector::Path(&resolver), Selector::Uid) },
        ];
        Ok(Self::Spire(Box::new(Spire::start(scratch, &entries).await?)))
    }

    /// Starts our own.
    ///
    /// # Errors
    /// If a socket can't be bound.
    pub fn own(scratch: &Scratch) -> Result<Self> {
        let domain = TrustDomain::new()?;
        let control_plane = WorkloadApi::start(&domain, &scratch.file("wl-control-plane.sock"), CONTROL_PLANE_ID)?;
        let resolver = WorkloadApi::start(&domain, &scratch.file("wl-resolver.sock"), BOUNCER_ID)?;
        Ok(Self::Own { domain, control_plane, resolver })
    }

    /// The control plane's Workload API.
    #[must_use]
    pub fn control_plane(&self) -> String {
        match self {
            Self::Spire(spire) => spire.address(),
            Self::Own { control_plane, .. } => control_plane.address(),
        }
    }

    /// The resolver's Workload API.
    #[must_use]
    pub fn resolver(&self) -> String {
        match self {
            Self::Spire(spire) => spire.address(),
            Self::Own { resolver, .. } => resolver.address(),
        }
    }

    /// An X.509-SVID for a caller of Envoy.
    ///
    /// # Errors
    /// If it can't be issued.
    pub fn mint(&self, spiffe_id: &str) -> Result<Identity> {
        match self {
            Self::Spire(spire) => spire.mint(spiffe_id),
            Self::Own { domain, .. } => domain.svid(spiffe_id),
        }
    }

    /// One of the keys that prove JWT-SVIDs, PEM. There is only one until it is changed.
    ///
    /// # Errors
    /// If it can't be had.
    pub fn jwt_key_pem(&self) -> Result<String> {
        let points = sts::points(&self.jwks()?)?;
        points.values().next().map(|point| sts::pem(point)).ok_or_else(|| Fault::new("no key"))
    }

    /// The keys that prove JWT-SVIDs, as a JWK set.
    ///
    /// # Errors
    /// If they can't be had.
    pub fn jwks(&self) -> Result<String> {
        match self {
            Self::Spire(spire) => spire.jwks(),
            Self::Own { domain, .. } => Ok(domain.jwks()),
        }
    }

    /// The trust domain's authorities, PEM.
    ///
    /// # Errors
    /// If they can't be had.
    pub fn roots_pem(&self) -> Result<String> {
        match self {
            Self::Spire(spire) => spire.bundle(),
            Self::Own { domain, .. } => Ok(domain.ca().pem().to_owned()),
        }
    }
}
