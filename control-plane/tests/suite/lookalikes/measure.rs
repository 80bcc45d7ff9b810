//! How much the detector sees, and that it refuses nothing legitimate. `make lookalikes` prints the rates, and SECURITY.md is
//! held to them.

use super::encodings::ENCODINGS;
use super::{formats, legitimate};
use bouncer_control_plane::plaintext;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Every pair of format and encoding that is missed, one a line.
const MISSES: &str = "tests/corpus/misses.txt";
/// Set, the list is written anew instead of compared.
const WRITE: &str = "BOUNCER_WRITE_MISSES";

/// Where the rates are told, which are held to what is measured.
const TOLD: &str = include_str!("../../../../SECURITY.md");

/// Refused ones of so many.
#[derive(Clone, Copy, Default)]
struct Rate {
    refused: usize,
    all: usize,
}

impl Rate {
    fn percent(self) -> String {
        format!("{:.1} %", 100.0 * self.refused as f64 / self.all as f64)
    }
}

impl std::ops::AddAssign<bool> for Rate {
    fn add_assign(&mut self, refused: bool) {
        self.refused += usize::from(refused);
        self.all += 1;
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{} of {} ({})", self.refused, self.all, self.percent()))
    }
}

/// What is missed, and of each encoding how many are refused: of the formats that have a form of their own, and of those
/// that are known by the name beside them.
fn measured() -> (BTreeSet<String>, BTreeMap<&'static str, [Rate; 2]>) {
    let credentials = formats::credentials();
    let (mut missed, mut rates) = (BTreeSet::new(), BTreeMap::<_, [Rate; 2]>::new());
    for (encoding, body_of) in ENCODINGS {
        let here = rates.entry(encoding).or_default();
        for credential in &credentials {
            let refused = plaintext::find_in(&body_of(credential)).is_some();
            here[usize::from(credential.by_name)] += refused;
            if !refused {
                missed.insert(format!("{}: {encoding}", credential.name));
            }
        }
    }
    (missed, rates)
}

#[track_caller]
fn told(row: &str) {
    assert!(TOLD.contains(row), "SECURITY.md does not say what is measured: {row}");
}

#[test]
fn look_alikes_are_refused_but_for_those_listed() {
    let (missed, rates) = measured();
    println!("{:42}{:22}known by its name", "encoding", "form of its own");
    let mut together = Rate::default();
    for (encoding, [own, named]) in &rates {
        println!("{encoding:42}{own:22}{named}");
        together.refused += own.refused + named.refused;
        together.all += own.all + named.all;
    }
    println!("refused {together}");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(MISSES);
    let lines: String = missed.iter().map(|miss| format!("{miss}\n")).collect();
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&file, &lines).unwrap();
    }
    let listed: BTreeSet<String> = std::fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
    let new: Vec<_> = missed.difference(&listed).collect();
    assert!(new.is_empty(), "the detector no longer sees {new:#?}; mend it, or list them in {MISSES} knowingly");
    let mended: Vec<_> = listed.difference(&missed).collect();
    assert!(mended.is_empty(), "the detector sees these now, so take them out of {MISSES}: {mended:#?}");

    let [own, named] = rates["plain"];
    // Those that the table does not name are as the plain ones.
    for (encoding, [of_own, of_named]) in &rates {
        assert_eq!(of_own.refused == own.refused, *encoding != "in lines", "{encoding}: {of_own}");
        assert_eq!(
            of_named.refused == named.refused,
            !encoding.contains("across two fields"),
            "{encoding}: {of_named}"
        );
    }
    let (in_lines, cut) = (rates["in lines"][0].percent(), rates["across two fields"][1].percent());
    let (ways, [of_own, of_named]) = (rates.len(), [own, named].map(Rate::percent));
    told(&format!(
        "{} formats that have a form of their own, in each of the {ways} ways | {of_own} (in lines {in_lines}) |",
        own.all
    ));
    told(&format!(
        "{} formats that are known only by the name beside them (`api_key = …`) | {of_named}; cut across two fields {cut} |",
        named.all
    ));
    told(&format!("all {},{:03} together | {} |", together.all / 1_000, together.all % 1_000, together.percent()));
}

#[test]
fn nothing_legitimate_is_refused() {
    let texts = legitimate::texts();
    let bodies = legitimate::bodies();
    let refused: Vec<_> = texts.iter().filter_map(|(what, text)| Some((what, plaintext::find(text)?, text))).collect();
    let bodies_refused: Vec<_> =
        bodies.iter().filter_map(|body| Some((plaintext::find_in(body)?, body.to_string()))).collect();
    println!("legitimate texts refused {}", Rate { refused: refused.len(), all: texts.len() });
    println!("legitimate bodies refused {}", Rate { refused: bodies_refused.len(), all: bodies.len() });
    for (what, kind, text) in refused.iter().take(10) {
        println!("{what} looks like {kind:?}: {}", &text[..text.len().min(120)]);
    }
    for (finding, body) in bodies_refused.iter().take(10) {
        println!("{finding:?} in {}", &body[..body.len().min(400)]);
    }
    assert!(refused.is_empty() && bodies_refused.is_empty());
    let (thousands, rest) = (texts.len() / 1_000, texts.len() % 1_000);
    told(&format!("| {thousands},{rest:03} legitimate texts and {} bodies: ", bodies.len()));
}
