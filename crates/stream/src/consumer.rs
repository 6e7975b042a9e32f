//! A consumer: a member of a group that reads the partitions assigned to it, and remembers how far it came.
//!
//! ```text
//!   poll:  membership -> give up what moves away -> take what moves here -> auto-commit -> fetch, or wait
//! ```
//! A consumer belongs to one thread at a time. What goes on elsewhere (appends, other members) reaches it through its
//! [`Signal`], so a poll that waits uses no CPU.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use logmill_storage::{Clock, Wake};
use regex_lite::Regex;

use crate::chunk::Records;
use crate::error::{Error, Result};
use crate::group::{Join, MemberId, Refusal};
use crate::groups::Group;
use crate::partition::Partition;
use crate::shared::Shared;
use crate::signal::{Listener, Signal};
use crate::streams::Streams;
use crate::turn::{self, TakesTurns, Turn};
use crate::{PartitionId, TopicPartition};

mod assigned;
#[cfg(feature = "tokio")]
mod asynchronous;
mod commit;
mod config;
mod seek;

use assigned::Assigned;
pub(crate) use assigned::damaged;
#[cfg(feature = "tokio")]
pub use asynchronous::{PolledRecord, RecordStream};
pub use commit::{CommitTicket, OffsetAndMetadata};
pub use config::{ConsumerConfig, OutOfRange, StartAt};

/// With more partitions than this, a partition keeps neither its files nor what was read ahead until its next turn.
pub(crate) const READERS_KEPT: usize = 64;

/// What a consumer wants to read.
#[derive(Debug)]
enum Subscription {
    None,
    Topics(BTreeSet<Arc<str>>),
    Pattern(Regex),
    /// Certain partitions, chosen by the caller and not by the group.
    Manual,
}

/// Is told when partitions come and go. Every method is called from within the consumer's own calls, with the consumer.
pub trait RebalanceListener: Send {
    /// The consumer begins to read these.
    fn on_assigned(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) {
        let _ = (consumer, partitions);
    }

    /// The consumer is about to give these up: the last moment to commit what it did with them.
    fn on_revoked(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) {
        let _ = (consumer, partitions);
    }

    /// The consumer was silent for too long, and others read these already: commits are refused.
    fn on_lost(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) {
        let _ = (consumer, partitions);
    }
}

/// Makes a waiting [`Consumer::poll`] return, from any thread.
#[derive(Clone, Debug)]
pub struct ConsumerWaker {
    signal: Arc<Signal>,
}

impl ConsumerWaker {
    /// The poll that waits now, or else the next one, returns at once, maybe without records.
    pub fn wake(&self) {
        self.signal.wake_poll();
    }
}

/// A member of a consumer group.
///
/// Dropping it leaves the group at once without committing; [`Consumer::close`] commits first.
pub struct Consumer {
    shared: Arc<Shared>,
    group: Arc<Group>,
    config: ConsumerConfig,
    signal: Arc<Signal>,
    member: Option<MemberId>,
    subscription: Subscription,
    /// What the subscription means now, as the group was told last.
    topics: BTreeSet<u32>,
    assigned: BTreeMap<PartitionId, Assigned>,
    /// Partitions that may have records to hand out, in turn.
    ready: VecDeque<PartitionId>,
    listener: Option<Box<dyn RebalanceListener>>,
    /// The group's version that this consumer has acted upon.
    seen_version: u64,
    next_auto_commit: Duration,
    /// Counts the times that a poll looked for records: those that the last one found may still be worked on.
    turns: u64,
    /// Something was committed, to be synced, that nobody has waited for.
    is_unsynced: bool,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("group", &self.group.name)
            .field("member", &self.member)
            .field("assigned", &self.assigned.len())
            .finish_non_exhaustive()
    }
}

impl Streams {
    /// A consumer of `group`, which is made if there is none. It reads nothing before it subscribes.
    ///
    /// # Errors
    /// [`Error::InvalidName`]; [`Error::GroupKind`] if it is a share group; [`Error::Storage`].
    pub fn consumer(&self, group: &str, config: ConsumerConfig) -> Result<Consumer> {
        let shared = Arc::clone(&self.shared);
        let group = shared.open_group(group)?;
        let now = shared.dir.clock().monotonic();
        Ok(Consumer {
            shared,
            group,
            next_auto_commit: config
                .auto_commit
                .map_or(Duration::MAX, |interval| now.saturating_add(interval)),
            config,
            signal: Arc::new(Signal::default()),
            member: None,
            subscription: Subscription::None,
            topics: BTreeSet::new(),
            assigned: BTreeMap::new(),
            ready: VecDeque::new(),
            listener: None,
            seen_version: 0,
            turns: 0,
            is_unsynced: false,
        })
    }
}

