//! Committing: telling the journal how far the group has come.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use logmill_storage::{Part, SyncTicket};

use super::{Consumer, Subscription};
use crate::entry::{CommittedPosition, Entry};
use crate::error::{Error, Result};
use crate::group::Refusal;
use crate::{PartitionId, TopicPartition};

/// Kafka's `offset.metadata.max.bytes`.
const METADATA_BYTES_MAX: usize = 4_096;

/// A position and a remark to go with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetAndMetadata {
    /// The next record to read.
    pub offset: u64,
    /// Anything, at most 4,096 bytes.
    pub metadata: String,
}

impl From<u64> for OffsetAndMetadata {
    fn from(offset: u64) -> OffsetAndMetadata {
        OffsetAndMetadata { offset, metadata: String::new() }
    }
}

/// A commit that is under way. It is done whether anybody waits or not.
#[derive(Debug)]
#[must_use = "waiting tells whether it succeeded"]
pub struct CommitTicket {
    /// `None`: it is as durable as it is to be, or there was nothing to commit.
    ticket: Option<SyncTicket>,
}

impl CommitTicket {
    /// Waits until the commit is as durable as the consumer's configuration says.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn wait(self) -> Result<()> {
        Ok(self.ticket.map_or(Ok(()), SyncTicket::wait)?)
    }
}

impl Future for CommitTicket {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.ticket {
            Some(ticket) => Pin::new(ticket).poll(context).map_err(Error::from),
            None => Poll::Ready(Ok(())),
        }
    }
}

/// What is to be committed for one partition.
struct Commit {
    id: PartitionId,
    epoch: u32,
    offset: u64,
    metadata: String,
    /// Set if the caller wants it committed, and not only whatever was read: then it is refused if the topic is gone.
    topic: Option<Arc<str>>,
}

impl Consumer {
    /// Commits, for every partition, the position after the last record that a poll returned, and waits for it.
    ///
    /// # Errors
    /// [`Error::NotAssigned`], [`Error::Group`]: a partition moved to another member; nothing was committed.
    /// [`Error::Storage`].
    /// # Cost
    /// One journal entry for all partitions; with durability sync one sync, shared with everything that waits for one.
    pub fn commit(&mut self) -> Result<()> {
        let ticket = self.commit_async()?;
        self.wait_for(ticket)
    }

    /// As [`Consumer::commit`], without waiting: the ticket is a future, which needs no runtime. If everything was committed,
    /// and is as durable as configured, waiting for it returns at once.
    ///
    /// # Errors
    /// As [`Consumer::commit`], but for what only waiting shows.
    pub fn commit_async(&mut self) -> Result<CommitTicket> {
        self.commit_changed(None, &BTreeMap::new())
    }

    /// Commits these positions and waits for it. All or none.
    ///
    /// # Errors
    /// As [`Consumer::commit`]; [`Error::MetadataTooLong`], [`Error::UnknownTopic`], [`Error::UnknownPartition`].
    pub fn commit_offsets(
        &mut self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
    ) -> Result<()> {
        let ticket = self.commit_offsets_async(offsets)?;
        self.wait_for(ticket)
    }

    fn wait_for(&mut self, ticket: CommitTicket) -> Result<()> {
        let is_sync = ticket.ticket.is_some();
        ticket.wait()?;
        self.is_unsynced &= !is_sync;
        Ok(())
    }

    /// As [`Consumer::commit_offsets`], without waiting.
    ///
    /// # Errors
    /// As [`Consumer::commit_offsets`], but for what only waiting shows.
    pub fn commit_offsets_async(
        &mut self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
    ) -> Result<CommitTicket> {
        let mut commits = Vec::with_capacity(offsets.len());
        for (name, offset) in offsets {
            if offset.metadata.len() > METADATA_BYTES_MAX {
                return Err(Error::MetadataTooLong { bytes: offset.metadata.len() });
            }
            let partition = self.shared.partition_by_name(&name.topic, name.partition)?;
            commits.push(Commit {
                id: partition.id(),
                epoch: match self.assigned.get(&partition.id()) {
                    Some(assigned) => assigned.epoch()?,
                    None => partition.epoch()?,
                },
                offset: offset.offset,
                metadata: offset.metadata.clone(),
                topic: Some(Arc::clone(&name.topic)),
            });
        }
        self.submit(commits)
    }

