//! Reading messages again after they were deleted.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use logmill_storage::{Part, Place, Reader, Visibility};

use super::Queue;
use crate::engine::Engine;
use crate::entry::{Entry, Fact};
use crate::envelope::Past;
use crate::error::{Error, Result};
use crate::location;
use crate::shared::{OWNER, Shared};
use crate::stored::{MessageState, StoredMessage};

/// From where to read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayFrom {
    /// Everything that is kept.
    Start,
    /// Messages sent at that time or later, in ms since 1970.
    Time(i64),
    /// Messages with that sequence or a larger one.
    Sequence(u64),
}

/// Messages of a queue that were sent, deleted or not, in the order in which they lie in the journal. Reading them
/// changes nothing.
#[derive(Debug)]
pub struct Replay {
    queue: Queue,
    from: ReplayFrom,
    /// What is still to be read: (part, from, up to).
    parts: VecDeque<(Part, u64, u64)>,
    reader: Option<(Part, Reader, u64)>,
    buffer: VecDeque<StoredMessage>,
    /// Messages that were read from the cold part already.
    seen: HashSet<u64>,
}

impl Queue {
    /// Reads messages again, also those that were deleted within the queue's
    /// [`keep_deleted`](crate::QueueConfig::keep_deleted) period, without making them receivable. What was deleted
    /// earlier may come too, as long as its space is not given back. Messages come as they were sent, whatever was edited
    /// later; what is sent after the call does not come.
    ///
    /// # Errors
    /// [`Error::Unsupported`]: the queue keeps no deleted messages.
    /// # Cost
    /// A pass over the journal from the oldest kept message on, whatever else is in it.
    pub fn replay(&self, from: ReplayFrom) -> Result<Replay> {
        let shared = &self.shared;
        let keeps = self.with_state(|state| state.config.keep_deleted_ms > 0)?;
        if !keeps {
            return Err(Error::Unsupported {
                what: "replay of a queue that keeps no deleted messages",
            });
        }
        let parts = [Part::Cold, Part::Hot].map(|part| {
            let log = shared.journal.part(part);
            (part, log.start_offset(), log.end_offset())
        });
        Ok(Replay {
            queue: self.clone(),
            from,
            parts: parts.into_iter().collect(),
            reader: None,
            buffer: VecDeque::new(),
            seen: HashSet::new(),
        })
    }
}

impl Shared {
    /// The first offset of a part that some queue keeps for reading again.
    pub(crate) fn kept_from(&self, engine: &mut Engine, part: Part) -> u64 {
        let now = self.now().time;
        let kept = engine.slots.values_mut().filter_map(|slot| {
            slot.state.advance(now);
            slot.state.kept.from(part)
        });
        kept.min().unwrap_or(u64::MAX)
    }
}

impl Replay {
    fn fill(&mut self) -> Result<bool> {
        while self.buffer.is_empty() {
            let (part, mut reader, end) = match self.reader.take() {
                Some(open) => open,
                None => {
                    let Some((part, from, end)) = self.parts.pop_front() else { return Ok(false) };
                    let log = self.queue.shared.journal.part(part);
                    let from = from.max(log.start_offset()).min(end);
                    (part, log.reader_with(from, Visibility::Stored)?, end)
                }
            };
            if reader.position() >= end {
                continue;
            }
            let mut found = Vec::new();
            let Some(batch) = reader.next_batch()? else { continue };
            for record in batch.records() {
                let Ok(record) = record else { break };
                let mut key = record.key.unwrap_or_default();
                let (Some(owner), Some(bytes)) = (crate::codec::take_owner(&mut key), record.value)
                else {
                    continue;
                };
                if owner == OWNER && record.offset < end {
                    let at = location::of(Place::new(part, record.offset));
                    found.extend(message(&self.queue, bytes, at)?);
                }
            }
            self.reader = Some((part, reader, end));
            for message in found {
                let wanted = match self.from {
                    ReplayFrom::Start => true,
                    ReplayFrom::Time(from) => message.sent_at() >= from,
                    ReplayFrom::Sequence(from) => message.sequence() >= from,
                };
                if wanted && (part == Part::Hot || self.seen.insert(message.sequence())) {
                    let again = part == Part::Hot && self.seen.contains(&message.sequence());
                    self.buffer.extend((!again).then_some(message));
                }
            }
        }
        Ok(true)
    }
}

/// The message of the queue that an entry brings, if it brings one.
fn message(queue: &Queue, bytes: &[u8], at: u64) -> Result<Option<StoredMessage>> {
    let entry = Entry::decode(bytes).map_err(|what| Error::Corrupt { offset: at, what: what.0 })?;
    let sequence = match &entry.fact {
        Fact::Sent { sequence, .. } | Fact::Snapshot { sequence, .. }
            if entry.queue == queue.id =>
        {
            *sequence
        }
        Fact::Moved { target, target_sequence, .. } if *target == queue.id => *target_sequence,
        _ => return Ok(None),
    };
    let mut message =
        StoredMessage::unread(queue.id, sequence, at, Past::default(), MessageState::Ready);
    Ok(message.read(Bytes::copy_from_slice(bytes)).then_some(message))
}

impl Iterator for Replay {
    type Item = Result<StoredMessage>;

    fn next(&mut self) -> Option<Result<StoredMessage>> {
        match self.fill() {
            Ok(true) => self.buffer.pop_front().map(Ok),
            Ok(false) => None,
            Err(error) => {
                self.parts.clear();
                Some(Err(error))
            }
        }
    }
}
