//! A frame on disk, a batch of records in memory: the unit of append, of checksum and of compression.
//!
//! ```text
//! 0      4        8        12      14         16                    16 + length
//! +------+--------+--------+-------+----------+--------+------------+
//! | crc  | length | delta  | flags | head crc | groups | records    |
//! | u32  | u32    | u32    | u16   | u16      |        |            |
//! +------+--------+--------+-------+----------+--------+------------+
//! ```
//! docs/format.md has the fields. Invariants: `count >= 1`; offsets lie in `base_offset..=last_offset` and rise;
//! the checksum is seeded with log id, epoch and the segment's base offset, so a frame passes in one place only.
//! Not here: where frames lie in a file (`segment`), giving out offsets (`writer`).

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use byteorder::{ByteOrder, LittleEndian as LE};
use bytes::Bytes;

use crate::compress::{self, Compression};
use crate::error::Corruption;
use crate::planted::{self, Bug};
use crate::record::{self, RecordView};
use crate::varint::{self, unzigzag};

#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "encodes what the writer has bounded, nothing that was read from a file"
)]
mod encode;
#[cfg(fuzzing)]
#[expect(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "a fuzzer may panic")]
pub mod fuzzing;

pub(crate) use encode::{Encoder, FrameSpec, end_commit};

pub(crate) const HEAD_LEN: usize = 16;
/// No frame is longer: it holds the largest record and what goes with it at the most.
#[expect(clippy::cast_possible_truncation, reason = "little more than 1 GiB")]
const LENGTH_MAX: u32 = (compress::UNCOMPRESSED_MAX + (64 << 10)) as u32;
/// No frame has more bytes.
pub(crate) const FRAME_MAX: u64 = LENGTH_MAX as u64 + HEAD_LEN as u64;

const CODEC_MASK: u16 = 0b111;
const COUNT: u16 = 1 << 3;
const SPAN: u16 = 1 << 4;
const DURABLE: u16 = 1 << 5;
const PRODUCER: u16 = 1 << 6;
const CONTINUATION: u16 = 1 << 9;
const HORIZON: u16 = 1 << 10;
/// `TRANSACTIONAL`, `CONTROL` and `LOG_APPEND_TIME`: this version writes none of them, and copies them as they are.
const CARRIED: u16 = 1 << 7 | 1 << 8 | 1 << 11;
const ZERO_FLAGS: u16 = 0xF000;

/// The length of the smallest record, so that a count can be checked against the bytes that must hold it.
const RECORD_LEN_MIN: usize = 7;

/// Who appended a batch, so that a retry is recognised: Kafka's producer id, epoch and base sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// The producer; not negative.
    pub id: i64,
    /// Rises when a new incarnation takes over; older ones are then fenced. Not negative.
    pub epoch: i16,
    /// The sequence number of the batch's first record, not negative; after `i32::MAX` comes 0.
    pub sequence: i32,
}

/// What all frames of a segment share, and their checksums are bound to.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    pub base_offset: u64,
    pub base_timestamp: i64,
    pub epoch: u32,
    /// A batch with this offset or a later one does not belong here.
    pub until: u64,
    /// Has taken in what the checksums are seeded with.
    seeded: crc32fast::Hasher,
}

impl Scope {
    pub fn new(log_id: &[u8; 16], epoch: u32, base_offset: u64, base_timestamp: i64) -> Scope {
        let mut block = [0; 28];
        block[..16].copy_from_slice(log_id);
        LE::write_u32(&mut block[16..20], epoch);
        LE::write_u64(&mut block[20..28], base_offset);
        let mut seeded = crc32fast::Hasher::new();
        seeded.update(&block);
        Scope { base_offset, base_timestamp, epoch, until: u64::MAX, seeded }
    }

    #[inline]
    fn crc(&self, bytes: &[u8]) -> u32 {
        let mut hasher = self.seeded.clone();
        hasher.update(bytes);
        hasher.finalize()
    }

