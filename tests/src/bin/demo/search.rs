//! The search for the key: everything that the product wrote, answered or holds in its sandbox, and the controls that show
//! that the same search finds what is there.
//!
//! Called by the promises, last of all. It never prints what it looks for.

use crate::operator::Operator;
use crate::parts::{Ground, Intercept};
use crate::screen::{Verdict, size};
use crate::vm_memory::{Constants, Memory};
use bouncer_tests::leak::{Hit, Needles};
use bouncer_tests::pki::Identity;
use bouncer_tests::{Fault, Result, fault::Doing as _, tools};
use http::Method;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What must be nowhere.
pub(crate) struct Secrets {
    /// The credential's private key.
    key: Needles,
    /// The keys of the other credentials, the private key that the control plane was offered in plaintext, and the
    /// client's bearer token.
    others: Vec<Needles>,
    /// 16 bytes of the key, for the control.
    piece: [u8; 16],
}

/// What came of one search.
pub(crate) struct Found {
    pub(crate) verdict: Verdict,
    pub(crate) evidence: Vec<String>,
}

struct Piece {
    name: String,
    bytes: Vec<u8>,
}

impl Secrets {
    /// The credential's key, other keys, and a bearer token.
    pub(crate) fn new<'a>(
        credential: &Identity,
        others: impl Iterator<Item = &'a Identity>,
        bearer: &str,
    ) -> Result<Self> {
        let mut others = others.map(needles).collect::<Result<Vec<_>>>()?;
        others.push(Needles::of(bearer.as_bytes())?);
        let scalar = credential.private_scalar()?;
        let piece = *scalar.first_chunk().ok_or_else(|| Fault::new("a key of less than 16 bytes"))?;
        Ok(Self { key: needles(credential)?, others, piece })
    }

    fn search(&self, piece: &Piece) -> Vec<Hit> {
        let all = std::iter::once(&self.key).chain(&self.others);
        all.flat_map(|needles| needles.search(&piece.bytes, &piece.name)).collect()
    }
}

/// A P-256 key in every shape that it may take: raw in both byte orders, hex, base64 at every offset, and as its PEM has
/// it, whose line ends cut through it. Only the private number counts: the rest of the DER is the same in every key, or
/// public.
fn needles(identity: &Identity) -> Result<Needles> {
    const LINE: usize = 64;
    let scalar = identity.private_scalar()?;
    let mut reversed = scalar;
    reversed.reverse();
    let before = identity.key_der.windows(scalar.len()).position(|window| window == scalar);
    let before = before.ok_or_else(|| Fault::new("a key without its number"))?;
    let lines: String = identity.key_pem.lines().filter(|line| !line.starts_with("-----")).collect();
    // Whole characters of the number alone.
    let secret = lines.get((before * 4).div_ceil(3)..(before + scalar.len()) * 4 / 3).unwrap_or_default();
    let first_line = LINE - (before * 4).div_ceil(3) % LINE;
    let (head, tail) = secret.split_at_checked(first_line).unwrap_or((secret, ""));
    Ok(Needles::of(&scalar)?
        .and(&reversed, "raw, reversed")
        .and(format!("{head}\n{tail}").as_bytes(), "PEM")
        .and(format!("{head}\\n{tail}").as_bytes(), "PEM in JSON"))
}

/// Asks for everything that the product answers, so that it is among what is searched.
pub(crate) async fn ask_everything(operator: &Operator, ground: &Ground, intercept: &Intercept) -> Result<()> {
    for path in [
        "/v1/crypto/settings",
        "/v1/crypto/envelope-secrets",
        "/v1/feature-flags",
        "/v1/bouncers",
        "/v1/protected-resources",
        "/v1/bootstrap/status",
        "/v1/policy-bridge/health",
        "/openapi.json",
        "/metrics",
        "/readyz",
    ] {
        operator.quietly(Method::GET, path, &[]).await?;
    }
    let secrets = operator.must(Method::GET, "/v1/crypto/envelope-secrets", &[]).await?;
    for id in secrets["items"].as_array().into_iter().flatten().filter_map(|item| item["id"].as_str()) {
        operator.quietly(Method::GET, &format!("/v1/crypto/envelope-secrets/{id}"), &[]).await?;
        operator.quietly(Method::GET, &format!("/v1/crypto/envelope-secrets/{id}/history"), &[]).await?;
    }
    for event in ground.control_plane.api()?.audit("").await? {
        operator.keep("GET /v1/audit/events".to_owned(), event.to_string());
    }
    for path in ["/metrics", "/readyz", "/healthz"] {
        operator.keep(format!("resolver {path}"), intercept.resolver.get(path).await?.1);
    }
    operator.keep("Envoy /stats".to_owned(), intercept.envoy.admin("/stats").await?);
    Ok(())
}

