//! Where a consumer is, and sending it elsewhere.

use super::Consumer;
use super::assigned::Assigned;
use crate::error::{Error, Result};
use crate::{PartitionId, TopicPartition};

impl Consumer {
    /// The next record that a poll will return from this partition.
    ///
    /// # Errors
    /// [`Error::NotAssigned`]; what [`Consumer::poll`] says of a position that is not there.
    pub fn position(&mut self, topic: &str, partition: u32) -> Result<u64> {
        let id = self.assigned_id(topic, partition)?;
        self.located(id)
    }

    fn located(&mut self, id: PartitionId) -> Result<u64> {
        let committed = self.shared.position(self.group.id, id);
        let Some(assigned) = self.assigned.get_mut(&id) else { return Ok(0) };
        if assigned.locate(committed.as_ref(), &self.config)? {
            self.commit_start(id)?;
        }
        Ok(self.assigned.get(&id).and_then(Assigned::known_position).unwrap_or(0))
    }

    /// The position that the group has committed in this partition, and its metadata; assigned or not.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::UnknownPartition`].
    pub fn committed(
        &self,
        topic: &str,
        partition: u32,
    ) -> Result<Option<super::OffsetAndMetadata>> {
        let id = self.shared.partition_by_name(topic, partition)?.id();
        Ok(self.shared.position(self.group.id, id).map(|position| super::OffsetAndMetadata {
            offset: position.offset,
            metadata: position.metadata.into(),
        }))
    }

    /// How many offsets lie between the position and the end that readers see.
    ///
    /// # Errors
    /// As [`Consumer::position`].
    pub fn lag(&mut self, topic: &str, partition: u32) -> Result<u64> {
        let position = self.position(topic, partition)?;
        let end = self.shared.partition_by_name(topic, partition)?.high_watermark()?;
        Ok(end.saturating_sub(position))
    }

    /// Sends the consumer to an offset of a partition that it reads.
    ///
    /// # Errors
    /// [`Error::NotAssigned`]. An offset that is not there is for the next poll to say.
    pub fn seek(&mut self, topic: &str, partition: u32, offset: u64) -> Result<()> {
        let id = self.assigned_id(topic, partition)?;
        self.go_to(id, offset);
        Ok(())
    }

    /// Sends the consumer to the first record that is there.
    ///
    /// # Errors
    /// [`Error::NotAssigned`]; [`Error::Storage`].
    pub fn seek_to_beginning(&mut self, topic: &str, partition: u32) -> Result<()> {
        let id = self.assigned_id(topic, partition)?;
        let start = self.shared.partition(id)?.start_offset()?;
        self.go_to(id, start);
        Ok(())
    }

    /// Sends the consumer after the last record.
    ///
    /// # Errors
    /// As [`Consumer::seek_to_beginning`].
    pub fn seek_to_end(&mut self, topic: &str, partition: u32) -> Result<()> {
        let id = self.assigned_id(topic, partition)?;
        let end = self.shared.partition(id)?.high_watermark()?;
        self.go_to(id, end);
        Ok(())
    }

    /// Sends the consumer to the first record with at least this timestamp (ms since 1970), or after the last record.
    ///
    /// # Errors
    /// As [`Consumer::seek_to_beginning`].
    pub fn seek_to_timestamp(&mut self, topic: &str, partition: u32, ms: i64) -> Result<()> {
        let id = self.assigned_id(topic, partition)?;
        let handle = self.shared.partition(id)?;
        let offset = match handle.offset_for_timestamp(ms)? {
            Some(offset) => offset,
            None => handle.high_watermark()?,
        };
        self.go_to(id, offset);
        Ok(())
    }

    /// Sends the consumer back to what the group has committed.
    ///
    /// # Errors
    /// [`Error::NotAssigned`].
    pub fn seek_to_committed(&mut self, topic: &str, partition: u32) -> Result<()> {
        let id = self.assigned_id(topic, partition)?;
        if let Some(assigned) = self.assigned.get_mut(&id) {
            assigned.forget_position();
        }
        self.enqueue(id);
        Ok(())
    }

    /// Polls return nothing from these partitions until they are resumed. They stay assigned.
    ///
    /// # Errors
    /// [`Error::NotAssigned`]: nothing was paused.
    pub fn pause(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        for id in self.assigned_ids(partitions)? {
            if let Some(assigned) = self.assigned.get_mut(&id) {
                assigned.is_paused = true;
            }
        }
        Ok(())
    }

    /// Ends [`Consumer::pause`].
    ///
    /// # Errors
    /// [`Error::NotAssigned`]: nothing was resumed.
    pub fn resume(&mut self, partitions: &[TopicPartition]) -> Result<()> {
        for id in self.assigned_ids(partitions)? {
            if let Some(assigned) = self.assigned.get_mut(&id) {
                assigned.is_paused = false;
            }
            self.enqueue(id);
        }
        Ok(())
    }

    /// The partitions that are paused.
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.assigned
            .values()
            .filter(|assigned| assigned.is_paused)
            .map(|assigned| assigned.name.clone())
            .collect()
    }

    pub(super) fn go_to(&mut self, id: PartitionId, offset: u64) {
        if let Some(assigned) = self.assigned.get_mut(&id) {
            assigned.seek(offset);
        }
        self.enqueue(id);
    }

    fn assigned_id(&self, topic: &str, partition: u32) -> Result<PartitionId> {
        let handle = self.shared.partition_by_name(topic, partition)?;
        if self.assigned.contains_key(&handle.id()) {
            return Ok(handle.id());
        }
        Err(Error::NotAssigned { group: self.group().into(), partition: handle.name() })
    }

    fn assigned_ids(&self, partitions: &[TopicPartition]) -> Result<Vec<PartitionId>> {
        partitions.iter().map(|name| self.assigned_id(&name.topic, name.partition)).collect()
    }
}
