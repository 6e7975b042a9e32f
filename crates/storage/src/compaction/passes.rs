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

/// Marks all records of `sources` that have a later one of their key. In the first `clean` of them each key is there only
/// once. Returns how many passes it took.
pub(super) fn run(
    sources: &[Source],
    clean: usize,
    memory_bytes: usize,
    seed: u64,
    marks: &mut Marks,
) -> Result<u32> {
    let mut keys = Keys::new(memory_bytes, seed);
    let mut passes = 0;
    loop {
        passes += 1;
        for (number, source) in (0u32..).zip(sources).skip(clean) {
            for_each_key(number, source, |place, key| {
                if let Some(before) = keys.put(key, place) {
                    marks.mark(before);
                }
            })?;
        }
        for (number, source) in (0u32..).zip(&sources[..clean]) {
            for_each_key(number, source, |place, key| {
                if keys.contains(key) {
                    marks.mark(place);
                }
            })?;
        }
        if !keys.next_range() {
            return Ok(passes);
        }
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
