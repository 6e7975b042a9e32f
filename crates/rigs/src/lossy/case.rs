//! One case: commands on a store, with a fault each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use fuser::BackgroundSession;
use logmill_torture::random::{Random, mix};

use super::account::{Queue, Topic};
use super::command::{Ran, run};
use super::disk::Disk;
use super::plan::Fault;
use super::serve::{Shared, locked, mount};
use super::{Control, Counts, Rig};
use crate::history::Violation;
use crate::tools::{Outcome, failed, verified};

/// A fault comes within so many calls that change something, or the command is over before.
const CALLS: u64 = 30;

/// What a round does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Produce,
    ProduceKeyed,
    Compact,
    Send,
    Receive,
}

const WORK: [Work; 5] =
    [Work::Produce, Work::ProduceKeyed, Work::Compact, Work::Send, Work::Receive];

pub struct Case<'a> {
    rig: &'a Rig,
    control: Control,
    random: Random,
    disk: Shared,
    session: Option<BackgroundSession>,
    lines: u64,
    events: Topic,
    users: Topic,
    queue: Queue,
}

impl Case<'_> {
    pub fn start(rig: &Rig, number: u64, control: Control) -> Outcome<Case<'_>> {
        let disk = Arc::new(Mutex::new(Disk::new(control == Control::LyingDisk)));
        let session = Some(mount(&disk, &rig.home.join("mounted"))?);
        rig.boot.start(0)?;
        Ok(Case {
            rig,
            control,
            random: Random::new(mix(rig.seed).wrapping_add(mix(number))),
            disk,
            session,
            lines: 0,
            events: Topic::default(),
            users: Topic::compacted(),
            queue: Queue::default(),
        })
    }

    pub fn end(&mut self) -> Outcome {
        self.session
            .take()
            .map_or(Ok(()), |session| session.umount_and_join().map_err(failed("unmounting")))
    }

    pub fn play(&mut self, counts: &mut Counts) -> Result<(), Violation> {
        self.prepare()?;
        for round in 1..=2 + self.random.below(3) {
            let (work, fault) = match self.control {
                Control::EarlyAcknowledgement => (Work::Produce, Fault::Power),
                _ => (self.random.pick(&WORK), self.random.pick(&Fault::ALL)),
            };
            let calls = self.random.below(CALLS);
            let durability = self.durability();
            locked(&self.disk).plan(Some(fault), calls);
            let ran = self.work(work, durability)?;
            let (came, is_dark) = {
                let mut disk = locked(&self.disk);
                let came = disk.fired() > 0;
                let is_dark = disk.is_dark();
                disk.plan(None, 0);
                (came, is_dark)
            };
            let loses_power = is_dark || self.random.below(3) > 0;
            let is_harmless = !came || matches!(fault, Fault::Full | Fault::Short);
            let is_synced = durability == "sync" || self.control == Control::EarlyAcknowledgement;
            let acknowledged = self.note(work, &ran, is_synced || !loses_power && is_harmless)?;
            let label = format!("round {round}, {work:?} {durability}, {fault:?} at {calls}");
            counts.commands += 1;
            counts.acknowledged += acknowledged;
            let index = Fault::ALL.iter().position(|other| *other == fault).unwrap_or(0);
            counts.faults[index].0 += 1;
            counts.faults[index].1 += u64::from(came);
            if loses_power {
                counts.losses += 1;
                counts.forgot += u64::from(self.power_loss(round).map_err(Violation::Refused)?);
            }
            let is_expected = match ran.code {
                Some(0) => true,
                Some(1) => came && ran.said.starts_with("logmill: "),
                _ => false,
            };
            if !is_expected {
                let what = format!("{label}: ended with {:?}: {}", ran.code, ran.said);
                return Err(Violation::Refused(what));
            }
            self.settle().map_err(|violation| violation.at(&label))?;
        }
        Ok(())
    }

    /// A topic, a compacted one of more than a segment, and a queue.
    fn prepare(&mut self) -> Result<(), Violation> {
        let small = ["--set", "segment.bytes=65536"];
        self.plain(&[&["topic", "create", "events"], &small[..]].concat(), "")?;
        let users = ["topic", "create", "users", "--cleanup", "compact"];
        self.plain(&[&users[..], &small].concat(), "")?;
        self.plain(&["queue", "create", "q"], "")?;
        let lines = self.some_lines(300);
        self.plain(&["produce", "users", "--key-field", "1"], &joined(&lines))?;
        self.users.send(lines);
        self.users.require(300);
        self.settle()
    }

    fn durability(&mut self) -> &'static str {
        match self.control {
            Control::EarlyAcknowledgement => "buffered",
            _ => self.random.pick(&["sync", "sync", "buffered"]),
        }
    }

    /// Runs the command of a round under the fault, and notes what it was asked for.
    fn work(&mut self, work: Work, durability: &str) -> Result<Ran, Violation> {
        let count = 1 + self.random.below(120);
        let produce = ["--print-offsets", "--durability", durability];
        match work {
            Work::Produce => {
                let lines = self.some_lines(count);
                let ran =
                    self.run(&[&["produce", "events"], &produce[..]].concat(), &joined(&lines));
                self.events.send(lines);
                ran
            }
            Work::ProduceKeyed => {
                let lines = self.some_lines(count);
                let keyed = ["produce", "users", "--key-field", "1"];
                let ran = self.run(&[&keyed[..], &produce].concat(), &joined(&lines));
                self.users.send(lines);
                ran
            }
            Work::Compact => self.run(&["compact", "users"], ""),
            Work::Send => {
                let numbers = self.queue.send(count).map(|number| number.to_string());
                self.run(&["queue", "send", "q", "--json"], &joined(&numbers.collect::<Vec<_>>()))
            }
            Work::Receive => {
                let max = count.to_string();
                let receive = ["queue", "receive", "q", "--delete", "--visibility-timeout", "0s"];
                self.run(&[&receive[..], &["--max", &max]].concat(), "")
            }
        }
    }

    /// Notes what was acknowledged, and returns how much it was.
    fn note(&mut self, work: Work, ran: &Ran, is_safe: bool) -> Result<u64, Violation> {
        let printed = ran.lines.len();
        match work {
            Work::Produce => self.events.require(if is_safe { printed } else { 0 }),
            Work::ProduceKeyed => self.users.require(if is_safe { printed } else { 0 }),
            Work::Compact => return Ok(0),
            Work::Send => self.queue.require(printed as u64),
            Work::Receive => self.queue.delete(&numbers(&ran.lines)?, ran.code == Some(0))?,
        }
        Ok(printed as u64)
    }

    /// The power is cut and comes back; returns whether something was forgotten.
    fn power_loss(&mut self, round: u64) -> Outcome<bool> {
        self.end()?;
        let forgot = locked(&self.disk).power_loss(&mut self.random);
        self.rig.boot.start(round)?;
        self.session = Some(mount(&self.disk, &self.rig.home.join("mounted"))?);
        Ok(forgot)
    }

    /// Opens the store for writing, which settles what was in doubt, and looks at everything.
    fn settle(&mut self) -> Result<(), Violation> {
        let line = self.some_lines(1);
        self.plain(&["produce", "events"], &joined(&line))?;
        self.events.send(line);
        let line = self.some_lines(1);
        self.plain(&["produce", "users", "--key-field", "1"], &joined(&line))?;
        self.users.send(line);
        verified(&self.rig.command, &self.store())?;
        let found = self.records("events")?;
        self.events.settle(&found).map_err(|violation| violation.at("events"))?;
        let found = self.records("users")?;
        self.users.settle(&found).map_err(|violation| violation.at("users"))?;
        let peeked = self.plain(&["queue", "peek", "q", "--max", "1000"], "")?;
        self.queue.settle(&numbers(&peeked)?).map_err(|violation| violation.at("the queue"))
    }

    /// What is in a topic, by offset.
    fn records(&self, topic: &str) -> Result<BTreeMap<u64, String>, Violation> {
        let strange = |line: &String| Violation::Invented(format!("{line:.80}"));
        let lines = self.plain(&["consume", topic, "--json"], "")?;
        let records = lines.iter().map(|line| {
            let record: serde_json::Value =
                serde_json::from_str(line).map_err(|_| strange(line))?;
            let offset = record["offset"].as_u64().ok_or_else(|| strange(line))?;
            let value = record["value"].as_str().ok_or_else(|| strange(line))?;
            Ok((offset, value.to_owned()))
        });
        records.collect()
    }

    /// Lines that are not made a second time: a key, a number, and up to some thousand letters.
    fn some_lines(&mut self, count: u64) -> Vec<String> {
        let first = self.lines;
        self.lines += count;
        let line = |number: u64| {
            let mut random = Random::new(mix(number));
            let len = if random.once_in(30) { 6_000 } else { random.below(500) };
            let key = random.below(9);
            let letters = (0..len).map(|_| char::from(b'a' + random.below(26) as u8));
            format!("k{key} {number} {}", letters.collect::<String>())
        };
        (first..self.lines).map(line).collect()
    }

    fn store(&self) -> PathBuf {
        self.rig.home.join("mounted/store")
    }

    /// Runs a command that must succeed, and returns its lines.
    fn plain(&self, arguments: &[&str], input: &str) -> Result<Vec<String>, Violation> {
        let ran = self.run(arguments, input)?;
        match ran.code {
            Some(0) => Ok(ran.lines),
            code => {
                let what = format!("{arguments:?} ended with {code:?}: {}", ran.said);
                Err(Violation::Refused(what))
            }
        }
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<Ran, Violation> {
        run(&self.rig.command, &self.store(), arguments, input.to_owned())
            .map_err(Violation::Refused)
    }
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The numbers of messages.
fn numbers(lines: &[String]) -> Result<Vec<u64>, Violation> {
    let number = |line: &String| {
        line.parse().map_err(|_| Violation::Invented(format!("a message {line:.40}")))
    };
    lines.iter().map(number).collect()
}
