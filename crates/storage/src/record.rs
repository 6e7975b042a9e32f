//! One record: what a caller appends, and what a reader gets back.
//!
//! ```text
//! length | attributes | timestamp delta | offset delta | key length | key | value length | value | headers
//! zigzag | u8 = 0     | zigzag          | zigzag       | zigzag     |     | zigzag       |       | zigzag count, then
//!                                                                              (zigzag length, name, zigzag length, value)*
//! ```
//! The layout of a record in Kafka's record batch v2. Deltas count from the frame that holds the record.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use crate::error::Corruption;
use crate::varint::{self, zigzag};

/// No timestamp is further from 1970 than this many ms, so that any two of them can be subtracted.
pub(crate) const TIMESTAMP_MAX: i64 = 1 << 61;

/// What lies `delta` ms from `base`, if a writer may have taken it.
#[inline]
pub(crate) fn timestamp(base: i64, delta: i64) -> Result<i64, Corruption> {
    let sum = base.saturating_add(delta);
    if sum.unsigned_abs() <= TIMESTAMP_MAX.unsigned_abs() {
        Ok(sum)
    } else {
        Err(Corruption::Field("a timestamp beyond 2^61 ms"))
    }
}

/// A name and bytes that travel with a record. Names may repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Any UTF-8.
    pub name: &'a str,
    /// Any bytes.
    pub value: &'a [u8],
}

/// A record to append.
///
/// ```
/// use logmill_storage::Record;
/// let record = Record::value(b"signed up").key(b"user-7").timestamp(1_700_000_000_000);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [Header<'a>],
    pub(crate) timestamp: Option<i64>,
}

impl<'a> Record<'a> {
    /// A record with a value and no key.
    pub const fn value(value: &'a [u8]) -> Record<'a> {
        Record { key: None, value: Some(value), headers: &[], timestamp: None }
    }

    /// A record with a key and no value: after compaction, `key` has no latest value.
    pub const fn tombstone(key: &'a [u8]) -> Record<'a> {
        Record { key: Some(key), value: None, headers: &[], timestamp: None }
    }

    /// Sets the key.
    pub const fn key(mut self, key: &'a [u8]) -> Record<'a> {
        self.key = Some(key);
        self
    }

    /// Whether it has a key.
    pub const fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Sets the headers.
    pub const fn headers(mut self, headers: &'a [Header<'a>]) -> Record<'a> {
        self.headers = headers;
        self
    }

    /// Sets the timestamp in ms since 1970; without it the record gets the time of the append.
    pub const fn timestamp(mut self, ms: i64) -> Record<'a> {
        self.timestamp = Some(ms);
        self
    }

    /// Bytes after the length field.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "the writer has bounded the sum by `encoded_len_max`"
    )]
    fn body_len(&self, timestamp_delta: i64, offset_delta: u32) -> usize {
        1 + varint::len(zigzag(timestamp_delta))
            + varint::len(zigzag(i64::from(offset_delta)))
            + optional_len(self.key)
            + optional_len(self.value)
            + varint::len(zigzag(self.headers.len() as i64))
            + self
                .headers
                .iter()
                .map(|h| sized_len(h.name.len()) + sized_len(h.value.len()))
                .sum::<usize>()
    }

    /// An upper bound of the encoded size in bytes, wherever it is appended: what a log compares with its limit,
    /// [`LogConfig::record_bytes_max`](crate::LogConfig::record_bytes_max).
    #[inline]
    pub fn encoded_len_max(&self) -> u64 {
        // Length, attributes, two deltas, and the lengths of key, value and header list.
        const FIXED: usize = 1 + 6 * varint::LEN_MAX;
        let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        if self.headers.is_empty() {
            return FIXED.saturating_add(bytes(self.key)).saturating_add(bytes(self.value)) as u64;
        }
        // Headers may repeat one buffer more often than there is memory.
        self.headers
            .iter()
            .flat_map(|h| [h.name.len(), h.value.len(), 2 * varint::LEN_MAX])
            .chain([bytes(self.key), bytes(self.value)])
            .fold(FIXED, usize::saturating_add) as u64
    }

    #[inline]
    pub(crate) fn encode(&self, out: &mut Vec<u8>, timestamp_delta: i64, offset_delta: u32) {
        if self.headers.is_empty() && self.encode_short(out, timestamp_delta, offset_delta) {
            return;
        }
        let body_len = self.body_len(timestamp_delta, offset_delta);
        out.reserve(varint::LEN_MAX.saturating_add(body_len));
        put_signed(out, body_len as i64);
        out.push(0);
        put_signed(out, timestamp_delta);
        put_signed(out, i64::from(offset_delta));
        put_optional(out, self.key);
        put_optional(out, self.value);
        put_signed(out, self.headers.len() as i64);
        for header in self.headers {
            put_optional(out, Some(header.name.as_bytes()));
            put_optional(out, Some(header.value));
        }
    }

    /// Appends a record without headers, if no number before its value takes more than two bytes: most are like that.
    #[inline]
    #[expect(clippy::arithmetic_side_effects, reason = "everything is below 2^14")]
    fn encode_short(&self, out: &mut Vec<u8>, timestamp_delta: i64, offset_delta: u32) -> bool {
        const KEY_MAX: usize = 63;
        const VALUE_MAX: usize = 8_000;
        let (timestamp, offset) = (zigzag(timestamp_delta), zigzag(i64::from(offset_delta)));
        let (key, value) = (self.key.unwrap_or_default(), self.value.unwrap_or_default());
        if key.len() > KEY_MAX || value.len() > VALUE_MAX || timestamp.max(offset) >= Short::LIMIT {
            return false;
        }
        let part_len = |part: Option<&[u8]>| zigzag(part.map_or(-1, |bytes| bytes.len() as i64));
        let mut rest = Short::default();
        rest.put(0);
        rest.put(timestamp);
        rest.put(offset);
        rest.put(part_len(self.key));
        let mut value_len = Short::default();
        value_len.put(part_len(self.value));
        let body_len = rest.len + key.len() + value_len.len + value.len() + 1;
        let mut front = Short::default();
        front.put(zigzag(body_len as i64));
        front.append(rest);
        front.extend(out);
        out.extend_from_slice(key);
        value_len.extend(out);
        out.extend_from_slice(value);
        out.push(0);
        true
    }
}

