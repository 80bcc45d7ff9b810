//! Memory for the bytes that Envoy hands over: it asks the module for some, writes to it, and names it in its answer.
//!
//! Most are a facts header or one small message. They land in one static buffer, given out again and again, so that
//! reading a header costs no trip to the allocator; what is larger, or comes while it is taken, gets an allocation of
//! its own. `abi` gives out, `envoy` claims. Nothing here trusts a length that Envoy did not ask for itself.

#![expect(unsafe_code, reason = "memory changes hands by raw pointers, as the ABI has it")]

use crate::facts;
use std::cell::{Cell, UnsafeCell};
use std::ptr;

struct Landing {
    bytes: UnsafeCell<[u8; Self::SIZE]>,
    taken: Cell<bool>,
}

impl Landing {
    const SIZE: usize = facts::MAX_BYTES;
}

thread_local! {
    static LANDING: Landing = const { Landing { bytes: UnsafeCell::new([0; Landing::SIZE]), taken: Cell::new(false) } };
}

/// Memory of this size; [`Received::claim`] takes it back.
#[must_use]
pub fn allocate(size: usize) -> *mut u8 {
    LANDING.with(|landing| {
        if size <= Landing::SIZE && !landing.taken.replace(true) {
            landing.bytes.get().cast()
        } else {
            Box::into_raw(vec![0_u8; size].into_boxed_slice()).cast()
        }
    })
}

/// Bytes from Envoy, freed when they are dropped.
#[derive(Debug)]
pub struct Received {
    start: *mut u8,
    length: usize,
}

impl Received {
    /// Takes over what Envoy wrote to. A null pointer means no bytes.
    ///
    /// # Safety
    /// `start` is null, or came from [`allocate`] for just this length, has not been claimed before, and is nobody
    /// else's from now on.
    #[must_use]
    pub const unsafe fn claim(start: *mut u8, length: usize) -> Self {
        Self { start, length }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        if self.start.is_null() {
            return &[];
        }
        // SAFETY: as `claim` was promised.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if self.start.is_null() {
            return;
        }
        LANDING.with(|landing| {
            if ptr::eq(self.start, landing.bytes.get().cast()) {
                landing.taken.set(false);
            } else {
                // SAFETY: as `claim` was promised, `allocate` made it as a boxed slice of this length.
                drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(self.start, self.length)) });
            }
        });
    }
}
