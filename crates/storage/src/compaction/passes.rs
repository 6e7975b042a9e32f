//! Finds the records that have a later one of their key.

use super::Source;
use super::keys::{Keys, Place};
use crate::error::Result;

/// Which records have a later one of their key: a bit for each, by segment and by number in the segment.
#[derive(Debug)]
pub(super) struct Marks {
    superseded: Vec<Vec<u64>>,
}

impl Marks {
    pub fn new(segments: usize) -> Marks {
        Marks { superseded: vec![Vec::new(); segments] }
    }

    fn mark(&mut self, Place { segment, record }: Place) {
        let words = &mut self.superseded[segment as usize];
        let word = record as usize / 64;
        if words.len() <= word {
            words.resize(word + 1, 0);
        }
        words[word] |= 1 << (record % 64);
    }

    /// Whether the record has a later one of its key.
    pub fn is_superseded(&self, segment: usize, record: u32) -> bool {
        let word = self.superseded[segment].get(record as usize / 64);
        word.is_some_and(|word| word & (1 << (record % 64)) != 0)
    }
}

/// Marks all records that have a later one of their key, pass by pass, segment by segment.
#[derive(Debug)]
pub(super) struct Passes {
    keys: Keys,
    /// Passes that were begun.
    begun: u32,
    /// Segments that the present pass has looked at.
    looked_at: usize,
    is_last: bool,
}

impl Passes {
    pub fn new(memory_bytes: usize, seed: u64) -> Passes {
        Passes { keys: Keys::new(memory_bytes, seed), begun: 1, looked_at: 0, is_last: false }
    }

    pub const fn begun(&self) -> u32 {
        self.begun
    }

    pub const fn is_done(&self) -> bool {
        self.is_last
    }

    /// Looks at the next segment. In the first `clean` of `sources` each key is there only once, so they come last, to be
    /// compared with the others. Returns how many bytes were read.
    pub fn step(&mut self, sources: &[Source], clean: usize, marks: &mut Marks) -> Result<u64> {
        let number = (clean + self.looked_at) % sources.len();
        let (source, keys) = (&sources[number], &mut self.keys);
        // There are at most as many segments as offsets.
        let segment = u32::try_from(number).unwrap_or(u32::MAX);
        if number >= clean {
            for_each_key(segment, source, |place, key| {
                if let Some(before) = keys.put(key, place) {
                    marks.mark(before);
                }
            })?;
        } else {
            for_each_key(segment, source, |place, key| {
                if keys.contains(key) {
                    marks.mark(place);
                }
            })?;
        }
        self.looked_at += 1;
        if self.looked_at == sources.len() {
            self.looked_at = 0;
            self.is_last = !self.keys.next_range();
            self.begun += u32::from(!self.is_last);
        }
        Ok(source.footer.data_end)
    }
}

fn for_each_key(number: u32, source: &Source, mut each: impl FnMut(Place, &[u8])) -> Result<()> {
    let mut place = Place { segment: number, record: 0 };
    source.for_each(|batch, _| {
        for record in batch.records() {
            let record = record.map_err(|what| source.corrupt(batch.base_offset(), what))?;
            if let Some(key) = record.key {
                each(place, key);
            }
            // There are at most as many records as offsets.
            place.record = place.record.wrapping_add(1);
        }
        Ok(())
    })
}
