//! Moving dead messages back into circulation: what is stored of it.
//!
//! ```text
//! task = varints id, target + 1 (0: where each came from), rate, cursor, below, moved; times started, ended; status u8;
//!        text of the failure; filter: queue text, reason u8, group text, attribute name text, attribute value text
//! ```
//! Each step is one batch: the messages that it moves and how far it has come, so that a crash repeats none.

use crate::codec::{Decoded, Input, Malformed, put_bytes, put_ms, put_varint};
use crate::envelope::DeathReason;

/// Which messages a redrive moves. What is not set does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedriveFilter {
    pub(crate) queue: String,
    pub(crate) reason: Option<DeathReason>,
    pub(crate) group: String,
    pub(crate) attribute: (String, String),
}

impl RedriveFilter {
    /// Everything.
    pub fn new() -> RedriveFilter {
        RedriveFilter::default()
    }

    /// Only messages that died in the queue `name`.
    pub fn died_in(mut self, name: &str) -> RedriveFilter {
        name.clone_into(&mut self.queue);
        self
    }

    /// Only messages that died of `reason`.
    pub fn reason(mut self, reason: DeathReason) -> RedriveFilter {
        self.reason = Some(reason);
        self
    }

    /// Only messages of a group.
    pub fn group(mut self, group: &str) -> RedriveFilter {
        group.clone_into(&mut self.group);
        self
    }

    /// Only messages whose attribute `name` has the bytes of `value`.
    pub fn attribute(mut self, name: &str, value: &str) -> RedriveFilter {
        self.attribute = (name.to_owned(), value.to_owned());
        self
    }
}

/// How a redrive stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedriveStatus {
    /// It goes on, in the background and after every restart.
    Running,
    /// All that were there when it began have been looked at.
    Completed,
    /// It was cancelled.
    Cancelled,
    /// It ended with an error.
    Failed(String),
}

/// A redrive of a queue.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MoveTask {
    pub(crate) id: u64,
    /// The queue that the messages go to; `None`: each to the queue in which it died.
    pub(crate) target: Option<u32>,
    /// Messages a second; 0: as fast as it goes.
    pub(crate) rate: u32,
    /// Messages with a smaller sequence have been looked at.
    pub(crate) cursor: u64,
    /// Messages with this sequence or a larger one came later and are left alone.
    pub(crate) below: u64,
    pub(crate) moved: u64,
    pub(crate) started: i64,
    pub(crate) ended: i64,
    pub(crate) status: RedriveStatus,
    pub(crate) filter: RedriveFilter,
}

impl MoveTask {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.id);
        put_varint(out, self.target.map_or(0, |target| u64::from(target) + 1));
        put_varint(out, u64::from(self.rate));
        put_varint(out, self.cursor);
        put_varint(out, self.below);
        put_varint(out, self.moved);
        put_ms(out, self.started);
        put_ms(out, self.ended);
        let (status, failure) = match &self.status {
            RedriveStatus::Running => (0, ""),
            RedriveStatus::Completed => (1, ""),
            RedriveStatus::Cancelled => (2, ""),
            RedriveStatus::Failed(failure) => (3, failure.as_str()),
        };
        out.push(status);
        put_bytes(out, failure.as_bytes());
        put_bytes(out, self.filter.queue.as_bytes());
        out.push(self.filter.reason.map_or(0, DeathReason::code));
        put_bytes(out, self.filter.group.as_bytes());
        put_bytes(out, self.filter.attribute.0.as_bytes());
        put_bytes(out, self.filter.attribute.1.as_bytes());
    }

    pub(crate) fn decode(input: &mut Input<'_>) -> Decoded<MoveTask> {
        let id = input.varint()?;
        let target = match input.varint()? {
            0 => None,
            target => {
                Some(u32::try_from(target - 1).map_err(|_| Malformed("a queue beyond 32 bits"))?)
            }
        };
        let (rate, cursor, below, moved) =
            (input.u32()?, input.varint()?, input.varint()?, input.varint()?);
        let (started, ended) = (input.ms()?, input.ms()?);
        let status = input.byte()?;
        let failure = input.text()?;
        let status = match status {
            0 => RedriveStatus::Running,
            1 => RedriveStatus::Completed,
            2 => RedriveStatus::Cancelled,
            3 => RedriveStatus::Failed(failure.to_owned()),
            _ => return Err(Malformed("an unknown status of a move task")),
        };
        let queue = input.text()?.to_owned();
        let reason = match input.byte()? {
            0 => None,
            code => Some(DeathReason::of(code)?),
        };
        let group = input.text()?.to_owned();
        let attribute = (input.text()?.to_owned(), input.text()?.to_owned());
        let filter = RedriveFilter { queue, reason, group, attribute };
        Ok(MoveTask { id, target, rate, cursor, below, moved, started, ended, status, filter })
    }
}
