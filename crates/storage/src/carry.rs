//! What owners of journal entries say when old ones are carried, and in which batches it is stored.

/// Carried entries are committed in pieces of about this many bytes.
const CARRY_BYTES: usize = 1 << 20;

/// What an owner says when its entries are carried.
#[derive(Debug, Default)]
pub struct Carry {
    bytes: Vec<u8>,
    entries: Vec<Said>,
}

/// An entry that is carried.
#[derive(Clone, Copy, Debug)]
struct Said {
    /// Where it ends in the bytes.
    end: usize,
    /// It is stored in one batch with the one before.
    joins: bool,
}

impl Carry {
    /// An entry that stands for itself.
    pub fn say(&mut self, entry: &[u8]) {
        self.push(entry, false);
    }

    /// An entry without which the one before is worth nothing: after a crash both are there, or neither, and they go together.
    pub fn say_with_last(&mut self, entry: &[u8]) {
        self.push(entry, true);
    }

    fn push(&mut self, entry: &[u8], joins: bool) {
        self.bytes.extend_from_slice(entry);
        self.entries.push(Said { end: self.bytes.len(), joins });
    }

    /// Bytes of the entries.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The entries in pieces, each of which is stored in one batch.
    pub(crate) fn pieces(&self) -> Vec<Vec<&[u8]>> {
        let mut pieces: Vec<Vec<&[u8]>> = Vec::new();
        let (mut start, mut bytes, mut from) = (0, 0, 0);
        while let Some(first) = self.entries.get(from) {
            let joined = self.entries.get(from + 1..).unwrap_or_default();
            let len = 1 + joined.iter().take_while(|said| said.joins).count();
            let end = self.entries.get(from + len - 1).unwrap_or(first).end;
            bytes += end - start;
            if pieces.is_empty() || bytes > CARRY_BYTES {
                pieces.push(Vec::new());
                bytes = end - start;
            }
            for said in self.entries.iter().skip(from).take(len) {
                let entry = self.bytes.get(start..said.end).unwrap_or_default();
                if let Some(piece) = pieces.last_mut() {
                    piece.push(entry);
                }
                start = said.end;
            }
            from += len;
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_belong_together_are_in_one_piece_however_many_bytes_they_are() {
        let mut carry = Carry::default();
        assert!(carry.pieces().is_empty());
        let big = vec![1; CARRY_BYTES * 2 / 5];
        carry.say(b"a");
        carry.say(&big);
        carry.say_with_last(b"");
        carry.say_with_last(&big);
        carry.say(&big);
        for _ in 0..4 {
            carry.say_with_last(&big);
        }
        carry.say(b"z");
        let pieces = carry.pieces();
        let lens: Vec<Vec<usize>> =
            pieces.iter().map(|piece| piece.iter().map(|entry| entry.len()).collect()).collect();
        let b = big.len();
        assert_eq!(lens, [vec![1, b, 0, b], vec![b, b, b, b, b], vec![1]]);
    }
}
