//! What is registered, as a file: in a fixed order, so that the same state is the same text.

use super::read::VERSION;
use super::{Fields, Kind, Live};
use serde_norway::{Mapping, Value as Yaml};

/// The file's text. Kinds that could not be read are left out.
pub(crate) fn write(live: &Live) -> Result<String, serde_norway::Error> {
    let mut document = Mapping::new();
    document.insert("version".into(), VERSION.into());
    for kind in Kind::ALL.into_iter().filter(|kind| !(live.locked && kind.is_guarded())) {
        let of_kind = || live.things.iter().filter(|((other, _), _)| *other == kind);
        let section = match kind {
            Kind::Flag => {
                let on = |fields: &Fields| fields.get("enabled") == Some(&true.into());
                Yaml::Mapping(
                    of_kind().map(|((_, name), thing)| (name.as_str().into(), on(&thing.fields).into())).collect(),
                )
            }
            Kind::Settings => match of_kind().next() {
                Some((_, thing)) => Yaml::Mapping(ordered(kind, &thing.fields)?),
                None => continue,
            },
            _ => {
                let mut items = Vec::new();
                for ((_, name), thing) in of_kind() {
                    let mut item = Mapping::new();
                    item.insert(kind.name().0.into(), name.as_str().into());
                    item.extend(ordered(kind, &thing.fields)?);
                    items.push(Yaml::Mapping(item));
                }
                Yaml::Sequence(items)
            }
        };
        document.insert(kind.section().into(), section);
    }
    serde_norway::to_string(&document)
}

fn ordered(kind: Kind, fields: &Fields) -> Result<Mapping, serde_norway::Error> {
    let mut map = Mapping::new();
    for field in kind.fields() {
        if let Some(value) = fields.get(field.name) {
            map.insert(field.name.into(), serde_norway::to_value(value)?);
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::super::{Plan, Registered, read};
    use super::*;
    use serde_json::json;
    use std::path::Path;

    #[test]
    fn what_is_written_is_read_as_no_difference() {
        let mut live = Live::default();
        let chain = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        for (kind, name, fields) in [
            (Kind::Flag, "flags.crypto.dual_custody_intercept", json!({"enabled": true})),
            (
                Kind::Settings,
                "provider",
                json!({"provider": "vault_delegate", "vault_namespace": "team-a", "notes": "1"}),
            ),
            (Kind::Bouncer, "east", json!({"spiffe_id": "spiffe://example.org/e"})),
            (
                Kind::Secret,
                "a/b",
                json!({
                    "provider": "vault_delegate", "key_id": "team-a", "ciphertext_ref": "kv2:secret/x", "enabled": false,
                    "certificate_chain": chain,
                }),
            ),
            (
                Kind::Resource,
                "true",
                json!({
                    "bouncer": "east", "cluster": "1e3", "upstream": "a.b:1", "protocol": "mtls", "logical_path": "a/b",
                    "callers": ["spiffe://example.org/x"], "enabled": true,
                }),
            ),
        ] {
            let fields = fields.as_object().unwrap().clone();
            live.things.insert((kind, name.to_owned()), Registered { fields, revision: 3, id: None });
        }
        let text = write(&live).unwrap();
        let declared = read([(Path::new("x"), &*text)]).unwrap();
        assert!(Plan::new(&declared, &live, true).is_empty(), "{text}");
        assert_eq!(declared.sections.len(), 5);
        live.locked = true;
        let text = write(&live).unwrap();
        assert!(!text.contains("settings:") && !text.contains("envelope_secrets:"), "{text}");
    }
}
