//! A write-ahead log that many owners share: atomic batches of entries, each tagged with its owner.
//!
//! One group commit serves all owners. An owner's state is a fold over its entries; what it needs of old entries is carried
//! forward, so that whole segments can go:
//!
//! ```text
//! hot   | dead . dead | dead live | ... | active |     every new entry
//!              \ carry
//! cold  | snapshot snapshot | ... | active |           what outlived its segment, apart from the busy tail
//! ```
//!
//! Rules. A segment goes only together with everything before it in its part. Before a prefix of the hot part goes, each
//! owner writes to the cold part what it still needs of it: a snapshot of what lives, and the markers of what died and has a
//! snapshot in the cold part. So markers outlive what they kill, in each part by itself, without any checkpoint. A carried
//! entry says up to which hot offset it knows (`as_of`); older hot entries about the same thing are to be passed over.
//! A prefix is carried only if at least as many bytes are given back, so each byte is written at most twice over time.
//! An owner that cannot read what it needs keeps the prefix where it is: what is not carried in full is not removed.
//!
//! An entry is a record: key = owner (varint), in the cold part followed by `as_of` (varint); value = the entry's bytes.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::carry::Carry;
use crate::checkpoint::{self, CheckpointHead};
use crate::config::{Durability, LogConfig, Retention};
use crate::data_dir::DataDir;
use crate::error::{Corruption, Error, Result};
use crate::io::{Open, unlink_if_there, write_full};
use crate::log::Log;
use crate::record::{Record, RecordView};
use crate::ticket::Ticket;
use crate::varint;
use crate::writer::{AppendOptions, Appended};

/// The name of a store's journal, and of its cold part: see docs/format.md.
pub(crate) const NAME: &str = "0";
pub(crate) const COLD_NAME: &str = "0/1";
/// An empty file at the top of a store that says that its journal was made.
pub(crate) const MARK: &str = "JOURNAL";

/// One entry of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Whose it is.
    pub owner: u64,
    /// What it says; a matter of the owner.
    pub bytes: &'a [u8],
}

/// The two parts of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Where new entries go.
    Hot,
    /// Where carried entries go.
    Cold,
}

/// Where an entry is: its part and its offset there. It changes when the entry is carried, so it is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(u64);

impl Place {
    const COLD: u64 = 1 << 63;

    /// The entry at `offset` of `part`.
    pub const fn new(part: Part, offset: u64) -> Place {
        match part {
            Part::Hot => Place(offset),
            Part::Cold => Place(offset | Place::COLD),
        }
    }

    /// Its part.
    pub const fn part(self) -> Part {
        if self.0 & Place::COLD == 0 { Part::Hot } else { Part::Cold }
    }

    /// Its offset in its part.
    pub const fn offset(self) -> u64 {
        self.0 & !Place::COLD
    }

    /// Both in one number: the offset, with the highest bit set in the cold part.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The reverse of [`to_bits`](Self::to_bits).
    pub const fn from_bits(bits: u64) -> Place {
        Place(bits)
    }
}

/// An entry that is replayed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Replayed<'a> {
    /// Where it is.
    pub place: Place,
    /// Whose it is.
    pub owner: u64,
    /// For a carried entry: it knows everything below this hot offset.
    pub as_of: Option<u64>,
    /// When it was appended, ms since 1970.
    pub timestamp: i64,
    /// What it says.
    pub bytes: &'a [u8],
}

/// How far both parts reach, or have been taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The hot part's next offset.
    pub hot: u64,
    /// The cold part's next offset.
    pub cold: u64,
}

/// Somebody whose entries must not be lost while they are needed.
pub trait Owner {
    /// Its number, as in [`Entry::owner`].
    fn number(&self) -> u64;

    /// How many bytes of its entries in each of the stretches `bounds[i]..bounds[i + 1]` of `part` are still needed.
    fn live_bytes(&self, part: Part, bounds: &[u64]) -> Vec<u64>;

    /// Says to `out` the entries that stand for everything it needs of `part` below `upto`: snapshots of what lives and has
    /// its latest word there, and (for the hot part) markers for what died there and has a snapshot in the cold part.
    /// Returns the hot offset below which these entries know everything.
    ///
    /// # Errors
    /// It cannot say all of it now, because a snapshot cannot be read for instance. Then nothing is carried and nothing is
    /// removed.
    fn carry(&self, part: Part, upto: u64, out: &mut Carry) -> Result<u64>;

    /// The entries of the last [`carry`](Self::carry) are durable: its `index`-th is at `places[index]`.
    fn carried(&self, part: Part, upto: u64, places: &[Place]);

