//! The audit spool: every decision is in it before its outcome is released.
//!
//! Events are JSON lines in segment files, written by `write(2)` so that they survive a killed process (and synced
//! first where the configuration asks for it). The [`crate::bridge`] sends them up and drops what is acknowledged. The
//! spool is bounded; a full one releases nothing. Denials may fill only half of it, so that nobody can silence the
//! audit of what is released by being refused often.
//!
//! Each event is chained to the one before it, so that none can be changed or left out unseen by whoever stores them; the
//! [`Checkpoints`] are signed over the chain.

mod chain;
mod checkpoints;
mod denials;

use bouncer_audit::{ChainId, ChainPoint, Decision, Digest};
use bouncer_custody::BouncerName;
use bouncer_proto::bridge::v1::AuditEvent;
pub use checkpoints::Checkpoints;
pub use denials::{DenialKey, Denials};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A segment is closed when it is this large, in bytes.
const SEGMENT: u64 = 1 << 20;

/// Why an event could not be recorded. Nothing may be released then.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The file system said no.
    #[error("the audit spool can't be written: {0}")]
    Io(#[from] io::Error),
    /// The bound is reached; the control plane has not taken events for a while.
    #[error("the audit spool is full; it empties when the control plane takes its events")]
    Full,
}

/// What is recorded of one decision; sequence and time are the spool's to give.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Event {
    /// A UUIDv7.
    pub id: String,
    /// From 1, without gaps.
    pub sequence: u64,
    /// Unix milliseconds.
    pub time_ms: i64,
    /// The caller's SPIFFE ID, or empty.
    pub caller: String,
    /// The protected resource, or empty.
    pub resource: String,
    /// The credential's path, or empty.
    pub logical_path: String,
    /// Its generation, or 0.
    pub generation: u64,
    /// The key.
    pub key_id: String,
    /// SHA-256 of the AAD, hex.
    pub aad_sha256: String,
    /// Envoy's cluster.
    pub cluster: String,
    /// Where the rails say it leads.
    pub destination: String,
    /// "inject", "deny", "pass_through", "uses", "rotate", "revoke".
    pub outcome: String,
    /// A reason code, or empty.
    pub reason: String,
    /// The backend's id of the call.
    pub backend_request_id: String,
    /// How many streams this stands for.
    pub count: u64,
    /// For "uses": which decision.
    pub decision_id: String,
    /// What the client called the upstream.
    pub authority: String,
    /// Which chain it is in; the spool's to give. Absent in what was recorded before there were chains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainId>,
    /// The head behind it; the spool's to give.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<Digest>,
}

impl Event {
    /// Its texts within the limits that the control plane stores them in.
    fn fit(&mut self) {
        let texts = [
            &mut self.id,
            &mut self.caller,
            &mut self.resource,
            &mut self.logical_path,
            &mut self.key_id,
            &mut self.aad_sha256,
            &mut self.cluster,
            &mut self.destination,
            &mut self.outcome,
            &mut self.reason,
            &mut self.backend_request_id,
            &mut self.decision_id,
            &mut self.authority,
        ];
        for text in texts {
            bouncer_audit::fit(text);
        }
    }

    fn decision<'a>(&'a self, bouncer: &'a BouncerName) -> Decision<'a> {
        bouncer_audit::decision!(self, bouncer.as_str())
    }

    /// Where in a chain it is.
    #[must_use]
    pub fn point(&self) -> Option<ChainPoint> {
        Some(ChainPoint { chain: self.chain.clone()?, sequence: self.sequence, head: self.head? })
    }
}

impl From<Event> for AuditEvent {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            sequence: event.sequence,
            time_ms: event.time_ms,
            caller: event.caller,
            resource: event.resource,
            logical_path: event.logical_path,
            generation: event.generation,
            key_id: event.key_id,
            aad_sha256: event.aad_sha256,
            cluster: event.cluster,
            destination: event.destination,
            outcome: event.outcome,
            reason: event.reason,
            backend_request_id: event.backend_request_id,
            count: event.count,
            decision_id: event.decision_id,
            authority: event.authority,
            chain: event.chain.map_or_else(String::new, String::from),
            head: event.head.map(|head| head.as_bytes().to_vec()).unwrap_or_default(),
        }
    }
}

/// The spool.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    bouncer: BouncerName,
    capacity: u64,
    fsync: bool,
    inner: Mutex<Inner>,
    /// Held by the one who acknowledges.
    acknowledging: Mutex<()>,
    appended: tokio::sync::Notify,
}

#[derive(Debug)]
struct Inner {
    segments: VecDeque<Segment>,
    /// The last segment, open for append.
    tail: Option<File>,
    next: u64,
    /// Where the chain is: behind the last event.
    at: ChainPoint,
    acked: u64,
    /// Set after a failed write: the tail may end in a torn line, which is cut off before the next one.
    torn: bool,
}

