//! The bytes of a queue's attributes: those that differ from their default, by number, in order.

use logmill_storage::Durability;

use super::{
    DeduplicationScope, DeduplicationWindow, OnFailure, Overflow, QueueConfig, RedriveAllow, Retry,
    length, ms,
};
use crate::codec::{Decoded, Input, Malformed, put_bytes, put_ms, put_varint};

/// The number of each field in the encoding.
pub(super) mod field {
    pub(in crate::config) const FIFO: u64 = 1;
    pub(in crate::config) const VISIBILITY_TIMEOUT: u64 = 2;
    pub(in crate::config) const DELAY: u64 = 3;
    pub(in crate::config) const RETENTION: u64 = 4;
    pub(in crate::config) const RECEIVE_WAIT: u64 = 5;
    pub(in crate::config) const MESSAGE_BYTES_MAX: u64 = 6;
    pub(in crate::config) const LEASE_MAX: u64 = 7;
    pub(in crate::config) const IN_FLIGHT_MAX: u64 = 8;
    pub(in crate::config) const MAX_RECEIVES: u64 = 9;
    pub(in crate::config) const DEAD_LETTER: u64 = 10;
    pub(in crate::config) const REDRIVE_ALLOW: u64 = 11;
    pub(in crate::config) const EXPIRED_TO_DEAD_LETTER: u64 = 12;
    pub(in crate::config) const ON_FAILURE: u64 = 13;
    pub(in crate::config) const RETRY: u64 = 14;
    pub(in crate::config) const MESSAGES_MAX: u64 = 15;
    pub(in crate::config) const BYTES_MAX: u64 = 16;
    pub(in crate::config) const OVERFLOW: u64 = 17;
    pub(in crate::config) const CONTENT_DEDUPLICATION: u64 = 18;
    pub(in crate::config) const DEDUPLICATION_WINDOW: u64 = 19;
    pub(in crate::config) const DEDUPLICATION_SCOPE: u64 = 20;
    pub(in crate::config) const GROUP_CONCURRENCY: u64 = 21;
    pub(in crate::config) const KEEP_DELETED: u64 = 22;
    pub(in crate::config) const DURABILITY: u64 = 23;
    pub(in crate::config) const LAST: u64 = DURABILITY;
}

