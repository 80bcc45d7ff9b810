//! The role that the database plays. One module per database implements [`Store`]; the API and the Policy Bridge know
//! only this trait.
//!
//! Whatever a method has returned `Ok` for is on disk and survives a kill. A change that bouncers must see raises the
//! epoch in the same transaction, and [`Store::changes`] wakes whoever waits for one.

mod chain;
mod filter;
pub mod postgres;
mod rows;
mod search;
pub mod sqlite;

use crate::access::{NewSession, NewToken, Principal, Scope, TokenFilter, TokenRecord};
use crate::bridge::Told;
use crate::edit::{Edit, Reason};
use crate::model::{
    Actor, AdminRecord, Appended, AuditEvent, AuditRecord, Bouncer, BouncerRecord, Envelope, EnvelopeRecord, Flag,
    FlagState, OwnChain, Policy, PolicyMarks, Position, Received, Resource, ResourceRecord, Settings, SettingsRecord,
    Sighting, Terms,
};
use crate::proposal::{Asked, ProposalFilter, ProposalRecord, ProposalState, Proposed};
use crate::token::TokenHash;
use bouncer_audit::{ChainId, ChainPoint, DivergenceLine, Signed};
use bouncer_custody::{BouncerIdentity, BouncerName, ClusterName, Generation, LogicalPath, Provider, ResourceName};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database is locked, full, gone or broken. Nothing was changed.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the database's schema could not be brought up to date")]
    Migration(#[source] sqlx::migrate::MigrateError),
    /// A newer program has been here.
    #[error(
        "a newer version of this program has used it: its schema is {schema}, and this one knows up to {known}. Start \
         the newer version again, or restore a backup from before the upgrade"
    )]
    Newer {
        /// The database's schema.
        schema: i64,
        /// The newest one known here.
        known: i64,
    },
    /// A table or a column is not there, or is another. Nothing was changed.
    #[error(
        "the database's tables are not those that this program knows: a newer version has upgraded it, or a backup is \
         being restored. /readyz tells the first: then stop this program and start the newer version"
    )]
    OtherSchema(#[source] sqlx::Error),
    /// A row holds what no edge would have let in.
    #[error("a row of table {0} is not valid")]
    Corrupt(&'static str),
    /// A count has reached what the database can hold.
    #[error("a counter is out of range")]
    OutOfRange,
    /// There is no such thing.
    #[error("not found")]
    NotFound,
    /// The change contradicts what is there.
    #[error(transparent)]
    Conflict(#[from] Conflict),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if is_of_other_tables(&error) { Self::OtherSchema(error) } else { Self::Unavailable(error) }
    }
}

/// Whether a statement named a table or a column that is not there, or was prepared for other ones.
fn is_of_other_tables(error: &sqlx::Error) -> bool {
    // PostgreSQL's codes: undefined_table, undefined_column, and a plan whose columns are others now.
    const CODES: [&str; 3] = ["42P01", "42703", "0A000"];
    // SQLite has no code for it.
    const WORDS: [&str; 3] = ["no such table: ", "no such column: ", " has no column named "];
    let sqlx::Error::Database(database) = error else { return matches!(error, sqlx::Error::ColumnNotFound(_)) };
    database.code().is_some_and(|code| CODES.contains(&&*code))
        || WORDS.iter().any(|words| database.message().contains(words))
}

impl StoreError {
    /// Tells a schema that is newer than this program from one that is broken.
    fn migration(error: sqlx::migrate::MigrateError, known: i64) -> Self {
        match error {
            sqlx::migrate::MigrateError::VersionMissing(schema) => Self::Newer { schema, known },
            other => Self::Migration(other),
        }
    }

    /// Of the newest migration that is not known here and that this program can't live with, if there is one.
    fn newer(schema: Option<i64>, migrations: &sqlx::migrate::Migrator) -> Result<()> {
        schema.map_or(Ok(()), |schema| Err(Self::Newer { schema, known: newest(migrations) }))
    }
}

/// The newest schema that a program knows.
fn newest(migrations: &sqlx::migrate::Migrator) -> i64 {
    migrations.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// The newest migration behind `$1` that changes tables of before: its file's name says so, by `breaks` behind the number.
/// Beside any other, which only adds, programs of before go on.
const BROKEN_BY: &str =
    "SELECT max(version) FROM _sqlx_migrations WHERE version > $1 AND description LIKE 'breaks %' AND success";

/// How a change contradicts what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// Another registration has the name.
    #[error("the name is taken")]
    NameTaken,
    /// Another bouncer has the SPIFFE ID.
    #[error("the SPIFFE ID is registered for another bouncer")]
    SpiffeIdTaken,
    /// Another bouncer has the IAM role.
    #[error("the IAM role is registered for another bouncer")]
    IamRoleTaken,
    /// The resource names a bouncer that is not registered.
    #[error("the bouncer is not registered")]
    NoSuchBouncer,
    /// The bouncer still guards resources.
    #[error("the bouncer still guards protected resources")]
    BouncerInUse,
    /// The registration would not get the generation that it was meant for.
    #[error("the registration would get another generation")]
    OtherGeneration,
    /// There is a token already.
    #[error("the database has been bootstrapped before")]
    AlreadyBootstrapped,
    /// The last token of an administrator would go.
    #[error("the last administrator's token cannot be revoked")]
    LastToken,
    /// The hash is that of a token that was made before, by another call.
    #[error("the hash belongs to another token")]
    TokenTaken,
    /// A token that was good for one use was used.
    #[error("the token was good for one use")]
    TokenSpent,
    /// What was to be changed is not what the caller built on.
    #[error("it was changed meanwhile")]
    ChangedMeanwhile,
    /// The idempotency key came with another request before.
    #[error("the idempotency key belongs to another request")]
    KeyReused,
    /// The proposal was decided, or its time is over.
    #[error("the proposal does not wait any more")]
    ProposalDecided,
    /// Too many proposals wait.
    #[error("too many proposals wait")]
    TooManyProposals,
    /// The content names its generation, so that it can be no other one.
    #[error("the generation is bound to its number")]
    BoundToGeneration,
}

/// Result of a store's methods.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Whether a change may be made to a thing of this revision.
fn expected(edit: &Edit, revision: u64) -> Result<()> {
    if edit.expects.holds_for(revision) { Ok(()) } else { Err(Conflict::ChangedMeanwhile.into()) }
}

/// Which part of a list: after a key, so many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<K> {
    /// The last key of the part before; `None` for the first part.
    pub after: Option<K>,
    /// At most so many, 1 to 500.
    pub limit: u16,
}

