//! A message inside a journal entry: always the last part of its entry, so that the body needs no length.
//!
//! ```text
//! flags varint | time | wall zigzag | priority u8 | group text | dedup | due | expires | attributes | trace text | origin | past | body
//! bit            always  0             1            2            3       4     5         6            7            8        9
//! ```
//! Each part is there if its bit is set. `time`: varint ms since 1970 on the queues' clock; `wall`: wall clock minus
//! `time`; `due`, `expires`: varint ms after `time`; `dedup`: 1 and text, or 2 and the 32 bytes of a SHA-256;
//! `attributes`: varint length, varint count, then each as kind u8 (0 String, 1 Number, 2 Binary, +128 with a label),
//! name text, [label text,] value bytes; `origin`: varint queue, varint sequence; `past`: see [`Past`].

use crate::codec::{Decoded, Input, Malformed, put_bytes, put_ms, put_varint, put_zigzag};
use crate::held::{ATTEMPTS_MAX, Attempt, Outcome};
use crate::message::{Attribute, AttributeKind, MessageId};

mod bit {
    pub(super) const WALL: u64 = 1;
    pub(super) const PRIORITY: u64 = 2;
    pub(super) const GROUP: u64 = 4;
    pub(super) const DEDUPLICATION: u64 = 8;
    pub(super) const DUE: u64 = 16;
    pub(super) const EXPIRES: u64 = 32;
    pub(super) const ATTRIBUTES: u64 = 64;
    pub(super) const TRACE: u64 = 128;
    pub(super) const ORIGIN: u64 = 256;
    pub(super) const PAST: u64 = 512;
    pub(super) const ALL: u64 = 1023;
}

/// Why a message was taken out of circulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeathReason {
    /// It was received as often as its queue permits.
    MaxReceives,
    /// A consumer rejected it for good.
    Rejected,
    /// Its time to live or its queue's retention ended.
    Expired,
    /// Its queue was longer than permitted.
    Overflow,
}

impl DeathReason {
    pub(crate) fn code(self) -> u8 {
        match self {
            DeathReason::MaxReceives => 1,
            DeathReason::Rejected => 2,
            DeathReason::Expired => 3,
            DeathReason::Overflow => 4,
        }
    }

    pub(crate) fn of(code: u8) -> Decoded<DeathReason> {
        match code {
            1 => Ok(DeathReason::MaxReceives),
            2 => Ok(DeathReason::Rejected),
            3 => Ok(DeathReason::Expired),
            4 => Ok(DeathReason::Overflow),
            _ => Err(Malformed("an unknown reason of death")),
        }
    }
}

/// How a message came to leave a queue for a dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Death {
    /// The queue in which it failed.
    pub queue: String,
    /// Why.
    pub reason: DeathReason,
    /// When, in ms since 1970.
    pub at: i64,
}

/// What a message has been through.
///
/// As bytes: varint receives, failed, timed out, released; varint ms of the first receive; varint count of attempts,
/// each as zigzag ms since the one before's end (first: since the first receive), varint ms of its length, outcome u8;
/// reason text (empty: none); 0, or reason of death u8, varint ms, queue text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Past {
    /// How often it was received.
    pub receives: u32,
    /// How often a handler failed on it.
    pub failed: u32,
    /// How often its visibility timeout passed.
    pub timed_out: u32,
    /// How often it was given back without blame.
    pub released: u32,
    /// When it was received first, in ms since 1970; 0: never.
    pub first_received_at: i64,
    /// Its receives, oldest first: the latest 1,000.
    pub attempts: Vec<Attempt>,
    /// What the last nack gave as its reason.
    pub last_reason: Option<String>,
    /// How it died, if it did.
    pub death: Option<Death>,
}

impl Past {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for count in [self.receives, self.failed, self.timed_out, self.released] {
            put_varint(out, u64::from(count));
        }
        put_ms(out, self.first_received_at);
        put_attempts(out, self.first_received_at, &self.attempts);
        put_bytes(out, self.last_reason.as_deref().unwrap_or_default().as_bytes());
        match &self.death {
            None => out.push(0),
            Some(death) => {
                out.push(death.reason.code());
                put_ms(out, death.at);
                put_bytes(out, death.queue.as_bytes());
            }
        }
    }

    /// A past in earlier queues and the one that follows it.
    pub(crate) fn joined(earlier: Option<&Past>, later: &Past) -> Past {
        let Some(earlier) = earlier else { return later.clone() };
        let mut attempts = earlier.attempts.clone();
        attempts.extend_from_slice(&later.attempts);
        attempts.drain(..attempts.len().saturating_sub(ATTEMPTS_MAX));
        let first = [earlier.first_received_at, later.first_received_at];
        Past {
            receives: earlier.receives.saturating_add(later.receives),
            failed: earlier.failed.saturating_add(later.failed),
            timed_out: earlier.timed_out.saturating_add(later.timed_out),
            released: earlier.released.saturating_add(later.released),
            first_received_at: first.into_iter().find(|at| *at != 0).unwrap_or(0),
            attempts,
            last_reason: later.last_reason.clone().or_else(|| earlier.last_reason.clone()),
            death: later.death.clone(),
        }
    }

    pub(crate) fn decode(input: &mut Input<'_>) -> Decoded<Past> {
        let (receives, failed, timed_out, released) =
            (input.u32()?, input.u32()?, input.u32()?, input.u32()?);
        let first_received_at = input.ms()?;
        let attempts = take_attempts(input, first_received_at)?;
        let reason = input.text()?;
        let death = match input.byte()? {
            0 => None,
            code => {
                let reason = DeathReason::of(code)?;
                Some(Death { reason, at: input.ms()?, queue: input.text()?.to_owned() })
            }
        };
        let last_reason = (!reason.is_empty()).then(|| reason.to_owned());
        Ok(Past {
            receives,
            failed,
            timed_out,
            released,
            first_received_at,
            attempts,
            last_reason,
            death,
        })
    }
}

