//! What a store has promised, kept outside of it.

use std::collections::BTreeMap;

use crate::random::mix;

/// One record that was given an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its number; none is given twice, so nothing can be taken for something else.
    pub id: u64,
    /// Length of its value in bytes.
    pub len: u32,
    /// Whether it is the last of its batch.
    pub ends: bool,
    /// The last sequence of its batch, if an idempotent producer sent it.
    pub sequence: Option<i32>,
}

/// How a session of a store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By `close`, which said Ok.
    Closed,
    /// The process died; what was stored is there.
    Process,
    /// The power went; what was durable is there.
    Power,
    /// A write or a sync failed before: only what was durable is sure, also if just the process died.
    Failure,
}

/// The promises.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// What was given the offsets `0..`, whether acknowledged or not.
    pub slots: Vec<Slot>,
    /// Every offset below survives power loss.
    pub durable: u64,
    /// Every offset below survives kill -9.
    pub stored: u64,
    /// Every offset below is gone for good.
    pub start: u64,
    /// The removal of every offset below was asked for.
    pub start_max: u64,
    /// The last epoch that anybody has seen.
    pub epoch: u32,
    /// What was acknowledged at (epoch, offset), for ever.
    acknowledged: BTreeMap<(u32, u64), u64>,
    next_id: u64,
    /// How far the checkpoint of the journal goes that was acknowledged last.
    pub checkpoint: u64,
    /// Derived files were taken away: what only they know of records that are gone is gone.
    pub bare: bool,
    /// Acknowledged appends, so that a run that did nothing cannot pass.
    pub acks: u64,
}

/// The key of a record in a log that is compacted.
pub const fn key(id: u64) -> u8 {
    (mix(id) % 4) as u8
}

/// The value of a record: its number, and bytes that follow from it.
pub fn payload(id: u64, len: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len as usize + 8);
    bytes.extend_from_slice(&id.to_le_bytes());
    let mut word = id;
    while bytes.len() < len as usize {
        word = mix(word.wrapping_add(1));
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(len as usize);
    bytes
}

impl Oracle {
    /// The next offset to be given.
    pub fn end(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Gives offsets to a batch of records of these lengths.
    pub fn begin(&mut self, lens: &[u32], sequence: Option<i32>) -> Vec<Slot> {
        let slots: Vec<Slot> = lens
            .iter()
            .enumerate()
            .map(|(i, len)| {
                self.next_id += 1;
                Slot { id: self.next_id, len: *len, ends: i + 1 == lens.len(), sequence }
            })
            .collect();
        self.slots.extend_from_slice(&slots);
        slots
    }

    /// What was given offsets from `end` on has not been appended.
    pub fn forget_from(&mut self, end: u64) {
        self.slots.truncate(usize::try_from(end).unwrap_or(usize::MAX));
    }

    /// The offsets below `end` were acknowledged, the ones from `from` on in `epoch` and just now.
    pub fn acknowledge(&mut self, from: u64, end: u64, epoch: u32) -> Result<(), String> {
        self.acks += 1;
        for offset in from..end {
            let Some(slot) = self.slots.get(offset as usize) else { continue };
            if let Some(old) = self.acknowledged.insert((epoch, offset), slot.id)
                && old != slot.id
            {
                return Err(format!(
                    "offset {offset} of epoch {epoch} was acknowledged for record {old} and again for {}",
                    slot.id
                ));
            }
        }
        Ok(())
    }

    /// Somebody was told, or has seen in a log that shows durable records only, that all below `end` is durable.
    pub fn promise_durable(&mut self, end: u64) -> Result<(), String> {
        if end > self.end() {
            return Err(format!("{end} is called durable, and only {} was appended", self.end()));
        }
        self.durable = self.durable.max(end);
        self.stored = self.stored.max(end);
        Ok(())
    }

    /// Somebody was told, or has seen, that all below `end` is stored.
    pub fn promise_stored(&mut self, end: u64) -> Result<(), String> {
        if end > self.end() {
            return Err(format!("{end} is called stored, and only {} was appended", self.end()));
        }
        self.stored = self.stored.max(end);
        Ok(())
    }

    /// The least end that a store may have after such an end of its session.
    pub fn floor(&self, how: End) -> u64 {
        match how {
            End::Closed => self.end(),
            End::Process => self.stored,
            End::Power | End::Failure => self.durable,
        }
    }

    /// Whether the log may end at `end`: between batches.
    pub fn is_boundary(&self, end: u64) -> bool {
        end == 0
            || end <= self.start_max
            || self.slots.get(end as usize - 1).is_some_and(|s| s.ends)
    }

    /// The last sequence of the producer before `end`, and the offset of its batch's last record.
    pub fn last_sequence(&self, end: u64) -> Option<(i32, u64)> {
        let before = &self.slots[..(end as usize).min(self.slots.len())];
        let at = before.iter().rposition(|slot| slot.sequence.is_some())?;
        before[at].sequence.map(|sequence| (sequence, at as u64))
    }

    /// Recovery has found this much, which is durable from now on; the rest never was.
    pub fn settle(&mut self, start: u64, end: u64, epoch: u32) {
        self.forget_from(end);
        self.durable = end;
        self.stored = end;
        self.start = start;
        self.start_max = start;
        self.epoch = epoch;
    }

    /// Whether `bytes` is what was appended at `offset`.
    pub fn check(&self, offset: u64, bytes: &[u8]) -> Result<(), String> {
        let Some(slot) = usize::try_from(offset).ok().and_then(|at| self.slots.get(at)) else {
            return Err(format!(
                "offset {offset} was never given, and holds {} bytes",
                bytes.len()
            ));
        };
        if bytes == payload(slot.id, slot.len) {
            return Ok(());
        }
        let found = bytes.first_chunk::<8>().map(|id| u64::from_le_bytes(*id));
        Err(format!("offset {offset} holds {found:?}, and {} was appended there", slot.id))
    }
}
