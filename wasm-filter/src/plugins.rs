//! The plugins of one VM. Envoy gives all plugins with the same `vm_id` and code one VM: the old and the new
//! configuration of a listener that is being updated, or two listeners.
//!
//! Neither which plugin a stream belongs to nor that a plugin is gone is told here: each would be one more call into the
//! VM for every stream. So the filter acts on what all plugins agree on (a cluster passes only if every one of them lets
//! it pass), and knows the living ones by their ticks, which all plugins of a VM get from the same thread.

use crate::config::{Config, Fault, Faults};
use crate::host::PluginId;
use crate::stream::Policy;

/// Ticks that the leading plugin may miss before another one leads.
const LEAD_MISSES: u32 = 3;

/// Ticks that a plugin may miss before its configuration no longer counts.
const MISSES: u32 = 25;

/// At most this many plugins that no longer count are remembered, in case they come back.
const REMEMBERED: usize = 8;

/// Whose tick it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tick {
    /// That of the plugin that leads: time passes, and it holds the watch.
    Leading,
    /// The same, but it leads only from now on: the watch went with the one before.
    TakenOver,
    /// Another one: nothing is to be done.
    Following,
}

/// The plugins, and what holds for all of them.
#[derive(Debug)]
pub struct Plugins {
    each: Vec<Plugin>,
    lead: PluginId,
    common: Config,
}

#[derive(Debug)]
struct Plugin {
    id: PluginId,
    config: Config,
    missed: u32,
    counts: bool,
}

impl Plugins {
    /// One plugin.
    #[must_use]
    pub fn new(id: PluginId, config: Config) -> Self {
        let common = config.clone();
        Self { each: vec![Plugin { id, config, missed: 0, counts: true }], lead: id, common }
    }

    /// Adds a plugin, or gives one that is there another configuration.
    ///
    /// # Errors
    /// It speaks to another resolver: what one resolver decided would be used for the other's streams.
    pub fn join(&mut self, id: PluginId, config: Config) -> Result<(), Faults> {
        let mut others = self.each.iter().filter(|plugin| plugin.id != id && plugin.counts);
        if others.any(|other| other.config.intercept_cluster != config.intercept_cluster) {
            return Err(Faults(vec![Fault::OtherResolver]));
        }
        self.each.retain(|plugin| plugin.id != id);
        let gone = self.each.iter().filter(|plugin| !plugin.counts).count();
        if gone > REMEMBERED
            && let Some(oldest) = self.each.iter().position(|plugin| !plugin.counts)
        {
            self.each.remove(oldest);
        }
        self.each.push(Plugin { id, config, missed: 0, counts: true });
        self.agree();
        Ok(())
    }

    /// A plugin got a tick.
    pub fn tick(&mut self, id: PluginId) -> Tick {
        let Some(index) = self.each.iter().position(|plugin| plugin.id == id) else { return Tick::Following };
        self.each.iter_mut().for_each(|plugin| plugin.missed = plugin.missed.saturating_add(1));
        self.each[index].missed = 0;
        let came_back = !std::mem::replace(&mut self.each[index].counts, true);
        // In one round every other one ticks once.
        let others = self.each.iter().filter(|plugin| plugin.counts).count().saturating_sub(1).max(1);
        let rounds = |plugin: &Plugin| plugin.missed / u32::try_from(others).unwrap_or(u32::MAX);
        let leaving = self.each.iter().any(|plugin| plugin.counts && rounds(plugin) > MISSES);
        let lead_is_gone = self.each.iter().all(|plugin| plugin.id != self.lead || rounds(plugin) > LEAD_MISSES);
        if leaving || came_back {
            let stays: Vec<bool> = self.each.iter().map(|plugin| plugin.counts && rounds(plugin) <= MISSES).collect();
            self.each.iter_mut().zip(stays).for_each(|(plugin, stays)| plugin.counts = stays);
            self.agree();
        }
        if self.lead == id {
            Tick::Leading
        } else if lead_is_gone {
            self.lead = id;
            Tick::TakenOver
        } else {
            Tick::Following
        }
    }

    /// What holds for every stream.
    #[must_use]
    pub const fn policy(&self) -> &Config {
        &self.common
    }

    /// The newest configuration, with what every one of them lets pass.
    fn agree(&mut self) {
        let counting = || self.each.iter().filter(|plugin| plugin.counts);
        let Some(newest) = counting().next_back() else { return };
        let mut common = newest.config.clone();
        common
            .pass_through_clusters
            .retain(|cluster| counting().all(|plugin| plugin.config.pass_through_clusters.contains(cluster)));
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

    fn passes(plugins: &Plugins) -> [bool; 3] {
        ["a", "b", "c"].map(|cluster| plugins.policy().lets_pass(cluster))
    }

    #[test]
    fn a_cluster_passes_only_where_all_living_plugins_agree() {
        let mut plugins = Plugins::new(1, config(r#","pass_through_clusters":["a","b"]"#));
        assert_eq!(passes(&plugins), [true, true, false]);
        plugins.join(2, config(r#","pass_through_clusters":["b","c"],"max_ttl_ms":7"#)).unwrap();
        assert_eq!(passes(&plugins), [false, true, false]);
        assert_eq!(plugins.policy().max_ttl_ms, 7, "the newest decides the rest");
        for _ in 0..100 {
            plugins.tick(1);
            plugins.tick(2);
        }
        assert_eq!(passes(&plugins), [false, true, false], "both live");
        for _ in 0..MISSES {
            assert_eq!(passes(&plugins), [false, true, false]);
            plugins.tick(2);
        }
        assert_eq!(passes(&plugins), [false, true, true], "the first is gone");
        plugins.tick(1);
        assert_eq!(passes(&plugins), [false, true, false], "it is back");
    }

    #[test]
    fn the_one_that_leads_is_replaced_soon() {
        let mut plugins = Plugins::new(1, config(""));
        assert_eq!(plugins.tick(1), Tick::Leading);
        plugins.join(2, config("")).unwrap();
        plugins.join(3, config("")).unwrap();
        for _ in 0..50 {
            assert_eq!(plugins.tick(2), Tick::Following);
            assert_eq!(plugins.tick(3), Tick::Following);
            assert_eq!(plugins.tick(1), Tick::Leading);
        }
        let taken = (0..10).find(|_| plugins.tick(2) == Tick::TakenOver || plugins.tick(3) == Tick::TakenOver);
        assert!(taken.is_some_and(|rounds| rounds <= LEAD_MISSES));
        assert_eq!(plugins.tick(9), Tick::Following, "an unknown one");
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
