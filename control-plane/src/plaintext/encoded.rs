//! What hides behind base64 and percent-encoding.

use super::Kind;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Reads base64 as forgivingly as it is written: padding or not, any last bits.
const FORGIVING: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Shorter runs hold no key worth the name.
const SHORTEST: usize = 24;
/// Enough of a DER structure to tell what it is.
const HEAD: usize = 64;

/// Runs of base64, in the standard or the URL-safe alphabet, with line breaks taken out; all in the standard alphabet.
fn runs(text: &str) -> Vec<String> {
    let mut runs = Vec::new();
    let mut run = String::new();
    // A written-out line break ("\n" within a quoted text) separates lines as a real one does.
    for character in text.replace("\\n", "\n").replace("\\r", "\r").chars() {
        match character {
            'A'..='Z' | 'a'..='z' | '0'..='9' | '+' | '/' => run.push(character),
            '-' => run.push('+'),
            '_' => run.push('/'),
            ' ' | '\t' | '\r' | '\n' => {}
            _ if run.is_empty() => {}
            _ => runs.push(std::mem::take(&mut run)),
        }
    }
    runs.push(run);
    runs.retain(|run| run.len() >= SHORTEST);
    runs
}

/// Private keys in DER behind base64, wherever in a run they begin. A SEQUENCE shows as an `M`.
pub(super) fn private_key(text: &str) -> Option<Kind> {
    let found = runs(text).iter().any(|run| {
        let begins = run.match_indices(['M', 'b']).map(|(at, _)| &run[at..]);
        begins.filter(|rest| rest.len() >= SHORTEST).any(|rest| {
            let head = &rest[..rest.len().min(HEAD) / 4 * 4];
            FORGIVING.decode(head).is_ok_and(|der| is_private_key(&der))
        })
    });
    found.then_some(Kind::PrivateKey)
}

/// Texts that `text` may stand for.
pub(super) fn decodings(text: &str) -> Vec<String> {
    let mut inner: Vec<String> = runs(text)
        .iter()
        .filter_map(|run| FORGIVING.decode(run.get(..run.len() - usize::from(run.len() % 4 == 1))?).ok())
        .filter_map(|bytes| String::from_utf8(bytes).ok())
        .collect();
    if let Some(decoded) = percent_decoded(text) {
        inner.push(decoded);
    }
    inner
}

fn percent_decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut changed = false;
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            decoded.push(byte);
            changed = true;
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    changed.then(|| String::from_utf8_lossy(&decoded).into_owned())
}

/// The contents of a DER SEQUENCE, as far as they are there.
fn sequence(der: &[u8]) -> Option<&[u8]> {
    let (tag, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    if *tag != 0x30 {
        return None;
    }
    match length {
        0..=0x7f => Some(rest),
        0x81 => rest.get(1..),
        0x82 => rest.get(2..),
        0x83 => rest.get(3..),
        _ => None,
    }
}

/// PKCS#8 (RFC 5958), encrypted PKCS#8, PKCS#1 (RFC 8017), SEC1 (RFC 5915), PKCS#12 (RFC 7292), OpenSSH.
fn is_private_key(head: &[u8]) -> bool {
    const PKCS_5_AND_12: [&[u8]; 2] = [b"\x2a\x86\x48\x86\xf7\x0d\x01\x05", b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c"];
    if head.starts_with(b"openssh-key-v1\0") {
        return true;
    }
    let Some(body) = sequence(head) else { return false };
    if let Some(algorithm) = sequence(body) {
        let oid = algorithm.strip_prefix(b"\x06").and_then(|rest| rest.get(1..));
        return oid.is_some_and(|oid| PKCS_5_AND_12.iter().any(|prefix| oid.starts_with(prefix)));
    }
    match body {
        // version 0 or 1, then an AlgorithmIdentifier
        [0x02, 0x01, 0x00 | 0x01, rest @ ..] if sequence(rest).is_some_and(|inner| inner.first() == Some(&0x06)) => {
            true
        }
        // version 0, then a modulus of at least 512 bits
        [0x02, 0x01, 0x00, 0x02, 0x40..=0x84, ..] => true,
        // version 1, then the octets of a scalar
        [0x02, 0x01, 0x01, 0x04, 0x14..=0x48, ..] => true,
        // version 3, then a ContentInfo of PKCS#7
        [0x02, 0x01, 0x03, rest @ ..] => {
            sequence(rest).is_some_and(|inner| inner.starts_with(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07"))
        }
        _ => false,
    }
}
