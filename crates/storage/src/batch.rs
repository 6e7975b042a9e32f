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

use byteorder::{ByteOrder, LittleEndian as LE};
use bytes::Bytes;

use crate::compress::{self, Compression};
use crate::error::Corruption;
use crate::planted::{self, Bug};
use crate::record::{self, Record, RecordView};
use crate::varint::{self, unzigzag, zigzag};

pub(crate) const HEAD_LEN: usize = 16;
/// No frame is longer: it holds the largest record and what goes with it at the most.
#[expect(clippy::cast_possible_truncation, reason = "little more than 1 GiB")]
const LENGTH_MAX: u32 = (compress::UNCOMPRESSED_MAX + (64 << 10)) as u32;

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
        Scope { base_offset, base_timestamp, epoch, seeded }
    }

    #[inline]
    fn crc(&self, bytes: &[u8]) -> u32 {
        let mut hasher = self.seeded.clone();
        hasher.update(bytes);
        hasher.finalize()
    }

    #[inline]
    fn head_crc(&self, head: &[u8]) -> u16 {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is what is stored")]
        let low = self.crc(&head[4..14]) as u16;
        low
    }
}

/// The fixed head of a frame, its own checksum verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    crc: u32,
    length: u32,
    delta: u32,
    flags: u16,
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
        let head = FrameHead::fields(bytes);
        if head.length == 0 || head.length > LENGTH_MAX || head.flags & ZERO_FLAGS != 0 {
            return Err(Corruption::Field("frame head"));
        }
        Ok(Some(head))
    }

    /// The fields of a head that is not zero, if they can be those of a frame; nothing is verified.
    #[inline]
    pub fn unverified(bytes: &[u8; HEAD_LEN]) -> Option<FrameHead> {
        let head = FrameHead::fields(bytes);
        (head.length != 0 && head.flags & ZERO_FLAGS == 0).then_some(head)
    }

    #[inline]
    fn fields(bytes: &[u8; HEAD_LEN]) -> FrameHead {
        FrameHead {
            crc: LE::read_u32(&bytes[0..4]),
            length: LE::read_u32(&bytes[4..8]),
            delta: LE::read_u32(&bytes[8..12]),
            flags: LE::read_u16(&bytes[12..14]),
        }
    }

    /// Bytes of the whole frame.
    pub const fn frame_len(&self) -> usize {
        HEAD_LEN + self.length as usize
    }

    pub const fn delta(&self) -> u32 {
        self.delta
    }

    /// Verifies the checksum of `frame`, which must be `frame_len` bytes.
    pub fn verify(&self, scope: &Scope, frame: &[u8]) -> Result<(), Corruption> {
        let expected = scope.crc(&frame[4..]);
        if expected == self.crc || planted::has(Bug::ChecksumIgnored) {
            Ok(())
        } else {
            Err(Corruption::Checksum { expected, found: self.crc })
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
    pub fn records(&self) -> Records<'a> {
        let mut records = self.all_records();
        let Some(first) = self.from.checked_sub(self.base_offset) else { return records };
        // What does not decode is left in front, to be met by the caller.
        while records.left > 0
            && let Ok((delta, rest)) = record::peek_delta(records.bytes)
            && let Ok(delta) = u32::try_from(delta)
            && u64::from(delta) < first
            && (records.least..=records.most).contains(&delta)
        {
            records.bytes = rest;
            records.left -= 1;
            records.least = delta.saturating_add(1);
        }
        records
    }

    fn all_records(&self) -> Records<'a> {
        Records {
            bytes: self.records,
            base_offset: self.base_offset,
            base_timestamp: self.base_timestamp,
            left: self.count,
            least: 0,
            #[expect(
                clippy::cast_possible_truncation,
                reason = "decode has checked that the span fits"
            )]
            most: (self.last_offset - self.base_offset) as u32,
        }
    }

    /// Takes a frame apart whose checksum was verified. Compressed records are unfolded into `scratch`.
    pub(crate) fn decode(
        scope: &Scope,
        head: FrameHead,
        frame: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Batch<'a>, Corruption> {
        let mut rest = &frame[HEAD_LEN..];
        let flag = |bit| head.flags & bit != 0;
        let base_timestamp = scope
            .base_timestamp
            .checked_add(varint::take_signed(&mut rest)?)
            .ok_or(Corruption::Field("a timestamp beyond 64 bits"))?;
        let (count, max_ahead) =
            if flag(COUNT) { (varint::take(&mut rest)?, varint::take(&mut rest)?) } else { (1, 0) };
        let extra = if flag(SPAN) { varint::take(&mut rest)? } else { 0 };
        let back = if flag(DURABLE) { Some(varint::take(&mut rest)?) } else { None };
        let producer = if flag(PRODUCER) { Some(take_producer(&mut rest)?) } else { None };
        let horizon = if flag(HORIZON) { Some(varint::take(&mut rest)?) } else { None };
        let codec = (head.flags & CODEC_MASK) as u8;
        let records = if codec == compress::NONE {
            rest
        } else {
            let len = varint::take(&mut rest)?;
            compress::decode(codec, rest, len, scratch)?;
            scratch
        };
        let base_offset = scope.base_offset + u64::from(head.delta);
        let count = u32::try_from(count)
            .ok()
            .filter(|&count| count > 0 && count as usize <= records.len() / RECORD_LEN_MIN)
            .ok_or(Corruption::Field("record count"))?;
        let span = extra
            .checked_add(u64::from(count) - 1)
            .filter(|span| *span <= u64::from(u32::MAX))
            .ok_or(Corruption::Field("offset span"))?;
        Ok(Batch {
            records,
            base_offset,
            last_offset: base_offset.checked_add(span).ok_or(Corruption::Field("offset span"))?,
            count,
            base_timestamp,
            max_timestamp: base_timestamp
                .checked_add_unsigned(max_ahead)
                .ok_or(Corruption::Field("a timestamp beyond 64 bits"))?,
            epoch: scope.epoch,
            flags: head.flags,
            durable_upto: match back {
                Some(back) => {
                    Some(base_offset.checked_sub(back).ok_or(Corruption::Field("durable_upto"))?)
                }
                None => None,
            },
            producer,
            from: 0,
            horizon: match horizon {
                Some(ahead) => Some(
                    base_timestamp
                        .checked_add(unzigzag(ahead))
                        .ok_or(Corruption::Field("a delete horizon beyond 64 bits"))?,
                ),
                None => None,
            },
        })
    }
}

