//! Random histories of a log against a plain map, found and made small by proptest.
//!
//! `LOGMILL_MODEL_SEQUENCES` says how many (CI: 20,000), `LOGMILL_MODEL_SEED` with which to begin. What fails is printed
//! in its smallest form.

use std::thread;
use std::time::Duration;

use logmill_storage::{Compression, Durability, Retention, WritePath};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

pub mod world;

use world::{Counts, Item, Op, Setup};

fn item() -> impl Strategy<Value = Item> {
    let key = prop::option::weighted(0.8, 0..6u8);
    let value = prop::option::weighted(0.85, prop_oneof![9 => 0..60u16, 1 => 0..3000u16]);
    let shift = prop::option::weighted(0.2, any::<i8>());
    (key, value, shift).prop_map(|(key, value, shift)| Item { key, value, shift })
}

fn level() -> impl Strategy<Value = Durability> {
    prop_oneof![
        Just(Durability::Sync),
        Just(Durability::Buffered),
        Just(Durability::Interval(Duration::from_millis(200))),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let items = |most| prop::collection::vec(item(), 1..most);
    prop_oneof![
        10 => (level(), items(8)).prop_map(|(level, items)| Op::Append(level, items)),
        1 => (level(), items(60)).prop_map(|(level, items)| Op::Append(level, items)),
        1 => items(8).prop_map(Op::Submit),
        2 => Just(Op::Sync),
        3 => Just(Op::Roll),
        1 => Just(Op::Settle),
        2 => any::<u8>().prop_map(Op::Tick),
        2 => Just(Op::Retain),
        1 => any::<u8>().prop_map(Op::DeleteBefore),
        3 => Just(Op::Compact),
        3 => any::<u8>().prop_map(Op::Look),
        1 => Just(Op::Reopen),
        1 => Just(Op::Kill),
        3 => any::<u64>().prop_map(Op::Crash),
    ]
}

fn setup() -> impl Strategy<Value = Setup> {
    let write_path = prop_oneof![Just(WritePath::Mapped), Just(WritePath::Positional)];
    let compression = prop_oneof![3 => Just(Compression::None), 1 => Just(Compression::Lz4)];
    let retention = prop_oneof![
        2 => Just(Retention::default()),
        1 => (1..60u64).prop_map(|n| Retention { records: Some(n), ..Retention::default() }),
        1 => (1..600u64).prop_map(|s| Retention {
            age: Some(Duration::from_secs(s)),
            ..Retention::default()
        }),
    ];
    (any::<u64>(), level(), write_path, compression, 12..15u32, retention).prop_map(
        |(seed, durability, write_path, compression, size, retention)| {
            let segment_bytes = 1 << size;
            Setup { seed, durability, write_path, compression, segment_bytes, retention }
        },
    )
}

/// Runs `cases` histories from `seed` on.
fn explore(cases: u32, seed: u64) -> Counts {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let total = std::cell::Cell::new(Counts::default());
    let history = (setup(), prop::collection::vec(op(), 1..40));
    let outcome = TestRunner::new_with_rng(config, rng).run(&history, |(setup, ops)| {
        total.set(total.get() + world::run(setup, &ops));
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("LOGMILL_MODEL_SEED={seed}: {failure}");
    }
    total.get()
}

#[test]
fn the_log_is_what_a_plain_map_would_be_whatever_happens() {
    let sequences: u32 =
        std::env::var("LOGMILL_MODEL_SEQUENCES").map_or(4_000, |n| n.parse().unwrap());
    let first: u64 = std::env::var("LOGMILL_MODEL_SEED").map_or(1, |n| n.parse().unwrap());
    let halves = thread::scope(|scope| {
        let half = |seed| scope.spawn(move || explore(sequences.div_ceil(2), seed));
        [half(first), half(first + 1)].map(|thread| thread.join().expect("no panic"))
    });
    let [one, other] = halves;
    let counts = one + other;
    println!("{sequences} histories: {counts:?}");
    if sequences >= 1_000 {
        let least = u64::from(sequences) / 10;
        let Counts { appended, crashes, lost, compacted, tombstones_removed, retained } = counts;
        assert!(appended > 100 * least && crashes > least && lost > least, "{counts:?}");
        assert!(compacted > least && retained > least && tombstones_removed > 0, "{counts:?}");
    }
}
