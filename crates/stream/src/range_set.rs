//! A set of offsets, kept as ranges: as small as it has holes, not as it has members.

use std::collections::BTreeMap;

/// Offsets as half-open ranges that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    /// First offset to end of each range.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// Adds `first..end`.
    pub(crate) fn insert(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        let (mut first, mut end) = (first, end);
        if let Some((&before, &before_end)) = self.ranges.range(..=first).next_back()
            && before_end >= first
        {
            first = before;
            end = end.max(before_end);
        }
        while let Some((&next, &next_end)) = self.ranges.range(first..=end).next() {
            end = end.max(next_end);
            self.ranges.remove(&next);
        }
        self.ranges.insert(first, end);
    }

    pub(crate) fn contains(&self, offset: u64) -> bool {
        self.end_of(offset).is_some()
    }

    /// The end of the range that `offset` lies in.
    pub(crate) fn end_of(&self, offset: u64) -> Option<u64> {
        self.ranges.range(..=offset).next_back().map(|(_, end)| *end).filter(|end| offset < *end)
    }

    /// Forgets everything below `offset`.
    pub(crate) fn remove_below(&mut self, offset: u64) {
        let end = self.end_of(offset);
        self.ranges = self.ranges.split_off(&offset);
        if let Some(end) = end {
            self.ranges.insert(offset, end);
        }
    }

    /// Forgets everything from `offset` on.
    pub(crate) fn remove_from(&mut self, offset: u64) {
        self.ranges.split_off(&offset);
        if let Some(mut last) = self.ranges.last_entry()
            && *last.get() > offset
        {
            *last.get_mut() = offset;
        }
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(first, end)| (*first, *end))
    }

    /// How many ranges there are.
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_range_set_holds_what_a_plain_set_holds(
            steps in proptest::collection::vec((0u8..6, 0u64..40, 0u64..8), 1..40)
        ) {
            let mut ranges = RangeSet::default();
            let mut plain = BTreeSet::new();
            for (what, first, len) in steps {
                match what {
                    0 => { ranges.remove_below(first); plain.retain(|o| *o >= first); }
                    1 => { ranges.remove_from(first); plain.retain(|o| *o < first); }
                    _ => { ranges.insert(first, first + len); plain.extend(first..first + len); }
                }
                let listed: Vec<u64> = ranges.iter().flat_map(|(first, end)| first..end).collect();
                prop_assert_eq!(&listed, &plain.iter().copied().collect::<Vec<_>>());
                let apart = ranges.iter().zip(ranges.iter().skip(1)).all(|(a, b)| a.0 < a.1 && a.1 < b.0);
                prop_assert!(apart, "{ranges:?}");
                for offset in 0..50 {
                    prop_assert_eq!(ranges.contains(offset), plain.contains(&offset));
                }
            }
        }
    }
}
