//! On which line of a file a key stands. YAML's tree does not say, so that the way is walked once more up to the key, and
//! stopped there by an error, which does say where it is.

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// One step into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// To a key of a mapping.
    Key(String),
    /// To an element of a list, from 0.
    Index(usize),
}

/// The line, from 1, of what the steps lead to in the document of this number.
pub(super) fn line(text: &str, document: usize, steps: &[Step]) -> Option<usize> {
    let found = serde_norway::Deserializer::from_str(text).nth(document)?;
    let stopped = Walk(steps).deserialize(found).err()?;
    // No step leads there: the nearest thing that does.
    stopped.location().map(|location| location.line())
}

#[derive(Clone, Copy)]
struct Walk<'a>(&'a [Step]);

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("what the steps lead to")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.0.split_first() else { return Err(A::Error::custom("here")) };
        while let Some(is_it) = map.next_key_seed(Key { wanted, is_end: rest.is_empty() })? {
            if is_it {
                map.next_value_seed(Walk(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Err(A::Error::custom("not there"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((Step::Index(wanted), rest)) = self.0.split_first() else { return Err(A::Error::custom("here")) };
        for _ in 0..*wanted {
            list.next_element::<IgnoredAny>()?;
        }
        list.next_element_seed(Walk(rest))?;
        Err(A::Error::custom("not there"))
    }
}

/// Whether a key is the one; at the end of the way it stops there.
struct Key<'a> {
    wanted: &'a str,
    is_end: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<bool, E> {
        let is_it = text == self.wanted;
        if is_it && self.is_end { Err(E::custom("here")) } else { Ok(is_it) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_elements_are_found_in_every_document() {
        let text = "a: 1\nlist:\n  - name: x\n    odd: 1\n  - {name: y, odd: 2}\n---\n# second\na:\n  b: 2\n";
        let key = |name: &str| Step::Key(name.to_owned());
        assert_eq!(line(text, 0, &[key("list")]), Some(2));
        assert_eq!(line(text, 0, &[key("list"), Step::Index(0), key("odd")]), Some(4));
        assert_eq!(line(text, 0, &[key("list"), Step::Index(1), key("odd")]), Some(5));
        assert_eq!(line(text, 0, &[key("list"), Step::Index(1)]), Some(5));
        assert_eq!(line(text, 1, &[key("a"), key("b")]), Some(9));
        assert_eq!(line(text, 2, &[key("a")]), None);
    }
}
