//! The chains: how far each has come, whether what comes in fits, checkpoints, and what may be removed.

use super::database::{Database, Write, lock_number};
use crate::model::{Actor, AuditEvent, Divergence, Evidence, OwnChain, Received};
use crate::store::chain::{self, Chains, Step};
use crate::store::rows::audit::CheckpointRow;
use crate::store::rows::{parsed, signed, unsigned};
use crate::store::{Pruned, Result, Retention};
use bouncer_audit::{ChainId, ChainPoint, Checkpoint, Owner, Signed};
use bouncer_custody::BouncerName;
use sqlx::PgConnection;

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
async fn end(connection: &mut PgConnection, chain: &ChainId) -> Result<Option<(Owner, ChainPoint)>> {
    let row: Option<(String, i64, Vec<u8>)> =
        sqlx::query_as("SELECT owner, sequence, head FROM audit_chains WHERE chain = $1")
            .bind(chain.as_str())
            .fetch_optional(connection)
            .await?;
    row.map(|(text, sequence, head)| chain::end(chain, text, sequence, &head)).transpose()
}

/// Notes that a chain has come to `end`.
pub(super) async fn reach(connection: &mut PgConnection, owner: &Owner, end: &ChainPoint) -> Result<()> {
    sqlx::query(
        "INSERT INTO audit_chains (chain, owner, sequence, head) VALUES ($1, $2, $3, $4)
         ON CONFLICT (chain) DO UPDATE SET sequence = $3, head = $4",
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
pub(super) async fn own_end(connection: &mut PgConnection) -> Result<Option<ChainPoint>> {
    let chain: Option<String> = sqlx::query_scalar("SELECT chain FROM audit_chains WHERE owner = $1")
        .bind(Owner::ControlPlane.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(chain) = chain else { return Ok(None) };
    Ok(end(connection, &parsed(CHAINS, &chain)?).await?.map(|(_, point)| point))
}

pub(super) async fn own(database: &Database) -> Result<Option<OwnChain>> {
    // One snapshot for both, so that no other replica's checkpoint lies behind the end that the next one is to cover.
    let mut read = database.reader.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let Some(end) = own_end(&mut read).await? else { return Ok(None) };
    let row: Option<CheckpointRow> = sqlx::query_as(checkpoints!("WHERE chain = $1 ORDER BY number DESC LIMIT 1"))
        .bind(end.chain.as_str())
        .fetch_optional(&mut *read)
        .await?;
    read.commit().await?;
    Ok(Some(OwnChain { end, last: row.map(CheckpointRow::read).transpose()? }))
}

pub(super) async fn add_own_checkpoint(database: &Database, signed: &Signed) -> Result<()> {
    let mut write = database.begin_beside().await?;
    insert(&mut write, signed).await?;
    write.commit().await
}

/// Stores a checkpoint, unless its number is taken. Returns whether it was new.
async fn insert(write: &mut Write<'_>, checkpoint: &Signed) -> Result<bool> {
    let (sha256, certificates) = chain::certificates(checkpoint);
    sqlx::query("INSERT INTO audit_certificates (sha256, certificates) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(sha256.as_slice())
        .bind(certificates)
        .execute(write.connection())
        .await?;
    let Checkpoint { chain, owner, number, sequence, head, time_ms } = &checkpoint.checkpoint;
    let received_ms = write.now_ms();
    let inserted = sqlx::query(
        "INSERT INTO audit_checkpoints (chain, number, owner, sequence, head, time_ms, algorithm, signature,
             certificates_sha256, received_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING",
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
    /// Looks up the chains that a batch speaks of. Until the transaction ends no other batch of this bouncer's, and none
    /// that speaks of the same chains, comes between.
    pub(super) async fn begin(
        write: &mut Write<'_>,
        bouncer: &BouncerName,
        events: &[AuditEvent],
        checkpoint: Option<&Received>,
    ) -> Result<Self> {
        write.lock(lock_number("bouncer", bouncer.as_str())).await?;
        let of_events = events.iter().filter_map(|event| event.evidence.as_ref()).map(|evidence| &evidence.chain);
        let of_checkpoint = checkpoint.map(|received| &received.signed.checkpoint.chain);
        let mut names: Vec<&ChainId> = of_events.chain(of_checkpoint).collect();
        // In one order for all, so that no two wait for each other.
        names.sort_unstable_by_key(|chain| chain.as_str());
        names.dedup();
        let mut chains = Chains::new(bouncer);
        for name in names {
            write.lock(lock_number("chain", name.as_str())).await?;
            chains.learn(name.clone(), end(write.connection(), name).await?);
        }
        Ok(Self { bouncer: bouncer.to_string(), chains, divergences: Vec::new() })
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
             VALUES ($1, $2, $3, $4, $5, $6)",
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
    pub(super) fn evidence<'a>(&self, event: &'a AuditEvent) -> Option<&'a Evidence> {
        self.chains.evidence(event)
    }

    /// An event was stored, as `seq`: does it follow?
    pub(super) async fn take(&mut self, write: &mut Write<'_>, event: &AuditEvent, seq: i64) -> Result<()> {
        let Some(evidence) = &event.evidence else { return Ok(()) };
        let at = (&evidence.chain, event.sequence);
        let fault = match self.chains.take(event, evidence) {
            Step::Next(fault) => fault,
            Step::Foreign => Some(Divergence::Owner),
            Step::Late => {
                self.stored_twice(write, event.sequence, seq, evidence).await?.then_some(Divergence::Conflict)
            }
        };
        match fault {
            Some(fault) => self.note(write, fault, at, "").await,
            None => Ok(()),
        }
    }

    /// Whether another event had the place before this one came.
    async fn stored_twice(&self, write: &mut Write<'_>, sequence: u64, seq: i64, evidence: &Evidence) -> Result<bool> {
        let others: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM audit_events WHERE chain = $1 AND sequence = $2 AND seq < $3 AND leaf <> $4",
        )
        .bind(evidence.chain.as_str())
        .bind(signed(sequence)?)
        .bind(seq)
        .bind(evidence.leaf.as_bytes().as_slice())
        .fetch_one(write.connection())
        .await?;
        Ok(others > 0)
    }

    /// An event with this id is there already: is it this one?
    pub(super) async fn again(&mut self, write: &mut Write<'_>, event: &AuditEvent) -> Result<()> {
        let Some(evidence) = &event.evidence else { return Ok(()) };
        let stored: Option<Option<Vec<u8>>> =
            sqlx::query_scalar("SELECT leaf FROM audit_events WHERE bouncer = $1 AND id = $2")
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
        if self.chains.is_foreign(chain) {
            return self.note(write, Divergence::Owner, at, &told()).await;
        }
        if !insert(write, signed).await? {
            let row: CheckpointRow = sqlx::query_as(checkpoints!("WHERE chain = $1 AND number = $2"))
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
            sqlx::query_scalar("SELECT head FROM audit_events WHERE chain = $1 AND sequence = $2 ORDER BY seq LIMIT 1")
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
    // One replica at a time: another that would find the same events leaves them to the first.
    let mut turn = database.begin_beside().await?;
    sqlx::query("SET LOCAL idle_in_transaction_session_timeout = 0").execute(turn.connection()).await?;
    if !turn.try_lock(lock_number("retention", "")).await? {
        return Ok(Pruned::default());
    }
    let sent = super::outlets::sent(database, &old.outlets).await?;
    let cuts = cuts(database, old, sent).await?;
    let events: u64 = cuts.iter().map(|cut| cut.pruned.events).sum();
    let unsent = cuts.iter().map(|cut| cut.pruned.unsent).sum();
    if events == 0 {
        // A transaction that is only dropped keeps its lock until the connection is cleaned up, and whoever comes next
        // would leave the events to it.
        turn.commit().await?;
        return Ok(Pruned::default());
    }
    let mut write = database.begin().await?;
    let detail = old.detail(events, unsent);
    write.record(&Actor::control_plane(), "audit.pruned", "audit", &detail).await?;
    write.commit().await?;
    let mut pruned = Pruned { events: 0, unsent };
    for cut in cuts.iter().filter(|cut| cut.pruned.events > 0) {
        loop {
            let mut write = database.begin_beside().await?;
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
    turn.commit().await?;
    Ok(pruned)
}

/// Removes the first of what may go of a chain, up to where what is left can begin: a checkpoint, or where there are none a
/// head that is kept. Returns how many events that were, and whether more may go.
async fn shorten(write: &mut Write<'_>, chain: &ChainId, cut: &Cut) -> Result<(u64, bool)> {
    let last = signed(cut.through)?;
    let first: Option<i64> =
        sqlx::query_scalar("SELECT min(sequence) FROM audit_events WHERE chain = $1 AND sequence <= $2")
            .bind(chain.as_str())
            .bind(last)
            .fetch_one(write.connection())
            .await?;
    let Some(first) = first else { return Ok((0, false)) };
    let some = first.saturating_add(PRUNED_AT_ONCE) - 1;
    let through = if cut.signed {
        let checkpoint: Option<i64> = sqlx::query_scalar(
            "SELECT min(sequence) FROM audit_checkpoints WHERE chain = $1 AND sequence >= $2 AND sequence < $3",
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
             SELECT chain, sequence, head FROM audit_events WHERE chain = $1 AND sequence <= $2
             ORDER BY sequence DESC, seq LIMIT 1
             ON CONFLICT (chain) DO UPDATE SET sequence = excluded.sequence, head = excluded.head",
        )
        .bind(chain.as_str())
        .bind(through)
        .execute(write.connection())
        .await?;
        through
    };
    let deleted = sqlx::query("DELETE FROM audit_events WHERE chain = $1 AND sequence <= $2")
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
             SELECT seq FROM audit_events WHERE chain IS NULL AND time_ms < $1 AND (seq <= $2 OR time_ms < $3) LIMIT $4)",
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
             WHERE chain = $1 AND (time_ms >= $2 OR (seq > $3 AND time_ms >= $4)) ORDER BY sequence LIMIT 1",
        )
        .bind(&chain)
        .bind(before_ms)
        .bind(sent)
        .bind(unsent_before_ms)
        .fetch_optional(&database.reader)
        .await?;
        let kept = first_kept.unwrap_or(last.saturating_add(1));
        let (covered, signed): (Option<i64>, bool) = sqlx::query_as(
            "SELECT (SELECT max(sequence) FROM audit_checkpoints WHERE chain = $1 AND sequence < $2),
                 EXISTS (SELECT 1 FROM audit_checkpoints WHERE chain = $1)",
        )
        .bind(&chain)
        .bind(kept)
        .fetch_one(&database.reader)
        .await?;
        // A chain that nothing signs is that of a bouncer without an SVID, and nothing more will come to cover its events.
        let through = if signed { covered } else { Some(kept - 1) };
        let Some(through) = through else { continue };
        let events = sqlx::query_as(
            "SELECT count(*), count(*) FILTER (WHERE seq > $3) FROM audit_events WHERE chain = $1 AND sequence <= $2",
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
        "SELECT count(*), count(*) FILTER (WHERE seq > $2) FROM audit_events
         WHERE chain IS NULL AND time_ms < $1 AND (seq <= $2 OR time_ms < $3)",
    )
    .bind(before_ms)
    .bind(sent)
    .bind(unsent_before_ms)
    .fetch_one(&database.reader)
    .await?;
    cuts.push(Cut { chain: None, signed: false, through: 0, pruned: Pruned::read(events)? });
    Ok(cuts)
}
