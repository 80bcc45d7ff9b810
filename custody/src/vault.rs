//! What `ciphertext_ref` and the rails name in a Vault: an engine's mount, and what is asked of it.
//!
//! The resolver parses a reference once, when a snapshot comes; the control plane uses the same form to warn at
//! registration. No part of a reference can be made into another path by a decoder further on.

use crate::malformed::{Malformed, Problem, checked_text};
use crate::{CiphertextRef, LogicalPath, VaultNamespace};

const WHAT: &str = "ciphertext_ref";
const FORM: &str =
    "kv2:mount/path (or only mount/path), kv1:mount/path, pki:mount/role, or transit:mount/key#vault:v1:…";

/// Which of Vault's engines a mount is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VaultEngine {
    /// Key-value store, version 2: versions, and custom metadata that binds.
    Kv2,
    /// Key-value store, version 1: the secret alone.
    Kv1,
    /// Issues short-lived certificates.
    Pki,
    /// Decrypts, with the AAD as associated data.
    Transit,
}

/// What binds a secret of an engine: where its pairs stand, and so who proves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BoundBy {
    /// The registered AAD: without it the backend does not decrypt.
    Aad,
    /// What the Vault keeps beside the secret. A registered AAD only speaks against a stream.
    Metadata,
    /// The rails alone. A registered AAD is nobody's proof, and says nothing.
    Rails,
}

impl VaultEngine {
    /// What binds its secrets.
    #[must_use]
    pub const fn bound_by(self) -> BoundBy {
        match self {
            Self::Transit => BoundBy::Aad,
            Self::Kv2 => BoundBy::Metadata,
            Self::Kv1 | Self::Pki => BoundBy::Rails,
        }
    }
}

/// One segment, with the characters of a logical path.
fn segment(text: &str, what: &'static str) -> Result<(), Malformed> {
    let path: LogicalPath = text.parse().map_err(|error: Malformed| error.problem.of(what))?;
    if path.as_str().contains('/') { Err(Problem::Form("a single segment").of(what)) } else { Ok(()) }
}

checked_text! {
    /// The name of an engine's mount: one segment, such as `secret`.
    VaultMountName, |text| segment(text, "Vault mount")
}

checked_text! {
    /// The name of a role of `pki`, or of a key of `transit`: one segment.
    VaultName, |text| segment(text, "Vault role or key")
}

checked_text! {
    /// A path below a key-value mount. Same segments as a logical path: no `..`, no `%`, no empty part.
    VaultPath, |text| {
        text.parse::<LogicalPath>().map(|_| ()).map_err(|error| error.problem.of("Vault path"))
    }
}

checked_text! {
    /// What `transit` encrypted: `vault:v`, the key's version, and standard base64.
    TransitCiphertext, |text| {
        let rest = text.strip_prefix("vault:v").and_then(|rest| rest.split_once(':'));
        let good = rest.is_some_and(|(version, body)| {
            let digits = !version.is_empty() && version.len() <= 9 && version.bytes().all(|b| b.is_ascii_digit());
            digits && !body.is_empty() && body.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
        });
        if good { Ok(()) } else { Err(Problem::Form("vault:v1:<base64> behind the '#'").of(WHAT)) }
    }
}

impl TransitCiphertext {
    /// Which version of its key it is under.
    #[must_use]
    pub fn version(&self) -> u64 {
        let rest = self.as_str().strip_prefix("vault:v").unwrap_or_default();
        rest.split(':').next().and_then(|version| version.parse().ok()).unwrap_or_default()
    }
}

/// A `ciphertext_ref` of the provider `vault_delegate`, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultRef {
    /// Where the engine is mounted, inside the namespace that `key_id` names.
    pub mount: VaultMountName,
    /// What is asked of it.
    pub what: VaultItem,
}

/// What is asked of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultItem {
    /// The latest version of a secret, with its custom metadata.
    Kv2(VaultPath),
    /// A secret.
    Kv1(VaultPath),
    /// A certificate by this role.
    Pki(VaultName),
    /// The plaintext of a ciphertext under this key.
    Transit(VaultName, TransitCiphertext),
}

impl VaultRef {
    /// The engine that the mount must be.
    #[must_use]
    pub const fn engine(&self) -> VaultEngine {
        match self.what {
            VaultItem::Kv2(_) => VaultEngine::Kv2,
            VaultItem::Kv1(_) => VaultEngine::Kv1,
            VaultItem::Pki(_) => VaultEngine::Pki,
            VaultItem::Transit(..) => VaultEngine::Transit,
        }
    }
}

