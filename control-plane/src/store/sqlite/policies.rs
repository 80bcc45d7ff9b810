//! What each bouncer may know, read at one instant: for many bouncers at once.

use super::database::Database;
use super::envelopes::select_latest;
use super::{bouncers, crypto};
use crate::model::{EnvelopeRecord, Flag, Policy, Resource};
use crate::store::rows::envelopes::EnvelopeRow;
use crate::store::rows::resources::ResourceRow;
use crate::store::rows::unsigned;
use crate::store::{Result, StoreError};
use bouncer_custody::{BouncerName, LogicalPath};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Of each bouncer, in the order of the names; `None` for one that is not registered.
pub(super) async fn of(database: &Database, names: &[BouncerName]) -> Result<Vec<Option<Policy>>> {
    let listed: Vec<_> = names.iter().map(BouncerName::as_str).collect();
    let listed = serde_json::to_string(&listed).map_err(|_| StoreError::Corrupt("bouncers"))?;
    // One read transaction, so that epoch and content belong together.
    let mut read = database.reader.begin().await?;
    let registered = bouncers::by_names(&mut *read, &listed).await?;
    let epoch: i64 = sqlx::query_scalar("SELECT epoch FROM meta").fetch_one(&mut *read).await?;
    let intercept_enabled = crypto::flag(&mut *read, Flag::DualCustodyIntercept).await?.enabled;
    let resources: Vec<ResourceRow> = sqlx::query_as(
        "SELECT * FROM protected_resources WHERE bouncer IN (SELECT value FROM json_each(?)) ORDER BY name",
    )
    .bind(&listed)
    .fetch_all(&mut *read)
    .await?;
    // While the flag is off a bouncer needs no envelope, and what it does not hold it cannot use.
    let envelopes: Vec<EnvelopeRow> = if intercept_enabled {
        sqlx::query_as(select_latest!(
            "AND g.enabled = 1 AND s.logical_path IN (SELECT logical_path FROM protected_resources
                 WHERE bouncer IN (SELECT value FROM json_each(?)))"
        ))
        .bind(&listed)
        .fetch_all(&mut *read)
        .await?
    } else {
        Vec::new()
    };
    read.commit().await?;

    let epoch = unsigned(epoch)?;
    let mut guarded: HashMap<BouncerName, Vec<Resource>> = HashMap::new();
    for row in resources {
        let resource = row.read()?.resource;
        guarded.entry(resource.bouncer.clone()).or_default().push(resource);
    }
    let mut sealed: BTreeMap<LogicalPath, EnvelopeRecord> = BTreeMap::new();
    for row in envelopes {
        let record = row.read()?;
        sealed.insert(record.envelope.path.clone(), record);
    }
    let policy = |name: &BouncerName| {
        let bouncer = registered.get(name)?.clone();
        let resources = guarded.get(name).cloned().unwrap_or_default();
        let paths: BTreeSet<_> = resources.iter().map(|resource| &resource.path).collect();
        let envelopes = paths.into_iter().filter_map(|path| sealed.get(path).cloned()).collect();
        Some(Policy { epoch, bouncer, intercept_enabled, resources, envelopes })
    };
    Ok(names.iter().map(policy).collect())
}
