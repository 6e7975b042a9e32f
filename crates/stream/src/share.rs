//! Share groups: any number of consumers on one partition, each record leased to one of them and acknowledged by itself.
//!
//! ```text
//!                    +--------- release, lease ran out ---------+
//!                    v                                          |
//!   in the log --> free --acquire--> leased to one consumer ----+--- accept ---> done
//!                                                               +--- reject, delivered too often ---> dead
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use logmill_storage::{Clock, Durability, Journal, Wake};
use parking_lot::{Mutex, RwLock};

use crate::consumer::READERS_KEPT;
use crate::entry::{Entry, GroupKind};
use crate::error::{Error, Result};
use crate::group::MemberId;
use crate::keeper::LOOK_EVERY;
use crate::partition::Partition;
use crate::shared::Shared;
use crate::signal::{Listener, Signal};
use crate::streams::Streams;
use crate::turn::{self, TakesTurns, Turn};
use crate::{PartitionId, TopicPartition};

#[cfg(feature = "tokio")]
mod asynchronous;
mod bury;
mod config;
pub(crate) mod leases;
mod partition;
mod record;
#[cfg(test)]
mod tests;

pub(crate) use config::ShareSettings;
pub use config::{ShareConsumerConfig, ShareGroupConfig};
pub use partition::Acknowledge;
use partition::{Ask, SharePartition, Site, Word};
use record::SharePart;
pub use record::{ShareReceipt, ShareRecord, ShareRecords};

/// A share group that has, or had, consumers in this process.
#[derive(Debug)]
pub(crate) struct ShareGroup {
    id: u64,
    name: Arc<str>,
    settings: RwLock<Arc<ShareSettings>>,
    partitions: Mutex<HashMap<PartitionId, Arc<SharePartition>>>,
    /// The consumers that exist now.
    members: Mutex<BTreeMap<MemberId, Arc<Signal>>>,
    next_member: AtomicU64,
    next_lease: AtomicU64,
}

impl ShareGroup {
    fn settings(&self) -> Arc<ShareSettings> {
        Arc::clone(&self.settings.read())
    }

    fn partition(&self, id: PartitionId) -> Arc<SharePartition> {
        let make = || Arc::new(SharePartition::new(self.id, Arc::clone(&self.name), id));
        Arc::clone(self.partitions.lock().entry(id).or_insert_with(make))
    }

    fn all_partitions(&self) -> Vec<(PartitionId, Arc<SharePartition>)> {
        self.partitions.lock().iter().map(|(id, partition)| (*id, Arc::clone(partition))).collect()
    }

    /// When the next lease of any partition runs out, of those that do at `from` or later.
    fn next_deadline(&self, from: Duration) -> Option<Duration> {
        let partitions = self.all_partitions();
        partitions.iter().filter_map(|(_, partition)| partition.next_deadline(from)).min()
    }

    /// Whether some lease has run out.
    fn has_run_out(&self, now: Duration) -> bool {
        self.next_deadline(Duration::ZERO).is_some_and(|deadline| deadline < now)
    }

    /// Until when nothing happens by itself. What has run out and could not be put back is tried again after a pause.
    fn quiet_until(&self, now: Duration) -> Duration {
        // It runs out just after its end.
        let end = self.next_deadline(now).unwrap_or(Duration::MAX);
        let end = end.saturating_add(Duration::from_nanos(1));
        if self.has_run_out(now) { end.min(now.saturating_add(LOOK_EVERY)) } else { end }
    }

    /// Forgets the partitions of topics that are gone.
    fn forget_deleted(&self, shared: &Shared) {
        let topics = shared.topics.read();
        self.partitions.lock().retain(|id, _| topics.by_id(id.topic).is_some());
    }