    #[inline]
    fn head_crc(&self, head: &[u8; HEAD_LEN]) -> u16 {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is what is stored")]
        let low = self.crc(&head[4..14]) as u16;
        low
    }
}

/// The fixed head of a frame, its own checksum verified. It stays as it was read: fields put together one by one and then moved
/// at once make the processor wait for each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(8))]
pub(crate) struct FrameHead {
    bytes: [u8; HEAD_LEN],
}

impl FrameHead {
    /// Decodes the first 16 bytes of `bytes`; `None` if they are zero: nothing was written here.
    pub fn decode(scope: &Scope, bytes: &[u8; HEAD_LEN]) -> Result<Option<FrameHead>, Corruption> {
        if *bytes == [0; HEAD_LEN] {
            return Ok(None);
        }
        let expected = scope.head_crc(bytes);
        let found = LE::read_u16(&bytes[14..16]);
        if expected != found {
            return Err(Corruption::Checksum { expected: expected.into(), found: found.into() });
        }
        let head = FrameHead { bytes: *bytes };
        if head.length() == 0 || head.length() > LENGTH_MAX || head.flags() & ZERO_FLAGS != 0 {
            return Err(Corruption::Field("frame head"));
        }
        Ok(Some(head))
    }

    /// The fields of a head that is not zero, if they can be those of a frame; nothing is verified.
    #[inline]
    pub fn unverified(bytes: &[u8; HEAD_LEN]) -> Option<FrameHead> {
        let head = FrameHead { bytes: *bytes };
        (head.length() != 0 && head.flags() & ZERO_FLAGS == 0).then_some(head)
    }

    #[inline]
    fn crc(&self) -> u32 {
        LE::read_u32(&self.bytes[0..4])
    }

    #[inline]
    fn length(&self) -> u32 {
        LE::read_u32(&self.bytes[4..8])
    }

    #[inline]
    pub fn delta(&self) -> u32 {
        LE::read_u32(&self.bytes[8..12])
    }

    #[inline]
    fn flags(&self) -> u16 {
        LE::read_u16(&self.bytes[12..14])
    }

    /// Bytes of the whole frame.
    #[inline]
    pub fn frame_len(&self) -> usize {
        HEAD_LEN.saturating_add(self.length() as usize)
    }

    /// Verifies the checksum of `frame`, which must be `frame_len` bytes.
    pub fn verify(&self, scope: &Scope, frame: &[u8]) -> Result<(), Corruption> {
        let expected = scope.crc(frame.get(4..).unwrap_or_default());
        if expected == self.crc() || planted::has(Bug::ChecksumIgnored) {
            Ok(())
        } else {
            Err(Corruption::Checksum { expected, found: self.crc() })
        }
    }
}

/// A verified batch, borrowed from the buffer that it was read into.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    records: &'a [u8],
    base_offset: u64,
    last_offset: u64,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    epoch: u32,
    flags: u16,
    durable_upto: Option<u64>,
    producer: Option<Producer>,
    horizon: Option<i64>,
    /// Records below this are left out.
    from: u64,
}

impl<'a> Batch<'a> {
    /// The offset of the first record as it was appended (compaction may have removed that record since).
    pub const fn base_offset(&self) -> u64 {
        self.base_offset
    }

    /// The offset of the last record as it was appended.
    pub const fn last_offset(&self) -> u64 {
        self.last_offset
    }

    /// How many records the batch holds, at least 1.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The timestamp of its first record, ms since 1970.
    pub const fn base_timestamp(&self) -> i64 {
        self.base_timestamp
    }

