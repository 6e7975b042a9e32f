//! How many bytes of which stretch of the journal are needed: kept as messages come and go, so that nobody has to
//! look at them all.

use std::collections::{BTreeMap, HashSet, VecDeque};

use logmill_storage::Part;

use crate::codec::{Decoded, Malformed};
use crate::graves::Graves;
use crate::location;
use crate::run::{Item, Run};

/// Entries that are counted together.
const BUCKET: u64 = 64;
/// What an entry takes in the journal beside its body, roughly.
const OVERHEAD: u64 = 40;
/// So far may the messages of a checkpoint lie apart: 268 million entries, for 32 MiB. One that asks for more is hostile or not
/// worth its memory, and the journal says the same.
const CHECKPOINT_BUCKETS: u64 = 1 << 22;

#[derive(Debug, Default)]
struct Buckets {
    first: u64,
    bytes: VecDeque<u64>,
}

impl Buckets {
    #[inline]
    fn add(&mut self, offset: u64, bytes: u64) {
        let bucket = offset / BUCKET;
        if self.bytes.is_empty() {
            self.first = bucket;
        }
        while bucket < self.first {
            self.bytes.push_front(0);
            self.first -= 1;
        }
        let index = usize::try_from(bucket - self.first).unwrap_or(usize::MAX);
        if index >= self.bytes.len() {
            self.bytes.resize(index + 1, 0);
        }
        if let Some(sum) = self.bytes.get_mut(index) {
            *sum += bytes;
        }
    }

    /// Whether a checkpoint may need an entry at `offset`.
    fn admits(&self, offset: u64) -> bool {
        let bucket = offset / BUCKET;
        let last = self.first + self.bytes.len() as u64;
        self.bytes.is_empty() || last.max(bucket) - self.first.min(bucket) < CHECKPOINT_BUCKETS
    }

    #[inline]
    fn remove(&mut self, offset: u64, bytes: u64) {
        let Some(index) =
            (offset / BUCKET).checked_sub(self.first).and_then(|i| usize::try_from(i).ok())
        else {
            return;
        };
        if let Some(sum) = self.bytes.get_mut(index) {
            *sum = sum.saturating_sub(bytes);
        }
        if index == 0 {
            while self.bytes.front() == Some(&0) {
                self.bytes.pop_front();
                self.first += 1;
            }
        }
    }

    /// The sums of the stretches between `bounds`; a bucket counts for the stretch in which it begins.
    fn between(&self, bounds: &[u64]) -> Vec<u64> {
        let bucket_of = |offset: u64| offset.div_ceil(BUCKET).max(self.first) - self.first;
        let sums = bounds.windows(2).enumerate().map(|(i, pair)| {
            let from = if i == 0 { 0 } else { bucket_of(pair[0]) };
            let until = bucket_of(pair[1]).max(from);
            let (from, until) = (
                usize::try_from(from).unwrap_or(usize::MAX),
                usize::try_from(until).unwrap_or(usize::MAX),
            );
            self.bytes.iter().take(until).skip(from).sum()
        });
        sums.collect()
    }
}

/// Adds neighbouring entries together: a checkpoint may name ten millions.
#[derive(Debug)]
pub(crate) struct AddMany<'a> {
    space: &'a mut Space,
    /// The first of those that are not added yet, and their bytes.
    at: u64,
    bytes: u64,
}

impl AddMany<'_> {
    #[inline]
    pub(crate) fn add(&mut self, at: u64, size: u32) -> Decoded<()> {
        if at / BUCKET != self.at / BUCKET {
            self.flush()?;
            self.at = at;
        }
        self.bytes += u64::from(size) + OVERHEAD;
        Ok(())
    }

    pub(crate) fn end(mut self) -> Decoded<()> {
        self.flush()
    }

    fn flush(&mut self) -> Decoded<()> {
        if self.bytes > 0 {
            self.space.admit(self.at, std::mem::take(&mut self.bytes))?;
        }
        Ok(())
    }
}

/// The needed bytes of both parts of the journal, and the graves.
///
/// A grave is a message that is gone and has a copy in the cold part: its marker must be carried there before the hot
/// segment that holds it goes. In its run a grave's `location` is that of the marker, its `since` the offset of the copy.
///
/// A message that lives, has a copy in the cold part and has changed since has a grave too, dug for the copy: `location` is
/// then the first entry that the copy does not know, `size` the message's. It must be copied anew before that entry goes.
#[derive(Debug, Default)]
pub(crate) struct Space {
    hot: Buckets,
    cold: Buckets,
    graves: BTreeMap<u32, Graves>,
    /// What changed since a carry looked at it that has not ended yet.
    changed: Option<HashSet<(u32, u64)>>,
}

