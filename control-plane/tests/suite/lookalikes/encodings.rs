//! The ways in which a credential comes into a body by accident, or by somebody who wants to get it past.

use super::formats::Credential;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// What an encoding is called, and the body that it makes of a credential.
type Encoding = (&'static str, fn(&Credential) -> Value);

pub(super) const ENCODINGS: [Encoding; 14] = [
    ("plain", |c| note(c.text())),
    ("in a sentence", |c| note(format!("For the upstream of payments use {} until it is rotated.", c.text()))),
    ("base64", |c| note(STANDARD.encode(&c.bytes))),
    ("base64 in a sentence", |c| note(format!("the value is {}, keep it", STANDARD.encode(&c.bytes)))),
    ("base64 in lines", |c| note(lines(&STANDARD.encode(&c.bytes), 64))),
    ("base64url", |c| note(URL_SAFE_NO_PAD.encode(&c.bytes))),
    ("base64 of UTF-16", |c| note(STANDARD.encode(utf16(&c.text())))),
    ("URL-encoded", |c| note(url_encoded(&c.text()))),
    ("JSON in base64", |c| {
        let value = json!({"kind": "header", "name": "authorization", "value": c.text()});
        note(STANDARD.encode(value.to_string()))
    }),
    ("in lines", |c| note(lines(&c.text(), 20))),
    ("hex", |c| note(c.bytes.iter().map(|byte| format!("{byte:02x}")).collect())),
    ("across two fields", |c| {
        let (first, second) = halves(&c.text());
        json!({"aad": first, "notes": second})
    }),
    ("across two fields, the later one first", |c| {
        let (first, second) = halves(&c.text());
        json!({"aad": second, "notes": first})
    }),
    ("base64 across two fields", |c| {
        let (first, second) = halves(&STANDARD.encode(&c.bytes));
        json!({"aad": first, "ciphertext_ref": second})
    }),
];

fn note(text: String) -> Value {
    json!({"provider": "kms_envelope", "notes": text})
}

fn lines(text: &str, width: usize) -> String {
    let characters: Vec<char> = text.chars().collect();
    characters.chunks(width).map(String::from_iter).collect::<Vec<_>>().join("\n")
}

/// As shells of Windows encode.
fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn url_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn halves(text: &str) -> (String, String) {
    let middle = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at)).unwrap();
    let (first, second) = text.split_at(middle);
    (first.to_owned(), second.to_owned())
}