/// A part of a list, and whether more follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// More follow.
    pub more: bool,
}

/// Where an audit event, or an administrative change, stands in the list: by time, then by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditKey {
    /// Unix time in milliseconds.
    pub time_ms: i64,
    /// The order of arrival.
    pub seq: u64,
}

/// Which audit events are wanted. Everything absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only this outcome.
    pub outcome: Option<String>,
    /// Only of this bouncer.
    pub bouncer: Option<String>,
    /// Only with this reason code.
    pub reason: Option<String>,
    /// Only for this logical path.
    pub logical_path: Option<String>,
    /// Only of this caller.
    pub caller: Option<String>,
    /// Not before this.
    pub from: Option<Timestamp>,
    /// Before this.
    pub to: Option<Timestamp>,
    /// Only of credentials within it.
    pub scope: Scope,
}

/// Which administrative changes are wanted. Everything absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminFilter {
    /// Only by this actor.
    pub actor: Option<String>,
    /// Only of this kind.
    pub action: Option<String>,
    /// Only to this.
    pub subject: Option<String>,
    /// Not before this.
    pub from: Option<Timestamp>,
    /// Before this.
    pub to: Option<Timestamp>,
}

/// Which envelope secrets are wanted. Everything absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvelopeFilter {
    /// Only within it.
    pub scope: Scope,
    /// Only with this in their path.
    pub contains: Option<String>,
    /// Only of this provider.
    pub provider: Option<Provider>,
    /// Only under this key.
    pub key_id: Option<String>,
    /// Only enabled ones, or only disabled ones.
    pub enabled: Option<bool>,
    /// Only those whose registered certificate ends before this.
    pub expires_before: Option<Timestamp>,
}