/// Numbers of one or two bytes, put together in a register: no look at a buffer's room for each.
#[derive(Clone, Copy, Default)]
struct Short {
    bytes: u64,
    len: usize,
}

impl Short {
    /// What is put is below it.
    const LIMIT: u64 = 1 << 14;

    #[inline]
    fn put(&mut self, value: u64) {
        let is_long = u64::from(value >= 0x80);
        let bytes = value & 0x7F | is_long.wrapping_shl(7) | (value >> 7).wrapping_shl(8);
        self.append(Short { bytes, len: if is_long == 1 { 2 } else { 1 } });
    }

    /// At most eight bytes in all.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "at most 64")]
    const fn append(&mut self, other: Short) {
        self.bytes |= other.bytes.wrapping_shl(self.len.wrapping_mul(8) as u32);
        self.len = self.len.wrapping_add(other.len);
    }

    #[inline]
    fn extend(self, out: &mut Vec<u8>) {
        let end = out.len().saturating_add(self.len);
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.truncate(end);
    }
}

const fn sized_len(len: usize) -> usize {
    varint::len(zigzag(len as i64)).saturating_add(len)
}

fn optional_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |b| sized_len(b.len()))
}

#[inline]
fn put_signed(out: &mut Vec<u8>, value: i64) {
    varint::put(out, zigzag(value));
}

#[inline]
fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_signed(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => put_signed(out, -1),
    }
}

/// A record as it was read, borrowed from the batch that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Its place in the log.
    pub offset: u64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in the order in which they were appended.
    pub headers: Headers<'a>,
}

impl RecordView<'_> {
    /// About the bytes that the record takes.
    pub(crate) fn weight(&self) -> u64 {
        let len = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        [len(self.key), len(self.value), self.headers.bytes.len()]
            .into_iter()
            .fold(8, usize::saturating_add) as u64
    }
}

/// The headers of a record: an iterator over borrowed [`Header`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    /// Checked when the record was decoded: `count` well-formed headers and nothing else.
    bytes: &'a [u8],
    count: usize,
}

impl Headers<'_> {
    /// How many are left.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether none is left.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.count = self.count.checked_sub(1)?;
        take_header(&mut self.bytes).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Headers<'_> {}

#[inline]
fn take_bytes<'a>(bytes: &mut &'a [u8], len: i64) -> Result<&'a [u8], Corruption> {
    let len =
        usize::try_from(len).map_err(|_| Corruption::Field("a negative length in a record"))?;
    let (taken, rest) =
        bytes.split_at_checked(len).ok_or(Corruption::Field("a record longer than its frame"))?;
    *bytes = rest;
    Ok(taken)
}

#[inline]
fn take_optional<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Corruption> {
    match varint::take_signed(bytes)? {
        -1 => Ok(None),
        len => take_bytes(bytes, len).map(Some),
    }
}

fn take_header<'a>(bytes: &mut &'a [u8]) -> Result<Header<'a>, Corruption> {
    let len = varint::take_signed(bytes)?;
    let name = std::str::from_utf8(take_bytes(bytes, len)?)
        .map_err(|_| Corruption::Field("a header name that is not UTF-8"))?;
    let len = varint::take_signed(bytes)?;
    Ok(Header { name, value: take_bytes(bytes, len)? })
}

