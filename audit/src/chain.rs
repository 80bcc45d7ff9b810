//! Chains: whose they are, where they begin, and how one head follows from the last.

use crate::digest::Digest;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const ORIGIN: &[u8] = b"bouncer.audit.origin.v1\0";
const HEAD: &[u8] = b"bouncer.audit.head.v1\0";

/// A chain's name: a UUID in lower case. A chain belongs to one spool, or to one control plane's database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChainId(Box<str>);

/// Not a UUID in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a chain is named by a UUID in lower case")]
pub struct NotAChain;

impl ChainId {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ChainId {
    type Err = NotAChain;

    fn from_str(text: &str) -> Result<Self, NotAChain> {
        let fits = |(at, byte): (usize, u8)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        };
        if text.len() == 36 && text.bytes().enumerate().all(fits) { Ok(Self(text.into())) } else { Err(NotAChain) }
    }
}

impl TryFrom<String> for ChainId {
    type Error = NotAChain;

    fn try_from(text: String) -> Result<Self, NotAChain> {
        text.parse()
    }
}

impl From<ChainId> for String {
    fn from(chain: ChainId) -> Self {
        chain.0.into()
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whose events a chain holds. Text form: `bouncer:<name>` or `control-plane`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Owner {
    /// A bouncer's, by its name.
    Bouncer(String),
    /// The control plane's own: administrative changes.
    ControlPlane,
}

/// Neither a bouncer nor the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an owner is \"bouncer:<name>\" or \"control-plane\"")]
pub struct NotAnOwner;

impl TryFrom<String> for Owner {
    type Error = NotAnOwner;

    fn try_from(text: String) -> Result<Self, NotAnOwner> {
        match text.split_once(':') {
            None if text == "control-plane" => Ok(Self::ControlPlane),
            Some(("bouncer", name)) => Ok(Self::Bouncer(name.to_owned())),
            _ => Err(NotAnOwner),
        }
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.to_string()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bouncer(name) => write!(f, "bouncer:{name}"),
            Self::ControlPlane => f.write_str("control-plane"),
        }
    }
}

/// A text with its length before it, so that two texts behind each other can be cut in one way only.
pub(crate) fn framed(text: &str, into: &mut Vec<u8>) {
    into.extend_from_slice(&(text.len() as u64).to_be_bytes());
    into.extend_from_slice(text.as_bytes());
}

/// A place in a chain: behind the event of this sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainPoint {
    /// Which chain.
    pub chain: ChainId,
    /// The event's sequence.
    pub sequence: u64,
    /// The head behind it.
    pub head: Digest,
}

impl ChainPoint {
    /// Where a chain begins: behind `before`, the sequence in front of its first event.
    #[must_use]
    pub fn origin(chain: ChainId, owner: &Owner, before: u64) -> Self {
        let mut bytes = ORIGIN.to_vec();
        framed(chain.as_str(), &mut bytes);
        framed(&owner.to_string(), &mut bytes);
        bytes.extend_from_slice(&before.to_be_bytes());
        Self { chain, sequence: before, head: Digest::of(&[&bytes]) }
    }

    /// The head that an event with this leaf makes.
    #[must_use]
    pub fn head_with(&self, leaf: &Digest) -> Digest {
        Digest::of(&[HEAD, self.head.as_bytes(), leaf.as_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        assert!("0199d7a0-0000-7000-8000-000000000001".parse::<ChainId>().is_ok());
        for bad in ["", "0199D7A0-0000-7000-8000-000000000001", "0199d7a000007000800000000000000100000000"] {
            assert_eq!(bad.parse::<ChainId>(), Err(NotAChain), "{bad}");
        }
        for good in [Owner::ControlPlane, Owner::Bouncer("a".into())] {
            assert_eq!(Owner::try_from(good.to_string()), Ok(good));
        }
        assert_eq!(Owner::try_from("payments-east".to_owned()), Err(NotAnOwner));
    }

    #[test]
    fn an_origin_is_of_one_chain_one_owner_and_one_place() {
        let chain = |last: u8| format!("0199d7a0-0000-7000-8000-00000000000{last}").parse::<ChainId>();
        let (Ok(one), Ok(two)) = (chain(1), chain(2)) else { panic!("no chains") };
        let east = Owner::Bouncer("east".into());
        let heads = [
            ChainPoint::origin(one.clone(), &east, 0).head,
            ChainPoint::origin(two, &east, 0).head,
            ChainPoint::origin(one.clone(), &Owner::Bouncer("west".into()), 0).head,
            ChainPoint::origin(one, &east, 1).head,
        ];
        for (i, head) in heads.iter().enumerate() {
            assert!(!heads[..i].contains(head), "{i}");
        }
    }
}
