//! [`Store`] on SQLite: one file, WAL, every commit synced. For one control plane on one machine.

mod audit;
mod bouncers;
mod chains;
mod crypto;
mod database;
mod envelopes;
mod export;
pub mod files;
mod gathered;
mod outlets;
mod policies;
mod proposals;
mod registry;
mod search;
mod sessions;
mod tokens;

use super::rows::unsigned;
use super::{
    AdminFilter, Anchor, AuditBuckets, AuditCount, AuditFilter, AuditKey, AuditRange, AuditSpan, AuditSummary,
    BROKEN_BY, BouncerFilter, EnvelopeFilter, Page, Part, Pruned, ResourceFilter, Result, Retention, Store, StoreError,
    newest,
};
use crate::access::{NewSession, NewToken, Principal, Scope, TokenFilter, TokenRecord};
use crate::clock::Clock;
use crate::edit::{Edit, Reason};
use crate::model::{
    Actor, AdminRecord, Appended, AuditEvent, AuditRecord, Bouncer, BouncerRecord, Envelope, EnvelopeRecord, Flag,
    FlagState, OwnChain, Policy, PolicyMarks, Position, Received, Resource, ResourceRecord, Settings, SettingsRecord,
    Sighting, Terms,
};
use crate::proposal::{Asked, ProposalFilter, ProposalRecord, ProposalState, Proposed};
use crate::token::TokenHash;
use bouncer_audit::{ChainId, DivergenceLine, Signed};
use bouncer_custody::{BouncerIdentity, BouncerName, ClusterName, Generation, LogicalPath, ResourceName};
use database::{Database, MIGRATIONS};
use futures::FutureExt as _;
use gathered::Gathered;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

/// The control plane's database in one SQLite file.
pub struct SqliteStore {
    database: Arc<Database>,
    policies: Gathered<BouncerName, Option<Policy>>,
    sightings: Gathered<(BouncerName, Sighting), ()>,
}

impl SqliteStore {
    /// Opens the file, creating it with mode 0600 if it is not there, and brings its schema up to date.
    ///
    /// # Errors
    /// [`super::StoreError::Unavailable`] if it cannot be opened, [`super::StoreError::Migration`] if its schema was changed
    /// by another hand, [`super::StoreError::Newer`] if it is newer than this program.
    pub async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let database = Arc::new(Database::open(path, clock).await?);
        let policies = Gathered::new(Arc::clone(&database), |database, all| policies::of(database, all).boxed());
        let sightings =
            Gathered::new(Arc::clone(&database), |database, all| bouncers::record_sightings(database, all).boxed());
        Ok(Self { database, policies, sightings })
    }
}

#[tonic::async_trait]
impl Store for SqliteStore {
    fn changes(&self) -> watch::Receiver<u64> {
        self.database.changes()
    }

    async fn close(&self) {
        self.database.reader.close().await;
        self.database.writer.close().await;
    }

    async fn ping(&self) -> Result<()> {
        let broken_by =
            sqlx::query_scalar(BROKEN_BY).bind(newest(&MIGRATIONS)).fetch_one(&self.database.reader).await?;
        StoreError::newer(broken_by, &MIGRATIONS)
    }
    async fn epoch(&self) -> Result<u64> {
        unsigned(sqlx::query_scalar("SELECT epoch FROM meta").fetch_one(&self.database.reader).await?)
    }
    async fn raise_epoch_past(&self, reported: u64, actor: &Actor) -> Result<u64> {
        let mut write = self.database.begin().await?;
        let epoch = write.raise_epoch_past(reported).await?;
        write.record(actor, "epoch.raised", "epoch", "a bouncer holds a newer one: restored database").await?;
        write.commit().await?;
        Ok(epoch)
    }

    async fn token(&self, presented: &TokenHash) -> Result<Option<TokenRecord>> {
        tokens::presented(&self.database, presented).await
    }
    async fn token_by_id(&self, id: Uuid) -> Result<Option<TokenRecord>> {
        tokens::by_id(&self.database, id).await
    }
    async fn list_tokens(&self, filter: &TokenFilter, page: &Page<Uuid>) -> Result<Part<TokenRecord>> {
        tokens::list(&self.database, filter, page).await
    }
    async fn tokens(&self) -> Result<Vec<TokenRecord>> {
        tokens::all(&self.database).await
    }
    async fn bootstrap(&self, name: &str, hash: &TokenHash) -> Result<()> {
        tokens::bootstrap(&self.database, name, hash).await
    }
    async fn replace_tokens(&self, name: &str, hash: &TokenHash) -> Result<()> {
        tokens::replace_all(&self.database, name, hash).await
    }
    async fn add_token(&self, token: &NewToken, hash: &TokenHash, by: &Principal) -> Result<TokenRecord> {
        tokens::add(&self.database, token, hash, by).await
    }
    async fn revoke_token(&self, id: Uuid, actor: &Actor) -> Result<()> {
        tokens::revoke(&self.database, id, actor).await
    }

