//! What the journal has told so far, and what it must keep for us.
//!
//! ```text
//! hot    . . e . e e | . e . e . |          e: entries of streams
//!                    ^ as of: a snapshot in the cold part knows everything before
//! cold   . S . S                            S: snapshots; the last one counts
//! ```
//! Everything about streams fits into one snapshot, so all that has to be kept is the last snapshot and the entries
//! after it. A prefix of the journal in which the first of those entries lies costs one snapshot to give back.

use logmill_storage::{Carry, Owner, Part, Place, Reach, Replayed};
use parking_lot::Mutex;

use crate::entry::Entry;
use crate::state::State;
use crate::wire::{Malformed, Wire, put_varint};

/// The journal's number for streams.
pub(crate) const OWNER: u64 = 0;

#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) state: State,
    /// What comes next in both parts.
    pub(crate) next: Reach,
    /// Hot entries before this are in a snapshot.
    as_of: u64,
    /// The last snapshot in the cold part.
    snapshot: Option<u64>,
    /// The first hot entry of ours that no snapshot knows.
    first: Option<u64>,
    /// While a snapshot is being carried: as of when, and the first entry since.
    carrying: Option<(u64, Option<u64>)>,
    /// Every intent before this was done, and its log synced, at the last checkpoint.
    intents_from: Reach,
    /// Bytes of our entries since the last checkpoint.
    unchecked_bytes: u64,
    /// The last checkpoint knows everything in the hot part before this.
    checkpointed: u64,
    /// Bytes of the last checkpoint.
    checkpoint_bytes: u64,
}

impl Known {
    /// Takes in an entry that is replayed.
    pub(crate) fn replay(&mut self, replayed: &Replayed<'_>) -> Result<(), Malformed> {
        let offset = replayed.place.offset();
        match replayed.place.part() {
            Part::Hot => self.next.hot = self.next.hot.max(offset + 1),
            Part::Cold => self.next.cold = self.next.cold.max(offset + 1),
        }
        if replayed.owner != OWNER {
            return Ok(());
        }
        match replayed.as_of {
            Some(as_of) => {
                self.state.apply(&Entry::decode(replayed.bytes)?)?;
                (self.snapshot, self.as_of, self.first) = (Some(offset), as_of, None);
                self.next.hot = self.next.hot.max(as_of);
            }
            None if offset < self.as_of => {}
            None => {
                self.take_in(offset, &Entry::decode(replayed.bytes)?, replayed.bytes.len())?;
            }
        }
        Ok(())
    }

    /// Takes in an entry of `len` bytes at `offset` of the hot part.
    pub(crate) fn take_in(
        &mut self,
        offset: u64,
        entry: &Entry<'_>,
        len: usize,
    ) -> Result<(), Malformed> {
        self.state.apply(entry)?;
        self.next.hot = self.next.hot.max(offset + 1);
        self.unchecked_bytes += len as u64;
        self.first.get_or_insert(offset);
        if let Some((_, first_since)) = &mut self.carrying {
            first_since.get_or_insert(offset);
        }
        Ok(())
    }

    /// Notes that the hot part has nothing of ours before `offset` that is not taken in.
    pub(crate) fn reached(&mut self, offset: u64) {
        self.next.hot = self.next.hot.max(offset);
    }

    /// The last checkpoint knows everything in the hot part before this.
    pub(crate) fn checkpointed(&self) -> u64 {
        self.checkpointed
    }

    /// Bytes of the last checkpoint.
    pub(crate) fn checkpoint_bytes(&self) -> u64 {
        self.checkpoint_bytes
    }

    /// The state and all that goes with it, for a checkpoint.
    /// `intents_are_done` says that none that was journaled is needed any more.
    pub(crate) fn checkpoint(&mut self, intents_are_done: bool) -> Vec<u8> {
        self.unchecked_bytes = 0;
        self.checkpointed = self.next.hot;
        if intents_are_done {
            self.intents_from = self.next;
        }
        let mut out = Vec::new();
        // 0 stands for no offset.
        let offsets =
            [self.snapshot, self.first].map(|offset| offset.map_or(0, |offset| offset + 1));
        for number in
            [self.as_of, offsets[0], offsets[1], self.intents_from.hot, self.intents_from.cold]
        {
            put_varint(&mut out, number);
        }
        out.extend(self.state.snapshot());
        self.checkpoint_bytes = out.len() as u64;
        out
    }

    /// From where on the journal may have intents that are not done.
    pub(crate) fn intents_from(&self) -> Reach {
        self.intents_from
    }

    /// Whether more was journaled since the last checkpoint than `bytes`, and than another one would write.
    pub(crate) fn is_checkpoint_due(&self, bytes: u64) -> bool {
        self.unchecked_bytes > self.checkpoint_bytes.max(bytes)
    }

    /// What a checkpoint of everything before `next` says.
    pub(crate) fn from_checkpoint(next: Reach, bytes: &[u8]) -> Result<Known, Malformed> {
        let mut wire = Wire(bytes);
        let as_of = wire.varint()?;
        let snapshot = wire.varint()?.checked_sub(1);
        let first = wire.varint()?.checked_sub(1);
        let intents_from = Reach { hot: wire.varint()?, cold: wire.varint()? };
        let mut state = State::default();
        state.apply(&Entry::decode(wire.0)?)?;
        let checkpoint_bytes = bytes.len() as u64;
        Ok(Known {
            state,
            next,
            as_of,
            snapshot,
            first,
            intents_from,
            checkpointed: next.hot,
            checkpoint_bytes,
            ..Known::default()
        })
    }
}

/// The part that streams play in giving back the journal's space.
#[derive(Debug)]
pub(crate) struct StreamsOwner<'a>(pub(crate) &'a Mutex<Known>);

impl Owner for StreamsOwner<'_> {
    fn number(&self) -> u64 {
        OWNER
    }

    fn live_bytes(&self, part: Part, bounds: &[u64]) -> Vec<u64> {
        let known = self.0.lock();
        let needed = match part {
            Part::Hot => known.first,
            Part::Cold => known.snapshot,
        };
        let mut live = vec![0; bounds.len().saturating_sub(1)];
        if let Some(offset) = needed {
            let stretch = bounds.partition_point(|bound| *bound <= offset).saturating_sub(1);
            if let Some(bytes) = live.get_mut(stretch) {
                *bytes = known.state.snapshot().len() as u64;
            }
        }
        live
    }

    fn carry(&self, part: Part, upto: u64, out: &mut Carry) -> logmill_storage::Result<u64> {
        let mut known = self.0.lock();
        let as_of = known.next.hot;
        let needed = match part {
            Part::Hot => known.first,
            Part::Cold => known.snapshot,
        };
        if needed.is_some_and(|offset| offset < upto) {
            out.say(&known.state.snapshot());
            known.carrying = Some((as_of, None));
        }
        Ok(as_of)
    }

    fn carried(&self, _: Part, _: u64, places: &[Place]) {
        let mut known = self.0.lock();
        if let (Some((as_of, first_since)), Some(place)) = (known.carrying.take(), places.first()) {
            (known.as_of, known.first, known.snapshot) = (as_of, first_since, Some(place.offset()));
        }
    }

    fn not_carried(&self) {
        self.0.lock().carrying = None;
    }
}