    /// Commits the positions that changed since they were last committed, of all partitions or of some, but for topics that
    /// are gone; where records are held back by somebody and count as unread, the first of them is the position.
    pub(super) fn commit_changed(
        &mut self,
        of: Option<&BTreeSet<PartitionId>>,
        unread: &BTreeMap<PartitionId, u64>,
    ) -> Result<CommitTicket> {
        let mut commits = Vec::new();
        for (id, assigned) in &self.assigned {
            let wanted =
                of.is_none_or(|of| of.contains(id)) && !assigned.partition.topic.is_deleted();
            if let Some(offset) = assigned
                .known_position()
                .map(|offset| unread.get(id).copied().unwrap_or(offset))
                .filter(|offset| wanted && assigned.committed != Some(*offset))
            {
                commits.push(Commit {
                    id: *id,
                    epoch: assigned.epoch()?,
                    offset,
                    metadata: String::new(),
                    topic: None,
                });
            }
        }
        self.submit(commits)
    }

    /// Notes where the start policy sent a new group, so that a crash before its first commit changes nothing.
    pub(super) fn commit_start(&mut self, id: PartitionId) -> Result<()> {
        let Some(assigned) = self.assigned.get(&id) else { return Ok(()) };
        let Some(offset) = assigned.known_position() else { return Ok(()) };
        if matches!(self.subscription, Subscription::Manual) {
            return Ok(());
        }
        let (epoch, metadata) = (assigned.epoch()?, String::new());
        let commit = Commit { id, epoch, offset, metadata, topic: None };
        let noted = self.submit(vec![commit]).map(drop);
        if noted.is_err()
            && let Some(assigned) = self.assigned.get_mut(&id)
        {
            // Nothing is read from a place that a crash would make another.
            assigned.forget_position();
        }
        noted
    }

    /// Commits what earlier polls returned, if it is time.
    pub(super) fn auto_commit(&mut self, now: Duration) -> Result<()> {
        let Some(interval) = self.config.auto_commit.filter(|_| now >= self.next_auto_commit)
        else {
            return Ok(());
        };
        self.next_auto_commit = now.saturating_add(interval);
        if matches!(self.subscription, Subscription::Manual) && self.has_members() {
            return Ok(());
        }
        match self.commit_async() {
            // Expelled between joining in and this: the next poll deals with it.
            Err(Error::Group { .. } | Error::NotAssigned { .. }) => Ok(()),
            result => result.map(drop),
        }
    }

    fn has_members(&self) -> bool {
        self.group.quietly(|coordinator| !coordinator.is_empty())
    }

