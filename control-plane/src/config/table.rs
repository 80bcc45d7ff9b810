//! Reads one TOML table key by key, and notes every fault with its key. Never a value.

use super::Fault;
use std::path::PathBuf;
use toml::{Table, Value};

/// A section of the file. What is not taken out of it is an unknown key.
pub(super) struct Section<'a> {
    name: &'static str,
    table: Table,
    faults: &'a mut Vec<Fault>,
}

impl<'a> Section<'a> {
    /// Takes a section out of the file. A missing one is read as empty, so that its needed keys are named.
    pub(super) fn take(file: &mut Table, name: &'static str, faults: &'a mut Vec<Fault>) -> Self {
        let table = match file.remove(name) {
            Some(Value::Table(table)) => table,
            Some(_) => {
                faults.push(Fault::new(name, "must be a table"));
                Table::new()
            }
            None => Table::new(),
        };
        Self { name, table, faults }
    }

    /// Notes a fault of a key.
    pub(super) fn fault(&mut self, key: &str, what: impl Into<String>) {
        self.faults.push(Fault::new(format!("{}.{key}", self.name), what));
    }

    /// Whether there is such a key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// A text that may be absent.
    pub(super) fn optional_text(&mut self, key: &str) -> Option<String> {
        match self.table.remove(key) {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            Some(Value::String(_)) => {
                self.fault(key, "must not be empty");
                None
            }
            Some(_) => {
                self.fault(key, "must be a string");
                None
            }
            None => None,
        }
    }

    /// A text that must be there.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        if !self.table.contains_key(key) {
            self.fault(key, "is missing");
            return None;
        }
        self.optional_text(key)
    }

    /// An address with a port.
    pub(super) fn address(&mut self, key: &str) -> Option<std::net::SocketAddr> {
        let text = self.text(key)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.fault(key, "must be an IP address and a port, such as 127.0.0.1:8080 or [::]:8443");
        }
        parsed
    }

    /// A whole number within bounds that may be absent.
    pub(super) fn optional_number(&mut self, key: &str, bounds: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let value = self.table.remove(key)?;
        let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            self.fault(key, format!("must be a whole number, {} to {}", bounds.start(), bounds.end()));
        }
        number
    }

    /// A table of its own within this one; none if there is no such key.
    pub(super) fn table(&mut self, key: &str) -> Option<Table> {
        match self.table.remove(key)? {
            Value::Table(table) => Some(table),
            _ => {
                self.fault(key, "must be a table");
                None
            }
        }
    }

    /// Yes or no; no if there is no such key.
    pub(super) fn switch(&mut self, key: &str) -> bool {
        let Some(value) = self.table.remove(key) else { return false };
        value.as_bool().unwrap_or_else(|| {
            self.fault(key, "must be true or false");
            false
        })
    }

    /// Tables under one key, `[[section.key]]`, each as a section of its own; none if there is no such key.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Table> {
        match self.table.remove(key) {
            None => Vec::new(),
            Some(Value::Array(items)) if items.iter().all(Value::is_table) => {
                items.into_iter().filter_map(|item| item.try_into().ok()).collect()
            }
            Some(_) => {
                self.fault(key, format!("must be tables, as in [[{}.{key}]]", self.name));
                Vec::new()
            }
        }
    }

    /// Texts under one key; none if there is no such key.
    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        match self.table.remove(key) {
            None => Vec::new(),
            Some(Value::Array(items)) if items.iter().all(Value::is_str) => {
                items.into_iter().filter_map(|item| item.try_into().ok()).collect()
            }
            Some(_) => {
                self.fault(key, "must be a list of strings");
                Vec::new()
            }
        }
    }

    /// Takes over the faults of a section within this one.
    pub(super) fn faults(&mut self, faults: Vec<Fault>) {
        self.faults.extend(faults);
    }

    /// A section for a table of its own.
    pub(super) fn of(name: &'static str, table: Table, faults: &'a mut Vec<Fault>) -> Self {
        Self { name, table, faults }
    }

    /// A path that may be absent.
    pub(super) fn optional_path(&mut self, key: &str) -> Option<PathBuf> {
        self.optional_text(key).map(PathBuf::from)
    }

    /// A path that must be there.
    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    /// Ends the section: what is left over is unknown. Names are keys of a file that the operator wrote; they hold no
    /// secrets, but are cut to what keys look like all the same.
    pub(super) fn end(self) {
        let Self { name, table, faults } = self;
        for key in table.keys() {
            faults.push(Fault::new(format!("{name}.{}", crate::plaintext::speakable(key)), "is not a known key"));
        }
    }
}