impl QueueConfig {
    /// For each field that differs from its default: `varint` number, then its value. The fields come in order.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let plain = QueueConfig::of_kind(self.fifo);
        let mut fields = Vec::new();
        for field in 1..=field::LAST {
            let (mut value, mut default) = (Vec::new(), Vec::new());
            self.put_field(&mut value, field);
            plain.put_field(&mut default, field);
            if field == field::FIFO || value != default {
                put_varint(&mut fields, field);
                fields.extend_from_slice(&value);
            }
        }
        put_bytes(out, &fields);
    }

    pub(super) fn put_field(&self, out: &mut Vec<u8>, field: u64) {
        match field {
            field::FIFO => out.push(u8::from(self.fifo)),
            field::VISIBILITY_TIMEOUT => put_ms(out, self.visibility_timeout_ms),
            field::DELAY => put_ms(out, self.delay_ms),
            field::RETENTION => put_ms(out, self.retention_ms),
            field::RECEIVE_WAIT => put_ms(out, self.receive_wait_ms),
            field::MESSAGE_BYTES_MAX => put_varint(out, self.message_bytes_max),
            field::LEASE_MAX => put_ms(out, self.lease_max_ms),
            field::IN_FLIGHT_MAX => put_varint(out, self.in_flight_max),
            field::MAX_RECEIVES => put_varint(out, u64::from(self.max_receives)),
            field::DEAD_LETTER => {
                put_bytes(out, self.dead_letter.as_deref().unwrap_or_default().as_bytes())
            }
            field::REDRIVE_ALLOW => put_allow(out, &self.redrive_allow),
            field::EXPIRED_TO_DEAD_LETTER => out.push(u8::from(self.expired_to_dead_letter)),
            field::ON_FAILURE => out.push(u8::from(self.on_failure == OnFailure::Park)),
            field::RETRY => put_retry(out, self.retry),
            field::MESSAGES_MAX => put_varint(out, self.messages_max),
            field::BYTES_MAX => put_varint(out, self.bytes_max),
            field::OVERFLOW => out.push(match self.overflow {
                Overflow::Reject => 0,
                Overflow::DropOldest => 1,
                Overflow::DeadLetter => 2,
            }),
            field::CONTENT_DEDUPLICATION => out.push(u8::from(self.content_deduplication)),
            field::DEDUPLICATION_WINDOW => put_ms(
                out,
                match self.deduplication_window {
                    DeduplicationWindow::UntilDeleted => 0,
                    DeduplicationWindow::For(window) => ms(window),
                },
            ),
            field::DEDUPLICATION_SCOPE => {
                out.push(u8::from(self.deduplication_scope == DeduplicationScope::Group))
            }
            field::GROUP_CONCURRENCY => put_varint(out, u64::from(self.group_concurrency)),
            field::KEEP_DELETED => put_ms(out, self.keep_deleted_ms),
            field::DURABILITY => put_durability(out, self.durability),
            _ => {}
        }
    }

    pub(crate) fn decode(input: &mut Input<'_>) -> Decoded<QueueConfig> {
        let mut fields = Input(input.bytes()?);
        if fields.varint()? != field::FIFO {
            return Err(Malformed("a queue without a type"));
        }
        let mut config = QueueConfig::of_kind(flag(fields.byte()?)?);
        let mut last = field::FIFO;
        while !fields.0.is_empty() {
            let field = fields.varint()?;
            if field <= last {
                return Err(Malformed("queue attributes out of order"));
            }
            last = field;
            config.take_field(field, &mut fields)?;
        }
        Ok(config)
    }

    fn take_field(&mut self, field: u64, input: &mut Input<'_>) -> Decoded<()> {
        match field {
            field::VISIBILITY_TIMEOUT => self.visibility_timeout_ms = input.ms()?,
            field::DELAY => self.delay_ms = input.ms()?,
            field::RETENTION => self.retention_ms = input.ms()?,
            field::RECEIVE_WAIT => self.receive_wait_ms = input.ms()?,
            field::MESSAGE_BYTES_MAX => self.message_bytes_max = input.varint()?,
            field::LEASE_MAX => self.lease_max_ms = input.ms()?,
            field::IN_FLIGHT_MAX => self.in_flight_max = input.varint()?,
            field::MAX_RECEIVES => self.max_receives = input.u32()?,
            field::DEAD_LETTER => self.dead_letter = Some(input.text()?.to_owned()),
            field::REDRIVE_ALLOW => self.redrive_allow = take_allow(input)?,
            field::EXPIRED_TO_DEAD_LETTER => self.expired_to_dead_letter = flag(input.byte()?)?,
            field::ON_FAILURE => {
                self.on_failure =
                    if flag(input.byte()?)? { OnFailure::Park } else { OnFailure::Skip };
            }
            field::RETRY => self.retry = take_retry(input)?,
            field::MESSAGES_MAX => self.messages_max = input.varint()?,
            field::BYTES_MAX => self.bytes_max = input.varint()?,
            field::OVERFLOW => {
                self.overflow = match input.byte()? {
                    0 => Overflow::Reject,
                    1 => Overflow::DropOldest,
                    2 => Overflow::DeadLetter,
                    _ => return Err(Malformed("an unknown overflow policy")),
                }
            }
            field::CONTENT_DEDUPLICATION => self.content_deduplication = flag(input.byte()?)?,
            field::DEDUPLICATION_WINDOW => {
                self.deduplication_window = match input.ms()? {
                    0 => DeduplicationWindow::UntilDeleted,
                    window => DeduplicationWindow::For(length(window)),
                }
            }
            field::DEDUPLICATION_SCOPE => {
                let group = flag(input.byte()?)?;
                self.deduplication_scope =
                    if group { DeduplicationScope::Group } else { DeduplicationScope::Queue };
            }
            field::GROUP_CONCURRENCY => self.group_concurrency = input.u32()?,
            field::KEEP_DELETED => self.keep_deleted_ms = input.ms()?,
            field::DURABILITY => self.durability = take_durability(input)?,
            _ => return Err(Malformed("a queue attribute that this build does not know")),
        }
        Ok(())
    }
}

