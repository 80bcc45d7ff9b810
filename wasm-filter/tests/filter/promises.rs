//! The filter as Envoy sees it, one promise a test.

use crate::world::{Kind, PLUGIN, Plant, Said, Step, World};
use bouncer_wasm_filter::config::Config;
use bouncer_wasm_filter::pending::MAX_CALLS;

fn run(world: &mut World, steps: &[Step]) {
    for step in steps {
        world.take(step).expect("nothing wrong");
    }
}

fn inject(ttl_ms: u32) -> Step {
    Step::Answer { call: 0, kind: Kind::Inject { ttl_ms }, other_boot: false, behind: false }
}

fn world_with_watch() -> World {
    let mut world = World::new(Plant::Nothing);
    run(&mut world, &[Step::Wait(200), Step::Watch(Said::Flush)]);
    world
}

#[test]
fn a_thousand_cold_streams_share_one_call_and_warm_ones_make_none() {
    let mut world = world_with_watch();
    for _ in 0..1_000 {
        run(&mut world, &[Step::Arrive(0)]);
    }
    assert_eq!(world.envoy.decides, 1);
    run(&mut world, &[inject(30_000)]);
    for _ in 0..100 {
        run(&mut world, &[Step::Arrive(0)]);
    }
    assert_eq!(world.envoy.decides, 1);
    run(&mut world, &[Step::Wait(1_200)]);
    assert_eq!(world.envoy.reported, 1_099, "every use but the first, which the resolver's audit has");
    world.finish().unwrap();
}

#[test]
fn facts_that_differ_anywhere_are_asked_for_apart() {
    let mut world = world_with_watch();
    for header in 0..12 {
        run(&mut world, &[Step::Arrive(header)]);
    }
    assert_eq!(world.envoy.decides, 12);
}

#[test]
fn a_stale_answer_is_asked_for_again_but_not_for_ever() {
    let mut world = world_with_watch();
    let stale = Step::Answer { call: 0, kind: Kind::Inject { ttl_ms: 9_000 }, other_boot: false, behind: true };
    run(&mut world, &[Step::Arrive(0)]);
    for asked in 2..=5 {
        run(&mut world, std::slice::from_ref(&stale));
        assert_eq!((world.envoy.decides, world.envoy.ended.len()), (asked, 0));
    }
    run(&mut world, &[stale]);
    assert_eq!((world.envoy.decides, world.envoy.ended.len()), (5, 1), "denied");
    run(&mut world, &[Step::Arrive(0)]);
    assert_eq!(world.envoy.decides, 6, "a stale answer is not kept");
    run(&mut world, &[inject(9_000), Step::Arrive(0)]);
    assert_eq!(world.envoy.decides, 6);
    world.finish().unwrap();
}

#[test]
fn an_answer_of_another_run_is_used_but_not_kept_while_the_watch_is_up() {
    let mut world = world_with_watch();
    let other = Step::Answer { call: 0, kind: Kind::Inject { ttl_ms: 9_000 }, other_boot: true, behind: false };
    run(&mut world, &[Step::Arrive(0), other, Step::Arrive(0)]);
    assert_eq!(world.envoy.decides, 2);
}

#[test]
fn warm_streams_survive_a_broken_watch_until_a_flush() {
    let mut world = world_with_watch();
    run(&mut world, &[Step::Arrive(0), inject(30_000), Step::Break, Step::Arrive(0)]);
    assert_eq!(world.envoy.decides, 1);
    run(&mut world, &[Step::Wait(200), Step::Wait(200), Step::Watch(Said::Resumed), Step::Arrive(0)]);
    assert_eq!(world.envoy.decides, 1, "the watch went on where it was");
    run(&mut world, &[Step::Break, Step::Wait(200), Step::Wait(200), Step::Watch(Said::NewBoot), Step::Arrive(0)]);
    assert_eq!(world.envoy.decides, 2, "another run of the resolver");
}

#[test]
fn a_watch_that_the_host_forgot_is_called_again() {
    let mut world = world_with_watch();
    let first = world.envoy.watch;
    run(&mut world, &[Step::Wait(200)]);
    assert_eq!(world.envoy.watch, first, "one at a time");
    run(&mut world, &[Step::Wait(30_000), Step::Wait(200)]);
    assert_ne!(world.envoy.watch, first);
}

#[test]
fn denials_are_reused_for_five_seconds_at_most() {
    let mut world = world_with_watch();
    let deny = Step::Answer { call: 0, kind: Kind::Deny { ttl_ms: u32::MAX }, other_boot: false, behind: false };
    run(&mut world, &[Step::Arrive(0), deny, Step::Arrive(0), Step::Wait(4_000), Step::Arrive(0)]);
    assert_eq!(world.envoy.decides, 1);
    run(&mut world, &[Step::Wait(1_000), Step::Arrive(0)]);
    assert_eq!(world.envoy.decides, 2);
}

#[test]
fn a_flood_of_new_facts_is_bounded() {
    let mut world = world_with_watch();
    for n in 0..MAX_CALLS + 50 {
        let header = format!("pay 1 HTTP/2 - host-{n}");
        let id = u32::try_from(n).unwrap();
        let _ = world.filter.on_request_headers(&mut world.envoy, id, Some(header.as_bytes()));
    }
    assert_eq!((world.envoy.decides, world.filter.sizes().1), (MAX_CALLS, MAX_CALLS));
}

#[test]
fn a_second_plugin_with_another_resolver_is_refused() {
    let mut world = World::new(Plant::Nothing);
    let other = Config::parse(br#"{"version":1,"intercept_cluster":"other"}"#).unwrap();
    assert!(world.filter.join(PLUGIN + 1, other).is_err());
}
