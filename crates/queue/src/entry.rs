//! The journal entries of queues: the facts that a queue's state is a fold over.
//!
//! ```text
//! entry = tag u8, queue varint, fields; the tag's high two bits are the version, 0
//!  1 Sent               sequence, envelope
//!  2 Moved              sequence, time, reason u8 (0: redriven), target queue varint, target sequence, envelope
//!  3 Snapshot           sequence, standing, envelope
//!  4 Deleted            time, reason u8, marks
//!  5 Received           time, zigzag (lease end - time), epoch varint, attempt id text, marks,
//!                       and with a generation of 3 or more the queue's next sequence
//!  6 VisibilityChanged  time, zigzag (lease end - time), marks
//!  7 Returned           sequence, generation varint, time, outcome u8, zigzag (due - time), reason text
//!  8 Edited             sequence, time, standing, envelope
//!  9 Rescheduled        sequence, time, zigzag (due - time)
//! 10 Died               sequence, time, reason u8, text
//! 11 Revived            sequence, time
//! 12 Parked             time, group text
//! 13 Resumed            time, group text
//! 14 Created            time, name text, config
//! 15 AttributesSet      time, config
//! 16 Tagged             count varint, then each as key text, value text
//! 17 Purged             time, varint below: every message with a smaller sequence is gone
//! 18 Removed            time
//! 19 QueueSnapshot      name text, config, created varint, modified varint, next sequence varint, tags as in 16
//! 20 Remembered         count varint, then each as key 16 bytes, sequence varint, expiry varint (0: until deleted)
//! 21 MoveTask           task
//! 22 Schedule           schedule
//! 23 ScheduleRemoved    name text
//! 24 Fired              name text, varint next tick
//! 25 ClockSet           time, varint wall clock ms
//! sequence, time: varint; marks: count varint, then each as zigzag sequence delta (from 0), varint generation
//! ```
//! A marker names queue, sequence and generation, never a journal position. Times are ms on the queues' clock.

mod described;

use std::borrow::Cow;

use crate::codec::{Decoded, Input, Malformed, put_bytes, put_ms, put_varint, put_zigzag};
use crate::config::QueueConfig;
use crate::envelope::{DeathReason, Envelope, outcome_code, outcome_of};
use crate::held::Outcome;
use crate::redrive::MoveTask;
use crate::schedule::Schedule;
use crate::standing::Standing;

pub use described::{JOURNAL_OWNER, describe_entry};

/// A message, and which receive of it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) sequence: u64,
    pub(crate) generation: u32,
}

/// How messages are received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) time: i64,
    pub(crate) until: i64,
    pub(crate) epoch: u32,
    /// 0 in every stored entry; a receive that could not be stored has one.
    pub(crate) session: u32,
    /// The next sequence of the queue, behind which messages go that come back again and again. Stored only with one.
    pub(crate) back: u64,
}

/// From this receive on, a message of a standard queue that comes back goes to the back, as in SQS.
pub(crate) const RECEIVES_TO_THE_BACK: u32 = 3;

fn goes_to_the_back(marks: &[Mark]) -> bool {
    marks.iter().any(|mark| mark.generation >= RECEIVES_TO_THE_BACK)
}

/// Why messages were deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// By a consumer with its receipt.
    Deleted,
    /// By id, unread.
    Cancelled,
    Expired,
    Overflow,
}

impl Gone {
    fn code(self) -> u8 {
        match self {
            Gone::Deleted => 0,
            Gone::Cancelled => 1,
            Gone::Expired => 2,
            Gone::Overflow => 3,
        }
    }

    fn of(code: u8) -> Decoded<Gone> {
        match code {
            0 => Ok(Gone::Deleted),
            1 => Ok(Gone::Cancelled),
            2 => Ok(Gone::Expired),
            3 => Ok(Gone::Overflow),
            _ => Err(Malformed("an unknown reason of deletion")),
        }
    }
}