    /// Does something with every partition that is still there. An error is met again by whoever next asks for records
    /// of that partition.
    fn each_partition(
        &self,
        shared: &Arc<Shared>,
        mut act: impl FnMut(Site<'_>, &SharePartition) -> Result<()>,
    ) {
        let (settings, now) = (self.settings(), shared.dir.clock().monotonic());
        for (id, partition) in self.all_partitions() {
            if let Ok(handle) = shared.partition(id) {
                let site = Site { partition: &handle, settings: &settings, now };
                let _ = act(site, &partition);
            }
        }
    }

    /// Gives back what was lent for too long.
    fn expire(&self, shared: &Arc<Shared>) {
        if self.has_run_out(shared.dir.clock().monotonic()) {
            // Who was about to work with a topic as it was deleted may have brought it back.
            self.forget_deleted(shared);
            self.each_partition(shared, |site, partition| partition.expire(site));
        }
    }

    pub(crate) fn members(&self) -> Vec<MemberId> {
        self.members.lock().keys().copied().collect()
    }

    /// How many records of a partition are out, and how many wait for one of their key.
    pub(crate) fn counts(&self, id: PartitionId) -> (usize, usize) {
        let partition = self.partitions.lock().get(&id).cloned();
        partition.map_or((0, 0), |partition| partition.counts())
    }

    /// Tells the consumers that there may be other topics and partitions.
    pub(crate) fn tell(&self, shared: &Shared) {
        self.forget_deleted(shared);
        for signal in self.members.lock().values() {
            signal.kick();
        }
    }
}

/// The share groups of a store that were used since it was opened.
#[derive(Debug, Default)]
pub(crate) struct ActiveShareGroups {
    by_id: Mutex<HashMap<u64, Arc<ShareGroup>>>,
}

impl ActiveShareGroups {
    pub(crate) fn get(&self, id: u64) -> Option<Arc<ShareGroup>> {
        self.by_id.lock().get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<ShareGroup>> {
        self.by_id.lock().values().cloned().collect()
    }

    /// Does something to a group in the journal behind its back, if it has no members, and forgets what is in memory of
    /// it. Nobody joins meanwhile. With members, says how many.
    pub(crate) fn while_inactive<T>(&self, id: u64, act: impl FnOnce() -> T) -> Result<T, usize> {
        let mut groups = self.by_id.lock();
        match groups.get(&id).map_or(0, |group| group.members.lock().len()) {
            0 => {
                groups.remove(&id);
                Ok(act())
            }
            members => Err(members),
        }
    }
}

impl Shared {
    pub(crate) fn expire_leases(self: &Arc<Self>) {
        for group in self.share_groups.all() {
            group.expire(self);
        }
    }

