//! The receipt of one receive: message, durable open epoch and receive generation.
//!
//! ```text
//! 0        4           12      16           20        24      28
//! +--------+-----------+-------+------------+---------+-------+
//! | queue  | sequence  | epoch | generation | session | check |   little-endian; check = CRC-32 of bytes 0..24
//! | u32    | u64       | u32   | u32        | u32     | u32   |   as text: 56 hexadecimal digits
//! +--------+-----------+-------+------------+---------+-------+
//! ```
//! The epoch is the journal's, raised when a crash may have forgotten receives: a generation that is given out again
//! afterwards comes with another epoch. `session` is 0 but for a receive that a full disk kept from being stored.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::message::MessageId;

const LEN: usize = 28;

/// The right to delete, extend or return a message that was received, until it is received again.
///
/// Its text ([`fmt::Display`], [`FromStr`]) is the receipt handle: it stays valid in other processes and after a
/// restart. It is no secret: its check finds accidents, not forgers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    pub(crate) queue: u32,
    pub(crate) sequence: u64,
    pub(crate) epoch: u32,
    pub(crate) generation: u32,
    pub(crate) session: u32,
}

impl Receipt {
    /// The message in the queue that it was received from; its [`MessageId`] unless it was moved there.
    pub(crate) fn place(&self) -> MessageId {
        MessageId { queue: self.queue, sequence: self.sequence }
    }

    fn bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let fields = [
            &self.queue.to_le_bytes()[..],
            &self.sequence.to_le_bytes(),
            &self.epoch.to_le_bytes(),
            &self.generation.to_le_bytes(),
            &self.session.to_le_bytes(),
        ];
        let all = fields.concat();
        let check = crc32fast::hash(&all).to_le_bytes();
        for (to, from) in bytes.iter_mut().zip(all.iter().chain(&check)) {
            *to = *from;
        }
        bytes
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Receipt {
    type Err = Error;

    /// # Errors
    /// [`Error::ReceiptHandleIsInvalid`]: the text was never a receipt handle.
    fn from_str(text: &str) -> Result<Receipt> {
        parse(text).ok_or(Error::ReceiptHandleIsInvalid)
    }
}

fn parse(text: &str) -> Option<Receipt> {
    if text.len() != 2 * LEN || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; LEN];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    let (covered, check) = bytes.split_at_checked(24)?;
    if crc32fast::hash(covered).to_le_bytes() != *check {
        return None;
    }
    let (queue, rest) = covered.split_first_chunk::<4>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (epoch, rest) = rest.split_first_chunk::<4>()?;
    let (generation, rest) = rest.split_first_chunk::<4>()?;
    let (session, _) = rest.split_first_chunk::<4>()?;
    Some(Receipt {
        queue: u32::from_le_bytes(*queue),
        sequence: u64::from_le_bytes(*sequence),
        epoch: u32::from_le_bytes(*epoch),
        generation: u32::from_le_bytes(*generation),
        session: u32::from_le_bytes(*session),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIPT: Receipt =
        Receipt { queue: 7, sequence: 0x1_0000_0002, epoch: 3, generation: 4, session: 0 };

    #[test]
    fn the_text_of_a_receipt_is_the_golden_one_and_reads_back() {
        let text = RECEIPT.to_string();
        assert_eq!(&text[..48], "070000000200000001000000030000000400000000000000");
        assert_eq!(text.parse::<Receipt>().unwrap(), RECEIPT);
    }

    #[test]
    fn every_changed_digit_and_every_cut_makes_a_receipt_invalid() {
        let text = RECEIPT.to_string();
        for at in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] = if other[at] == b'0' { b'1' } else { b'0' };
            let other = String::from_utf8(other).unwrap();
            assert!(
                matches!(other.parse::<Receipt>(), Err(Error::ReceiptHandleIsInvalid)),
                "{other}"
            );
            assert!(matches!(text[..at].parse::<Receipt>(), Err(Error::ReceiptHandleIsInvalid)));
        }
        assert!("".parse::<Receipt>().is_err());
        assert!("é".repeat(28).parse::<Receipt>().is_err());
        assert!(text.to_uppercase().parse::<Receipt>().is_err() || text == text.to_uppercase());
    }
}
