use super::*;
use crate::config::{DeduplicationScope, Retry};
use crate::envelope::{Attributes, Death, Deduplication, Past};
use crate::held::{Attempt, Details, State};
use crate::message::{Attribute, MessageId};
use crate::redrive::{RedriveFilter, RedriveStatus};
use crate::schedule::{Missed, Repeat};
use std::time::Duration;

const TIME: i64 = 1_700_000_000_000;

fn past() -> Past {
    let attempt = |received_at, ended_at, outcome| Attempt { received_at, ended_at, outcome };
    Past {
        receives: 2,
        failed: 1,
        timed_out: 1,
        released: 0,
        first_received_at: TIME + 10,
        attempts: vec![
            attempt(TIME + 10, TIME + 30, Outcome::Failed),
            attempt(TIME + 40, TIME + 35, Outcome::TimedOut),
        ],
        last_reason: Some("no paper".to_owned()),
        death: Some(Death {
            queue: "print".to_owned(),
            reason: DeathReason::MaxReceives,
            at: TIME + 50,
        }),
    }
}

/// One of each kind, each with every part that it can have.
fn all(buffer: &mut Vec<u8>) -> Vec<Entry<'_>> {
    let attributes = [
        Attribute::string("a", "x").label("l"),
        Attribute::number("n", "1.5"),
        Attribute::binary("b", &[0, 255]),
    ];
    let full = Envelope {
        wall: TIME - 3,
        priority: 9,
        group: Some("g"),
        deduplication: Deduplication::Id("d"),
        due: TIME + 1500,
        expires: TIME + 9000,
        attributes: Attributes::encode(&attributes, buffer),
        trace: Some("t"),
        origin: Some(MessageId { queue: 3, sequence: 4 }),
        past: Some(Box::new(past())),
        ..Envelope::plain(TIME, b"body")
    };
    let plain = Envelope::plain(TIME, b"body");
    let content = Envelope { deduplication: Deduplication::Content([7; 32]), ..plain.clone() };
    let marks: Cow<'_, [Mark]> =
        vec![Mark { sequence: 300, generation: 2 }, Mark { sequence: 7, generation: 1 }].into();
    let third: Cow<'_, [Mark]> = vec![Mark { sequence: 300, generation: 3 }].into();
    let lease = Lease { time: TIME, until: TIME + 30_000, epoch: 5, session: 0, back: 0 };
    let details = Details {
        since: TIME,
        expires_at: TIME + 9000,
        first_received_at: TIME + 10,
        received_at: TIME + 40,
        receives: 2,
        failed: 1,
        timed_out: 1,
        released: 3,
        epoch: 5,
        session: 6,
        forgiven: 1,
        death: 2,
        died_at: TIME + 60,
        place: 11,
        attempts: past().attempts,
        reason: Some("why".into()),
    };
    let standing = Standing {
        state: Some(State::Dead),
        at: TIME + 70,
        since: TIME,
        holding: true,
        details: Some(Box::new(details)),
    };
    let line = Standing { state: None, at: 0, since: TIME, holding: false, details: None };
    let config = QueueConfig::fifo()
        .visibility_timeout(Duration::from_secs(5))
        .dead_letter("dead.fifo", 4)
        .retry(Retry::Exponential {
            first: Duration::from_secs(1),
            most: Duration::from_secs(60),
            jitter: 20,
        })
        .deduplication_scope(DeduplicationScope::Group);
    let config: Cow<'_, QueueConfig> = Cow::Owned(config);
    let task = MoveTask {
        id: 1,
        target: Some(4),
        rate: 500,
        cursor: 10,
        below: 20,
        moved: 3,
        started: TIME,
        ended: 0,
        status: RedriveStatus::Failed("gone".to_owned()),
        filter: RedriveFilter::new()
            .died_in("print")
            .reason(DeathReason::Expired)
            .group("g")
            .attribute("a", "x"),
    };
    let mut template = Vec::new();
    Envelope::plain(0, b"tick").encode(&mut template);
    let schedule = Schedule {
        name: "s".to_owned(),
        repeat: Repeat::Cron("0 4 * * *".to_owned()),
        missed: Missed::Latest,
        next: TIME,
        envelope: template,
    };
    let facts = vec![
        Fact::Sent { sequence: 300, envelope: plain.clone() },
        Fact::Sent { sequence: 300, envelope: full.clone() },
        Fact::Sent { sequence: 300, envelope: content },
        Fact::Moved {
            sequence: 300,
            time: TIME,
            reason: Some(DeathReason::Rejected),
            target: 2,
            target_sequence: 9,
            envelope: full.clone(),
        },
        Fact::Snapshot { sequence: 300, standing, envelope: full.clone() },
        Fact::Snapshot { sequence: 300, standing: line.clone(), envelope: plain },
        Fact::Deleted { time: TIME, reason: Gone::Cancelled, marks: marks.clone() },
        Fact::Received { lease, attempt: "again", marks: marks.clone() },
        Fact::Received { lease: Lease { back: 400, ..lease }, attempt: "", marks: third },
        Fact::VisibilityChanged { time: TIME, until: TIME, marks },
        Fact::Returned {
            sequence: 300,
            generation: 2,
            time: TIME,
            outcome: Outcome::Failed,
            due: TIME + 5,
            reason: "no",
        },
        Fact::Edited { sequence: 300, time: TIME, standing: line, envelope: full },
        Fact::Rescheduled { sequence: 300, time: TIME, due: TIME + 60_000 },
        Fact::Died { sequence: 300, time: TIME, reason: DeathReason::MaxReceives, text: "tired" },
        Fact::Revived { sequence: 300, time: TIME },
        Fact::Parked { time: TIME, group: "g" },
        Fact::Resumed { time: TIME, group: "g" },
        Fact::Created { time: TIME, name: "q.fifo", config: config.clone() },
        Fact::AttributesSet { time: TIME, config: config.clone() },
        Fact::Tagged { tags: vec![("k", "v")] },
        Fact::Purged { time: TIME, below: 300 },
        Fact::Removed { time: TIME },
        Fact::QueueSnapshot {
            name: "q.fifo",
            config,
            created: TIME,
            modified: TIME + 1,
            next_sequence: 301,
            tags: vec![("k", "v")],
        },
        Fact::Remembered {
            memories: vec![Memory { key: [9; 16], sequence: 300, expires: TIME }].into(),
        },
        Fact::MoveTask { task: Cow::Owned(task) },
        Fact::Schedule { schedule: Cow::Owned(schedule) },
        Fact::ScheduleRemoved { name: "s" },
        Fact::Fired { name: "s", next: TIME },
        Fact::ClockSet { time: TIME, wall: TIME - 5000 },
    ];
    facts.into_iter().map(|fact| Entry { queue: 130, fact }).collect()
}

