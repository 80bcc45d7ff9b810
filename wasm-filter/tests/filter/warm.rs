//! A warm stream costs no allocation.

use crate::world::{Kind, Plant, Said, Step, World, headers};
use bouncer_wasm_filter::filter::Action;
use bouncer_wasm_filter::host::{Host, Method, Refused, StreamId, Token};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator is unsafe by definition; this one only counts")]
// SAFETY: everything is passed on to the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A host that does everything and remembers nothing.
struct Obedient;

impl Host for Obedient {
    fn set_tag(&mut self, _: StreamId, _: &str) -> Result<(), Refused> {
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
    fn lives(&mut self, _: StreamId) -> bool {
        false
    }
    fn wall_ms(&mut self) -> u64 {
        0
    }
    fn call(&mut self, _: Method, _: &str, _: &[u8], _: u32) -> Result<Token, Refused> {
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
    // The list of streams has its room after the first round.
    let mut rounds = [0, 0];
    for round in &mut rounds {
        let before = ALLOCATIONS.with(Cell::get);
        for id in 1_000..2_000 {
            assert_eq!(world.filter.on_request_headers(&mut Obedient, id, Some(&header)), Action::Continue);
        }
        *round = ALLOCATIONS.with(Cell::get) - before;
        world.filter.on_tick(&mut Obedient, crate::world::PLUGIN);
    }
    assert!(rounds[0] < 12, "the list doubles: {rounds:?}");
    assert_eq!(rounds[1], 0);
}