impl Consumer {
    /// Reads these topics, together with the other members of the group, instead of what it read before.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`]: nothing was changed. (Kafka waits for such a topic; here a misspelled name is seen, and
    /// [`Consumer::subscribe_pattern`] waits.) [`Error::Group`] if the members disagree about the strategy.
    pub fn subscribe<T: AsRef<str>>(&mut self, topics: &[T]) -> Result<()> {
        let mut names = BTreeSet::new();
        for topic in topics {
            let name = topic.as_ref();
            let core = self
                .shared
                .topic_by_name(name)
                .ok_or_else(|| Error::UnknownTopic { name: name.into() })?;
            names.insert(core.shared_name());
        }
        self.subscribe_to(Subscription::Topics(names))
    }

    /// Reads all topics, present and future, whose whole name matches a regular expression.
    ///
    /// # Errors
    /// [`Error::InvalidPattern`]; [`Error::Group`].
    pub fn subscribe_pattern(&mut self, pattern: &str) -> Result<()> {
        let regex = Regex::new(&format!("^(?:{pattern})$")).map_err(|error| {
            Error::InvalidPattern { pattern: pattern.into(), what: error.to_string() }
        })?;
        self.subscribe_to(Subscription::Pattern(regex))
    }

    fn subscribe_to(&mut self, subscription: Subscription) -> Result<()> {
        if matches!(self.subscription, Subscription::Manual) {
            self.assigned.clear();
        }
        self.subscription = subscription;
        // What was seen of the group was seen with the subscription before.
        self.seen_version = 0;
        self.keep_up(self.now())
    }

    /// Reads exactly these partitions, whatever the group's other members do, instead of what it read before. Positions
    /// can be committed as long as the group has no members.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`]: nothing was changed.
    pub fn assign(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        let mut handles = Vec::new();
        for partition in partitions {
            handles.push(self.shared.partition_by_name(&partition.topic, partition.partition)?);
        }
        self.unsubscribe()?;
        self.subscription = Subscription::Manual;
        for handle in handles {
            self.begin(handle);
        }
        Ok(())
    }

    /// Reads nothing any more, and leaves the group (a static member too).
    ///
    /// # Errors
    /// None at present.
    pub fn unsubscribe(&mut self) -> Result<()> {
        self.tell_leaving();
        self.subscription = Subscription::None;
        self.topics.clear();
        self.assigned.clear();
        self.ready.clear();
        if let Some(member) = self.member.take() {
            self.group.leave(self.now(), member, true);
        }
        Ok(())
    }

    /// Has `listener` told of rebalances from now on.
    pub fn set_listener(&mut self, listener: impl RebalanceListener + 'static) {
        self.listener = Some(Box::new(listener));
    }

    /// The group.
    pub fn group(&self) -> &str {
        &self.group.name
    }

    /// Its number in the group, while it is in it.
    pub fn member(&self) -> Option<MemberId> {
        self.member
    }