/// A deduplication id that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) key: [u8; 16],
    pub(crate) sequence: u64,
    /// 0: until the message is deleted.
    pub(crate) expires: i64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fact<'a> {
    Sent {
        sequence: u64,
        envelope: Envelope<'a>,
    },
    Moved {
        sequence: u64,
        time: i64,
        reason: Option<DeathReason>,
        target: u32,
        target_sequence: u64,
        envelope: Envelope<'a>,
    },
    Snapshot {
        sequence: u64,
        standing: Standing,
        envelope: Envelope<'a>,
    },
    Deleted {
        time: i64,
        reason: Gone,
        marks: Cow<'a, [Mark]>,
    },
    Received {
        lease: Lease,
        attempt: &'a str,
        marks: Cow<'a, [Mark]>,
    },
    VisibilityChanged {
        time: i64,
        until: i64,
        marks: Cow<'a, [Mark]>,
    },
    Returned {
        sequence: u64,
        generation: u32,
        time: i64,
        outcome: Outcome,
        due: i64,
        reason: &'a str,
    },
    /// It stands alone, as a snapshot does: what it edits may be gone before it.
    Edited {
        sequence: u64,
        time: i64,
        standing: Standing,
        envelope: Envelope<'a>,
    },
    Rescheduled {
        sequence: u64,
        time: i64,
        due: i64,
    },
    Died {
        sequence: u64,
        time: i64,
        reason: DeathReason,
        text: &'a str,
    },
    Revived {
        sequence: u64,
        time: i64,
    },
    Parked {
        time: i64,
        group: &'a str,
    },
    Resumed {
        time: i64,
        group: &'a str,
    },
    Created {
        time: i64,
        name: &'a str,
        config: Cow<'a, QueueConfig>,
    },
    AttributesSet {
        time: i64,
        config: Cow<'a, QueueConfig>,
    },
    Tagged {
        tags: Vec<(&'a str, &'a str)>,
    },
    Purged {
        time: i64,
        below: u64,
    },
    Removed {
        time: i64,
    },
    QueueSnapshot {
        name: &'a str,
        config: Cow<'a, QueueConfig>,
        created: i64,
        modified: i64,
        next_sequence: u64,
        tags: Vec<(&'a str, &'a str)>,
    },
    Remembered {
        memories: Cow<'a, [Memory]>,
    },
    MoveTask {
        task: Cow<'a, MoveTask>,
    },
    Schedule {
        schedule: Cow<'a, Schedule>,
    },
    ScheduleRemoved {
        name: &'a str,
    },
    /// The schedule's message was sent in the same batch.
    Fired {
        name: &'a str,
        next: i64,
    },
    /// The two clocks had come apart when the store was opened.
    ClockSet {
        time: i64,
        wall: i64,
    },
}

/// A fact about a queue.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry<'a> {
    pub(crate) queue: u32,
    pub(crate) fact: Fact<'a>,
}

fn put_marks(out: &mut Vec<u8>, marks: &[Mark]) {
    put_varint(out, marks.len() as u64);
    let mut last = 0u64;
    for mark in marks {
        put_zigzag(out, mark.sequence.wrapping_sub(last).cast_signed());
        put_varint(out, u64::from(mark.generation));
        last = mark.sequence;
    }
}

fn take_marks(input: &mut Input<'_>) -> Decoded<Vec<Mark>> {
    let count = input.count()?;
    let mut marks = Vec::with_capacity(count);
    let mut last = 0u64;
    for _ in 0..count {
        last = last.wrapping_add_signed(input.zigzag()?);
        marks.push(Mark { sequence: last, generation: input.u32()? });
    }
    Ok(marks)
}

