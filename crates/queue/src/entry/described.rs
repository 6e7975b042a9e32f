//! An entry as its fields, for whoever looks at a journal.

use std::time::Duration;

use logmill_storage::dump::{Field, Fields};
use logmill_storage::entry_fields as fields;

use super::{Entry, Fact, Gone, Mark, Memory};
use crate::codec::Input;
use crate::config::QueueConfig;
use crate::dedup::hexadecimal;
use crate::envelope::{DeathReason, Deduplication, Envelope, Past};
use crate::held::{Outcome, State};
use crate::redrive::{MoveTask, RedriveStatus};
use crate::schedule::{Missed, Repeat, Schedule};
use crate::standing::Standing;

/// The owner's number of every entry of queues in a journal.
pub const JOURNAL_OWNER: u64 = crate::shared::OWNER;

/// The fields of an entry of queues in a journal, `entry` first, which names its kind; `None` if this build does not know it.
pub fn describe_entry(bytes: &[u8]) -> Option<Fields> {
    let entry = Entry::decode(bytes).ok()?;
    let mut fields = described(&entry.fact);
    fields.insert(1, ("queue", entry.queue.into()));
    Some(fields)
}

fn described(fact: &Fact<'_>) -> Fields {
    match fact {
        Fact::Sent { sequence, envelope } => {
            let message = message(envelope);
            fields!("sent", sequence, message)
        }
        Fact::Moved { sequence, time, reason, target, target_sequence, envelope } => {
            let (reason, message) = (reason.map(death), message(envelope));
            fields!("moved", sequence, time, reason, target, target_sequence, message)
        }
        Fact::Snapshot { sequence, standing, envelope } => {
            let (standing, message) = (stands(standing), message(envelope));
            fields!("snapshot", sequence, standing, message)
        }
        Fact::Edited { sequence, time, standing, envelope } => {
            let (standing, message) = (stands(standing), message(envelope));
            fields!("edited", sequence, time, standing, message)
        }
        Fact::Deleted { time, reason, marks } => {
            let (reason, messages) = (gone(*reason), all_marks(marks));
            fields!("deleted", time, reason, messages)
        }
        Fact::Received { lease, attempt, marks } => {
            let (time, until, epoch, messages) =
                (lease.time, lease.until, lease.epoch, all_marks(marks));
            fields!("received", time, until, epoch, attempt, messages)
        }
        Fact::VisibilityChanged { time, until, marks } => {
            let messages = all_marks(marks);
            fields!("visibility changed", time, until, messages)
        }
        Fact::Returned { sequence, generation, time, outcome, due, reason } => {
            let outcome = ended(*outcome);
            fields!("returned", sequence, generation, time, outcome, due, reason)
        }
        Fact::Rescheduled { sequence, time, due } => fields!("rescheduled", sequence, time, due),
        Fact::Died { sequence, time, reason, text } => {
            let reason = death(*reason);
            fields!("died", sequence, time, reason, text)
        }
        Fact::Revived { sequence, time } => fields!("revived", sequence, time),
        Fact::Parked { time, group } => fields!("parked", time, group),
        Fact::Resumed { time, group } => fields!("resumed", time, group),
        Fact::Created { time, name, config } => {
            let config = settings(config);
            fields!("created", time, name, config)
        }
        Fact::AttributesSet { time, config } => {
            let config = settings(config);
            fields!("attributes set", time, config)
        }
        Fact::Tagged { tags } => {
            let tags = all_tags(tags);
            fields!("tagged", tags)
        }
        Fact::Purged { time, below } => fields!("purged", time, below),
        Fact::Removed { time } => fields!("removed", time),
        Fact::QueueSnapshot { name, config, created, modified, next_sequence, tags } => {
            let (config, tags) = (settings(config), all_tags(tags));
            fields!("queue snapshot", name, config, created, modified, next_sequence, tags)
        }
        Fact::Remembered { memories } => {
            let ids: Vec<_> = memories.iter().map(memory).collect();
            fields!("remembered", ids)
        }
        Fact::MoveTask { task } => redrive(task),
        Fact::Schedule { schedule } => planned(schedule),
        Fact::ScheduleRemoved { name } => fields!("schedule removed", name),
        Fact::Fired { name, next } => fields!("fired", name, next),
        Fact::ClockSet { time, wall } => fields!("clock set", time, wall),
    }
}

/// What a message has beside the defaults, the body last.
fn message(envelope: &Envelope<'_>) -> Fields {
    let Envelope { time, wall, priority, group, deduplication, due, expires, .. } = envelope;
    let mut fields: Fields = vec![("time", time.into())];
    let mut add = |is_said, name, field| {
        if is_said {
            fields.push((name, field));
        }
    };
    add(wall != time, "wall", wall.into());
    add(*priority != 0, "priority", priority.into());
    add(group.is_some(), "group", group.into());
    match deduplication {
        Deduplication::None => {}
        Deduplication::Id(id) => add(true, "deduplication_id", id.into()),
        Deduplication::Content(hash) => add(true, "content_hash", hexadecimal(hash).into()),
    }
    add(due > time, "due", due.into());
    add(*expires != 0, "expires", expires.into());
    let attributes = envelope.attributes.decode().unwrap_or_default();
    let attributes: Vec<Field> = attributes
        .iter()
        .map(|attribute| {
            let named = ("name", attribute.name().into());
            Field::Fields(vec![named, ("value", attribute.value().into())])
        })
        .collect();
    add(!attributes.is_empty(), "attributes", attributes.into());
    add(envelope.trace.is_some(), "trace", envelope.trace.into());
    add(envelope.origin.is_some(), "origin", envelope.origin.map(|id| id.to_string()).into());
    add(envelope.past.is_some(), "past", envelope.past.as_deref().map(been_through).into());
    add(true, "body", envelope.body.into());
    fields
}

