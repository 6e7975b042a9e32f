//! A message as it is handed out.

use std::ops::Deref;

use bytes::Bytes;

use crate::codec::Input;
use crate::dedup::hexadecimal;
use crate::entry::envelope_in;
use crate::envelope::{Deduplication, Envelope, Past};
use crate::held::State;
use crate::message::{Attribute, MessageId};
use crate::receipt::Receipt;

/// A message with what its queue knows of it.
#[derive(Clone, Debug)]
pub struct StoredMessage {
    pub(crate) id: MessageId,
    pub(crate) sequence: u64,
    /// Where its entry was when it was looked at.
    pub(crate) location: u64,
    /// The journal entry that holds it; empty until it is read.
    pub(crate) entry: Bytes,
    /// Where in the entry its envelope begins.
    pub(crate) envelope_at: usize,
    /// Where in the entry its body begins.
    pub(crate) body_at: usize,
    pub(crate) priority: u8,
    pub(crate) sent_at: i64,
    pub(crate) past: Past,
    pub(crate) earlier: Option<Box<Past>>,
    pub(crate) state: MessageState,
}

/// Where a message is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageState {
    /// It can be received, or as soon as its group is free.
    Ready,
    /// It can be received from then on, in ms on the queues' clock.
    Delayed {
        /// The moment.
        until: i64,
    },
    /// A consumer has it.
    InFlight {
        /// The end of its visibility timeout, in ms on the queues' clock.
        until: i64,
    },
    /// It failed for good and stays in its queue.
    Dead,
}

impl MessageState {
    pub(crate) fn of(state: State, at: i64) -> MessageState {
        match state {
            State::Ready => MessageState::Ready,
            State::Delayed => MessageState::Delayed { until: at },
            State::InFlight => MessageState::InFlight { until: at },
            State::Dead => MessageState::Dead,
        }
    }
}

impl StoredMessage {
    /// What is known of a message before its entry is read.
    #[inline]
    pub(crate) fn unread(
        queue: u32,
        sequence: u64,
        location: u64,
        past: Past,
        state: MessageState,
    ) -> StoredMessage {
        StoredMessage {
            id: MessageId { queue, sequence },
            sequence,
            location,
            entry: Bytes::new(),
            envelope_at: 0,
            body_at: 0,
            priority: 0,
            sent_at: 0,
            past,
            earlier: None,
            state,
        }
    }

    /// Takes in the entry that holds the message; whether it holds one.
    pub(crate) fn read(&mut self, entry: Bytes) -> bool {
        self.entry = entry;
        self.decode()
    }

    /// Takes in what the entry says that was read.
    #[inline]
    pub(crate) fn decode(&mut self) -> bool {
        let Ok(envelope) = envelope_in(&self.entry) else { return false };
        self.envelope_at = self.entry.len() - envelope.0.len();
        let Ok(Envelope { wall, priority, origin, past, body, .. }) = Envelope::decode(envelope)
        else {
            return false;
        };
        self.id = origin.unwrap_or(self.id);
        self.body_at = self.entry.len() - body.len();
        self.priority = priority;
        self.sent_at = wall;
        self.earlier = past;
        true
    }

    pub(crate) fn envelope(&self) -> Envelope<'_> {
        let bytes = self.entry.get(self.envelope_at..).unwrap_or_default();
        // It was decoded once when this was made.
        Envelope::decode(Input(bytes)).unwrap_or_else(|_| Envelope::plain(0, &[]))
    }

    /// Its name for its whole life.
    pub const fn id(&self) -> MessageId {
        self.id
    }

    /// Its number in its queue, which rises with every send.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What was sent.
    pub fn body(&self) -> &[u8] {
        self.entry.get(self.body_at..).unwrap_or_default()
    }

    /// Its attributes, in the order in which they were sent.
    pub fn attributes(&self) -> Vec<Attribute<'_>> {
        self.envelope().attributes.decode().unwrap_or_default()
    }

    /// Its priority.
    pub const fn priority(&self) -> u8 {
        self.priority
    }

    /// When it was sent, in ms since 1970 by the wall clock of that moment.
    pub const fn sent_at(&self) -> i64 {
        self.sent_at
    }

    /// Its message group or tenant.
    pub fn group(&self) -> Option<&str> {
        self.envelope().group
    }

    /// Its deduplication id: the one that it was sent with, or the SHA-256 of its body in hexadecimal.
    pub fn deduplication_id(&self) -> Option<String> {
        match self.envelope().deduplication {
            Deduplication::None => None,
            Deduplication::Id(id) => Some(id.to_owned()),
            Deduplication::Content(hash) => Some(hexadecimal(&hash)),
        }
    }

    /// The trace header that it was sent with.
    pub fn trace_header(&self) -> Option<&str> {
        self.envelope().trace
    }

    /// How often it was received from this queue, the present receive included.
    pub const fn receive_count(&self) -> u32 {
        self.past.receives
    }

    /// When it was received first from this queue, in ms on the queues' clock.
    pub fn first_received_at(&self) -> Option<i64> {
        (self.past.first_received_at != 0).then_some(self.past.first_received_at)
    }

    /// What became of it in this queue so far.
    pub const fn history(&self) -> &Past {
        &self.past
    }

    /// What became of it in the queues in which it was before, how it died there included.
    pub fn earlier_history(&self) -> Option<&Past> {
        self.earlier.as_deref()
    }

    /// Where it was in its life when this was read.
    pub const fn state(&self) -> MessageState {
        self.state
    }
}

/// A message that was received.
#[derive(Clone, Debug)]
pub struct ReceivedMessage {
    pub(crate) stored: StoredMessage,
    pub(crate) receipt: Receipt,
}

impl ReceivedMessage {
    /// The right to delete, extend or return it.
    pub const fn receipt(&self) -> &Receipt {
        &self.receipt
    }
}

impl Deref for ReceivedMessage {
    type Target = StoredMessage;

    fn deref(&self) -> &StoredMessage {
        &self.stored
    }
}