/// Which protected resources are wanted. Everything absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceFilter {
    /// Only of credentials within it.
    pub scope: Scope,
    /// Only with this in their name.
    pub contains: Option<String>,
    /// Only of this bouncer.
    pub bouncer: Option<BouncerName>,
    /// Only of this credential.
    pub path: Option<LogicalPath>,
    /// Only enabled ones, or only disabled ones.
    pub enabled: Option<bool>,
}

/// Which bouncers are wanted. Everything absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BouncerFilter {
    /// Only with this in their name.
    pub contains: Option<String>,
}

/// A time in parts of the same length, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditBuckets {
    /// Where the first part begins, in Unix milliseconds.
    pub from_ms: i64,
    /// How long each part is; 1 or more.
    pub bucket_ms: i64,
}

/// How many streams were decided in one way in one part of a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditCount {
    /// Which part, from 0.
    pub bucket: u64,
    /// How.
    pub outcome: String,
    /// The streams that the events stand for.
    pub streams: u64,
}

/// What the audit holds of some paths, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditSummary {
    /// All events.
    pub events: u64,
    /// Events that released a credential.
    pub injected: u64,
    /// Events that denied one.
    pub denied: u64,
    /// The newest event's time, by its bouncer's clock.
    pub last: Option<Timestamp>,
    /// What did not fit together when it came in. `None` where it is about some paths only: it belongs to none.
    pub divergences: Option<u64>,
}

/// Which part of the audit is to be exported. Everything absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditRange {
    /// Not before this time.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub to: Option<Timestamp>,
    /// Only of this bouncer, and then no administrative changes.
    pub bouncer: Option<String>,
}

/// What of the audit has become old.
#[derive(Debug, Clone, Default)]
pub struct Retention {
    /// Events from before this time go.
    pub before: Timestamp,
    /// What one of these outlets has not been told yet stays.
    pub outlets: Vec<String>,
    /// But events from before this time go all the same.
    pub unsent_before: Timestamp,
}

impl Retention {
    /// What the change's record says.
    fn detail(&self, events: u64, unsent: u64) -> String {
        let unsent = match unsent {
            0 => String::new(),
            _ => format!("; {unsent} of them had not gone out to every outlet"),
        };
        format!("{events} event(s) from before {}, up to the last checkpoint of each signed chain{unsent}", self.before)
    }
}

/// What was removed of the audit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Events.
    pub events: u64,
    /// Of these such as an outlet had not been told.
    pub unsent: u64,
}

impl Pruned {
    fn read((events, unsent): (i64, i64)) -> Result<Self> {
        Ok(Self { events: rows::unsigned(events)?, unsent: rows::unsigned(unsent)? })
    }
}

/// A stretch of one chain: all its events in the range, and those around them up to the nearest checkpoints, so that it
/// can be verified by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSpan {
    /// Which chain.
    pub chain: ChainId,
    /// The first sequence.
    pub first: u64,
    /// The last one. Less than `first` where every event was removed, and where none is in the range.
    pub last: u64,
}

/// What a stretch of a chain begins behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchor {
    /// Nothing: it is the chain's start.
    Start,
    /// A checkpoint.
    Checkpoint(Box<Signed>),
    /// The event through which retention removed a chain of which nothing is signed.
    Cut(ChainPoint),
}

/// Between the control planes that share a database.
#[tonic::async_trait]
pub trait Others: Send + Sync {
    /// Tells the others which sessions `replica` has: those of `ids` and no others, of which `changed` are new or other than
    /// they were told. Those of a replica that tells nothing for 30 seconds count no more.
    async fn tell_sessions(&self, replica: Uuid, ids: &[Uuid], changed: &[&Told]) -> Result<()>;
    /// The sessions that others than `replica` have told of.
    async fn sessions_elsewhere(&self, replica: Uuid) -> Result<Vec<Told>>;
}

/// The database.
#[tonic::async_trait]
pub trait Store: Send + Sync {
    /// Wakes after changes that bouncers must see. It may wake without one, and after a crash of the caller it may fail
    /// to wake for one: who must not miss a change also looks from time to time.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Waits for running calls and closes the database.
    async fn close(&self);

