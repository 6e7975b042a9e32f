//! Which message comes next: lanes of ready messages, one for each group and priority, and the order among lanes.
//!
//! A blocked group's lanes stand outside the order, so that receiving past them costs nothing.
//! Invariants: `available` holds the rank of exactly the lanes that have a message and are not blocked; `eldest` holds
//! the first sequence in the run of every lane of a group that has one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::codec::{Decoded, Input, put_bytes, put_ms, put_varint};
use crate::held::SlotId;
use crate::ready::slab::Slab;
use crate::run::{Item, Run};

mod order;
mod slab;

pub(crate) use order::{Candidate, Order};

pub(crate) type LaneId = u32;
pub(crate) type GroupId = u32;

/// The group of messages that have none.
pub(crate) const NO_GROUP: GroupId = u32::MAX;

/// How a queue treats its groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// A group is locked while any of its messages is in flight or waits for its retry.
    pub(crate) fifo: bool,
    /// Messages of one group that may be in flight; 0: any number.
    pub(crate) concurrency: u32,
}

/// Where a lane stands among the available: higher priority, then quiet tenants, then age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) priority_from_top: u8,
    pub(crate) noisy: bool,
    pub(crate) place: u64,
    pub(crate) lane: LaneId,
}

/// Ready messages of one group and priority.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    pub(crate) group: GroupId,
    pub(crate) priority: u8,
    /// Those without a past, by sequence.
    pub(crate) run: Run,
    /// Those with one, by place and sequence.
    pub(crate) returned: BTreeMap<(u64, u64), SlotId>,
    rank: Option<Rank>,
    eldest: Option<u64>,
    /// Held messages that will come back here.
    held: u32,
}

impl Lane {
    fn place(&self) -> Option<u64> {
        let run = self.run.front().map(|item| item.sequence);
        let returned = self.returned.first_key_value().map(|((place, _), _)| *place);
        match (run, returned) {
            (Some(run), Some(returned)) => Some(run.min(returned)),
            (run, returned) => run.or(returned),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.run.len() + self.returned.len() as u64
    }
}

/// A message group of a FIFO queue, or a tenant of a standard one.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    lanes: Vec<LaneId>,
    pub(crate) in_flight: u32,
    /// Messages that wait for their retry and hold the group.
    pub(crate) holding: u32,
    pub(crate) parked: bool,
    pub(crate) delayed: u64,
    pub(crate) dead: u64,
    /// Recent time in which consumers held its messages, in ms, as of `busy_at`.
    busy: f64,
    busy_at: i64,
    noisy: bool,
}

/// A tenant is noisy with more than a tenth of all in flight and at least this many.
const NOISY_IN_FLIGHT: u32 = 30;
/// How fast processing time is forgotten: by half in 5 minutes.
const BUSY_HALF_LIFE_MS: f64 = 300_000.0;

/// The ready messages of a queue.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    rules: Rules,
    lanes: Slab<Lane>,
    groups: Slab<Group>,
    by_name: HashMap<Arc<str>, GroupId>,
    /// The lanes of messages without a group.
    plain: Vec<LaneId>,
    available: BTreeSet<Rank>,
    eldest: BTreeSet<(u64, LaneId)>,
    /// Tenants that are noisy, or have so many messages in flight that they may be.
    heavy: BTreeSet<GroupId>,
    in_flight: u64,
    busy: f64,
    busy_at: i64,
}

