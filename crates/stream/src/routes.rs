//! Over how many partitions of a topic a named producer spreads its numbered records: what it sent before partitions were
//! added goes on going where it went.

/// How many partitions hold from which sequence on, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Routes(Vec<(u64, u32)>);

impl Routes {
    /// From the sequence `from` on there are `partitions`. Nothing was sent by what began there or later.
    pub(crate) fn add(&mut self, from: u64, partitions: u32) {
        self.0.retain(|(earlier, _)| *earlier < from);
        self.0.push((from, partitions));
    }

    /// How many partitions there are for a record with this sequence.
    pub(crate) fn partitions(&self, sequence: u64) -> Option<u32> {
        self.iter().rev().find(|(from, _)| *from <= sequence).map(|(_, partitions)| partitions)
    }

    /// How many there are for what comes next.
    pub(crate) fn latest(&self) -> Option<u32> {
        self.0.last().map(|(_, partitions)| *partitions)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u32)> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_keeps_the_number_of_partitions_that_it_was_first_sent_with() {
        let mut routes = Routes::default();
        assert_eq!((routes.partitions(0), routes.latest()), (None, None));
        routes.add(0, 2);
        routes.add(10, 3);
        routes.add(10, 5);
        routes.add(20, 6);
        let found = [0, 9, 10, 19, 20, u64::MAX].map(|n| routes.partitions(n).unwrap());
        assert_eq!(found, [2, 2, 5, 5, 6, 6]);
        assert_eq!(routes.iter().collect::<Vec<_>>(), [(0, 2), (10, 5), (20, 6)]);
        routes.add(0, 7);
        assert_eq!((routes.partitions(15), routes.latest()), (Some(7), Some(7)));
    }
}
