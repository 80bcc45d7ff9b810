//! The difference between what is declared and what is registered: what to do, in which order, and how it is told.

use super::schema::{Field, Form};
use super::{Declared, Fields, Kind, Live, Registered};
use aws_lc_rs::digest::{SHA256, digest};
use bouncer_custody::Hex;
use serde_json::{Value, json};

/// All that is to be done, in its order.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// What to do.
    pub changes: Vec<Change>,
    /// How many things are registered, of the declared kinds, and not declared. They stay.
    pub undeclared: usize,
    /// Kinds that are declared and can't be read before the flag is on.
    pub unknown: Vec<Kind>,
}

/// One thing to do.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// What with it.
    pub action: Action,
    /// The kind of thing.
    pub kind: Kind,
    /// Which.
    pub name: String,
    /// What it shall be; what it is, for a deletion.
    pub fields: Fields,
    /// What it is, if it is.
    pub before: Option<Registered>,
}

/// What to do with a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is not there.
    Create,
    /// It is otherwise.
    Change,
    /// It is not declared.
    Delete,
}

impl Action {
    /// In one word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::Delete => "delete",
        }
    }

    const fn sign(self) -> char {
        match self {
            Self::Create => '+',
            Self::Change => '~',
            Self::Delete => '-',
        }
    }
}

/// One field that differs, as it may be shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Which.
    pub field: &'static str,
    /// What it is; nothing where there is none.
    pub old: Option<String>,
    /// What it shall be; nothing where there shall be none.
    pub new: Option<String>,
}

impl Change {
    /// The fields that differ.
    pub(crate) fn differing(&self) -> impl Iterator<Item = &'static Field> {
        let before = self.before.as_ref().map(|before| &before.fields);
        let after = (self.action != Action::Delete).then_some(&self.fields);
        let value = |fields: Option<&Fields>, name: &str| fields.and_then(|fields| fields.get(name)).cloned();
        let differs = |field: &&Field| value(before, field.name) != value(after, field.name);
        self.kind.fields().iter().filter(differs).collect::<Vec<_>>().into_iter()
    }

    /// The same, as they may be shown.
    pub(super) fn shown(&self) -> Vec<Shown> {
        let show = |field: &Field, fields: Option<&Fields>| {
            fields.and_then(|fields| show(field.name, fields.get(field.name)?))
        };
        let before = self.before.as_ref().map(|before| &before.fields);
        let after = (self.action != Action::Delete).then_some(&self.fields);
        self.differing()
            .map(|field| Shown { field: field.name, old: show(field, before), new: show(field, after) })
            .collect()
    }

    /// In one line.
    pub(crate) fn title(&self) -> String {
        match self.kind {
            Kind::Settings => format!("{} settings", self.action.word()),
            kind => format!("{} {} {}", self.action.word(), kind.word(), self.name),
        }
    }

    /// Whether it turns a flag on, or off.
    pub(crate) fn turns(&self, on: bool) -> bool {
        self.kind == Kind::Flag && self.fields.get("enabled") == Some(&on.into())
    }

    /// Where it stands in the order. Where a flag goes `off`, nothing behind it can be changed any more: that comes first, and
    /// the flag right after it.
    fn rank(&self, off: bool) -> (u8, Kind) {
        match (self.action, self.kind) {
            (Action::Delete, kind) if off && kind.is_guarded() => (1, kind),
            (_, kind) if off && kind.is_guarded() => (0, kind),
            (_, Kind::Flag) if self.turns(false) => (2, Kind::Flag),
            (Action::Delete, Kind::Resource) => (5, Kind::Flag),
            (Action::Delete, kind) => (6, kind),
            (_, Kind::Flag) => (4, Kind::Flag),
            (_, kind) => (3, kind),
        }
    }

    fn text(&self) -> String {
        let name = if self.kind == Kind::Settings { String::new() } else { format!(" {}", self.name) };
        let mut text = format!("{} {}{name}", self.action.sign(), self.kind.word());
        if self.action == Action::Delete {
            return text;
        }
        for Shown { field, old, new } in self.shown() {
            let (old, new) = (old.as_deref().unwrap_or("(none)"), new.as_deref().unwrap_or("(none)"));
            match self.action {
                Action::Create => text.push_str(&format!("\n    {field}: {new}")),
                _ => text.push_str(&format!("\n    {field}: {old} → {new}")),
            }
        }
        text
    }
}

