//! Who a named producer is: its id and epoch, and the gate that keeps its predecessors out.

use std::collections::HashMap;
use std::sync::Arc;

use logmill_storage::{Durability, Producer as LogProducer};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::batch::SEQUENCE_HEADER;
use crate::entry::Entry;
use crate::error::{Error, NameKind, Result};
use crate::partition::OpenLog;
use crate::routes::Routes;
use crate::shared::{Level, Shared};
use crate::topic::TopicCore;
use crate::{PartitionId, name};

/// Holds the epoch of a named producer that may append now.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    epoch: RwLock<u32>,
}

/// The gates of the producers that were opened in this process.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    by_id: Mutex<HashMap<u64, Arc<Gate>>>,
}

/// A named producer, as one of its incarnations knows itself.
#[derive(Debug)]
pub(super) struct Identity {
    name: String,
    id: u64,
    epoch: u32,
    gate: Arc<Gate>,
}

impl Identity {
    /// Takes the name over: from here on its earlier incarnations are refused.
    pub(super) fn open(shared: &Shared, name: &str) -> Result<Identity> {
        name::check_other(NameKind::Producer, name)?;
        let at_ms = shared.dir.clock().wall_ms();
        let known = shared.look(|state| state.producers.id_of(name));
        let id = match known {
            Some(id) => id,
            None => shared.change(Durability::Buffered, |state| {
                if let Some(id) = state.producers.id_of(name) {
                    return Ok((Vec::new(), id));
                }
                let producer = state.producers.next_id();
                Ok((
                    vec![Entry::ProducerOpened { producer, epoch: 0, at_ms, name }.encoded()],
                    producer,
                ))
            })?,
        };
        let gate = Arc::clone(shared.gates.by_id.lock().entry(id).or_default());
        // Nobody appends under the old epoch while the new one is made durable, and afterwards nobody may.
        let mut current = gate.epoch.write();
        let epoch = shared.change(Durability::Sync, |state| {
            let epoch = state.producers.get(id).map_or(0, |producer| producer.epoch) + 1;
            Ok((vec![Entry::ProducerOpened { producer: id, epoch, at_ms, name }.encoded()], epoch))
        })?;
        *current = epoch;
        drop(current);
        Ok(Identity { name: name.into(), id, epoch, gate })
    }

    /// Keeps later incarnations waiting while this one appends.
    pub(super) fn enter(&self) -> Result<RwLockReadGuard<'_, u32>> {
        let current = self.gate.epoch.read();
        if *current == self.epoch {
            return Ok(current);
        }
        Err(Error::ProducerFenced { name: self.name.clone(), epoch: self.epoch, current: *current })
    }

    /// Where it sends its records of a topic, as far as that is written down.
    pub(super) fn routes(&self, shared: &Shared, topic: u32) -> Routes {
        shared
            .look(|state| state.producers.get(self.id)?.routes.get(&topic).cloned())
            .unwrap_or_default()
    }

    /// Writes down that its records of a topic are spread over `partitions` from the sequence `from` on. Whoever took the name
    /// over has looked at other sequences, and decides by himself.
    pub(super) fn add_route(
        &self,
        shared: &Shared,
        topic: &TopicCore,
        from: u64,
        partitions: u32,
    ) -> Result<()> {
        let _entered = self.enter()?;
        shared.change(Durability::Sync, |state| {
            if state.topics.get(topic.id()).is_none() {
                return Err(Error::UnknownTopic { name: topic.name().into() });
            }
            let route =
                Entry::ProducerRoute { producer: self.id, topic: topic.id(), from, partitions };
            Ok((vec![route.encoded()], ()))
        })
    }

    /// Under which id and epoch a log knows this incarnation.
    pub(super) fn in_log(&self, sequence: i32) -> LogProducer {
        let (id, epoch) = log_producer(self.id, self.epoch);
        LogProducer { id, epoch, sequence }
    }

    /// The sequence that this incarnation's next batch must have in a log.
    pub(super) fn next_in_log(&self, log: &OpenLog) -> Result<i32> {
        let (id, epoch) = log_producer(self.id, self.epoch);
        Ok(match log.last_sequence(id)? {
            Some((known, last)) if known == epoch => next_sequence(last, 1),
            Some(_) | None => 0,
        })
    }

    /// The highest sequence, in the producer's own counting, that a partition has of it.
    pub(super) fn last_sequence(
        &self,
        shared: &Shared,
        partition: PartitionId,
        log: &OpenLog,
    ) -> Result<Option<u64>> {
        let remembered = self.remembered_sequence(shared, partition);
        Ok(remembered.max(sequence_in_log(self.id, self.epoch, log)?))
    }

    /// The part of that which is written down outside of the partition's log.
    pub(super) fn remembered_sequence(
        &self,
        shared: &Shared,
        partition: PartitionId,
    ) -> Option<u64> {
        shared.look(|state| state.producers.get(self.id)?.sequences.get(&partition).copied())
    }
}