    /// The largest timestamp in it, ms since 1970.
    pub const fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }

    /// The log epoch in which it was written.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The producer that wrote it, if it was an idempotent one.
    pub const fn producer(&self) -> Option<Producer> {
        self.producer
    }

    /// Kafka's number of the codec that it is stored with.
    pub const fn codec(&self) -> u8 {
        (self.flags & CODEC_MASK) as u8
    }

    /// Every offset below this was durable when the batch was written; `None`: it does not say.
    pub const fn durable_upto(&self) -> Option<u64> {
        self.durable_upto
    }

    /// Whether the commit that it belongs to goes on in the next batch.
    pub const fn continues(&self) -> bool {
        self.flags & CONTINUATION != 0
    }

    /// From when on its tombstones may go, ms since 1970; set by compaction.
    pub const fn delete_horizon(&self) -> Option<i64> {
        self.horizon
    }

    /// What a copy of the batch, with fewer records perhaps, says beside them.
    pub(crate) fn copied(&self) -> FrameSpec {
        FrameSpec {
            base_offset: self.base_offset,
            // It is behind the end of a sealed segment now.
            durable_upto: None,
            producer: self.producer,
            continues: self.continues(),
            compression: Compression::of_codec(self.codec()),
            delete_horizon: self.horizon,
            last_offset: Some(self.last_offset),
            carried: self.flags & CARRIED,
        }
    }

    /// The same batch without the records below `offset`.
    pub(crate) const fn starting_at(mut self, offset: u64) -> Batch<'a> {
        self.from = offset;
        self
    }

    /// Its records, in order, from the reader's position on.
    #[inline]
    pub fn records(&self) -> Records<'a> {
        let mut records = self.all_records();
        let Some(first @ 1..) = self.from.checked_sub(self.base_offset) else { return records };
        // What does not decode is left in front, to be met by the caller.
        while records.left > 0
            && let Ok((delta, rest)) = record::peek_delta(records.bytes)
            && let Ok(delta) = u32::try_from(delta)
            && u64::from(delta) < first
            && (records.least..=records.most).contains(&delta)
        {
            records.bytes = rest;
            records.left = records.left.saturating_sub(1);
            records.least = delta.saturating_add(1);
        }
        records
    }

    #[inline]
    fn all_records(&self) -> Records<'a> {
        Records {
            bytes: self.records,
            base_offset: self.base_offset,
            base_timestamp: self.base_timestamp,
            left: self.count,
            least: 0,
            // Decoding has checked that it fits.
            most: u32::try_from(self.last_offset.saturating_sub(self.base_offset))
                .unwrap_or(u32::MAX),
        }
    }

    /// Takes a frame apart whose checksum was verified. Compressed records are unfolded into `scratch`.
    #[inline(always)]
    pub(crate) fn decode(
        scope: &Scope,
        head: FrameHead,
        frame: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Batch<'a>, Corruption> {
        let mut rest = frame.get(HEAD_LEN..).ok_or(Corruption::Field("frame head"))?;
        let flags = head.flags();
        let flag = |bit| flags & bit != 0;
        let base_timestamp =
            record::timestamp(scope.base_timestamp, varint::take_signed(&mut rest)?)?;
        let (count, max_ahead) =
            if flag(COUNT) { (varint::take(&mut rest)?, varint::take(&mut rest)?) } else { (1, 0) };
        let extra = if flag(SPAN) { varint::take(&mut rest)? } else { 0 };
        let back = if flag(DURABLE) { Some(varint::take(&mut rest)?) } else { None };
        let producer = if flag(PRODUCER) { Some(take_producer(&mut rest)?) } else { None };
        let horizon = if flag(HORIZON) { Some(varint::take(&mut rest)?) } else { None };
        let codec = (flags & CODEC_MASK) as u8;
        let records = if codec == compress::NONE {
            rest
        } else {
            let len = varint::take(&mut rest)?;
            compress::decode(codec, rest, len, scratch)?;
            scratch
        };
        let base_offset = scope
            .base_offset
            .checked_add(u64::from(head.delta()))
            .ok_or(Corruption::Field("an offset beyond 64 bits"))?;
        let count = u32::try_from(count)
            .ok()
            .filter(|&count| count > 0 && count as usize <= records.len() / RECORD_LEN_MIN)
            .ok_or(Corruption::Field("record count"))?;
        let span = extra
            .checked_add(u64::from(count).saturating_sub(1))
            .filter(|span| *span <= u64::from(u32::MAX))
            .ok_or(Corruption::Field("offset span"))?;
        Ok(Batch {
            records,
            base_offset,
            last_offset: base_offset
                .checked_add(span)
                .filter(|last| *last < scope.until)
                .ok_or(Corruption::Field("a batch beyond the end of its segment"))?,
            count,
            base_timestamp,
            max_timestamp: record::timestamp(
                base_timestamp,
                i64::try_from(max_ahead).unwrap_or(i64::MAX),
            )?,
            epoch: scope.epoch,
            flags,
            durable_upto: match back {
                Some(back) => {
                    Some(base_offset.checked_sub(back).ok_or(Corruption::Field("durable_upto"))?)
                }
                None => None,
            },
            producer,
            from: 0,
            horizon: match horizon {
                Some(ahead) => Some(record::timestamp(base_timestamp, unzigzag(ahead))?),
                None => None,
            },
        })
    }
}

