//! The few encodings that journal entries are made of: unsigned LEB128, zigzag, length-prefixed bytes and text.

/// Why bytes are not an entry.
pub(crate) type Malformed = &'static str;

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7F) as u8);
}

pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Bytes that are still to be decoded. Nothing is allocated for a length before that many bytes are seen to be there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire<'a>(pub(crate) &'a [u8]);

impl<'a> Wire<'a> {
    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or("an entry that ends early")?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or("an entry that ends early")?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a varint that does not end")
    }

    pub(crate) fn varint32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| "a number beyond 32 bits")
    }

    pub(crate) fn signed(&mut self) -> Result<i64, Malformed> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.varint()?).map_err(|_| "a length beyond memory")?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or("a length beyond the entry")?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "text that is not UTF-8")
    }

    /// How many items follow. Each takes at least one byte, so a count beyond the bytes is refused here.
    pub(crate) fn count(&mut self) -> Result<usize, Malformed> {
        let count = usize::try_from(self.varint()?).map_err(|_| "a count beyond memory")?;
        if count <= self.0.len() { Ok(count) } else { Err("a count beyond the entry") }
    }

    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err("bytes after an entry") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_width_survive_a_round_trip() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, !0u64 >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                put_signed(&mut out, value.cast_signed());
                let mut wire = Wire(&out);
                assert_eq!(wire.varint(), Ok(value));
                assert_eq!(wire.signed(), Ok(value.cast_signed()));
                assert_eq!(wire.end(), Ok(()));
            }
        }
    }

    #[test]
    fn what_is_too_long_or_cut_short_is_refused() {
        assert!(Wire(&[0xFF; 11]).varint().is_err());
        assert!(Wire(&[0x80]).varint().is_err());
        assert!(Wire(&[5, b'a']).bytes().is_err());
        assert!(Wire(&[1, 0xFF]).text().is_err());
        assert!(Wire(&[9, 0, 0]).count().is_err());
        assert!(Wire(&[0]).end().is_err());
    }
}