fn take_producer(bytes: &mut &[u8]) -> Result<Producer, Corruption> {
    let (taken, rest) = bytes.split_at_checked(14).ok_or(Corruption::Field("producer"))?;
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
        if self.left == 0 {
            if self.bytes.is_empty() {
                return None;
            }
            self.bytes = &[];
            return Some(Err(Corruption::Field("bytes after the last record")));
        }
        let taken = record::take(
            &mut self.bytes,
            self.base_offset,
            self.base_timestamp,
            self.least,
            self.most,
        );
        match &taken {
            Ok(view) => {
                self.left -= 1;
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "take has checked that the delta is at most `most`"
                )]
                let delta = (view.offset - self.base_offset) as u32;
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
    pub(crate) fn len_in_memory(&self) -> usize {
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

/// What a frame says beside its records.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FrameSpec {
    pub base_offset: u64,
    /// Every offset below it is durable; said only where it is news.
    pub durable_upto: Option<u64>,
    pub producer: Option<Producer>,
    pub continues: bool,
    pub compression: Compression,
    pub delete_horizon: Option<i64>,
    /// The last offset, where it is not that of the last record.
    pub last_offset: Option<u64>,
    /// Flags without a group that are copied.
    pub carried: u16,
}

/// Encodes frames; keeps its buffers from one to the next.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    records: Vec<u8>,
    compressed: Vec<u8>,
}

