//! Looks for pieces of a secret where none may be: files, texts, and the memory of processes.
//!
//! A search that finds nothing proves something only beside one that finds a planted piece: every use has that control.

use crate::{Fault, Result, fault::Doing as _};
use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const WINDOW: usize = 16;

/// What is looked for: secrets in the shapes they may take, by every run of 16 bytes of each.
pub struct Needles {
    // By the first eight bytes of a window, all windows that begin so.
    windows: HashMap<[u8; 8], Vec<Window>>,
    // Whether any window begins with these two bytes: rules out nearly every place at once.
    first_two: Box<[bool; 1 << 16]>,
}

struct Window {
    bytes: [u8; WINDOW],
    shape: &'static str,
}

/// A piece that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The file, or the process and its mapping.
    pub place: String,
    /// Where in it.
    pub offset: u64,
    /// In which shape: `raw`, `base64`, `hex` and so on. Never the piece itself.
    pub shape: &'static str,
}

/// What a search of the resolver's memory found.
#[derive(Debug, Default)]
pub struct Found {
    /// In the arena, where secrets belong.
    pub in_arena: Vec<Hit>,
    /// Anywhere else.
    pub elsewhere: Vec<Hit>,
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} in {}", self.shape, self.offset, self.place)
    }
}

impl Default for Needles {
    /// None yet.
    fn default() -> Self {
        Self { windows: HashMap::new(), first_two: Box::new([false; 1 << 16]) }
    }
}

impl Needles {
    /// A secret of at least 16 bytes, as it is, backwards, in hex and in base64, which the lines of a PEM text are.
    ///
    /// # Errors
    /// If it is shorter.
    pub fn of(secret: &[u8]) -> Result<Self> {
        Self::default().with(secret)
    }

    /// Another secret beside those before, in the same shapes.
    ///
    /// # Errors
    /// If it is shorter than 16 bytes.
    pub fn with(mut self, secret: &[u8]) -> Result<Self> {
        let needles = &mut self;
        if secret.len() < WINDOW {
            return Err(Fault::new("a needle of less than 16 bytes finds chance"));
        }
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        needles.add(secret, "raw");
        // As a big number lies in the memory of a cryptographic library.
        needles.add(&secret.iter().rev().copied().collect::<Vec<_>>(), "little-endian");
        needles.add(hex.to_uppercase().as_bytes(), "HEX");
        needles.add(hex.as_bytes(), "hex");
        // Base64 of the secret within something longer depends on where it begins, modulo three; what its first and
        // last character share with their neighbours is left out.
        for skipped in 0..3 {
            let whole = &secret[skipped..skipped + (secret.len() - skipped) / 3 * 3];
            let text = STANDARD.encode(whole);
            needles.add(text.as_bytes(), "base64");
            needles.add(URL_SAFE_NO_PAD.encode(whole).as_bytes(), "base64url");
            // As KMS answers with a PEM text. Its lines break the text into pieces; every window is within one.
            for skipped in 0..3 {
                let whole = &text.as_bytes()[skipped..skipped + (text.len() - skipped) / 3 * 3];
                needles.add(STANDARD.encode(whole).as_bytes(), "base64 of base64");
            }
        }
        Ok(self)
    }

    /// Another secret beside it, as it is: such as the lines of a PEM text.
    #[must_use]
    pub fn and(mut self, secret: &[u8], shape: &'static str) -> Self {
        self.add(secret, shape);
        self
    }

    fn add(&mut self, text: &[u8], shape: &'static str) {
        for window in text.windows(WINDOW) {
            let Ok(bytes) = <[u8; WINDOW]>::try_from(window) else { continue };
            // A run of one byte is everywhere.
            if bytes.iter().collect::<HashSet<_>>().len() < 4 {
                continue;
            }
            let mut start = [0; 8];
            start.copy_from_slice(&bytes[..8]);
            self.first_two[usize::from(bytes[0]) << 8 | usize::from(bytes[1])] = true;
            self.windows.entry(start).or_default().push(Window { bytes, shape });
        }
    }

    /// Searches bytes.
    #[must_use]
    pub fn search(&self, bytes: &[u8], place: &str) -> Vec<Hit> {
        let mut hits: Vec<Hit> = vec![];
        // Where the last run that was found ends: one hit for a run, not one for each of its windows.
        let mut run_end = None;
        for at in 0..bytes.len().saturating_sub(WINDOW - 1) {
            if !self.first_two[usize::from(bytes[at]) << 8 | usize::from(bytes[at + 1])] {
                continue;
            }
            let here = &bytes[at..at + WINDOW];
            let Some(found) = here
                .first_chunk::<8>()
                .and_then(|start| self.windows.get(start))
                .and_then(|windows| windows.iter().find(|window| window.bytes == here))
            else {
                continue;
            };
            if run_end.is_none_or(|end| at > end) {
                hits.push(Hit { place: place.to_owned(), offset: at as u64, shape: found.shape });
            }
            run_end = Some(at + WINDOW);
        }
        hits
    }