#[derive(Debug)]
struct Segment {
    first: u64,
    bytes: u64,
}

/// How far a reader of the spool has come.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    after: u64,
    /// The segment read last, and how far into it.
    segment: u64,
    offset: u64,
}

impl Cursor {
    /// Behind the event of this sequence; 0 for the first.
    #[must_use]
    pub const fn behind(sequence: u64) -> Self {
        Self { after: sequence, segment: 0, offset: 0 }
    }

    /// The last sequence that it is behind.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.after
    }
}

impl Spool {
    /// Opens the bouncer's spool in `state_dir`, at most `capacity` bytes; takes up what a former run left, up to the last
    /// whole line, and its chain.
    ///
    /// # Errors
    /// [`io::Error`] if the folder can't be used.
    pub fn open(state_dir: &Path, bouncer: &BouncerName, capacity: u64, fsync: bool) -> io::Result<Self> {
        let folder = state_dir.join("audit");
        fs::create_dir_all(&folder)?;
        let kept = chain::Acknowledged::read(&folder);
        let acked = kept.sequence;
        let mut firsts = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let name = entry?.file_name();
            firsts
                .extend(name.to_str().and_then(|name| name.strip_suffix(".jsonl")).and_then(|n| n.parse::<u64>().ok()));
        }
        firsts.sort_unstable();
        let (mut segments, mut next, mut last) = (VecDeque::new(), acked + 1, None);
        for first in firsts {
            let (bytes, event) = whole_lines(&path_of(&folder, first))?;
            next = next.max(event.as_ref().map_or(0, |event| event.sequence) + 1);
            last = event.or(last);
            segments.push_back(Segment { first, bytes });
        }
        let at = chain::take_up(&folder, bouncer, next - 1, last.and_then(|event| event.point()), kept)?;
        let mut inner = Inner { segments, tail: None, next, at, acked, torn: false };
        if let Some(tail) = inner.segments.back() {
            let file = OpenOptions::new().append(true).open(path_of(&folder, tail.first))?;
            file.set_len(tail.bytes)?;
            inner.tail = Some(file);
        }
        let (inner, acknowledging, appended) = (Mutex::new(inner), Mutex::default(), tokio::sync::Notify::new());
        let spool = Self { folder, bouncer: bouncer.clone(), capacity, fsync, inner, acknowledging, appended };
        spool.drop_acked(&mut spool.lock());
        Ok(spool)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an event; when this returns, a killed process loses it no more.
    ///
    /// # Errors
    /// [`SpoolError`]: nothing may be released.
    pub fn append(&self, event: Event) -> Result<(), SpoolError> {
        self.append_within(event, self.capacity)
    }

    /// As [`Spool::append`], for a denial: fails once half of the spool is full.
    ///
    /// # Errors
    /// [`SpoolError`]. The stream is denied all the same.
    pub fn append_denial(&self, event: Event) -> Result<(), SpoolError> {
        self.append_within(event, self.capacity / 2)
    }

