//! Where a message stands when it is copied forward: what the entries before said of it.
//!
//! ```text
//! standing = state u8 (0 in line, 1 ready, 2 delayed, 3 in flight, 4 dead; +128 with details; +64 holding its group)
//!            time at, time since, then with details:
//!            varints receives failed timed-out released epoch session forgiven place, times expiry, first received, received,
//!            died, death u8, attempts as in a past, reason text
//! ```

use crate::codec::{Decoded, Input, Malformed, put_bytes, put_ms, put_varint};
use crate::envelope::{DeathReason, put_attempts, take_attempts};
use crate::held::{Details, State};

/// The state of a message apart from its body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Standing {
    /// `None`: ready and in line, never received.
    pub(crate) state: Option<State>,
    pub(crate) at: i64,
    pub(crate) since: i64,
    pub(crate) holding: bool,
    pub(crate) details: Option<Box<Details>>,
}

const DETAILS: u8 = 128;
const HOLDING: u8 = 64;

impl Standing {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let state = match self.state {
            None => 0,
            Some(State::Ready) => 1,
            Some(State::Delayed) => 2,
            Some(State::InFlight) => 3,
            Some(State::Dead) => 4,
        };
        let details = if self.details.is_some() { DETAILS } else { 0 };
        out.push(state | details | if self.holding { HOLDING } else { 0 });
        put_ms(out, self.at);
        put_ms(out, self.since);
        if let Some(details) = &self.details {
            put_details(out, details);
        }
    }

    pub(crate) fn decode(input: &mut Input<'_>) -> Decoded<Standing> {
        let head = input.byte()?;
        let state = match head & !(DETAILS | HOLDING) {
            0 => None,
            1 => Some(State::Ready),
            2 => Some(State::Delayed),
            3 => Some(State::InFlight),
            4 => Some(State::Dead),
            _ => return Err(Malformed("an unknown state of a message")),
        };
        let (at, since) = (input.ms()?, input.ms()?);
        let details =
            if head & DETAILS == 0 { None } else { Some(Box::new(take_details(input, since)?)) };
        Ok(Standing { state, at, since, holding: head & HOLDING != 0, details })
    }
}

fn put_details(out: &mut Vec<u8>, details: &Details) {
    for count in [
        details.receives,
        details.failed,
        details.timed_out,
        details.released,
        details.epoch,
        details.session,
        details.forgiven,
    ] {
        put_varint(out, u64::from(count));
    }
    put_varint(out, details.place);
    put_ms(out, details.expires_at);
    put_ms(out, details.first_received_at);
    put_ms(out, details.received_at);
    put_ms(out, details.died_at);
    out.push(details.death);
    put_attempts(out, details.first_received_at, &details.attempts);
    put_bytes(out, details.reason.as_deref().unwrap_or_default().as_bytes());
}

fn take_details(input: &mut Input<'_>, since: i64) -> Decoded<Details> {
    let mut details = Details {
        since,
        receives: input.u32()?,
        failed: input.u32()?,
        timed_out: input.u32()?,
        released: input.u32()?,
        epoch: input.u32()?,
        session: input.u32()?,
        forgiven: input.u32()?,
        place: input.varint()?,
        expires_at: input.ms()?,
        first_received_at: input.ms()?,
        received_at: input.ms()?,
        died_at: input.ms()?,
        death: input.byte()?,
        ..Details::default()
    };
    if details.death != 0 {
        DeathReason::of(details.death)?;
    }
    details.attempts = take_attempts(input, details.first_received_at)?;
    let reason = input.text()?;
    details.reason = (!reason.is_empty()).then(|| reason.into());
    Ok(details)
}