    /// Whether the database answers, and has a schema that this program can live with.
    async fn ping(&self) -> Result<()>;
    /// The epoch.
    async fn epoch(&self) -> Result<u64>;
    /// Raises the epoch past one that a bouncer already holds: this database was restored from a backup.
    async fn raise_epoch_past(&self, reported: u64, actor: &Actor) -> Result<u64>;

    /// The token that was presented, unless it is unknown, revoked or expired.
    async fn token(&self, presented: &TokenHash) -> Result<Option<TokenRecord>>;
    /// The token of this id, whatever became of it.
    async fn token_by_id(&self, id: Uuid) -> Result<Option<TokenRecord>>;
    /// Every token, newest last.
    async fn tokens(&self) -> Result<Vec<TokenRecord>>;
    /// Tokens, newest last, after `page.after`.
    async fn list_tokens(&self, filter: &TokenFilter, page: &Page<Uuid>) -> Result<Part<TokenRecord>>;
    /// Stores the first token, good for one use. [`Conflict::AlreadyBootstrapped`] if there ever was one.
    async fn bootstrap(&self, name: &str, hash: &TokenHash) -> Result<()>;
    /// Revokes every token and ends every session, and stores a new one, good for one use, for an operator who lost them
    /// all.
    async fn replace_tokens(&self, name: &str, hash: &TokenHash) -> Result<()>;
    /// Stores another token, and takes its author's out of use if that was good for one. [`Conflict::TokenSpent`] if it
    /// had been used. The same token again, by the same author, is no change; else a hash is [`Conflict::TokenTaken`].
    async fn add_token(&self, token: &NewToken, hash: &TokenHash, by: &Principal) -> Result<TokenRecord>;
    /// Revokes a token and ends its sessions. [`Conflict::LastToken`] for the last one of an administrator who is not limited.
    async fn revoke_token(&self, id: Uuid, actor: &Actor) -> Result<()>;

    /// Opens a session, and takes the token that it is for out of use if that was good for one.
    async fn open_session(&self, session: &NewSession, hash: &TokenHash) -> Result<()>;
    /// Who opened the session, unless it has ended.
    async fn session(&self, presented: &TokenHash) -> Result<Option<Principal>>;
    /// Ends a session.
    async fn close_session(&self, presented: &TokenHash) -> Result<()>;

    /// A flag's state.
    async fn flag(&self, flag: Flag) -> Result<FlagState>;
    /// Sets a flag.
    async fn set_flag(&self, flag: Flag, enabled: bool, edit: &Edit) -> Result<FlagState>;

    /// The provider settings, if any were made.
    async fn settings(&self) -> Result<Option<SettingsRecord>>;
    /// Replaces the provider settings.
    async fn put_settings(&self, settings: &Settings, edit: &Edit) -> Result<SettingsRecord>;

    /// Registers an envelope: the first generation of its path, or the next. [`Conflict::OtherGeneration`] where that is
    /// not the one that the terms name.
    async fn register_envelope(&self, envelope: &Envelope, terms: &Terms, edit: &Edit) -> Result<EnvelopeRecord>;
    /// Registers what an earlier generation held as the next one. [`Conflict::BoundToGeneration`] if its pairs name it.
    async fn roll_envelope_back(
        &self,
        id: Uuid,
        to: Generation,
        reason: Option<&Reason>,
        edit: &Edit,
    ) -> Result<EnvelopeRecord>;
    /// The newest generation of a secret that is not deleted.
    async fn envelope(&self, id: Uuid) -> Result<Option<EnvelopeRecord>>;
    /// The newest generation under a path, unless deleted.
    async fn envelope_at(&self, path: &LogicalPath) -> Result<Option<EnvelopeRecord>>;
    /// The newest generations of all secrets that are not deleted, by path.
    async fn envelopes(&self, filter: &EnvelopeFilter, page: &Page<LogicalPath>) -> Result<Part<EnvelopeRecord>>;
    /// All generations of a secret, deleted or not, newest first, before `page.after`.
    async fn envelope_history(&self, id: Uuid, page: &Page<u64>) -> Result<Part<EnvelopeRecord>>;
    /// Enables or disables the newest generation.
    async fn set_envelope_enabled(
        &self,
        id: Uuid,
        enabled: bool,
        reason: Option<&Reason>,
        edit: &Edit,
    ) -> Result<EnvelopeRecord>;
    /// Deletes a secret. Its history stays, and its path goes on counting generations.
    async fn delete_envelope(&self, id: Uuid, edit: &Edit) -> Result<()>;

