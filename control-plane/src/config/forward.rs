//! `[[audit.forward]]`: who is told of the audit.

use super::Fault;
use super::table::Section;
use crate::forward::{Outlet, Receiver};
use std::collections::BTreeSet;
use toml::Table;

/// More than these are no outlets but a distribution.
const MOST: usize = 4;

/// The outlets.
pub(super) fn outlets(tables: Vec<Table>, faults: &mut Vec<Fault>) -> Vec<Outlet> {
    if tables.len() > MOST {
        faults.push(Fault::new("audit.forward", "must be at most 4 tables"));
    }
    let outlets: Vec<_> =
        tables.into_iter().filter_map(|table| outlet(Section::of("audit.forward", table, faults))).collect();
    let names: BTreeSet<_> = outlets.iter().map(|outlet| &outlet.name).collect();
    if names.len() < outlets.len() {
        faults.push(Fault::new("audit.forward.name", "must be another one for each outlet"));
    }
    outlets
}

fn outlet(mut section: Section<'_>) -> Option<Outlet> {
    let name = section.text("name").filter(|name| {
        let fits = (1..=32).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !fits {
            section.fault("name", "must be 1 to 32 small letters, digits and dashes");
        }
        fits
    });
    let ca_file = section.optional_path("ca_file");
    let receiver = section.text("to").and_then(|to| match Receiver::parse(&to, ca_file.as_deref()) {
        Ok(receiver) => Some(receiver),
        Err(fault) => {
            section.fault("to", fault.to_string());
            None
        }
    });
    section.end();
    Some(Outlet { name: name?, receiver: receiver? })
}
