//! Looks for pieces of a secret where none may be: files, texts, and the memory of processes.
//!
//! A search that finds nothing proves something only beside one that finds a planted piece: every use has that control.

use crate::{Fault, Result, fault::Doing as _};
use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

const WINDOW: usize = 16;
const CHUNK: usize = 1 << 20;

/// What is looked for: a secret in the shapes it may take, by every run of 16 bytes of each.
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

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} in {}", self.shape, self.offset, self.place)
    }
}

impl Needles {
    /// A secret of at least 16 bytes, as it is, in hex and in base64.
    ///
    /// # Errors
    /// If it is shorter.
    pub fn of(secret: &[u8]) -> Result<Self> {
        if secret.len() < WINDOW {
            return Err(Fault::new("a needle of less than 16 bytes finds chance"));
        }
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut needles = Self { windows: HashMap::new(), first_two: Box::new([false; 1 << 16]) };
        needles.add(secret, "raw");
        needles.add(hex.to_uppercase().as_bytes(), "HEX");
        needles.add(hex.as_bytes(), "hex");
        // Base64 of the secret within something longer depends on where it begins, modulo three; what its first and
        // last character share with their neighbours is left out.
        for skipped in 0..3 {
            let whole = &secret[skipped..skipped + (secret.len() - skipped) / 3 * 3];
            needles.add(STANDARD.encode(whole).as_bytes(), "base64");
            needles.add(URL_SAFE_NO_PAD.encode(whole).as_bytes(), "base64url");
        }
        Ok(needles)
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

    /// Searches a file, or every file below a folder. What is no file (sockets) is passed over.
    ///
    /// # Errors
    /// If something can't be read: not searched is not clean.
    pub fn search_files(&self, path: &Path) -> Result<Vec<Hit>> {
        let mut hits = vec![];
        for file in files(path)? {
            let bytes = std::fs::read(&file).doing(file.display())?;
            hits.extend(self.search(&bytes, &file.display().to_string()));
        }
        Ok(hits)
    }

    /// Searches the memory of a process: everything that it may write, and what it maps without a file.
    ///
    /// # Errors
    /// If its memory may not be read.
    pub fn search_memory(&self, pid: u32) -> Result<Vec<Hit>> {
        let memory = Memory::of(pid)?;
        let mut hits = vec![];
        for region in &memory.regions {
            hits.extend(self.search(&memory.read(region), &format!("process {pid} {}", region.name)));
        }
        Ok(hits)
    }

    /// Searches those regions of a process that hold a marker, such as the live memory of a wasm VM.
    ///
    /// # Errors
    /// If its memory may not be read, or nothing holds the marker.
    pub fn search_memory_with(&self, pid: u32, marker: &[u8]) -> Result<Vec<Hit>> {
        let memory = Memory::of(pid)?;
        let mut hits = vec![];
        let mut searched = 0;
        for region in &memory.regions {
            let bytes = memory.read(region);
            if bytes.windows(marker.len()).any(|window| window == marker) {
                searched += 1;
                hits.extend(self.search(&bytes, &format!("process {pid} {}", region.name)));
            }
        }
        if searched == 0 { Err(Fault::new("no memory of the process holds the marker")) } else { Ok(hits) }
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let kind = std::fs::symlink_metadata(path).doing(path.display())?.file_type();
    if kind.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = vec![];
    if kind.is_dir() {
        for entry in std::fs::read_dir(path)? {
            found.extend(files(&entry?.path())?);
        }
    }
    Ok(found)
}

struct Memory {
    file: std::fs::File,
    regions: Vec<Region>,
}

struct Region {
    start: u64,
    end: u64,
    name: String,
}

impl Memory {
    fn of(pid: u32) -> Result<Self> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).doing("the process's mappings")?;
        let file = std::fs::File::open(format!("/proc/{pid}/mem")).doing("the process's memory")?;
        let regions = maps.lines().filter_map(Region::parse).collect();
        let memory = Self { file, regions };
        // Opening succeeds where reading is forbidden, and a search of nothing finds nothing.
        let readable = memory.regions.iter().any(|region| !memory.read(region).is_empty());
        if readable { Ok(memory) } else { Err(Fault::new("the process's memory may not be read")) }
    }

    /// What of the region is there; pages that were never touched are zero, and those that can't be read are left out.
    fn read(&self, region: &Region) -> Vec<u8> {
        let mut bytes = vec![];
        let mut file = &self.file;
        let mut at = region.start;
        while at < region.end {
            let wanted = usize::try_from(region.end - at).unwrap_or(CHUNK).min(CHUNK);
            let mut chunk = vec![0; wanted];
            let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.read(&mut chunk)).unwrap_or(0);
            // A wasm memory reserves gigabytes and uses the first of them.
            if read == 0 || bytes.len() > 1 << 29 {
                break;
            }
            bytes.extend_from_slice(&chunk[..read]);
            at += read as u64;
        }
        bytes
    }
}

impl Region {
    /// A line of `/proc/PID/maps`, unless it is read-only code and data of a file.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next()?, fields.next()?);
        let name = fields.nth(3).unwrap_or("[anonymous]");
        let (start, end) = range.split_once('-')?;
        let readable = rights.starts_with('r') && !matches!(name, "[vvar]" | "[vsyscall]" | "[vvar_vclock]");
        let of_interest = rights.contains('w') || name.starts_with('[');
        (readable && of_interest).then_some(())?;
        Some(Self {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            name: name.to_owned(),
        })
    }
}
