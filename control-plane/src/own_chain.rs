//! Checkpoints over the control plane's own chain of administrative changes, under its own SVID. Run beside the Policy
//! Bridge by [`crate::serve`].
//!
//! They tell a later change of the database apart from what the control plane wrote; against the control plane itself only
//! a copy of them elsewhere helps.

use crate::clock::Clock;
use crate::store::{Result, Store};
use bouncer_audit::{Checkpoint, CheckpointError, Owner, Signed, Signer};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::X509Source;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// So long a change may go without one.
const PERIOD: Duration = Duration::from_secs(10);

/// Signs at once, from time to time, and once more at the end.
pub async fn keep(store: Arc<dyn Store>, clock: Arc<dyn Clock>, source: X509Source, stop: CancellationToken) {
    let mut ended = false;
    loop {
        if let Err(error) = keep_up(&*store, &*clock, &source).await {
            tracing::error!(%error, "a checkpoint of the administrative changes could not be stored; trying again");
        }
        if ended {
            return;
        }
        ended = stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none();
    }
}

async fn keep_up(store: &dyn Store, clock: &dyn Clock, source: &X509Source) -> Result<()> {
    let Some(checkpoint) = due(store, clock).await? else { return Ok(()) };
    // Without an SVID there is none; the next one covers what was changed meanwhile.
    let Ok(svid) = source.svid() else { return Ok(()) };
    let certificates = svid.cert_chain().iter().map(|one| one.as_bytes().to_vec()).collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec()));
    add(store, Signer::new(&key, certificates).and_then(|signer| signer.sign(checkpoint))).await
}

/// Signs what was changed since the last checkpoint, if anything was.
///
/// # Errors
/// If the database does not answer.
pub async fn sign(store: &dyn Store, clock: &dyn Clock, signer: &Signer) -> Result<()> {
    match due(store, clock).await? {
        Some(checkpoint) => add(store, signer.sign(checkpoint)).await,
        None => Ok(()),
    }
}

/// The checkpoint over what was changed since the last one, if anything was.
async fn due(store: &dyn Store, clock: &dyn Clock) -> Result<Option<Checkpoint>> {
    let Some(own) = store.own_chain().await? else { return Ok(None) };
    if own.last.as_ref().is_some_and(|last| last.checkpoint.point() == own.end) {
        return Ok(None);
    }
    Ok(Some(Checkpoint {
        chain: own.end.chain,
        owner: Owner::ControlPlane,
        number: own.last.map_or(0, |last| last.checkpoint.number) + 1,
        sequence: own.end.sequence,
        head: own.end.head,
        time_ms: clock.now().as_millisecond(),
    }))
}

async fn add(store: &dyn Store, signed: std::result::Result<Signed, CheckpointError>) -> Result<()> {
    match signed {
        Ok(signed) => store.add_own_checkpoint(&signed).await,
        Err(error) => {
            tracing::error!(%error, "the administrative changes are not signed");
            Ok(())
        }
    }
}