    async fn open_session(&self, session: &NewSession, hash: &TokenHash) -> Result<()> {
        sessions::open(&self.database, session, hash).await
    }
    async fn session(&self, presented: &TokenHash) -> Result<Option<Principal>> {
        sessions::presented(&self.database, presented).await
    }
    async fn close_session(&self, presented: &TokenHash) -> Result<()> {
        sessions::close(&self.database, presented).await
    }

    async fn flag(&self, flag: Flag) -> Result<FlagState> {
        crypto::flag(&self.database.reader, flag).await
    }
    async fn set_flag(&self, flag: Flag, enabled: bool, edit: &Edit) -> Result<FlagState> {
        crypto::set_flag(&self.database, flag, enabled, edit).await
    }

    async fn settings(&self) -> Result<Option<SettingsRecord>> {
        crypto::settings(&self.database.reader).await
    }
    async fn put_settings(&self, settings: &Settings, edit: &Edit) -> Result<SettingsRecord> {
        crypto::put_settings(&self.database, settings, edit).await
    }

    async fn register_envelope(&self, envelope: &Envelope, terms: &Terms, edit: &Edit) -> Result<EnvelopeRecord> {
        envelopes::register(&self.database, envelope, terms, edit).await
    }
    async fn roll_envelope_back(
        &self,
        id: Uuid,
        to: Generation,
        reason: Option<&Reason>,
        edit: &Edit,
    ) -> Result<EnvelopeRecord> {
        envelopes::roll_back(&self.database, id, to, reason, edit).await
    }
    async fn envelope(&self, id: Uuid) -> Result<Option<EnvelopeRecord>> {
        envelopes::by_id(&self.database.reader, id).await
    }
    async fn envelope_at(&self, path: &LogicalPath) -> Result<Option<EnvelopeRecord>> {
        envelopes::by_path(&self.database, path).await
    }
    async fn envelopes(&self, filter: &EnvelopeFilter, page: &Page<LogicalPath>) -> Result<Part<EnvelopeRecord>> {
        envelopes::list(&self.database, filter, page).await
    }
    async fn envelope_history(&self, id: Uuid, page: &Page<u64>) -> Result<Part<EnvelopeRecord>> {
        envelopes::history(&self.database, id, page).await
    }
    async fn set_envelope_enabled(
        &self,
        id: Uuid,
        enabled: bool,
        reason: Option<&Reason>,
        edit: &Edit,
    ) -> Result<EnvelopeRecord> {
        envelopes::set_enabled(&self.database, id, enabled, reason, edit).await
    }
    async fn delete_envelope(&self, id: Uuid, edit: &Edit) -> Result<()> {
        envelopes::delete(&self.database, id, edit).await
    }

    async fn register_bouncer(&self, bouncer: &Bouncer, edit: &Edit) -> Result<BouncerRecord> {
        bouncers::register(&self.database, bouncer, edit).await
    }
    async fn replace_bouncer(&self, bouncer: &Bouncer, edit: &Edit) -> Result<BouncerRecord> {
        bouncers::replace(&self.database, bouncer, edit).await
    }
    async fn bouncer(&self, name: &BouncerName) -> Result<Option<BouncerRecord>> {
        bouncers::by_name(&self.database.reader, name).await
    }
    async fn bouncer_of(&self, id: &BouncerIdentity) -> Result<Option<Bouncer>> {
        bouncers::by_identity(&self.database, id).await
    }
    async fn bouncers(&self, filter: &BouncerFilter, page: &Page<BouncerName>) -> Result<Part<BouncerRecord>> {
        bouncers::list(&self.database, filter, page).await
    }
    async fn delete_bouncer(&self, name: &BouncerName, edit: &Edit) -> Result<()> {
        bouncers::delete(&self.database, name, edit).await
    }
    async fn record_sighting(&self, name: &BouncerName, sighting: &Sighting) -> Result<()> {
        self.sightings.ask((name.clone(), sighting.clone())).await
    }

    async fn register_resource(&self, resource: &Resource, edit: &Edit) -> Result<ResourceRecord> {
        registry::register_resource(&self.database, resource, edit).await
    }
    async fn replace_resource(&self, resource: &Resource, edit: &Edit) -> Result<ResourceRecord> {
        registry::replace_resource(&self.database, resource, edit).await
    }
    async fn resource(&self, name: &ResourceName) -> Result<Option<ResourceRecord>> {
        registry::resource_by_name(&self.database.reader, name).await
    }
    async fn resources(&self, filter: &ResourceFilter, page: &Page<ResourceName>) -> Result<Part<ResourceRecord>> {
        registry::resources(&self.database, filter, page).await
    }
    async fn resources_behind(&self, bouncer: &BouncerName, cluster: &ClusterName) -> Result<Vec<Resource>> {
        registry::resources_behind(&self.database, bouncer, cluster).await
    }
    async fn delete_resource(&self, name: &ResourceName, edit: &Edit) -> Result<()> {
        registry::delete_resource(&self.database, name, edit).await
    }

