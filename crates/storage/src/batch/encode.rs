//! Encodes frames: the groups, the records behind them, and both checksums.

use byteorder::{ByteOrder, LittleEndian as LE};

use super::{CONTINUATION, COUNT, DURABLE, HEAD_LEN, HORIZON, PRODUCER, Producer, SPAN, Scope};
use crate::compress::{self, Compression};
use crate::record::Record;
use crate::varint::{self, zigzag};

/// What a frame says beside its records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
            flags |= self.compress(out, spec.compression);
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

    /// Appends the records as they are, or compressed if that is less, and returns the flags that say so.
    #[cold]
    fn compress(&mut self, out: &mut Vec<u8>, compression: Compression) -> u16 {
        let codec = compression.encode(&self.records, &mut self.compressed);
        if codec == compress::NONE {
            out.extend_from_slice(&self.records);
        } else {
            varint::put(out, self.records.len() as u64);
            out.extend_from_slice(&self.compressed);
        }
        u16::from(codec)
    }
}

/// Writes both checksums of a frame.
#[inline]
pub(super) fn seal(scope: &Scope, frame: &mut [u8]) {
    let head = frame.first_chunk().expect("a frame begins with its head");
    let head_crc = scope.head_crc(head);
    LE::write_u16(&mut frame[14..16], head_crc);
    let crc = scope.crc(&frame[4..]);
    LE::write_u32(&mut frame[0..4], crc);
}

/// Makes an encoded frame the last one of its commit.
pub(crate) fn end_commit(scope: &Scope, frame: &mut [u8]) {
    let flags = LE::read_u16(&frame[12..14]);
    LE::write_u16(&mut frame[12..14], flags & !CONTINUATION);
    seal(scope, frame);
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
