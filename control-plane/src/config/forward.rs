//! `[[audit.forward]]`: who is told of the audit.

use super::Fault;
use super::table::Section;
use crate::forward::{Outlet, Receiver, ReceiverFault};
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
    let (ca_file, headers_file) = (section.optional_path("ca_file"), section.optional_path("headers_file"));
    let parsed = |to: String| Receiver::parse(&to, ca_file.as_deref(), headers_file.as_deref());
    let receiver = section.text("to").and_then(|to| {
        let fault = match parsed(to) {
            Ok(receiver) => return Some(receiver),
            Err(fault) => fault,
        };
        let key = match fault {
            ReceiverFault::NoHeaders | ReceiverFault::Headers(_) => "headers_file",
            _ => "to",
        };
        section.fault(key, fault.to_string());
        None
    });
    section.end();
    Some(Outlet { name: name?, receiver: receiver? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlets_are_checked_whole_and_nothing_of_their_headers_is_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("headers");
        std::fs::write(&file, "hunter2").unwrap();
        let faults = |tables: &str| {
            let mut faults = Vec::new();
            let file = toml::from_str::<Table>(&tables.replace("HEADERS", file.to_str().unwrap())).unwrap();
            let tables = file["forward"].as_array().unwrap().iter().map(|table| table.as_table().unwrap().clone());
            outlets(tables.collect(), &mut faults);
            let text: String = faults.iter().map(ToString::to_string).collect();
            assert!(!text.contains("hunter2"), "{text}");
            faults.iter().map(|fault| fault.key().to_owned()).collect::<Vec<_>>()
        };
        let (syslog, otlp) = ("name='a'\nto='syslog+tcp://127.0.0.1:601'", "name='b'\nto='https://otel.example.org/x'");
        let two = |one: &str, other: &str| format!("[[forward]]\n{one}\n[[forward]]\n{other}\n");
        assert_eq!(faults(&two(syslog, otlp)), [""; 0]);
        for (other, key) in [
            ("name='a'\nto='https://otel.example.org'", "audit.forward.name"),
            ("name='b'\nto='http://otel.example.org'", "audit.forward.to"),
            ("name='b'\nto='https://hunter2@otel.example.org'", "audit.forward.to"),
            ("name='b'\nto='https://otel.example.org'\nca_file='HEADERS'", "audit.forward.to"),
            ("name='b'\nto='https://otel.example.org'\nheaders_file='HEADERS'", "audit.forward.headers_file"),
            ("name='b'\nto='https://otel.example.org'\nheaders_file='/none'", "audit.forward.headers_file"),
            ("name='b'\nto='syslog+tcp://127.0.0.1:1'\nheaders_file='HEADERS'", "audit.forward.headers_file"),
            ("name='b'\nto='https://otel.example.org'\ntoken='hunter2'", "audit.forward.token"),
        ] {
            assert_eq!(faults(&two(syslog, other)), [key], "{other}");
        }
    }
}
