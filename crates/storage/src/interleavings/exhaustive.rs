//! All interleavings of few steps, with loom.

#![expect(clippy::print_stdout, reason = "how many there were is the result")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::task::{Context, Wake as TaskWake, Waker};
use std::time::Duration;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use super::{alone, notices, open};
use crate::commit::{Claim, Commit, Standing};
use crate::config::{LogConfig, Visibility, WritePath};
use crate::io::sim::SimDisk;
use crate::planted::Bug;
use crate::record::Record;
use crate::tail::{Tail, Wake};

/// Runs `model` through all its interleavings with at most so many preemptions, and says how many there were.
fn check(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) -> u64 {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 100_000;
    let count = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&count);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    count.load(Ordering::Relaxed)
}

#[derive(Default)]
struct Called(AtomicBool);

impl Called {
    fn was(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Called {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl TaskWake for Called {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn asks_to_be_woken() {
    let (tail, end) = (Arc::new(Tail::default()), Arc::new(AtomicU64::new(0)));
    let called = Arc::new(Called::default());
    let mover = {
        let (tail, end) = (Arc::clone(&tail), Arc::clone(&end));
        thread::spawn(move || {
            end.fetch_max(1, Ordering::AcqRel);
            tail.notify();
        })
    };
    let waker: Arc<dyn Wake> = Arc::<Called>::clone(&called);
    tail.on_move(Arc::downgrade(&waker));
    let seen = end.load(Ordering::Acquire) == 1;
    mover.join().unwrap();
    assert!(seen || called.was(), "neither seen nor woken");
}

/// Two that wait, and one that moves the end two times. Whoever is not told hangs, and loom ends the process over that; so what
/// must be noticed here is planted for shuttle.
fn sleeps_until_the_end_moves() {
    let (tail, end) = (Arc::new(Tail::default()), Arc::new(AtomicU64::new(0)));
    let waits = |until: u64| {
        let (tail, end) = (Arc::clone(&tail), Arc::clone(&end));
        thread::spawn(move || {
            let watch = tail.watch();
            let hour = Duration::from_secs(3600);
            while !watch.sleep_unless(hour, || end.load(Ordering::Acquire) >= until) {}
        })
    };
    let waiting = [waits(1), waits(2)];
    for next in 1..=2 {
        end.store(next, Ordering::Release);
        tail.notify();
    }
    waiting.into_iter().for_each(|waits| waits.join().unwrap());
}

/// A leader that syncs or fails, one that waits for it or leads itself, and a task that has left its waker.
fn shares_a_sync(fails: bool) {
    let commit = Arc::new(Commit::starting_at(0));
    let (claim, leading) = (Claim { end: 1, generation: 0 }, Arc::new(AtomicU32::new(0)));
    let settles = || {
        let (commit, leading) = (Arc::clone(&commit), Arc::clone(&leading));
        thread::spawn(move || {
            loop {
                let lead = match commit.wait_or_lead(claim) {
                    Ok(standing) => return standing,
                    Err(lead) => lead,
                };
                assert_eq!(leading.fetch_add(1, Ordering::SeqCst), 0, "two lead at once");
                thread::yield_now();
                if fails {
                    commit.poison()
                } else {
                    commit.advance(1)
                }
                leading.fetch_sub(1, Ordering::SeqCst);
                drop(lead);
            }
        })
    };
    let waiting = [settles(), settles()];
    let called = Arc::new(Called::default());
    let waker = Waker::from(Arc::clone(&called));
    let standing = commit.standing_or_wake(claim, Context::from_waker(&waker).waker());
    let settled = if fails { Standing::Unknown } else { Standing::Durable };
    waiting.into_iter().for_each(|waits| assert_eq!(waits.join().unwrap(), settled));
    assert!(standing == settled || called.was(), "a task sleeps on");
}

/// A reader that stands before a segment's end, while that is rolled, the next one appended to, and the first removed.
fn hands_over() {
    let config = LogConfig::default().write_path(WritePath::Positional);
    let (dir, log) = open(&SimDisk::new(1), 0, config);
    log.append(&Record::value(b"0")).unwrap();
    let mut reader = log.reader(0).unwrap();
    let reads = thread::spawn(move || {
        let mut expected = 0;
        for _ in 0..2 {
            match reader.next_batch() {
                Ok(Some(batch)) => {
                    let record = batch.records().next().unwrap().unwrap();
                    assert!(record.offset >= expected, "{} again", record.offset);
                    assert_eq!(
                        record.value,
                        Some(&[b'0' + u8::try_from(record.offset).unwrap()][..])
                    );
                    expected = record.offset + 1;
                }
                Ok(None) => {}
                Err(crate::Error::OffsetOutOfRange { offset, start, .. }) => {
                    assert!(offset < start, "{offset} is not below {start}");
                    return;
                }
                Err(e) => panic!("{e}"),
            }
        }
    });
    log.roll().unwrap();
    log.append(&Record::value(b"1")).unwrap();
    log.delete_records_before(1).unwrap();
    reads.join().unwrap();
    assert_eq!(log.view().high_watermark(Visibility::Level), 2);
    drop((log, dir));
}

#[test]
fn who_asks_to_be_woken_as_the_end_moves_sees_it_or_is_woken() {
    let _turn = alone();
    println!("asked: {} interleavings", check(None, asks_to_be_woken));
    assert!(notices(Bug::NotFenced, || check(None, asks_to_be_woken)));
}

#[test]
fn who_sleeps_until_the_end_moves_is_told() {
    let _turn = alone();
    println!("asleep: {} interleavings", check(Some(3), sleeps_until_the_end_moves));
}

#[test]
fn a_sync_is_shared_and_everybody_is_told_how_it_ended() {
    let _turn = alone();
    for fails in [false, true] {
        let count = check(Some(3), move || shares_a_sync(fails));
        println!("waiting for a sync that fails ({fails}): {count} interleavings");
    }
    assert!(notices(Bug::WakerKeptLate, || check(Some(3), || shares_a_sync(false))));
}

#[test]
fn a_reader_passes_from_a_segment_that_is_rolled_and_removed_to_the_next() {
    let _turn = alone();
    println!("handed over: {} interleavings", check(Some(2), hands_over));
}
