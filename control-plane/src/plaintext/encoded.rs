//! What hides behind an encoding: base64, hex, percent signs, backslashes, line breaks.

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

/// Shorter runs hold nothing worth the name.
const SHORTEST: usize = 20;
/// Shorter stretches of characters turn up in noise.
const SHORTEST_READABLE: usize = 16;

/// Texts that `text` is another way of writing.
pub(super) fn rewritten(text: &str) -> impl Iterator<Item = String> {
    let lines = || text.contains(['\n', '\r']).then(|| text.split(['\n', '\r']).map(str::trim).collect());
    [percent_decoded(text), unescaped(text), lines()].into_iter().flatten()
}

/// Bytes that stretches of `text` may stand for. Where an encoded stretch begins is anybody's guess, since a word or a
/// path before it is of the same alphabet: so each stretch is read from each of the places that make a difference.
pub(super) fn decoded(text: &str) -> impl Iterator<Item = Vec<u8>> {
    let base64 = |run: String| (0..4).filter_map(move |from| base64(run.get(from..)?));
    let hex = |run: String| (0..2).filter_map(move |from| hex(run.get(from..)?));
    let spaced = text.contains(char::is_whitespace);
    let words = spaced.then(|| runs(text, base64_digit, |_| false)).into_iter().flatten();
    let joined = runs(text, base64_digit, char::is_whitespace);
    let hexadecimal = runs(text, |c| c.is_ascii_hexdigit().then_some(c), |c| c.is_whitespace() || c == ':');
    joined.into_iter().chain(words).flat_map(base64).chain(hexadecimal.into_iter().flat_map(hex))
}

/// Stretches of ASCII within `bytes`, also as UTF-16 writes it.
pub(super) fn readable(bytes: &[u8]) -> Vec<String> {
    let narrow: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
    let shown = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    let stretches = narrow.split(|byte| !shown(byte)).filter(|stretch| stretch.len() >= SHORTEST_READABLE);
    stretches.map(|stretch| stretch.iter().copied().map(char::from).collect()).collect()
}

/// Runs of an alphabet, without the characters in them that are to be skipped.
fn runs(text: &str, digit: impl Fn(char) -> Option<char>, skipped: impl Fn(char) -> bool) -> Vec<String> {
    let mut runs = vec![String::new()];
    for character in text.chars() {
        match (digit(character), runs.last_mut()) {
            (Some(digit), Some(run)) => run.push(digit),
            (None, Some(run)) if !run.is_empty() && !skipped(character) => runs.push(String::new()),
            _ => {}
        }
    }
    runs.retain(|run| run.len() >= SHORTEST);
    runs
}

/// Of the standard or the URL-safe alphabet, in the standard one.
fn base64_digit(character: char) -> Option<char> {
    match character {
        'A'..='Z' | 'a'..='z' | '0'..='9' | '+' | '/' => Some(character),
        '-' => Some('+'),
        '_' => Some('/'),
        _ => None,
    }
}

fn base64(run: &str) -> Option<Vec<u8>> {
    // One character alone is no end.
    FORGIVING.decode(&run[..run.len() - usize::from(run.len() % 4 == 1)]).ok()
}

fn hex(run: &str) -> Option<Vec<u8>> {
    let pairs = (0..run.len() / 2).map(|at| u8::from_str_radix(&run[2 * at..2 * at + 2], 16));
    pairs.collect::<Result<_, _>>().ok()
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

/// Without the backslashes of a quoted text.
fn unescaped(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let mut characters = after.chars();
        match characters.next() {
            Some('n' | 'r') => plain.push('\n'),
            Some('t') => plain.push('\t'),
            Some('u') => {
                let code = after.get(1..5).and_then(|code| u32::from_str_radix(code, 16).ok()).and_then(char::from_u32);
                plain.push(code.unwrap_or('u'));
                characters = after[if code.is_some() { 5 } else { 1 }..].chars();
            }
            Some(other) => plain.push(other),
            None => {}
        }
        rest = characters.as_str();
    }
    plain.push_str(rest);
    text.contains('\\').then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backslashes_are_taken_out_and_half_of_one_is_no_panic() {
        let plain = |text| unescaped(text).unwrap();
        assert_eq!(plain(r#"a\nb\t\"c\"\u002dd\/"#), "a\nb\t\"c\"-d/");
        assert_eq!(plain(r"\u00ä\"), "u00ä");
        assert_eq!(plain(r"\ud800x"), "ud800x");
        assert_eq!(unescaped("plain"), None);
    }

    #[test]
    fn a_run_is_read_wherever_it_begins() {
        let inside =
            |text: &str| decoded(text).any(|bytes| readable(&bytes).iter().any(|found| found.contains("credential")));
        for before in ["", "a", "ab", "abc/", "word "] {
            assert!(inside(&format!("{before}YSBjcmVkZW50aWFsIG9mIGl0cyBvd24=")), "{before}");
        }
        assert!(inside("61:20:63:72:65:64:65:6e:74:69:61:6c:20:6f:66:20:69:74:73"));
        assert!(!inside("nothing of this kind stands in here"));
    }
}