fn put_tags(out: &mut Vec<u8>, tags: &[(&str, &str)]) {
    put_varint(out, tags.len() as u64);
    for (key, value) in tags {
        put_bytes(out, key.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

fn take_tags<'a>(input: &mut Input<'a>) -> Decoded<Vec<(&'a str, &'a str)>> {
    (0..input.count()?).map(|_| Ok((input.text()?, input.text()?))).collect()
}

impl<'a> Entry<'a> {
    /// Appends the entry's bytes to `out`.
    #[inline]
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.fact.tag());
        put_varint(out, u64::from(self.queue));
        match &self.fact {
            Fact::Sent { sequence, envelope } => {
                put_varint(out, *sequence);
                envelope.encode(out);
            }
            Fact::Moved { sequence, time, reason, target, target_sequence, envelope } => {
                put_varint(out, *sequence);
                put_ms(out, *time);
                out.push(reason.map_or(0, DeathReason::code));
                put_varint(out, u64::from(*target));
                put_varint(out, *target_sequence);
                envelope.encode(out);
            }
            Fact::Snapshot { sequence, standing, envelope } => {
                put_varint(out, *sequence);
                standing.encode(out);
                envelope.encode(out);
            }
            Fact::Deleted { time, reason, marks } => {
                put_ms(out, *time);
                out.push(reason.code());
                put_marks(out, marks);
            }
            Fact::Received { lease, attempt, marks } => {
                put_ms(out, lease.time);
                put_zigzag(out, lease.until.wrapping_sub(lease.time));
                put_varint(out, u64::from(lease.epoch));
                put_bytes(out, attempt.as_bytes());
                put_marks(out, marks);
                if goes_to_the_back(marks) {
                    put_varint(out, lease.back);
                }
            }
            Fact::VisibilityChanged { time, until, marks } => {
                put_ms(out, *time);
                put_zigzag(out, until.wrapping_sub(*time));
                put_marks(out, marks);
            }
            Fact::Returned { sequence, generation, time, outcome, due, reason } => {
                put_varint(out, *sequence);
                put_varint(out, u64::from(*generation));
                put_ms(out, *time);
                out.push(outcome_code(*outcome));
                put_zigzag(out, due.wrapping_sub(*time));
                put_bytes(out, reason.as_bytes());
            }
            fact => fact.encode_rare(out),
        }
    }

    /// The entry that `bytes` hold; anything else is an error, never a panic.
    #[inline]
    pub(crate) fn decode(bytes: &'a [u8]) -> Decoded<Entry<'a>> {
        let mut input = Input(bytes);
        let tag = input.byte()?;
        let queue = input.u32()?;
        let fact = match tag {
            1 => Fact::Sent { sequence: sequence(&mut input)?, envelope: Envelope::decode(input)? },
            2 => Fact::Moved {
                sequence: sequence(&mut input)?,
                time: input.ms()?,
                reason: match input.byte()? {
                    0 => None,
                    code => Some(DeathReason::of(code)?),
                },
                target: input.u32()?,
                target_sequence: sequence(&mut input)?,
                envelope: Envelope::decode(input)?,
            },
            3 => Fact::Snapshot {
                sequence: sequence(&mut input)?,
                standing: Standing::decode(&mut input)?,
                envelope: Envelope::decode(input)?,
            },
            8 => Fact::Edited {
                sequence: sequence(&mut input)?,
                time: input.ms()?,
                standing: Standing::decode(&mut input)?,
                envelope: Envelope::decode(input)?,
            },
            tag => {
                let fact = Fact::decode_short(tag, &mut input)?;
                input.end()?;
                fact
            }
        };
        Ok(Entry { queue, fact })
    }
}

/// The message in an entry.
pub(crate) fn message_in(bytes: &[u8]) -> Decoded<Envelope<'_>> {
    Envelope::decode(envelope_in(bytes)?)
}

/// Where the envelope of the message in an entry begins: it goes to the entry's end.
#[inline]
pub(crate) fn envelope_in(bytes: &[u8]) -> Decoded<Input<'_>> {
    let mut input = Input(bytes);
    let tag = input.byte()?;
    input.u32()?;
    sequence(&mut input)?;
    match tag {
        1 => {}
        2 => {
            input.ms()?;
            input.byte()?;
            input.u32()?;
            sequence(&mut input)?;
        }
        3 => drop(Standing::decode(&mut input)?),
        8 => {
            input.ms()?;
            Standing::decode(&mut input)?;
        }
        _ => return Err(Malformed("an entry without a message")),
    }
    Ok(input)
}

/// A sequence: from 1 on and below 2^48, so that it fits everywhere.
fn sequence(input: &mut Input<'_>) -> Decoded<u64> {
    let sequence = input.varint()?;
    if (1..1 << 48).contains(&sequence) {
        Ok(sequence)
    } else {
        Err(Malformed("a sequence of 0 or beyond 48 bits"))
    }
}

fn until(input: &mut Input<'_>, time: i64) -> Decoded<i64> {
    Ok(time.saturating_add(input.zigzag()?))
}

