//! Moving dead records to a dead-letter topic: one journal batch says both that they are done and what is to be appended.

use logmill_storage::{AppendOptions, Durability, Entry as JournalEntry, Header, Intent, Record};

use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::known::OWNER;
use crate::partition::{OpenLog, Partition, PartitionCore};
use crate::state::State;
use crate::{PartitionId, partition_for_key};

/// Copies of more bytes than this go in several batches, so that memory and the journal's batches stay small.
const MOVE_BYTES_MAX: usize = 4 << 20;

/// A record that is not to be delivered again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dead {
    pub(super) offset: u64,
    pub(super) reason: &'static str,
}

/// Ends the first of the records and says that their copies go to `topic`, in one batch: a crash leaves both or neither, and
/// what is left to be appended is appended at the next open. Returns how many it were; `None` if `topic` was deleted, which
/// takes nothing any more. The batch is stored, and not synced. `done` sees the state that the batch will follow.
pub(super) fn move_first(
    topic: u32,
    from: &Partition,
    log: &OpenLog,
    group: &str,
    dead: &[Dead],
    deliveries: impl Fn(u64) -> u32,
    done: impl Fn(&State, &[Dead]) -> Result<Entry<'static>>,
) -> Result<Option<usize>> {
    let shared = &from.shared;
    let partitions = shared.topics.read().by_id(topic).map(|core| core.partition_count());
    let Some(partitions) = partitions else { return Ok(None) };
    let (mut copies, mut bytes, mut moved) = (Vec::new(), 0, 0);
    for dead in dead {
        // One that compaction or retention took meanwhile has no copy.
        let found = match log.get(dead.offset) {
            Err(logmill_storage::Error::OffsetOutOfRange { offset, start, .. })
                if offset < start =>
            {
                None
            }
            // Its files may be gone.
            Err(_) if from.topic.is_deleted() => return Err(from.unknown()),
            found => found?,
        };
        if let Some(record) = found {
            bytes += record.len_in_memory();
            if bytes > MOVE_BYTES_MAX && moved > 0 {
                break;
            }
            copies.push((dead, record));
        }
        moved += 1;
    }
    let name = from.name();
    let facts: Vec<[(&str, String); 6]> = copies
        .iter()
        .map(|(dead, _)| {
            [
                ("logmill.dead.group", group.to_owned()),
                ("logmill.dead.topic", name.topic.to_string()),
                ("logmill.dead.partition", name.partition.to_string()),
                ("logmill.dead.offset", dead.offset.to_string()),
                ("logmill.dead.deliveries", deliveries(dead.offset).to_string()),
                ("logmill.dead.reason", dead.reason.to_owned()),
            ]
        })
        .collect();
    let headers: Vec<Vec<Header<'_>>> = copies
        .iter()
        .zip(&facts)
        .map(|((_, record), facts)| {
            let own = record.headers.iter().map(|(name, value)| Header { name, value });
            own.chain(facts.iter().map(|(name, value)| Header { name, value: value.as_bytes() }))
                .collect()
        })
        .collect();
    let targets: Vec<String> = copies
        .iter()
        .map(|(_, record)| {
            let partition = match &record.key {
                Some(key) => partition_for_key(key, partitions),
                None => from.number() % partitions,
            };
            PartitionCore::log_name(PartitionId { topic, partition })
        })
        .collect();
    let intents: Vec<Intent<'_>> = copies
        .iter()
        .zip(&headers)
        .zip(&targets)
        .map(|(((_, record), headers), log)| {
            let copy = match (&record.key, &record.value) {
                (Some(key), Some(value)) => Record::value(value).key(key),
                (None, Some(value)) => Record::value(value),
                (Some(key), None) => Record::tombstone(key),
                (None, None) => Record::default(),
            };
            Intent { log, record: copy.headers(headers).timestamp(record.timestamp) }
        })
        .collect();
    let intended = shared.intents()?;
    let mut known = shared.known.lock();
    if known.state.topics.get(topic).is_none() {
        return Ok(None);
    }
    let done = done(&known.state, &dead[..moved])?;
    let bytes = done.encoded();
    // Everybody's lock is held here, so nobody waits for a sync.
    let options =
        AppendOptions { durability: Some(Durability::Buffered), ..AppendOptions::default() };
    let entries = [JournalEntry { owner: OWNER, bytes: &bytes }];
    let appended = intended.commit(&entries, &intents, &options).map_err(|error| match error {
        // One that is so large goes alone.
        logmill_storage::Error::RecordTooLarge { bytes, max } => {
            Error::DeadLetterTooLarge { partition: name, offset: dead[0].offset, bytes, max }
        }
        error => error.into(),
    })?;
    known
        .take_in(appended.base_offset, &done, bytes.len())
        .map_err(|what| shared.corrupt(appended.base_offset, what))?;
    drop(known);
    shared.tell_untold();
    Ok(Some(moved))
}