    /// Joins the share group called `name`, made if there is none, with what `config` sets.
    fn join_share_group(
        &self,
        name: &str,
        config: &ShareGroupConfig,
        signal: &Arc<Signal>,
    ) -> Result<(Arc<ShareGroup>, MemberId)> {
        let mut changes = config.settings.clone();
        if let Some(topic) = &config.dead_letter_topic {
            let id = match topic {
                Some(topic) => {
                    let core = self
                        .topic_by_name(topic)
                        .ok_or_else(|| Error::UnknownTopic { name: topic.clone() })?;
                    i64::from(core.id())
                }
                None => 0,
            };
            changes.set(crate::settings::Setting::ShareDeadLetterTopic, id);
        }
        ShareSettings::from(&changes)?;
        let id = self.make_group(name, GroupKind::Share, &changes)?;
        let mut groups = self.share_groups.by_id.lock();
        let settings = self.change(Durability::Buffered, |state| {
            let unknown = || Error::UnknownGroup { group: name.into() };
            let known = &state.groups.get(id).ok_or_else(unknown)?.settings;
            let mut settings = known.clone();
            settings.merge(&changes);
            let resolved = ShareSettings::from(&settings)?;
            if ShareSettings::from(known)?.key_ordered != resolved.key_ordered {
                // What is out, and what was looked at, was without regard to keys, or with it.
                match groups.get(&id).map_or(0, |group| group.members.lock().len()) {
                    0 => drop(groups.remove(&id)),
                    members => return Err(Error::GroupActive { group: name.into(), members }),
                }
            }
            let entries = if settings == *known {
                Vec::new()
            } else {
                vec![Entry::GroupAltered { group: id, settings }.encoded()]
            };
            Ok((entries, Arc::new(resolved)))
        })?;
        let group = groups.entry(id).or_insert_with(|| {
            Arc::new(ShareGroup {
                id,
                name: name.into(),
                settings: RwLock::new(Arc::clone(&settings)),
                partitions: Mutex::default(),
                members: Mutex::default(),
                next_member: AtomicU64::new(1),
                next_lease: AtomicU64::new(1),
            })
        });
        *group.settings.write() = settings;
        let member = MemberId(group.next_member.fetch_add(1, Ordering::Relaxed));
        group.members.lock().insert(member, Arc::clone(signal));
        Ok((Arc::clone(group), member))
    }
}

/// What a consumer has said about leases.
type Said = BTreeMap<PartitionId, Vec<Word>>;

/// What a consumer was handed and has not said anything about.
type Unacknowledged = BTreeMap<PartitionId, BTreeMap<u64, u64>>;

/// A partition that a consumer reads.
struct Source {
    handle: Partition,
    shared_work: Arc<SharePartition>,
    listener: Arc<Listener>,
    /// Whether the next fetch looks at it.
    is_queued: bool,
}

/// A member of a share group.
///
/// Dropping it gives back at once what it has not acknowledged, without committing what it has.
pub struct ShareConsumer {
    shared: Arc<Shared>,
    group: Arc<ShareGroup>,
    config: ShareConsumerConfig,
    member: MemberId,
    signal: Arc<Signal>,
    topics: Vec<Arc<str>>,
    /// Id and number of partitions of those topics, as they were followed last.
    followed: Vec<(u32, u32)>,
    partitions: BTreeMap<PartitionId, Source>,
    /// Partitions that may have records to hand out, in turn.
    ready: VecDeque<PartitionId>,
    /// Leases that nothing was said about, by offset.
    open: Unacknowledged,
    /// What was said and not committed.
    said: Said,
    /// What came too late, and nobody was told of.
    late: Vec<(TopicPartition, u64)>,
    /// What was committed may not be synced yet.
    is_unsynced: bool,
}

impl std::fmt::Debug for ShareConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShareConsumer")
            .field("group", &self.group.name)
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

impl Streams {
    /// A consumer of the share group `group`, which is made if there is none. It reads nothing before it subscribes.
    ///
    /// # Errors
    /// [`Error::InvalidName`]; [`Error::GroupKind`] if it is a group of ordinary consumers; [`Error::UnknownTopic`] for the
    /// dead-letter topic; [`Error::GroupActive`] if it has members and is key-ordered and shall not be, or the other way round;
    /// [`Error::InvalidSetting`]; [`Error::Storage`].
    pub fn share_consumer(
        &self,
        group: &str,
        config: ShareConsumerConfig,
    ) -> Result<ShareConsumer> {
        let shared = Arc::clone(&self.shared);
        let signal = Arc::new(Signal::default());
        let (group, member) = shared.join_share_group(group, &config.group, &signal)?;
        Ok(ShareConsumer {
            shared,
            group,
            config,
            member,
            signal,
            topics: Vec::new(),
            followed: Vec::new(),
            partitions: BTreeMap::new(),
            ready: VecDeque::new(),
            open: BTreeMap::new(),
            said: BTreeMap::new(),
            late: Vec::new(),
            is_unsynced: false,
        })
    }
}

impl ShareConsumer {
    /// Reads these topics, together with the other consumers of the group, instead of what it read before.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`]: nothing was changed.
    pub fn subscribe<T: AsRef<str>>(&mut self, topics: &[T]) -> Result<()> {
        let mut names = Vec::new();
        for topic in topics {
            let name = topic.as_ref();
            let core = self
                .shared
                .topic_by_name(name)
                .ok_or_else(|| Error::UnknownTopic { name: name.into() })?;
            names.push(core.shared_name());
        }
        self.topics = names;
        self.follow_topics()
    }

    /// The group.
    pub fn group(&self) -> &str {
        &self.group.name
    }

    /// Leases the next records to this consumer and returns them, waiting for some until `timeout` has passed.
    ///
    /// Records that came back are handed out before new ones. What was acknowledged since the last poll is committed
    /// first, without waiting; unless the consumer is explicit, everything else that it was handed counts as accepted.
    /// The order of records is not kept but for those of one key in a key-ordered group.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]: some acknowledgements came too late, the others were taken. [`Error::Storage`].
    pub fn poll(&mut self, timeout: Duration) -> Result<ShareRecords> {
        self.begin_poll()?;
        turn::poll(self, timeout)
    }

