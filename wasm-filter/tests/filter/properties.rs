//! No sequence of events lets a protected stream on without the tag of a decision for exactly its facts that is still
//! valid; streams with the same facts share a call; nothing waits for ever or grows without bound. Each control plants
//! a fault that the same test must find.

use crate::world::{Kind, Plant, Said, Step, World, headers};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        6 => prop_oneof![Just(0_u32), Just(300), Just(1_000), Just(5_000), Just(u32::MAX)]
            .prop_map(|ttl_ms| Kind::Inject { ttl_ms }),
        1 => Just(Kind::BadTag),
        2 => Just(Kind::PassThrough),
        1 => prop_oneof![Just(0_u32), Just(3_000), Just(u32::MAX)].prop_map(|ttl_ms| Kind::Deny { ttl_ms }),
        1 => Just(Kind::UnknownReason),
        1 => Just(Kind::Empty),
        1 => Just(Kind::Garbage),
    ]
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        5 => (0..12_usize, any::<bool>(), any::<bool>())
            .prop_map(|(facts, by_cluster, reset)| Said::Invalidate { facts, by_cluster, reset }),
        3 => Just(Said::Resumed),
        1 => Just(Said::Flush),
        1 => Just(Said::NewBoot),
        1 => Just(Said::Garbage),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..headers().len()).prop_map(Step::Arrive),
        8 => (any::<usize>(), kind(), prop::bool::weighted(0.1), prop::bool::weighted(0.2))
            .prop_map(|(call, kind, other_boot, behind)| Step::Answer { call, kind, other_boot, behind }),
        1 => any::<usize>().prop_map(Step::AnswerAgain),
        1 => (any::<usize>(), prop_oneof![Just(4_u32), Just(8), Just(13), Just(14)])
            .prop_map(|(call, status)| Step::Close { call, status }),
        2 => any::<usize>().prop_map(Step::Kill),
        4 => prop_oneof![Just(200_u64), Just(200), Just(1_500), Just(60_000)].prop_map(Step::Wait),
        3 => said().prop_map(Step::Watch),
        1 => Just(Step::Break),
        1 => (0..12_usize).prop_map(Step::Revoke),
        1 => (1..4_u32).prop_map(Step::Refuse),
    ]
}

/// Runs `cases` sequences against a world with this fault.
fn run(plant: Plant, cases: u32) -> Result<(), TestError<Vec<Step>>> {
    // A fault that was planted need not be made small.
    let max_shrink_iters = if plant == Plant::Nothing { 2_000 } else { 0 };
    let config = Config { cases, failure_persistence: None, max_shrink_iters, ..Config::default() };
    let seed = *b"a sequence of events, repeatable";
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    runner.run(&prop::collection::vec(step(), 0..120), |steps| {
        let mut world = World::new(plant);
        for step in &steps {
            world.take(step).map_err(TestCaseError::fail)?;
        }
        world.finish().map_err(TestCaseError::fail)
    })
}

#[test]
fn no_sequence_of_events_lets_a_stream_on_that_has_no_right_to() {
    if let Err(fault) = run(Plant::Nothing, 2_000) {
        panic!("{fault}");
    }
}

#[test]
fn control_each_planted_fault_is_found() {
    for plant in [
        Plant::KeyWithoutCaller,
        Plant::EverythingPasses,
        Plant::DeafWatch,
        Plant::MixedAnswers,
        Plant::NoTicks,
        Plant::NoEnds,
        Plant::Careless,
    ] {
        assert!(matches!(run(plant, 2_000), Err(TestError::Fail(..))), "{plant:?} went unnoticed");
    }
}