    /// Registers a bouncer. The same again is no change.
    async fn register_bouncer(&self, bouncer: &Bouncer, edit: &Edit) -> Result<BouncerRecord>;
    /// Gives a bouncer another identity.
    async fn replace_bouncer(&self, bouncer: &Bouncer, edit: &Edit) -> Result<BouncerRecord>;
    /// A bouncer.
    async fn bouncer(&self, name: &BouncerName) -> Result<Option<BouncerRecord>>;
    /// The bouncer that a SPIFFE ID is registered for.
    async fn bouncer_of(&self, id: &BouncerIdentity) -> Result<Option<Bouncer>>;
    /// All bouncers, by name.
    async fn bouncers(&self, filter: &BouncerFilter, page: &Page<BouncerName>) -> Result<Part<BouncerRecord>>;
    /// Removes a bouncer that guards nothing.
    async fn delete_bouncer(&self, name: &BouncerName, edit: &Edit) -> Result<()>;
    /// Remembers what was last heard of a bouncer.
    async fn record_sighting(&self, name: &BouncerName, sighting: &Sighting) -> Result<()>;

    /// What passes between the control planes on the database. `None` where it has one alone.
    fn others(self: Arc<Self>) -> Option<Arc<dyn Others>> {
        None
    }

    /// Registers a protected resource.
    async fn register_resource(&self, resource: &Resource, edit: &Edit) -> Result<ResourceRecord>;
    /// Replaces a protected resource.
    async fn replace_resource(&self, resource: &Resource, edit: &Edit) -> Result<ResourceRecord>;
    /// A protected resource.
    async fn resource(&self, name: &ResourceName) -> Result<Option<ResourceRecord>>;
    /// All protected resources, by name.
    async fn resources(&self, filter: &ResourceFilter, page: &Page<ResourceName>) -> Result<Part<ResourceRecord>>;
    /// The protected resources that a bouncer guards behind one cluster.
    async fn resources_behind(&self, bouncer: &BouncerName, cluster: &ClusterName) -> Result<Vec<Resource>>;
    /// Removes a protected resource.
    async fn delete_resource(&self, name: &ResourceName, edit: &Edit) -> Result<()>;

    /// Stores a call that waits for a second person. The same again, while it waits or under its key, is the same one.
    async fn propose(&self, proposed: &Proposed, author: &Principal, edit: &Edit) -> Result<Asked>;
    /// What the call became when it was proposed before under its idempotency key. [`Conflict::KeyReused`] if that was
    /// another call.
    async fn proposed_before(&self, edit: &Edit) -> Result<Option<ProposalRecord>>;
    /// A proposal.
    async fn proposal(&self, id: Uuid) -> Result<Option<ProposalRecord>>;
    /// Proposals, newest first, before `page.after`.
    async fn proposals(&self, filter: &ProposalFilter, page: &Page<u64>) -> Result<Part<ProposalRecord>>;
    /// Ends the wait of a proposal without its change. [`Conflict::ProposalDecided`] if it does not wait. Approved is one
    /// by [`Edit::approval`], in the change's own transaction.
    async fn decide_proposal(
        &self,
        id: Uuid,
        state: ProposalState,
        by: &Actor,
        note: Option<&Reason>,
    ) -> Result<ProposalRecord>;
    /// Notes which proposals' time is over. Returns how many.
    async fn expire_proposals(&self) -> Result<u64>;

    /// Everything that a bouncer may know, read at one instant. `None` if it is not registered.
    async fn policy(&self, name: &BouncerName) -> Result<Option<Policy>>;
    /// By what every bouncer's policy is known to be the same as before, read at one instant.
    async fn policy_marks(&self) -> Result<PolicyMarks>;