    /// Searches a file, or every file below a folder. What is no file (sockets) is passed over. Where a file is gone
    /// before it was read, the whole folder is listed anew: it may have got another name.
    ///
    /// # Errors
    /// If something can't be read: not searched is not clean.
    pub fn search_files(&self, path: &Path) -> Result<Vec<Hit>> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match self.search_listed(path) {
                Err(error) if error.kind() == ErrorKind::NotFound && path.exists() && Instant::now() < deadline => {}
                searched => return Ok(searched?),
            }
        }
    }

    fn search_listed(&self, path: &Path) -> io::Result<Vec<Hit>> {
        let mut hits = vec![];
        for file in files(path)? {
            let bytes = std::fs::read(&file).map_err(|error| at(&file, &error))?;
            hits.extend(self.search(&bytes, &file.display().to_string()));
        }
        Ok(hits)
    }

    /// Searches the memory of a process: everything that it can read.
    ///
    /// # Errors
    /// If its memory may not be read.
    pub fn search_memory(&self, pid: u32) -> Result<Vec<Hit>> {
        let found = self.search_arena_and_rest(pid)?;
        Ok(found.in_arena.into_iter().chain(found.elsewhere).collect())
    }

    /// The same, told apart by the resolver's arena: the mappings that the kernel keeps out of core dumps and wipes in
    /// forked children (`dd` and `wf` in smaps, proc_pid_smaps(5)); nothing else asks for both.
    ///
    /// # Errors
    /// If its memory may not be read.
    pub fn search_arena_and_rest(&self, pid: u32) -> Result<Found> {
        let memory = Memory::of(pid)?;
        let mut found = Found::default();
        for region in &memory.regions {
            let hits = self.search_region(&memory, region);
            if region.is_arena { &mut found.in_arena } else { &mut found.elsewhere }.extend(hits);
        }
        Ok(found)
    }

    /// Searches those regions of a process that hold a marker.
    ///
    /// # Errors
    /// If its memory may not be read, or nothing holds the marker.
    pub fn search_memory_with(&self, pid: u32, marker: &[u8]) -> Result<Vec<Hit>> {
        let memory = Memory::of(pid)?;
        let holding: Vec<_> = memory.regions.iter().filter(|region| memory.holds(region, marker)).collect();
        if holding.is_empty() {
            return Err(Fault::new("no memory of the process holds the marker"));
        }
        Ok(holding.into_iter().flat_map(|region| self.search_region(&memory, region)).collect())
    }

    /// Searches the live memory of an Envoy's wasm VMs, of which at least one must hold the marker: proof that it was a
    /// VM of the filter that was searched.
    ///
    /// # Errors
    /// If its memory may not be read, or no VM holds the marker.
    pub fn search_wasm_memory(&self, pid: u32, marker: &[u8]) -> Result<Vec<Hit>> {
        let memory = Memory::of(pid)?;
        let vms: Vec<_> = memory.regions.iter().filter(|region| region.is_wasm).collect();
        if !vms.iter().any(|region| memory.holds(region, marker)) {
            return Err(Fault::new(format!("none of {} wasm memories holds the marker", vms.len())));
        }
        Ok(vms.into_iter().flat_map(|region| self.search_region(&memory, region)).collect())
    }

    fn search_region(&self, memory: &Memory, region: &Region) -> Vec<Hit> {
        let place = format!("process {} {}", memory.pid, region.name);
        let runs = memory.read(region).into_iter();
        runs.flat_map(|(start, bytes)| self.search(&bytes, &format!("{place} from {start:#x}"))).collect()
    }
}

/// Says what this machine did not let a test check, whether or not the test's output is shown: not checked is not passed.
pub fn not_checked(what: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "not checked: {what}");
}

fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let kind = std::fs::symlink_metadata(path).map_err(|error| at(path, &error))?.file_type();
    if kind.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = vec![];
    if kind.is_dir() {
        for entry in std::fs::read_dir(path).map_err(|error| at(path, &error))? {
            found.extend(files(&entry?.path())?);
        }
    }
    Ok(found)
}

/// The same error, with the file's name.
fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

struct Memory {
    pid: u32,
    memory: std::fs::File,
    pages: std::fs::File,
    regions: Vec<Region>,
}

struct Region {
    start: u64,
    end: u64,
    name: String,
    is_wasm: bool,
    is_arena: bool,
}

const PAGE: u64 = 4096;