impl std::str::FromStr for VaultRef {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let form = || Problem::Form(FORM).of(WHAT);
        let (engine, rest) = text.split_once(':').unwrap_or(("kv2", text));
        let (mount, rest) = rest.split_once('/').ok_or_else(form)?;
        let what = match engine {
            "kv2" => VaultItem::Kv2(rest.parse()?),
            "kv1" => VaultItem::Kv1(rest.parse()?),
            "pki" => VaultItem::Pki(rest.parse()?),
            "transit" => {
                let (key, ciphertext) = rest.split_once('#').ok_or_else(form)?;
                VaultItem::Transit(key.parse()?, ciphertext.parse()?)
            }
            _ => return Err(form()),
        };
        Ok(Self { mount: mount.parse()?, what })
    }
}

impl CiphertextRef {
    /// What it names in a Vault, for the provider `vault_delegate`.
    ///
    /// # Errors
    /// [`Malformed`] if it is none of the forms: no bouncer could ever use it.
    pub fn vault(&self) -> Result<VaultRef, Malformed> {
        self.as_str().parse()
    }
}

/// A mount that the rails allow, and the engine that it must be used as: the same path means another thing to another
/// engine, and a write to some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultMount {
    /// Its namespace.
    pub namespace: VaultNamespace,
    /// Its name.
    pub name: VaultMountName,
    /// Its engine.
    pub engine: VaultEngine,
}

impl VaultMount {
    /// Whether both are one mount of the Vault, which has one engine.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.namespace.path() == other.namespace.path() && self.name == other.name
    }

    /// Whether the reference, in the namespace of its `key_id`, lies in this mount.
    #[must_use]
    pub fn holds(&self, namespace: &VaultNamespace, reference: &VaultRef) -> bool {
        self.namespace.path() == namespace.path() && self.name == reference.mount && self.engine == reference.engine()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_parses_and_a_bare_path_is_kv2() {
        let parse = |text: &str| text.parse::<VaultRef>().unwrap();
        assert_eq!(parse("secret/payments/upstream-tls"), parse("kv2:secret/payments/upstream-tls"));
        assert_eq!(parse("kv1:old/payments").engine(), VaultEngine::Kv1);
        assert_eq!(parse("pki:pki-int/client").what, VaultItem::Pki("client".parse().unwrap()));
        let transit = parse("transit:transit/key#vault:v1:8SDd3WHDOjf7mq69CyCqYjBXAiQQAVZRkFM13ok481zoCmHnSeDX9g==");
        assert_eq!((transit.engine(), transit.mount.as_str()), (VaultEngine::Transit, "transit"));
    }

    #[test]
    fn doubtful_references_are_refused() {
        for bad in [
            "secret",
            "secret/",
            "/secret/x",
            "kv2:secret//x",
            "kv2:secret/../sys/seal",
            "kv2:../sys/seal",
            "kv2:secret/%2e%2e/x",
            "kv2:secret/x?version=1",
            "kv2:secret/x#y",
            "kv2:secret/x\\y",
            "kv3:secret/x",
            "https://vault/x",
            "pki:pki/role/more",
            "transit:transit/key",
            "transit:transit/key#",
            "transit:transit/key#vault:v1:",
            "transit:transit/key#vault:vx:AAAA",
            "transit:transit/key#vault:v1:AA AA",
            "transit:transit/a/b#vault:v1:AAAA",
        ] {
            assert!(bad.parse::<VaultRef>().is_err(), "{bad}");
        }
        assert!(format!("kv2:secret/{}", "a".repeat(256)).parse::<VaultRef>().is_err());
    }

    #[test]
    fn a_mount_holds_only_its_own_namespace_name_and_engine() {
        let mount = |namespace: &str, name: &str, engine| VaultMount {
            namespace: namespace.parse().unwrap(),
            name: name.parse().unwrap(),
            engine,
        };
        let reference: VaultRef = "kv2:secret/x".parse().unwrap();
        let team: VaultNamespace = "team-a".parse().unwrap();
        assert!(mount("team-a", "secret", VaultEngine::Kv2).holds(&team, &reference));
        assert!(mount("team-a/", "secret", VaultEngine::Kv2).holds(&team, &reference));
        for other in [
            mount("root", "secret", VaultEngine::Kv2),
            mount("team-a", "other", VaultEngine::Kv2),
            mount("team-a", "secret", VaultEngine::Kv1),
        ] {
            assert!(!other.holds(&team, &reference), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_makes_no_other_path(text in "(kv2:|kv1:|pki:|transit:)?[a-z./%#:?]{0,24}") {
            if let Ok(reference) = text.parse::<VaultRef>() {
                let path = match &reference.what {
                    VaultItem::Kv2(path) | VaultItem::Kv1(path) => path.as_str().to_owned(),
                    VaultItem::Pki(name) | VaultItem::Transit(name, _) => name.as_str().to_owned(),
                };
                let url = format!("{}/{path}", reference.mount);
                prop_assert!(!url.contains(['%', '?', '#', ':']), "{}", url);
                prop_assert!(url.split('/').all(|part| !part.is_empty() && part != "." && part != ".."), "{}", url);
            }
        }
    }
}
