//! The chains: how far each has come, whether what comes in fits, checkpoints, and what may be removed.

use super::database::{Database, Write};
use crate::model::{Actor, AuditEvent, Divergence, Evidence, OwnChain, Received};
use crate::store::chain::{self, Chains, Step};
use crate::store::rows::audit::CheckpointRow;
use crate::store::rows::{parsed, signed, unsigned};
use crate::store::{Pruned, Result, Retention};
use bouncer_audit::{ChainId, ChainPoint, Checkpoint, Owner, Signed};
use bouncer_custody::BouncerName;
use sqlx::SqliteConnection;
use std::collections::HashMap;

const CHAINS: &str = "audit_chains";
/// Events removed in one transaction, so that nobody waits long for the next.
const PRUNED_AT_ONCE: i64 = 1_000;

/// Checkpoints with their certificates.
macro_rules! checkpoints {
    ($which:literal) => {
        concat!(
            "SELECT p.*, c.certificates FROM audit_checkpoints p
             JOIN audit_certificates c ON c.sha256 = p.certificates_sha256 ",
            $which
        )
    };
}
pub(super) use checkpoints;

/// Where a chain is, and whose it is.
async fn end(connection: &mut SqliteConnection, chain: &ChainId) -> Result<Option<(Owner, ChainPoint)>> {
    let row: Option<(String, i64, Vec<u8>)> =
        sqlx::query_as("SELECT owner, sequence, head FROM audit_chains WHERE chain = ?")
            .bind(chain.as_str())
            .fetch_optional(connection)
            .await?;
    row.map(|(text, sequence, head)| chain::end(chain, text, sequence, &head)).transpose()
}

