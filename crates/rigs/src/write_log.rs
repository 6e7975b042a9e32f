//! The log of everything that was written to a disk, in the format of dm-log-writes.

use std::fs;
use std::path::Path;

use crate::tools::{Outcome, failed};

const MAGIC: u64 = 0x006a_7366_7773_6872;
const SECTOR: usize = 512;
const FLUSH: u64 = 1;
const DISCARD: u64 = 4;

/// A log that was read as a whole.
#[derive(Debug)]
pub struct WriteLog {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Whether it was a flush.
    pub is_flush: bool,
    /// The position on the disk.
    pub position: u64,
    /// Where the log ended once this was in it.
    pub end: u64,
    /// Bytes written, or discarded.
    len: usize,
    /// Where they stand in the log; `None` for a discard.
    data: Option<usize>,
}

impl WriteLog {
    /// Reads the log of a device that has stopped.
    pub fn read(path: &Path) -> Outcome<WriteLog> {
        let bytes = fs::read(path).map_err(failed("reading the write log"))?;
        let number = |at: usize| -> u64 {
            bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
        };
        if number(0) != MAGIC {
            return Err("the write log has no head".to_owned());
        }
        let mut entries = Vec::new();
        let mut at = SECTOR;
        while at + SECTOR <= bytes.len() {
            let (sector, sectors, flags) = (number(at), number(at + 8), number(at + 16));
            let len = usize::try_from(sectors).map_err(failed("a write's length"))? * SECTOR;
            let data = (flags & DISCARD == 0).then_some(at + SECTOR);
            at += SECTOR + if data.is_some() { len } else { 0 };
            if at > bytes.len() {
                return Err("the write log ends inside of a write".to_owned());
            }
            entries.push(Entry {
                is_flush: flags & FLUSH != 0,
                position: sector * SECTOR as u64,
                end: at as u64,
                len,
                data,
            });
        }
        Ok(WriteLog { bytes, entries })
    }

    /// All requests, in the order of their completion.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What a request wrote, cut where 4 KiB sectors of the disk begin: position and bytes, zeros for a discard.
    pub fn pieces(&self, entry: &Entry) -> impl Iterator<Item = (u64, &[u8])> {
        static ZEROS: [u8; PIECE] = [0; PIECE];
        const PIECE: usize = 4096;
        let Entry { position, len, data, .. } = *entry;
        let mut done = 0;
        std::iter::from_fn(move || {
            let at = position + done as u64;
            let room = PIECE - (at % PIECE as u64) as usize;
            let take = room.min(len - done);
            let bytes = match data {
                Some(data) => self.bytes.get(data + done..data + done + take)?,
                None => ZEROS.get(..take)?,
            };
            done += take;
            (take > 0).then_some((at, bytes))
        })
    }
}