fn been_through(past: &Past) -> Fields {
    let died = past.death.as_ref().map(|death_there| {
        let reason = death(death_there.reason);
        Fields::from([
            ("queue", death_there.queue.as_str().into()),
            ("reason", reason.into()),
            ("at", death_there.at.into()),
        ])
    });
    vec![
        ("receives", past.receives.into()),
        ("failed", past.failed.into()),
        ("timed_out", past.timed_out.into()),
        ("released", past.released.into()),
        ("first_received_at", past.first_received_at.into()),
        ("last_reason", past.last_reason.as_deref().into()),
        ("death", died.into()),
    ]
}

fn stands(standing: &Standing) -> Fields {
    let state = match standing.state {
        None => "in line",
        Some(State::Ready) => "ready",
        Some(State::Delayed) => "delayed",
        Some(State::InFlight) => "in flight",
        Some(State::Dead) => "dead",
    };
    let mut fields: Fields = vec![
        ("state", state.into()),
        ("at", standing.at.into()),
        ("since", standing.since.into()),
        ("holds_its_group", standing.holding.into()),
    ];
    if let Some(details) = &standing.details {
        fields.extend([
            ("receives", Field::from(details.receives)),
            ("failed", details.failed.into()),
            ("timed_out", details.timed_out.into()),
            ("released", details.released.into()),
            ("expires", details.expires_at.into()),
        ]);
    }
    fields
}

fn all_marks(marks: &[Mark]) -> Vec<Field> {
    let fields = |mark: &Mark| {
        Field::Fields(vec![
            ("sequence", mark.sequence.into()),
            ("generation", mark.generation.into()),
        ])
    };
    marks.iter().map(fields).collect()
}

fn all_tags(tags: &[(&str, &str)]) -> Vec<Field> {
    let fields = |(key, value): &(&str, &str)| {
        Field::Fields(vec![("key", (*key).into()), ("value", (*value).into())])
    };
    tags.iter().map(fields).collect()
}

fn memory(memory: &Memory) -> Field {
    Field::Fields(vec![
        ("key", hexadecimal(&memory.key).into()),
        ("sequence", memory.sequence.into()),
        ("expires", memory.expires.into()),
    ])
}

fn settings(config: &QueueConfig) -> Fields {
    vec![
        ("fifo", config.is_fifo().into()),
        ("visibility_timeout_ms", ms(config.get_visibility_timeout())),
        ("delay_ms", ms(config.get_delay())),
        ("retention_ms", ms(config.get_retention())),
        ("receive_wait_ms", ms(config.get_receive_wait())),
        ("message_bytes_max", config.get_message_bytes_max().into()),
        ("max_receives", config.get_max_receives().into()),
        ("dead_letter", config.get_dead_letter().into()),
        ("content_dedup", config.get_content_deduplication().into()),
    ]
}

fn redrive(task: &MoveTask) -> Fields {
    let MoveTask { id, target, rate, cursor, below, moved, started, ended, status, .. } = task;
    let status = match status {
        RedriveStatus::Running => "running".to_owned(),
        RedriveStatus::Completed => "completed".to_owned(),
        RedriveStatus::Cancelled => "cancelled".to_owned(),
        RedriveStatus::Failed(why) => format!("failed: {why}"),
    };
    fields!("redrive", id, target, rate, cursor, below, moved, started, ended, status)
}

fn planned(schedule: &Schedule) -> Fields {
    let (name, next) = (&schedule.name, schedule.next);
    let repeat = match &schedule.repeat {
        Repeat::Every(interval) => format!("every {} ms", interval.as_millis()),
        Repeat::Cron(expression) => expression.clone(),
    };
    let missed = match schedule.missed {
        Missed::Each => "each",
        Missed::Latest => "latest",
        Missed::Skip => "skip",
    };
    let envelope = Envelope::decode(Input(&schedule.envelope)).ok();
    let message = envelope.as_ref().map(message);
    fields!("schedule", name, repeat, missed, next, message)
}

const fn gone(reason: Gone) -> &'static str {
    match reason {
        Gone::Deleted => "deleted",
        Gone::Cancelled => "cancelled",
        Gone::Expired => "expired",
        Gone::Overflow => "overflow",
    }
}

const fn death(reason: DeathReason) -> &'static str {
    match reason {
        DeathReason::MaxReceives => "max receives",
        DeathReason::Rejected => "rejected",
        DeathReason::Expired => "expired",
        DeathReason::Overflow => "overflow",
    }
}

const fn ended(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Failed => "failed",
        Outcome::TimedOut => "timed out",
        Outcome::Released => "released",
    }
}

fn ms(time: Duration) -> Field {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).into()
}
