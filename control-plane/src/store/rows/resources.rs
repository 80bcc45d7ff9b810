//! Rows of protected resources.

use super::{change, parsed, unsigned};
use crate::model::{PolicyMark, PolicyMarks, Protocol, Resource, ResourceRecord};
use crate::store::{Result, StoreError};

/// The table.
pub(in crate::store) const TABLE: &str = "protected_resources";

#[derive(sqlx::FromRow)]
pub(in crate::store) struct ResourceRow {
    name: String,
    bouncer: String,
    cluster: String,
    upstream: String,
    protocol: String,
    logical_path: String,
    callers: String,
    enabled: bool,
    created_ms: i64,
    created_by: String,
    updated_ms: i64,
    updated_by: String,
    revision: i64,
}

impl ResourceRow {
    pub(in crate::store) fn read(self) -> Result<ResourceRecord> {
        Ok(ResourceRecord {
            resource: Resource {
                name: parsed(TABLE, &self.name)?,
                bouncer: parsed(TABLE, &self.bouncer)?,
                cluster: parsed(TABLE, &self.cluster)?,
                upstream: parsed(TABLE, &self.upstream)?,
                protocol: parsed::<Protocol>(TABLE, &self.protocol)?,
                path: parsed(TABLE, &self.logical_path)?,
                callers: serde_json::from_str(&self.callers).map_err(|_| StoreError::Corrupt(TABLE))?,
                enabled: self.enabled,
            },
            created: change(TABLE, self.created_ms, self.created_by)?,
            updated: change(TABLE, self.updated_ms, self.updated_by)?,
            revision: unsigned(self.revision)?,
        })
    }
}

/// What tells each bouncer's policy from the one before; the same words to both databases. A revision is never used twice,
/// and a deleted secret keeps its row, so that nothing changes without one of these numbers.
pub(in crate::store) const MARKS: &str =
    "SELECT b.name, b.revision, count(r.name), coalesce(max(r.revision), 0), coalesce(max(s.revision), 0)
     FROM bouncers b
     LEFT JOIN protected_resources r ON r.bouncer = b.name
     LEFT JOIN envelope_secrets s ON s.logical_path = r.logical_path
     GROUP BY b.name";

/// A row of [`MARKS`].
pub(in crate::store) type MarkRow = (String, i64, i64, i64, i64);

/// The marks, with the epoch and the flag's revision that were read at the same instant.
pub(in crate::store) fn marks(epoch: i64, flag: u64, rows: Vec<MarkRow>) -> Result<PolicyMarks> {
    let mark = |(name, bouncer, resources, newest_resource, newest_secret): MarkRow| {
        let mark = PolicyMark {
            bouncer: unsigned(bouncer)?,
            flag,
            resources: unsigned(resources)?,
            newest_resource: unsigned(newest_resource)?,
            newest_secret: unsigned(newest_secret)?,
        };
        Ok((parsed("bouncers", &name)?, mark))
    };
    Ok(PolicyMarks { epoch: unsigned(epoch)?, marks: rows.into_iter().map(mark).collect::<Result<_>>()? })
}
