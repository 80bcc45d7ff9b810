//! A file, read strictly: every key known, every value of its form, nothing twice. All faults are told at once.

use super::locate::{Step, line};
use super::schema::{Field, Form};
use super::{Declared, Fault, Fields, Kind, Undeclarable};
use serde::Deserialize as _;
use serde_json::Value;
use serde_norway::{Mapping, Value as Yaml};
use std::path::{Path, PathBuf};

/// The one version there is.
pub(super) const VERSION: u64 = 1;

/// Reads files, given by name and content, as one declaration.
///
/// # Errors
/// [`Undeclarable`], with all that is wrong with them.
pub(crate) fn read<'a>(files: impl IntoIterator<Item = (&'a Path, &'a str)>) -> Result<Declared, Undeclarable> {
    let (mut declared, mut faults) = (Declared::default(), Vec::new());
    for (file, text) in files {
        for (number, document) in serde_norway::Deserializer::from_str(text).enumerate() {
            match Yaml::deserialize(document) {
                Ok(Yaml::Null) => {}
                Ok(document) => {
                    let mut reader =
                        Reader { file, text, number, at: Vec::new(), declared: &mut declared, faults: &mut faults };
                    reader.document(&document);
                }
                Err(error) => {
                    let line = error.location().map(|location| location.line());
                    // Where it is no YAML, what follows is no document.
                    faults.push(Fault { file: file.to_owned(), line, key: String::new(), rule: syntax(&error) });
                    break;
                }
            }
        }
    }
    if faults.is_empty() && declared.sections.is_empty() {
        let file = PathBuf::from("(all files)");
        faults.push(Fault { file, line: None, key: String::new(), rule: "declares nothing".to_owned() });
    }
    if faults.is_empty() { Ok(declared) } else { Err(Undeclarable(faults)) }
}

/// What the parser says, without the position, which stands before it.
fn syntax(error: &serde_norway::Error) -> String {
    let said = error.to_string();
    if said.contains("duplicate entry") {
        return "has a key twice".to_owned();
    }
    format!("is no YAML: {}", said.split(" at line ").next().unwrap_or_default())
}

struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    number: usize,
    at: Vec<Step>,
    declared: &'a mut Declared,
    faults: &'a mut Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, rule: impl Into<String>) {
        let mut key = String::new();
        for step in &self.at {
            match step {
                Step::Key(name) if key.is_empty() => key.push_str(name),
                Step::Key(name) => {
                    key.push('.');
                    key.push_str(name);
                }
                Step::Index(index) => key.push_str(&format!("[{index}]")),
            }
        }
        let line = line(self.text, self.number, &self.at);
        self.faults.push(Fault { file: self.file.to_owned(), line, key, rule: rule.into() });
    }

    fn within<T>(&mut self, step: Step, read: impl FnOnce(&mut Self) -> T) -> T {
        self.at.push(step);
        let result = read(self);
        self.at.pop();
        result
    }

    fn key<T>(&mut self, name: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.within(Step::Key(name.to_owned()), read)
    }

    fn document(&mut self, document: &Yaml) {
        let Yaml::Mapping(map) = document else { return self.fault("the document must be a mapping") };
        let sections = Kind::ALL.map(Kind::section);
        self.known(map, |name| name == "version" || sections.contains(&name));
        match map.get("version") {
            None => self.fault("the document lacks the key version, which must be 1"),
            Some(version) if version.as_u64() == Some(VERSION) => {}
            Some(_) => self.key("version", |reader| reader.fault("must be 1")),
        }
        for kind in Kind::ALL {
            if let Some(section) = map.get(kind.section()) {
                self.declared.sections.insert(kind);
                self.key(kind.section(), |reader| reader.section(kind, section));
            }
        }
    }

    fn section(&mut self, kind: Kind, section: &Yaml) {
        match (kind, section) {
            (Kind::Flag, Yaml::Mapping(flags)) => {
                for (name, value) in flags {
                    let Some(name) = name.as_str() else { return self.fault("must have texts as keys") };
                    self.key(name, |reader| match value.as_bool() {
                        Some(enabled) => {
                            let fields = [("enabled".to_owned(), enabled.into())].into_iter().collect();
                            reader.add(kind, name, fields);
                        }
                        None => reader.fault("must be true or false"),
                    });
                }
            }
            (Kind::Settings, Yaml::Mapping(map)) => {
                let fields = self.fields(kind, map);
                self.add(kind, "provider", fields);
            }
            (Kind::Flag | Kind::Settings, _) => self.fault("must be a mapping"),
            (_, Yaml::Sequence(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.within(Step::Index(index), |reader| reader.item(kind, item));
                }
            }
            _ => self.fault("must be a list; write [] for none"),
        }
    }

    fn item(&mut self, kind: Kind, item: &Yaml) {
        let Yaml::Mapping(map) = item else { return self.fault("must be a mapping") };
        let (key, rule) = kind.name();
        let fields = self.fields(kind, map);
        let name = match map.get(key) {
            None => return self.fault(format!("lacks the key {key}")),
            Some(name) => self.key(key, |reader| match Form::Text(rule).canonical(&json(name)) {
                Ok(name) => name.as_str().map(str::to_owned),
                Err(rule) => {
                    reader.fault(rule);
                    None
                }
            }),
        };
        if let Some(name) = name {
            self.add(kind, &name, fields);
        }
    }

    fn add(&mut self, kind: Kind, name: &str, fields: Fields) {
        if self.declared.things.insert((kind, name.to_owned()), fields).is_some() {
            self.fault(format!("declares a {} that was declared before", kind.word()));
        }
    }

    fn known(&mut self, map: &Mapping, is_known: impl Fn(&str) -> bool) {
        for key in map.keys() {
            match key.as_str() {
                Some(name) if is_known(name) => {}
                Some(name) => self.key(name, |reader| reader.fault("is no key that is known here")),
                None => self.fault("must have texts as keys"),
            }
        }
    }

    fn fields(&mut self, kind: Kind, map: &Mapping) -> Fields {
        let (name, _) = kind.name();
        let fields = kind.fields();
        let has_name = kind != Kind::Settings;
        self.known(map, |key| (has_name && key == name) || fields.iter().any(|field| field.name == key));
        let mut read = Fields::new();
        for field in fields {
            if let Some(value) = self.field(field, map.get(field.name)) {
                read.insert(field.name.to_owned(), value);
            }
        }
        if let Err((field, rule)) = kind.check(&read, |name| map.contains_key(name)) {
            match map.contains_key(field) {
                true => self.key(field, |reader| reader.fault(rule)),
                false => self.fault(format!("lacks the key {field}, which {rule}")),
            }
        }
        read
    }

    fn field(&mut self, field: &Field, value: Option<&Yaml>) -> Option<Value> {
        match (value, field.form) {
            (None, Form::Truth) => Some(Value::Bool(true)),
            (None, _) if field.is_needed => {
                self.fault(format!("lacks the key {}", field.name));
                None
            }
            (None, _) => None,
            (Some(value), form) => self.key(field.name, |reader| match form.canonical(&json(value)) {
                Ok(value) => Some(value),
                Err(rule) => {
                    reader.fault(rule);
                    None
                }
            }),
        }
    }
}