/// A log's epochs are 16 bits wide: after so many openings the producer goes on under another id there.
const fn log_producer(id: u64, epoch: u32) -> (i64, i16) {
    let low = (epoch & 0x7FFF) as i16;
    ((id << 20 | (epoch >> 15) as u64).cast_signed(), low)
}

/// Kafka's sequences run through the non-negative i32 and wrap to 0.
pub(super) const fn next_sequence(sequence: i32, by: u32) -> i32 {
    (sequence.cast_unsigned().wrapping_add(by) & 0x7FFF_FFFF).cast_signed()
}

/// What the last record that a log has of a producer says about its sequence.
pub(crate) fn sequence_in_log(id: u64, epoch: u32, log: &OpenLog) -> Result<Option<u64>> {
    let (now, _) = log_producer(id, epoch);
    // Also under the id before, if the present one is new.
    for log_id in [Some(now), now.checked_sub(1).filter(|_| epoch >> 15 > 0)].into_iter().flatten()
    {
        let Some(offset) = log.last_offset_of(log_id)? else { continue };
        if offset < log.start_offset() {
            return Ok(None);
        }
        let found = log.with_record(offset, |record| {
            record
                .headers
                .filter(|header| header.name == SEQUENCE_HEADER)
                .last()
                .and_then(|header| header.value.try_into().ok().map(u64::from_le_bytes))
        })?;
        return Ok(found.flatten());
    }
    Ok(None)
}

/// Writes down the sequences of named producers that only records of a log carry, because these are about to be removed,
/// or could be.
pub(crate) fn remember_sequences(
    shared: &Shared,
    partition: PartitionId,
    log: &OpenLog,
) -> Result<()> {
    let producers: Vec<(u64, u32, Option<u64>)> = shared.look(|state| {
        state
            .producers
            .iter()
            .map(|(id, p)| (id, p.epoch, p.sequences.get(&partition).copied()))
            .collect()
    });
    if producers.is_empty() {
        return Ok(());
    }
    // What is written down must be on the disk: a record that is sent again would count as a duplicate.
    log.sync()?;
    let mut entries = Vec::new();
    for (producer, epoch, remembered) in producers {
        let sequence = sequence_in_log(producer, epoch, log)?;
        if let Some(sequence) = sequence.filter(|_| sequence > remembered) {
            entries.push(Entry::ProducerSequence { producer, partition, sequence }.encoded());
        }
    }
    if entries.is_empty() { Ok(()) } else { shared.change(Level::FREEING, |_| Ok((entries, ()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_knows_each_incarnation_by_another_id_or_a_higher_epoch() {
        assert_eq!(log_producer(1, 1), (1 << 20, 1));
        assert_eq!(log_producer(1, 0x7FFF), (1 << 20, i16::MAX));
        assert_eq!(log_producer(1, 0x8000), ((1 << 20) + 1, 0));
        assert_ne!(log_producer(2, 0).0, log_producer(1, u32::MAX).0);
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(next_sequence(7, 3), 10);
        assert_eq!(next_sequence(i32::MAX, 1), 0);
        assert_eq!(next_sequence(i32::MAX - 1, 3), 1);
    }
}