pub(super) fn name_of(number: u64) -> &'static str {
    match number {
        field::FIFO => "fifo",
        field::VISIBILITY_TIMEOUT => "visibility_timeout",
        field::DELAY => "delay",
        field::RETENTION => "retention",
        field::RECEIVE_WAIT => "receive_wait",
        field::MESSAGE_BYTES_MAX => "message_bytes_max",
        field::LEASE_MAX => "lease_max",
        field::IN_FLIGHT_MAX => "in_flight_max",
        field::MAX_RECEIVES => "max_receives",
        field::DEAD_LETTER => "dead_letter",
        field::REDRIVE_ALLOW => "redrive_allow",
        field::EXPIRED_TO_DEAD_LETTER => "expired_to_dead_letter",
        field::ON_FAILURE => "on_failure",
        field::RETRY => "retry",
        field::MESSAGES_MAX => "messages_max",
        field::BYTES_MAX => "bytes_max",
        field::OVERFLOW => "overflow",
        field::CONTENT_DEDUPLICATION => "content_deduplication",
        field::DEDUPLICATION_WINDOW => "deduplication_window",
        field::DEDUPLICATION_SCOPE => "deduplication_scope",
        field::GROUP_CONCURRENCY => "group_concurrency",
        field::KEEP_DELETED => "keep_deleted",
        _ => "durability",
    }
}

fn flag(byte: u8) -> Decoded<bool> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("a flag that is neither 0 nor 1")),
    }
}

fn put_allow(out: &mut Vec<u8>, allow: &RedriveAllow) {
    match allow {
        RedriveAllow::All => out.push(0),
        RedriveAllow::None => out.push(1),
        RedriveAllow::Queues(names) => {
            out.push(2);
            put_varint(out, names.len() as u64);
            names.iter().for_each(|name| put_bytes(out, name.as_bytes()));
        }
    }
}

fn take_allow(input: &mut Input<'_>) -> Decoded<RedriveAllow> {
    match input.byte()? {
        0 => Ok(RedriveAllow::All),
        1 => Ok(RedriveAllow::None),
        2 => {
            let count = input.count()?;
            let names =
                (0..count).map(|_| input.text().map(str::to_owned)).collect::<Decoded<_>>()?;
            Ok(RedriveAllow::Queues(names))
        }
        _ => Err(Malformed("an unknown redrive allow policy")),
    }
}

fn put_retry(out: &mut Vec<u8>, retry: Retry) {
    match retry {
        Retry::Immediate => out.push(0),
        Retry::Fixed { delay } => {
            out.push(1);
            put_ms(out, ms(delay));
        }
        Retry::Linear { step, most } => {
            out.push(2);
            put_ms(out, ms(step));
            put_ms(out, ms(most));
        }
        Retry::Exponential { first, most, jitter } => {
            out.push(3);
            put_ms(out, ms(first));
            put_ms(out, ms(most));
            out.push(jitter);
        }
    }
}

fn take_retry(input: &mut Input<'_>) -> Decoded<Retry> {
    Ok(match input.byte()? {
        0 => Retry::Immediate,
        1 => Retry::Fixed { delay: length(input.ms()?) },
        2 => Retry::Linear { step: length(input.ms()?), most: length(input.ms()?) },
        3 => Retry::Exponential {
            first: length(input.ms()?),
            most: length(input.ms()?),
            jitter: input.byte()?.min(100),
        },
        _ => return Err(Malformed("an unknown retry policy")),
    })
}

fn put_durability(out: &mut Vec<u8>, durability: Option<Durability>) {
    match durability {
        None => out.push(0),
        Some(Durability::Sync) => out.push(1),
        Some(Durability::Interval(interval)) => {
            out.push(2);
            put_ms(out, ms(interval));
        }
        Some(Durability::Buffered) => out.push(3),
    }
}

fn take_durability(input: &mut Input<'_>) -> Decoded<Option<Durability>> {
    Ok(match input.byte()? {
        0 => None,
        1 => Some(Durability::Sync),
        2 => Some(Durability::Interval(length(input.ms()?))),
        3 => Some(Durability::Buffered),
        _ => return Err(Malformed("an unknown durability")),
    })
}
