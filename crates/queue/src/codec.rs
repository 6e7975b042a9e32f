//! Reading and writing the varint-based bytes of entries and checkpoints.
//!
//! `varint` is an unsigned LEB128 of at most 10 bytes, `zigzag` one of a zigzag-mapped signed integer, `bytes` a
//! varint length and that many bytes.

use std::fmt;

/// Bytes that are not what docs/queue.md says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

pub(crate) type Decoded<T> = Result<T, Malformed>;

/// What is left of some bytes that are being decoded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    #[inline]
    pub(crate) fn byte(&mut self) -> Decoded<u8> {
        let (first, rest) = self.0.split_first().ok_or(Malformed("bytes that end too early"))?;
        self.0 = rest;
        Ok(*first)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Decoded<u64> {
        match self.0 {
            [low, rest @ ..] if *low < 0x80 => {
                self.0 = rest;
                Ok(u64::from(*low))
            }
            _ => {
                let (value, rest) = self.long_varint()?;
                *self = rest;
                Ok(value)
            }
        }
    }

    /// By value, so that whoever takes one may keep what is left in registers.
    fn long_varint(self) -> Decoded<(u64, Input<'a>)> {
        if let Some(word) = self.0.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) {
            let ends = !word & 0x8080_8080_8080_8080;
            if ends != 0 {
                let bits = ends.trailing_zeros() + 1;
                let value = gathered(word & (u64::MAX >> (u64::BITS - bits)));
                return Ok((value, Input(&self.0[bits as usize / 8..])));
            }
        }
        let mut value = 0u64;
        for (i, byte) in self.0.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7F);
            if i == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * i);
            if byte & 0x80 == 0 {
                return Ok((value, Input(&self.0[i + 1..])));
            }
        }
        Err(Malformed("a varint that does not end"))
    }

    #[inline]
    pub(crate) fn zigzag(&mut self) -> Decoded<i64> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    pub(crate) fn u32(&mut self) -> Decoded<u32> {
        u32::try_from(self.varint()?).map_err(|_| Malformed("a number beyond 32 bits"))
    }

    /// A moment or a duration in ms.
    pub(crate) fn ms(&mut self) -> Decoded<i64> {
        i64::try_from(self.varint()?).map_err(|_| Malformed("a time beyond 63 bits"))
    }

    pub(crate) fn take(&mut self, len: u64) -> Decoded<&'a [u8]> {
        let len = usize::try_from(len).map_err(|_| Malformed("a length beyond memory"))?;
        let (taken, rest) =
            self.0.split_at_checked(len).ok_or(Malformed("a length beyond the entry"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn bytes(&mut self) -> Decoded<&'a [u8]> {
        let len = self.varint()?;
        self.take(len)
    }

    pub(crate) fn text(&mut self) -> Decoded<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("text that is not UTF-8"))
    }

    /// A count of things that take at least one byte each, so that no allocation outgrows the input.
    pub(crate) fn count(&mut self) -> Decoded<usize> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.0.len() => Ok(count),
            _ => Err(Malformed("a count beyond the entry")),
        }
    }

    pub(crate) fn end(self) -> Decoded<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes after the end of an entry")) }
    }
}

/// The owner of a journal entry, from its key.
pub(crate) fn take_owner(key: &mut &[u8]) -> Option<u64> {
    let mut input = Input(key);
    let owner = input.varint().ok()?;
    *key = input.0;
    Some(owner)
}

#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    match u8::try_from(value) {
        Ok(low) if low < 0x80 => out.push(low),
        _ => put_long_varint(out, value),
    }
}

/// All bytes at once, as far as eight do: moments take six, and each entry has some.
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
fn put_long_varint(out: &mut Vec<u8>, mut value: u64) {
    if value < 1 << 56 {
        let len = (u64::BITS - value.leading_zeros()).div_ceil(7);
        let more = 0x8080_8080_8080_8080 & ((1 << (8 * (len - 1))) - 1);
        let end = out.len() + len as usize;
        out.extend_from_slice(&(spread(value) | more).to_le_bytes());
        out.truncate(end);
        return;
    }
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Eight groups of seven bits, each in a byte of its own.
const fn spread(value: u64) -> u64 {
    let value = value & 0x0FFF_FFFF | (value & 0x00FF_FFFF_F000_0000) << 4;
    let value = value & 0x0000_3FFF_0000_3FFF | (value & 0x0FFF_C000_0FFF_C000) << 2;
    value & 0x007F_007F_007F_007F | (value & 0x3F80_3F80_3F80_3F80) << 1
}

/// The reverse of [`spread`]; the high bit of each byte counts for nothing.
const fn gathered(bytes: u64) -> u64 {
    let value = bytes & 0x007F_007F_007F_007F | (bytes & 0x7F00_7F00_7F00_7F00) >> 1;
    let value = value & 0x0000_3FFF_0000_3FFF | (value & 0x3FFF_0000_3FFF_0000) >> 2;
    value & 0x0FFF_FFFF | (value & 0x0FFF_FFFF_0000_0000) >> 4
}

#[inline]
pub(crate) fn put_zigzag(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// A moment or a duration in ms; moments before 1970 count as 1970.
#[inline]
pub(crate) fn put_ms(out: &mut Vec<u8>, value: i64) {
    put_varint(out, value.max(0).cast_unsigned());
}

#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_of_number_survives_a_round_trip() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, !0u64 >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                put_zigzag(&mut out, value.cast_signed());
                put_zigzag(&mut out, value.cast_signed().wrapping_neg());
                let mut input = Input(&out);
                assert_eq!(input.varint(), Ok(value));
                assert_eq!(input.zigzag(), Ok(value.cast_signed()));
                assert_eq!(input.zigzag(), Ok(value.cast_signed().wrapping_neg()));
                assert_eq!(input.end(), Ok(()));
            }
        }
    }

    /// Eight bytes are written and read at once where they can be.
    #[test]
    fn a_number_is_written_seven_bits_at_a_time_and_read_whatever_follows_it() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, !0u64 >> shift, 0x5A5A << shift] {
                let mut out = vec![7];
                put_varint(&mut out, value);
                let len = (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize;
                let bytes: Vec<u8> = (0..len)
                    .map(|i| (value >> (7 * i)) as u8 & 0x7F | if i + 1 < len { 0x80 } else { 0 })
                    .collect();
                assert_eq!(out[1..], bytes);
                for follows in [0, 1, 7, 8, 9] {
                    let bytes = [&bytes[..], &vec![0xFF; follows]].concat();
                    let mut input = Input(&bytes);
                    assert_eq!(input.varint(), Ok(value));
                    assert_eq!(input.0.len(), follows);
                    assert!(Input(&bytes[..len - 1]).varint().is_err());
                }
            }
        }
    }

    #[test]
    fn a_length_or_count_beyond_the_input_is_refused_before_anything_is_allocated() {
        assert!(Input(&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1]).bytes().is_err());
        assert!(Input(&[0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1]).count().is_err());
        assert!(Input(&[0xFF; 11]).varint().is_err());
        assert!(Input(&[]).byte().is_err());
    }
}
