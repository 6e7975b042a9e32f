//! What a run has done, so that a run that did nothing cannot pass for one that found nothing.

use std::fmt;
use std::ops::AddAssign;

use logmill_storage::RecoveryReport;
use logmill_storage::recovery::Verdict;

use crate::examine::DEPTH;

/// Counts of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Workloads.
    pub workloads: u64,
    /// Places at which workloads were cut.
    pub points: u64,
    /// Crash states that were opened and checked.
    pub states: u64,
    /// Of these, crashes in the recovery from a crash, in the recovery from that, and so on.
    pub nested: [u64; DEPTH],
    /// Further openings of such states: after another power loss, without indexes, by a reader.
    pub second: u64,
    /// States in which something that was not promised was lost.
    pub lossy: u64,
    /// States in which bytes were cut off.
    pub cut: u64,
    /// States in which bytes were set aside.
    pub quarantined: u64,
    /// States that looked closed.
    pub clean: u64,
    /// Records that compaction has removed.
    pub removed: u64,
    /// Bytes that queues have carried forward.
    pub carried: u64,
    /// Receipts that had lost their power, and were refused.
    pub stale: u64,
    /// Acknowledgements that were held against the store.
    pub acks: u64,
    /// Faults that fired.
    pub faults: u64,
    /// Runs with a fault in them.
    pub fault_runs: u64,
    /// Logs that were poisoned by a fault, and opened again.
    pub poisoned: u64,
    /// Logs that were full, and appended to again when space came back.
    pub refilled: u64,
}

impl Counts {
    /// Counts what a recovery has met.
    pub fn note(&mut self, report: &RecoveryReport) {
        self.clean += u64::from(report.clean);
        self.cut += u64::from(report.verdict == Verdict::Cut);
        self.quarantined += u64::from(report.verdict == Verdict::Ambiguous);
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.workloads += other.workloads;
        self.points += other.points;
        self.states += other.states;
        for (sum, nested) in self.nested.iter_mut().zip(other.nested) {
            *sum += nested;
        }
        self.second += other.second;
        self.lossy += other.lossy;
        self.cut += other.cut;
        self.quarantined += other.quarantined;
        self.clean += other.clean;
        self.removed += other.removed;
        self.carried += other.carried;
        self.stale += other.stale;
        self.acks += other.acks;
        self.faults += other.faults;
        self.fault_runs += other.fault_runs;
        self.poisoned += other.poisoned;
        self.refilled += other.refilled;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("workloads", self.workloads),
            ("cut points", self.points),
            ("crash states", self.states),
            ("  in recovery", self.nested[0]),
            ("  in that one's", self.nested[1]),
            ("  and in its", self.nested[2]),
            ("  lossy", self.lossy),
            ("  cut off", self.cut),
            ("  quarantined", self.quarantined),
            ("  clean", self.clean),
            ("records compacted", self.removed),
            ("bytes carried", self.carried),
            ("stale receipts", self.stale),
            ("further openings", self.second),
            ("acknowledgements", self.acks),
            ("fault runs", self.fault_runs),
            ("faults fired", self.faults),
            ("  poisoned", self.poisoned),
            ("  refilled", self.refilled),
        ];
        for (name, count) in rows {
            if count > 0 {
                writeln!(f, "{name:<18}{count:>12}")?;
            }
        }
        Ok(())
    }
}
