//! The sparse indexes of a segment: offset → position, and timestamp → offset.
//!
//! An index is derived from the log and is never evidence about it: whoever uses an entry looks at the frame there and
//! falls back to scanning from the start of the segment when it does not fit. So an index file may be missing, stale,
//! damaged or of another log, and only time is lost.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use byteorder::{ByteOrder, LittleEndian as LE};

use crate::error::Corruption;
use crate::layout::OFFSET_END;

/// One offset entry for the first frame in each stretch of this many bytes.
pub(crate) const OFFSET_STRETCH: u64 = 4 << 10;
/// One time entry for each stretch of this many bytes.
pub(crate) const TIME_STRETCH: u64 = 64 << 10;

pub(crate) const MAGIC: &[u8; 8] = b"LOGMILLI";
const VERSION: u16 = 1;
const HEAD_LEN: usize = 44;
const OFFSETS: u16 = 1;
const TIMES: u16 = 2;
const OFFSET_ENTRY: usize = 8;
const TIME_ENTRY: usize = 12;

/// Where a frame is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    /// Offset minus the segment's base offset.
    pub delta: u32,
    pub position: u32,
}

/// No record before `delta` has a timestamp above `max_timestamp`, that is: up to the frame at `delta`, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub max_timestamp: i64,
    pub delta: u32,
}

/// Both indexes of one segment, in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// What it begins with: it knows of no frame before this one, and of no time then. All zero: it is whole.
    from: OffsetEntry,
    offsets: Vec<OffsetEntry>,
    times: Vec<TimeEntry>,
}

impl Index {
    /// One that will know the frames from this one on.
    pub fn beginning_at(from: OffsetEntry) -> Index {
        Index { from, ..Index::default() }
    }

    /// Whether it can tell where to begin when looking for `delta`; for a time it has to be whole.
    pub fn reaches(&self, delta: u32) -> bool {
        self.from.delta <= delta
    }

    /// Notes a frame; frames come in order. `max_timestamp` is the largest of the segment up to and with this frame.
    #[inline]
    pub fn note(&mut self, delta: u32, position: u64, max_timestamp: i64) {
        if !self.note_behind_damage(delta, position) {
            return;
        }
        let stretch = |entry: &OffsetEntry| u64::from(entry.position) / TIME_STRETCH;
        let before = self.offsets.iter().nth_back(1).map(stretch);
        if before != Some(position / TIME_STRETCH) {
            self.times.push(TimeEntry { max_timestamp, delta });
        }
    }

    /// As [`note`](Self::note), where nobody knows the timestamps of what comes before. Whether there is a new entry.
    #[inline]
    pub fn note_behind_damage(&mut self, delta: u32, position: u64) -> bool {
        let Ok(at) = u32::try_from(position) else { return false };
        let stretch = |position: u64| position / OFFSET_STRETCH;
        let before = self.offsets.last().map(|last| stretch(u64::from(last.position)));
        let is_new = before != Some(stretch(position));
        if is_new {
            self.offsets.push(OffsetEntry { delta, position: at });
        }
        is_new
    }

    /// The entry to begin at when looking for `delta`, if it is not the segment's start.
    pub fn floor(&self, delta: u32) -> Option<OffsetEntry> {
        let after = self.offsets.partition_point(|entry| entry.delta <= delta);
        let last = after.checked_sub(1).and_then(|last| self.offsets.get(last));
        last.copied().or_else(|| (self.from.delta > 0).then_some(self.from))
    }

    /// The offset delta to begin at when looking for the first timestamp at or above `ms`.
    pub fn before_time(&self, ms: i64) -> Option<u32> {
        let after = self.times.partition_point(|entry| entry.max_timestamp < ms);
        self.times.get(after.checked_sub(1)?).map(|entry| entry.delta)
    }

