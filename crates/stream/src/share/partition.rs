//! One partition of a share group at work: which records are handed out, and what their acknowledgements lead to.
//!
//! What has to survive is journaled: deliveries when they happen (stored, not synced: a power loss forgets some), and what
//! is done when it is acknowledged. Leases are memory.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use logmill_storage::{Durability, Reader, Wake};
use parking_lot::Mutex;

use super::bury::Dead;
use super::config::ShareSettings;
use super::leases::Leases;
use super::record::Loan;
use crate::PartitionId;
use crate::chunk::Chunk;
use crate::consumer::damaged;
use crate::entry::{ACQUIRED_MAX, Entry, OffsetRange};
use crate::error::{Error, Result};
use crate::group::MemberId;
use crate::partition::{OpenLog, Partition};
use crate::signal::Listener;
use crate::state::{ShareState, State};

/// Records that wait for an earlier one of their key; beyond so many, none that comes later is looked at.
const LOOK_AHEAD: usize = 1_000_000;

/// How a record is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Acknowledge {
    /// It is done.
    Accept,
    /// Somebody may try again, at once. The delivery counts.
    Release,
    /// It can never be done: it is dead at once.
    Reject,
    /// Its lease begins anew.
    Renew,
}

/// Where and when something happens, and by which rules.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'a> {
    pub(super) partition: &'a Partition,
    pub(super) settings: &'a ShareSettings,
    pub(super) now: Duration,
}

/// What a member asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) member: MemberId,
    pub(super) records_max: usize,
    pub(super) bytes_max: usize,
    /// Unless it does, the log may be closed until the next time.
    pub(super) keeps_reader: bool,
}

/// What a member gets.
#[derive(Debug, Default)]
pub(super) struct Acquired {
    pub(super) chunk: Chunk,
    /// One for each record of the chunk.
    pub(super) loans: Vec<Loan>,
    /// There is no more to be had now.
    pub(super) exhausted: bool,
}

/// What is to be lent.
#[derive(Debug, Default)]
struct Picked {
    chunk: Chunk,
    /// One for each record of the chunk, in order.
    offsets: Vec<u64>,
    /// Compaction took these.
    gone: Vec<u64>,
    exhausted: bool,
}

/// What a consumer says about a lease: offset, lease, and how.
pub(super) type Word = (u64, u64, Acknowledge);

/// Knows its partition by number only: the store holds it, so it must not hold the store.
pub(super) struct SharePartition {
    group: u64,
    group_name: Arc<str>,
    id: PartitionId,
    work: Mutex<Option<Work>>,
    listeners: Mutex<Vec<Weak<Listener>>>,
}

impl std::fmt::Debug for SharePartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharePartition").field("partition", &self.id).finish_non_exhaustive()
    }
}

/// Exists once somebody has asked for records.
struct Work {
    /// The same as the journal's fold has.
    state: ShareState,
    leases: Leases,
    reader: Option<(Reader, Arc<OpenLog>)>,
    hasher: RandomState,
}

impl SharePartition {
    pub(super) fn new(group: u64, group_name: Arc<str>, id: PartitionId) -> SharePartition {
        SharePartition {
            group,
            group_name,
            id,
            work: Mutex::new(None),
            listeners: Mutex::default(),
        }
    }