    /// The partitions that it reads now.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.assigned.values().map(|assigned| assigned.name.clone()).collect()
    }

    /// What makes a waiting poll return.
    pub fn waker(&self) -> ConsumerWaker {
        ConsumerWaker { signal: Arc::clone(&self.signal) }
    }

    /// Says that the consumer is alive, and does its part in a rebalance: for those who work long between polls.
    ///
    /// # Errors
    /// As [`Consumer::poll`].
    pub fn heartbeat(&mut self) -> Result<()> {
        let now = self.now();
        self.signal.seen(now);
        self.keep_up(now)
    }

    /// Returns the next records, waiting for some until `timeout` has passed; then it returns none.
    ///
    /// What was returned counts as done at the next poll: that is what automatic commits go by.
    ///
    /// # Errors
    /// [`Error::PositionLost`], [`Error::PositionRemoved`], [`Error::NoPosition`]: until the consumer seeks, every poll
    /// that comes to this partition fails. [`Error::Group`] if a static member was replaced. [`Error::Storage`].
    /// # Cost
    /// Records are copied out of the page cache once, some hundred at a time. Waiting uses no CPU.
    pub fn poll(&mut self, timeout: Duration) -> Result<Records> {
        turn::poll(self, timeout)
    }

    fn now(&self) -> Duration {
        self.shared.dir.clock().monotonic()
    }

    /// Does what membership asks for: joins, gives up, takes over.
    fn keep_up(&mut self, now: Duration) -> Result<()> {
        self.group.expire(now);
        loop {
            let version = self.group.version();
            if version == self.seen_version && self.member.is_some() {
                return Ok(());
            }
            match self.subscription {
                Subscription::None => return Ok(()),
                Subscription::Manual => {
                    self.seen_version = version;
                    return Ok(());
                }
                Subscription::Topics(_) | Subscription::Pattern(_) => {}
            }
            match self.take_part(now) {
                Ok(()) => self.seen_version = version,
                Err(Refusal::UnknownMember(_)) => self.lost(),
                Err(refusal) => {
                    if matches!(refusal, Refusal::InstanceFenced { .. }) {
                        self.lost();
                        self.subscription = Subscription::None;
                    }
                    return Err(self.group.refused(refusal));
                }
            }
        }
    }

    fn take_part(&mut self, now: Duration) -> Result<(), Refusal> {
        let topics = self.wanted_topics();
        let member = match self.member {
            Some(member) => {
                if topics != self.topics {
                    self.group
                        .change(|coordinator| coordinator.subscribe(member, topics.clone()))?;
                    self.topics = topics;
                }
                member
            }
            None => {
                let join = Join {
                    topics: topics.clone(),
                    instance: self.config.instance.clone(),
                    session_timeout: self.config.session_timeout,
                    strategy: self.config.assignor,
                };
                self.signal.seen(now);
                let member = self.group.join(now, join, &self.signal)?;
                self.topics = topics;
                self.member = Some(member);
                member
            }
        };
        // A static member that comes back owns its partitions already.
        let owned = self.group.quietly(|coordinator| coordinator.owned(member));
        self.adopt(&owned);
        let revoked = self.group.quietly(|coordinator| coordinator.to_revoke(member))?;
        if !revoked.is_empty() {
            self.give_up(&revoked);
            self.group.change(|coordinator| coordinator.release(member, &revoked))?;
        }
        let claimed = self.group.quietly(|coordinator| coordinator.claim(member))?;
        self.adopt(&claimed);
        Ok(())
    }

    fn wanted_topics(&self) -> BTreeSet<u32> {
        match &self.subscription {
            Subscription::Topics(names) => names
                .iter()
                .filter_map(|name| self.shared.topic_by_name(name))
                .map(|core| core.id())
                .collect(),
            Subscription::Pattern(regex) => self.shared.topic_ids(|name| regex.is_match(name)),
            Subscription::None | Subscription::Manual => BTreeSet::new(),
        }
    }

    /// Starts to read what it did not read before.
    fn adopt(&mut self, partitions: &BTreeSet<PartitionId>) {
        let mut names = Vec::new();
        for id in partitions {
            if self.assigned.contains_key(id) {
                continue;
            }
            // A topic that was deleted this moment is no longer in the next assignment.
            if let Ok(partition) = self.shared.partition(*id) {
                names.push(partition.name());
                self.begin(partition);
            }
        }
        if !names.is_empty() {
            self.notify(|listener, consumer| listener.on_assigned(consumer, &names));
        }
    }

    fn begin(&mut self, partition: Partition) {
        let id = partition.id();
        let listener = Listener::flagged(id, Arc::clone(&self.signal));
        let wake: Arc<dyn Wake> = listener.clone();
        partition.core.on_append(Arc::downgrade(&wake));
        let assigned = Assigned::new(Arc::clone(&self.group.name), partition, listener);
        self.assigned.insert(id, assigned);
        self.enqueue(id);
    }

    /// Has the next fetch look at a partition.
    fn enqueue(&mut self, id: PartitionId) {
        if let Some(assigned) = self.assigned.get_mut(&id)
            && !std::mem::replace(&mut assigned.is_queued, true)
        {
            self.ready.push_back(id);
        }
    }

    fn give_up(&mut self, partitions: &BTreeSet<PartitionId>) {
        let names: Vec<_> = partitions
            .iter()
            .filter_map(|id| self.assigned.get(id))
            .map(|assigned| assigned.name.clone())
            .collect();
        self.notify(|listener, consumer| listener.on_revoked(consumer, &names));
        if self.config.auto_commit.is_some() {
            // A commit that fails here is as one that a crash prevented: the next reader sees those records again.
            let in_hand = self
                .assigned
                .iter()
                .filter_map(|(id, assigned)| Some((*id, assigned.in_hand(self.turns)?)))
                .collect();
            let _ = self.commit_changed(Some(partitions), &in_hand);
        }
        for id in partitions {
            self.assigned.remove(id);
        }
        self.ready.retain(|id| !partitions.contains(id));
    }

    /// It is about to leave the group of its own accord.
    fn tell_leaving(&mut self) {
        let names = self.assignment();
        if self.member.is_some() && !names.is_empty() {
            self.notify(|listener, consumer| listener.on_revoked(consumer, &names));
        }
    }

    /// The group went on without this member.
    fn lost(&mut self) {
        self.member = None;
        self.topics.clear();
        let names = self.assignment();
        self.assigned.clear();
        self.ready.clear();
        if !names.is_empty() {
            self.notify(|listener, consumer| listener.on_lost(consumer, &names));
        }
    }

    fn notify(&mut self, tell: impl FnOnce(&mut dyn RebalanceListener, &mut Consumer)) {
        if let Some(mut listener) = self.listener.take() {
            tell(&mut *listener, self);
            // It may have put another in its place.
            self.listener.get_or_insert(listener);
        }
    }

    /// Collects records from the partitions that have some, each in turn.
    fn fetch(&mut self) -> Result<Records> {
        for id in self.signal.take_ready() {
            self.enqueue(id);
        }
        let mut records = Records::default();
        let (mut left, mut bytes_left) = (self.config.records_max, self.config.bytes_max);
        for _ in 0..self.ready.len() {
            if left == 0 || bytes_left == 0 {
                break;
            }
            let Some(id) = self.ready.pop_front() else { break };
            match self.fetch_from(id, left, bytes_left, &mut records) {
                Ok(true) => self.ready.push_back(id),
                Ok(false) => {
                    if let Some(assigned) = self.assigned.get_mut(&id) {
                        assigned.is_queued = false;
                    }
                }
                Err(error) => {
                    // The others have their turn before it comes again; what they gave by now is not lost.
                    self.ready.push_back(id);
                    return if records.is_empty() { Err(error) } else { Ok(records) };
                }
            }
            left = self.config.records_max.saturating_sub(records.len());
            bytes_left = self.config.bytes_max.saturating_sub(records.bytes());
        }
        Ok(records)
    }

    /// Takes records from one partition; says whether it may have more.
    fn fetch_from(
        &mut self,
        id: PartitionId,
        left: usize,
        bytes_left: usize,
        records: &mut Records,
    ) -> Result<bool> {
        let many = self.assigned.len() > READERS_KEPT;
        let Some(assigned) = self.assigned.get_mut(&id) else { return Ok(false) };
        if assigned.is_paused {
            // Resuming looks at it again.
            return Ok(false);
        }
        if assigned.known_position().is_none() {
            let committed = self.shared.position(self.group.id, id);
            if assigned.locate(committed.as_ref(), &self.config)? {
                self.commit_start(id)?;
            }
        }
        let Some(assigned) = self.assigned.get_mut(&id) else { return Ok(false) };
        let (turn, from, parts) = (self.turns, assigned.known_position(), records.parts.len());
        assigned.take(left, bytes_left, &self.config, records)?;
        if records.parts.len() > parts {
            assigned.returned(turn, from);
        }
        let mut has_more = !assigned.is_at_end()?;
        if !has_more {
            assigned.listener.rearm();
            // An append may have come before the listener was armed again.
            has_more = !assigned.is_at_end()?;
            if has_more {
                assigned.listener.disarm();
            }
        }
        if many {
            assigned.rest();
        }
        Ok(has_more)
    }

    /// Commits what was returned (if commits are automatic), leaves the group and ends. A static member keeps its place for
    /// its session time-out.
    ///
    /// # Errors
    /// What the commit can return; the group was left nevertheless.
    pub fn close(mut self) -> Result<()> {
        self.tell_leaving();
        if self.config.auto_commit.is_none() || self.assigned.is_empty() {
            return Ok(());
        }
        self.commit()
    }
}

impl TakesTurns for Consumer {
    type Found = Records;

    fn turn(&mut self, now: Duration, deadline: Duration) -> Result<Turn<Records>> {
        self.shared.check_open()?;
        // What was returned before is done.
        self.turns += 1;
        self.signal.seen(now);
        self.keep_up(now)?;
        self.auto_commit(now)?;
        let records = self.fetch()?;
        let is_news = !records.is_empty() || !records.skipped.is_empty();
        Ok(if is_news || self.signal.take_woken() || now >= deadline {
            Turn::Done(records)
        } else {
            Turn::WaitUntil(deadline.min(self.next_auto_commit))
        })
    }

    fn place(&self) -> (Arc<Signal>, Arc<dyn Clock>) {
        (Arc::clone(&self.signal), Arc::clone(self.shared.dir.clock()))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if let Some(member) = self.member {
            self.group.leave(self.now(), member, false);
        }
    }
}