    /// The last [`carry`](Self::carry), of this owner or another, came to an error. What it said may be in the cold part, as a
    /// whole, in parts or not at all; nothing was removed.
    fn not_carried(&self) {}
}

/// What [`Journal::reclaim`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reclaimed {
    /// Segments that were removed.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were carried forward for it.
    pub carried_bytes: u64,
}

/// A journal: see the top of this page. Clones share it.
#[derive(Clone, Debug)]
pub struct Journal {
    dir: DataDir,
    path: PathBuf,
    hot: Log,
    cold: Log,
}

impl Journal {
    /// Opens the journal `name`, a number such as `0`; its cold part is the log `0/1`. It is the first log of its store, and
    /// is made if there is no log yet.
    ///
    /// # Errors
    /// As [`Log::open`]; [`Error::Corrupt`] as [`DataDir::lost_log`] says it if there was a journal, or are other logs, and
    /// the journal or its cold part is gone: without it nobody knows what they are, so no other takes its place.
    pub fn open(dir: &DataDir, name: &str, config: LogConfig) -> Result<Journal> {
        let cold_name = format!("{name}/1");
        check_there(dir, name, &cold_name)?;
        // What is still needed is no matter of age or size here; and how large an entry may be is for its owner to say: one
        // that moves a record carries it.
        let config = config.retention(Retention::default()).record_bytes_max(1 << 30);
        let hot = Log::open(dir, name, config.clone())?;
        // A read-only open beside a writer that has not made the cold part yet finds none, and none is needed.
        let cold = Log::open(dir, &cold_name, config.durability(Durability::Sync))?;
        if name == NAME && !dir.is_read_only() {
            leave_mark(dir)?;
        }
        Ok(Journal { dir: dir.clone(), path: PathBuf::from(name), hot, cold })
    }

