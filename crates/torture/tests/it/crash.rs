//! Crashes on the simulated disk: a small exploration in each run, and every crash that ever broke a promise.

use logmill_torture::case::Case;
use logmill_torture::run::Machine;
use logmill_torture::sim::{Job, every_cut, run};

/// Cuts a workload at every call, and some of the recoveries, too.
fn holds(workload: &str) {
    let case: Case<Machine> = workload.parse().unwrap();
    let counts = every_cut(&case, 1, 1)
        .unwrap_or_else(|failure| panic!("{}: {}", failure.what, failure.case));
    assert!(counts.nested[0] > 50 && counts.lossy > 50, "{counts}");
}

#[test]
fn no_crash_state_of_a_short_exploration_breaks_a_promise() {
    let states = std::env::var("LOGMILL_CRASH_STATES").map_or(2_000, |n| n.parse().unwrap());
    let (done, failure) = run::<Machine>(Job { seed: 1, states, threads: 2 });
    if let Some(failure) = failure {
        panic!("{}: {}", failure.what, failure.case);
    }
    let of = |count: fn(&logmill_torture::counts::Counts) -> u64| {
        done.iter().map(|d| count(&d.counts)).sum::<u64>()
    };
    assert!(of(|c| c.states) >= states * 9 / 10);
    assert!(of(|c| c.nested[0]) > states / 100, "recoveries were cut, too");
    assert!(of(|c| c.lossy) > states / 100, "crashes took something");
    assert!(of(|c| c.quarantined) > 0, "some left bytes in doubt");
}

/// A recovery was killed between the write of the manifest and its sync. The next process took the new epoch out of the
/// page cache, told it to its user, and did nothing more; the power went, and the epoch was given a second time.
#[test]
fn an_epoch_that_was_seen_is_durable() {
    holds("mapped+sync;1;sf;");
}

/// A recovery was killed after it had renamed a segment into quarantine and before it had synced that directory. The next
/// one found nothing in doubt, removed the empty segment before it, and synced the log's directory only: after the next
/// power loss the segment was back and the one before it was not, which no open would accept.
#[test]
fn a_quarantined_segment_does_not_come_back() {
    holds("mapped+buffered;1;u3 sf;");
}

/// The snapshot of the producers that is written when a segment ends was ahead of what a power loss left. The log grew past
/// that offset again, with other records, and the next open believed the snapshot.
#[test]
fn a_snapshot_of_producers_ahead_of_the_log_is_not_believed_later() {
    holds("positional+sync;1;si b1 b3 b1 sl;");
}

/// All records were deleted, and with them the only word of a producer's latest batch: the snapshot at the last clean close
/// was older. After a power loss a retry of that batch would have been appended twice.
#[test]
fn what_deleted_records_said_of_their_producer_is_kept() {
    holds("mapped+buffered;1;si close bi all;");
}
