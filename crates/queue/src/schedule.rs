//! Messages that are sent again and again, at an interval or by a cron expression: what is stored of them.
//!
//! ```text
//! schedule = name text, repeat u8 (1 every, 2 cron), varint ms or cron text, missed u8, varint next tick, envelope as bytes
//! ```
//! Ticks are wall clock times. A fire is one batch: the message and the next tick, so that no crash comes between.

use crate::codec::{Decoded, Input, Malformed, put_bytes, put_ms};

/// When a schedule fires.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Repeat {
    /// At every multiple of the interval after the schedule was made: 1 ms to 100 years.
    Every(std::time::Duration),
    /// By a cron expression of five fields, or six with seconds, in UTC.
    Cron(String),
}

/// What happens to the ticks that passed while the store was closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missed {
    /// Each fires when the store is open again: exactly one fire for every tick.
    #[default]
    Each,
    /// Only the latest fires.
    Latest,
    /// None fires.
    Skip,
}

/// A schedule of a queue.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Schedule {
    pub(crate) name: String,
    pub(crate) repeat: Repeat,
    pub(crate) missed: Missed,
    /// The next tick, in wall clock ms.
    pub(crate) next: i64,
    /// The message, as an envelope of time 0.
    pub(crate) envelope: Vec<u8>,
}

impl Schedule {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.name.as_bytes());
        match &self.repeat {
            Repeat::Every(interval) => {
                out.push(1);
                put_ms(out, i64::try_from(interval.as_millis()).unwrap_or(i64::MAX));
            }
            Repeat::Cron(expression) => {
                out.push(2);
                put_bytes(out, expression.as_bytes());
            }
        }
        out.push(match self.missed {
            Missed::Each => 0,
            Missed::Latest => 1,
            Missed::Skip => 2,
        });
        put_ms(out, self.next);
        put_bytes(out, &self.envelope);
    }

    pub(crate) fn decode(input: &mut Input<'_>) -> Decoded<Schedule> {
        let name = input.text()?.to_owned();
        let repeat = match input.byte()? {
            1 => Repeat::Every(std::time::Duration::from_millis(input.ms()?.unsigned_abs())),
            2 => Repeat::Cron(input.text()?.to_owned()),
            _ => return Err(Malformed("an unknown kind of schedule")),
        };
        let missed = match input.byte()? {
            0 => Missed::Each,
            1 => Missed::Latest,
            2 => Missed::Skip,
            _ => return Err(Malformed("an unknown rule for missed ticks")),
        };
        let (next, envelope) = (input.ms()?, input.bytes()?.to_vec());
        crate::envelope::Envelope::decode(Input(&envelope))?;
        Ok(Schedule { name, repeat, missed, next, envelope })
    }
}