impl Plan {
    /// What makes `live` as `declared`; with `prune` also without what is not declared.
    pub(crate) fn new(declared: &Declared, live: &Live, prune: bool) -> Self {
        let is_known = |kind: Kind| !(live.locked && kind.is_guarded());
        let mut plan = Self {
            unknown: declared.sections.iter().copied().filter(|kind| !is_known(*kind)).collect(),
            ..Self::default()
        };
        for ((kind, name), fields) in declared.things.iter().filter(|((kind, _), _)| is_known(*kind)) {
            let before = live.things.get(&(*kind, name.clone()));
            let action = match before {
                None => Action::Create,
                Some(before) if before.fields != *fields => Action::Change,
                Some(_) => continue,
            };
            let (name, fields, before) = (name.clone(), fields.clone(), before.cloned());
            plan.changes.push(Change { action, kind: *kind, name, fields, before });
        }
        let can_go = |kind: &Kind| !matches!(kind, Kind::Flag | Kind::Settings) && declared.sections.contains(kind);
        for (key, thing) in live.things.iter().filter(|(key, _)| can_go(&key.0) && !declared.things.contains_key(key)) {
            if prune {
                let (name, fields, before) = (key.1.clone(), thing.fields.clone(), Some(thing.clone()));
                plan.changes.push(Change { action: Action::Delete, kind: key.0, name, fields, before });
            } else {
                plan.undeclared += 1;
            }
        }
        let off = plan.changes.iter().any(|change| change.turns(false));
        plan.changes.sort_by_key(|change| change.rank(off));
        plan
    }

    /// Whether everything is as declared, as far as is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.unknown.is_empty()
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut parts: Vec<String> = self.changes.iter().map(Change::text).collect();
        if !self.unknown.is_empty() {
            let sections: Vec<_> = self.unknown.iter().map(|kind| kind.section()).collect();
            let sections = sections.join(", ");
            parts.push(format!(
                "? {sections}: can't be read before the flag is on. apply turns it on, and compares then"
            ));
        }
        let count = |action| self.changes.iter().filter(|change| change.action == action).count();
        parts.push(match self.is_empty() {
            true => "No difference.".to_owned(),
            false => format!(
                "\n{} to create, {} to change, {} to delete",
                count(Action::Create),
                count(Action::Change),
                count(Action::Delete)
            ),
        });
        if self.undeclared > 0 {
            parts.push(format!("{} registered and not declared: --prune deletes them", self.undeclared));
        }
        parts.join("\n")
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let changes: Vec<Value> = self.changes.iter().map(Change::json).collect();
        let unknown: Vec<_> = self.unknown.iter().map(|kind| kind.section()).collect();
        json!({"changes": changes, "unknown_sections": unknown, "undeclared": self.undeclared})
    }
}

impl Change {
    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let field = |shown: Shown| json!({"field": shown.field, "old": shown.old, "new": shown.new});
        let fields: Vec<Value> = self.shown().into_iter().map(field).collect();
        json!({"action": self.action.word(), "kind": self.kind.word(), "name": self.name, "fields": fields})
    }
}

/// A value as it may be shown: quoted, on one line, and no ciphertext whole.
fn show(field: &str, value: &Value) -> Option<String> {
    match (field, value) {
        ("ciphertext_ref", Value::String(text)) => {
            let begin: String = text.chars().take((text.chars().count() / 2).min(12)).collect();
            Some(format!("{begin}… ({} bytes, sha256 {})", text.len(), sha256(text)))
        }
        ("certificate_chain", Value::String(text)) => {
            let count = text.matches("-----BEGIN CERTIFICATE-----").count();
            Some(format!("PEM ({count} certificates, sha256 {})", sha256(text)))
        }
        (_, Value::Null) => None,
        (_, value) => Some(value.to_string()),
    }
}

fn sha256(text: &str) -> String {
    Hex(digest(&SHA256, text.as_bytes()).as_ref()).to_string()
}

/// A registered thing's fields, from the API's answer, in the form that a file would have.
pub(super) fn fields(kind: Kind, answer: &Value) -> Fields {
    let mut fields = Fields::new();
    for field in kind.fields() {
        let value = answer.get(field.name).filter(|value| !value.is_null());
        let Some(value) = value else { continue };
        // What an older tool does not understand is kept as it is, and differs.
        let canonical = field.form.canonical(value).unwrap_or_else(|_| value.clone());
        let is_empty = matches!((field.form, &canonical), (Form::Text(_), Value::String(text)) if text.is_empty());
        if !is_empty {
            fields.insert(field.name.to_owned(), canonical);
        }
    }
    fields
}

