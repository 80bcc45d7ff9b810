//! Where the spool's chain is, over restarts: in its last line, or beside the acknowledged position where no line is left.

use crate::state_file;
use bouncer_audit::{ChainId, ChainPoint, Owner};
use bouncer_custody::BouncerName;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

const ACKED: &str = "acked";
const CHAIN: &str = "chain";

/// How far the control plane has acknowledged.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    /// The last such event.
    pub(super) sequence: u64,
    /// Where the chain was then, if that was the last event there was.
    pub(super) at: Option<ChainPoint>,
}

impl Acknowledged {
    /// What was kept; from the start where that can't be read. Before there were chains it was 8 bytes.
    pub(super) fn read(folder: &Path) -> Self {
        let Some(bytes) = state_file::read(&folder.join(ACKED)).ok().flatten() else { return Self::default() };
        let Some((sequence, rest)) = bytes.split_first_chunk() else { return Self::default() };
        Self { sequence: u64::from_be_bytes(*sequence), at: serde_json::from_slice(rest).ok() }
    }

    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let mut bytes = self.sequence.to_be_bytes().to_vec();
        if let Some(at) = &self.at {
            serde_json::to_writer(&mut bytes, at)?;
        }
        state_file::write(&folder.join(ACKED), &bytes)
    }
}

/// The chain that is in use, and for which bouncer it was begun.
#[derive(Serialize, Deserialize)]
struct Begun {
    bouncer: BouncerName,
    chain: ChainId,
}

/// Where the chain is behind event `sequence`. One is begun where there is none, where it belongs to another bouncer, and
/// where nothing says any more how it went on to there: better a new one than two ways on from one place.
pub(super) fn take_up(
    folder: &Path,
    bouncer: &BouncerName,
    sequence: u64,
    last: Option<ChainPoint>,
    acknowledged: Acknowledged,
) -> io::Result<ChainPoint> {
    let path = folder.join(CHAIN);
    let begun: Option<Begun> = state_file::load(&path).ok().flatten().filter(|begun: &Begun| begun.bouncer == *bouncer);
    if let Some(begun) = begun {
        let here = |at: &ChainPoint| at.sequence == sequence && at.chain == begun.chain;
        if let Some(at) = [last, acknowledged.at].into_iter().flatten().find(here) {
            return Ok(at);
        }
    }
    let chain: ChainId = uuid::Uuid::now_v7().to_string().parse().map_err(io::Error::other)?;
    state_file::store(&path, &Begun { bouncer: bouncer.clone(), chain: chain.clone() })?;
    tracing::info!(%chain, after = sequence, "a new audit chain begins");
    Ok(ChainPoint::origin(chain, &Owner::Bouncer(bouncer.to_string()), sequence))
}