/// The same value in JSON's tree. What JSON has no word for is of no use here either.
fn json(value: &Yaml) -> Value {
    match value {
        Yaml::Bool(truth) => Value::Bool(*truth),
        Yaml::String(text) => Value::String(text.clone()),
        Yaml::Sequence(list) => Value::Array(list.iter().map(json).collect()),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        match read([(Path::new("f.yaml"), text)]) {
            Ok(_) => vec![],
            Err(error) => error.0.iter().map(ToString::to_string).collect(),
        }
    }

    const GOOD: &str = "version: 1
feature_flags: {flags.crypto.dual_custody_intercept: true}
settings: {provider: kms_envelope, kms_key_arn: 'arn:aws:kms:ca-central-1:123456789012:key/a'}
bouncers:
  - {name: east, spiffe_id: spiffe://example.org/e}
protected_resources: []
---
version: 1
envelope_secrets:
  - logical_path: a/b
    provider: kms_envelope
    key_id: arn:aws:kms:ca-central-1:123456789012:key/a
    ciphertext_ref: AQICAHg=
";

    #[test]
    fn documents_make_one_declaration() {
        let declared = read([(Path::new("f.yaml"), GOOD)]).unwrap();
        assert_eq!(declared.sections.len(), 5);
        let names: Vec<_> = declared.things.keys().map(|(kind, name)| format!("{} {name}", kind.word())).collect();
        let wanted =
            ["flag flags.crypto.dual_custody_intercept", "settings provider", "bouncer east", "credential a/b"];
        assert_eq!(names, wanted);
        assert_eq!(declared.things[&(Kind::Secret, "a/b".to_owned())]["enabled"], true, "unless it says otherwise");
    }

    #[test]
    fn every_fault_is_told_with_line_and_key_and_never_with_a_value() {
        let text = "version: 2
bouncer: []
bouncers:
  - name: East!
    spiffe_id: hunter2
  - name: west
    spifeid: x
protected_resources: {}
envelope_secrets:
  - logical_path: a/b
    provider: kms_envelope
    key_id: alias/x
    ciphertext_ref: AQICAHg=
    enabled: 'hunter2'
";
        let told = faults(text);
        let begins = [
            "f.yaml:2: bouncer is no key that is known here",
            "f.yaml:1: version must be 1",
            "f.yaml:5: bouncers[0].spiffe_id ",
            "f.yaml:4: bouncers[0].name ",
            "f.yaml:7: bouncers[1].spifeid is no key",
            "f.yaml:6: bouncers[1] lacks the key spiffe_id",
            "f.yaml:14: envelope_secrets[0].enabled must be true or false",
            "f.yaml:12: envelope_secrets[0].key_id ",
            "f.yaml:8: protected_resources must be a list; write [] for none",
        ];
        assert_eq!(told.len(), begins.len(), "{told:#?}");
        for (told, begin) in told.iter().zip(begins) {
            assert!(told.starts_with(begin), "{told} / {begin}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn nothing_is_declared_twice_and_nothing_is_no_declaration() {
        let twice = "version: 1\nbouncers:\n- {name: e, spiffe_id: 'spiffe://x.org/e'}\n- {name: e, spiffe_id: 'spiffe://x.org/f'}\n";
        assert_eq!(faults(twice), ["f.yaml:4: bouncers[1] declares a bouncer that was declared before"]);
        let role = "version: 1\nbouncers:\n- {name: e, iam_role_arn: 'arn:aws:iam::123456789012:role/e'}\n";
        assert_eq!(faults(role), Vec::<String>::new());
        let both = role.replace("{name", "{spiffe_id: 'spiffe://x.org/e', name");
        let told = "f.yaml:3: bouncers[0].iam_role_arn does not go with spiffe_id: a bouncer has one identity";
        assert_eq!(faults(&both), [told]);
        assert_eq!(faults("version: 1\nversion: 1\n"), ["f.yaml:1: has a key twice"]);
        assert_eq!(faults("# nothing\n"), ["(all files): declares nothing"]);
        assert!(faults("a: [\n")[0].contains("is no YAML"));
        assert_eq!(faults("bouncers: []\n"), ["f.yaml:1: the document lacks the key version, which must be 1"]);
        assert_eq!(faults("version: 1\nbouncers:\n"), ["f.yaml:2: bouncers must be a list; write [] for none"]);
    }
}
