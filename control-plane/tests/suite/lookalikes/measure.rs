//! How much the detector sees, and that it refuses nothing legitimate. Run with `--nocapture` to see the rates.

use super::encodings::ENCODINGS;
use super::{formats, legitimate};
use bouncer_control_plane::plaintext;
use std::collections::BTreeSet;
use std::path::Path;

/// Every pair of format and encoding that is missed, one a line.
const MISSES: &str = "tests/corpus/misses.txt";
/// Set, the list is written anew instead of compared.
const WRITE: &str = "BOUNCER_WRITE_MISSES";

fn percent(part: usize, whole: usize) -> String {
    format!("{part} of {whole} ({:.1} %)", 100.0 * part as f64 / whole as f64)
}

fn missed() -> (BTreeSet<String>, usize, String) {
    let credentials = formats::credentials();
    let mut missed = BTreeSet::new();
    let mut report = String::new();
    for (encoding, body_of) in ENCODINGS {
        let mut here = [(0, 0); 2];
        for credential in &credentials {
            let refused = plaintext::find_in(&body_of(credential)).is_some();
            let (seen, all) = &mut here[usize::from(credential.by_name)];
            *seen += usize::from(refused);
            *all += 1;
            if !refused {
                missed.insert(format!("{}: {encoding}", credential.name));
            }
        }
        let [own, named] = here.map(|(seen, all)| percent(seen, all));
        report.push_str(&format!("{encoding:42}{own:22}{named}\n"));
    }
    (missed, credentials.len() * ENCODINGS.len(), report)
}

#[test]
fn look_alikes_are_refused_but_for_those_listed() {
    let (missed, all, report) = missed();
    println!("{:42}{:22}known by its name", "encoding", "form of its own");
    println!("{report}refused {}", percent(all - missed.len(), all));
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
}

#[test]
fn nothing_legitimate_is_refused() {
    let texts = legitimate::texts();
    let bodies = legitimate::bodies();
    let refused: Vec<_> = texts.iter().filter_map(|(what, text)| Some((what, plaintext::find(text)?, text))).collect();
    let bodies_refused: Vec<_> =
        bodies.iter().filter_map(|body| Some((plaintext::find_in(body)?, body.to_string()))).collect();
    println!("legitimate texts refused {}", percent(refused.len(), texts.len()));
    println!("legitimate bodies refused {}", percent(bodies_refused.len(), bodies.len()));
    for (what, kind, text) in refused.iter().take(10) {
        println!("{what} looks like {kind:?}: {}", &text[..text.len().min(120)]);
    }
    for (finding, body) in bodies_refused.iter().take(10) {
        println!("{finding:?} in {}", &body[..body.len().min(400)]);
    }
    assert!(refused.is_empty() && bodies_refused.is_empty());
}