impl Space {
    fn part(&mut self, at: u64) -> &mut Buckets {
        if at & location::COLD == 0 { &mut self.hot } else { &mut self.cold }
    }

    /// Notes that the entry at `at` is needed.
    #[inline]
    pub(crate) fn add(&mut self, at: u64, size: u32) {
        self.part(at).add(at & !location::COLD, u64::from(size) + OVERHEAD);
    }

    /// Notes that a checkpoint needs the entry at `at`, and those next to it, which take `bytes`.
    fn admit(&mut self, at: u64, bytes: u64) -> Decoded<()> {
        let (buckets, offset) = (self.part(at), at & !location::COLD);
        if !buckets.admits(offset) {
            return Err(Malformed("messages of a checkpoint too far apart"));
        }
        buckets.add(offset, bytes);
        Ok(())
    }

    /// As [`Space::add`], for what a checkpoint says.
    pub(crate) fn add_known(&mut self, at: u64, size: u32) -> Decoded<()> {
        self.admit(at, u64::from(size) + OVERHEAD)
    }

    /// Notes that many entries are needed, neighbours after each other.
    pub(crate) fn add_many(&mut self) -> AddMany<'_> {
        AddMany { space: self, at: 0, bytes: 0 }
    }

    /// Notes that the entry at `at` is not needed any more.
    #[inline]
    pub(crate) fn remove(&mut self, at: u64, size: u32) {
        self.part(at).remove(at & !location::COLD, u64::from(size) + OVERHEAD);
    }

    /// Notes that a message is gone whose body was at `location`, by a marker at `marker`.
    #[inline]
    pub(crate) fn bury(&mut self, queue: u32, sequence: u64, location: u64, marker: u64) {
        if location & location::COLD != 0 && marker & location::COLD == 0 {
            let since = (location & !location::COLD).cast_signed();
            self.graves.entry(queue).or_default().change(sequence, |grave| {
                // A carry that came to nothing may have left a later copy.
                let since = grave.map_or(since, |grave| grave.since.max(since));
                Item { sequence, location: marker, since, size: 0 }
            });
        }
    }

    /// Whether changes of messages have to be noted: there are copies, or some are being made.
    #[inline]
    pub(crate) fn notes_changes(&self) -> bool {
        self.changed.is_some() || !self.cold.bytes.is_empty()
    }

    /// Notes that the entry at `marker` changes a message whose body is at `location`.
    pub(crate) fn note_change(
        &mut self,
        queue: u32,
        sequence: u64,
        location: u64,
        size: u32,
        marker: u64,
    ) {
        if marker & location::COLD != 0 {
            return;
        }
        if let Some(changed) = &mut self.changed {
            changed.insert((queue, sequence));
        }
        if location & location::COLD == 0 {
            return;
        }
        let since = (location & !location::COLD).cast_signed();
        self.graves.entry(queue).or_default().change(sequence, |grave| {
            // Of several changes since the last copy the first counts.
            grave.filter(|grave| grave.since >= since).unwrap_or(Item {
                sequence,
                location: marker,
                since,
                size,
            })
        });
    }

    /// Begins to note what changes while copies are made.
    pub(crate) fn carry_begins(&mut self) {
        self.changed = Some(HashSet::new());
    }

    /// What changed since the carry began.
    pub(crate) fn carry_ends(&mut self) -> HashSet<(u32, u64)> {
        self.changed.take().unwrap_or_default()
    }

    /// Notes that there may be a copy of the message before `end` of the cold part, of a carry that came to nothing; the first
    /// entry that says what the copy must not hide is at `marker`, or where an older copy has it.
    pub(crate) fn left_behind(&mut self, queue: u32, sequence: u64, end: u64, marker: u64) {
        let since = end.cast_signed();
        self.graves.entry(queue).or_default().change(sequence, |grave| match grave {
            None => Item { sequence, location: marker, since, size: 0 },
            Some(grave) => Item {
                location: grave.location.min(marker),
                since: grave.since.max(since),
                ..grave
            },
        });
    }

    /// Notes that the message has a copy at `copy`, and has changed since, from `changed_from` on.
    pub(crate) fn copied(
        &mut self,
        queue: u32,
        sequence: u64,
        copy: u64,
        size: u32,
        changed_from: Option<u64>,
    ) {
        if let Some(graves) = self.graves.get_mut(&queue) {
            graves.remove(sequence);
        }
        if let Some(as_of) = changed_from {
            self.note_change(queue, sequence, copy, size, as_of);
        }
    }

    /// Adds to the stretches of the hot part between `bounds` what must be copied anew before they go.
    pub(crate) fn add_changed(&self, bounds: &[u64], live: &mut [u64]) {
        for grave in self.graves.values().flat_map(Graves::iter).filter(|grave| grave.size > 0) {
            let at = bounds.partition_point(|bound| *bound <= grave.location).saturating_sub(1);
            if let Some(bytes) = live.get_mut(at) {
                *bytes += u64::from(grave.size) + OVERHEAD;
            }
        }
    }

    /// The messages of each queue whose marker lies in the hot part below `upto` and whose copy is still there.
    pub(crate) fn graves_below(&self, upto: u64) -> Vec<(u32, Vec<u64>)> {
        let below = |graves: &Graves| -> Vec<u64> {
            let below = graves.iter().filter(|grave| grave.location < upto);
            below.map(|grave| grave.sequence).collect()
        };
        let graves = self.graves.iter().map(|(queue, graves)| (*queue, below(graves)));
        graves.filter(|(_, graves)| !graves.is_empty()).collect()
    }

    /// Notes that the markers of the graves that lay below `upto` are in the cold part now.
    pub(crate) fn graves_carried(&mut self, upto: u64) {
        self.keep_graves(|grave| grave.location >= upto);
    }

    /// Notes that the cold part now begins at `start`: the copies before it are gone.
    pub(crate) fn copies_dropped(&mut self, start: u64) {
        self.keep_graves(|grave| grave.since.cast_unsigned() >= start);
    }

    fn keep_graves(&mut self, keep: impl Fn(&Item) -> bool) {
        self.graves.retain(|_, graves| {
            graves.retain(&keep);
            !graves.is_empty()
        });
    }

    pub(crate) fn forget_queue(&mut self, queue: u32) {
        self.graves.remove(&queue);
    }

    /// The graves of each queue, for a checkpoint.
    pub(crate) fn graves(&mut self) -> &mut BTreeMap<u32, Graves> {
        &mut self.graves
    }

    pub(crate) fn set_graves(&mut self, queue: u32, graves: Run) {
        self.graves.insert(queue, Graves::of(graves));
    }

    /// Needed bytes in each stretch between `bounds`, which begin where the part does.
    pub(crate) fn between(&self, part: Part, bounds: &[u64]) -> Vec<u64> {
        match part {
            Part::Hot => self.hot.between(bounds),
            Part::Cold => self.cold.between(bounds),
        }
    }

    /// Needed bytes of a part.
    pub(crate) fn total(&self, part: Part) -> u64 {
        match part {
            Part::Hot => self.hot.bytes.iter().sum(),
            Part::Cold => self.cold.bytes.iter().sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by fuzzing: two messages at the ends of what an offset can be asked for a table of everything between them.
    #[test]
    fn messages_that_a_checkpoint_has_too_far_apart_are_refused_before_memory_is_taken() {
        let mut space = Space::default();
        let mut many = space.add_many();
        many.add(5 << 40, 10).unwrap();
        many.add((5 << 40) + BUCKET * (CHECKPOINT_BUCKETS - 1), 10).unwrap();
        assert!(many.end().is_ok());
        for far in [0, (5 << 40) + BUCKET * CHECKPOINT_BUCKETS, location::COLD - 1] {
            let mut many = space.add_many();
            many.add(far, 10).unwrap();
            assert!(many.end().is_err(), "{far}");
        }
        let mut many = space.add_many();
        many.add(location::COLD | 7, 10).unwrap();
        assert!(many.end().is_ok(), "the cold part counts for itself");
    }

    #[test]
    fn what_is_needed_is_summed_by_stretch_and_vanishes_when_it_goes() {
        let mut space = Space::default();
        for offset in 100..1000u64 {
            space.add(offset, 60);
        }
        space.add(location::COLD | 5, 10);
        assert_eq!(space.between(Part::Cold, &[0, 64]), [50]);
        let sums = space.between(Part::Hot, &[0, 128, 640, 2000]);
        assert_eq!(sums, [28 * 100, 512 * 100, 360 * 100]);
        for offset in 100..999u64 {
            space.remove(offset, 60);
        }
        assert_eq!(space.between(Part::Hot, &[0, 128, 640, 2000]), [0, 0, 100]);
        space.remove(999, 60);
        assert_eq!(space.total(Part::Hot), 0);
    }
}