    fn begin_poll(&mut self) -> Result<()> {
        self.begin_commit()?;
        self.refused()
    }

    /// Says what became of a record. [`ShareConsumer::commit`] and the next poll tell the group; only a renewal is at once.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] for a renewal that came too late.
    pub fn acknowledge(&mut self, receipt: ShareReceipt, how: Acknowledge) -> Result<()> {
        if how == Acknowledge::Renew {
            let mut said =
                BTreeMap::from([(receipt.partition, vec![(receipt.offset, receipt.lease, how)])]);
            self.submit_said(&mut said)?;
            return self.refused();
        }
        if let Some(open) = self.open.get_mut(&receipt.partition)
            && open.get(&receipt.offset) == Some(&receipt.lease)
        {
            open.remove(&receipt.offset);
        }
        self.said.entry(receipt.partition).or_default().push((receipt.offset, receipt.lease, how));
        Ok(())
    }

    /// Tells the group what was acknowledged, and waits until that is as durable as configured. Unless the consumer is
    /// explicit, everything else that the last poll returned counts as accepted.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]: some came too late, because their lease had run out; the others were taken.
    /// [`Error::Storage`].
    pub fn commit(&mut self) -> Result<()> {
        self.begin_commit()?;
        if let Some(journal) = self.to_sync()? {
            journal.sync()?;
        }
        self.is_unsynced = false;
        self.refused()
    }

    fn begin_commit(&mut self) -> Result<()> {
        if !self.config.explicit {
            self.accept_open();
        }
        self.submit()
    }

    fn durability(&self) -> Durability {
        self.config.durability.unwrap_or(self.shared.durability)
    }

    /// The journal, if what was acknowledged is durable only once that is synced.
    fn to_sync(&self) -> Result<Option<&Journal>> {
        if !self.is_unsynced || self.durability() != Durability::Sync {
            return Ok(None);
        }
        self.shared.journal()
    }

    /// Commits what was acknowledged, gives back the rest, and leaves the group.
    ///
    /// # Errors
    /// As [`ShareConsumer::commit`]; the group was left nevertheless.
    pub fn close(mut self) -> Result<()> {
        self.commit()
    }

    fn accept_open(&mut self) {
        for (partition, offsets) in std::mem::take(&mut self.open) {
            let said = self.said.entry(partition).or_default();
            said.extend(
                offsets.into_iter().map(|(offset, lease)| (offset, lease, Acknowledge::Accept)),
            );
        }
    }

    fn submit(&mut self) -> Result<()> {
        let mut said = std::mem::take(&mut self.said);
        self.is_unsynced |= !said.is_empty();
        let result = self.submit_said(&mut said);
        // What could not be taken in is there for the next try.
        self.said = said;
        result
    }

    fn submit_said(&mut self, said: &mut Said) -> Result<()> {
        let now = self.shared.dir.clock().monotonic();
        let (settings, durability) = (self.group.settings(), self.durability());
        while let Some(mut entry) = said.first_entry() {
            // The records of a topic that was deleted need no acknowledgement.
            let Ok(handle) = self.shared.partition(*entry.key()) else {
                entry.remove();
                continue;
            };
            let partition = self.group.partition(*entry.key());
            let site = Site { partition: &handle, settings: &settings, now };
            let late = partition.acknowledge(site, entry.get_mut(), durability)?;
            entry.remove();
            let name = handle.name();
            self.late.extend(late.into_iter().map(|offset| (name.clone(), offset)));
        }
        Ok(())
    }

    /// An error if some acknowledgements came too late.
    fn refused(&mut self) -> Result<()> {
        match std::mem::take(&mut self.late) {
            late if late.is_empty() => Ok(()),
            records => Err(Error::LeaseLost { records }),
        }
    }

