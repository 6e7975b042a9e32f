//! `consume --group`: the members of a group, each in a thread, print what the group has not read yet.
//!
//! Nobody appends meanwhile, since this process is the store's writer. So the end is known from the beginning, and the
//! work is done when every partition has been read up to it, or when enough was printed.

use std::collections::BTreeMap;
use std::io::{Write, stderr, stdout};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use logmill::{
    Consumer, ConsumerConfig, ConsumerWaker, Records, ResetTo, StartAt, Store, Topic,
    TopicPartition,
};

use super::{Arguments, Printer, Start};
use crate::ends;
use crate::failure::{Failure, Outcome};
use crate::json::Printed;
use crate::open::Place;

/// A poll is woken by whatever a member has to do; this only bounds how long it waits for that.
const WAIT: Duration = Duration::from_secs(60);

impl From<Start> for ResetTo {
    fn from(start: Start) -> ResetTo {
        match start {
            Start::Earliest => ResetTo::Earliest,
            Start::Latest => ResetTo::Latest,
            Start::Offset(offset) => ResetTo::Offset(offset),
            Start::Timestamp(ms) => ResetTo::Timestamp(ms),
        }
    }
}

/// What the members share.
struct Work {
    printer: Printer,
    /// The ends of the partitions that are not read up to there.
    ends: BTreeMap<u32, u64>,
    wakers: Vec<ConsumerWaker>,
    is_over: bool,
}

/// Runs the command.
pub fn run(place: &Place, arguments: &Arguments, group: &str) -> Outcome {
    place.existing_dir()?;
    place.write(|store| {
        consume(store, arguments, group, Printer::new(arguments, stdout()))?;
        match ends::set_aside(&store.path(), &store.recovery()).is_empty() {
            true => Ok(()),
            false => Err(Failure::Corrupt(
                "what was set aside may have been records, and was not printed".to_owned(),
            )),
        }
    })
}

