//! Bearer tokens of the API: how they are made, written and compared. Only hashes are ever stored or logged.
//!
//! A token is `bnc_` and 256 random bits in base64url. Its SHA-256 is safe to store as it is: nobody can enumerate
//! 2^256 inputs, so no slow hash is needed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bouncer_custody::Hex;
use rand::TryRng as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What every token begins with, so that scanners can tell one when it leaks.
pub const PREFIX: &str = "bnc_";

/// A fresh token. It is written down once, by [`Token::reveal`], and never shown by `Debug`.
pub struct Token(String);

impl Token {
    /// A token of 256 bits from the operating system.
    ///
    /// # Errors
    /// [`NoRandomness`] if the operating system gives none.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut bits = [0; 32];
        rand::rngs::SysRng.try_fill_bytes(&mut bits).map_err(|_| NoRandomness)?;
        Ok(Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bits))))
    }

    /// The text, for the one place that hands it out.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash::of(&self.0)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Whether a text has a token's form at all. What has not is refused without asking the database.
#[must_use]
pub fn well_formed(text: &str) -> bool {
    let body = text.strip_prefix(PREFIX);
    body.is_some_and(|body| body.len() == 43 && body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)))
}

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes for a token")]
pub struct NoRandomness;

/// SHA-256 of a token.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Hashes what a caller presented.
    #[must_use]
    pub fn of(presented: &str) -> Self {
        Self(Sha256::digest(presented.as_bytes()).into())
    }

    /// The hash that whoever made a token sends in its place: 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        Hex::read(text).map(Self)
    }

    /// The bytes, to be stored.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The part that the database may search by.
    #[must_use]
    pub fn lookup(&self) -> &[u8] {
        &self.0[..8]
    }

    /// Compares in constant time.
    #[must_use]
    pub fn matches(&self, stored: &[u8]) -> bool {
        self.0.ct_eq(stored).into()
    }
}

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_distinct_and_hide_themselves() {
        let (one, other) = (Token::generate().unwrap(), Token::generate().unwrap());
        assert_ne!(one.reveal(), other.reveal());
        assert!(well_formed(one.reveal()) && !well_formed(&one.reveal()[1..]));
        assert!(!format!("{one:?}{:?}", one.hash()).contains(&one.reveal()[4..]));
        assert!(one.hash().matches(TokenHash::of(one.reveal()).as_bytes()));
        assert!(!one.hash().matches(other.hash().as_bytes()));
        assert!(!one.hash().matches(&[]));
    }

    #[test]
    fn a_hash_is_read_in_the_one_form_that_it_is_written_in() {
        let hash = Token::generate().unwrap().hash();
        let text = Hex(hash.as_bytes()).to_string();
        assert!(TokenHash::from_hex(&text).is_some_and(|read| read.matches(hash.as_bytes())));
        for bad in ["", &text[1..], &format!("{text}0"), &"A0".repeat(32), &"g0".repeat(32), &"é".repeat(32)] {
            assert!(TokenHash::from_hex(bad).is_none(), "{bad}");
        }
    }
}
