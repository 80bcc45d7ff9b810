//! How digests and ids are written, and read.

use std::fmt;

/// Bytes as lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl Hex<'_> {
    /// The bytes of a text, where it is so many and in the one form that they are written in.
    #[must_use]
    pub fn read<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
        let mut bytes = [0; BYTES];
        if pairs.len() != BYTES {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(bytes)
    }
}

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_two_digits() {
        assert_eq!(Hex(&[0x00, 0x0f, 0xa0, 0xff]).to_string(), "000fa0ff");
        assert_eq!(Hex(&[]).to_string(), "");
    }

    #[test]
    fn what_is_written_reads_back_and_nothing_else_does() {
        assert_eq!(Hex::read("000fa0ff"), Some([0x00, 0x0f, 0xa0, 0xff]));
        assert_eq!(Hex::read(""), Some([]));
        for bad in ["", "000fa0f", "000fa0", "000fa0ff00", "000FA0FF", "000ga0ff", "+00fa0ff", "00é0ff"] {
            assert_eq!(Hex::read::<4>(bad), None, "{bad}");
        }
    }
}