pub(crate) fn put_attempts(out: &mut Vec<u8>, first: i64, attempts: &[Attempt]) {
    put_varint(out, attempts.len() as u64);
    let mut last = first;
    for attempt in attempts {
        put_zigzag(out, attempt.received_at.wrapping_sub(last));
        put_zigzag(out, attempt.ended_at.wrapping_sub(attempt.received_at));
        out.push(outcome_code(attempt.outcome));
        last = attempt.ended_at;
    }
}

pub(crate) fn take_attempts(input: &mut Input<'_>, first: i64) -> Decoded<Vec<Attempt>> {
    let mut last = first;
    (0..input.count()?)
        .map(|_| {
            let received_at = last.wrapping_add(input.zigzag()?);
            last = received_at.wrapping_add(input.zigzag()?);
            Ok(Attempt { received_at, ended_at: last, outcome: outcome_of(input.byte()?)? })
        })
        .collect()
}

pub(crate) fn outcome_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Failed => 1,
        Outcome::TimedOut => 2,
        Outcome::Released => 3,
    }
}

pub(crate) fn outcome_of(code: u8) -> Decoded<Outcome> {
    match code {
        1 => Ok(Outcome::Failed),
        2 => Ok(Outcome::TimedOut),
        3 => Ok(Outcome::Released),
        _ => Err(Malformed("an unknown outcome of a receive")),
    }
}

/// The deduplication id of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deduplication<'a> {
    None,
    /// Given by the sender.
    Id(&'a str),
    /// The SHA-256 of the body.
    Content([u8; 32]),
}

/// The attributes of a message, as they stand in its entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes<'a> {
    /// `varint` count and the attributes; empty: none.
    bytes: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Encodes `attributes` into `buffer`.
    pub(crate) fn encode(attributes: &[Attribute<'_>], buffer: &'a mut Vec<u8>) -> Attributes<'a> {
        buffer.clear();
        if !attributes.is_empty() {
            put_varint(buffer, attributes.len() as u64);
        }
        for attribute in attributes {
            let kind = match attribute.kind {
                AttributeKind::String => 0,
                AttributeKind::Number => 1,
                AttributeKind::Binary => 2,
            };
            buffer.push(kind | if attribute.label.is_some() { 128 } else { 0 });
            put_bytes(buffer, attribute.name.as_bytes());
            if let Some(label) = attribute.label {
                put_bytes(buffer, label.as_bytes());
            }
            put_bytes(buffer, attribute.value);
        }
        Attributes { bytes: buffer }
    }

    pub(crate) fn decode(self) -> Decoded<Vec<Attribute<'a>>> {
        if self.bytes.is_empty() {
            return Ok(Vec::new());
        }
        let mut input = Input(self.bytes);
        let count = input.count()?;
        let mut attributes = Vec::with_capacity(count);
        for _ in 0..count {
            let code = input.byte()?;
            let kind = match code & 127 {
                0 => AttributeKind::String,
                1 => AttributeKind::Number,
                2 => AttributeKind::Binary,
                _ => return Err(Malformed("an unknown attribute type")),
            };
            let name = input.text()?;
            let label = if code & 128 == 0 { None } else { Some(input.text()?) };
            attributes.push(Attribute { name, kind, label, value: input.bytes()? });
        }
        input.end()?;
        Ok(attributes)
    }
}

