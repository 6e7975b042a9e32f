//! The messages that a receive would get, in order, without taking any.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, btree_map, btree_set};
use std::iter::Peekable;

use super::{GroupId, LaneId, NO_GROUP, Rank, Ready};
use crate::held::SlotId;
use crate::run::{self, Item};

/// A message that may be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// One without a past.
    Fresh(Item),
    /// A held one.
    Returned { sequence: u64, slot: SlotId },
}

impl Candidate {
    pub(crate) fn sequence(&self) -> u64 {
        match self {
            Candidate::Fresh(item) => item.sequence,
            Candidate::Returned { sequence, .. } => *sequence,
        }
    }
}

/// The messages of one lane, in order.
struct InLane<'a> {
    run: Peekable<run::Iter<'a>>,
    /// `None`: there are none.
    returned: Option<Peekable<btree_map::Iter<'a, (u64, u64), SlotId>>>,
}

impl<'a> InLane<'a> {
    fn of(ready: &'a Ready, lane: LaneId) -> InLane<'a> {
        let lane = ready.lane(lane);
        let returned = (!lane.returned.is_empty()).then(|| lane.returned.iter().peekable());
        InLane { run: lane.run.iter().peekable(), returned }
    }

    fn place(&mut self) -> Option<u64> {
        let run = self.run.peek().map(|item| item.sequence);
        let returned = self.returned.as_mut().and_then(Peekable::peek);
        let returned = returned.map(|((place, _), _)| *place);
        match (run, returned) {
            (Some(run), Some(returned)) => Some(run.min(returned)),
            (run, returned) => run.or(returned),
        }
    }
}

impl Iterator for InLane<'_> {
    type Item = Candidate;

    #[inline]
    fn next(&mut self) -> Option<Candidate> {
        if self.returned.is_some() {
            let place = self.place()?;
            if let Some(((_, sequence), slot)) =
                self.returned.as_mut()?.next_if(|((returned, _), _)| *returned == place)
            {
                return Some(Candidate::Returned { sequence: *sequence, slot: *slot });
            }
        }
        self.run.next().map(Candidate::Fresh)
    }
}

/// Goes through the messages that are not blocked: in a FIFO queue group by group, the group with the oldest message
/// first; in a standard queue by priority, quiet tenants before noisy ones, then by age.
pub(crate) struct Order<'a> {
    ready: &'a Ready,
    /// The one lane that there is, of messages without a group: nothing to merge and nothing to block.
    single: Option<(LaneId, InLane<'a>)>,
    waiting: btree_set::Iter<'a, Rank>,
    next: Option<Rank>,
    open: Vec<(LaneId, InLane<'a>, u32)>,
    merge: BinaryHeap<Reverse<(Rank, usize)>>,
}

impl<'a> Order<'a> {
    pub(crate) fn of(ready: &'a Ready) -> Order<'a> {
        let mut order = Order {
            ready,
            single: None,
            waiting: ready.available.iter(),
            next: None,
            open: Vec::new(),
            merge: BinaryHeap::new(),
        };
        order.next = order.waiting.next().copied();
        let alone =
            |rank: &Rank| ready.available.len() == 1 && ready.lane(rank.lane).group == NO_GROUP;
        if let Some(rank) = order.next.take_if(|rank| alone(rank)) {
            order.single = Some((rank.lane, InLane::of(ready, rank.lane)));
        }
        order
    }

    /// Nothing more of the lane that the last candidate came from: it failed for good and its group stands still, or
    /// what follows is not durable yet.
    pub(crate) fn skip_lane(&mut self, lane: LaneId) {
        self.single = None;
        let group = self.ready.lane(lane).group;
        let open = &self.open;
        let blocked = |id: usize| {
            open.get(id).is_some_and(|(other, _, _)| {
                *other == lane
                    || (group != NO_GROUP
                        && self.ready.lane(*other).group == group
                        && self.ready.rules.fifo)
            })
        };
        self.merge.retain(|Reverse((_, id))| !blocked(*id));
    }

    /// How many candidates of a group went out that were taken.
    fn taken(&self, group: GroupId) -> u32 {
        self.open
            .iter()
            .filter(|(lane, _, _)| self.ready.lane(*lane).group == group)
            .map(|(_, _, taken)| taken)
            .sum()
    }

    /// Notes that the last candidate of `lane` is taken: it counts against the group's concurrency.
    pub(crate) fn take(&mut self, lane: LaneId) {
        if self.ready.rules.concurrency == 0 || self.ready.lane(lane).group == NO_GROUP {
            return;
        }
        if let Some(open) = self.open.iter_mut().find(|(other, _, _)| *other == lane) {
            open.2 += 1;
        }
        let group = self.ready.lane(lane).group;
        let in_flight = self.ready.group(group).map_or(0, |group| group.in_flight);
        if in_flight + self.taken(group) >= self.ready.rules.concurrency {
            let lanes: Vec<usize> = (0..self.open.len())
                .filter(|id| {
                    self.open
                        .get(*id)
                        .is_some_and(|(lane, _, _)| self.ready.lane(*lane).group == group)
                })
                .collect();
            self.merge.retain(|Reverse((_, id))| !lanes.contains(id));
        }
    }

    fn full(&self, lane: LaneId) -> bool {
        let rules = self.ready.rules;
        let group = self.ready.lane(lane).group;
        if rules.concurrency == 0 || group == NO_GROUP {
            return false;
        }
        self.ready.group(group).map_or(0, |group| group.in_flight) + self.taken(group)
            >= rules.concurrency
    }

    /// The next message and its lane.
    pub(crate) fn next(&mut self) -> Option<(LaneId, Candidate)> {
        if let Some((lane, messages)) = &mut self.single {
            return messages.next().map(|candidate| (*lane, candidate));
        }
        loop {
            let best = self.merge.peek().map(|Reverse((rank, _))| *rank);
            if let Some(rank) = self.next
                && best.is_none_or(|best| rank < best)
            {
                self.next = self.waiting.next().copied();
                if !self.full(rank.lane) {
                    self.open.push((rank.lane, InLane::of(self.ready, rank.lane), 0));
                    self.merge.push(Reverse((rank, self.open.len() - 1)));
                }
                continue;
            }
            let Reverse((rank, id)) = self.merge.pop()?;
            let (lane, messages, _) = self.open.get_mut(id)?;
            let lane = *lane;
            let Some(candidate) = messages.next() else { continue };
            if let Some(place) = messages.place() {
                // A FIFO group is emptied before the next one: its lane keeps its rank.
                let place = if self.ready.rules.fifo { rank.place } else { place };
                self.merge.push(Reverse((Rank { place, ..rank }, id)));
            }
            return Some((lane, candidate));
        }
    }
}