impl Registered {
    /// Reads the API's answer about a thing of this kind.
    pub(crate) fn read(kind: Kind, answer: &Value) -> Self {
        let id = answer.get("id").and_then(Value::as_str).map(str::to_owned);
        let revision = answer.get("revision").and_then(Value::as_u64).unwrap_or_default();
        Self { fields: fields(kind, answer), revision, id }
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;
    use std::path::Path;

    fn live(things: &[(Kind, &str, Value)]) -> Live {
        let mut live = Live::default();
        for (kind, name, answer) in things {
            live.things.insert((*kind, (*name).to_owned()), Registered::read(*kind, answer));
        }
        live
    }

    const TEXT: &str = "version: 1
feature_flags: {a.off: false, b.on: true}
bouncers: [{name: new, spiffe_id: 'spiffe://x.org/n'}, {name: same, spiffe_id: 'spiffe://x.org/s'}]
envelope_secrets:
- {logical_path: a/b, provider: vault_delegate, key_id: team-a, ciphertext_ref: 'kv2:secret/canary-x'}
protected_resources: []
";

    #[test]
    fn the_order_is_what_a_flag_guards_flags_off_things_flags_on_deletions() {
        let on = json!({"enabled": true, "revision": 1});
        let off = json!({"enabled": false, "revision": 0});
        let live = live(&[
            (Kind::Flag, "a.off", on),
            (Kind::Flag, "b.on", off),
            (Kind::Bouncer, "same", json!({"spiffe_id": "spiffe://x.org/s", "revision": 2})),
            (Kind::Bouncer, "old", json!({"spiffe_id": "spiffe://x.org/o", "revision": 3})),
            (Kind::Resource, "gone", json!({"bouncer": "old", "revision": 4})),
            (Kind::Secret, "gone", json!({"provider": "vault_delegate", "key_id": "team-a", "revision": 5})),
        ]);
        let declared = read([(Path::new("x"), TEXT)]).unwrap();
        let plan = Plan::new(&declared, &live, true);
        let titles: Vec<_> = plan.changes.iter().map(Change::title).collect();
        let wanted = [
            "create credential a/b",
            "delete credential gone",
            "change flag a.off",
            "create bouncer new",
            "change flag b.on",
            "delete resource gone",
            "delete bouncer old",
        ];
        assert_eq!(titles, wanted);
        let careful = Plan::new(&declared, &live, false);
        assert_eq!((careful.changes.len(), careful.undeclared), (4, 3));
        // Where none goes off, what is still in use goes last.
        let on = read([(Path::new("x"), &*TEXT.replace("a.off: false", "a.off: true"))]).unwrap();
        let titles: Vec<_> = Plan::new(&on, &live, true).changes.iter().map(Change::title).collect();
        let wanted = [
            "create bouncer new",
            "create credential a/b",
            "change flag b.on",
            "delete resource gone",
            "delete bouncer old",
            "delete credential gone",
        ];
        assert_eq!(titles, wanted);
    }

    #[test]
    fn what_is_locked_is_not_taken_for_missing() {
        let declared = read([(Path::new("x"), TEXT)]).unwrap();
        let plan = Plan::new(&declared, &Live { locked: true, ..Live::default() }, true);
        assert_eq!(plan.unknown, [Kind::Secret]);
        assert!(plan.changes.iter().all(|change| change.kind != Kind::Secret) && !plan.is_empty());
    }

    #[test]
    fn fields_are_told_one_by_one_and_no_ciphertext_whole() {
        let answer = json!({
            "provider": "vault_delegate", "key_id": "team-a", "ciphertext_ref": "kv2:secret/canary-old", "enabled": false,
            "generation": 7, "id": "0190", "revision": 9, "later": 1,
        });
        let declared = read([(Path::new("x"), TEXT)]).unwrap();
        let plan = Plan::new(&declared, &live(&[(Kind::Secret, "a/b", answer)]), false);
        let change = plan.changes.iter().find(|change| change.kind == Kind::Secret).unwrap();
        let fields: Vec<_> = change.shown().iter().map(|shown| shown.field).collect();
        assert_eq!(fields, ["ciphertext_ref", "enabled"]);
        let text = plan.text();
        assert!(text.contains("~ credential a/b") && text.contains("enabled: false → true"), "{text}");
        assert!(text.contains("sha256 ") && !text.contains("canary-x") && !text.contains("canary-old"), "{text}");
        assert!(!plan.json().to_string().contains("canary-x"));
    }
}