impl Memory {
    fn of(pid: u32) -> Result<Self> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).doing("the process's mappings")?;
        let memory = std::fs::File::open(format!("/proc/{pid}/mem")).doing("the process's memory")?;
        let pages = std::fs::File::open(format!("/proc/{pid}/pagemap")).doing("the process's pages")?;
        let memory = Self { pid, memory, pages, regions: regions(&maps) };
        // Opening succeeds where reading is forbidden, and a search of nothing finds nothing.
        let readable = memory.regions.iter().any(|region| !memory.read(region).is_empty());
        if readable { Ok(memory) } else { Err(Fault::new("the process's memory may not be read")) }
    }

    /// The pages that the process has touched, as runs with their addresses. A VM reserves gigabytes and uses few.
    fn read(&self, region: &Region) -> Vec<(u64, Vec<u8>)> {
        let mut runs: Vec<(u64, Vec<u8>)> = vec![];
        let count = (region.end - region.start) / PAGE;
        let mut present = vec![0; usize::try_from(count * 8).unwrap_or_default()];
        if self.pages.read_exact_at(&mut present, region.start / PAGE * 8).is_err() {
            return runs;
        }
        for (index, entry) in present.as_chunks::<8>().0.iter().enumerate() {
            // In memory, or swapped out.
            if u64::from_ne_bytes(*entry) >> 62 == 0 {
                continue;
            }
            let at = region.start + index as u64 * PAGE;
            let mut page = [0; PAGE as usize];
            if self.memory.read_exact_at(&mut page, at).is_err() {
                continue;
            }
            match runs.last_mut() {
                Some((start, bytes)) if *start + bytes.len() as u64 == at => bytes.extend_from_slice(&page),
                _ => runs.push((at, page.to_vec())),
            }
        }
        runs
    }

    fn holds(&self, region: &Region, marker: &[u8]) -> bool {
        let found = |bytes: &[u8]| bytes.windows(marker.len()).any(|window| window == marker);
        self.read(region).iter().any(|(_, bytes)| found(bytes))
    }
}

/// The mappings of `/proc/PID/smaps` that can be read.
fn regions(smaps: &str) -> Vec<Region> {
    let mut regions: Vec<Region> = vec![];
    let mut readable = false;
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let has = |flag: &str| flags.split_whitespace().any(|known| known == flag);
            if let (true, Some(region)) = (readable, regions.last_mut()) {
                region.is_arena = has("dd") && has("wf");
            }
            continue;
        }
        let Some((start, end, rights, name)) = mapping(line) else { continue };
        // V8 puts a wasm memory in front of a guard that reaches as far as any 32-bit address could.
        let guard = rights.starts_with("---") && end - start > 4 << 30;
        if let (true, Some(before)) = (guard, regions.last_mut().filter(|before| before.end == start)) {
            before.is_wasm = true;
        }
        readable = rights.starts_with('r') && !matches!(name, "[vvar]" | "[vsyscall]" | "[vvar_vclock]");
        if readable {
            regions.push(Region { start, end, name: name.to_owned(), is_wasm: false, is_arena: false });
        }
    }
    regions
}

fn mapping(line: &str) -> Option<(u64, u64, &str, &str)> {
    let mut fields = line.split_whitespace();
    let (range, rights) = (fields.next()?, fields.next()?);
    let (start, end) = range.split_once('-')?;
    let address = |hex| u64::from_str_radix(hex, 16).ok();
    Some((address(start)?, address(end)?, rights, fields.nth(3).unwrap_or("[anonymous]")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::{Ca, Leaf};

    #[test]
    fn a_key_is_found_in_every_shape_and_another_key_is_not() {
        let ca = Ca::new("needles").unwrap();
        let [key, other] = [(); 2].map(|()| ca.issue(&Leaf::server("a.test").unwrap()).unwrap());
        let needles = Needles::of(&key.private_scalar().unwrap()).unwrap();
        let mut backwards = key.key_der.clone();
        backwards.reverse();
        let hex: String = key.key_der.iter().map(|byte| format!("{byte:02X}")).collect();
        let bundle = |of: &crate::pki::Identity| format!("{}{}", of.cert_pem, of.key_pem);
        for padding in 0..3 {
            let text = format!("{}{}", &"   "[..padding], bundle(&key));
            let shapes = [
                ("raw", key.key_der.clone()),
                ("little-endian", backwards.clone()),
                ("HEX", hex.clone().into_bytes()),
                ("hex", hex.to_lowercase().into_bytes()),
                ("base64", text.clone().into_bytes()),
                ("base64url", URL_SAFE_NO_PAD.encode(&key.key_der).into_bytes()),
                ("base64 of base64", STANDARD.encode(&text).into_bytes()),
            ];
            for (shape, bytes) in shapes {
                let found = needles.search(&bytes, "here");
                // Text without + and / is the same in both alphabets.
                assert!(
                    found.iter().any(|hit| shape.starts_with(hit.shape) || hit.shape == shape),
                    "{shape} {found:?}"
                );
            }
        }
        assert_eq!(needles.search(bundle(&other).as_bytes(), "elsewhere"), []);
        assert_eq!(needles.search(&other.key_der, "elsewhere"), []);
    }

    #[test]
    fn a_piece_of_sixteen_bytes_is_enough_and_found_in_ones_own_memory() {
        let secret: [u8; 32] = std::array::from_fn(|i| (i as u8).wrapping_mul(37) ^ 0x5a);
        let needles = Needles::of(&secret).unwrap();
        assert_eq!(needles.search(&secret[9..25], "here").len(), 1);
        assert_eq!(needles.search(&secret[9..24], "here"), []);
        assert!(!needles.search_memory(std::process::id()).unwrap().is_empty());
    }
}
