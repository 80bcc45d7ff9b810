//! Secret memory: the one place where a credential's private bytes rest.
//!
//! Chunks are mapped on their own pages between guard pages, locked where the limit allows, left out of core dumps and
//! of forked children. A [`Secret`] is wiped when its last owner drops it. The cache and the answers of SDS hold
//! secrets; nothing else may, and nothing may copy one except through [`Secret::expose`].

#![expect(
    unsafe_code,
    reason = "mapping, protecting and locking pages has no safe interface; each use says why it is sound"
)]

use bytes::Bytes;
use rustix::mm::{Advice, MapFlags, MlockFlags, MprotectFlags, ProtFlags};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroize as _;

/// Slots are multiples of this many bytes, so that a small key wastes little.
const GRANULE: usize = 256;
/// The usable size of one chunk. A secret never spans chunks.
const CHUNK: usize = 256 * 1024;
/// The largest secret, in bytes: more than any PEM bundle that a provider hands out, in its answer to Envoy.
pub const MAX_SECRET: usize = CHUNK;

/// Why a secret could not be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArenaError {
    /// It is longer than [`MAX_SECRET`].
    #[error("the credential is larger than {MAX_SECRET} bytes")]
    TooLarge,
    /// The system gave no more memory.
    #[error("no memory could be mapped for the credential: {0}")]
    Map(rustix::io::Errno),
}

/// All secret memory of the process.
#[derive(Debug)]
pub struct Arena {
    chunks: Mutex<Vec<Chunk>>,
    page: usize,
}

#[derive(Debug)]
struct Chunk {
    /// The mapping, guard pages included.
    mapping: NonNull<u8>,
    mapped: usize,
    /// The first usable byte.
    base: NonNull<u8>,
    locked: bool,
    /// One bit per granule.
    used: Vec<bool>,
}

// SAFETY: a chunk owns its mapping; the pointers are only followed for granules that one `Secret` owns.
unsafe impl Send for Chunk {}

/// How the arena stands, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArenaStats {
    /// Bytes mapped, guard pages not counted.
    pub mapped: usize,
    /// Bytes held by secrets, rounded up to granules.
    pub used: usize,
    /// Bytes of `mapped` that could not be locked, and might be swapped out.
    pub unlocked: usize,
}

impl Arena {
    /// An empty arena; memory is mapped with the first secret.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { chunks: Mutex::new(Vec::new()), page: rustix::param::page_size() })
    }

    /// Copies `bytes` in. The caller's copy should be wiped afterwards.
    ///
    /// # Errors
    /// [`ArenaError`] if it is too large or no memory can be had.
    pub fn store(self: &Arc<Self>, bytes: &[u8]) -> Result<Secret, ArenaError> {
        self.fill(bytes.len(), |place| place.copy_from_slice(bytes))
    }

    /// Lets `write` make a secret of `len` bytes in place, which are zero at first.
    ///
    /// # Errors
    /// As [`Arena::store`].
    pub fn fill(self: &Arc<Self>, len: usize, write: impl FnOnce(&mut [u8])) -> Result<Secret, ArenaError> {
        if len > MAX_SECRET {
            return Err(ArenaError::TooLarge);
        }
        let granules = len.div_ceil(GRANULE).max(1);
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = chunks.iter_mut().enumerate().find_map(|(i, chunk)| Some((i, chunk.take(granules)?)));
        let (chunk, first) = match taken {
            Some(place) => place,
            None => {
                let mut chunk = Chunk::map(self.page)?;
                let first = chunk.take(granules).unwrap_or_default();
                chunks.push(chunk);
                (chunks.len() - 1, first)
            }
        };
        // SAFETY: `take` marked these granules as ours, and they lie inside the chunk's usable part.
        let start = unsafe { chunks[chunk].base.add(first * GRANULE) };
        drop(chunks);
        let secret = Secret { arena: Arc::clone(self), chunk, first, granules, start, len };
        // SAFETY: the bytes are initialised, as fresh pages or by the wiping of whoever had them before; nothing else
        // holds a reference into them until the `Secret` gives one out.
        write(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len) });
        Ok(secret)
    }

    /// How the arena stands.
    #[must_use]
    pub fn stats(&self) -> ArenaStats {
        let chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.iter().fold(ArenaStats::default(), |sum, chunk| ArenaStats {
            mapped: sum.mapped + CHUNK,
            used: sum.used + chunk.used.iter().filter(|used| **used).count() * GRANULE,
            unlocked: sum.unlocked + if chunk.locked { 0 } else { CHUNK },
        })
    }
}