    /// Appends a batch of entries, all or nothing; the entry `i` is at offset `base_offset + i` of the hot part.
    ///
    /// # Errors
    /// As [`Log::append_with`].
    pub fn append(&self, entries: &[Entry<'_>], options: &AppendOptions) -> Result<Appended> {
        with_records(entries, |records| self.hot.append_with(records, options))
    }

    /// Gives the batch its place and returns at once: see [`Log::submit`].
    ///
    /// # Errors
    /// As [`Log::submit`].
    pub fn submit(&self, entries: &[Entry<'_>], options: &AppendOptions) -> Result<Ticket> {
        with_records(entries, |records| self.hot.submit(records, options))
    }

    /// The bytes of the entry at `place`.
    ///
    /// # Errors
    /// As [`Log::get`]: [`Error::OffsetOutOfRange`] if it was carried and its segment is gone.
    pub fn get(&self, place: Place) -> Result<Option<Bytes>> {
        Ok(self.part(place.part()).get(place.offset())?.and_then(|record| record.value))
    }

    /// The log of a part.
    pub const fn part(&self, part: Part) -> &Log {
        match part {
            Part::Hot => &self.hot,
            Part::Cold => &self.cold,
        }
    }

    /// Tells `apply` every entry from `from` on that is stored: first the cold part, then the hot one, each in order.
    ///
    /// # Errors
    /// As [`Reader::next_batch`](crate::Reader::next_batch), and what `apply` returns. Whoever only reads gets
    /// [`Error::Corrupt`] if durable entries are missing at the end, though not as long as a writer is at work there.
    pub fn replay(
        &self,
        from: Reach,
        mut apply: impl FnMut(Replayed<'_>) -> Result<()>,
    ) -> Result<()> {
        for (part, from) in [(Part::Cold, from.cold), (Part::Hot, from.hot)] {
            let log = self.part(part);
            let mut reader =
                log.reader_with(from.max(log.start_offset()), crate::config::Visibility::Stored)?;
            let end = reader.high_watermark();
            while reader.position() < end {
                let Some(batch) = reader.next_batch()? else { break };
                for record in batch.records() {
                    let entry = record.and_then(|record| replayed(part, &record));
                    match entry {
                        Ok(entry) => apply(entry)?,
                        Err(what) => {
                            let path = log.view().shown();
                            return Err(Error::Corrupt {
                                path,
                                position: 0,
                                offset: batch.base_offset(),
                                what,
                            });
                        }
                    }
                }
            }
            log.view().check_end(reader.position())?;
        }
        Ok(())
    }

    /// How far both parts reach.
    pub fn reach(&self) -> Reach {
        Reach { hot: self.hot.end_offset(), cold: self.cold.end_offset() }
    }

    /// Bytes of the segments of the hot part that are full and begin at `offset` or later: what an open has to read, with
    /// the latest segment, that begins there.
    pub fn full_bytes_from(&self, offset: u64) -> u64 {
        let segments = self.hot.view().segments();
        let later = segments.iter().filter(|segment| segment.base_offset() >= offset);
        later.filter_map(|segment| Some(segment.known_footer()?.data_end)).sum()
    }

    /// The hot part's epoch: it rises durably with every open after a crash, so what names it cannot be mistaken for
    /// something of a time that a power loss took back.
    pub fn epoch(&self) -> u32 {
        self.hot.epoch()
    }

    /// Makes everything durable that was appended before the call.
    ///
    /// # Errors
    /// As [`Log::sync`].
    pub fn sync(&self) -> Result<()> {
        self.hot.sync()?;
        self.cold.sync().map(|_| ())
    }

    /// Gives back the space of old segments, carrying forward what their owners need, as long as that gives back at least
    /// as much as it writes. `owners` must be all that have entries.
    ///
    /// # Errors
    /// As [`Log::append_with`], and those of [`Owner::carry`]. After an error nothing is lost, and it may be tried again.
    pub fn reclaim(&self, owners: &[&dyn Owner]) -> Result<Reclaimed> {
        let _span = crate::events::reclaiming();
        let mut done = Reclaimed::default();
        for part in [Part::Hot, Part::Cold] {
            let log = self.part(part);
            // What an earlier round could not remove in full.
            log.delete_records_before(log.start_offset())?;
            let stretches = log.sealed_stretches()?;
            let Some((last, _)) = stretches.last().copied() else { continue };
            // Once the disk is full, room for what is carried cannot be had any more; without it, what is full may do still.
            let _ = self.cold.ensure_spare();
            let mut bounds: Vec<u64> = stretches.iter().map(|(base, _)| *base).collect();
            bounds.push(log.sealed_end()?.max(last));
            let mut live = vec![0; stretches.len()];
            for owner in owners {
                for (sum, bytes) in live.iter_mut().zip(owner.live_bytes(part, &bounds)) {
                    *sum += bytes;
                }
            }
            let sizes: Vec<(u64, u64)> = stretches
                .iter()
                .zip(&live)
                .map(|((_, bytes), live)| (*bytes, (*live).min(*bytes)))
                .collect();
            let prefix = worth_reclaiming(&sizes);
            if prefix == 0 {
                continue;
            }
            done.carried_bytes += self.carry(part, bounds[prefix], owners)?;
            log.delete_records_before(bounds[prefix])?;
            done.segments += prefix;
            done.bytes += sizes[..prefix].iter().map(|(bytes, _)| bytes).sum::<u64>();
        }
        Ok(done)
    }

    fn carry(&self, part: Part, upto: u64, owners: &[&dyn Owner]) -> Result<u64> {
        let mut carried = Vec::with_capacity(owners.len());
        let written = self.write_carried(part, upto, owners, &mut carried);
        match &written {
            Ok(_) => {
                for (owner, places) in owners.iter().zip(&carried) {
                    owner.carried(part, upto, places);
                }
            }
            Err(_) => owners.iter().for_each(|owner| owner.not_carried()),
        }
        written
    }

    /// Makes durable in the cold part what the owners say, and tells where each of its entries is.
    fn write_carried(
        &self,
        part: Part,
        upto: u64,
        owners: &[&dyn Owner],
        carried: &mut Vec<Vec<Place>>,
    ) -> Result<u64> {
        let options = AppendOptions {
            durability: Some(Durability::Buffered),
            use_spare: true,
            ..AppendOptions::default()
        };
        let mut all_said = Vec::with_capacity(owners.len());
        for owner in owners {
            let mut said = Carry::default();
            let as_of = owner.carry(part, upto, &mut said)?;
            all_said.push((owner.number(), as_of, said));
        }
        // A snapshot may know of entries that a power loss would take back, so these are made durable before it.
        self.hot.sync()?;
        let mut written = 0;
        for (owner, as_of, said) in &all_said {
            let mut key = Vec::new();
            varint::put(&mut key, *owner);
            varint::put(&mut key, *as_of);
            let mut places = Vec::new();
            for piece in said.pieces() {
                let records: Vec<Record<'_>> =
                    piece.iter().map(|entry| Record::value(entry).key(&key)).collect();
                let appended = self.cold.append_with(&records, &options)?;
                places.extend(
                    (appended.base_offset..=appended.last_offset)
                        .map(|at| Place::new(Part::Cold, at)),
                );
            }
            written += said.bytes();
            carried.push(places);
        }
        self.cold.sync()?;
        Ok(written)
    }

    /// Keeps `state`, which `owner` has made of all entries before `reach`, so that the next open need not read them.
    /// Everything before `reach` is made durable first. A checkpoint can be lost or damaged without harm.
    ///
    /// # Errors
    /// As [`sync`](Self::sync); [`Error::Io`], [`Error::DiskFull`].
    pub fn checkpoint(&self, owner: u64, reach: Reach, state: &[u8]) -> Result<()> {
        // Each by itself: a cold part that has failed does not make every open longer.
        for (log, reach) in [(&self.hot, reach.hot), (&self.cold, reach.cold)] {
            if reach > log.durable_offset() {
                log.sync()?;
            }
        }
        let io = self.dir.io();
        let path = self.checkpoint_path(owner);
        let temporary = self.path.join(format!("checkpoint-{owner}.tmp"));
        let failed = |op| {
            let shown = self.dir.path().join(&path);
            move |e| Error::io(op, shown, e)
        };
        unlink_if_there(io.as_ref(), &temporary).map_err(failed("unlink"))?;
        let file = io.open(&temporary, Open::Create).map_err(failed("create"))?;
        let head = CheckpointHead { log_id: self.hot.view().log_id, owner, reach }.encode(state);
        write_full(file.as_ref(), &head, 0)
            .and_then(|()| write_full(file.as_ref(), state, head.len() as u64))
            .and_then(|()| file.sync_data())
            .inspect_err(|_| drop(io.unlink(&temporary)))
            .map_err(failed("write"))?;
        io.rename(&temporary, &path).map_err(failed("rename"))?;
        io.sync_dir(&self.path).map_err(failed("sync directory of"))
    }

    /// The latest checkpoint of `owner`, if there is one that fits this journal: how far it goes, and the state.
    pub fn load_checkpoint(&self, owner: u64) -> Option<(Reach, Vec<u8>)> {
        let file = self.dir.io().open(&self.checkpoint_path(owner), Open::Read).ok()?;
        let mut bytes = checkpoint::read(file.as_ref()).ok()?.ok()?;
        let (head, _) = CheckpointHead::decode(&bytes).ok()?;
        let (hot, cold) = (&self.hot, &self.cold);
        let fits = (head.log_id, head.owner) == (hot.view().log_id, owner)
            && (hot.start_offset()..=hot.end_offset()).contains(&head.reach.hot)
            && (cold.start_offset()..=cold.end_offset()).contains(&head.reach.cold);
        fits.then(|| (head.reach, bytes.split_off(checkpoint::HEAD_LEN)))
    }

    fn checkpoint_path(&self, owner: u64) -> PathBuf {
        self.path.join(checkpoint::file_name(owner))
    }

    /// Closes both parts: see [`Log::close`].
    ///
    /// # Errors
    /// As [`Log::close`]; both are closed even if the first fails.
    pub fn close(self) -> Result<()> {
        let cold = self.cold.close();
        self.hot.close().and(cold)
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.dir.clock().wall_ms()
    }

    /// The directory of the journal, relative to the store.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// How many of the oldest segments, given as (bytes, live bytes), are worth carrying: the run that gives back the most bytes
/// beyond those that it copies, of equal ones the shortest. None if every run copies more than it gives back.
pub fn worth_reclaiming(segments: &[(u64, u64)]) -> usize {
    let (mut live, mut dead, mut best, mut prefix) = (0u64, 0u64, None, 0);
    for (i, (bytes, live_bytes)) in segments.iter().enumerate() {
        live = live.saturating_add(*live_bytes);
        dead = dead.saturating_add(bytes - live_bytes);
        let gain = dead.checked_sub(live).filter(|_| dead > 0);
        if gain > best {
            best = gain;
            prefix = i + 1;
        }
    }
    prefix
}

/// Both parts must be there if there ever was a journal, or if there is anything that it would know of.
fn check_there(dir: &DataDir, hot: &str, cold: &str) -> Result<()> {
    // In the reverse of the order in which a writer makes them: one may be at it now.
    let is_marked = hot == NAME && dir.has_file(Path::new(MARK))?;
    let has_cold = dir.has_log(cold)?;
    let is_lost = match (dir.has_log(hot)?, has_cold) {
        (true, _) => is_marked && !has_cold,
        (false, true) => true,
        (false, false) => is_marked || (!dir.logs()?.is_empty() && !dir.has_log(hot)?),
    };
    if !is_lost {
        return Ok(());
    }
    Err(dir.lost_log(if dir.has_log(hot)? { cold } else { hot }))
}

/// Notes durably that the journal was made. A store from before there were marks gets one as soon as there is space.
fn leave_mark(dir: &DataDir) -> Result<()> {
    if dir.has_file(Path::new(MARK))? {
        return Ok(());
    }
    match make_mark(dir) {
        Err(Error::DiskFull { .. }) => Ok(()),
        made => made,
    }
}

/// Marks a store that has, or is about to have, a journal.
pub(crate) fn make_mark(dir: &DataDir) -> Result<()> {
    let (io, path) = (dir.io(), Path::new(MARK));
    io.open(path, Open::Create)
        .and_then(|_| io.sync_dir(Path::new("")))
        .map_err(|e| Error::io("create", dir.path().join(path), e))
}

fn with_records<T>(
    entries: &[Entry<'_>],
    append: impl FnOnce(&[Record<'_>]) -> Result<T>,
) -> Result<T> {
    let mut room = KEY_ROOM;
    if let [entry] = entries {
        return append(&[Record::value(entry.bytes).key(owner_key(entry.owner, &mut room))]);
    }
    let mut rooms;
    let records: Vec<_> = match entries.first() {
        Some(first) if entries.iter().all(|entry| entry.owner == first.owner) => {
            let key = owner_key(first.owner, &mut room);
            entries.iter().map(|entry| Record::value(entry.bytes).key(key)).collect()
        }
        _ => {
            rooms = vec![KEY_ROOM; entries.len()];
            let keyed = entries.iter().zip(&mut rooms);
            keyed
                .map(|(entry, room)| Record::value(entry.bytes).key(owner_key(entry.owner, room)))
                .collect()
        }
    };
    append(&records)
}

const KEY_ROOM: [u8; varint::LEN_MAX] = [0; varint::LEN_MAX];

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
fn owner_key(mut owner: u64, room: &mut [u8; varint::LEN_MAX]) -> &[u8] {
    let mut len = 0;
    while owner >= 0x80 {
        room[len] = owner as u8 | 0x80;
        owner >>= 7;
        len += 1;
    }
    room[len] = owner as u8;
    &room[..=len]
}

pub(crate) fn replayed<'a>(
    part: Part,
    record: &RecordView<'a>,
) -> Result<Replayed<'a>, Corruption> {
    let mut key = record.key.ok_or(Corruption::Field("a journal entry without an owner"))?;
    let owner = varint::take(&mut key)?;
    let as_of = match part {
        Part::Hot => None,
        Part::Cold => Some(varint::take(&mut key)?),
    };
    let bytes = record.value.ok_or(Corruption::Field("a journal entry without bytes"))?;
    if !key.is_empty() {
        return Err(Corruption::Field("the owner of a journal entry"));
    }
    Ok(Replayed {
        place: Place::new(part, record.offset),
        owner,
        as_of,
        timestamp: record.timestamp,
        bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_worth_it_if_it_gives_back_as_much_as_it_copies() {
        assert_eq!(worth_reclaiming(&[]), 0);
        assert_eq!(worth_reclaiming(&[(100, 100)]), 0, "nothing is dead");
        assert_eq!(worth_reclaiming(&[(100, 0)]), 1);
        assert_eq!(worth_reclaiming(&[(100, 50)]), 1);
        assert_eq!(worth_reclaiming(&[(100, 51)]), 0);
        assert_eq!(
            worth_reclaiming(&[(100, 100), (100, 0)]),
            2,
            "a live segment before a dead one is carried for it"
        );
        assert_eq!(worth_reclaiming(&[(100, 100), (100, 100), (100, 0), (100, 0), (100, 100)]), 4);
        assert_eq!(worth_reclaiming(&[(100, 1), (100, 100)]), 1);
        assert_eq!(
            worth_reclaiming(&[(100, 0), (100, 100), (100, 100)]),
            1,
            "what follows a dead segment is not copied for nothing"
        );
    }

    #[test]
    fn a_place_is_its_part_and_its_offset() {
        for (part, offset) in
            [(Part::Hot, 0), (Part::Hot, 1 << 62), (Part::Cold, 0), (Part::Cold, 77)]
        {
            let place = Place::from_bits(Place::new(part, offset).to_bits());
            assert_eq!((place.part(), place.offset()), (part, offset));
        }
    }
}