/// Searches every file in the demo's folder and every answer.
pub(crate) fn written(secrets: &Secrets, operator: &Operator, ground: &Ground) -> Result<Found> {
    let root = ground.scratch.path();
    let database = ground.control_plane.setup().database.clone();
    let files = read_all(root)?;
    let of = |kind: fn(&Path) -> bool| -> Vec<&Piece> {
        files.iter().filter(|(path, _)| kind(path.strip_prefix(root).unwrap_or(path))).map(|(_, piece)| piece).collect()
    };
    let is_log = |path: &Path| path.extension().is_some_and(|ending| ending == "log");
    let (said, audit): (Vec<Piece>, Vec<Piece>) = {
        let said = operator.said();
        let (audit, said): (Vec<_>, Vec<_>) = said.iter().partition(|said| said.to.contains("/v1/audit/events"));
        let piece =
            |said: &crate::operator::Said| Piece { name: said.to.clone(), bytes: said.text.clone().into_bytes() };
        (said.into_iter().map(piece).collect(), audit.into_iter().map(piece).collect())
    };
    let mut found = Found { verdict: Verdict::Held, evidence: vec![] };
    found.place(
        "control plane's database, with its WAL",
        "files",
        &of(|path| path.starts_with("control-plane")),
        secrets,
    );
    found.place("API and bouncerctl answers", "answers", &said.iter().collect::<Vec<_>>(), secrets);
    found.place("audit events", "events", &audit.iter().collect::<Vec<_>>(), secrets);
    found.place("resolver's snapshot, grants, audit spool", "files", &of(|path| path.starts_with("resolver")), secrets);
    found.place("logs of all processes", "files", &of(is_log), secrets);
    let rest = |path: &Path| {
        let own = path.starts_with("control-plane") || path.starts_with("resolver");
        !own && path.extension().is_none_or(|ending| ending != "log")
    };
    found.place("every other file of the demo", "files", &of(rest), secrets);
    if !files.iter().any(|(path, piece)| *path == database && !piece.bytes.is_empty()) {
        found.broken("the control plane's database was not among the files".to_owned());
    }
    found.planted_in_database(secrets, &database)?;
    Ok(found)
}

/// Searches the filter's memory in Envoy, and the control plane's.
pub(crate) async fn in_memory(
    secrets: &Secrets,
    ground: &Ground,
    intercept: &Intercept,
    planted: &str,
) -> Result<Found> {
    let mut found = Found { verdict: Verdict::Held, evidence: vec![] };
    let constants = Constants::of(&tools::filter()?)?;
    let envoy = match Memory::of(intercept.envoy.process().pid()) {
        Ok(memory) => memory,
        Err(fault) => {
            found.verdict = Verdict::NotChecked;
            found.evidence.push(format!("not checked: this user may not read Envoy's memory ({})", fault.what()));
            return Ok(found);
        }
    };
    let vms = intercept.envoy.stat("wasm.envoy.wasm.runtime.v8.active").await?;
    let memories = envoy.linear_memories(&constants);
    let planted_at = Needles::of(planted.as_bytes())?;
    let with_plant = memories.iter().filter(|memory| !planted_at.search(&memory.bytes, "").is_empty()).count();
    let pieces: Vec<Piece> = memories
        .into_iter()
        .map(|memory| Piece { name: format!("Envoy's wasm memory at {:#x}", memory.start), bytes: memory.bytes })
        .collect();
    found.place("Envoy's live wasm memory", "VMs", &pieces.iter().collect::<Vec<_>>(), secrets);
    if pieces.len() as u64 != vms || pieces.is_empty() {
        found.broken(format!("Envoy says that it runs {vms} wasm VMs, and {} memories were found", pieces.len()));
    }
    let text = "control: a text that a client sent, which the filter reads, is found there";
    found.control(with_plant > 0, &format!("{text}, in {with_plant} of {} VMs", pieces.len()));
    let mut holds = false;
    envoy.walk(|stretch| {
        holds = !secrets.key.search(&stretch.bytes, "").is_empty();
        holds
    });
    found.control(holds, "control: the key is found outside the sandbox, in Envoy's own memory, which signs with it");
    match secrets.key.search_memory(ground.control_plane.process().pid()) {
        Ok(hits) => found.hits("control plane's process memory: ", "", &hits),
        Err(fault) => found.evidence.push(format!("control plane's process memory: not checked ({})", fault.what())),
    }
    Ok(found)
}