fn take_producer(bytes: &mut &[u8]) -> Result<Producer, Corruption> {
    let (taken, rest) = bytes.split_first_chunk::<14>().ok_or(Corruption::Field("producer"))?;
    *bytes = rest;
    let producer = Producer {
        id: LE::read_i64(&taken[0..8]),
        epoch: LE::read_i16(&taken[8..10]),
        sequence: LE::read_i32(&taken[10..14]),
    };
    if producer.is_valid() { Ok(producer) } else { Err(Corruption::Field("producer")) }
}

/// The records of a batch. An error means bytes that no version of this engine wrote; nothing follows it.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    base_offset: u64,
    base_timestamp: i64,
    left: u32,
    /// The next record's offset delta is at least this.
    least: u32,
    most: u32,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, Corruption>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let Some(left) = self.left.checked_sub(1) else {
            if self.bytes.is_empty() {
                return None;
            }
            self.bytes = &[];
            return Some(Err(Corruption::Field("bytes after the last record")));
        };
        let taken = record::take(
            &mut self.bytes,
            self.base_offset,
            self.base_timestamp,
            self.least,
            self.most,
        );
        match &taken {
            Ok(view) => {
                self.left = left;
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "take has checked that the delta is at most `most`"
                )]
                let delta = view.offset.wrapping_sub(self.base_offset) as u32;
                match delta.checked_add(1) {
                    Some(next) => self.least = next,
                    None => self.left = 0,
                }
            }
            Err(_) => {
                self.left = 0;
                self.bytes = &[];
            }
        }
        Some(taken)
    }
}

/// A record that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBuf {
    /// Its place in the log.
    pub offset: u64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Names and values, in the order in which they were appended.
    pub headers: Vec<(String, Bytes)>,
}

impl RecordBuf {
    /// About how many bytes it takes.
    #[expect(clippy::arithmetic_side_effects, reason = "bytes that are in memory")]
    pub fn len_in_memory(&self) -> usize {
        let bytes = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
        let header = |(name, value): &(String, Bytes)| {
            size_of::<(String, Bytes)>() + name.len() + value.len()
        };
        let headers: usize = self.headers.iter().map(header).sum();
        size_of::<RecordBuf>() + bytes(&self.key) + bytes(&self.value) + headers
    }
}

impl From<RecordView<'_>> for RecordBuf {
    fn from(view: RecordView<'_>) -> RecordBuf {
        RecordBuf {
            offset: view.offset,
            timestamp: view.timestamp,
            key: view.key.map(Bytes::copy_from_slice),
            value: view.value.map(Bytes::copy_from_slice),
            headers: view
                .headers
                .map(|h| (h.name.to_owned(), Bytes::copy_from_slice(h.value)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests;