impl Chunk {
    fn map(page: usize) -> Result<Self, ArenaError> {
        let mapped = CHUNK + 2 * page;
        // SAFETY: a fresh private mapping at an address of the kernel's choice touches nothing of ours.
        let mapping =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), mapped, ProtFlags::empty(), MapFlags::PRIVATE) }
                .map_err(ArenaError::Map)?;
        let mapping = NonNull::new(mapping.cast::<u8>()).ok_or(ArenaError::Map(rustix::io::Errno::NOMEM))?;
        // SAFETY: all within the mapping just made, and aligned to pages, since CHUNK is a multiple of every page size
        // of Linux (4, 16 and 64 KiB).
        unsafe {
            let base = mapping.add(page);
            let pages = base.as_ptr().cast();
            if let Err(error) = rustix::mm::mprotect(pages, CHUNK, MprotectFlags::READ | MprotectFlags::WRITE) {
                let _ = rustix::mm::munmap(mapping.as_ptr().cast(), mapped);
                return Err(ArenaError::Map(error));
            }
            // Locking is wanted, not needed: RLIMIT_MEMLOCK may be small. The metric says what is not locked.
            let locked = rustix::mm::mlock_with(pages, CHUNK, MlockFlags::empty()).is_ok();
            let _ = rustix::mm::madvise(pages, CHUNK, Advice::LinuxDontDump);
            let _ = rustix::mm::madvise(pages, CHUNK, Advice::LinuxWipeOnFork);
            Ok(Self { mapping, mapped, base, locked, used: vec![false; CHUNK / GRANULE] })
        }
    }

    /// Marks the first free run of `granules` as used.
    fn take(&mut self, granules: usize) -> Option<usize> {
        let first = self.used.windows(granules).position(|run| run.iter().all(|used| !used))?;
        self.used[first..first + granules].fill(true);
        Some(first)
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no `Secret` is left: each holds the arena alive.
        let _ = unsafe { rustix::mm::munmap(self.mapping.as_ptr().cast(), self.mapped) };
    }
}

/// Private bytes at rest in the [`Arena`]. No `Clone`, no `Debug` of its content, no serialisation; share it by `Arc`.
pub struct Secret {
    arena: Arc<Arena>,
    chunk: usize,
    first: usize,
    granules: usize,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the bytes are written once, before the value exists, and only read until it is dropped.
unsafe impl Send for Secret {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Secret {}

impl Secret {
    /// The one way out: lends the bytes. Copy them only into what is wiped or sent to Envoy.
    pub fn expose<R>(&self, to: impl FnOnce(&[u8]) -> R) -> R {
        to(self.bytes())
    }

    const fn bytes(&self) -> &[u8] {
        // SAFETY: `start` points to `len` initialised bytes that this value owns, and does not change, until it is dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The way to Envoy: the bytes where they are, lent to the connection that writes them, and wiped when it lets go.
    #[must_use]
    pub fn lend(self) -> Bytes {
        Bytes::from_owner(Lent(self))
    }

    /// The length in bytes, which is no secret.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

struct Lent(Secret);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.len)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // SAFETY: these granules are ours until they are marked free below.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.granules * GRANULE) }.zeroize();
        let mut chunks = self.arena.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        chunks[self.chunk].used[self.first..self.first + self.granules].fill(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_dropped_secret_is_wiped_and_its_place_used_again() {
        let arena = Arena::new();
        let secret = arena.store(b"canary").unwrap();
        let place = secret.start;
        assert_eq!(secret.expose(<[u8]>::to_vec), b"canary");
        assert_eq!(arena.stats().used, GRANULE);
        drop(secret);
        assert_eq!(arena.stats().used, 0);
        // SAFETY: the chunk stays mapped while the arena lives, and no one else uses it in this test.
        let left = unsafe { std::slice::from_raw_parts(place.as_ptr(), GRANULE) };
        assert!(left.iter().all(|byte| *byte == 0));
        assert_eq!(arena.store(b"x").unwrap().start, place);
    }

    #[test]
    fn what_is_lent_stays_in_place_and_is_wiped_when_the_last_part_is_let_go() {
        let arena = Arena::new();
        let secret = arena.fill(6, |place| place.copy_from_slice(b"canary")).unwrap();
        let place = secret.start.as_ptr().cast_const();
        let mut lent = secret.lend();
        assert_eq!(lent.as_ptr(), place);
        let part = lent.split_off(3);
        drop(lent);
        assert_eq!((part.as_ref(), arena.stats().used), (b"ary".as_slice(), GRANULE));
        drop(part);
        assert_eq!(arena.stats().used, 0);
        assert_eq!(arena.fill(6, |_| ()).unwrap().expose(<[u8]>::to_vec), [0; 6]);
    }

    #[test]
    fn debug_shows_a_length_only() {
        assert_eq!(format!("{:?}", Arena::new().store(b"canary").unwrap()), "Secret(6 bytes)");
    }

    #[test]
    fn too_large_is_refused() {
        assert!(matches!(Arena::new().store(&vec![0; MAX_SECRET + 1]), Err(ArenaError::TooLarge)));
    }

    proptest! {
        #[test]
        fn secrets_never_overlap(lens in proptest::collection::vec(0_usize..2_000, 1..40), keep in any::<u64>()) {
            let arena = Arena::new();
            let mut held = Vec::new();
            for (i, len) in lens.iter().enumerate() {
                let fill = i as u8;
                held.push((fill, arena.store(&vec![fill; *len]).unwrap()));
                if keep >> (i % 64) & 1 == 0 {
                    held.swap_remove(i % held.len());
                }
                for (fill, secret) in &held {
                    prop_assert!(secret.expose(|bytes| bytes.iter().all(|byte| byte == fill)));
                }
            }
        }
    }
}
