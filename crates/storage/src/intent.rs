//! Appends to other logs as part of a journal's batch: said in the journal first, done afterwards, finished at open.
//!
//! A batch of the journal is atomic; an append to another log is not part of it. So the batch holds an *intent*: the record
//! and the sequence number under which it goes to its log. The journal is an idempotent producer of that log, so doing an
//! intent twice appends it once, and what the log has is asked of the log itself. A crash between the two is finished by
//! [`Intents::complete`].
//!
//! ```text
//! intent  = version u8 (1) | name length varint, name | sequence varint | timestamp zigzag | presence u8 |
//!           [key length varint, key] | [value length varint, value] | header count varint, (name, value)*
//! ```
//! Presence: bit 0 key, bit 1 value. Invariant: the intents of one log are applied in the order of their sequences.

use std::collections::{BTreeMap, VecDeque};

use crate::batch::Producer;
use crate::carry::Carry;
use crate::config::Durability;
use crate::error::{Corruption, Error, Result};
use crate::journal::{Entry, Journal, Owner, Part, Place};
use crate::log::Log;
use crate::record::{Header, Record};
use crate::sync::Mutex;
use crate::varint::{self, unzigzag, zigzag};
use crate::writer::{AppendOptions, Appended};

/// The journal's number for its intents.
pub const INTENTS: u64 = 1;
/// Under this producer id the journal appends to other logs.
pub const JOURNAL_PRODUCER: i64 = i64::MAX;
const VERSION: u8 = 1;

/// A record for another log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent<'a> {
    /// The log's name, such as `7/3`.
    pub log: &'a str,
    /// The record.
    pub record: Record<'a>,
}

/// The intents of a journal that may not be done yet.
#[derive(Debug)]
pub struct Intents<R> {
    journal: Journal,
    resolve: R,
    state: Mutex<BTreeMap<String, Target>>,
}

/// Another log, as far as intents go.
#[derive(Debug, Default)]
struct Target {
    /// The next sequence to give, once that is known.
    next: Option<i32>,
    /// In order; the front ones may be done already and wait for their log's sync.
    pending: VecDeque<Pending>,
}

#[derive(Debug)]
struct Pending {
    place: Place,
    sequence: i32,
    bytes: Vec<u8>,
    /// One past its offset in its log, once it is appended there.
    done: Option<u64>,
}

impl<R: Fn(&str) -> Result<Option<Log>>> Intents<R> {
    /// The intents of `journal`. `resolve` opens a log by its name; `None` means that it is gone, and then so are its intents.
    pub fn new(journal: Journal, resolve: R) -> Intents<R> {
        Intents { journal, resolve, state: Mutex::default() }
    }

    /// Takes in an entry of [`INTENTS`] that is replayed.
    ///
    /// # Errors
    /// [`Corruption`] if it is none.
    pub fn replay(&self, place: Place, bytes: &[u8]) -> Result<(), Corruption> {
        let decoded = Decoded::of(bytes)?;
        let mut state = self.state.lock();
        let target = state.entry(decoded.log.to_owned()).or_default();
        // A carried intent may be met in both parts.
        if target.pending.iter().all(|pending| pending.sequence != decoded.sequence) {
            let pending =
                Pending { place, sequence: decoded.sequence, bytes: bytes.to_vec(), done: None };
            let after =
                target.pending.partition_point(|other| follows(decoded.sequence, other.sequence));
            target.pending.insert(after, pending);
        }
        Ok(())
    }

