//! The plugins of one VM. Envoy gives all plugins with the same `vm_id` and code one VM: the old and the new
//! configuration of a listener that is being updated, or two listeners.
//!
//! A stream does not say which plugin it belongs to, since telling it would cost every stream one more call into the VM.
//! So the filter acts on what all plugins agree on: a cluster passes only if every one of them lets it pass.

use crate::config::{Config, Fault, Faults};
use crate::host::PluginId;
use crate::stream::Policy;

/// The plugins, and what holds for all of them.
#[derive(Debug)]
pub struct Plugins {
    each: Vec<(PluginId, Config)>,
    common: Config,
}

impl Plugins {
    /// One plugin.
    #[must_use]
    pub fn new(plugin: PluginId, config: Config) -> Self {
        Self { common: config.clone(), each: vec![(plugin, config)] }
    }

    /// Adds a plugin, or gives one that is there another configuration.
    ///
    /// # Errors
    /// It speaks to another resolver: what one resolver decided would be used for the other's streams.
    pub fn join(&mut self, plugin: PluginId, config: Config) -> Result<(), Faults> {
        let others = || self.each.iter().filter(|(id, _)| *id != plugin);
        if others().any(|(_, other)| other.intercept_cluster != config.intercept_cluster) {
            return Err(Faults(vec![Fault::OtherResolver]));
        }
        self.each.retain(|(id, _)| *id != plugin);
        self.each.push((plugin, config));
        self.agree();
        Ok(())
    }

    /// Removes a plugin. `false` if none is left.
    pub fn leave(&mut self, plugin: PluginId) -> bool {
        self.each.retain(|(id, _)| *id != plugin);
        self.agree();
        !self.each.is_empty()
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(&self, plugin: PluginId) -> bool {
        self.each.iter().any(|(id, _)| *id == plugin)
    }

    /// Whether it is the one whose ticks count and that holds the watch.
    #[must_use]
    pub fn leads(&self, plugin: PluginId) -> bool {
        self.each.first().is_some_and(|(id, _)| *id == plugin)
    }

    /// What holds for every stream.
    #[must_use]
    pub const fn policy(&self) -> &Config {
        &self.common
    }

    /// The newest configuration, with what every one of them lets pass.
    fn agree(&mut self) {
        let Some((_, newest)) = self.each.last() else { return };
        let mut common = newest.clone();
        common
            .pass_through_clusters
            .retain(|cluster| self.each.iter().all(|(_, config)| config.pass_through_clusters.contains(cluster)));
        self.common = common;
    }
}

impl Policy for Config {
    fn lets_pass(&self, cluster: &str) -> bool {
        self.pass_through_clusters.iter().any(|open| open.as_str() == cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        Config::parse(format!("{{\"version\":1{json}}}").as_bytes()).unwrap()
    }

    #[test]
    fn a_cluster_passes_only_where_all_agree() {
        let mut plugins = Plugins::new(1, config(r#","pass_through_clusters":["a","b"]"#));
        assert!(plugins.policy().lets_pass("a") && plugins.policy().lets_pass("b"));
        plugins.join(2, config(r#","pass_through_clusters":["b","c"],"max_ttl_ms":7"#)).unwrap();
        let passes = |plugins: &Plugins| ["a", "b", "c"].map(|cluster| plugins.policy().lets_pass(cluster));
        assert_eq!(passes(&plugins), [false, true, false]);
        assert_eq!(plugins.policy().max_ttl_ms, 7, "the newest decides the rest");
        assert!(plugins.leave(1));
        assert_eq!(passes(&plugins), [false, true, true]);
        assert!(plugins.leads(2) && !plugins.leave(2));
    }

    #[test]
    fn another_resolver_needs_another_vm() {
        let mut plugins = Plugins::new(1, config(""));
        let other = config(r#","intercept_cluster":"other""#);
        let fault = plugins.join(2, other.clone()).unwrap_err().to_string();
        assert!(fault.contains("`intercept_cluster`") && fault.contains("`vm_id`"), "{fault}");
        plugins.join(1, other).expect("alone, a plugin may change its resolver");
    }
}
