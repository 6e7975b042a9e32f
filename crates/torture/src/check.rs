//! Is what a store holds what it has promised?

use logmill_storage::recovery::Verdict;
use logmill_storage::{Log, Visibility};

use crate::oracle::{End, Oracle};
use crate::store::{PRODUCER, Store};

/// What was found in a store that was opened again, and found to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its start offset.
    pub start: u64,
    /// Its end offset.
    pub end: u64,
    /// Its epoch.
    pub epoch: u32,
    /// Whether it had been closed.
    pub clean: bool,
}

/// Compares a store that was just opened for writing with what was promised before the last session ended `how`.
///
/// R1 to R5: a prefix of what was appended, whole batches, every promise kept, nothing invented. R6: so what was visible is
/// still there. R7: what was found is durable now.
pub fn recovered(store: &Store, oracle: &Oracle, how: End) -> Result<Found, String> {
    let log = store.log();
    let report = log.recovery();
    let found = Found {
        start: log.start_offset(),
        end: log.end_offset(),
        epoch: log.epoch(),
        clean: report.clean,
    };
    let Found { start, end, .. } = found;
    if matches!(report.verdict, Verdict::Corrupt | Verdict::Refused) {
        return Err(format!("opened with the verdict {:?}", report.verdict));
    }
    if !(oracle.start..=oracle.start_max).contains(&start) {
        return Err(format!(
            "starts at {start}, and {}..={} was asked for",
            oracle.start, oracle.start_max
        ));
    }
    let floor = oracle.floor(how).max(start);
    if end < floor {
        return Err(format!("ends at {end}, and everything below {floor} was promised ({how:?})"));
    }
    if end > oracle.end() {
        return Err(format!("ends at {end}, and only {} was ever appended", oracle.end()));
    }
    if !oracle.is_boundary(end) {
        return Err(format!("ends at {end}, in the middle of a batch"));
    }
    if (log.durable_offset(), log.high_watermark(), report.end_offset) != (end, end, end) {
        return Err(format!(
            "ends at {end}, durable {}, high watermark {}, report {}",
            log.durable_offset(),
            log.high_watermark(),
            report.end_offset
        ));
    }
    match how {
        End::Closed if !found.clean => return Err("was closed, and opens as if it was not".into()),
        _ if oracle.epoch == 0 => {}
        End::Closed if found.epoch != oracle.epoch => {
            return Err(format!("epoch {} after {} without a crash", found.epoch, oracle.epoch));
        }
        // A recovery that nobody has heard of may have raised it.
        _ if found.clean && found.epoch < oracle.epoch => {
            return Err(format!("epoch {} after {}", found.epoch, oracle.epoch));
        }
        _ if !found.clean && found.epoch <= oracle.epoch => {
            return Err(format!("epoch {} after {} and a crash", found.epoch, oracle.epoch));
        }
        _ => {}
    }
    contents(store, oracle, Visibility::Stored, start, end)?;
    producer(log, oracle, start, end)?;
    Ok(found)
}

/// Reads everything and compares it.
pub fn contents(
    store: &Store,
    oracle: &Oracle,
    visibility: Visibility,
    start: u64,
    end: u64,
) -> Result<(), String> {
    let mut next = start;
    let reached = store.visit(visibility, |offset, bytes| {
        if offset != next {
            return Err(format!("offset {next} expected, {offset} found"));
        }
        next += 1;
        oracle.check(offset, bytes)
    })?;
    if reached != end && !(start == end && reached <= end) {
        return Err(format!("reading ends at {reached}, and {end} was announced"));
    }
    Ok(())
}

/// Whether the idempotent producer is where the log's contents say.
pub fn producer(log: &Log, oracle: &Oracle, start: u64, end: u64) -> Result<(), String> {
    let known = log.last_sequence(PRODUCER).map_err(|e| e.to_string())?;
    match oracle.last_sequence(end) {
        Some((_, at)) if at < start && oracle.bare => Ok(()),
        expected if expected.map(|(sequence, _)| (0, sequence)) == known => Ok(()),
        expected => Err(format!("the producer's last sequence is {known:?}, not {expected:?}")),
    }
}
