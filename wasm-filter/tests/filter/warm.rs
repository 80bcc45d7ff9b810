//! A warm stream costs no allocation, and what Envoy hands over is freed as it was made.

use crate::world::{Kind, Plant, Said, Step, World, headers};
use bouncer_wasm_filter::facts;
use bouncer_wasm_filter::filter::Action;
use bouncer_wasm_filter::host::landing::{self, Received};
use bouncer_wasm_filter::host::{Host, Method, Refused, StreamId, Token};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    /// Bytes asked for and not yet given back, by the sizes that were named.
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator is unsafe by definition; this one only counts")]
// SAFETY: everything is passed on to the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        BYTES.with(|bytes| bytes.set(bytes.get().wrapping_add(layout.size())));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        BYTES.with(|bytes| bytes.set(bytes.get().wrapping_sub(layout.size())));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A host that does everything and remembers nothing.
struct Obedient;

impl Host for Obedient {
    fn set_tag(&mut self, _: StreamId, _: &str, _: Option<&str>) -> Result<(), Refused> {
        Ok(())
    }
    fn resume(&mut self, _: StreamId) -> Result<(), Refused> {
        Ok(())
    }
    fn deny(&mut self, _: StreamId, _: &bouncer_wasm_filter::denial::Denial) -> Result<(), Refused> {
        Ok(())
    }
    fn reset(&mut self, _: StreamId) -> Result<(), Refused> {
        Ok(())
    }
    fn wall_ms(&mut self) -> u64 {
        0
    }
    fn trace(&mut self) -> Option<String> {
        panic!("a warm stream's trace is not looked at")
    }
    fn call(&mut self, _: Method, _: &str, _: &[u8], _: u32, _: Option<&str>) -> Result<Token, Refused> {
        Err(Refused(1))
    }
}

#[test]
fn a_warm_stream_allocates_nothing() {
    let mut world = World::new(Plant::Nothing);
    let answer = Step::Answer { call: 0, kind: Kind::Inject { ttl_ms: 30_000 }, other_boot: false, behind: false };
    for step in [Step::Wait(200), Step::Watch(Said::Flush), Step::Arrive(0), answer] {
        world.take(&step).unwrap();
    }
    let header = headers()[0].clone().unwrap();
    // The table of streams has its room after the first round.
    let mut rounds = [0; 50];
    for (number, round) in (0..).zip(&mut rounds) {
        let before = ALLOCATIONS.with(Cell::get);
        let ids = (number + 1) * 1_000..(number + 2) * 1_000;
        for id in ids.clone() {
            assert_eq!(world.filter.on_request_headers(&mut Obedient, id, Some(&header)), Action::Continue);
        }
        ids.for_each(|id| world.filter.on_end(id));
        *round = ALLOCATIONS.with(Cell::get) - before;
        world.filter.on_tick(&mut Obedient, crate::world::PLUGIN);
    }
    assert!(rounds[0] < 12, "the table doubles: {rounds:?}");
    assert_eq!(rounds[1..], [0; 49]);
}

/// Does what Envoy does when it hands bytes over.
#[expect(unsafe_code, reason = "plays Envoy, who writes to the memory of the module")]
fn hand_over(bytes: &[u8]) -> Received {
    let start = landing::allocate(bytes.len());
    // SAFETY: the memory is ours, and of this length.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len());
        Received::claim(start, bytes.len())
    }
}

#[test]
fn bytes_from_envoy_are_given_back_as_they_were_made() {
    let before = (ALLOCATIONS.with(Cell::get), BYTES.with(Cell::get));
    let (small, large) = ([7_u8; 100], [8_u8; facts::MAX_BYTES + 1]);
    for _ in 0..3 {
        assert_eq!(hand_over(&small).bytes(), small);
    }
    assert_eq!(ALLOCATIONS.with(Cell::get), before.0, "small ones share a buffer");
    {
        let (first, second, third) = (hand_over(&small), hand_over(&large), hand_over(&small[1..]));
        assert_eq!((first.bytes(), second.bytes(), third.bytes()), (&small[..], &large[..], &small[1..]));
    }
    assert_eq!(hand_over(&small).bytes(), small);
    assert_eq!(ALLOCATIONS.with(Cell::get), before.0 + 2);
    assert_eq!(BYTES.with(Cell::get), before.1, "every size named in freeing is the one that was allocated");
}
