//! The live linear memory of the wasm filter, found in Envoy's process.
//!
//! Called by the search. A marker alone would not do: Envoy keeps the module's bytes on its own heap too, beside the key
//! that it may hold. So a mapping counts as the filter's memory where the module's own constants lie at the very address
//! that the module puts them at, from the mapping's start.

use bouncer_tests::{Fault, Result, fault::Doing as _};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// So many bytes of the constants are compared.
const MARKER: usize = 64;
const CHUNK: usize = 1 << 20;

/// A stretch of a process's memory.
pub(crate) struct Stretch {
    /// Where it starts.
    pub(crate) start: u64,
    /// What is in it.
    pub(crate) bytes: Vec<u8>,
}

/// A process whose memory may be read.
pub(crate) struct Memory {
    file: File,
    regions: Vec<(u64, u64)>,
}

impl Memory {
    /// Opens a process's memory: what it may write to, no files, no code.
    ///
    /// # Errors
    /// If this user may not read it.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).doing("the process's mappings")?;
        let file = File::open(format!("/proc/{pid}/mem")).doing("the process's memory")?;
        let memory = Self { file, regions: maps.lines().filter_map(writable).collect() };
        // Opening may succeed where reading is forbidden, and a search of nothing finds nothing.
        let readable =
            memory.regions.iter().any(|(start, _)| memory.file.read_at(&mut [0], *start).is_ok_and(|n| n > 0));
        if readable { Ok(memory) } else { Err(Fault::new("the process's memory may not be read")) }
    }

    /// The linear memories of the module.
    pub(crate) fn linear_memories(&self, constants: &Constants) -> Vec<Stretch> {
        let mut found = vec![];
        for (start, end) in &self.regions {
            let mut there = vec![0; constants.bytes.len()];
            let at = start + constants.offset;
            if at < *end && self.file.read_exact_at(&mut there, at).is_ok() && there == constants.bytes {
                found.push(Stretch { start: *start, bytes: self.read(*start, *end) });
            }
        }
        found
    }

    /// All of it, stretch by stretch, until `stop` says that it is enough.
    pub(crate) fn walk(&self, mut stop: impl FnMut(&Stretch) -> bool) {
        for (start, end) in &self.regions {
            let mut at = *start;
            while at < *end {
                // Overlapping, so that nothing is missed at a seam.
                let until = (at + CHUNK as u64 + 256).min(*end);
                if stop(&Stretch { start: at, bytes: self.read(at, until) }) {
                    return;
                }
                at += CHUNK as u64;
            }
        }
    }

    fn read(&self, start: u64, end: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(0)];
        let mut done = 0;
        while done < bytes.len() {
            match self.file.read_at(&mut bytes[done..], start + done as u64) {
                Ok(read) if read > 0 => done += read,
                _ => break,
            }
        }
        bytes.truncate(done);
        bytes
    }
}

/// A line of `/proc/PID/maps`, if it is memory that can be written and not run.
fn writable(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace();
    let (range, rights) = (fields.next()?, fields.next()?);
    let (start, end) = range.split_once('-')?;
    rights.starts_with("rw-").then_some(())?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

/// The beginning of a module's constants, and where in its memory they are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Constants {
    offset: u64,
    bytes: Vec<u8>,
}

impl Constants {
    /// Reads them from a module's file.
    ///
    /// # Errors
    /// If it is no wasm module with constants.
    pub(crate) fn of(module: &Path) -> Result<Self> {
        let bytes = std::fs::read(module).doing(module.display())?;
        Self::parse(&bytes).ok_or_else(|| Fault::new(format!("no constants in {}", module.display())))
    }

    /// The first active data segment that is long enough (WebAssembly core specification, binary format of modules).
    fn parse(module: &[u8]) -> Option<Self> {
        const DATA_SECTION: u8 = 11;
        const I32_CONST: u8 = 0x41;
        const END: u8 = 0x0b;
        let mut rest = Reader(module.strip_prefix(b"\0asm\x01\0\0\0")?);
        loop {
            let (id, size) = (rest.byte()?, rest.number()?);
            let mut section = Reader(rest.take(size)?);
            if id != DATA_SECTION {
                continue;
            }
            for _ in 0..section.number()? {
                // Kind 0: active, in memory 0, at a constant address. No other kind is made for this target.
                if section.number()? != 0 || section.byte()? != I32_CONST {
                    return None;
                }
                let offset = section.number()?;
                if section.byte()? != END {
                    return None;
                }
                let size = section.number()?;
                let bytes = section.take(size)?;
                if bytes.len() >= MARKER {
                    return Some(Self { offset: offset as u64, bytes: bytes[..MARKER].to_vec() });
                }
            }
            return None;
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// LEB128. Addresses are signed there; those of a module's data are far from the sign.
    fn number(&mut self) -> Option<usize> {
        let mut number = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_found_at_the_modules_own_address() {
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        module.extend([1, 1, 0]); // a section of another kind
        module.extend([11, 74, 1, 0, 0x41, 0x80, 0x80, 0xc0, 0x00, 0x0b, 64]);
        module.extend([7; 64]);
        module.push(9);
        assert_eq!(Constants::parse(&module), Some(Constants { offset: 1 << 20, bytes: vec![7; 64] }));
        assert_eq!(Constants::parse(&module[..40]), None);
        assert_eq!(Constants::parse(b"elf"), None);
    }

    #[test]
    fn own_memory_can_be_walked() {
        let secret: Vec<u8> = uuid::Uuid::new_v4().as_bytes().to_vec();
        let mut found = false;
        Memory::of(std::process::id()).unwrap().walk(|stretch| {
            found = stretch.bytes.windows(secret.len()).any(|window| window == secret);
            found
        });
        assert!(found);
    }

    #[test]
    fn memory_that_is_not_to_be_had_is_a_fault_and_no_empty_search() {
        // Ended, and not yet waited for: it still has a folder, and no memory.
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let status = format!("/proc/{}/stat", child.id());
        while !std::fs::read_to_string(&status).unwrap().contains(") Z ") {
            std::thread::yield_now();
        }
        assert!(Memory::of(child.id()).is_err());
        child.wait().unwrap();
    }
}