    fn append_within(&self, mut event: Event, capacity: u64) -> Result<(), SpoolError> {
        event.fit();
        let mut inner = self.lock();
        event.sequence = inner.next;
        event.time_ms = jiff::Timestamp::now().as_millisecond();
        let head = inner.at.head_with(&event.decision(&self.bouncer).leaf());
        event.chain = Some(inner.at.chain.clone());
        event.head = Some(head);
        let mut line = serde_json::to_vec(&event).map_err(io::Error::from)?;
        line.push(b'\n');
        let length = line.len() as u64;
        if inner.bytes() + length > capacity {
            return Err(SpoolError::Full);
        }
        let file = inner.tail(&self.folder, length)?;
        let written = file.write_all(&line).and_then(|()| if self.fsync { file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            inner.torn = true;
            return Err(error.into());
        }
        inner.next += 1;
        (inner.at.sequence, inner.at.head) = (event.sequence, head);
        if let Some(segment) = inner.segments.back_mut() {
            segment.bytes += length;
        }
        drop(inner);
        self.appended.notify_one();
        Ok(())
    }

    /// The events behind the cursor, at most about `limit` of them; the cursor moves behind them.
    ///
    /// # Errors
    /// [`io::Error`] if a segment can't be read; the cursor stays.
    pub fn read(&self, cursor: &mut Cursor, limit: usize) -> io::Result<Vec<Event>> {
        let (next, segments) = {
            let inner = self.lock();
            (inner.next, inner.segments.iter().map(|segment| segment.first).collect::<Vec<_>>())
        };
        let (mut at, mut events, mut line) = (*cursor, Vec::new(), Vec::new());
        for (i, first) in segments.iter().enumerate() {
            if segments.get(i + 1).is_some_and(|following| *following <= at.after + 1) {
                continue;
            }
            if events.len() >= limit {
                break;
            }
            if *first != at.segment {
                (at.segment, at.offset) = (*first, 0);
            }
            let mut file = File::open(path_of(&self.folder, *first))?;
            file.seek(SeekFrom::Start(at.offset))?;
            let mut reader = BufReader::new(file);
            while events.len() < limit {
                line.clear();
                let read = reader.read_until(b'\n', &mut line)?;
                // A torn line at the end is cut off by the next append; it was never acknowledged to anyone.
                let whole = line.ends_with(b"\n");
                let Some(event) = serde_json::from_slice::<Event>(&line).ok().filter(|_| whole) else { break };
                if event.sequence >= next {
                    break;
                }
                at.offset += read as u64;
                if event.sequence > at.after {
                    at.after = event.sequence;
                    events.push(event);
                }
            }
        }
        *cursor = at;
        Ok(events)
    }

    /// The control plane says that it stores everything up to this sequence, and was sent what is up to `sent`. Waits for
    /// the disk, and lets nobody else wait meanwhile.
    pub fn acknowledge(&self, sequence: u64, sent: u64) {
        let _one = self.acknowledging.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = {
            let inner = self.lock();
            // A hostile control plane may claim anything; what was never sent is not dropped.
            let sequence = sequence.min(sent).min(inner.next - 1);
            if sequence <= inner.acked {
                return;
            }
            // With the last event goes the last line that says where the chain is.
            let at = (sequence == inner.at.sequence).then(|| inner.at.clone());
            chain::Acknowledged { sequence, at }
        };
        let sequence = reached.sequence;
        if let Err(error) = reached.write(&self.folder) {
            tracing::warn!(%error, "the acknowledged audit position could not be saved; events may be sent twice, and are deduplicated by id");
        }
        let mut inner = self.lock();
        inner.acked = sequence;
        self.drop_acked(&mut inner);
    }

    fn drop_acked(&self, inner: &mut Inner) {
        while let Some(oldest) = inner.segments.front() {
            let last = inner.segments.get(1).map_or(inner.next, |following| following.first) - 1;
            if last > inner.acked {
                return;
            }
            if let Err(error) = fs::remove_file(path_of(&self.folder, oldest.first)) {
                tracing::warn!(%error, "an acknowledged audit segment could not be removed");
                return;
            }
            inner.segments.pop_front();
            if inner.segments.is_empty() {
                inner.tail = None;
            }
        }
    }

    /// Waits until something may have been appended.
    pub async fn appended(&self) {
        self.appended.notified().await;
    }

    /// The last sequence that the control plane acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.lock().acked
    }

    /// Where the chain is: behind the last event.
    #[must_use]
    pub fn at(&self) -> ChainPoint {
        self.lock().at.clone()
    }

    /// Bytes on disk, of how many at most.
    #[must_use]
    pub fn usage(&self) -> (u64, u64) {
        (self.lock().bytes(), self.capacity)
    }

    /// Whether an event could be recorded now, as far as can be told without recording one.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        let inner = self.lock();
        !inner.torn && inner.bytes() + 4_096 <= self.capacity
    }
}

impl Inner {
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The file to append `length` bytes to.
    fn tail(&mut self, folder: &Path, length: u64) -> io::Result<&mut File> {
        let full = self.segments.back().is_none_or(|segment| segment.bytes + length > SEGMENT);
        if full || self.tail.is_none() {
            let path = path_of(folder, self.next);
            let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            file.set_len(0)?;
            self.segments.push_back(Segment { first: self.next, bytes: 0 });
            self.tail = Some(file);
            self.torn = false;
        }
        let end = self.segments.back().map_or(0, |segment| segment.bytes);
        match &mut self.tail {
            Some(file) => {
                if self.torn {
                    file.set_len(end)?;
                    file.seek(SeekFrom::End(0))?;
                    self.torn = false;
                }
                Ok(file)
            }
            None => Err(io::Error::other("the spool has no segment")),
        }
    }
}

fn path_of(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.jsonl"))
}

/// The length of all whole lines of a segment, and the last of them.
fn whole_lines(path: &Path) -> io::Result<(u64, Option<Event>)> {
    let mut reader = BufReader::new(File::open(path)?);
    let (mut bytes, mut last, mut line) = (0, None, Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        match serde_json::from_slice::<Event>(&line) {
            Ok(event) if line.ends_with(b"\n") => (bytes, last) = (bytes + read as u64, Some(event)),
            _ => return Ok((bytes, last)),
        }
    }
}

#[cfg(test)]
mod tests;
