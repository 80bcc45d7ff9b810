//! What a policy says, as a digest: the same for two snapshots exactly if they say the same, whatever their epoch, their
//! time and their order. Both sides of the Policy Bridge compute it, so its form is fixed: fields by name, each behind its
//! length, never an encoding that a newer version could change. A new field needs a new form, and a new number for it.

use crate::bridge::v1::{Envelope, ProtectedResource, Snapshot};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// SHA-256 of a policy's content, form 1.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ContentDigest([u8; 32]);

impl ContentDigest {
    /// The form of these digests, as a hello names it.
    pub const FORM: u32 = 1;

    /// Of a whole snapshot.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        Outline::of(snapshot).digest()
    }

    /// As it stands in a message; `None` where that holds none.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// As it stands in a message.
    #[must_use]
    pub fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

impl fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What kind of entry: its number goes into the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    Resource = 1,
    Envelope = 2,
}

/// One entry of a policy: what it is called, and the digest of what it says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) name: Box<str>,
    digest: [u8; 32],
}

/// A policy without its content: enough to tell what changes, at about a hundred bytes for each entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    bouncer: Box<str>,
    enabled: bool,
    /// In order.
    entries: Box<[Entry]>,
}

impl Outline {
    /// Of a whole snapshot.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let resources = snapshot.resources.iter().map(Entry::of_resource);
        let mut entries: Box<[Entry]> = resources.chain(snapshot.envelopes.iter().map(Entry::of_envelope)).collect();
        entries.sort_unstable();
        Self { bouncer: snapshot.bouncer.as_str().into(), enabled: snapshot.intercept_enabled, entries }
    }

    /// The digest of the content.
    #[must_use]
    pub fn digest(&self) -> ContentDigest {
        let mut hash = Hash::new("bouncer policy, form 1");
        hash.text(&self.bouncer);
        hash.flag(self.enabled);
        hash.number(self.entries.len() as u64);
        self.entries.iter().for_each(|entry| hash.0.update(entry.digest));
        ContentDigest(hash.0.finalize().into())
    }

    /// The policy's flag.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether two entries have one name. No control plane's database holds such; what a delta means then is not defined.
    pub(crate) fn is_ambiguous(&self) -> bool {
        self.entries.windows(2).any(|two| two[0].kind == two[1].kind && two[0].name == two[1].name)
    }

    /// Whether an entry is there and says the same.
    pub(crate) fn holds(&self, entry: &Entry) -> bool {
        self.entries.binary_search(entry).is_ok()
    }

    /// Whether an entry of that name is there, whatever it says.
    pub(crate) fn names(&self, kind: Kind, name: &str) -> bool {
        self.entries.binary_search_by(|entry| (entry.kind, &*entry.name).cmp(&(kind, name))).is_ok()
    }
}

impl Entry {
    pub(crate) fn of_resource(resource: &ProtectedResource) -> Self {
        // Named one by one: a field that is added has to be thought of here.
        let ProtectedResource { name, cluster, upstream, protocol, logical_path, callers, enabled } = resource;
        let mut hash = Hash::new("resource");
        [name, cluster, upstream, protocol, logical_path].into_iter().for_each(|text| hash.text(text));
        hash.number(callers.len() as u64);
        callers.iter().for_each(|caller| hash.text(caller));
        hash.flag(*enabled);
        Self { kind: Kind::Resource, name: name.as_str().into(), digest: hash.0.finalize().into() }
    }

    pub(crate) fn of_envelope(envelope: &Envelope) -> Self {
        let Envelope {
            logical_path,
            generation,
            provider,
            key_id,
            ciphertext_ref,
            aad,
            certificate_chain,
            activation,
            revoked_through,
        } = envelope;
        let mut hash = Hash::new("envelope");
        [logical_path, provider, key_id, ciphertext_ref, certificate_chain]
            .into_iter()
            .for_each(|text| hash.text(text));
        [generation, activation, revoked_through].into_iter().for_each(|number| hash.number(*number));
        hash.flag(aad.is_some());
        hash.text(aad.as_deref().unwrap_or_default());
        Self { kind: Kind::Envelope, name: logical_path.as_str().into(), digest: hash.0.finalize().into() }
    }
}

/// A hash over fields that can't run into each other.
struct Hash(Sha256);

impl Hash {
    fn new(of: &str) -> Self {
        let mut hash = Self(Sha256::new());
        hash.text(of);
        hash
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text);
    }

    fn number(&mut self, number: u64) {
        self.0.update(number.to_be_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.0.update([u8::from(flag)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let resource = |name: &str| ProtectedResource { name: name.into(), ..ProtectedResource::default() };
        let envelope = |path: &str| Envelope { logical_path: path.into(), ..Envelope::default() };
        Snapshot {
            epoch: 7,
            bouncer: "east".into(),
            resources: vec![resource("a"), resource("b")],
            envelopes: vec![envelope("a"), envelope("b")],
            ..Snapshot::default()
        }
    }

    #[test]
    fn epoch_time_and_order_do_not_matter_and_all_else_does() {
        let is = ContentDigest::of(&snapshot());
        let same = |change: fn(&mut Snapshot)| {
            let mut changed = snapshot();
            change(&mut changed);
            ContentDigest::of(&changed) == is
        };
        assert!(same(|s| (s.epoch, s.issued_ms) = (8, 9)));
        assert!(same(|s| s.resources.reverse()));
        let changes: [fn(&mut Snapshot); 18] = [
            |s| s.bouncer.push('x'),
            |s| s.intercept_enabled = true,
            |s| drop(s.resources.pop()),
            |s| s.envelopes.push(s.envelopes[0].clone()),
            |s| s.resources[0].cluster.push('x'),
            |s| s.resources[0].upstream.push('x'),
            |s| s.resources[0].protocol.push('x'),
            |s| s.resources[0].logical_path.push('x'),
            |s| s.resources[0].callers.push(String::new()),
            |s| s.resources[0].enabled = true,
            |s| s.envelopes[0].generation = 1,
            |s| s.envelopes[0].provider.push('x'),
            |s| s.envelopes[0].key_id.push('x'),
            |s| s.envelopes[0].ciphertext_ref.push('x'),
            |s| s.envelopes[0].aad = Some(String::new()),
            |s| s.envelopes[0].certificate_chain.push('x'),
            |s| s.envelopes[0].activation = 1,
            |s| s.envelopes[0].revoked_through = 1,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert!(!same(change), "change {number} is not seen");
        }
    }

    /// What is on disk and in the other side's memory must mean the same tomorrow.
    #[test]
    fn the_form_is_fixed() {
        assert_eq!(format!("{:?}", ContentDigest::of(&snapshot())), "3ad1bb38e038e26e");
    }
}