    pub(super) fn add_listener(&self, listener: &Arc<Listener>) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
    }

    /// Tells the members that there may be something to be had.
    fn tell(&self) {
        let listeners: Vec<_> = self.listeners.lock().iter().filter_map(Weak::upgrade).collect();
        for listener in listeners {
            listener.wake();
        }
    }

    /// When the next lease runs out, of those that do at `from` or later.
    pub(super) fn next_deadline(&self, from: Duration) -> Option<Duration> {
        self.work.lock().as_ref().and_then(|work| work.leases.next_deadline(from))
    }

    /// How many records are out, and how many wait for one of their key.
    pub(super) fn counts(&self) -> (usize, usize) {
        self.work
            .lock()
            .as_ref()
            .map_or((0, 0), |work| (work.leases.leased_count(), work.leases.parked_count()))
    }

    /// The state of work, begun if it was not.
    fn begin<'a>(
        &self,
        work: &'a mut Option<Work>,
        site: Site<'_>,
        log: Option<&OpenLog>,
    ) -> Result<&'a mut Work> {
        if work.is_none() {
            let state = self.load(site, log)?;
            let leases = Leases::starting_at(state.start);
            *work = Some(Work { state, leases, reader: None, hasher: RandomState::new() });
        }
        match work {
            Some(work) => Ok(work),
            None => Err(Error::UnknownGroup { group: self.group_name.to_string() }),
        }
    }

    /// What the journal knows, brought in line with the log as it is now, if there is one.
    fn load(&self, site: Site<'_>, log: Option<&OpenLog>) -> Result<ShareState> {
        let (shared, group, partition) = (&site.partition.shared, self.group, self.id);
        let known = shared.look(|state| state.groups.get(group)?.shares.get(&partition).cloned());
        let mut state = match known {
            Some(state) => state,
            None => {
                let (epoch, offset) = match log {
                    Some(log) => {
                        let offset = site.settings.start_at.offset(log, &**shared.dir.clock())?;
                        (log.epoch(), offset.unwrap_or_else(|| log.high_watermark()))
                    }
                    // The first record is one that comes later.
                    None => (0, 0),
                };
                let entry = Entry::ShareStarted { group, partition, epoch, offset };
                self.journal(site, &[entry], Durability::Buffered)?;
                ShareState::new(epoch, offset)
            }
        };
        if let Some(log) = log
            && state.epoch < log.epoch()
        {
            let (epoch, offset) = (log.epoch(), log.end_of_epoch(state.epoch)?);
            let entry = Entry::ShareEpoch { group, partition, epoch, offset };
            self.record(site, &mut state, &[entry], Durability::Buffered)?;
        }
        Ok(state)
    }

    fn journal(&self, site: Site<'_>, entries: &[Entry<'_>], durability: Durability) -> Result<()> {
        let entries = entries.iter().map(Entry::encoded).collect();
        // Whoever wants a sync asks for one.
        let begun = site.partition.shared.begin(durability, |state| {
            self.check(site, state)?;
            Ok((entries, ()))
        });
        begun.map(drop)
    }

    /// Nothing is said of a group or of a topic that is gone.
    pub(super) fn check(&self, site: Site<'_>, state: &State) -> Result<()> {
        if state.groups.get(self.group).is_none() {
            return Err(Error::UnknownGroup { group: self.group_name.to_string() });
        }
        if state.topics.get(self.id.topic).is_none() {
            return Err(site.partition.unknown());
        }
        Ok(())
    }

    /// Journals what happens, and only then lets it happen here: an error changes nothing.
    fn record(
        &self,
        site: Site<'_>,
        state: &mut ShareState,
        entries: &[Entry<'_>],
        durability: Durability,
    ) -> Result<()> {
        self.journal(site, entries, durability)?;
        entries.iter().for_each(|entry| state.apply(entry));
        Ok(())
    }

    /// Lends records to a member.
    pub(super) fn acquire(
        &self,
        site: Site<'_>,
        ask: Ask,
        next_lease: &AtomicU64,
    ) -> Result<Acquired> {
        let mut guard = self.work.lock();
        let Some(log) = site.partition.log_if_made()? else {
            self.begin(&mut guard, site, None)?;
            return Ok(Acquired { exhausted: true, ..Acquired::default() });
        };
        forget_if_void(&mut guard, &log);
        let work = self.begin(&mut guard, site, Some(&log))?;
        self.drop_removed(site, work, log.start_offset())?;
        // What cannot be buried hides no other record.
        let run_out = work.leases.run_out(site.now);
        let mut taken_back = self.take_back(site, &log, work, run_out);
        let (group, partition) = (self.group, self.id);
        loop {
            let Picked { chunk, offsets, gone, exhausted } = self.pick(site, work, &log, ask)?;
            let mut entries = Vec::new();
            if !gone.is_empty() {
                let ranges = ranges(gone.clone());
                entries.push(Entry::ShareDone { group, partition, ranges });
            }
            if !offsets.is_empty() {
                let ranges = ranges(offsets.clone());
                entries.push(Entry::ShareAcquired { group, partition, ranges });
            }
            self.record(site, &mut work.state, &entries, Durability::Buffered)?;
            gone.iter().for_each(|offset| work.leases.finish(*offset));
            if offsets.is_empty() && !gone.is_empty() {
                // Behind what is gone there may be records of the same key.
                continue;
            }
            if offsets.is_empty() {
                std::mem::replace(&mut taken_back, Ok(()))?;
            }
            let until = site.now.saturating_add(site.settings.lease);
            let lend = |offset: u64| {
                let lease = next_lease.fetch_add(1, Ordering::Relaxed);
                work.leases.grant(offset, lease, ask.member, until);
                Loan { lease, deliveries: work.state.deliveries.get(&offset).copied().unwrap_or(1) }
            };
            let loans = offsets.into_iter().map(lend).collect();
            if !ask.keeps_reader {
                work.reader = None;
            }
            return Ok(Acquired { chunk, loans, exhausted });
        }
    }

    /// Chooses and copies records to be lent, and changes nothing else than how far the log was looked at.
    fn pick(
        &self,
        site: Site<'_>,
        work: &mut Work,
        log: &Arc<OpenLog>,
        ask: Ask,
    ) -> Result<Picked> {
        let room = site.settings.in_flight_max.saturating_sub(work.leases.leased_count());
        let wanted = ask.records_max.min(room).min(ACQUIRED_MAX as usize);
        let mut picked = Picked::default();
        let mut from = 0;
        while picked.offsets.len() < wanted && picked.chunk.bytes() < ask.bytes_max {
            let step = match work.leases.next_free(from) {
                Some(offset) => log
                    .with_record(offset, |record| picked.chunk.push(record))
                    .map(|copied| Some((offset, copied.is_some()))),
                None => self.look_further(site, work, log).map(|found| {
                    picked.exhausted = !found;
                    None
                }),
            };
            match step {
                Ok(Some((offset, true))) => picked.offsets.push(offset),
                Ok(Some((offset, false))) => picked.gone.push(offset),
                Ok(None) if picked.exhausted => break,
                Ok(None) => continue,
                // What was found before the damage is handed out first.
                Err(_) if !picked.offsets.is_empty() => break,
                Err(error) => return Err(error),
            }
            from = picked.offsets.last().max(picked.gone.last()).map_or(0, |last| last + 1);
        }
        picked.exhausted |= picked.offsets.len() == room;
        Ok(picked)
    }

    /// Looks at the next records of the log; false if there is nothing more to look at, or too much waits already.
    fn look_further(&self, site: Site<'_>, work: &mut Work, log: &Arc<OpenLog>) -> Result<bool> {
        if work.leases.parked_count() >= LOOK_AHEAD {
            return Ok(false);
        }
        let mut cursor = work.leases.cursor();
        while let Some(end) = work.state.done.end_of(cursor) {
            cursor = end;
        }
        work.leases.advance_cursor(cursor);
        if cursor >= log.high_watermark() {
            return Ok(false);
        }
        let reader = match &mut work.reader {
            Some((reader, _)) if reader.position() == cursor => reader,
            place => &mut place.insert((log.reader(cursor)?, Arc::clone(log))).0,
        };
        let Some(batch) = reader.next_batch()? else { return Ok(false) };
        for record in batch.records() {
            let record = record
                .map_err(|what| damaged(&site.partition.name(), batch.base_offset(), what))?;
            if !work.state.is_done(record.offset) {
                let key = record.key.filter(|_| site.settings.key_ordered);
                work.leases.see(record.offset, key.map(|key| work.hasher.hash_one(key)));
            }
        }
        work.leases.advance_cursor(batch.last_offset() + 1);
        Ok(true)
    }

    /// Forgets what retention took.
    fn drop_removed(&self, site: Site<'_>, work: &mut Work, start: u64) -> Result<()> {
        if work.state.start >= start {
            return Ok(());
        }
        let (group, partition) = (self.group, self.id);
        let entry = Entry::ShareDone { group, partition, ranges: vec![(work.state.start, start)] };
        self.record(site, &mut work.state, &[entry], Durability::Buffered)?;
        work.leases.forget_below(start);
        Ok(())
    }

    /// Takes back what was lent.
    fn take_back(
        &self,
        site: Site<'_>,
        log: &OpenLog,
        work: &mut Work,
        offsets: Vec<u64>,
    ) -> Result<()> {
        let mut dead = Vec::new();
        for offset in offsets {
            if is_spent(&work.state, offset, site.settings) {
                dead.push(Dead { offset, reason: "delivery count limit" });
            } else {
                work.leases.put_back(offset);
            }
        }
        self.bury(site, log, work, &mut dead)
    }

    /// Puts back what ran out, so that others can have it.
    pub(super) fn expire(&self, site: Site<'_>) -> Result<()> {
        self.put_back(site, |leases| leases.run_out(site.now))
    }

    /// Puts back everything that a member holds: it is gone.
    pub(super) fn abandon(&self, site: Site<'_>, member: MemberId) -> Result<()> {
        self.put_back(site, |leases| leases.held_by(member))
    }

    /// Puts back what `which` says, and tells the members.
    fn put_back(&self, site: Site<'_>, which: impl Fn(&Leases) -> Vec<u64>) -> Result<()> {
        let mut guard = self.work.lock();
        if guard.as_ref().is_none_or(|work| which(&work.leases).is_empty()) {
            return Ok(());
        }
        let log = site.partition.log()?;
        forget_if_void(&mut guard, &log);
        let result = match &mut *guard {
            Some(work) => {
                let offsets = which(&work.leases);
                self.take_back(site, &log, work, offsets)
            }
            None => Ok(()),
        };
        drop(guard);
        self.tell();
        result
    }

    /// Takes in acknowledgements, and takes them out of `said`. Those whose lease is lost change nothing and come back.
    /// After an error, `said` has what was not taken in.
    pub(super) fn acknowledge(
        &self,
        site: Site<'_>,
        said: &mut Vec<Word>,
        durability: Durability,
    ) -> Result<Vec<u64>> {
        let mut guard = self.work.lock();
        let log = site.partition.log()?;
        forget_if_void(&mut guard, &log);
        let work = self.begin(&mut guard, site, Some(&log))?;
        let (mut accepted, mut dead, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let (mut released, mut renewed) = (Vec::new(), Vec::new());
        // What is left to be said if burying fails.
        let mut rest = Vec::new();
        // The first word ends a lease; a second is as late as it would be in the next commit.
        let mut ended = HashSet::new();
        for &(offset, lease, how) in said.iter() {
            let is_late = work.leases.check(offset, lease, site.now).is_err();
            if is_late || (how != Acknowledge::Renew && !ended.insert(offset)) {
                refused.push(offset);
                rest.push((offset, lease, how));
                continue;
            }
            let reason = match how {
                Acknowledge::Accept => {
                    accepted.push(offset);
                    continue;
                }
                Acknowledge::Renew => {
                    renewed.push(offset);
                    continue;
                }
                Acknowledge::Release if !is_spent(&work.state, offset, site.settings) => {
                    released.push(offset);
                    continue;
                }
                Acknowledge::Release => "delivery count limit",
                Acknowledge::Reject => "rejected",
            };
            dead.push(Dead { offset, reason });
            rest.push((offset, lease, how));
        }
        if !accepted.is_empty() {
            let (group, partition, ranges) = (self.group, self.id, ranges(accepted.clone()));
            let entry = Entry::ShareDone { group, partition, ranges };
            self.record(site, &mut work.state, &[entry], durability)?;
        }
        accepted.iter().for_each(|offset| work.leases.finish(*offset));
        released.iter().for_each(|offset| work.leases.put_back(*offset));
        let until = site.now.saturating_add(site.settings.lease);
        renewed.iter().for_each(|offset| work.leases.renew(*offset, until));
        *said = rest;
        let buried = self.bury(site, &log, work, &mut dead);
        drop(guard);
        self.tell();
        let is_left = |offset| dead.iter().any(|dead| dead.offset == offset);
        buried.inspect_err(|_| {
            said.retain(|(offset, ..)| refused.contains(offset) || is_left(*offset));
        })?;
        said.clear();
        Ok(refused)
    }

    /// Ends dead records: copies them to the dead-letter topic, if there is one, and lets the others go on. After an error,
    /// `dead` has those that did not end.
    fn bury(
        &self,
        site: Site<'_>,
        log: &OpenLog,
        work: &mut Work,
        dead: &mut Vec<Dead>,
    ) -> Result<()> {
        let done = |dead: &[Dead]| {
            let offsets = dead.iter().map(|dead| dead.offset).collect();
            Entry::ShareDone { group: self.group, partition: self.id, ranges: ranges(offsets) }
        };
        let (mut stuck, mut result) = (Vec::new(), Ok(()));
        while !dead.is_empty() {
            let deliveries = |offset| work.state.deliveries.get(&offset).copied().unwrap_or(0);
            let checked = |state: &State, dead: &[Dead]| {
                self.check(site, state)?;
                Ok(done(dead))
            };
            let (from, group) = (site.partition, &self.group_name);
            let moved = site.settings.dead_letter_topic.map_or(Ok(None), |topic| {
                super::bury::move_first(topic, from, log, group, dead, deliveries, checked)
            });
            let ended = moved.and_then(|moved| match moved {
                Some(moved) => Ok(moved),
                None => {
                    self.journal(site, &[done(dead)], Durability::Buffered).map(|()| dead.len())
                }
            });
            match ended {
                Ok(ended) => {
                    work.state.apply(&done(&dead[..ended]));
                    for dead in dead.drain(..ended) {
                        work.leases.finish(dead.offset);
                    }
                }
                Err(error) => {
                    let goes_on = matches!(error, Error::DeadLetterTooLarge { .. });
                    result = result.and(Err(error));
                    stuck.extend(dead.drain(..1));
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        dead.splice(..0, stuck);
        result
    }
}

/// Forgets what is out if the log was opened anew after a failed sync: it may be of records that are not there any more, and
/// others have their offsets.
fn forget_if_void(work: &mut Option<Work>, log: &OpenLog) {
    work.take_if(|work| work.state.epoch < log.epoch());
}

/// Whether a record was delivered as often as permitted.
fn is_spent(state: &ShareState, offset: u64, settings: &ShareSettings) -> bool {
    let deliveries = state.deliveries.get(&offset).copied().unwrap_or(0);
    settings.deliveries_max.is_some_and(|limit| deliveries >= limit)
}

/// Offsets as ranges.
fn ranges(mut offsets: Vec<u64>) -> Vec<OffsetRange> {
    offsets.sort_unstable();
    let mut ranges: Vec<OffsetRange> = Vec::new();
    for offset in offsets {
        match ranges.last_mut() {
            Some((_, end)) if *end == offset => *end += 1,
            _ => ranges.push((offset, offset + 1)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_the_fewest_ranges() {
        assert_eq!(ranges(vec![5, 1, 2, 3, 9, 8]), [(1, 4), (5, 6), (8, 10)]);
        assert!(ranges(Vec::new()).is_empty());
    }
}