fn bytes(entry: &Entry<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    entry.encode(&mut out);
    out
}

#[test]
fn every_kind_of_entry_has_its_golden_bytes() {
    let golden = include_str!("golden.txt");
    let mut buffer = Vec::new();
    let found: Vec<String> =
        all(&mut buffer).iter().map(|entry| crate::dedup::hexadecimal(&bytes(entry))).collect();
    assert_eq!(found, golden.lines().collect::<Vec<_>>());
}

#[test]
fn every_kind_of_entry_survives_a_round_trip() {
    let mut buffer = Vec::new();
    for entry in all(&mut buffer) {
        assert_eq!(Entry::decode(&bytes(&entry)), Ok(entry));
    }
}

#[test]
fn a_cut_or_changed_entry_is_an_entry_or_an_error_and_never_a_panic() {
    let mut buffer = Vec::new();
    for entry in all(&mut buffer) {
        let bytes = bytes(&entry);
        let has_body = matches!(
            entry.fact,
            Fact::Sent { .. } | Fact::Moved { .. } | Fact::Snapshot { .. } | Fact::Edited { .. }
        );
        for cut in 0..bytes.len() {
            let decoded = Entry::decode(&bytes[..cut]);
            assert!(
                decoded.is_err() || (has_body && cut >= bytes.len() - 4),
                "{entry:?} cut at {cut}"
            );
        }
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let _ = Entry::decode(&changed);
        }
    }
    assert!(Entry::decode(&[0x41, 1, 1, 0, 0]).is_err(), "a later version of an entry is refused");
    assert!(Entry::decode(&[63, 1]).is_err(), "an unknown kind is refused");
}

#[test]
fn a_lone_message_costs_at_most_thirteen_bytes_beside_its_body() {
    let entry = Entry {
        queue: 100,
        fact: Fact::Sent { sequence: 1_000_000, envelope: Envelope::plain(TIME, &[7; 100]) },
    };
    assert!(bytes(&entry).len() <= 113, "{}", bytes(&entry).len());
}