    /// Stores a bouncer's audit events, each id once, and a checkpoint. What does not fit together is stored too, and
    /// noted.
    async fn append_audit(
        &self,
        bouncer: &BouncerName,
        events: &[AuditEvent],
        checkpoint: Option<&Received>,
    ) -> Result<Appended>;
    /// Audit events, newest first.
    async fn audit(&self, filter: &AuditFilter, page: &Page<AuditKey>) -> Result<Part<AuditRecord>>;
    /// How many streams were decided how in each part of a time. Parts and outcomes without any are left out, and so is
    /// what lies before the first part.
    async fn audit_histogram(&self, filter: &AuditFilter, span: AuditBuckets) -> Result<Vec<AuditCount>>;
    /// The audit in numbers, as far as it is about credentials within the scope.
    async fn audit_summary(&self, scope: &Scope) -> Result<AuditSummary>;
    /// Administrative changes, newest first. Each was chained in the transaction that made it.
    async fn admin_events(&self, filter: &AdminFilter, page: &Page<AuditKey>) -> Result<Part<AdminRecord>>;

    /// The bouncers' chains in a range, oldest first; those that had begun and have nothing in it too.
    async fn audit_spans(&self, range: &AuditRange) -> Result<Vec<AuditSpan>>;
    /// The events of a span by sequence, and by arrival where one is there twice; behind `after`, which is both.
    async fn audit_in(&self, span: &AuditSpan, after: Option<(u64, u64)>, limit: u16) -> Result<Vec<AuditRecord>>;
    /// What an event of a chain can be verified behind: the newest checkpoint in front of it, or else where retention cut.
    async fn anchor(&self, chain: &ChainId, first: u64) -> Result<Anchor>;
    /// The checkpoints of a chain behind the number `after`, up to the event `through`, by number.
    async fn checkpoints(&self, chain: &ChainId, after: u64, through: u64, limit: u16) -> Result<Vec<Signed>>;
    /// Events of a range that are in no chain, by arrival, behind `after`.
    async fn unchained_audit(&self, range: &AuditRange, after: u64, limit: u16) -> Result<Vec<AuditRecord>>;
    /// The control plane's own chain in a range.
    async fn admin_span(&self, range: &AuditRange) -> Result<Option<AuditSpan>>;
    /// The administrative changes of a span by sequence, behind `after`.
    async fn admin_in(&self, span: &AuditSpan, after: u64, limit: u16) -> Result<Vec<AdminRecord>>;
    /// Administrative changes of a range that are in no chain, in their order, behind `after`.
    async fn unchained_admin(&self, range: &AuditRange, after: u64, limit: u16) -> Result<Vec<AdminRecord>>;
    /// What did not fit together when it came in, in its order, behind `after`; each with its place in that order.
    async fn divergences(&self, range: &AuditRange, after: u64, limit: u16) -> Result<Vec<(u64, DivergenceLine)>>;
    /// How far the control plane's own chain has come, once it has begun.
    async fn own_chain(&self) -> Result<Option<OwnChain>>;
    /// Stores a checkpoint of the control plane's own chain, unless its number is taken.
    async fn add_own_checkpoint(&self, signed: &Signed) -> Result<()>;
    /// Takes an outlet of the audit for so long, or holds on to it. Returns how far it has come; `None` while another
    /// control plane has it. One that is new begins with what comes from now on.
    async fn lease_outlet(&self, outlet: &str, holder: Uuid, lease: Duration) -> Result<Option<Position>>;
    /// Notes how far an outlet has come. False if it is another's by now.
    async fn advance_outlet(&self, outlet: &str, holder: Uuid, to: Position) -> Result<bool>;
    /// Leaves an outlet to whoever takes it next.
    async fn release_outlet(&self, outlet: &str, holder: Uuid) -> Result<()>;
    /// Decisions in the order of their arrival, behind one. None comes in between them later.
    async fn decisions_behind(&self, seq: u64, limit: u16) -> Result<Vec<AuditRecord>>;
    /// Administrative changes in their order, behind one. None comes in between them later.
    async fn changes_behind(&self, seq: u64, limit: u16) -> Result<Vec<AdminRecord>>;
    /// Removes old events: of each chain only what a checkpoint covers, so that what is left can be verified from there
    /// on, and of a chain without any what is old. At no time does a chain begin elsewhere. Records the change first.
    async fn prune_audit(&self, old: &Retention) -> Result<Pruned>;
}
