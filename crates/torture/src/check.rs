//! Is what a store holds what it has promised?

use logmill_storage::recovery::Verdict;
use logmill_storage::{Log, Visibility};

use crate::oracle::{End, Oracle, key, payload};
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

/// Reads everything and compares it. Of a compacted log the latest record of each key is there.
pub fn contents(
    store: &Store,
    oracle: &Oracle,
    visibility: Visibility,
    start: u64,
    end: u64,
) -> Result<(), String> {
    let mut next = start;
    let mut gone = Vec::new();
    let reached = store.visit(visibility, |offset, bytes| {
        if offset > next && store.is_keyed() {
            gone.extend(next..offset);
        } else if offset != next {
            return Err(format!("offset {next} expected, {offset} found"));
        }
        next = offset + 1;
        oracle.check(offset, bytes)
    })?;
    if reached != end && !(start == end && reached <= end) {
        return Err(format!("reading ends at {reached}, and {end} was announced"));
    }
    if store.is_keyed() {
        gone.extend(next..end);
    }
    let later = |offset: u64| {
        let after = (offset + 1..end).filter(|later| gone.binary_search(later).is_err());
        let key_of = |offset: u64| oracle.slots.get(offset as usize).map(|slot| key(slot.id));
        after.map(key_of).any(|key| key == key_of(offset))
    };
    match gone.iter().find(|offset| !later(**offset)) {
        Some(offset) => Err(format!("offset {offset} is gone, the latest of its key")),
        None => Ok(()),
    }
}

/// The owner of the checkpoint.
pub const CHECKPOINT_OWNER: u64 = 9;

/// What a checkpoint that reaches as far as this says.
pub fn checkpoint_state(hot: u64) -> Vec<u8> {
    payload(hot, 300)
}

/// A checkpoint that loads says what was written, and the one that was acknowledged last has not been lost.
pub fn checkpoint(store: &Store, oracle: &Oracle) -> Result<(), String> {
    let Some(journal) = store.journal() else { return Ok(()) };
    match journal.load_checkpoint(CHECKPOINT_OWNER) {
        Some((reach, state)) if state != checkpoint_state(reach.hot) => {
            Err(format!("a checkpoint up to {} with another state", reach.hot))
        }
        Some((reach, _)) if reach.hot < oracle.checkpoint => {
            Err(format!("a checkpoint up to {}, after {}", reach.hot, oracle.checkpoint))
        }
        // One that is older than the oldest record is of no use, and is not loaded.
        None if oracle.checkpoint > store.log().start_offset() && !oracle.bare => {
            Err(format!("the checkpoint up to {} is gone", oracle.checkpoint))
        }
        _ => Ok(()),
    }
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
