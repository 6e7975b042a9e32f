//! The file in which an owner of a journal keeps what it has made of the entries so far.
//!
//! ```text
//! 0       8     12       14   16       32      40          48           56
//! +-------+-----+---------+----+--------+-------+-----------+------------+---------+
//! | magic | crc | version | 0  | log id | owner | hot reach | cold reach | state   |
//! | u64   | u32 | u16     |    | 16     | u64   | u64       | u64        | n bytes |
//! +-------+-----+---------+----+--------+-------+-----------+------------+---------+
//! ```
//! `crc` covers everything after itself. A checkpoint is disposable: one that is damaged is as good as none.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use byteorder::{ByteOrder, LittleEndian as LE};

use crate::error::Corruption;
use crate::io::{File, read_full};
use crate::journal::Reach;

pub(crate) const MAGIC: &[u8; 8] = b"LOGMILLC";
pub(crate) const HEAD_LEN: usize = 56;
const VERSION: u16 = 1;
const PREFIX: &str = "checkpoint-";
const CHUNK: usize = 64 << 10;
/// A longer file is no checkpoint.
const LEN_MAX: u64 = 1 << 32;

/// What a checkpoint says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointHead {
    /// Of the journal's hot part.
    pub log_id: [u8; 16],
    pub owner: u64,
    pub reach: Reach,
}

/// The name of the checkpoint of `owner`.
pub(crate) fn file_name(owner: u64) -> String {
    format!("{PREFIX}{owner}")
}

/// The owner in the name of a checkpoint, and only of one.
pub(crate) fn parse_name(name: &str) -> Option<u64> {
    let owner = name.strip_prefix(PREFIX)?.parse().ok()?;
    (file_name(owner) == name).then_some(owner)
}

impl CheckpointHead {
    /// The bytes that go before `state`.
    pub fn encode(&self, state: &[u8]) -> [u8; HEAD_LEN] {
        let mut head = [0; HEAD_LEN];
        head[..8].copy_from_slice(MAGIC);
        LE::write_u16(&mut head[12..], VERSION);
        head[16..32].copy_from_slice(&self.log_id);
        LE::write_u64(&mut head[32..], self.owner);
        LE::write_u64(&mut head[40..], self.reach.hot);
        LE::write_u64(&mut head[48..], self.reach.cold);
        let crc = crc(&head, state);
        LE::write_u32(&mut head[8..], crc);
        head
    }

    /// Takes a checkpoint file apart.
    pub fn decode(bytes: &[u8]) -> Result<(CheckpointHead, &[u8]), Corruption> {
        let Some((head, state)) = bytes.split_first_chunk::<HEAD_LEN>() else {
            let found = bytes.len() as u64;
            return Err(Corruption::Truncated { expected: HEAD_LEN as u64, found });
        };
        if head[..8] != MAGIC[..] {
            return Err(Corruption::Magic);
        }
        match LE::read_u16(&head[12..]) {
            VERSION => {}
            found => return Err(Corruption::Version { found }),
        }
        let (expected, found) = (crc(head, state), LE::read_u32(&head[8..]));
        if expected != found {
            return Err(Corruption::Checksum { expected, found });
        }
        if head[14..16] != [0; 2] {
            return Err(Corruption::Field("checkpoint head"));
        }
        let mut log_id = [0; 16];
        log_id.copy_from_slice(&head[16..32]);
        let reach = Reach { hot: LE::read_u64(&head[40..]), cold: LE::read_u64(&head[48..]) };
        Ok((CheckpointHead { log_id, owner: LE::read_u64(&head[32..]), reach }, state))
    }
}

/// The bytes of a checkpoint file. Memory is taken for a state only once its checksum is known to be right: a sparse file
/// takes none.
pub(crate) fn read(file: &dyn File) -> std::io::Result<Result<Vec<u8>, Corruption>> {
    let truncated = |expected, found| Ok(Err(Corruption::Truncated { expected, found }));
    let len = file.len()?;
    if len > LEN_MAX {
        return truncated(LEN_MAX, len);
    }
    let mut chunk = vec![0; CHUNK];
    let got = read_full(file, &mut chunk, 0)?;
    chunk.truncate(got);
    let Some(head) = chunk.first_chunk::<HEAD_LEN>() else {
        return truncated(HEAD_LEN as u64, got as u64);
    };
    if head[..8] != MAGIC[..] {
        return Ok(Err(Corruption::Magic));
    }
    let found = LE::read_u32(&head[8..]);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[12..]);
    hasher.update(chunk.get(HEAD_LEN..).unwrap_or_default());
    let mut len = got;
    while len.is_multiple_of(CHUNK) {
        chunk.resize(CHUNK, 0);
        let got = read_full(file, &mut chunk, len as u64)?;
        if got == 0 {
            break;
        }
        chunk.truncate(got);
        hasher.update(&chunk);
        len = len.saturating_add(got);
    }
    let expected = hasher.finalize();
    if expected != found {
        return Ok(Err(Corruption::Checksum { expected, found }));
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
    bytes.resize(len, 0);
    let got = read_full(file, &mut bytes, 0)?;
    if got == len { Ok(Ok(bytes)) } else { truncated(len as u64, got as u64) }
}

fn crc(head: &[u8; HEAD_LEN], state: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[12..]);
    hasher.update(state);
    hasher.finalize()
}
