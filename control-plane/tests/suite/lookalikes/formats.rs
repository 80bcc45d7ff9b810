//! The frozen corpus, made into credentials: the same ones in each run, and none of them anybody's.

use super::made;
use super::noise::Noise;
use serde::Deserialize;
use std::collections::BTreeMap;

const FILE: &str = include_str!("../../corpus/formats.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Corpus {
    sources: BTreeMap<String, String>,
    alphabets: BTreeMap<String, String>,
    formats: BTreeMap<String, Vec<Format>>,
    named: BTreeMap<String, Vec<Format>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Format {
    name: String,
    shape: Option<String>,
    named: Option<String>,
    made: Option<String>,
}

/// A made-up credential of a documented format.
pub(super) struct Credential {
    /// The format's name in the corpus.
    pub(super) name: String,
    /// Known to its scanner by the name beside it, not by a form of its own.
    pub(super) by_name: bool,
    /// The credential alone, without the name beside it.
    pub(super) alone: Vec<u8>,
    /// As it stands in a file: with its name, if it has one. Binary ones are bytes.
    pub(super) bytes: Vec<u8>,
}

impl Credential {
    /// As text: base64, if it is binary.
    pub(super) fn text(&self) -> String {
        use base64::Engine as _;
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => base64::engine::general_purpose::STANDARD.encode(&self.bytes),
        }
    }
}

/// Every format, once.
pub(super) fn credentials() -> Vec<Credential> {
    let corpus: Corpus = toml::from_str(FILE).unwrap();
    let groups = [(false, &corpus.formats), (true, &corpus.named)];
    let credentials = groups.into_iter().flat_map(|(by_name, group)| {
        let formats = group.iter().flat_map(|(source, formats)| {
            assert!(corpus.sources.contains_key(source), "{source} is named among the sources");
            formats
        });
        formats.map(move |format| (by_name, format))
    });
    credentials.map(|(by_name, format)| format.credential(by_name, &corpus.alphabets)).collect()
}

impl Format {
    fn credential(&self, by_name: bool, alphabets: &BTreeMap<String, String>) -> Credential {
        let alone = match (&self.shape, &self.made) {
            (Some(shape), None) => fill(shape, &mut Noise::of(&self.name), alphabets).into_bytes(),
            (None, Some(made)) => made::make(made),
            _ => panic!("{} has either a shape or is made", self.name),
        };
        let bytes = match &self.named {
            Some(name) => [name.as_bytes(), b" = \"", &alone, b"\""].concat(),
            None => alone.clone(),
        };
        Credential { name: self.name.clone(), by_name, alone, bytes }
    }
}

/// Puts noise in the place of each `{alphabet:length}`.
fn fill(shape: &str, noise: &mut Noise, alphabets: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    let mut rest = shape;
    while let Some((before, after)) = rest.split_once('{') {
        let (hole, after) = after.split_once('}').unwrap();
        let (alphabet, length) = hole.split_once(':').unwrap();
        text.push_str(before);
        text.push_str(&noise.text(&alphabets[alphabet], length.parse().unwrap()));
        rest = after;
    }
    text + rest
}

#[test]
fn the_corpus_is_the_same_in_each_run_and_no_two_formats_are_one() {
    let shaped = |credential: &&Credential| Format::is_shaped(&credential.name);
    let (once, again) = (credentials(), credentials());
    let names: std::collections::BTreeSet<_> = once.iter().map(|credential| &credential.name).collect();
    assert_eq!(names.len(), once.len());
    assert!(once.len() > 200);
    for (one, other) in once.iter().filter(shaped).zip(again.iter().filter(shaped)) {
        assert_eq!(one.bytes, other.bytes, "{}", one.name);
    }
}

impl Format {
    fn is_shaped(name: &str) -> bool {
        let corpus: Corpus = toml::from_str(FILE).unwrap();
        let mut formats = corpus.formats.values().chain(corpus.named.values()).flatten();
        formats.any(|format| format.name == name && format.shape.is_some())
    }
}