/// Notes that a chain has come to `end`.
pub(super) async fn reach(connection: &mut SqliteConnection, owner: &Owner, end: &ChainPoint) -> Result<()> {
    sqlx::query(
        "INSERT INTO audit_chains (chain, owner, sequence, head) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (chain) DO UPDATE SET sequence = ?3, head = ?4",
    )
    .bind(end.chain.as_str())
    .bind(owner.to_string())
    .bind(signed(end.sequence)?)
    .bind(end.head.as_bytes().as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

/// Where the control plane's own chain is, once it has begun.
pub(super) async fn own_end(connection: &mut SqliteConnection) -> Result<Option<ChainPoint>> {
    let chain: Option<String> = sqlx::query_scalar("SELECT chain FROM audit_chains WHERE owner = ?")
        .bind(Owner::ControlPlane.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(chain) = chain else { return Ok(None) };
    Ok(end(connection, &parsed(CHAINS, &chain)?).await?.map(|(_, point)| point))
}

pub(super) async fn own(database: &Database) -> Result<Option<OwnChain>> {
    let mut connection = database.reader.acquire().await?;
    let Some(end) = own_end(&mut connection).await? else { return Ok(None) };
    let row: Option<CheckpointRow> = sqlx::query_as(checkpoints!("WHERE chain = ? ORDER BY number DESC LIMIT 1"))
        .bind(end.chain.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    Ok(Some(OwnChain { end, last: row.map(CheckpointRow::read).transpose()? }))
}

pub(super) async fn add_own_checkpoint(database: &Database, signed: &Signed) -> Result<()> {
    let mut write = database.begin().await?;
    insert(&mut write, signed).await?;
    write.commit().await
}

/// Stores a checkpoint, unless its number is taken. Returns whether it was new.
async fn insert(write: &mut Write<'_>, checkpoint: &Signed) -> Result<bool> {
    let (sha256, certificates) = chain::certificates(checkpoint);
    sqlx::query("INSERT OR IGNORE INTO audit_certificates (sha256, certificates) VALUES (?, ?)")
        .bind(sha256.as_slice())
        .bind(certificates)
        .execute(write.connection())
        .await?;
    let Checkpoint { chain, owner, number, sequence, head, time_ms } = &checkpoint.checkpoint;
    let received_ms = write.now_ms();
    let inserted = sqlx::query(
        "INSERT OR IGNORE INTO audit_checkpoints (chain, number, owner, sequence, head, time_ms, algorithm, signature,
             certificates_sha256, received_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(chain.as_str())
    .bind(signed(*number)?)
    .bind(owner.to_string())
    .bind(signed(*sequence)?)
    .bind(head.as_bytes().as_slice())
    .bind(time_ms)
    .bind(checkpoint.algorithm.as_str())
    .bind(&checkpoint.signature)
    .bind(sha256.as_slice())
    .bind(received_ms)
    .execute(write.connection())
    .await?;
    Ok(inserted.rows_affected() > 0)
}

/// What comes in from one bouncer in one transaction, held against its chains.
pub(super) struct Incoming {
    bouncer: String,
    chains: Chains,
    divergences: Vec<Divergence>,
}

impl Incoming {
    pub(super) fn new(bouncer: &BouncerName) -> Self {
        Self { bouncer: bouncer.to_string(), chains: Chains::new(bouncer), divergences: Vec::new() }
    }

    async fn look_up(&mut self, write: &mut Write<'_>, chain: &ChainId) -> Result<()> {
        if !self.chains.knows(chain) {
            self.chains.learn(chain.clone(), end(write.connection(), chain).await?);
        }
        Ok(())
    }

    async fn note(
        &mut self,
        write: &mut Write<'_>,
        kind: Divergence,
        at: (&ChainId, u64),
        evidence: &str,
    ) -> Result<()> {
        let received_ms = write.now_ms();
        sqlx::query(
            "INSERT INTO audit_divergences (received_ms, bouncer, chain, sequence, kind, evidence)
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(received_ms)
        .bind(&self.bouncer)
        .bind(at.0.as_str())
        .bind(signed(at.1)?)
        .bind(kind.as_str())
        .bind(evidence)
        .execute(write.connection())
        .await?;
        self.divergences.push(kind);
        Ok(())
    }

    /// Where an event says that it is chained. In another owner's chain it can't be.
    pub(super) async fn evidence<'a>(
        &mut self,
        write: &mut Write<'_>,
        event: &'a AuditEvent,
    ) -> Result<Option<&'a Evidence>> {
        if let Some(evidence) = &event.evidence {
            self.look_up(write, &evidence.chain).await?;
        }
        Ok(self.chains.evidence(event))
    }

    /// How many of these can be stored before any of them is held against what is stored: those that go on where their
    /// chain, or another of them, ended. What comes late or twice is stored by itself.
    pub(super) async fn following(&mut self, write: &mut Write<'_>, events: &[AuditEvent]) -> Result<usize> {
        let mut ends: HashMap<&ChainId, u64> = HashMap::new();
        for (at, event) in events.iter().enumerate() {
            let Some(evidence) = &event.evidence else { continue };
            let end = match ends.get(&evidence.chain) {
                Some(end) => *end,
                None => {
                    self.look_up(write, &evidence.chain).await?;
                    self.chains.sequence(&evidence.chain)
                }
            };
            if event.sequence <= end {
                return Ok(at);
            }
            ends.insert(&evidence.chain, event.sequence);
        }
        Ok(events.len())
    }

    /// An event was stored: does it follow?
    pub(super) async fn take(&mut self, write: &mut Write<'_>, event: &AuditEvent) -> Result<()> {
        let Some(evidence) = &event.evidence else { return Ok(()) };
        let at = (&evidence.chain, event.sequence);
        let fault = match self.chains.take(event, evidence) {
            Step::Next(fault) => fault,
            Step::Foreign => Some(Divergence::Owner),
            Step::Late => self.stored_twice(write, event.sequence, evidence).await?.then_some(Divergence::Conflict),
        };
        match fault {
            Some(fault) => self.note(write, fault, at, "").await,
            None => Ok(()),
        }
    }

    async fn stored_twice(&self, write: &mut Write<'_>, sequence: u64, evidence: &Evidence) -> Result<bool> {
        let others: i64 =
            sqlx::query_scalar("SELECT count(*) FROM audit_events WHERE chain = ? AND sequence = ? AND leaf <> ?")
                .bind(evidence.chain.as_str())
                .bind(signed(sequence)?)
                .bind(evidence.leaf.as_bytes().as_slice())
                .fetch_one(write.connection())
                .await?;
        Ok(others > 0)
    }

    /// An event with this id is there already: is it this one?
    pub(super) async fn again(&mut self, write: &mut Write<'_>, event: &AuditEvent) -> Result<()> {
        let Some(evidence) = &event.evidence else { return Ok(()) };
        let stored: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT leaf FROM audit_events WHERE bouncer = ? AND id = ?")
                .bind(&self.bouncer)
                .bind(event.id.to_string())
                .fetch_optional(write.connection())
                .await?;
        let same = |leaf: &Vec<u8>| leaf.as_slice() == evidence.leaf.as_bytes().as_slice();
        // One without a leaf was stored before there were any, or in another's chain.
        if stored.flatten().as_ref().is_none_or(same) {
            return Ok(());
        }
        let told = chain::told_again(event, evidence);
        self.note(write, Divergence::Conflict, (&evidence.chain, event.sequence), &told).await
    }

    /// Stores a checkpoint, whatever is wrong with it.
    pub(super) async fn checkpoint(&mut self, write: &mut Write<'_>, received: &Received) -> Result<()> {
        let signed = &received.signed;
        let Checkpoint { chain, sequence, number, head, .. } = &signed.checkpoint;
        let at = (chain, *sequence);
        let told = || serde_json::to_string(signed).unwrap_or_default();
        self.look_up(write, chain).await?;
        if self.chains.is_foreign(chain) {
            return self.note(write, Divergence::Owner, at, &told()).await;
        }
        if !insert(write, signed).await? {
            let row: CheckpointRow = sqlx::query_as(checkpoints!("WHERE chain = ? AND number = ?"))
                .bind(chain.as_str())
                .bind(crate::store::rows::signed(*number)?)
                .fetch_one(write.connection())
                .await?;
            if row.read()? != *signed {
                self.note(write, Divergence::CheckpointConflict, at, &told()).await?;
            }
            return Ok(());
        }
        if let Some(fault) = received.fault {
            self.note(write, fault, at, "").await?;
        }
        let stored: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT head FROM audit_events WHERE chain = ? AND sequence = ? ORDER BY seq LIMIT 1")
                .bind(chain.as_str())
                .bind(crate::store::rows::signed(*sequence)?)
                .fetch_optional(write.connection())
                .await?;
        if stored.is_some_and(|stored| stored.as_slice() != head.as_bytes().as_slice()) {
            self.note(write, Divergence::CheckpointHead, at, "").await?;
        }
        Ok(())
    }

    /// Notes how far the chains have come.
    pub(super) async fn finish(self, write: &mut Write<'_>) -> Result<Vec<Divergence>> {
        for (owner, end) in self.chains.reached() {
            reach(write.connection(), owner, end).await?;
        }
        Ok(self.divergences)
    }
}

/// What of a chain, or of what is in none, may go.
struct Cut {
    chain: Option<ChainId>,
    /// The chain has checkpoints, and `through` is one's.
    signed: bool,
    through: u64,
    pruned: Pruned,
}

pub(super) async fn prune(database: &Database, old: &Retention) -> Result<Pruned> {
    let sent = super::outlets::sent(database, &old.outlets).await?;
    let cuts = cuts(database, old, sent).await?;
    let events: u64 = cuts.iter().map(|cut| cut.pruned.events).sum();
    let unsent = cuts.iter().map(|cut| cut.pruned.unsent).sum();
    if events == 0 {
        return Ok(Pruned::default());
    }
    let mut write = database.begin().await?;
    let detail = old.detail(events, unsent);
    write.record(&Actor::control_plane(), "audit.pruned", "audit", &detail).await?;
    write.commit().await?;
    let mut pruned = Pruned { events: 0, unsent };
    for cut in cuts.iter().filter(|cut| cut.pruned.events > 0) {
        loop {
            let mut write = database.begin().await?;
            let (deleted, more) = match &cut.chain {
                Some(chain) => shorten(&mut write, chain, cut).await?,
                None => remove_unchained(&mut write, old, sent).await?,
            };
            write.commit().await?;
            pruned.events += deleted;
            if !more {
                break;
            }
        }
    }
    Ok(pruned)
}

/// Removes the first of what may go of a chain, up to where what is left can begin: a checkpoint, or where there are none a
/// head that is kept. Returns how many events that were, and whether more may go.
async fn shorten(write: &mut Write<'_>, chain: &ChainId, cut: &Cut) -> Result<(u64, bool)> {
    let last = signed(cut.through)?;
    let first: Option<i64> =
        sqlx::query_scalar("SELECT min(sequence) FROM audit_events WHERE chain = ?1 AND sequence <= ?2")
            .bind(chain.as_str())
            .bind(last)
            .fetch_one(write.connection())
            .await?;
    let Some(first) = first else { return Ok((0, false)) };
    let some = first.saturating_add(PRUNED_AT_ONCE) - 1;
    let through = if cut.signed {
        let checkpoint: Option<i64> = sqlx::query_scalar(
            "SELECT min(sequence) FROM audit_checkpoints WHERE chain = ?1 AND sequence >= ?2 AND sequence < ?3",
        )
        .bind(chain.as_str())
        .bind(some)
        .bind(last)
        .fetch_one(write.connection())
        .await?;
        checkpoint.unwrap_or(last)
    } else {
        let through = some.min(last);
        sqlx::query(
            "INSERT INTO audit_cuts (chain, sequence, head)
             SELECT chain, sequence, head FROM audit_events WHERE chain = ?1 AND sequence <= ?2
             ORDER BY sequence DESC, seq LIMIT 1
             ON CONFLICT (chain) DO UPDATE SET sequence = excluded.sequence, head = excluded.head",
        )
        .bind(chain.as_str())
        .bind(through)
        .execute(write.connection())
        .await?;
        through
    };
    let deleted = sqlx::query("DELETE FROM audit_events WHERE chain = ?1 AND sequence <= ?2")
        .bind(chain.as_str())
        .bind(through)
        .execute(write.connection())
        .await?
        .rows_affected();
    Ok((deleted, through < last))
}

/// Removes some of what is old and in no chain. Returns how many events that were, and whether there may be more.
async fn remove_unchained(write: &mut Write<'_>, old: &Retention, sent: i64) -> Result<(u64, bool)> {
    let deleted = sqlx::query(
        "DELETE FROM audit_events WHERE seq IN (
             SELECT seq FROM audit_events WHERE chain IS NULL AND time_ms < ?1 AND (seq <= ?2 OR time_ms < ?3) LIMIT ?4)",
    )
    .bind(old.before.as_millisecond())
    .bind(sent)
    .bind(old.unsent_before.as_millisecond())
    .bind(PRUNED_AT_ONCE)
    .execute(write.connection())
    .await?
    .rows_affected();
    Ok((deleted, deleted == PRUNED_AT_ONCE.unsigned_abs()))
}

/// Read beside the writer, which has other things to do. `sent` is the last that every outlet has.
async fn cuts(database: &Database, old: &Retention, sent: i64) -> Result<Vec<Cut>> {
    let (before_ms, unsent_before_ms) = (old.before.as_millisecond(), old.unsent_before.as_millisecond());
    let chains: Vec<(String, i64)> =
        sqlx::query_as("SELECT chain, sequence FROM audit_chains WHERE owner <> 'control-plane'")
            .fetch_all(&database.reader)
            .await?;
    let mut cuts = Vec::new();
    for (chain, last) in chains {
        // By sequence, so that the search ends at the first event that is to stay.
        let first_kept: Option<i64> = sqlx::query_scalar(
            "SELECT sequence FROM audit_events
             WHERE chain = ?1 AND (time_ms >= ?2 OR (seq > ?3 AND time_ms >= ?4)) ORDER BY sequence LIMIT 1",
        )
        .bind(&chain)
        .bind(before_ms)
        .bind(sent)
        .bind(unsent_before_ms)
        .fetch_optional(&database.reader)
        .await?;
        let kept = first_kept.unwrap_or(last.saturating_add(1));
        let (covered, signed): (Option<i64>, bool) = sqlx::query_as(
            "SELECT (SELECT max(sequence) FROM audit_checkpoints WHERE chain = ?1 AND sequence < ?2),
                 EXISTS (SELECT 1 FROM audit_checkpoints WHERE chain = ?1)",
        )
        .bind(&chain)
        .bind(kept)
        .fetch_one(&database.reader)
        .await?;
        // A chain that nothing signs is that of a bouncer without an SVID, and nothing more will come to cover its events.
        let through = if signed { covered } else { Some(kept - 1) };
        let Some(through) = through else { continue };
        let events = sqlx::query_as(
            "SELECT count(*), count(*) FILTER (WHERE seq > ?3) FROM audit_events WHERE chain = ?1 AND sequence <= ?2",
        )
        .bind(&chain)
        .bind(through)
        .bind(sent)
        .fetch_one(&database.reader)
        .await?;
        let chain = Some(parsed(CHAINS, &chain)?);
        cuts.push(Cut { chain, signed, through: unsigned(through)?, pruned: Pruned::read(events)? });
    }
    let events = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE seq > ?2) FROM audit_events
         WHERE chain IS NULL AND time_ms < ?1 AND (seq <= ?2 OR time_ms < ?3)",
    )
    .bind(before_ms)
    .bind(sent)
    .bind(unsent_before_ms)
    .fetch_one(&database.reader)
    .await?;
    cuts.push(Cut { chain: None, signed: false, through: 0, pruned: Pruned::read(events)? });
    Ok(cuts)
}