/// A message as it stands in an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope<'a> {
    /// When it was sent, on the queues' clock.
    pub(crate) time: i64,
    /// When it was sent, on the wall.
    pub(crate) wall: i64,
    pub(crate) priority: u8,
    pub(crate) group: Option<&'a str>,
    pub(crate) deduplication: Deduplication<'a>,
    /// When it can first be received; `time` if at once.
    pub(crate) due: i64,
    /// When its own time to live ends; 0: it has none.
    pub(crate) expires: i64,
    pub(crate) attributes: Attributes<'a>,
    pub(crate) trace: Option<&'a str>,
    /// The id that it was given first, if that was in another queue.
    pub(crate) origin: Option<MessageId>,
    pub(crate) past: Option<Box<Past>>,
    pub(crate) body: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// What counts against length limits.
    pub(crate) fn size(&self) -> u32 {
        u32::try_from(self.body.len() + self.attributes.bytes.len()).unwrap_or(u32::MAX)
    }

    #[inline]
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let when = |condition, bit| if condition { bit } else { 0 };
        let flags = when(self.wall != self.time, bit::WALL)
            | when(self.priority != 0, bit::PRIORITY)
            | when(self.group.is_some(), bit::GROUP)
            | when(self.deduplication != Deduplication::None, bit::DEDUPLICATION)
            | when(self.due > self.time, bit::DUE)
            | when(self.expires != 0, bit::EXPIRES)
            | when(!self.attributes.bytes.is_empty(), bit::ATTRIBUTES)
            | when(self.trace.is_some(), bit::TRACE)
            | when(self.origin.is_some(), bit::ORIGIN)
            | when(self.past.is_some(), bit::PAST);
        put_varint(out, flags);
        put_ms(out, self.time);
        if flags == 0 {
            out.extend_from_slice(self.body);
            return;
        }
        if flags & bit::WALL != 0 {
            put_zigzag(out, self.wall.wrapping_sub(self.time));
        }
        if flags & bit::PRIORITY != 0 {
            out.push(self.priority);
        }
        if let Some(group) = self.group {
            put_bytes(out, group.as_bytes());
        }
        match &self.deduplication {
            Deduplication::None => {}
            Deduplication::Id(id) => {
                out.push(1);
                put_bytes(out, id.as_bytes());
            }
            Deduplication::Content(hash) => {
                out.push(2);
                out.extend_from_slice(hash);
            }
        }
        if flags & bit::DUE != 0 {
            put_ms(out, self.due.saturating_sub(self.time));
        }
        if flags & bit::EXPIRES != 0 {
            put_zigzag(out, self.expires.wrapping_sub(self.time));
        }
        if flags & bit::ATTRIBUTES != 0 {
            put_bytes(out, self.attributes.bytes);
        }
        if let Some(trace) = self.trace {
            put_bytes(out, trace.as_bytes());
        }
        if let Some(origin) = self.origin {
            put_varint(out, u64::from(origin.queue));
            put_varint(out, origin.sequence);
        }
        if let Some(past) = &self.past {
            past.encode(out);
        }
        out.extend_from_slice(self.body);
    }

    #[inline]
    pub(crate) fn decode(mut input: Input<'a>) -> Decoded<Envelope<'a>> {
        let flags = input.varint()?;
        if flags & !bit::ALL != 0 {
            return Err(Malformed("a part of a message that this build does not know"));
        }
        let time = input.ms()?;
        let mut envelope = Envelope::plain(time, &[]);
        if flags != 0 {
            envelope.take_parts(flags, &mut input)?;
        }
        envelope.body = input.0;
        Ok(envelope)
    }

    /// A message with nothing but a body.
    pub(crate) fn plain(time: i64, body: &'a [u8]) -> Envelope<'a> {
        Envelope {
            time,
            wall: time,
            priority: 0,
            group: None,
            deduplication: Deduplication::None,
            due: time,
            expires: 0,
            attributes: Attributes::default(),
            trace: None,
            origin: None,
            past: None,
            body,
        }
    }

    fn take_parts(&mut self, flags: u64, input: &mut Input<'a>) -> Decoded<()> {
        if flags & bit::WALL != 0 {
            self.wall = self.time.wrapping_add(input.zigzag()?);
        }
        if flags & bit::PRIORITY != 0 {
            self.priority = input.byte()?;
        }
        if flags & bit::GROUP != 0 {
            self.group = Some(input.text()?);
        }
        if flags & bit::DEDUPLICATION != 0 {
            self.deduplication = match input.byte()? {
                1 => Deduplication::Id(input.text()?),
                2 => {
                    let hash = input.take(32)?;
                    Deduplication::Content(
                        hash.try_into().map_err(|_| Malformed("a hash that is not 32 bytes"))?,
                    )
                }
                _ => return Err(Malformed("an unknown kind of deduplication id")),
            };
        }
        if flags & bit::DUE != 0 {
            self.due = self.time.saturating_add(input.ms()?);
        }
        if flags & bit::EXPIRES != 0 {
            self.expires = self.time.wrapping_add(input.zigzag()?);
        }
        if flags & bit::ATTRIBUTES != 0 {
            self.attributes = Attributes { bytes: input.bytes()? };
        }
        if flags & bit::TRACE != 0 {
            self.trace = Some(input.text()?);
        }
        if flags & bit::ORIGIN != 0 {
            self.origin = Some(MessageId { queue: input.u32()?, sequence: input.varint()? });
        }
        if flags & bit::PAST != 0 {
            self.past = Some(Box::new(Past::decode(input)?));
        }
        Ok(())
    }
}