#[inline]
fn take_headers(bytes: &[u8]) -> Result<(Headers<'_>, &[u8]), Corruption> {
    match bytes {
        [0, rest @ ..] => Ok((Headers { bytes: &[], count: 0 }, rest)),
        _ => take_some_headers(bytes),
    }
}

fn take_some_headers(mut bytes: &[u8]) -> Result<(Headers<'_>, &[u8]), Corruption> {
    let count = varint::take_signed(&mut bytes)?;
    let count = usize::try_from(count).map_err(|_| Corruption::Field("a negative header count"))?;
    let all = bytes;
    for _ in 0..count {
        take_header(&mut bytes)?;
    }
    let (all, rest) = all
        .split_at_checked(all.len().saturating_sub(bytes.len()))
        .ok_or(Corruption::Field("headers of a record"))?;
    Ok((Headers { bytes: all, count }, rest))
}

/// The offset delta of the record at the front of `bytes`, and what follows the record.
#[inline]
pub(crate) fn peek_delta(mut bytes: &[u8]) -> Result<(i64, &[u8]), Corruption> {
    let len = varint::take_signed(&mut bytes)?;
    let body = take_bytes(&mut bytes, len)?;
    let mut fields = body.get(1..).ok_or(Corruption::Field("an empty record"))?;
    varint::take_signed(&mut fields)?;
    Ok((varint::take_signed(&mut fields)?, bytes))
}

/// Takes one record off the front of `bytes`; its offset delta must be in `least..=most`.
#[inline]
pub(crate) fn take<'a>(
    bytes: &mut &'a [u8],
    base_offset: u64,
    base_timestamp: i64,
    least: u32,
    most: u32,
) -> Result<RecordView<'a>, Corruption> {
    let mut after = *bytes;
    let len = varint::take_signed(&mut after)?;
    let mut body = match take_bytes(&mut after, len)?.split_first() {
        Some((0, rest)) => rest,
        Some(_) => return Err(Corruption::Field("record attributes")),
        None => return Err(Corruption::Field("an empty record")),
    };
    let timestamp_delta = varint::take_signed(&mut body)?;
    let offset_delta = varint::take_signed(&mut body)?;
    let in_order = u32::try_from(offset_delta).ok().filter(|delta| (least..=most).contains(delta));
    let Some(offset_delta) = in_order else {
        return Err(Corruption::Field("a record's offset delta out of order"));
    };
    let key = take_optional(&mut body)?;
    let value = take_optional(&mut body)?;
    let (headers, rest) = take_headers(body)?;
    if !rest.is_empty() {
        return Err(Corruption::Field("bytes after a record's headers"));
    }
    *bytes = after;
    Ok(RecordView {
        offset: base_offset
            .checked_add(u64::from(offset_delta))
            .ok_or(Corruption::Field("an offset beyond 64 bits"))?,
        timestamp: timestamp(base_timestamp, timestamp_delta)?,
        key,
        value,
        headers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout at the head of this page, a field at a time.
    fn spelled_out(record: &Record<'_>, timestamp_delta: i64, offset_delta: u32) -> Vec<u8> {
        let mut body = vec![0];
        put_signed(&mut body, timestamp_delta);
        put_signed(&mut body, i64::from(offset_delta));
        put_optional(&mut body, record.key);
        put_optional(&mut body, record.value);
        put_signed(&mut body, 0);
        let mut out = Vec::new();
        put_signed(&mut out, body.len() as i64);
        out.extend_from_slice(&body);
        out
    }

    #[test]
    fn a_short_record_and_one_too_long_for_it_have_the_same_layout() {
        let bytes = [7; 8_300];
        let parts = |lens: &[usize]| -> Vec<Option<&[u8]>> {
            lens.iter().map(|len| Some(&bytes[..*len])).chain([None]).collect()
        };
        for key in parts(&[0, 1, 63, 64, 8_191, 8_192]) {
            for value in parts(&[0, 1, 63, 64, 8_000, 8_001, 8_191, 8_192]) {
                let record = Record { key, value, ..Record::default() };
                for timestamp in [0, -1, 63, -64, 64, 8_191, -8_192, 8_192, -8_193, TIMESTAMP_MAX] {
                    for offset in [0, 63, 64, 8_191, 8_192, u32::MAX] {
                        let mut out = b"before".to_vec();
                        record.encode(&mut out, timestamp, offset);
                        let expected = spelled_out(&record, timestamp, offset);
                        assert_eq!(out[6..], expected, "{timestamp} ms, offset {offset}");
                    }
                }
            }
        }
    }
}
