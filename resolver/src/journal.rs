//! A log of small records on disk, for state of which one piece changes at a time: a record costs a line, however many
//! there are. Never secret bytes.
//!
//! Each line is a digest and a JSON object. A line that a crash cut short is the last one, and is dropped; what is
//! damaged in the middle is refused whole. A killed process loses nothing; a machine that loses its power may lose what
//! [`Journal::append`] wrote since the last [`Journal::sync`].

use crate::state_file::StateError;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::marker::PhantomData;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

/// Hex digits of a line's digest, and the space behind them.
const DIGEST: usize = 16;

/// Fewer lines than these are never too many.
const FEW: usize = 1_000;

/// A log of records of one kind.
#[derive(Debug)]
pub struct Journal<R> {
    path: PathBuf,
    /// `None` where it could not be opened: tried again with the next record.
    file: Option<File>,
    lines: usize,
    /// Bytes of whole lines.
    end: u64,
    /// Whether more than whole lines may be there, by a crash or a failed write: it is cut off before the next one.
    torn: bool,
    kind: PhantomData<fn(R)>,
}

impl<R: Serialize + DeserializeOwned> Journal<R> {
    /// The log at `path`, and what is in it. One that can't be read, with its error, begins anew.
    pub fn open(path: PathBuf) -> (Self, Result<Vec<R>, StateError>) {
        let mut journal = Self { path, file: None, lines: 0, end: 0, torn: true, kind: PhantomData };
        let records = journal.read();
        if records.is_err() {
            (journal.lines, journal.end) = (0, 0);
        }
        (journal, records)
    }

    fn read(&mut self) -> Result<Vec<R>, StateError> {
        let content = match fs::read(&self.path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut records = Vec::new();
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            let last = self.end + line.len() as u64 == content.len() as u64;
            match parse(line) {
                Some(record) => records.push(record),
                None if last => break,
                None => return Err(StateError::Damaged),
            }
            self.end += line.len() as u64;
        }
        self.lines = records.len();
        Ok(records)
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`io::Error`]; what was there stays.
    pub fn append(&mut self, record: &R) -> io::Result<()> {
        let line = line(record)?;
        let (end, torn) = (self.end, std::mem::replace(&mut self.torn, true));
        let file = self.file()?;
        if torn {
            file.set_len(end)?;
        }
        file.write_all(&line)?;
        self.torn = false;
        self.lines += 1;
        self.end += line.len() as u64;
        Ok(())
    }

    /// Whether so many records, which is all that count, would be better off in a new log.
    #[must_use]
    pub const fn is_long_for(&self, live: usize) -> bool {
        self.lines > FEW && self.lines > live * 2
    }

    /// Replaces the whole log by these records, and syncs it.
    ///
    /// # Errors
    /// [`io::Error`]; the old log stays then.
    pub fn replace<'a>(&mut self, records: impl IntoIterator<Item = &'a R>) -> io::Result<()>
    where
        R: 'a,
    {
        let (mut content, mut lines) = (Vec::new(), 0);
        for record in records {
            content.extend(line(record)?);
            lines += 1;
        }
        let new = self.path.with_extension("new");
        let mut file = options().write(true).truncate(true).open(&new)?;
        file.write_all(&content)?;
        file.sync_data()?;
        fs::rename(&new, &self.path)?;
        // The old file is not this one any more, whatever becomes of the folder's sync.
        (self.file, self.lines, self.end) = (None, lines, content.len() as u64);
        self.path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    /// What makes everything so far outlive a loss of power: to be run where waiting hurts nobody.
    ///
    /// # Errors
    /// [`io::Error`], if the log can't be opened.
    pub fn sync(&mut self) -> io::Result<impl FnOnce() -> io::Result<()> + Send + 'static> {
        let file = self.file()?.try_clone()?;
        Ok(move || file.sync_data())
    }

    fn file(&mut self) -> io::Result<&mut File> {
        match &mut self.file {
            Some(file) => Ok(file),
            none => Ok(none.insert(options().append(true).open(&self.path)?)),
        }
    }
}

/// Readable by its owner only.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    options
}

fn digest(json: &[u8]) -> [u8; DIGEST] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digest = Sha256::digest(json);
    std::array::from_fn(|i| HEX[usize::from(digest[i / 2] >> (4 * (1 - i % 2)) & 15)])
}

fn line(record: &impl Serialize) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(record)?;
    Ok([&digest(&json)[..], b" ", &json, b"\n"].concat())
}

fn parse<R: DeserializeOwned>(line: &[u8]) -> Option<R> {
    let (written, rest) = line.strip_suffix(b"\n")?.split_first_chunk::<DIGEST>()?;
    let json = rest.strip_prefix(b" ")?;
    if digest(json) == *written { serde_json::from_slice(json).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn open(folder: &Path) -> (Journal<String>, Result<Vec<String>, StateError>) {
        Journal::open(folder.join("journal"))
    }

    #[test]
    fn records_come_back_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, empty) = open(folder.path());
        assert!(empty.unwrap().is_empty());
        for record in ["a", "b"] {
            journal.append(&record.to_owned()).unwrap();
        }
        let (mut journal, records) = open(folder.path());
        assert_eq!(records.unwrap(), ["a", "b"]);
        journal.replace(&["c".to_owned()]).unwrap();
        journal.append(&"d".to_owned()).unwrap();
        journal.sync().unwrap()().unwrap();
        assert_eq!(open(folder.path()).1.unwrap(), ["c", "d"]);
    }

    #[test]
    fn a_line_cut_short_is_dropped_and_another_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut journal, _) = open(folder.path());
        for record in ["first", "second"] {
            journal.append(&record.to_owned()).unwrap();
        }
        let whole = fs::read(&path).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in first..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, records) = open(folder.path());
            assert_eq!(records.unwrap(), ["first"], "cut at {cut}");
            journal.append(&"third".to_owned()).unwrap();
            assert_eq!(open(folder.path()).1.unwrap(), ["first", "third"], "cut at {cut}");
        }
        for changed in 0..first - 1 {
            let mut flipped = whole.clone();
            flipped[changed] ^= 1;
            fs::write(&path, flipped).unwrap();
            let (mut journal, records) = open(folder.path());
            assert!(matches!(records, Err(StateError::Damaged)), "changed at {changed}");
            journal.append(&"anew".to_owned()).unwrap();
            assert_eq!(open(folder.path()).1.unwrap(), ["anew"], "changed at {changed}");
        }
    }

    #[test]
    fn a_log_is_long_when_most_of_it_is_history() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(folder.path());
        for _ in 0..FEW + 1 {
            journal.append(&String::new()).unwrap();
        }
        assert!(journal.is_long_for(1));
        assert!(!journal.is_long_for(FEW));
    }
}
