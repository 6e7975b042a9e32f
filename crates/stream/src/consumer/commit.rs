//! Committing: telling the journal how far the group has come.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
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
                    None => partition.log()?.epoch(),
                },
                offset: offset.offset,
                metadata: offset.metadata.clone(),
            });
        }
        self.submit(commits)
    }

    /// Commits the positions that changed since they were last committed, of all partitions or of some; where records are
    /// held back by somebody and count as unread, the first of them is the position.
    pub(super) fn commit_changed(
        &mut self,
        of: Option<&BTreeSet<PartitionId>>,
        unread: &BTreeMap<PartitionId, u64>,
    ) -> Result<CommitTicket> {
        let mut commits = Vec::new();
        for (id, assigned) in &self.assigned {
            let wanted = of.is_none_or(|of| of.contains(id));
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
        let commit = Commit { id, epoch: assigned.epoch()?, offset, metadata: String::new() };
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
        let positions = commits
            .iter()
            .map(|commit| CommittedPosition {
                partition: commit.id,
                epoch: commit.epoch,
                offset: commit.offset,
                metadata: &commit.metadata,
            })
            .collect();
        let at_ms = self.shared.dir.clock().wall_ms();
        let entry = Entry::Committed { group: self.group.id, at_ms, positions }.encoded();
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
            self.shared.begin(durability, |state| match state.groups.get(group) {
                Some(_) => Ok((vec![entry], ())),
                None => Err(Error::UnknownGroup { group: self.group.name.to_string() }),
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
