//! The AAD: KMS's encryption context, and the pairs in it that bind a credential.

use crate::Generation;
use crate::hex::Hex;
use crate::malformed::{Malformed, Problem, bounded};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

const WHAT: &str = "aad";

/// The pairs that the customer bound to the ciphertext, written `k=v,k=v` as the AWS CLI's shorthand writes them.
///
/// KMS proves them: it decrypts only under exactly the pairs of the encryption. At most 8,192 bytes; keys and values
/// are non-empty visible ASCII without `,` and quotes, no key twice, no `=` in a key. The order carries no meaning and
/// is kept only for display.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EncryptionContext {
    text: Box<str>,
}

/// The keys that the resolver checks against the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// `bouncer=`: the bouncer's name.
    Bouncer,
    /// `upstream=`: host:port, or `*.suffix`.
    Upstream,
    /// `caller=`: a SPIFFE ID, or a prefix of whole path segments ending in `/*`.
    Caller,
    /// `env=`: the resolver's own environment.
    Env,
    /// `generation=`: the registration's generation, against roll-back.
    Generation,
}

impl Reserved {
    /// The key as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bouncer => "bouncer",
            Self::Upstream => "upstream",
            Self::Caller => "caller",
            Self::Env => "env",
            Self::Generation => "generation",
        }
    }
}

impl EncryptionContext {
    /// The text as it was parsed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The pairs, in the order they were written.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text.split(',').filter_map(|pair| pair.split_once('='))
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: Reserved) -> Option<&str> {
        self.pairs().find_map(|(k, v)| (k == key.as_str()).then_some(v))
    }

    /// Whether the pair stands in it exactly.
    #[must_use]
    pub fn has_pair(&self, key: &str, value: &str) -> bool {
        self.pairs().any(|pair| pair == (key, value))
    }

    /// The same pairs with another `generation=`, where there is one; as they are where there is none.
    ///
    /// # Errors
    /// [`Malformed`] if a longer number makes the whole too long.
    pub fn with_generation(&self, generation: Generation) -> Result<Self, Malformed> {
        let own = Reserved::Generation.as_str();
        let pair = |(key, value): (&str, &str)| match key == own {
            true => format!("{own}={generation}"),
            false => format!("{key}={value}"),
        };
        self.pairs().map(pair).collect::<Vec<_>>().join(",").parse()
    }

    /// SHA-256 of the text, lower-case hex: how audit names an AAD.
    #[must_use]
    pub fn sha256_hex(&self) -> String {
        Hex(&Sha256::digest(self.text.as_bytes())).to_string()
    }
}

impl FromStr for EncryptionContext {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        bounded(text, WHAT, 8_192)?;
        let allowed = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'');
        if !text.bytes().all(allowed) {
            return Err(Problem::Character("visible ASCII without spaces and quotes").of(WHAT));
        }
        let mut keys = Vec::new();
        for pair in text.split(',') {
            match pair.split_once('=') {
                Some((key, value)) if !key.is_empty() && !value.is_empty() => keys.push(key),
                _ => return Err(Problem::Form("key=value pairs joined by ','").of(WHAT)),
            }
        }
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Problem::Duplicate.of(WHAT));
        }
        Ok(Self { text: text.into() })
    }
}

impl TryFrom<String> for EncryptionContext {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<EncryptionContext> for String {
    fn from(context: EncryptionContext) -> Self {
        context.text.into()
    }
}

impl fmt::Display for EncryptionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_guides_aad_parses() {
        let aad: EncryptionContext = "env=production,bouncer=payments-east".parse().unwrap();
        assert_eq!(aad.get(Reserved::Env), Some("production"));
        assert_eq!(aad.get(Reserved::Bouncer), Some("payments-east"));
        assert_eq!(aad.get(Reserved::Upstream), None);
        // As `printf env=production,bouncer=payments-east | sha256sum` has it.
        assert_eq!(aad.sha256_hex(), "fed6766013fb59387b93d1315157f4dceea9f98564ca2853da38902669c9862b");
    }

    #[test]
    fn only_the_generation_is_another() {
        let of =
            |text: &str| text.parse::<EncryptionContext>().unwrap().with_generation(Generation::FIRST.next()).unwrap();
        assert_eq!(of("env=production,generation=1,bouncer=a").as_str(), "env=production,generation=2,bouncer=a");
        assert_eq!(of("env=production,note=generation=1").as_str(), "env=production,note=generation=1");
    }

    #[test]
    fn doubtful_pairs_are_refused() {
        for bad in ["", "a", "=v", "a=", "a=b,", ",a=b", "a=b,a=c", "a=b c", "a=\"b\"", "a=b\n", "ä=b"] {
            assert!(bad.parse::<EncryptionContext>().is_err(), "{bad:?}");
        }
        let nested: EncryptionContext = "a=b=c".parse().unwrap();
        assert_eq!(nested.pairs().collect::<Vec<_>>(), [("a", "b=c")]);
    }

    proptest! {
        #[test]
        fn pairs_rebuild_the_text(text in "[a-c=,]{0,16}") {
            if let Ok(context) = text.parse::<EncryptionContext>() {
                let rebuilt: Vec<_> = context.pairs().map(|(k, v)| format!("{k}={v}")).collect();
                prop_assert_eq!(rebuilt.join(","), text);
            }
        }
    }
}
