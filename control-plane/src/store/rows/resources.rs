//! Rows of protected resources.

use super::{change, parsed, unsigned};
use crate::model::{Protocol, Resource, ResourceRecord};
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