    /// Forgets what is at or after `position`.
    pub fn truncate(&mut self, position: u64) {
        let keep = self.offsets.partition_point(|entry| u64::from(entry.position) < position);
        let end = self.offsets.get(keep).map(|entry| entry.delta);
        self.offsets.truncate(keep);
        if let Some(end) = end {
            let keep = self.times.partition_point(|entry| entry.delta < end);
            self.times.truncate(keep);
        }
    }

    /// The bytes of the offset index file and of the time index file.
    pub fn encode(&self, log_id: &[u8; 16], base_offset: u64) -> (Vec<u8>, Vec<u8>) {
        let mut offsets = head(OFFSETS, log_id, base_offset, self.offsets.len(), OFFSET_ENTRY);
        for entry in &self.offsets {
            let mut bytes = [0; OFFSET_ENTRY];
            LE::write_u32(&mut bytes[0..4], entry.delta);
            LE::write_u32(&mut bytes[4..8], entry.position);
            offsets.extend_from_slice(&bytes);
        }
        let mut times = head(TIMES, log_id, base_offset, self.times.len(), TIME_ENTRY);
        for entry in &self.times {
            let mut bytes = [0; TIME_ENTRY];
            LE::write_i64(&mut bytes[0..8], entry.max_timestamp);
            LE::write_u32(&mut bytes[8..12], entry.delta);
            times.extend_from_slice(&bytes);
        }
        seal(&mut offsets);
        seal(&mut times);
        (offsets, times)
    }

    /// Decodes both files of the segment at `base_offset`.
    pub fn decode(
        offsets: &[u8],
        times: &[u8],
        log_id: &[u8; 16],
        base_offset: u64,
    ) -> Result<Index, Corruption> {
        let offsets = offset_entries(offsets, log_id, base_offset)?;
        let times = time_entries(times, log_id, base_offset)?;
        let rising = offsets.is_sorted_by(|a, b| a.delta < b.delta && a.position < b.position)
            && times.is_sorted_by(|a, b| a.delta < b.delta && a.max_timestamp <= b.max_timestamp);
        if rising {
            Ok(Index { offsets, times, ..Index::default() })
        } else {
            Err(Corruption::Field("index entries out of order"))
        }
    }
}

fn head(kind: u16, log_id: &[u8; 16], base_offset: u64, count: usize, width: usize) -> Vec<u8> {
    let mut head = [0; HEAD_LEN];
    head[..8].copy_from_slice(MAGIC);
    LE::write_u16(&mut head[8..], VERSION);
    LE::write_u16(&mut head[10..], kind);
    head[12..28].copy_from_slice(log_id);
    LE::write_u64(&mut head[28..], base_offset);
    LE::write_u32(&mut head[36..], u32::try_from(count).unwrap_or(u32::MAX));
    let mut bytes = Vec::with_capacity(HEAD_LEN.saturating_add(count.saturating_mul(width)));
    bytes.extend_from_slice(&head);
    bytes
}

/// Of all bytes but the last four of the head, where it is.
fn crc(head: &[u8; HEAD_LEN], entries: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[..40]);
    hasher.update(entries);
    hasher.finalize()
}

fn seal(bytes: &mut [u8]) {
    let (head, entries) = bytes.split_first_chunk_mut().expect("a file begins with its head");
    let crc = crc(head, entries);
    LE::write_u32(&mut head[40..], crc);
}

fn entries<'a, const WIDTH: usize>(
    bytes: &'a [u8],
    kind: u16,
    log_id: &[u8; 16],
    base_offset: u64,
) -> Result<&'a [[u8; WIDTH]], Corruption> {
    let Some((head, entries)) = bytes.split_first_chunk() else {
        return Err(Corruption::Truncated { expected: HEAD_LEN as u64, found: bytes.len() as u64 });
    };
    if head[..8] != MAGIC[..] {
        return Err(Corruption::Magic);
    }
    match LE::read_u16(&head[8..]) {
        VERSION => {}
        found => return Err(Corruption::Version { found }),
    }
    let (expected, found) = (crc(head, entries), LE::read_u32(&head[40..]));
    if expected != found {
        return Err(Corruption::Checksum { expected, found });
    }
    let own = LE::read_u16(&head[10..]) == kind
        && head[12..28] == log_id[..]
        && LE::read_u64(&head[28..]) == base_offset;
    if !own {
        return Err(Corruption::Misplaced);
    }
    let (expected, found) =
        (u64::from(LE::read_u32(&head[36..])).saturating_mul(WIDTH as u64), entries.len() as u64);
    if expected != found {
        return Err(Corruption::Truncated { expected, found });
    }
    Ok(entries.as_chunks().0)
}

