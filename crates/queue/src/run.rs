//! Ready messages in sequence order, compressed to one or two bytes each.
//!
//! ```text
//! head: varint   location delta << 3 | irregular << 2 | resized << 1 | retimed
//!   irregular:   varint sequence delta, zigzag location delta      (otherwise the sequence goes up by one)
//!   retimed:     zigzag delta of `since` in ms                     (otherwise as the one before)
//!   resized:     varint size                                       (otherwise as the one before)
//! ```
//! Deltas count from the item before in the same chunk, and from zero at a chunk's start: a chunk stands alone.
//! Invariant: sequences strictly increase along the run.

use std::collections::{VecDeque, vec_deque};

use crate::codec::{Decoded, Input, Malformed, put_varint, put_zigzag};

/// A chunk has no more items than bytes.
pub(crate) const CHUNK_BYTES: usize = 2048;
const RETIMED: u64 = 1;
const RESIZED: u64 = 2;
const IRREGULAR: u64 = 4;

/// What is known of a ready message: enough to order, expire, count and find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) sequence: u64,
    /// Where its body is.
    pub(crate) location: u64,
    /// When it could first be received, in ms: retention and age count from here.
    pub(crate) since: i64,
    /// Bytes of its body and attributes.
    pub(crate) size: u32,
}

/// A stretch of items that are encoded together.
#[derive(Clone, Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    count: u32,
    last: Item,
}

impl Chunk {
    fn push(&mut self, item: Item) {
        encode(&mut self.bytes, &self.last, &item);
        self.last = item;
        self.count += 1;
    }

    fn items(&self) -> Items<'_> {
        Items { input: Input(&self.bytes), last: Item::default() }
    }

    fn of(items: impl Iterator<Item = Item>) -> Chunk {
        let mut chunk = Chunk::default();
        items.for_each(|item| chunk.push(item));
        chunk
    }
}

fn encode(out: &mut Vec<u8>, last: &Item, item: &Item) {
    let mut flags = 0;
    let location = item.location.wrapping_sub(last.location).cast_signed();
    let regular =
        item.sequence == last.sequence.wrapping_add(1) && (0..1 << 56).contains(&location);
    if !regular {
        flags |= IRREGULAR;
    }
    if item.since != last.since {
        flags |= RETIMED;
    }
    if item.size != last.size {
        flags |= RESIZED;
    }
    let inline = if regular { location.cast_unsigned() } else { 0 };
    put_varint(out, inline << 3 | flags);
    if !regular {
        put_varint(out, item.sequence.wrapping_sub(last.sequence));
        put_zigzag(out, location);
    }
    if flags & RETIMED != 0 {
        put_zigzag(out, item.since.wrapping_sub(last.since));
    }
    if flags & RESIZED != 0 {
        put_varint(out, u64::from(item.size));
    }
}

/// Turns `item` into the one after it.
#[inline]
fn decode(input: &mut Input<'_>, item: &mut Item) -> Decoded<()> {
    let head = input.varint()?;
    if head & IRREGULAR != 0 {
        item.sequence = item.sequence.wrapping_add(input.varint()?);
        item.location = item.location.wrapping_add_signed(input.zigzag()?);
    } else {
        item.sequence = item.sequence.wrapping_add(1);
        item.location = item.location.wrapping_add(head >> 3);
    }
    if head & RETIMED != 0 {
        item.since = item.since.wrapping_add(input.zigzag()?);
    }
    if head & RESIZED != 0 {
        item.size = input.u32()?;
    }
    Ok(())
}

/// The items of one chunk. The bytes were written or checked by this module, so a malformed one ends the iteration.
#[derive(Clone, Default)]
struct Items<'a> {
    input: Input<'a>,
    last: Item,
}

impl Iterator for Items<'_> {
    type Item = Item;

    #[inline]
    fn next(&mut self) -> Option<Item> {
        if self.input.0.is_empty() {
            return None;
        }
        decode(&mut self.input, &mut self.last).ok()?;
        Some(self.last)
    }
}