impl Found {
    fn place(&mut self, place: &str, unit: &str, pieces: &[&Piece], secrets: &Secrets) {
        let bytes = pieces.iter().map(|piece| piece.bytes.len()).sum();
        let hits: Vec<Hit> = pieces.iter().flat_map(|piece| secrets.search(piece)).collect();
        let searched = format!("{place:<42} {:>4} {unit:<8} {:>9}   ", pieces.len(), size(bytes));
        if bytes == 0 {
            return self.broken(format!("{searched}there was nothing to search"));
        }
        self.hits(&searched, "", &hits);
    }

    fn hits(&mut self, before: &str, after: &str, hits: &[Hit]) {
        match hits.first() {
            None => self.evidence.push(format!("{before}nothing{after}")),
            Some(hit) => self.broken(format!("{before}FOUND {} time(s), first: {hit}{after}", hits.len())),
        }
    }

    fn control(&mut self, good: bool, text: &str) {
        if good { self.evidence.push(text.to_owned()) } else { self.broken(format!("{text}: NOT FOUND")) }
    }

    fn broken(&mut self, text: String) {
        self.verdict = Verdict::Broken;
        self.evidence.push(text);
    }

    /// The control: 16 bytes of the key in the middle of a copy of the database.
    fn planted_in_database(&mut self, secrets: &Secrets, database: &Path) -> Result<()> {
        let mut bytes = std::fs::read(database).doing("the database")?;
        let middle = bytes.len() / 2;
        bytes.splice(middle..middle, secrets.piece);
        let copy = Piece { name: "a copy of the database".to_owned(), bytes };
        let hits = secrets.search(&copy);
        self.control(hits.len() == 1, "control: 16 bytes of the key, planted in a copy of the database, are found");
        Ok(())
    }
}

/// Every file below a folder. What ends while it is looked at was a temporary file of SQLite's.
fn read_all(folder: &Path) -> Result<Vec<(PathBuf, Piece)>> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).doing(folder.display())? {
        let path = entry?.path();
        let kind = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).doing(path.display()),
        };
        if kind.is_dir() {
            found.extend(read_all(&path)?);
        } else if kind.is_file() {
            match std::fs::read(&path) {
                Ok(bytes) => found.push((path.clone(), Piece { name: path.display().to_string(), bytes })),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).doing(path.display()),
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bouncer_tests::pki::{Ca, Leaf};

    #[test]
    fn a_key_is_found_in_every_shape_and_its_certificate_in_none() {
        let ca = Ca::new("test").unwrap();
        let (identity, other) = (ca.issue(&Leaf::new("a")).unwrap(), ca.issue(&Leaf::new("b")).unwrap());
        let needles = needles(&identity).unwrap();
        let finds = |bytes: &[u8]| !needles.search(bytes, "").is_empty();
        let pem = &identity.key_pem;
        let cut = pem.find("Qg").unwrap_or(60);
        for shape in [
            identity.key_der.clone(),
            pem.clone().into_bytes(),
            pem.replace('\n', "\\n").into_bytes(),
            pem.replace('\n', "").into_bytes(),
            pem.as_bytes()[cut..cut + 40].to_vec(),
        ] {
            assert!(finds(&shape), "{}", String::from_utf8_lossy(&shape));
        }
        assert!(!finds(identity.cert_pem.as_bytes()) && !finds(&identity.cert));
        assert!(!finds(other.key_pem.as_bytes()) && !finds(&other.key_der));
    }
}