    /// Submits under the lock of the group: between the check and the entry nobody else can have become the owner.
    fn submit(&mut self, commits: Vec<Commit>) -> Result<CommitTicket> {
        let now = self.now();
        self.signal.seen(now);
        if commits.is_empty() {
            // A member that was expelled learns it even if it has nothing new to say.
            if let Some(member) = self.member {
                self.group
                    .quietly(|coordinator| coordinator.heartbeat(now, member))
                    .map_err(|refusal| self.group.refused(refusal))?;
            }
            // Nor has one whose earlier commit nobody has waited for.
            let journal = self.shared.journal()?.filter(|_| self.is_unsynced);
            let ticket = journal.map(|journal| journal.part(Part::Hot).submit_sync());
            return Ok(CommitTicket { ticket: ticket.transpose()? });
        }
        let at_ms = self.shared.dir.clock().wall_ms();
        let ((), ticket) = self.group.quietly(|coordinator| {
            match self.member {
                Some(member) => {
                    for commit in &commits {
                        coordinator
                            .check_owner(member, commit.id)
                            .map_err(|refusal| self.refused(refusal))?;
                    }
                }
                None if !coordinator.is_empty() => {
                    let (group, members) =
                        (self.group.name.to_string(), coordinator.members().len());
                    return Err(Error::GroupActive { group, members });
                }
                None => {}
            }
            let group = self.group.id;
            let durability = self.config.commit_durability.unwrap_or(self.shared.durability);
            self.shared.begin(durability, |state| {
                if state.groups.get(group).is_none() {
                    return Err(Error::UnknownGroup { group: self.group.name.to_string() });
                }
                let mut positions = Vec::with_capacity(commits.len());
                for Commit { id, epoch, offset, metadata, topic } in &commits {
                    let (partition, epoch, offset) = (*id, *epoch, *offset);
                    match (state.topics.get(id.topic), topic) {
                        (Some(_), _) => {
                            positions.push(CommittedPosition {
                                partition,
                                epoch,
                                offset,
                                metadata,
                            });
                        }
                        (None, Some(name)) => {
                            return Err(Error::UnknownTopic { name: name.to_string() });
                        }
                        // It was deleted this moment.
                        (None, None) => {}
                    }
                }
                if positions.is_empty() {
                    return Ok((Vec::new(), ()));
                }
                Ok((vec![Entry::Committed { group, at_ms, positions }.encoded()], ()))
            })
        })?;
        self.is_unsynced |= ticket.is_some();
        for commit in commits {
            if let Some(assigned) = self.assigned.get_mut(&commit.id) {
                assigned.committed = Some(commit.offset);
            }
        }
        Ok(CommitTicket { ticket })
    }

    fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::NotAssigned { partition, .. } => match self.shared.partition(partition) {
                Ok(partition) => Error::NotAssigned {
                    group: self.group.name.to_string(),
                    partition: partition.name(),
                },
                Err(error) => error,
            },
            refusal => self.group.refused(refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    use logmill_storage::{DataDir, Journal, Record};

    use super::*;
    use crate::{ConsumerConfig, StartAt, Streams, StreamsOptions, TopicConfig};

    /// A member that gave the partition up, and one that had chosen it by itself, committed how far they had come in it, and
    /// so the journal had positions in a topic that was gone, for as long as the group lived.
    #[test]
    fn nothing_is_committed_in_a_topic_that_was_deleted() {
        let place = tempfile::tempdir().unwrap();
        let dir = DataDir::open(place.path()).unwrap();
        let journal = Journal::open(&dir, "0", Default::default()).unwrap();
        let streams = Streams::open(&dir, &journal, &StreamsOptions::default()).unwrap();
        for (group, is_manual) in [("member", false), ("manual", true)] {
            for topic in ["gone", "kept"] {
                let topic = streams.ensure_topic(topic, &TopicConfig::new()).unwrap();
                topic.partition(0).unwrap().append(&Record::value(b"v")).unwrap();
            }
            let named = |topic: &str| TopicPartition { topic: topic.into(), partition: 0 };
            let config = ConsumerConfig::new().start_at(StartAt::Earliest);
            let mut consumer = streams.consumer(group, config).unwrap();
            match is_manual {
                true => consumer.assign(&[named("gone"), named("kept")]).unwrap(),
                false => consumer.subscribe(&["gone", "kept"]).unwrap(),
            }
            while !consumer.poll(Duration::ZERO).unwrap().is_empty() {}
            streams.delete_topic("gone").unwrap();
            if !is_manual {
                consumer.heartbeat().unwrap();
            }
            consumer.commit().unwrap();
            let id = consumer.group.id;
            let positions = || {
                let positions = |state: &crate::state::State| {
                    let group = state.groups.get(id).unwrap();
                    group.positions.iter().map(|(id, at)| (*id, at.offset)).collect::<Vec<_>>()
                };
                streams.shared.look(positions)
            };
            let kept = streams.topic("kept").unwrap().partition(0).unwrap();
            assert_eq!(positions(), [(kept.id(), kept.end_offset().unwrap())], "{group}");
            let refused = consumer.commit_offsets(&[(named("gone"), 0.into())]).unwrap_err();
            assert!(
                matches!(&refused, Error::UnknownTopic { name } if name == "gone"),
                "{refused}"
            );
            consumer.close().unwrap();
            assert_eq!(positions().len(), 1, "{group}");
        }
    }
}