impl Encoder {
    /// Appends a frame with consecutive offsets to `out`. Records without a timestamp get `now_ms`.
    /// Returns the largest timestamp.
    pub fn dense(
        &mut self,
        out: &mut Vec<u8>,
        scope: &Scope,
        spec: &FrameSpec,
        records: &[Record<'_>],
        now_ms: i64,
    ) -> i64 {
        let stamped = (0u32..)
            .zip(records)
            .map(|(delta, record)| (delta, record.timestamp.unwrap_or(now_ms), *record));
        self.sparse(out, scope, spec, stamped)
    }

    /// Appends a frame of (offset delta, timestamp, record), the deltas rising, at least one. Returns the largest timestamp.
    pub fn sparse<'r>(
        &mut self,
        out: &mut Vec<u8>,
        scope: &Scope,
        spec: &FrameSpec,
        records: impl Iterator<Item = (u32, i64, Record<'r>)> + Clone,
    ) -> i64 {
        let span = Span::of(records.clone().map(|(delta, timestamp, _)| (delta, timestamp)));
        let start = out.len();
        out.extend_from_slice(&[0; HEAD_LEN]);
        let mut flags = put_groups(out, scope, spec, &span);
        let encode = |out: &mut Vec<u8>| {
            for (delta, timestamp, record) in records {
                record.encode(out, timestamp.wrapping_sub(span.base_timestamp), delta);
            }
        };
        if spec.compression == Compression::None {
            encode(out);
        } else {
            self.records.clear();
            encode(&mut self.records);
            let codec = spec.compression.encode(&self.records, &mut self.compressed);
            flags |= u16::from(codec);
            if codec == compress::NONE {
                out.extend_from_slice(&self.records);
            } else {
                varint::put(out, self.records.len() as u64);
                out.extend_from_slice(&self.compressed);
            }
        }

        let frame = &mut out[start..];
        let length = u32::try_from(frame.len() - HEAD_LEN)
            .expect("the writer bounds a frame far below 4 GiB");
        let delta = u32::try_from(spec.base_offset - scope.base_offset)
            .expect("the writer rolls before 2^32 offsets");
        LE::write_u32(&mut frame[4..8], length);
        LE::write_u32(&mut frame[8..12], delta);
        LE::write_u16(&mut frame[12..14], flags);
        seal(scope, frame);
        span.max_timestamp
    }
}

/// Writes both checksums of a frame.
#[inline]
fn seal(scope: &Scope, frame: &mut [u8]) {
    let head_crc = scope.head_crc(frame);
    LE::write_u16(&mut frame[14..16], head_crc);
    let crc = scope.crc(&frame[4..]);
    LE::write_u32(&mut frame[0..4], crc);
}

/// Makes an encoded frame the last one of its commit.
pub(crate) fn end_commit(scope: &Scope, frame: &mut [u8]) {
    let flags = LE::read_u16(&frame[12..14]);
    if flags & CONTINUATION != 0 {
        LE::write_u16(&mut frame[12..14], flags & !CONTINUATION);
        seal(scope, frame);
    }
}

/// What the records of a frame come to.
struct Span {
    count: u32,
    last_delta: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl Span {
    #[inline]
    fn of(mut records: impl Iterator<Item = (u32, i64)>) -> Span {
        let (first, base_timestamp) = records.next().expect("a frame holds at least one record");
        let mut span =
            Span { count: 1, last_delta: first, base_timestamp, max_timestamp: base_timestamp };
        for (delta, timestamp) in records {
            span.count += 1;
            span.last_delta = delta;
            span.max_timestamp = span.max_timestamp.max(timestamp);
        }
        span
    }
}

/// Writes the groups but for the uncompressed length, and returns their flags.
#[inline]
fn put_groups(out: &mut Vec<u8>, scope: &Scope, spec: &FrameSpec, span: &Span) -> u16 {
    let mut flags = spec.carried;
    varint::put(out, zigzag(span.base_timestamp.wrapping_sub(scope.base_timestamp)));
    if span.count > 1 {
        flags |= COUNT;
        varint::put(out, u64::from(span.count));
        varint::put(out, span.max_timestamp.abs_diff(span.base_timestamp));
    }
    let last_delta =
        spec.last_offset.map_or(u64::from(span.last_delta), |last| last - spec.base_offset);
    let extra = last_delta - u64::from(span.count - 1);
    if extra > 0 {
        flags |= SPAN;
        varint::put(out, extra);
    }
    if let Some(durable_upto) = spec.durable_upto {
        flags |= DURABLE;
        varint::put(out, spec.base_offset - durable_upto);
    }
    if let Some(producer) = spec.producer {
        flags |= PRODUCER;
        let mut bytes = [0; 14];
        LE::write_i64(&mut bytes[0..8], producer.id);
        LE::write_i16(&mut bytes[8..10], producer.epoch);
        LE::write_i32(&mut bytes[10..14], producer.sequence);
        out.extend_from_slice(&bytes);
    }
    if let Some(horizon) = spec.delete_horizon {
        flags |= HORIZON;
        varint::put(out, zigzag(horizon.wrapping_sub(span.base_timestamp)));
    }
    if spec.continues {
        flags |= CONTINUATION;
    }
    flags
}

#[cfg(test)]
mod tests;