    /// Appends `entries` and `intents` to the journal as one batch, then does the intents. `Ok` means that the batch is
    /// acknowledged; an intent that could not be done at once (its log's disk may be full) is done by a later call, by
    /// [`complete`](Self::complete), or at the next open.
    ///
    /// # Errors
    /// As [`Journal::append`]: then neither entries nor intents were taken.
    pub fn commit(
        &self,
        entries: &[Entry<'_>],
        intents: &[Intent<'_>],
        options: &AppendOptions,
    ) -> Result<Appended> {
        let mut state = self.state.lock();
        let now_ms = self.journal.now_ms();
        let mut said = Vec::with_capacity(intents.len());
        let mut next: BTreeMap<&str, i32> = BTreeMap::new();
        for intent in intents {
            let sequence = match next.get(intent.log) {
                Some(sequence) => *sequence,
                None => self.next_sequence(&mut state, intent.log)?,
            };
            next.insert(intent.log, wrapping_next(sequence));
            said.push((intent.log, sequence, encode(intent, sequence, now_ms)));
        }
        let mut batch = entries.to_vec();
        batch.extend(said.iter().map(|(_, _, bytes)| Entry { owner: INTENTS, bytes }));
        let appended = self.journal.append(&batch, options)?;
        let first = appended.base_offset + entries.len() as u64;
        for (offset, (log, sequence, bytes)) in (first..).zip(said) {
            let target = state.entry(log.to_owned()).or_default();
            target.next = Some(wrapping_next(sequence));
            target.pending.push_back(Pending {
                place: Place::new(Part::Hot, offset),
                sequence,
                bytes,
                done: None,
            });
        }
        for log in next.into_keys() {
            // What cannot be done now stays pending.
            let _ = self.do_pending(&mut state, log);
        }
        Ok(appended)
    }

    /// Does what is pending.
    ///
    /// # Errors
    /// What appending to one of the logs returns; the others are done all the same.
    pub fn complete(&self) -> Result<()> {
        let mut state = self.state.lock();
        let logs: Vec<String> = state.keys().cloned().collect();
        let mut result = Ok(());
        for log in logs {
            result = result.and(self.do_pending(&mut state, &log));
        }
        result
    }

    /// How many intents are not done.
    pub fn pending(&self) -> usize {
        self.state
            .lock()
            .values()
            .flat_map(|target| &target.pending)
            .filter(|pending| pending.done.is_none())
            .count()
    }

    fn next_sequence(&self, state: &mut BTreeMap<String, Target>, log: &str) -> Result<i32> {
        if let Some(next) = state.get(log).and_then(|target| target.next) {
            return Ok(next);
        }
        self.do_pending(state, log)?;
        let last = match (self.resolve)(log)? {
            Some(target) => target.last_sequence(JOURNAL_PRODUCER)?.map(|(_, last)| last),
            None => return Err(Error::InvalidName { name: log.to_owned() }),
        };
        Ok(last.map_or(0, wrapping_next))
    }

    fn do_pending(&self, state: &mut BTreeMap<String, Target>, name: &str) -> Result<()> {
        let Some(target) = state.get_mut(name) else { return Ok(()) };
        let Some(log) = (self.resolve)(name)? else {
            state.remove(name);
            return Ok(());
        };
        let durable = log.durable_offset();
        while target
            .pending
            .front()
            .is_some_and(|front| front.done.is_some_and(|done| done <= durable))
        {
            target.pending.pop_front();
        }
        for pending in target.pending.iter_mut().filter(|pending| pending.done.is_none()) {
            let last = log.last_sequence(JOURNAL_PRODUCER)?.map(|(_, last)| last);
            if last.is_some_and(|last| !follows(pending.sequence, last)) {
                pending.done = Some(log.end_offset());
                continue;
            }
            let corrupt = |what| Error::Corrupt {
                path: self.journal.path().to_owned(),
                position: 0,
                offset: pending.place.offset(),
                what,
            };
            let decoded = Decoded::of(&pending.bytes).map_err(corrupt)?;
            let options = AppendOptions {
                durability: Some(Durability::Buffered),
                producer: Some(Producer {
                    id: JOURNAL_PRODUCER,
                    epoch: 0,
                    sequence: pending.sequence,
                }),
                use_spare: true,
                wall_ms: None,
            };
            let appended = log.append_with(&[decoded.record()], &options)?;
            pending.done = Some(appended.last_offset + 1);
        }
        Ok(())
    }
}

impl<R: Fn(&str) -> Result<Option<Log>>> Owner for Intents<R> {
    fn number(&self) -> u64 {
        INTENTS
    }

    fn live_bytes(&self, part: Part, bounds: &[u64]) -> Vec<u64> {
        let mut live = vec![0; bounds.len().saturating_sub(1)];
        for pending in self.state.lock().values().flat_map(|target| &target.pending) {
            let stretch = bounds.partition_point(|bound| *bound <= pending.place.offset());
            if pending.place.part() == part
                && let Some(sum) = stretch.checked_sub(1).and_then(|i| live.get_mut(i))
            {
                *sum += pending.bytes.len() as u64;
            }
        }
        live
    }

    fn carry(&self, part: Part, upto: u64, out: &mut Carry) -> Result<u64> {
        for pending in self.state.lock().values().flat_map(|target| &target.pending) {
            if pending.place.part() == part && pending.place.offset() < upto {
                out.say(&pending.bytes);
            }
        }
        // Each intent is known by its sequence, whatever comes after it.
        Ok(0)
    }

    fn carried(&self, part: Part, upto: u64, places: &[Place]) {
        let mut state = self.state.lock();
        let moved = state
            .values_mut()
            .flat_map(|target| &mut target.pending)
            .filter(|pending| pending.place.part() == part && pending.place.offset() < upto);
        for (pending, place) in moved.zip(places) {
            pending.place = *place;
        }
    }
}

/// Kafka's sequences: the non-negative i32, and 0 after the largest.
const fn wrapping_next(sequence: i32) -> i32 {
    if sequence == i32::MAX { 0 } else { sequence + 1 }
}

/// Whether `sequence` comes after `last`, in a window of half the numbers.
const fn follows(sequence: i32, last: i32) -> bool {
    let ahead = (sequence as u32).wrapping_sub(last as u32) & 0x7FFF_FFFF;
    ahead != 0 && ahead < 1 << 30
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn encode(intent: &Intent<'_>, sequence: i32, now_ms: i64) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_bytes(&mut out, intent.log.as_bytes());
    varint::put(&mut out, u64::from(sequence.cast_unsigned()));
    varint::put(&mut out, zigzag(intent.record.timestamp.unwrap_or(now_ms)));
    out.push(u8::from(intent.record.key.is_some()) | u8::from(intent.record.value.is_some()) << 1);
    for bytes in [intent.record.key, intent.record.value].into_iter().flatten() {
        put_bytes(&mut out, bytes);
    }
    varint::put(&mut out, intent.record.headers.len() as u64);
    for header in intent.record.headers {
        put_bytes(&mut out, header.name.as_bytes());
        put_bytes(&mut out, header.value);
    }
    out
}

struct Decoded<'a> {
    log: &'a str,
    sequence: i32,
    timestamp: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Vec<Header<'a>>,
}

impl<'a> Decoded<'a> {
    fn of(mut bytes: &'a [u8]) -> Result<Decoded<'a>, Corruption> {
        const WRONG: Corruption = Corruption::Field("an intent");
        fn take<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Corruption> {
            let len = usize::try_from(varint::take(bytes)?).map_err(|_| WRONG)?;
            let (taken, rest) = bytes.split_at_checked(len).ok_or(WRONG)?;
            *bytes = rest;
            Ok(taken)
        }
        fn text<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, Corruption> {
            std::str::from_utf8(take(bytes)?).map_err(|_| WRONG)
        }
        fn byte(bytes: &mut &[u8]) -> Result<u8, Corruption> {
            let (first, rest) = bytes.split_first().ok_or(WRONG)?;
            *bytes = rest;
            Ok(*first)
        }
        if byte(&mut bytes)? != VERSION {
            return Err(Corruption::Field("the version of an intent"));
        }
        let log = text(&mut bytes)?;
        let sequence = i32::try_from(varint::take(&mut bytes)?).map_err(|_| WRONG)?;
        let timestamp = unzigzag(varint::take(&mut bytes)?);
        let presence = byte(&mut bytes)?;
        let key = if presence & 1 == 0 { None } else { Some(take(&mut bytes)?) };
        let value = if presence & 2 == 0 { None } else { Some(take(&mut bytes)?) };
        let mut headers = Vec::new();
        for _ in 0..varint::take(&mut bytes)? {
            headers.push(Header { name: text(&mut bytes)?, value: take(&mut bytes)? });
        }
        if presence > 3 || !bytes.is_empty() {
            return Err(WRONG);
        }
        Ok(Decoded { log, sequence, timestamp, key, value, headers })
    }

    fn record(&self) -> Record<'_> {
        Record {
            key: self.key,
            value: self.value,
            headers: &self.headers,
            timestamp: Some(self.timestamp),
        }
    }
}
