//! Generations and tags: the immutable names of one issue of a credential.

use crate::hex::Hex;
use crate::malformed::{Malformed, Problem};
use crate::{CiphertextRef, EncryptionContext, KeyId, LogicalPath};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// Counts the registrations of a logical path, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Generation(NonZeroU64);

impl Generation {
    /// The first registration.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// `None` for 0, which is no generation.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an [`Issue`] digests: all metadata of an envelope, and how often it was ended and enabled again.
#[derive(Debug, Clone, Copy)]
pub struct IssueOf<'a> {
    /// Where the credential is.
    pub path: &'a LogicalPath,
    /// Which registration.
    pub generation: Generation,
    /// Who can unwrap it.
    pub key_id: &'a KeyId,
    /// What is unwrapped.
    pub ciphertext_ref: &'a CiphertextRef,
    /// Under which pairs.
    pub aad: Option<&'a EncryptionContext>,
    /// The public chain beside it.
    pub certificate_chain: &'a str,
    /// How often the generation was enabled again.
    pub activation: u64,
    /// How often the resolver ended the credential itself.
    pub ended: u64,
}

/// A digest of everything that makes one issue of a credential what it is, 16 lower-case hex digits. Other content, or a
/// re-enabled credential, is another issue, so that no pooled connection of an earlier one is used for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Issue([u8; 8]);

impl Issue {
    /// SHA-256 over the length-prefixed fields, truncated to 64 bits: a name, not an authenticator.
    #[must_use]
    pub fn digest(of: &IssueOf<'_>) -> Self {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        field(b"bouncer issue v1");
        field(of.path.as_str().as_bytes());
        field(&of.generation.get().to_be_bytes());
        field(of.key_id.provider().as_str().as_bytes());
        field(of.key_id.as_str().as_bytes());
        field(of.ciphertext_ref.as_str().as_bytes());
        field(&[u8::from(of.aad.is_some())]);
        field(of.aad.map_or("", EncryptionContext::as_str).as_bytes());
        field(of.certificate_chain.as_bytes());
        field(&of.activation.to_be_bytes());
        field(&of.ended.to_be_bytes());
        Self::short(hash)
    }

    fn short(hash: Sha256) -> Self {
        let digest = hash.finalize();
        let mut short = [0; 8];
        short.copy_from_slice(&digest[..8]);
        Self(short)
    }

    fn parse(text: &str) -> Option<Self> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let number = (text.len() == 16 && text.bytes().all(hex)).then(|| u64::from_str_radix(text, 16));
        Some(Self(number?.ok()?.to_be_bytes()))
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Hex(&self.0), f)
    }
}

/// `<logical_path>@<generation>.<issue>`: the immutable name of one issue of a credential. In `on_demand` mode it is
/// the last part of the SDS resource's name.
///
/// Where the backend can change what it holds under the same metadata (Vault), `-<version>` follows: a digest of the
/// backend's own version, so that what comes after a change is another name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tag {
    path: LogicalPath,
    generation: Generation,
    issue: Issue,
    version: Option<Issue>,
}

impl Tag {
    /// The tag of one issue.
    #[must_use]
    pub const fn new(path: LogicalPath, generation: Generation, issue: Issue) -> Self {
        Self { path, generation, issue, version: None }
    }

    /// The tag of what the backend holds now, by the backend's own version of it.
    #[must_use]
    pub fn of_version(&self, version: &str) -> Self {
        let mut hash = Sha256::new_with_prefix(b"bouncer version v1");
        hash.update(version.as_bytes());
        Self { version: Some(Issue::short(hash)), ..self.clone() }
    }

    /// Whether this is `issue`, in whichever version of the backend's.
    #[must_use]
    pub fn is_of(&self, issue: &Self) -> bool {
        self.path == issue.path && self.generation == issue.generation && self.issue == issue.issue
    }

    /// The tag without the backend's version.
    #[must_use]
    pub fn unversioned(&self) -> Self {
        Self { version: None, ..self.clone() }
    }

