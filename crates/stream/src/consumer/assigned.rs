//! One partition that a consumer reads: where it is, and the records that were read ahead.

use std::sync::Arc;

use logmill_storage::Reader;

use super::config::{ConsumerConfig, OutOfRange, StartAt};
use crate::TopicPartition;
use crate::chunk::{Chunk, Part, Records, Skipped};
use crate::error::{Error, Result};
use crate::partition::{OpenLog, Partition};
use crate::signal::Listener;
use crate::state::Position;

/// Records read out of the log and not handed out yet.
#[derive(Debug)]
struct Ahead {
    chunk: Arc<Chunk>,
    next: usize,
}

#[derive(Debug)]
pub(crate) struct Assigned {
    group: Arc<str>,
    pub(crate) partition: Partition,
    pub(crate) name: TopicPartition,
    pub(crate) listener: Arc<Listener>,
    pub(crate) is_paused: bool,
    /// Whether the next fetch looks at it.
    pub(crate) is_queued: bool,
    /// The next offset to hand out; unknown until it is first needed.
    position: Option<u64>,
    /// In which of the consumer's turns records were last returned, and the first of them.
    returned: Option<(u64, u64)>,
    /// The last position that was committed from here.
    pub(crate) committed: Option<u64>,
    /// The epoch of the log when it was last read, so that a commit need not open it again.
    epoch: Option<u32>,
    reader: Option<(Reader, Arc<OpenLog>)>,
    ahead: Option<Ahead>,
    /// An allocation to use again.
    spare: Option<Arc<Chunk>>,
}

impl Assigned {
    pub(crate) fn new(group: Arc<str>, partition: Partition, listener: Arc<Listener>) -> Assigned {
        Assigned {
            group,
            name: partition.name(),
            partition,
            listener,
            is_paused: false,
            is_queued: false,
            position: None,
            returned: None,
            committed: None,
            epoch: None,
            reader: None,
            ahead: None,
            spare: None,
        }
    }

    pub(crate) fn known_position(&self) -> Option<u64> {
        self.position
    }

    pub(crate) fn seek(&mut self, offset: u64) {
        self.forget_position();
        self.position = Some(offset);
    }

    /// Forgets the position: the committed one, or else the start policy, says where to go on.
    pub(crate) fn forget_position(&mut self) {
        self.position = None;
        self.returned = None;
        self.epoch = None;
        self.rest();
    }

    /// Notes that records were returned, from `from` on.
    pub(crate) fn returned(&mut self, turn: u64, from: Option<u64>) {
        self.returned = from.map(|from| (turn, from));
    }

    /// Where what was returned in `turn` begins, but for what of that was committed by name.
    pub(crate) fn in_hand(&self, turn: u64) -> Option<u64> {
        let (_, from) = self.returned.filter(|(returned, _)| *returned == turn)?;
        let is_inside = |committed: &u64| *committed >= from && Some(*committed) <= self.position;
        Some(self.committed.filter(is_inside).unwrap_or(from))
    }

    /// The log's epoch, to go with a committed position.
    pub(crate) fn epoch(&self) -> Result<u32> {
        match self.epoch {
            Some(epoch) => Ok(epoch),
            None => self.partition.epoch(),
        }
    }

    /// Finds out where to begin, if that is not known: at the committed position, or by the start policy. Says whether
    /// the start policy decided.
    pub(crate) fn locate(
        &mut self,
        committed: Option<&Position>,
        config: &ConsumerConfig,
    ) -> Result<bool> {
        if self.position.is_some() {
            return Ok(false);
        }
        // Without a log there is one place to begin at, and a position elsewhere speaks of what is lost.
        let log = match committed {
            Some(committed) if committed.offset > 0 => Some(self.partition.log()?),
            _ => self.partition.log_if_made()?,
        };
        self.epoch = log.as_ref().map(|log| log.epoch());
        if let Some(committed) = committed {
            if let Some(log) = &log {
                self.check_kept(log, committed.epoch, committed.offset)?;
            }
            self.position = Some(committed.offset);
            self.committed = Some(committed.offset);
            return Ok(false);
        }
        let begin = match log {
            Some(log) => config.start_at.offset(&log, &**self.partition.shared.dir.clock())?,
            None => (config.start_at != StartAt::Nowhere).then_some(0),
        };
        self.position = Some(begin.ok_or_else(|| Error::NoPosition {
            group: self.group.to_string(),
            partition: self.name.clone(),
        })?);
        Ok(true)
    }

    /// Refuses a position that speaks of records that are lost: others have their offsets now.
    fn check_kept(&self, log: &OpenLog, epoch: u32, offset: u64) -> Result<()> {
        let end = log.end_of_epoch(epoch)?;
        if offset <= end {
            return Ok(());
        }
        Err(Error::PositionLost {
            group: self.group.to_string(),
            partition: self.name.clone(),
            epoch,
            offset,
            end,
        })
    }

