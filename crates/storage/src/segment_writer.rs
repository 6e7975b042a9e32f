//! Writes a whole segment, from its head to its footer, into a temporary file: for compaction and salvage.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::batch::{Encoder, FrameSpec, Scope, end_commit};
use crate::error::{Error, Result};
use crate::index::Index;
use crate::io::{File, Io, Open, unlink_if_there, write_full};
use crate::layout::{Footer, HEAD_LEN, SegmentHead};
use crate::record::Record;

const BUFFER_BYTES: usize = 256 << 10;

/// A file that is removed unless it is renamed.
#[derive(Debug)]
pub(crate) struct Temporary {
    io: Arc<dyn Io>,
    path: PathBuf,
    is_kept: bool,
}

impl Temporary {
    /// Its path, relative to the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// It has another name now.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_kept {
            // If that fails, the next writer of the log removes it.
            let _ = self.io.unlink(&self.path);
        }
    }
}

/// A segment that is being written.
pub(crate) struct SegmentWriter {
    temporary: Temporary,
    /// For messages: the name that the segment will have.
    shown: PathBuf,
    file: Arc<dyn File>,
    head: SegmentHead,
    scope: Scope,
    encoder: Encoder,
    /// The frame that was added last: it may yet turn out to be the last of its commit.
    pending: Vec<u8>,
    /// What goes to `written`.
    buffer: Vec<u8>,
    written: u64,
    hash: Xxh3,
    index: Index,
    count: u64,
    max_timestamp: i64,
    min_timestamp: i64,
}

impl std::fmt::Debug for SegmentWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentWriter").field("shown", &self.shown).finish_non_exhaustive()
    }
}

/// A segment that was written and synced, under its temporary name.
#[derive(Debug)]
pub(crate) struct Written {
    pub temporary: Temporary,
    pub file: Arc<dyn File>,
    pub head: SegmentHead,
    pub footer: Footer,
    pub index: Index,
}

impl SegmentWriter {
    /// Begins a segment in the file `temporary`.
    pub fn create(
        io: &Arc<dyn Io>,
        temporary: PathBuf,
        shown: PathBuf,
        head: SegmentHead,
    ) -> Result<SegmentWriter> {
        unlink_if_there(io.as_ref(), &temporary).map_err(|e| Error::io("unlink", &shown, e))?;
        let file = io.open(&temporary, Open::Create).map_err(|e| Error::io("create", &shown, e))?;
        let scope = Scope::new(&head.log_id, head.epoch, head.base_offset, head.base_timestamp);
        let temporary = Temporary { io: Arc::clone(io), path: temporary, is_kept: false };
        Ok(SegmentWriter {
            temporary,
            shown,
            file,
            scope,
            encoder: Encoder::default(),
            pending: Vec::new(),
            buffer: head.encode().to_vec(),
            written: 0,
            hash: Xxh3::new(),
            index: Index::default(),
            count: 0,
            max_timestamp: i64::MIN,
            min_timestamp: i64::MAX,
            head,
        })
    }

    /// Adds a frame of (offset delta, timestamp, record), the deltas rising, at least one.
    pub fn add<'r>(
        &mut self,
        spec: &FrameSpec,
        records: impl Iterator<Item = (u32, i64, Record<'r>)> + Clone,
    ) -> Result<()> {
        self.take_pending()?;
        for (_, timestamp, _) in records.clone() {
            self.count += 1;
            self.min_timestamp = self.min_timestamp.min(timestamp);
        }
        let timestamp = self.encoder.sparse(&mut self.pending, &self.scope, spec, records);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let delta = u32::try_from(spec.base_offset - self.head.base_offset)
            .expect("whoever chose the segments has checked their span");
        self.index.note(delta, self.position(), self.max_timestamp);
        Ok(())
    }

    /// The frame that was added last ends its commit, whatever it was said to do.
    pub fn end_commit(&mut self) {
        if !self.pending.is_empty() {
            end_commit(&self.scope, &mut self.pending);
        }
    }

    /// Where the pending frame begins.
    fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn take_pending(&mut self) -> Result<()> {
        self.buffer.append(&mut self.pending);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        write_full(self.file.as_ref(), &self.buffer, self.written)
            .map_err(|e| Error::io("write", &self.shown, e))?;
        self.hash.update(&self.buffer);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Ends the segment with a footer, and syncs it.
    pub fn finish(
        mut self,
        end_offset: u64,
        previous_hash: [u8; 16],
        now_ms: i64,
    ) -> Result<Written> {
        self.take_pending()?;
        self.flush()?;
        let footer = Footer {
            epoch: self.head.epoch,
            log_id: self.head.log_id,
            base_offset: self.head.base_offset,
            end_offset,
            count: self.count,
            data_end: self.written,
            max_timestamp: self.max_timestamp,
            min_timestamp: self.min_timestamp,
            hash: self.hash.digest128().to_le_bytes(),
            sealed_at: now_ms,
            previous_hash,
        };
        let position = Footer::position(self.written);
        let padding = usize::try_from(position - self.written).unwrap_or(0);
        self.buffer.resize(padding, 0);
        self.buffer.extend_from_slice(&footer.encode());
        write_full(self.file.as_ref(), &self.buffer, self.written)
            .map_err(|e| Error::io("write", &self.shown, e))?;
        // Whatever its kind, a failed sync is never a mere lack of space.
        self.file.sync_data().map_err(|source| Error::Io {
            op: "sync",
            path: self.shown.clone(),
            source,
        })?;
        debug_assert!(footer.data_end >= HEAD_LEN as u64);
        let SegmentWriter { temporary, file, head, index, .. } = self;
        Ok(Written { temporary, file, head, footer, index })
    }
}