impl Ready {
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
        let groups: Vec<GroupId> = self.groups.ids().collect();
        groups.into_iter().for_each(|group| self.refresh_group(group));
    }

    pub(crate) fn lane(&self, id: LaneId) -> &Lane {
        self.lanes.get(id)
    }

    pub(crate) fn find_lane(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.find(id)
    }

    /// No lane has this id or a larger one.
    pub(crate) fn lanes_end(&self) -> LaneId {
        self.lanes.end()
    }

    pub(crate) fn group(&self, id: GroupId) -> Option<&Group> {
        (id != NO_GROUP).then(|| self.groups.get(id))
    }

    pub(crate) fn group_of(&self, lane: LaneId) -> Option<&Group> {
        self.group(self.lanes.get(lane).group)
    }

    pub(crate) fn group_named(&self, name: &str) -> Option<GroupId> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupId, &Group)> {
        self.groups.ids().map(|id| (id, self.groups.get(id)))
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = (LaneId, &Lane)> {
        self.lanes.ids().map(|id| (id, self.lanes.get(id)))
    }

    /// Ready messages of a group, blocked or not.
    pub(crate) fn ready_in(&self, group: GroupId) -> u64 {
        self.groups.get(group).lanes.iter().map(|lane| self.lanes.get(*lane).len()).sum()
    }

    /// The lane of `group` and `priority`, made where there is none.
    pub(crate) fn lane_for(&mut self, group: Option<&str>, priority: u8) -> LaneId {
        let Some(name) = group else {
            let found =
                self.plain.iter().copied().find(|lane| self.lanes.get(*lane).priority == priority);
            return found.unwrap_or_else(|| {
                let lane = self.lanes.insert(Lane { group: NO_GROUP, priority, ..Lane::default() });
                self.plain.push(lane);
                lane
            });
        };
        let group = self.group_for(name);
        let found = self
            .groups
            .get(group)
            .lanes
            .iter()
            .copied()
            .find(|lane| self.lanes.get(*lane).priority == priority);
        found.unwrap_or_else(|| {
            let lane = self.lanes.insert(Lane { group, priority, ..Lane::default() });
            self.groups.get_mut(group).lanes.push(lane);
            lane
        })
    }

    fn group_for(&mut self, name: &str) -> GroupId {
        if let Some(group) = self.by_name.get(name) {
            return *group;
        }
        let first = self.by_name.is_empty();
        let name: Arc<str> = name.into();
        let group = self.groups.insert(Group { name: Arc::clone(&name), ..Group::default() });
        self.by_name.insert(name, group);
        if first {
            for lane in self.plain.clone() {
                self.refresh(lane);
            }
        }
        group
    }

    /// Adds a message without a past.
    #[inline]
    pub(crate) fn push(&mut self, lane: LaneId, item: Item) {
        let run = &mut self.lanes.get_mut(lane).run;
        let first = run.front().map(|item| item.sequence);
        run.insert(item);
        // Behind others it changes no order.
        if first.is_none_or(|first| item.sequence < first) {
            self.refresh(lane);
        }
    }

    /// Adds a message with a past.
    pub(crate) fn add_returned(&mut self, lane: LaneId, place: u64, sequence: u64, slot: SlotId) {
        self.lanes.get_mut(lane).returned.insert((place, sequence), slot);
        self.refresh(lane);
    }

    pub(crate) fn remove_returned(&mut self, lane: LaneId, place: u64, sequence: u64) {
        self.lanes.get_mut(lane).returned.remove(&(place, sequence));
        self.refresh(lane);
    }

    /// The lane whose run has `sequence`. Cost: nothing to speak of if it is its lane's first, else a look into every lane.
    pub(crate) fn find(&self, sequence: u64) -> Option<(LaneId, Item)> {
        if let Some(lane) = self.lane_from(sequence) {
            return self.lanes.get(lane).run.front().map(|first| (lane, *first));
        }
        self.lanes.ids().find_map(|lane| Some((lane, self.lanes.get(lane).run.get(sequence)?)))
    }

    /// The lane whose run begins with `sequence`.
    #[inline]
    pub(crate) fn lane_from(&self, sequence: u64) -> Option<LaneId> {
        let begins = |lane: &LaneId| {
            self.lanes.get(*lane).run.front().is_some_and(|first| first.sequence == sequence)
        };
        self.plain.iter().copied().find(begins).or_else(|| {
            let mut found = self.eldest.range((sequence, 0)..=(sequence, LaneId::MAX));
            found.next().map(|(_, lane)| *lane)
        })
    }

    /// The one line that there is to choose from, if none of its messages came back: nothing to merge, and nothing blocks.
    #[inline]
    pub(crate) fn only_run(&self) -> Option<&Run> {
        let rank = self.available.first().filter(|_| self.available.len() == 1)?;
        let lane = self.lanes.get(rank.lane);
        (lane.group == NO_GROUP && lane.returned.is_empty()).then_some(&lane.run)
    }

    /// The message in the run of `lane`, if both are there.
    pub(crate) fn in_lane(&self, lane: LaneId, sequence: u64) -> Option<Item> {
        self.lanes.find(lane)?.run.get(sequence)
    }

    /// Takes a message out of a run.
    pub(crate) fn remove(&mut self, lane: LaneId, sequence: u64) -> Option<Item> {
        let item = self.lanes.get_mut(lane).run.remove(sequence);
        self.refresh(lane);
        item
    }

    /// Notes where the bodies of messages have been copied to: see [`Run::relocate_all`].
    pub(crate) fn relocate_all(&mut self, moves: &[(u64, u64, u64)], mut done: impl FnMut(&Item)) {
        let lanes: Vec<LaneId> = self.lanes.ids().collect();
        for lane in lanes {
            self.lanes.get_mut(lane).run.relocate_all(moves, &mut done);
        }
    }

    /// Notes that a held message belongs to `lane`.
    pub(crate) fn hold(&mut self, lane: LaneId) {
        self.lanes.get_mut(lane).held += 1;
    }

    /// Notes that a held message left `lane`; the lane goes if nothing is left of it.
    pub(crate) fn let_go(&mut self, lane: LaneId) {
        let state = self.lanes.get_mut(lane);
        state.held -= 1;
        if state.group != NO_GROUP {
            self.refresh(lane);
        }
    }

    /// Changes what is known of the lane's group, and with it perhaps its place in the order.
    pub(crate) fn change_group(&mut self, lane: LaneId, change: impl FnOnce(&mut Group)) {
        let group = self.lanes.get(lane).group;
        if group != NO_GROUP {
            change(self.groups.get_mut(group));
            self.refresh_group(group);
        }
    }

    /// Notes that one more of the lane's messages is in flight.
    pub(crate) fn started(&mut self, lane: LaneId) {
        self.in_flight += 1;
        let group = self.lanes.get(lane).group;
        if group != NO_GROUP {
            let state = self.groups.get_mut(group);
            state.in_flight += 1;
            if !self.rules.fifo && state.in_flight >= NOISY_IN_FLIGHT {
                self.heavy.insert(group);
            }
            self.refresh_group(group);
        }
        self.refresh_noise();
    }

    /// Notes that one of the lane's messages is not in flight any more, at `now`, after `held_ms`.
    pub(crate) fn ended(&mut self, lane: LaneId, now: i64, held_ms: i64) {
        self.in_flight -= 1;
        let group = self.lanes.get(lane).group;
        if group != NO_GROUP {
            let held_ms = held_ms.max(0) as f64;
            self.busy = faded(self.busy, now - self.busy_at) + held_ms;
            self.busy_at = now;
            let total = self.busy;
            let state = self.groups.get_mut(group);
            state.in_flight -= 1;
            state.busy = faded(state.busy, now - state.busy_at) + held_ms;
            state.busy_at = now;
            if !self.rules.fifo && state.busy * 10.0 > total {
                self.heavy.insert(group);
            }
            self.refresh_group(group);
        }
        self.refresh_noise();
    }

    /// SQS's rule: more than a tenth of the messages in flight and at least 30, or more than a tenth of recent processing
    /// time; here never for a tenant that is alone.
    fn is_noisy(&self, group: &Group) -> bool {
        let by_count =
            group.in_flight >= NOISY_IN_FLIGHT && u64::from(group.in_flight) * 10 > self.in_flight;
        let total = faded(self.busy, self.busy_at.max(group.busy_at) - self.busy_at);
        let own = faded(group.busy, self.busy_at.max(group.busy_at) - group.busy_at);
        let by_time = own >= 1.0 && own * 10.0 > total && own < total;
        by_count || by_time
    }

    #[inline]
    fn refresh_noise(&mut self) {
        if !self.heavy.is_empty() {
            self.refresh_heavy();
        }
    }

    fn refresh_heavy(&mut self) {
        let heavy: Vec<GroupId> = self.heavy.iter().copied().collect();
        for id in heavy {
            let noisy = self.is_noisy(self.groups.get(id));
            let group = self.groups.get_mut(id);
            let light = !noisy && group.in_flight < NOISY_IN_FLIGHT;
            let changed = group.noisy != noisy;
            group.noisy = noisy;
            if light {
                self.heavy.remove(&id);
            }
            if changed || light {
                self.refresh_group(id);
            }
        }
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    pub(crate) fn is_blocked(&self, lane: LaneId) -> bool {
        let Some(group) = self.group_of(lane) else { return false };
        let locked = self.rules.fifo && (group.in_flight > 0 || group.holding > 0);
        let busy = self.rules.concurrency > 0 && group.in_flight >= self.rules.concurrency;
        group.parked || locked || busy
    }

    fn refresh_group(&mut self, group: GroupId) {
        let mut at = 0;
        while let Some(lane) =
            self.groups.find(group).and_then(|state| state.lanes.get(at)).copied()
        {
            if self.refresh(lane) {
                at += 1;
            }
        }
        self.drop_group_if_empty(group);
    }

    /// Puts a lane where it belongs in the orders, or drops it; whether it is still there.
    #[inline]
    fn refresh(&mut self, id: LaneId) -> bool {
        let lane = self.lanes.get(id);
        let place = lane.place();
        let grouped = lane.group != NO_GROUP;
        // While no message has a group, each priority has one lane, and its place among others does not matter.
        let alone = !grouped && self.by_name.is_empty();
        if alone && place.is_some() && lane.rank.is_some_and(|rank| rank.place == 0) {
            return true;
        }
        let blocked = self.is_blocked(id);
        let noisy = grouped && self.groups.get(lane.group).noisy;
        let rank = place.filter(|_| !blocked).map(|place| Rank {
            priority_from_top: u8::MAX - lane.priority,
            noisy,
            place: if alone { 0 } else { place },
            lane: id,
        });
        let eldest = lane.run.front().map(|item| item.sequence).filter(|_| grouped);
        let (old_rank, old_eldest) = (lane.rank, lane.eldest);
        let empty = place.is_none() && lane.held == 0 && grouped;
        if rank != old_rank {
            if let Some(old) = old_rank {
                self.available.remove(&old);
            }
            self.available.extend(rank);
            self.lanes.get_mut(id).rank = rank;
        }
        if eldest != old_eldest {
            if let Some(old) = old_eldest {
                self.eldest.remove(&(old, id));
            }
            self.eldest.extend(eldest.map(|sequence| (sequence, id)));
            self.lanes.get_mut(id).eldest = eldest;
        }
        if empty {
            let group = self.lanes.remove(id).group;
            self.groups.get_mut(group).lanes.retain(|lane| *lane != id);
            self.drop_group_if_empty(group);
        }
        !empty
    }

    fn drop_group_if_empty(&mut self, id: GroupId) {
        let Some(group) = self.groups.find(id) else { return };
        if group.lanes.is_empty() && !group.parked && group.in_flight == 0 {
            let group = self.groups.remove(id);
            self.heavy.remove(&id);
            self.by_name.remove(&group.name);
        }
    }

    /// The first item in any run: with the same retention for all, the one that expires first.
    #[inline]
    pub(crate) fn eldest(&self) -> Option<&Item> {
        let front = |lane: &LaneId| self.lanes.get(*lane).run.front();
        let grouped = self.eldest.first().and_then(|(_, lane)| front(lane));
        let fronts = self.plain.iter().filter_map(front);
        fronts.fold(grouped, |eldest, item| match eldest {
            Some(eldest) if eldest.sequence < item.sequence => Some(eldest),
            _ => Some(item),
        })
    }

    /// The lanes with a run, in the order of its first sequence; those of messages without a group come first.
    pub(crate) fn lanes_by_age(&self) -> impl Iterator<Item = &Lane> {
        let grouped = self.eldest.iter().map(|(_, lane)| lane);
        self.plain.iter().chain(grouped).map(|lane| self.lanes.get(*lane))
    }

    /// The lanes of a group.
    pub(crate) fn lanes_of(&self, group: GroupId) -> impl Iterator<Item = &Lane> {
        self.groups.get(group).lanes.iter().map(|lane| self.lanes.get(*lane))
    }

    /// Lets a group stand still, or go on.
    pub(crate) fn set_parked(&mut self, name: &str, parked: bool) {
        if !parked && !self.by_name.contains_key(name) {
            return;
        }
        let group = self.group_for(name);
        self.groups.get_mut(group).parked = parked;
        self.refresh_group(group);
    }

    /// The first available lane of each priority, quiet and noisy.
    pub(crate) fn heads(&self) -> Vec<LaneId> {
        let mut heads = Vec::new();
        let mut next = self.available.first().copied();
        while let Some(rank) = next {
            heads.push(rank.lane);
            let last = Rank { place: u64::MAX, lane: LaneId::MAX, ..rank };
            next = self
                .available
                .range((std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded))
                .next()
                .copied();
        }
        heads
    }

    /// Takes over the run of a checkpoint.
    pub(crate) fn load_run(&mut self, lane: LaneId, run: Run) {
        self.lanes.get_mut(lane).run = run;
        self.refresh(lane);
    }

    /// What a checkpoint must know of groups beside their messages: who is parked, and who took how much time.
    pub(crate) fn save_groups(&self, out: &mut Vec<u8>) {
        put_varint(out, self.busy.to_bits());
        put_ms(out, self.busy_at);
        let told: Vec<&Group> = self
            .groups()
            .map(|(_, group)| group)
            .filter(|group| group.parked || group.busy > 0.0)
            .collect();
        put_varint(out, told.len() as u64);
        for group in told {
            put_bytes(out, group.name.as_bytes());
            out.push(u8::from(group.parked));
            put_varint(out, group.busy.to_bits());
            put_ms(out, group.busy_at);
        }
    }

    /// The reverse of [`Ready::save_groups`], after the messages.
    pub(crate) fn load_groups(&mut self, input: &mut Input<'_>) -> Decoded<()> {
        self.busy = f64::from_bits(input.varint()?);
        self.busy_at = input.ms()?;
        for _ in 0..input.count()? {
            let name = input.text()?;
            let parked = input.byte()? != 0;
            let (busy, busy_at) = (f64::from_bits(input.varint()?), input.ms()?);
            self.set_parked(name, parked);
            if let Some(group) = self.by_name.get(name).copied() {
                let state = self.groups.get_mut(group);
                (state.busy, state.busy_at) = (busy, busy_at);
                if !self.rules.fifo {
                    self.heavy.insert(group);
                }
            }
        }
        self.refresh_noise();
        Ok(())
    }

    /// Forgets all messages and groups.
    pub(crate) fn clear(&mut self) {
        *self = Ready { rules: self.rules, ..Ready::default() };
    }

    /// Lets all groups go on.
    pub(crate) fn resume_all(&mut self) {
        let groups: Vec<GroupId> = self.groups.ids().collect();
        for group in groups {
            self.groups.get_mut(group).parked = false;
            self.refresh_group(group);
        }
    }
}

/// What is left of processing time after `passed` ms.
fn faded(busy: f64, passed: i64) -> f64 {
    if passed <= 0 { busy } else { busy * (-(passed as f64) / BUSY_HALF_LIFE_MS).exp2() }
}
