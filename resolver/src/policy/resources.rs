//! The protected resources of one cluster, found by their caller. There may be thousands, and each decision asks.

use bouncer_custody::{CallerPattern, LogicalPath, ResourceName, SpiffeId};
use std::collections::HashMap;

/// A protected resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: ResourceName,
    /// Which credential it wants.
    pub logical_path: LogicalPath,
    /// Who may call.
    pub callers: Vec<CallerPattern>,
    /// Whether it may be used at all.
    pub enabled: bool,
}

/// All resources of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    all: Vec<Resource>,
    /// Those that name each of their callers, by caller.
    named: HashMap<SpiffeId, Vec<usize>>,
    /// The others.
    wide: Vec<usize>,
}

impl Resources {
    pub(super) fn push(&mut self, resource: Resource) {
        let place = self.all.len();
        let named: Option<Vec<_>> = resource.callers.iter().map(CallerPattern::exact).collect();
        match named {
            Some(callers) => {
                for caller in callers {
                    let places = self.named.entry(caller.clone()).or_default();
                    // One that names a caller twice is one all the same.
                    if places.last() != Some(&place) {
                        places.push(place);
                    }
                }
            }
            None => self.wide.push(place),
        }
        self.all.push(resource);
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Resource> {
        self.all.iter()
    }

    /// Those that allow this caller.
    pub(super) fn allowing<'a>(&'a self, caller: &SpiffeId) -> impl Iterator<Item = &'a Resource> {
        let allows = |resource: &&Resource| resource.callers.iter().any(|pattern| pattern.matches(caller));
        let named = self.named.get(caller).into_iter().flatten();
        named.chain(&self.wide).filter_map(|place| self.all.get(*place)).filter(allows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(name: &str, callers: &[&str]) -> Resource {
        Resource {
            name: name.parse().unwrap(),
            logical_path: "a/b".parse().unwrap(),
            callers: callers.iter().map(|caller| caller.parse().unwrap()).collect(),
            enabled: true,
        }
    }

    #[test]
    fn a_caller_finds_what_names_it_and_what_is_wide_enough_each_once() {
        let cart = "spiffe://example.org/ns/shop/sa/cart";
        let mut resources = Resources::default();
        for (name, callers) in [
            ("named", &[cart][..]),
            ("twice", &[cart, "spiffe://example.org/ns/shop/sa/other", cart]),
            ("wide", &["spiffe://example.org/ns/shop/*"]),
            ("both", &[cart, "spiffe://example.org/*"]),
            ("other", &["spiffe://example.org/ns/shop/sa/other"]),
            ("nobody", &[]),
        ] {
            resources.push(resource(name, callers));
        }
        let found = |caller: &str| {
            let caller: SpiffeId = caller.parse().unwrap();
            let mut names: Vec<_> = resources.allowing(&caller).map(|resource| resource.name.to_string()).collect();
            names.sort();
            // As it would be found by looking at every one.
            let matches = |resource: &&Resource| resource.callers.iter().any(|pattern| pattern.matches(&caller));
            let mut all: Vec<_> = resources.iter().filter(matches).map(|resource| resource.name.to_string()).collect();
            all.sort();
            assert_eq!(names, all);
            names
        };
        assert_eq!(found(cart), ["both", "named", "twice", "wide"]);
        assert_eq!(found("spiffe://example.org/ns/shop/sa/other"), ["both", "other", "twice", "wide"]);
        assert_eq!(found("spiffe://example.org/ns/hr/sa/x"), ["both"]);
        assert!(found("spiffe://elsewhere.org/x").is_empty());
    }
}