    /// The credential's path.
    #[must_use]
    pub const fn path(&self) -> &LogicalPath {
        &self.path
    }

    /// The registration.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}.{}", self.path, self.generation, self.issue)?;
        self.version.map_or(Ok(()), |version| write!(f, "-{version}"))
    }
}

impl FromStr for Tag {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let form = || Problem::Form("<logical_path>@<generation>.<issue>, and -<version> for some").of("tag");
        let (path, rest) = text.split_once('@').ok_or_else(form)?;
        let (generation, issue) = rest.split_once('.').ok_or_else(form)?;
        let canonical = generation.bytes().all(|b| b.is_ascii_digit()) && !generation.starts_with('0');
        let generation = generation.parse().ok().filter(|_| canonical).and_then(Generation::new).ok_or_else(form)?;
        let (issue, version) = issue.split_once('-').map_or((issue, None), |(issue, version)| (issue, Some(version)));
        let issue = Issue::parse(issue).ok_or_else(form)?;
        let version = version.map(|text| Issue::parse(text).ok_or_else(form)).transpose()?;
        Ok(Self { path: path.parse()?, generation, issue, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Provider;

    #[test]
    fn every_field_makes_another_issue() {
        let path: LogicalPath = "a/b".parse().unwrap();
        let key = KeyId::parse(Provider::KmsEnvelope, "arn:aws:kms:eu-west-1:123456789012:key/k").unwrap();
        let other_key = KeyId::parse(Provider::KmsEnvelope, "arn:aws:kms:eu-west-1:123456789012:key/l").unwrap();
        let (blob, other_blob): (CiphertextRef, CiphertextRef) = ("AQ==".parse().unwrap(), "Ag==".parse().unwrap());
        let aad: EncryptionContext = "env=a".parse().unwrap();
        let of = IssueOf {
            path: &path,
            generation: Generation::FIRST,
            key_id: &key,
            ciphertext_ref: &blob,
            aad: None,
            certificate_chain: "",
            activation: 0,
            ended: 0,
        };
        let others = [
            IssueOf { generation: Generation::new(2).unwrap(), ..of },
            IssueOf { key_id: &other_key, ..of },
            IssueOf { ciphertext_ref: &other_blob, ..of },
            IssueOf { aad: Some(&aad), ..of },
            IssueOf { certificate_chain: "x", ..of },
            IssueOf { activation: 1, ..of },
            IssueOf { ended: 1, ..of },
        ];
        let issue = Issue::digest(&of);
        assert_eq!(issue, Issue::digest(&of));
        for other in others {
            assert_ne!(issue, Issue::digest(&other), "{other:?}");
        }
        let tag = Tag::new(path, Generation::FIRST, issue);
        assert_eq!(tag.to_string().parse::<Tag>().unwrap(), tag);
    }

    #[test]
    fn a_backends_version_makes_another_tag_of_the_same_issue() {
        let tag: Tag = "a@1.0123456789abcdef".parse().unwrap();
        let (one, two) = (tag.of_version("1"), tag.of_version("2"));
        assert!(one != two && one != tag && one == tag.of_version("1"));
        assert_eq!(one.to_string().parse::<Tag>().unwrap(), one);
        assert!(one.is_of(&tag) && tag.is_of(&one) && !one.is_of(&"a@2.0123456789abcdef".parse().unwrap()));
        assert_eq!(one.unversioned(), tag);
    }

    #[test]
    fn forged_forms_are_no_tags() {
        for bad in [
            "",
            "a",
            "a@1",
            "a@0.0123456789abcdef",
            "a@01.0123456789abcdef",
            "a@1.0123456789ABCDEF",
            "a@1.0",
            "../a@1.0123456789abcdef",
            "a@+1.0123456789abcdef",
            "a@1.0123456789abcdef0",
            "a@1.0123456789abcdef-",
            "a@1.0123456789abcdef-0123456789ABCDEF",
            "a@1.0123456789abcdef-0123456789abcdef-0123456789abcdef",
        ] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }
}
