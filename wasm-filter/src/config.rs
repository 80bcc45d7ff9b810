//! The filter's configuration: strict JSON, version 1, parsed once when Envoy configures the plugin.
//!
//! Called once per plugin, before [`Filter`](crate::filter::Filter) exists; nothing else reads raw configuration. Every fault is found
//! in one go and names its key, never its value, so that one look at Envoy's log is enough to repair the file.
//! A configuration with a fault must never be half used.

use bouncer_custody::ClusterName;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;
use std::ops::RangeInclusive;

/// What the operator decided. Every cluster is protected unless it is listed in `pass_through_clusters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Envoy's cluster for the resolver's intercept socket.
    pub intercept_cluster: ClusterName,
    /// Clusters that are not protected: a stream to one of them may go on without a credential.
    pub pass_through_clusters: Vec<ClusterName>,
    /// How long one `Decide` call may take, in milliseconds.
    pub decide_timeout_ms: u32,
    /// The longest that a decision is reused, in milliseconds; 0 asks for every stream.
    pub max_ttl_ms: u32,
    /// How many decisions one VM keeps.
    pub cache_entries: u32,
}

const TIMEOUT_MS: RangeInclusive<u32> = 50..=10_000;
const TTL_MS: RangeInclusive<u32> = 0..=300_000;
const ENTRIES: RangeInclusive<u32> = 16..=65_536;

impl Config {
    /// Parses and checks all of it.
    ///
    /// # Errors
    /// Every fault that the text holds.
    pub fn parse(json: &[u8]) -> Result<Self, Faults> {
        let mut reader = Reader::new(json)?;
        reader.version();
        let intercept_cluster = reader.cluster("intercept_cluster", "bouncer_intercept");
        let pass_through_clusters = reader.clusters("pass_through_clusters");
        let decide_timeout_ms = reader.number("decide_timeout_ms", 2_000, TIMEOUT_MS);
        let max_ttl_ms = reader.number("max_ttl_ms", 30_000, TTL_MS);
        let cache_entries = reader.number("cache_entries", 4_096, ENTRIES);
        let faults = reader.finish();
        match intercept_cluster {
            Some(intercept_cluster) if faults.is_empty() => {
                Ok(Self { intercept_cluster, pass_through_clusters, decide_timeout_ms, max_ttl_ms, cache_entries })
            }
            _ => Err(Faults(faults)),
        }
    }
}

/// All that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the filter's configuration is refused: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Faults(pub Vec<Fault>);

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The text is no JSON object.
    #[error("it is not a JSON object (line {line}, column {column}): give one as a google.protobuf.StringValue")]
    NotAnObject {
        /// Line of the first fault, from 1.
        line: usize,
        /// Column of the first fault, from 1.
        column: usize,
    },
    /// A key that has no default is not there.
    #[error("`{0}` is missing: add \"{0}\": 1")]
    Missing(&'static str),
    /// A key that this version does not know.
    #[error("`{0}` is not a key of version 1: remove it, or correct its spelling")]
    Unknown(String),
    /// A key that stands twice.
    #[error("`{0}` is there more than once: keep one")]
    Twice(String),
    /// A version other than 1.
    #[error("`version` must be 1, the only one that this filter knows")]
    Version,
    /// Not a whole number, or out of bounds.
    #[error("`{key}` must be a whole number from {} to {}", .bounds.start(), .bounds.end())]
    Number {
        /// Its key.
        key: &'static str,
        /// What it may be.
        bounds: RangeInclusive<u32>,
    },
    /// Not a cluster's name.
    #[error("`{key}` must be the name of an Envoy cluster, 1 to 255 bytes of visible ASCII")]
    Cluster {
        /// Its key, with the index where it is a list.
        key: String,
    },
    /// Not a list.
    #[error("`{0}` must be a list of cluster names")]
    List(&'static str),
    /// Both plugins of one VM cannot be served.
    #[error(
        "`intercept_cluster` differs from that of another plugin in the same VM: give each its own `vm_id` in Envoy's vm_config"
    )]
    OtherResolver,
}

/// The object's members, taken out one by one; what is left at the end is unknown.
struct Reader {
    members: Vec<(String, Value)>,
    faults: Vec<Fault>,
}

impl Reader {
    fn new(json: &[u8]) -> Result<Self, Faults> {
        let Members(members) = serde_json::from_slice(json)
            .map_err(|error| Faults(vec![Fault::NotAnObject { line: error.line(), column: error.column() }]))?;
        let mut reader = Self { members: Vec::with_capacity(members.len()), faults: Vec::new() };
        for (key, value) in members {
            if reader.members.iter().any(|(known, _)| *known == key) {
                reader.faults.push(Fault::Twice(printable(&key)));
            } else {
                reader.members.push((key, value));
            }
        }
        Ok(reader)
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        let index = self.members.iter().position(|(known, _)| known == key)?;
        Some(self.members.swap_remove(index).1)
    }