/// The items of a run.
#[derive(Clone)]
pub(crate) struct Iter<'a> {
    front: Option<Item>,
    /// What comes behind `front` is looked for when it is asked for: most receives take one message.
    unbegun: Option<&'a Run>,
    items: Items<'a>,
    chunks: vec_deque::Iter<'a, Chunk>,
}

impl Iterator for Iter<'_> {
    type Item = Item;

    #[inline]
    fn next(&mut self) -> Option<Item> {
        if let Some(front) = self.front.take() {
            return Some(front);
        }
        if let Some(run) = self.unbegun.take() {
            (self.items, self.chunks) = run.behind_front();
        }
        loop {
            if let Some(item) = self.items.next() {
                return Some(item);
            }
            self.items = self.chunks.next()?.items();
        }
    }
}

/// A queue of [`Item`]s in sequence order: pushed at the back, popped at the front, and, seldom, removed anywhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    chunks: VecDeque<Chunk>,
    /// The first item, already decoded.
    front: Option<Item>,
    /// Where in the first chunk the item after `front` begins.
    position: usize,
    len: u64,
}

impl Run {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.front.is_none()
    }

    #[inline]
    pub(crate) fn front(&self) -> Option<&Item> {
        self.front.as_ref()
    }

    /// The last item.
    pub(crate) fn last(&self) -> Option<&Item> {
        self.chunks.back().map(|chunk| &chunk.last).filter(|_| self.front.is_some())
    }

    /// The last item's sequence, or 0.
    pub(crate) fn last_sequence(&self) -> u64 {
        self.chunks.back().map_or(0, |chunk| chunk.last.sequence)
    }

    /// Adds an item behind all others.
    ///
    /// # Panics
    /// If its sequence is not above the last one's: the caller decides where an item belongs.
    #[inline]
    pub(crate) fn push(&mut self, item: Item) {
        assert!(item.sequence > self.last_sequence(), "a run is in sequence order");
        let room = self.chunks.back().is_some_and(|chunk| chunk.bytes.len() < CHUNK_BYTES);
        if !room {
            if let Some(full) = self.chunks.back_mut() {
                full.bytes.shrink_to_fit();
            }
            self.chunks.push_back(Chunk::default());
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.push(item);
        }
        self.len += 1;
        if self.front.is_none() {
            self.position = self.chunks.back().map_or(0, |chunk| chunk.bytes.len());
            self.front = Some(item);
        }
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Item> {
        let popped = self.front?;
        self.len -= 1;
        loop {
            let only = self.chunks.len() == 1;
            let (Some(chunk), Some(front)) = (self.chunks.front_mut(), &mut self.front) else {
                self.front = None;
                break;
            };
            if self.position == 0 {
                *front = Item::default();
            }
            let mut input = Input(chunk.bytes.get(self.position..).unwrap_or_default());
            if !input.0.is_empty() && decode(&mut input, front).is_ok() {
                self.position = chunk.bytes.len() - input.0.len();
                break;
            }
            if only {
                chunk.bytes.clear();
                *chunk = Chunk { bytes: std::mem::take(&mut chunk.bytes), ..Chunk::default() };
                self.position = 0;
                self.front = None;
                break;
            }
            self.chunks.pop_front();
            self.position = 0;
        }
        Some(popped)
    }

    /// All items, first to last.
    #[inline]
    pub(crate) fn iter(&self) -> Iter<'_> {
        let (items, chunks) = Default::default();
        Iter { front: self.front, unbegun: Some(self), items, chunks }
    }

    /// What is left of the first chunk behind the first item, and the chunks after it.
    fn behind_front(&self) -> (Items<'_>, vec_deque::Iter<'_, Chunk>) {
        let mut chunks = self.chunks.iter();
        let bytes =
            chunks.next().and_then(|chunk| chunk.bytes.get(self.position..)).unwrap_or_default();
        (Items { input: Input(bytes), last: self.front.unwrap_or_default() }, chunks)
    }

    /// The items with a sequence of at least `from`, without decoding the chunks before.
    pub(crate) fn iter_from(&self, from: u64) -> impl Iterator<Item = Item> + Clone + '_ {
        let skipped = self.chunks.partition_point(|chunk| chunk.last.sequence < from);
        let iter = if skipped == 0 {
            self.iter()
        } else {
            let mut chunks = self.chunks.iter();
            let items = chunks.nth(skipped).map_or(Items::default(), Chunk::items);
            Iter { front: None, unbegun: None, items, chunks }
        };
        iter.skip_while(move |item| item.sequence < from)
    }

    /// What is left of the first chunk.
    fn first_items(&self) -> impl Iterator<Item = Item> + Clone + '_ {
        self.front.into_iter().chain(self.behind_front().0)
    }

    /// The item of `sequence`. Cost: the decoding of one chunk.
    pub(crate) fn get(&self, sequence: u64) -> Option<Item> {
        self.iter_from(sequence).next().filter(|item| item.sequence == sequence)
    }

    /// Takes out the item of `sequence`. Cost: the encoding of one chunk, nothing at the front.
    pub(crate) fn remove(&mut self, sequence: u64) -> Option<Item> {
        if self.front?.sequence == sequence {
            return self.pop();
        }
        let found = self.get(sequence)?;
        self.rewrite(sequence, |item| (item.sequence != sequence).then_some(item));
        self.len -= 1;
        Some(found)
    }

    /// Puts an item where its sequence belongs. Cost: the encoding of one chunk, nothing at the back.
    pub(crate) fn insert(&mut self, item: Item) {
        if item.sequence > self.last_sequence() {
            return self.push(item);
        }
        let before = self.front.is_some_and(|front| item.sequence < front.sequence);
        let holder = if before { self.front.unwrap_or_default().sequence } else { item.sequence };
        self.rewrite_with(holder, |items| {
            let mut items: Vec<Item> = items.collect();
            let at = items.partition_point(|other| other.sequence < item.sequence);
            items.insert(at, item);
            items
        });
        self.len += 1;
    }

    /// Notes that bodies have moved: `moves` are (sequence, old location, new one), by sequence. Those that were
    /// found at their old location are reported. Cost: the encoding of the chunks that they lie in.
    pub(crate) fn relocate_all(&mut self, moves: &[(u64, u64, u64)], mut done: impl FnMut(&Item)) {
        let mut left = moves;
        let mut at = self.front.map_or(0, |front| front.sequence);
        while let Some(chunk) =
            self.chunks.get(self.chunks.partition_point(|chunk| chunk.last.sequence < at))
        {
            let last = chunk.last.sequence;
            left = left
                .get(left.partition_point(|(sequence, ..)| *sequence < at)..)
                .unwrap_or_default();
            let Some((next, ..)) = left.first() else { break };
            if *next > last {
                at = *next;
                continue;
            }
            self.rewrite(last, |item| {
                let index = left.binary_search_by_key(&item.sequence, |(sequence, ..)| *sequence);
                let moved = index
                    .ok()
                    .and_then(|index| left.get(index))
                    .filter(|(_, old, _)| *old == item.location);
                Some(match moved {
                    Some((_, _, location)) => {
                        done(&item);
                        Item { location: *location, ..item }
                    }
                    None => item,
                })
            });
            at = last + 1;
        }
    }

    /// Encodes the chunk that holds `sequence` again, each item through `change`.
    fn rewrite(&mut self, sequence: u64, change: impl FnMut(Item) -> Option<Item>) {
        self.rewrite_with(sequence, |items| items.filter_map(change).collect());
    }

    /// Encodes the chunk where `sequence` is or belongs again, in two halves if it has grown long.
    fn rewrite_with(
        &mut self,
        sequence: u64,
        change: impl FnOnce(&mut dyn Iterator<Item = Item>) -> Vec<Item>,
    ) {
        let index = self.chunks.partition_point(|chunk| chunk.last.sequence < sequence);
        let items = match index {
            0 => change(&mut self.first_items()),
            _ => change(&mut self.chunks.get(index).into_iter().flat_map(Chunk::items)),
        };
        let long = items.len() > 1
            && self.chunks.get(index).is_some_and(|chunk| chunk.bytes.len() > 2 * CHUNK_BYTES);
        let (head, tail) = items.split_at(if long { items.len() / 2 } else { items.len() });
        self.chunks.remove(index);
        for part in [tail, head] {
            if !part.is_empty() {
                self.chunks.insert(index, Chunk::of(part.iter().copied()));
            }
        }
        if index == 0 {
            let mut items = self.chunks.front().map(Chunk::items);
            self.front = items.as_mut().and_then(Iterator::next);
            let left = items.map_or(0, |items| items.input.0.len());
            self.position = self.chunks.front().map_or(0, |chunk| chunk.bytes.len() - left);
        }
    }

    /// Bytes of memory behind the run.
    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.chunks.capacity() * size_of::<Chunk>()
            + self.chunks.iter().map(|c| c.bytes.capacity()).sum::<usize>()
    }

    /// `varint` count of chunks, then for each `varint` count of items, `varint` length, bytes.
    pub(crate) fn save(&self, out: &mut Vec<u8>) {
        let first = Chunk::of(self.first_items());
        let first = (first.count > 0).then_some(&first);
        let rest = self.chunks.iter().skip(1);
        put_varint(out, (rest.len() + usize::from(first.is_some())) as u64);
        for chunk in first.into_iter().chain(rest) {
            put_varint(out, u64::from(chunk.count));
            put_varint(out, chunk.bytes.len() as u64);
            out.extend_from_slice(&chunk.bytes);
        }
    }

    /// The run that [`Run::save`] wrote; every item is decoded once, so that later decoding cannot fail, and is shown to
    /// `each` meanwhile, which may refuse it.
    pub(crate) fn load(
        input: &mut Input<'_>,
        mut each: impl FnMut(&Item) -> Decoded<()>,
    ) -> Decoded<Run> {
        let mut run = Run::default();
        let mut last_sequence = 0;
        for _ in 0..input.count()? {
            let count = input.u32()?;
            let bytes = input.bytes()?;
            let mut left = Input(bytes);
            let mut last = Item::default();
            let mut first = None;
            for _ in 0..count {
                decode(&mut left, &mut last)?;
                if last.sequence <= last_sequence {
                    return Err(Malformed("a run out of sequence order"));
                }
                last_sequence = last.sequence;
                each(&last)?;
                if first.is_none() {
                    first = Some((last, bytes.len() - left.0.len()));
                }
            }
            left.end()?;
            let Some((item, position)) = first else {
                return Err(Malformed("an empty chunk"));
            };
            if run.front.is_none() {
                run.front = Some(item);
                run.position = position;
            }
            run.len += u64::from(count);
            run.chunks.push_back(Chunk { bytes: bytes.to_vec(), count, last });
        }
        Ok(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(sequence: u64, location: u64, since: i64, size: u32) -> Item {
        Item { sequence, location, since, size }
    }

    fn run_of(items: &[Item]) -> Run {
        let mut run = Run::default();
        items.iter().for_each(|item| run.push(*item));
        run
    }

    /// Every kind of delta, over several chunks.
    fn varied(count: u64) -> Vec<Item> {
        (0..count)
            .map(|i| {
                let sequence = i * 2 + u64::from(i % 5 == 0);
                let location = if i % 7 == 0 { 1_000_000 - i } else { i * 131 };
                item(
                    sequence + 1,
                    location,
                    1_700_000_000_000 - (i as i64 % 3) * 40,
                    100 + (i % 11) as u32,
                )
            })
            .collect()
    }

    #[test]
    fn items_come_out_in_the_order_in_which_they_went_in() {
        let items = varied(5000);
        let mut run = run_of(&items);
        assert_eq!(run.iter().collect::<Vec<_>>(), items);
        for (i, expected) in items.iter().enumerate() {
            assert_eq!(run.len(), (items.len() - i) as u64);
            assert_eq!(run.front(), Some(expected));
            assert_eq!(run.pop(), Some(*expected));
        }
        assert_eq!(run.pop(), None);
        run.push(item(3, 1, 1, 1));
        assert_eq!(run.pop(), Some(item(3, 1, 1, 1)));
    }

    #[test]
    fn a_backlog_costs_a_byte_for_each_message_and_two_where_a_hundred_queues_interleave() {
        for (stride, bytes_max) in [(1, 1.2), (100, 2.2)] {
            let mut run = Run::default();
            for i in 1..=1_000_000u64 {
                run.push(item(i, i * stride, 1_700_000_000_000 + (i / 2000) as i64, 100));
            }
            let bytes = run.memory() as f64 / 1e6;
            assert!(
                bytes <= bytes_max,
                "{bytes} bytes for each of the messages that lie {stride} apart"
            );
        }
    }

    #[test]
    fn any_item_can_be_taken_out_found_or_moved() {
        let mut items = varied(3000);
        let mut run = run_of(&items);
        (0..700).for_each(|_| {
            run.pop();
            items.remove(0);
        });
        for at in [0, 0, 1, 5, 900, 2000, items.len() - 1 - 6] {
            let gone = items.remove(at);
            assert_eq!(run.get(gone.sequence), Some(gone));
            assert_eq!(run.remove(gone.sequence), Some(gone));
            assert_eq!(run.get(gone.sequence), None);
            assert_eq!(run.remove(gone.sequence), None);
        }
        let moves: Vec<_> = (items.iter().enumerate())
            .filter(|(at, _)| at % 3 == 0)
            .map(|(at, item)| {
                (item.sequence, item.location + u64::from(at == 300), 5_000_000 + at as u64)
            })
            .collect();
        let mut moved = 0;
        run.relocate_all(&moves, |_| moved += 1);
        assert_eq!(moved, moves.len() - 1, "one was not where it was looked for");
        for (at, item) in items.iter_mut().enumerate().filter(|(at, _)| at % 3 == 0 && *at != 300) {
            item.location = 5_000_000 + at as u64;
        }
        assert_eq!(run.len(), items.len() as u64);
        assert_eq!(run.iter().collect::<Vec<_>>(), items);
        let from = items[1200].sequence - 1;
        assert_eq!(run.iter_from(from).next(), Some(items[1200]));
        for expected in items {
            assert_eq!(run.pop(), Some(expected));
        }
    }

    #[test]
    fn items_that_come_late_are_put_where_they_belong() {
        let mut run = Run::default();
        let mut order: Vec<u64> = (1..=4000).collect();
        for i in 0..order.len() {
            order.swap(i, (i * 7919 + 13) % 4000);
        }
        for (done, sequence) in order.iter().enumerate() {
            run.insert(item(*sequence, sequence * 3, 5, 1));
            assert_eq!(run.len(), done as u64 + 1);
        }
        assert!(run.iter().map(|item| item.sequence).eq(1..=4000));
        (0..10).for_each(|_| assert!(run.pop().is_some()));
        run.insert(item(4, 12, 5, 1));
        assert!(run.iter().map(|item| item.sequence).eq([4].into_iter().chain(11..=4000)));
        assert!(
            std::iter::from_fn(|| run.pop())
                .map(|item| item.location)
                .eq([12].into_iter().chain((11..=4000).map(|s| s * 3)))
        );
    }

    #[test]
    fn a_saved_run_loads_and_a_damaged_one_never_panics() {
        let mut run = run_of(&varied(1500));
        (0..100).for_each(|_| {
            run.pop();
        });
        let mut bytes = Vec::new();
        run.save(&mut bytes);
        let loaded = Run::load(&mut Input(&bytes), |_| Ok(())).unwrap();
        assert_eq!(loaded.len(), run.len());
        assert!(loaded.iter().eq(run.iter()));
        for cut in 0..bytes.len() {
            assert!(Run::load(&mut Input(&bytes[..cut]), |_| Ok(())).is_err());
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            if let Ok(mut run) = Run::load(&mut Input(&damaged), |_| Ok(())) {
                while run.pop().is_some() {}
            }
        }
    }
}