/// One index file by itself, as `dump` shows it.
#[derive(Debug)]
pub(crate) struct IndexFile {
    pub log_id: [u8; 16],
    pub base_offset: u64,
    pub entries: Entries,
}

/// The entries of an index file, of either kind.
#[derive(Debug)]
pub(crate) enum Entries {
    Offsets(Vec<OffsetEntry>),
    Times(Vec<TimeEntry>),
}

impl IndexFile {
    /// Decodes an index file of any log, segment and kind.
    pub fn decode(bytes: &[u8]) -> Result<IndexFile, Corruption> {
        let Some(head) = bytes.first_chunk::<HEAD_LEN>().filter(|head| head[..8] == MAGIC[..])
        else {
            return Err(Corruption::Magic);
        };
        let mut log_id = [0; 16];
        log_id.copy_from_slice(&head[12..28]);
        let base_offset = LE::read_u64(&head[28..]);
        if base_offset >= OFFSET_END {
            return Err(Corruption::Field("an offset beyond 63 bits"));
        }
        let entries = match LE::read_u16(&head[10..]) {
            TIMES => Entries::Times(time_entries(bytes, &log_id, base_offset)?),
            OFFSETS => Entries::Offsets(offset_entries(bytes, &log_id, base_offset)?),
            _ => return Err(Corruption::Field("kind of an index")),
        };
        Ok(IndexFile { log_id, base_offset, entries })
    }
}

fn offset_entries(
    bytes: &[u8],
    log_id: &[u8; 16],
    base_offset: u64,
) -> Result<Vec<OffsetEntry>, Corruption> {
    let entry = |b: &[u8; OFFSET_ENTRY]| OffsetEntry {
        delta: LE::read_u32(&b[0..4]),
        position: LE::read_u32(&b[4..8]),
    };
    Ok(entries(bytes, OFFSETS, log_id, base_offset)?.iter().map(entry).collect())
}