    /// Takes up new partitions and drops those of topics that are gone.
    fn follow_topics(&mut self) -> Result<()> {
        let cores: Vec<_> =
            self.topics.iter().filter_map(|name| self.shared.topic_by_name(name)).collect();
        let now: Vec<_> = cores.iter().map(|core| (core.id(), core.partition_count())).collect();
        if now == self.followed {
            return Ok(());
        }
        self.partitions.retain(|id, _| now.iter().any(|(topic, _)| id.topic == *topic));
        self.ready.retain(|id| self.partitions.contains_key(id));
        for id in cores.iter().flat_map(|core| core.partitions()).map(|partition| partition.id) {
            if self.partitions.contains_key(&id) {
                continue;
            }
            let handle = self.shared.partition(id)?;
            let shared_work = self.group.partition(id);
            let listener = Listener::flagged(id, Arc::clone(&self.signal));
            let wake: Arc<dyn Wake> = listener.clone();
            handle.core.on_append(Arc::downgrade(&wake));
            shared_work.add_listener(&listener);
            self.partitions.insert(id, Source { handle, shared_work, listener, is_queued: false });
            self.enqueue(id);
        }
        self.followed = now;
        Ok(())
    }

    /// Has the next fetch look at a partition.
    fn enqueue(&mut self, id: PartitionId) {
        if let Some(source) = self.partitions.get_mut(&id)
            && !std::mem::replace(&mut source.is_queued, true)
        {
            self.ready.push_back(id);
        }
    }

    fn fetch(&mut self, now: Duration) -> Result<ShareRecords> {
        for id in self.signal.take_ready() {
            self.enqueue(id);
        }
        let settings = self.group.settings();
        let keeps_reader = self.partitions.len() <= READERS_KEPT;
        let mut records = ShareRecords::default();
        let (mut records_max, mut bytes_max) = (self.config.records_max, self.config.bytes_max);
        for _ in 0..self.ready.len() {
            if records_max == 0 || bytes_max == 0 {
                break;
            }
            let Some(id) = self.ready.pop_front() else { break };
            let Some(source) = self.partitions.get_mut(&id) else { continue };
            source.is_queued = false;
            let Source { handle, shared_work, listener, .. } = &*source;
            // Armed before looking: what comes meanwhile is told, and only looked for once more than needed.
            listener.rearm();
            let ask = Ask { member: self.member, records_max, bytes_max, keeps_reader };
            let site = Site { partition: handle, settings: &settings, now };
            let acquired = match shared_work.acquire(site, ask, &self.group.next_lease) {
                Ok(acquired) => acquired,
                Err(error) => {
                    listener.disarm();
                    // The others have their turn before it comes again.
                    self.enqueue(id);
                    return if records.is_empty() { Err(error) } else { Ok(records) };
                }
            };
            let name = handle.name();
            if !acquired.exhausted {
                listener.disarm();
                self.enqueue(id);
            }
            if acquired.loans.is_empty() {
                continue;
            }
            records_max = records_max.saturating_sub(acquired.loans.len());
            bytes_max = bytes_max.saturating_sub(acquired.chunk.bytes());
            let open = self.open.entry(id).or_default();
            for (index, loan) in acquired.loans.iter().enumerate() {
                if let Some(offset) = acquired.chunk.offset(index) {
                    open.insert(offset, loan.lease);
                }
            }
            records.parts.push(SharePart {
                name,
                id,
                chunk: Arc::new(acquired.chunk),
                loans: acquired.loans.into(),
            });
        }
        Ok(records)
    }
}

impl TakesTurns for ShareConsumer {
    type Found = ShareRecords;

    fn turn(&mut self, now: Duration, deadline: Duration) -> Result<Turn<ShareRecords>> {
        self.shared.check_open()?;
        self.follow_topics()?;
        self.group.expire(&self.shared);
        let records = self.fetch(now)?;
        if !records.is_empty() || now >= deadline || self.signal.take_woken() {
            return Ok(Turn::Done(records));
        }
        // A lease that runs out makes no noise by itself.
        Ok(Turn::WaitUntil(deadline.min(self.group.quiet_until(now))))
    }

    fn place(&self) -> (Arc<Signal>, Arc<dyn Clock>) {
        (Arc::clone(&self.signal), Arc::clone(self.shared.dir.clock()))
    }
}

impl Drop for ShareConsumer {
    fn drop(&mut self) {
        // What cannot be given back now comes back when its lease runs out.
        self.group
            .each_partition(&self.shared, |site, partition| partition.abandon(site, self.member));
        // Only now: a group without members may be changed behind its back, and is to have nothing out then.
        self.group.members.lock().remove(&self.member);
    }
}
