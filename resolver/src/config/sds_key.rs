//! The key that makes an SDS name a capability: known to Envoy's environment and to the resolver, to no one else.

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// 64 lower-case hex digits. Compared in constant time, never printed.
pub struct SdsKey(Zeroizing<String>);

impl SdsKey {
    /// `None` unless `text` (white space around it aside) is 64 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 64 && text.bytes().all(hex)).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// Whether `candidate` is this key.
    #[must_use]
    pub fn matches(&self, candidate: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(candidate).into()
    }

    /// The tag part of an SDS name of the form `<key>/<tag>`, if the key is this one.
    #[must_use]
    pub fn open<'a>(&self, name: &'a str) -> Option<&'a str> {
        let (key, tag) = name.split_at_checked(64)?;
        let tag = tag.strip_prefix('/')?;
        self.matches(key.as_bytes()).then_some(tag)
    }

    /// The SDS name of a tag, to address a removal to Envoy.
    #[must_use]
    pub fn name(&self, tag: &str) -> Zeroizing<String> {
        Zeroizing::new(format!("{}/{tag}", *self.0))
    }
}

impl std::fmt::Debug for SdsKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SdsKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_key_opens_a_name() {
        let key = SdsKey::parse(&"ab".repeat(32)).unwrap();
        assert_eq!(key.open(&key.name("a@1.x")), Some("a@1.x"));
        assert_eq!(key.open(&format!("{}/a@1.x", "ac".repeat(32))), None);
        assert_eq!(key.open("a@1.x"), None);
        assert_eq!(key.open(""), None);
        assert_eq!(key.open(&"ä".repeat(40)), None);
        assert_eq!(format!("{key:?}"), "SdsKey");
        for bad in ["", "ab", &"AB".repeat(32), &"zz".repeat(32)] {
            assert!(SdsKey::parse(bad).is_none());
        }
    }
}
