//! The graves of one queue: what must be said again before the journal forgets it.

use std::collections::BTreeMap;

use crate::run::{Item, Run};

/// So many of the latest are at hand. Who works off a queue changes each message shortly after the one before it.
const YOUNG: usize = 1024;

/// Graves by sequence. The latest are in a map, since a change in a [`Run`] costs the encoding of a chunk; those before them are
/// in a run, since there may be millions.
#[derive(Debug, Default)]
pub(crate) struct Graves {
    /// No sequence is in both.
    young: BTreeMap<u64, Item>,
    old: Run,
}

impl Graves {
    pub(crate) fn of(old: Run) -> Graves {
        Graves { young: BTreeMap::new(), old }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    pub(crate) fn remove(&mut self, sequence: u64) -> Option<Item> {
        self.young.remove(&sequence).or_else(|| self.old.remove(sequence))
    }

    /// Puts what `change` makes of the grave of `sequence`, if there is one, in its place.
    #[inline]
    pub(crate) fn change(&mut self, sequence: u64, change: impl FnOnce(Option<Item>) -> Item) {
        if let Some(grave) = self.young.get_mut(&sequence) {
            *grave = change(Some(*grave));
            return;
        }
        let grave = change(self.old.remove(sequence));
        self.young.insert(sequence, grave);
        if self.young.len() > 2 * YOUNG {
            for _ in 0..YOUNG {
                let Some((_, grave)) = self.young.pop_first() else { break };
                self.old.insert(grave);
            }
        }
    }

    /// All of them, by sequence.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Item> + '_ {
        let mut old = self.old.iter().peekable();
        let mut young = self.young.values().copied().peekable();
        std::iter::from_fn(move || match (old.peek(), young.peek()) {
            (Some(older), Some(younger)) if older.sequence < younger.sequence => old.next(),
            (_, Some(_)) => young.next(),
            (_, None) => old.next(),
        })
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&Item) -> bool) {
        let mut kept = Run::default();
        self.old.iter().filter(&keep).for_each(|grave| kept.push(grave));
        self.old = kept;
        self.young.retain(|_, grave| keep(grave));
    }

    /// All of them in one run, for a checkpoint.
    pub(crate) fn run(&mut self) -> &Run {
        while let Some((_, grave)) = self.young.pop_first() {
            self.old.insert(grave);
        }
        &self.old
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each change of one in a long run cost the decoding and encoding of a chunk: a backlog was worked off at a sixth of the
    /// speed once some of it had been copied.
    #[test]
    fn graves_are_those_of_a_map_wherever_they_are_changed() {
        let mut seed = 7u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let mut graves = Graves::default();
        let mut model = BTreeMap::new();
        for step in 0..20_000u64 {
            // Mostly near the end, now and then anywhere.
            let sequence = 1 + if random(10) == 0 { random(step + 1) } else { step + random(50) };
            let grave = Item { sequence, location: step, since: 3, size: 5 };
            match random(4) {
                0 => assert_eq!(graves.remove(sequence), model.remove(&sequence)),
                _ => {
                    let before = model.insert(sequence, grave);
                    graves.change(sequence, |found| {
                        assert_eq!(found, before);
                        grave
                    });
                }
            }
            if step % 1000 == 999 {
                assert!(graves.iter().eq(model.values().copied()));
                assert!(graves.run().iter().eq(model.values().copied()));
                graves.retain(|grave| grave.location % 5 != 0);
                model.retain(|_, grave| grave.location % 5 != 0);
                assert!(graves.iter().eq(model.values().copied()));
            }
        }
        assert!(graves.young.len() <= 2 * YOUNG && graves.old.len() > 3000);
        model.keys().for_each(|sequence| assert!(graves.remove(*sequence).is_some()));
        assert!(graves.is_empty());
    }
}