impl<'a> Fact<'a> {
    fn tag(&self) -> u8 {
        match self {
            Fact::Sent { .. } => 1,
            Fact::Moved { .. } => 2,
            Fact::Snapshot { .. } => 3,
            Fact::Deleted { .. } => 4,
            Fact::Received { .. } => 5,
            Fact::VisibilityChanged { .. } => 6,
            Fact::Returned { .. } => 7,
            Fact::Edited { .. } => 8,
            Fact::Rescheduled { .. } => 9,
            Fact::Died { .. } => 10,
            Fact::Revived { .. } => 11,
            Fact::Parked { .. } => 12,
            Fact::Resumed { .. } => 13,
            Fact::Created { .. } => 14,
            Fact::AttributesSet { .. } => 15,
            Fact::Tagged { .. } => 16,
            Fact::Purged { .. } => 17,
            Fact::Removed { .. } => 18,
            Fact::QueueSnapshot { .. } => 19,
            Fact::Remembered { .. } => 20,
            Fact::MoveTask { .. } => 21,
            Fact::Schedule { .. } => 22,
            Fact::ScheduleRemoved { .. } => 23,
            Fact::Fired { .. } => 24,
            Fact::ClockSet { .. } => 25,
        }
    }

    /// Whether it holds a message.
    #[inline]
    pub(crate) fn is_message(&self) -> bool {
        matches!(
            self,
            Fact::Sent { .. } | Fact::Moved { .. } | Fact::Snapshot { .. } | Fact::Edited { .. }
        )
    }

    /// Whether it says what the queue is, not what became of a message.
    pub(crate) fn is_of_catalogue(&self) -> bool {
        matches!(
            self,
            Fact::Parked { .. }
                | Fact::Resumed { .. }
                | Fact::Created { .. }
                | Fact::AttributesSet { .. }
                | Fact::Tagged { .. }
                | Fact::QueueSnapshot { .. }
                | Fact::Remembered { .. }
                | Fact::MoveTask { .. }
                | Fact::Schedule { .. }
                | Fact::ScheduleRemoved { .. }
                | Fact::Fired { .. }
        )
    }

    /// The entries that do not stand on the path of every message.
    fn encode_rare(&self, out: &mut Vec<u8>) {
        match self {
            Fact::Edited { sequence, time, standing, envelope } => {
                put_varint(out, *sequence);
                put_ms(out, *time);
                standing.encode(out);
                envelope.encode(out);
            }
            Fact::Rescheduled { sequence, time, due } => {
                put_varint(out, *sequence);
                put_ms(out, *time);
                put_zigzag(out, due.wrapping_sub(*time));
            }
            Fact::Died { sequence, time, reason, text } => {
                put_varint(out, *sequence);
                put_ms(out, *time);
                out.push(reason.code());
                put_bytes(out, text.as_bytes());
            }
            Fact::Revived { sequence, time } => {
                put_varint(out, *sequence);
                put_ms(out, *time);
            }
            Fact::Parked { time, group } | Fact::Resumed { time, group } => {
                put_ms(out, *time);
                put_bytes(out, group.as_bytes());
            }
            Fact::Created { time, name, config } => {
                put_ms(out, *time);
                put_bytes(out, name.as_bytes());
                config.encode(out);
            }
            Fact::AttributesSet { time, config } => {
                put_ms(out, *time);
                config.encode(out);
            }
            Fact::Tagged { tags } => put_tags(out, tags),
            Fact::Purged { time, below } => {
                put_ms(out, *time);
                put_varint(out, *below);
            }
            Fact::Removed { time } => put_ms(out, *time),
            Fact::QueueSnapshot { name, config, created, modified, next_sequence, tags } => {
                put_bytes(out, name.as_bytes());
                config.encode(out);
                put_ms(out, *created);
                put_ms(out, *modified);
                put_varint(out, *next_sequence);
                put_tags(out, tags);
            }
            Fact::Remembered { memories } => {
                put_varint(out, memories.len() as u64);
                for memory in memories.iter() {
                    out.extend_from_slice(&memory.key);
                    put_varint(out, memory.sequence);
                    put_ms(out, memory.expires);
                }
            }
            Fact::MoveTask { task } => task.encode(out),
            Fact::Schedule { schedule } => schedule.encode(out),
            Fact::ScheduleRemoved { name } => put_bytes(out, name.as_bytes()),
            Fact::Fired { name, next } => {
                put_bytes(out, name.as_bytes());
                put_ms(out, *next);
            }
            Fact::ClockSet { time, wall } => {
                put_ms(out, *time);
                put_ms(out, *wall);
            }
            Fact::Sent { .. }
            | Fact::Moved { .. }
            | Fact::Snapshot { .. }
            | Fact::Deleted { .. }
            | Fact::Received { .. }
            | Fact::VisibilityChanged { .. }
            | Fact::Returned { .. } => {}
        }
    }

