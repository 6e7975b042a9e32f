//! LEB128 variable-length integers, with and without zigzag, as in Kafka's record format.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use crate::error::Corruption;

/// Bytes of the longest encoding of a u64.
pub(crate) const LEN_MAX: usize = 10;

const TOO_LONG: Corruption = Corruption::Field("a varint that does not end");

pub(crate) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg()
}

/// Bytes that `value` takes.
pub(crate) const fn len(value: u64) -> usize {
    70_usize.saturating_sub((value | 1).leading_zeros() as usize) / 7
}

#[inline]
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "the low seven bits")]
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 0x80")]
    out.push(value as u8);
}

/// Takes a varint off the front of `bytes`.
#[inline]
pub(crate) fn take(bytes: &mut &[u8]) -> Result<u64, Corruption> {
    match bytes {
        [low, rest @ ..] if *low < 0x80 => {
            *bytes = rest;
            Ok(u64::from(*low))
        }
        [low, high, rest @ ..] if *high < 0x80 => {
            *bytes = rest;
            Ok(u64::from(low & 0x7F) | u64::from(*high).wrapping_shl(7))
        }
        _ => {
            let (value, rest) = take_long(bytes)?;
            *bytes = rest;
            Ok(value)
        }
    }
}

/// By value, so that whoever takes a short one may keep the slice in registers.
#[cold]
fn take_long(mut bytes: &[u8]) -> Result<(u64, &[u8]), Corruption> {
    let mut value = 0u64;
    for shift in (0..u64::BITS).step_by(7) {
        let Some((byte, rest)) = bytes.split_first() else { break };
        let bits = u64::from(byte & 0x7F);
        if bits > u64::MAX.wrapping_shr(shift) {
            break;
        }
        value |= bits.wrapping_shl(shift);
        bytes = rest;
        if byte & 0x80 == 0 {
            return Ok((value, rest));
        }
    }
    Err(TOO_LONG)
}

#[inline]
pub(crate) fn take_signed(bytes: &mut &[u8]) -> Result<i64, Corruption> {
    take(bytes).map(unzigzag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_survives_a_round_trip_and_has_the_length_it_says() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, !0u64 >> shift] {
                let mut out = Vec::new();
                put(&mut out, value);
                assert_eq!(out.len(), len(value));
                let mut rest = out.as_slice();
                assert_eq!(take(&mut rest), Ok(value));
                assert!(rest.is_empty());
            }
        }
    }

    #[test]
    fn zigzag_maps_small_magnitudes_to_small_numbers() {
        assert_eq!(
            [0, -1, 1, -2, i64::MAX, i64::MIN].map(zigzag),
            [0, 1, 2, 3, u64::MAX - 1, u64::MAX]
        );
        for value in [0, -1, 1, i64::MIN, i64::MAX, 123_456_789, -987_654_321] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn an_overlong_or_cut_varint_is_refused() {
        assert!(take(&mut [0xFF; 10].as_slice()).is_err());
        assert!(take(&mut [0x80; 11].as_slice()).is_err());
        assert!(take(&mut [0x80].as_slice()).is_err());
        assert!(take(&mut [].as_slice()).is_err());
    }
}