fn time_entries(
    bytes: &[u8],
    log_id: &[u8; 16],
    base_offset: u64,
) -> Result<Vec<TimeEntry>, Corruption> {
    let entry = |b: &[u8; TIME_ENTRY]| TimeEntry {
        max_timestamp: LE::read_i64(&b[0..8]),
        delta: LE::read_u32(&b[8..12]),
    };
    Ok(entries(bytes, TIMES, log_id, base_offset)?.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Index {
        let mut index = Index::default();
        for n in 0..400u32 {
            index.note(n * 3, u64::from(n) * 1000 + 128, i64::from(n) * 10);
        }
        index
    }

    #[test]
    fn the_floor_is_the_last_entry_at_or_before_the_offset() {
        let index = sample();
        assert_eq!(index.floor(0), Some(OffsetEntry { delta: 0, position: 128 }));
        let entry = index.floor(1000).unwrap();
        assert!(entry.delta <= 1000 && entry.position <= 334 * 1000);
        assert!(entry.delta > 1000 - 3 * 6, "an entry for each 4 KiB of 1,000-byte frames");
    }

    #[test]
    fn what_is_cut_off_was_as_good_as_never_noted_and_nothing_is_noted_beyond_4_gib() {
        for kept in 0..=400u32 {
            let mut cut = sample();
            cut.truncate(u64::from(kept) * 1000 + 128);
            let mut noted = Index::default();
            for n in 0..kept {
                noted.note(n * 3, u64::from(n) * 1000 + 128, i64::from(n) * 10);
            }
            assert_eq!(cut, noted, "{kept} frames");
        }
        let mut index = sample();
        index.note(2000, 1 << 32, 5000);
        assert_eq!(index, sample());
        index.note(2000, (1 << 32) - 1, 5000);
        assert_ne!(index, sample());
    }

    #[test]
    fn a_time_look_up_never_begins_after_the_first_record_that_fits() {
        // In the second one many frames have one timestamp.
        for time in [|n: u32| i64::from(n) * 10, |n| i64::from(n / 150) * 1_000] {
            let mut index = Index::default();
            for n in 0..400 {
                index.note(n * 3, u64::from(n) * 1000 + 128, time(n));
            }
            for ms in [-1, 0, 5, 1000, 1234, 2000, 3990, 9999] {
                let first_that_fits = (0..400).find(|n| time(*n) >= ms).unwrap_or(400) * 3;
                let begun = index.before_time(ms).unwrap_or(0);
                assert!(begun <= first_that_fits, "{ms}");
                assert!(begun + 3 * 70 > first_that_fits, "an entry for each 64 KiB");
            }
        }
    }

    #[test]
    fn files_survive_a_round_trip_and_no_flipped_bit_or_cut_goes_unseen() {
        let index = sample();
        let (offsets, times) = index.encode(&[7; 16], 42);
        assert_eq!(Index::decode(&offsets, &times, &[7; 16], 42), Ok(index));
        for (file, other, swap) in [(&offsets, &times, false), (&times, &offsets, true)] {
            let decode = |bytes: &[u8]| match swap {
                false => Index::decode(bytes, other, &[7; 16], 42),
                true => Index::decode(other, bytes, &[7; 16], 42),
            };
            for bit in 0..file.len() * 8 {
                let mut bytes = file.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&bytes).is_err(), "bit {bit}");
            }
            for len in 0..file.len() {
                assert!(decode(&file[..len]).is_err(), "length {len}");
            }
        }
    }

    #[test]
    fn an_index_of_another_log_or_segment_is_refused() {
        let (offsets, times) = sample().encode(&[7; 16], 42);
        assert_eq!(Index::decode(&offsets, &times, &[8; 16], 42), Err(Corruption::Misplaced));
        assert_eq!(Index::decode(&offsets, &times, &[7; 16], 43), Err(Corruption::Misplaced));
        assert_eq!(Index::decode(&times, &offsets, &[7; 16], 42), Err(Corruption::Misplaced));
    }

    #[test]
    fn entries_out_of_order_are_refused_however_rightly_they_are_summed() {
        let refused = Err(Corruption::Field("index entries out of order"));
        let decode = |index: &Index| {
            let (offsets, times) = index.encode(&[7; 16], 42);
            Index::decode(&offsets, &times, &[7; 16], 42)
        };
        let change = |change: fn(&mut Index)| {
            let mut index = sample();
            change(&mut index);
            decode(&index)
        };
        assert_eq!(change(|index| index.offsets[1].delta = index.offsets[0].delta), refused);
        assert_eq!(change(|index| index.offsets[1].position = index.offsets[0].position), refused);
        assert_eq!(change(|index| index.times[1].delta = index.times[0].delta), refused);
        assert_eq!(
            change(|index| index.times[1].max_timestamp = index.times[0].max_timestamp - 1),
            refused
        );
        let same_time = change(|index| index.times[1].max_timestamp = index.times[0].max_timestamp);
        assert!(same_time.is_ok(), "records of one millisecond");
    }

    #[test]
    fn a_count_that_is_not_that_of_the_entries_is_refused() {
        let (mut offsets, times) = sample().encode(&[7; 16], 42);
        let found = (offsets.len() - HEAD_LEN) as u64;
        offsets[36] ^= 1;
        let expected = u64::from(LE::read_u32(&offsets[36..])) * OFFSET_ENTRY as u64;
        seal(&mut offsets);
        let refused = Err(Corruption::Truncated { expected, found });
        assert_eq!(Index::decode(&offsets, &times, &[7; 16], 42), refused);
    }
}
