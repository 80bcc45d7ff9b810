//! Checkpoints over the spool's chain, signed under the SVID of the moment. Called by the [`crate::bridge`].
//!
//! A checkpoint is on disk before it is sent, and the last one is sent again with each connection: so none of their
//! numbers is ever missing at the control plane, whatever is killed when.

use crate::identity::Svid;
use crate::state_file;
use bouncer_audit::{CHECKPOINT_EVENTS, ChainPoint, Checkpoint, Owner, Signed, Signer};
use bouncer_custody::BouncerName;
use bouncer_proto::bridge::v1 as wire;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// So long new events may go without one.
const PERIOD: Duration = Duration::from_secs(10);

/// The checkpoints of one spool.
#[derive(Debug)]
pub struct Checkpoints {
    path: PathBuf,
    bouncer: BouncerName,
    last: Option<Signed>,
    /// When the last one was made by this process.
    made: Option<Instant>,
}

impl Checkpoints {
    /// Takes up the last one of a former run.
    #[must_use]
    pub fn open(state_dir: &Path, bouncer: &BouncerName) -> Self {
        let path = state_dir.join("audit").join("checkpoint");
        let last = state_file::load::<Signed>(&path).unwrap_or_else(|error| {
            tracing::warn!(%error, "the last audit checkpoint can't be read; their numbers begin anew, which verification will show");
            None
        });
        // Of the name that the resolver had before.
        let last = last.filter(|last| last.checkpoint.owner == Owner::Bouncer(bouncer.to_string()));
        Self { path, bouncer: bouncer.clone(), last, made: None }
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> Option<wire::Checkpoint> {
        self.last.as_ref().map(on_the_wire)
    }

    /// Whether the chain has gone on since the last one.
    #[must_use]
    pub fn behind(&self, at: &ChainPoint) -> bool {
        self.last.as_ref().is_none_or(|last| last.checkpoint.point() != *at)
    }

    /// How long one can still wait.
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.made.map_or(Duration::ZERO, |made| PERIOD.saturating_sub(made.elapsed()))
    }

    /// Whether one is due over `at` by number, time or a change of the SVID.
    #[must_use]
    pub fn due(&self, at: &ChainPoint, svid: &Svid) -> bool {
        let Some(last) = &self.last else { return true };
        let point = last.checkpoint.point();
        let rotated = last.certificates.first().map(Vec::as_slice) != svid.chain.first().map(AsRef::as_ref);
        let many = at.chain != point.chain || at.sequence.saturating_sub(point.sequence) >= CHECKPOINT_EVENTS;
        self.behind(at) && (rotated || many || self.wait().is_zero())
    }

    /// Signs one over `at`, and keeps it. `None`, with a word in the log, where that can't be done now. Waits for the disk.
    pub fn make(&mut self, at: ChainPoint, svid: &Svid) -> Option<wire::Checkpoint> {
        let before = self.last.as_ref().filter(|last| last.checkpoint.chain == at.chain);
        let checkpoint = Checkpoint {
            chain: at.chain,
            owner: Owner::Bouncer(self.bouncer.to_string()),
            number: before.map_or(0, |last| last.checkpoint.number) + 1,
            sequence: at.sequence,
            head: at.head,
            time_ms: jiff::Timestamp::now().as_millisecond(),
        };
        self.made = Some(Instant::now());
        let certificates = svid.chain.iter().map(|one| one.to_vec()).collect();
        let signed = match Signer::new(&svid.key, certificates).and_then(|signer| signer.sign(checkpoint)) {
            Ok(signed) => signed,
            Err(error) => {
                tracing::error!(%error, "an audit checkpoint was not made; the audit goes on unsigned");
                return None;
            }
        };
        if let Err(error) = state_file::store(&self.path, &signed) {
            tracing::error!(%error, "an audit checkpoint could not be saved and was not sent; it is made again");
            return None;
        }
        let sent = on_the_wire(&signed);
        self.last = Some(signed);
        Some(sent)
    }
}

fn on_the_wire(signed: &Signed) -> wire::Checkpoint {
    let Checkpoint { chain, owner, number, sequence, head, time_ms } = &signed.checkpoint;
    let bouncer = if let Owner::Bouncer(name) = owner { name.clone() } else { String::new() };
    wire::Checkpoint {
        chain: chain.to_string(),
        bouncer,
        number: *number,
        sequence: *sequence,
        head: head.as_bytes().to_vec(),
        time_ms: *time_ms,
        algorithm: signed.algorithm.as_str().to_owned(),
        signature: signed.signature.clone(),
        certificates: signed.certificates.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    fn svid() -> Svid {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["spiffe.example.org".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        Svid { chain: vec![cert.der().clone()], key }
    }

    fn at(last: u8, sequence: u64) -> ChainPoint {
        let chain = format!("0199d7a0-0000-7000-8000-00000000000{last}").parse().unwrap();
        ChainPoint { sequence, ..ChainPoint::origin(chain, &Owner::ControlPlane, 0) }
    }

    #[test]
    fn numbers_go_on_over_restarts_and_begin_anew_with_a_chain() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("audit")).unwrap();
        let open = || Checkpoints::open(folder.path(), &"payments-east".parse().unwrap());
        let svid = svid();
        assert_eq!(open().last(), None);
        assert_eq!(open().make(at(1, 3), &svid).unwrap().number, 1);
        let mut again = open();
        assert_eq!(again.last().unwrap().sequence, 3);
        assert_eq!(again.make(at(1, 4), &svid).unwrap().number, 2);
        assert_eq!(again.make(at(2, 1), &svid).unwrap().number, 1);
        assert_eq!(again.last(), open().last());
        let renamed = Checkpoints::open(folder.path(), &"payments-west".parse().unwrap());
        assert_eq!(renamed.last(), None, "it is not sent in another bouncer's name");
    }

    #[test]
    fn one_is_due_by_number_by_time_and_when_the_svid_rotates() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("audit")).unwrap();
        let mut checkpoints = Checkpoints::open(folder.path(), &"payments-east".parse().unwrap());
        let one = svid();
        assert!(checkpoints.due(&at(1, 1), &one), "the first, at once");
        checkpoints.make(at(1, 1), &one).unwrap();
        assert!(!checkpoints.due(&at(1, 1), &one) && !checkpoints.due(&at(1, 1), &svid()), "nothing is new");
        assert!(!checkpoints.due(&at(1, 2), &one), "not for each event");
        assert!(checkpoints.due(&at(1, 1_001), &one));
        assert!(checkpoints.due(&at(1, 2), &svid()));
        assert!(checkpoints.due(&at(2, 2), &one));
        checkpoints.made = checkpoints.made.and_then(|made| made.checked_sub(PERIOD));
        assert!(checkpoints.due(&at(1, 2), &one));
    }

    #[test]
    fn one_that_could_not_be_saved_is_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let mut checkpoints = Checkpoints::open(folder.path(), &"payments-east".parse().unwrap());
        assert_eq!(checkpoints.make(at(1, 1), &svid()), None);
        assert_eq!(checkpoints.last(), None);
    }
}