    fn version(&mut self) {
        match self.take("version") {
            None => self.faults.push(Fault::Missing("version")),
            Some(value) if whole(&value) == Some(1) => {}
            Some(_) => self.faults.push(Fault::Version),
        }
    }

    fn number(&mut self, key: &'static str, default: u32, bounds: RangeInclusive<u32>) -> u32 {
        let Some(value) = self.take(key) else { return default };
        match whole(&value).and_then(|number| u32::try_from(number).ok()).filter(|number| bounds.contains(number)) {
            Some(number) => number,
            None => {
                self.faults.push(Fault::Number { key, bounds });
                default
            }
        }
    }

    fn cluster(&mut self, key: &'static str, default: &str) -> Option<ClusterName> {
        let value = self.take(key).unwrap_or_else(|| Value::from(default));
        self.name(key, &value)
    }

    fn clusters(&mut self, key: &'static str) -> Vec<ClusterName> {
        match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(values)) => values
                .iter()
                .enumerate()
                .filter_map(|(index, value)| self.name(&format!("{key}[{index}]"), value))
                .collect(),
            Some(_) => {
                self.faults.push(Fault::List(key));
                Vec::new()
            }
        }
    }

    fn name(&mut self, key: &str, value: &Value) -> Option<ClusterName> {
        let name = value.as_str().and_then(|text| text.parse().ok());
        if name.is_none() {
            self.faults.push(Fault::Cluster { key: key.to_owned() });
        }
        name
    }

    fn finish(mut self) -> Vec<Fault> {
        self.faults.extend(self.members.iter().map(|(key, _)| Fault::Unknown(printable(key))));
        self.faults
    }
}

/// A whole number, also as the `2000.0` that some tools make of every number.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole, not negative and below 2^53, as the filter says"
        )]
        (number.fract() == 0.0 && (0.0..9e15).contains(&number)).then_some(number as u64)
    })
}

/// A key as it may stand in a log: short, one line.
fn printable(key: &str) -> String {
    key.chars().take(64).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// The members of an object in their order, duplicates and all.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(json: &str) -> Vec<String> {
        Config::parse(json.as_bytes()).unwrap_err().0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn version_alone_means_the_defaults() {
        let config = Config::parse(br#"{"version":1}"#).unwrap();
        assert_eq!(config.intercept_cluster.as_str(), "bouncer_intercept");
        assert_eq!(config.pass_through_clusters, []);
        assert_eq!((config.decide_timeout_ms, config.max_ttl_ms, config.cache_entries), (2_000, 30_000, 4_096));
    }

    #[test]
    fn every_key_is_read_also_with_numbers_as_tools_write_them() {
        let json = br#"{"version":1.0,"intercept_cluster":"x","pass_through_clusters":["a","outbound|80||b"],
            "decide_timeout_ms":50.0,"max_ttl_ms":0,"cache_entries":65536}"#;
        let config = Config::parse(json).unwrap();
        assert_eq!(config.intercept_cluster.as_str(), "x");
        assert_eq!(config.pass_through_clusters.len(), 2);
        assert_eq!((config.decide_timeout_ms, config.max_ttl_ms, config.cache_entries), (50, 0, 65_536));
    }

    #[test]
    fn all_faults_are_named_at_once() {
        let found = faults(
            r#"{"intercept_cluster":"two words","pass_through_clusters":["ok",7],"decide_timeout_ms":49,
                "max_ttl_ms":300001,"cache_entries":"many","cache_entires":1,"max_ttl_ms":1}"#,
        );
        for key in [
            "`version`",
            "`intercept_cluster`",
            "`pass_through_clusters[1]`",
            "`decide_timeout_ms`",
            "`max_ttl_ms` must",
            "`max_ttl_ms` is there more than once",
            "`cache_entries`",
            "`cache_entires`",
        ] {
            assert!(found.iter().any(|fault| fault.contains(key)), "{key} in {found:?}");
        }
        assert_eq!(found.len(), 8, "{found:?}");
    }

    #[test]
    fn what_is_no_object_or_no_number_is_refused() {
        for bad in ["", "[]", "1", "{", r#"{"version":1} x"#] {
            assert!(faults(bad)[0].contains("not a JSON object"), "{bad}");
        }
        for bad in ["2", "0", "\"1\"", "1.5", "-1", "null", "1e300"] {
            assert!(faults(&format!("{{\"version\":{bad}}}"))[0].contains("`version`"), "{bad}");
        }
        for bad in ["{}", "\"a\"", "null"] {
            let json = format!("{{\"version\":1,\"pass_through_clusters\":{bad}}}");
            assert!(faults(&json)[0].contains("`pass_through_clusters`"), "{bad}");
        }
    }

    #[test]
    fn no_value_is_repeated() {
        let found = faults(r#"{"version":"s3cret","intercept_cluster":"s3cret value","max_ttl_ms":"s3cret"}"#);
        assert!(!found.join(" ").contains("s3cret"), "{found:?}");
    }
}