    async fn propose(&self, proposed: &Proposed, author: &Principal, edit: &Edit) -> Result<Asked> {
        proposals::propose(&self.database, proposed, author, edit).await
    }
    async fn proposed_before(&self, edit: &Edit) -> Result<Option<ProposalRecord>> {
        proposals::recall(&self.database, edit).await
    }
    async fn proposal(&self, id: Uuid) -> Result<Option<ProposalRecord>> {
        proposals::by_id(&self.database, id).await
    }
    async fn proposals(&self, filter: &ProposalFilter, page: &Page<u64>) -> Result<Part<ProposalRecord>> {
        proposals::list(&self.database, filter, page).await
    }
    async fn decide_proposal(
        &self,
        id: Uuid,
        state: ProposalState,
        by: &Actor,
        note: Option<&Reason>,
    ) -> Result<ProposalRecord> {
        proposals::decide(&self.database, id, state, by, note).await
    }
    async fn expire_proposals(&self) -> Result<u64> {
        proposals::expire(&self.database).await
    }

    async fn policy(&self, name: &BouncerName) -> Result<Option<Policy>> {
        self.policies.ask(name.clone()).await
    }
    async fn policy_marks(&self) -> Result<PolicyMarks> {
        registry::policy_marks(&self.database).await
    }

    async fn append_audit(
        &self,
        bouncer: &BouncerName,
        events: &[AuditEvent],
        checkpoint: Option<&Received>,
    ) -> Result<Appended> {
        audit::append(&self.database, bouncer, events, checkpoint).await
    }
    async fn audit(&self, filter: &AuditFilter, page: &Page<AuditKey>) -> Result<Part<AuditRecord>> {
        audit::list(&self.database, filter, page).await
    }
    async fn audit_histogram(&self, filter: &AuditFilter, span: AuditBuckets) -> Result<Vec<AuditCount>> {
        audit::histogram(&self.database, filter, span).await
    }
    async fn audit_summary(&self, scope: &Scope) -> Result<AuditSummary> {
        audit::summary(&self.database, scope).await
    }
    async fn admin_events(&self, filter: &AdminFilter, page: &Page<AuditKey>) -> Result<Part<AdminRecord>> {
        audit::admin(&self.database, filter, page).await
    }

    async fn audit_spans(&self, range: &AuditRange) -> Result<Vec<AuditSpan>> {
        export::spans(&self.database, range).await
    }
    async fn audit_in(&self, span: &AuditSpan, after: Option<(u64, u64)>, limit: u16) -> Result<Vec<AuditRecord>> {
        export::audit_in(&self.database, span, after, limit).await
    }
    async fn anchor(&self, chain: &ChainId, first: u64) -> Result<Anchor> {
        export::anchor(&self.database, chain, first).await
    }
    async fn checkpoints(&self, chain: &ChainId, after: u64, through: u64, limit: u16) -> Result<Vec<Signed>> {
        export::checkpoints(&self.database, chain, after, through, limit).await
    }
    async fn unchained_audit(&self, range: &AuditRange, after: u64, limit: u16) -> Result<Vec<AuditRecord>> {
        export::unchained_audit(&self.database, range, after, limit).await
    }
    async fn admin_span(&self, range: &AuditRange) -> Result<Option<AuditSpan>> {
        export::admin_span(&self.database, range).await
    }
    async fn admin_in(&self, span: &AuditSpan, after: u64, limit: u16) -> Result<Vec<AdminRecord>> {
        export::admin_in(&self.database, span, after, limit).await
    }
    async fn unchained_admin(&self, range: &AuditRange, after: u64, limit: u16) -> Result<Vec<AdminRecord>> {
        export::unchained_admin(&self.database, range, after, limit).await
    }
    async fn divergences(&self, range: &AuditRange, after: u64, limit: u16) -> Result<Vec<(u64, DivergenceLine)>> {
        export::divergences(&self.database, range, after, limit).await
    }
    async fn own_chain(&self) -> Result<Option<OwnChain>> {
        chains::own(&self.database).await
    }
    async fn add_own_checkpoint(&self, signed: &Signed) -> Result<()> {
        chains::add_own_checkpoint(&self.database, signed).await
    }
    async fn lease_outlet(&self, outlet: &str, holder: Uuid, lease: Duration) -> Result<Option<Position>> {
        outlets::lease(&self.database, outlet, holder, lease).await
    }
    async fn advance_outlet(&self, outlet: &str, holder: Uuid, to: Position) -> Result<bool> {
        outlets::advance(&self.database, outlet, holder, to).await
    }
    async fn release_outlet(&self, outlet: &str, holder: Uuid) -> Result<()> {
        outlets::release(&self.database, outlet, holder).await
    }
    async fn decisions_behind(&self, seq: u64, limit: u16) -> Result<Vec<AuditRecord>> {
        outlets::decisions(&self.database, seq, limit).await
    }
    async fn changes_behind(&self, seq: u64, limit: u16) -> Result<Vec<AdminRecord>> {
        outlets::changes(&self.database, seq, limit).await
    }
    async fn prune_audit(&self, old: &Retention) -> Result<Pruned> {
        chains::prune(&self.database, old).await
    }
}
