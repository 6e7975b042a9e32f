//! How far back the journal must stay because deleted messages may be read again.

use std::collections::VecDeque;

use logmill_storage::Part;

use crate::codec::{Decoded, Input, put_ms, put_varint};
use crate::location;

/// Deletions within this part of the period are noted together.
const PARTS: i64 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    /// The latest moment at which any of its messages must still be there.
    until: i64,
    hot: u64,
    cold: u64,
}

/// The oldest places that hold deleted messages, by when they may go.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    stretches: VecDeque<Stretch>,
}

impl Kept {
    /// Notes that a message at `at` was deleted at `time` and is kept for `period` ms.
    pub(crate) fn note(&mut self, time: i64, period: i64, at: u64) {
        let until = time.saturating_add(period);
        let offset = at & !location::COLD;
        let (hot, cold) =
            if at & location::COLD == 0 { (offset, u64::MAX) } else { (u64::MAX, offset) };
        match self.stretches.back_mut() {
            // The stretch's first deletion decides when it ends; it takes in what may go a little sooner.
            Some(last) if until <= last.until && last.until - until <= period / PARTS => {
                last.hot = last.hot.min(hot);
                last.cold = last.cold.min(cold);
            }
            _ => {
                let until = until.saturating_add(period / PARTS);
                self.stretches.push_back(Stretch { until, hot, cold });
            }
        }
    }

    pub(crate) fn advance(&mut self, now: i64) {
        while self.stretches.pop_front_if(|stretch| stretch.until <= now).is_some() {}
    }

    pub(crate) fn clear(&mut self) {
        self.stretches.clear();
    }

    /// The first offset of `part` that is kept.
    pub(crate) fn from(&self, part: Part) -> Option<u64> {
        let offsets = self.stretches.iter().map(|stretch| match part {
            Part::Hot => stretch.hot,
            Part::Cold => stretch.cold,
        });
        offsets.min().filter(|offset| *offset != u64::MAX)
    }

    pub(crate) fn save(&self, out: &mut Vec<u8>) {
        put_varint(out, self.stretches.len() as u64);
        for stretch in &self.stretches {
            put_ms(out, stretch.until);
            put_varint(out, stretch.hot);
            put_varint(out, stretch.cold);
        }
    }

    pub(crate) fn load(input: &mut Input<'_>) -> Decoded<Kept> {
        let stretches = (0..input.count()?)
            .map(|_| {
                Ok(Stretch { until: input.ms()?, hot: input.varint()?, cold: input.varint()? })
            })
            .collect::<Decoded<_>>()?;
        Ok(Kept { stretches })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_deleted_is_kept_for_the_period_and_little_longer_in_few_stretches() {
        let mut kept = Kept::default();
        for i in 0..10_000i64 {
            kept.note(i, 3200, 50_000 + i.unsigned_abs());
            kept.advance(i);
            let from = kept.from(Part::Hot).unwrap();
            let oldest = 50_000 + (i - 3199).max(0).unsigned_abs();
            assert!(from <= oldest, "{from} is kept, {oldest} must be");
            assert!(
                from + 220 >= oldest.min(50_000 + i.unsigned_abs()),
                "{from} is kept, {oldest} would do"
            );
            assert!(kept.stretches.len() <= 40);
        }
        kept.advance(14_000);
        assert_eq!(kept.from(Part::Hot), None);
    }
}