#[expect(clippy::disallowed_methods, reason = "one thread for each member")]
fn consume(store: &Store, arguments: &Arguments, group: &str, printer: Printer) -> Outcome {
    let topic = store.topic(&arguments.topic)?;
    // A member that waits for whoever reads the output keeps its place: there is no other one to take over, since all wait
    // for the same, and none from elsewhere, since this process is the store's writer.
    let config = ConsumerConfig::new()
        .auto_commit(None)
        .start_at(StartAt::Earliest)
        .session_timeout(Duration::MAX);
    let mut consumers = Vec::new();
    for _ in 0..topic.partition_count().min(arguments.members.into()) {
        consumers.push(store.consumer_with(group, config.clone())?);
    }
    if !has_position(store, &topic, group)? {
        store.reset_group(group, topic.name(), arguments.from.into())?;
    }
    // All of them before any of them reads, so that they share from the beginning.
    for consumer in &mut consumers {
        consumer.subscribe(&[topic.name()])?;
    }
    let work = Mutex::new(Work {
        printer,
        ends: ends(&topic)?,
        wakers: consumers.iter().map(Consumer::waker).collect(),
        is_over: false,
    });
    let results: Vec<Outcome> = thread::scope(|scope| {
        let members: Vec<_> =
            consumers.into_iter().map(|consumer| scope.spawn(|| member(consumer, &work))).collect();
        let joined = members.into_iter().map(thread::ScopedJoinHandle::join);
        joined
            .map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    results.into_iter().collect()
}

fn has_position(store: &Store, topic: &Topic, group: &str) -> Outcome<bool> {
    let described = store.describe_group(group)?;
    Ok(described
        .partitions
        .iter()
        .any(|at| *at.partition.topic == *topic.name() && at.committed.is_some()))
}

fn ends(topic: &Topic) -> Outcome<BTreeMap<u32, u64>> {
    let partitions = topic.partitions();
    partitions
        .iter()
        .map(|partition| Ok((partition.number(), partition.high_watermark()?)))
        .collect()
}

/// One member: reads until the work is over. Whoever fails ends it for all.
fn member(mut consumer: Consumer, work: &Mutex<Work>) -> Outcome {
    let result = read(&mut consumer, work);
    locked(work).end();
    let left = consumer.close().map_err(Failure::from);
    result.and(left)
}

fn read(consumer: &mut Consumer, work: &Mutex<Work>) -> Outcome {
    loop {
        {
            let mut work = locked(work);
            for at in consumer.assignment() {
                let position = consumer.position(&at.topic, at.partition)?;
                if work.ends.get(&at.partition).is_some_and(|end| position >= *end) {
                    work.ends.remove(&at.partition);
                }
            }
            if work.ends.is_empty() || work.printer.left == 0 {
                work.end();
            }
            if work.is_over {
                return Ok(());
            }
        }
        let records = consumer.poll(WAIT)?;
        let printed = locked(work).print(&records, consumer.group())?;
        // Only what was printed: the poll may have returned more than were wanted.
        let offsets: Vec<_> = printed.into_iter().map(|(at, next)| (at, next.into())).collect();
        consumer.commit_offsets(&offsets)?;
    }
}

/// A member that panicked has ended the command; the others may finish.
fn locked(work: &Mutex<Work>) -> MutexGuard<'_, Work> {
    work.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Work {
    /// Prints records until there are enough, and says where each partition goes on.
    fn print(&mut self, records: &Records, group: &str) -> Outcome<BTreeMap<TopicPartition, u64>> {
        let mut next = BTreeMap::new();
        if self.is_over {
            return Ok(next);
        }
        for skipped in records.skipped() {
            let (number, from) = (skipped.partition.partition, skipped.position);
            let count = skipped.resumed_at.saturating_sub(from);
            // Where standard error is closed, the records go on all the same.
            let _ = writeln!(
                stderr(),
                "logmill: partition {number}: {count} offsets from {from} on were removed before group {group:?} had read \
                 them"
            );
            // Said once.
            next.insert(skipped.partition.clone(), skipped.resumed_at);
        }
        for record in records.iter() {
            if self.printer.left == 0 {
                break;
            }
            let printed = Printed {
                partition: record.partition,
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key,
                value: record.value,
            };
            let headers = record.headers.map(|header| (header.name, header.value));
            self.printer.print(printed, headers).map_err(Failure::output)?;
            self.printer.left -= 1;
            let at = TopicPartition { topic: record.topic.into(), partition: record.partition };
            next.insert(at, record.offset + 1);
        }
        // What is committed has been seen.
        self.printer.flush()?;
        if self.printer.left == 0 {
            self.end();
        }
        Ok(next)
    }

    fn end(&mut self) {
        self.is_over = true;
        for waker in &self.wakers {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;

    use clap::Parser;
    use logmill::{Clock, ManualClock, Record, TopicConfig};

    use super::*;

    /// Whoever reads the output takes an hour for each piece, and the store's background works meanwhile.
    struct Slow {
        clock: Arc<ManualClock>,
        store: Store,
        lines: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            for _ in 0..60 {
                self.clock.advance(Duration::from_secs(60));
                self.store.tick();
            }
            self.lines.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// A member that was held up in writing for longer than its session was out of its group: what it had printed was not
    /// committed, and the command ended with 1.
    #[test]
    fn members_that_wait_for_whoever_reads_the_output_stay_in_the_group_and_commit_what_they_print()
    {
        let place = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let store = Store::builder().threads(0).clock(clock.clone()).open(place.path()).unwrap();
        let topic =
            store.create_topic("events", TopicConfig::new().partitions(2).retention(None)).unwrap();
        for partition in topic.partitions() {
            partition.append_batch(&[Record::value(b"line"); 1_200]).unwrap();
        }
        let began = clock.wall_ms();
        for members in ["1", "2", "5"] {
            let group = format!("g{members}");
            let line = ["consume", "events", "--group", &group, "--members", members];
            let Line { arguments } = Line::parse_from(line);
            let lines = Arc::new(Mutex::new(Vec::new()));
            let slow = Slow { clock: clock.clone(), store: store.clone(), lines: lines.clone() };
            consume(&store, &arguments, &group, Printer::new(&arguments, slow)).unwrap();
            assert_eq!(lines.lock().unwrap().len(), 2 * 1_200 * b"line\n".len());
            assert_eq!(store.describe_group(&group).unwrap().lag(), 0, "{members} members");
        }
        let hours = (clock.wall_ms() - began) / 3_600_000;
        assert!(hours >= 9, "the output was meant to be held up: {hours} hours");
    }
}