    /// The entries that hold no message.
    fn decode_short(tag: u8, input: &mut Input<'a>) -> Decoded<Fact<'a>> {
        Ok(match tag {
            4 => Fact::Deleted {
                time: input.ms()?,
                reason: Gone::of(input.byte()?)?,
                marks: take_marks(input)?.into(),
            },
            5 => {
                let time = input.ms()?;
                let until = until(input, time)?;
                let epoch = input.u32()?;
                let (attempt, marks) = (input.text()?, take_marks(input)?);
                let back = if goes_to_the_back(&marks) { sequence(input)? } else { 0 };
                let lease = Lease { time, until, epoch, session: 0, back };
                Fact::Received { lease, attempt, marks: marks.into() }
            }
            6 => {
                let time = input.ms()?;
                Fact::VisibilityChanged {
                    time,
                    until: until(input, time)?,
                    marks: take_marks(input)?.into(),
                }
            }
            7 => {
                let (sequence, generation, time) = (sequence(input)?, input.u32()?, input.ms()?);
                let outcome = outcome_of(input.byte()?)?;
                Fact::Returned {
                    sequence,
                    generation,
                    time,
                    outcome,
                    due: until(input, time)?,
                    reason: input.text()?,
                }
            }
            9 => {
                let (sequence, time) = (sequence(input)?, input.ms()?);
                Fact::Rescheduled { sequence, time, due: until(input, time)? }
            }
            10 => {
                let (sequence, time) = (sequence(input)?, input.ms()?);
                Fact::Died {
                    sequence,
                    time,
                    reason: DeathReason::of(input.byte()?)?,
                    text: input.text()?,
                }
            }
            11 => Fact::Revived { sequence: sequence(input)?, time: input.ms()? },
            12 => Fact::Parked { time: input.ms()?, group: input.text()? },
            13 => Fact::Resumed { time: input.ms()?, group: input.text()? },
            14 => {
                let (time, name) = (input.ms()?, input.text()?);
                Fact::Created { time, name, config: Cow::Owned(QueueConfig::decode(input)?) }
            }
            15 => Fact::AttributesSet {
                time: input.ms()?,
                config: Cow::Owned(QueueConfig::decode(input)?),
            },
            16 => Fact::Tagged { tags: take_tags(input)? },
            17 => Fact::Purged { time: input.ms()?, below: sequence(input)? },
            18 => Fact::Removed { time: input.ms()? },
            19 => Fact::QueueSnapshot {
                name: input.text()?,
                config: Cow::Owned(QueueConfig::decode(input)?),
                created: input.ms()?,
                modified: input.ms()?,
                next_sequence: sequence(input)?,
                tags: take_tags(input)?,
            },
            20 => Fact::Remembered { memories: take_memories(input)?.into() },
            21 => Fact::MoveTask { task: Cow::Owned(MoveTask::decode(input)?) },
            22 => Fact::Schedule { schedule: Cow::Owned(Schedule::decode(input)?) },
            23 => Fact::ScheduleRemoved { name: input.text()? },
            24 => Fact::Fired { name: input.text()?, next: input.ms()? },
            25 => Fact::ClockSet { time: input.ms()?, wall: input.ms()? },
            _ => return Err(Malformed("a kind of entry that this build does not know")),
        })
    }
}

fn take_memories(input: &mut Input<'_>) -> Decoded<Vec<Memory>> {
    (0..input.count()?)
        .map(|_| {
            let key =
                input.take(16)?.try_into().map_err(|_| Malformed("a key that is not 16 bytes"))?;
            Ok(Memory { key, sequence: sequence(input)?, expires: input.ms()? })
        })
        .collect()
}

#[cfg(test)]
mod tests;