    /// Hands out records, at most `records_max` and about `bytes_max`.
    pub(crate) fn take(
        &mut self,
        records_max: usize,
        bytes_max: usize,
        config: &ConsumerConfig,
        records: &mut Records,
    ) -> Result<()> {
        if self.reader.as_ref().is_some_and(|(_, log)| log.is_given_up()) {
            self.rest();
        }
        // Also what was read ahead, and what an open reader could still read of a segment that was removed.
        if let (Some((_, log)), Some(position)) = (&self.reader, self.position)
            && position < log.start_offset()
        {
            return self.out_of_range(position, log.start_offset(), config, records);
        }
        if self.ahead.is_none() {
            match self.fill(records_max, config.partition_bytes_max) {
                Ok(()) => {}
                Err(Error::Storage(logmill_storage::Error::OffsetOutOfRange {
                    offset,
                    start,
                    ..
                })) if offset < start => {
                    return self.out_of_range(offset, start, config, records);
                }
                Err(error) => return Err(error),
            }
        }
        let Some(ahead) = &mut self.ahead else { return Ok(()) };
        let bytes_max = bytes_max.min(config.partition_bytes_max);
        let to = ahead.chunk.end_within(ahead.next, records_max, bytes_max);
        let part =
            Part { name: self.name.clone(), chunk: Arc::clone(&ahead.chunk), from: ahead.next, to };
        records.parts.push(part);
        ahead.next = to;
        match ahead.chunk.offset(to) {
            Some(next) => self.position = Some(next),
            None => {
                self.position = self.reader.as_ref().map(|(reader, _)| reader.position());
                self.spare = self.ahead.take().map(|ahead| ahead.chunk);
            }
        }
        Ok(())
    }

    /// Reads from the log into a chunk.
    fn fill(&mut self, records: usize, bytes: usize) -> Result<()> {
        let Some(position) = self.position else { return Ok(()) };
        if self.reader.is_none() {
            let Some(log) = self.partition.log_if_made()? else { return Ok(()) };
            if let Some(epoch) = self.epoch {
                self.check_kept(&log, epoch, position)?;
            }
            self.epoch = Some(log.epoch());
            self.reader = Some((log.reader(position)?, log));
        }
        let Some((reader, _)) = &mut self.reader else { return Ok(()) };
        // The last chunk is used again if whoever got its records is done with them.
        let mut chunk =
            self.spare.take().and_then(|spare| Arc::try_unwrap(spare).ok()).unwrap_or_default();
        chunk.clear();
        while chunk.len() < records && chunk.bytes() < bytes {
            let batch = match reader.next_batch() {
                Ok(Some(batch)) => batch,
                Ok(None) => break,
                // What was read before the damage is handed out first; the next call meets it again.
                Err(_) if chunk.len() > 0 => break,
                Err(error) => return Err(error.into()),
            };
            for record in batch.records() {
                chunk.push(&record.map_err(|what| damaged(&self.name, batch.base_offset(), what))?);
            }
        }
        if chunk.len() > 0 {
            self.ahead = Some(Ahead { chunk: Arc::new(chunk), next: 0 });
        } else {
            // Records that compaction took are passed over.
            self.position = Some(reader.position());
            self.spare = Some(Arc::new(chunk));
        }
        Ok(())
    }

    fn out_of_range(
        &mut self,
        offset: u64,
        start: u64,
        config: &ConsumerConfig,
        records: &mut Records,
    ) -> Result<()> {
        let resumed_at = match config.out_of_range {
            OutOfRange::Earliest => start,
            OutOfRange::Latest => self.partition.log()?.high_watermark(),
            OutOfRange::Error => {
                return Err(Error::PositionRemoved { partition: self.name.clone(), offset, start });
            }
        };
        records.skipped.push(Skipped {
            partition: self.name.clone(),
            position: offset,
            resumed_at,
        });
        self.seek(resumed_at);
        Ok(())
    }

    /// Whether everything that is there was handed out.
    pub(crate) fn is_at_end(&self) -> Result<bool> {
        if self.ahead.is_some() {
            return Ok(false);
        }
        let Some(position) = self.position else { return Ok(false) };
        Ok(match &self.reader {
            Some((reader, log)) if !log.is_given_up() => log.high_watermark() <= reader.position(),
            _ => {
                let log = self.partition.log_if_made()?;
                log.is_none_or(|log| log.high_watermark() <= position)
            }
        })
    }

    /// Lets the log be closed until the next turn. What was read ahead is read again then.
    pub(crate) fn rest(&mut self) {
        self.reader = None;
        self.ahead = None;
        self.spare = None;
    }
}

/// A batch whose checksum is right and whose records are not what the format says.
pub(crate) fn damaged(
    name: &TopicPartition,
    offset: u64,
    what: logmill_storage::Corruption,
) -> Error {
    let path = format!("{}/{}", name.topic, name.partition).into();
    Error::Storage(logmill_storage::Error::Corrupt { path, position: 0, offset, what })
}
