//! Leases that cannot end in the usual way, and what a member that goes leaves behind, seen from within.

use std::fmt;

use logmill_storage::io::sim::{Fault, SimDisk};
use logmill_storage::{DataDirOptions, LogConfig, ManualClock, Record};

use super::bury::{Dead, move_first};
use super::*;
use crate::state::State;
use crate::{StartAt, StreamsOptions, TopicConfig};

fn opened(disk: &SimDisk, clock: Arc<dyn Clock>) -> (Streams, Journal) {
    let dir = DataDirOptions::new().threads(0).clock(clock).open_with(disk.io()).unwrap();
    let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
    let streams = Streams::open(&dir, &journal, &StreamsOptions::default()).unwrap();
    (streams, journal)
}

/// A store with the topics `t` and `other`, and a record in `t`.
fn store(disk: &SimDisk, clock: Arc<dyn Clock>) -> (Streams, Journal) {
    let (streams, journal) = opened(disk, clock);
    for topic in ["t", "other"] {
        streams.create_topic(topic, &TopicConfig::new()).unwrap();
    }
    let partition = streams.topic("t").unwrap().partition(0).unwrap();
    partition.append(&Record::value(b"v")).unwrap();
    (streams, journal)
}

fn member(streams: &Streams, group: ShareGroupConfig, topic: &str) -> ShareConsumer {
    let group = group.start_at(StartAt::Earliest).lease(Duration::from_secs(30));
    let config = ShareConsumerConfig::new().group(group).explicit(true);
    let mut consumer = streams.share_consumer("g", config).unwrap();
    consumer.subscribe(&[topic]).unwrap();
    consumer
}

fn lease(holder: &mut ShareConsumer) {
    assert_eq!(holder.poll(Duration::ZERO).unwrap().len(), 1);
}

/// How many turns a poll of a minute takes that finds nothing, on a clock that goes on only while it waits.
fn turns(waiting: &mut ShareConsumer, clock: &ManualClock) -> usize {
    let deadline = clock.monotonic() + Duration::from_secs(60);
    for turn in 1..200 {
        let now = clock.monotonic();
        match waiting.turn(now, deadline).unwrap() {
            Turn::Done(records) => {
                assert!(records.is_empty());
                return turn;
            }
            Turn::WaitUntil(until) => clock.advance(until.saturating_sub(now)),
        }
    }
    panic!("it does not wait");
}

/// The lease stayed, since nothing of the partition could be found, and its end lay in the past for ever: whoever waited in
/// the group did not wait, but looked again and again.
#[test]
fn a_lease_in_a_topic_that_was_deleted_is_forgotten_and_keeps_nobody_busy() {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let (streams, _journal) = store(&SimDisk::new(1), clock.clone());
    let mut holder = member(&streams, ShareGroupConfig::new(), "t");
    let mut waiting = member(&streams, ShareGroupConfig::new(), "other");
    lease(&mut holder);
    streams.delete_topic("t").unwrap();
    assert_eq!(waiting.group.next_deadline(Duration::ZERO), None);
    clock.advance(Duration::from_secs(31));
    assert_eq!(turns(&mut waiting, &clock), 2);
    assert_eq!(waiting.group.all_partitions().len(), 1);
}

/// As above, without a deletion: the lease had run out, its record was dead, and the disk was full.
#[test]
fn a_dead_record_that_cannot_be_buried_is_tried_again_once_a_second_and_keeps_nobody_busy() {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let disk = SimDisk::new(1);
    let (streams, _journal) = store(&disk, clock.clone());
    let group = ShareGroupConfig::new().deliveries_max(Some(1));
    let mut holder = member(&streams, group.clone(), "t");
    let mut waiting = member(&streams, group, "other");
    assert_eq!(turns(&mut waiting, &clock), 2);
    lease(&mut holder);
    clock.advance(Duration::from_secs(31));
    disk.fail_from(0, Fault::Enospc);
    let tried = turns(&mut waiting, &clock);
    assert!((60..=62).contains(&tried), "{tried}");
    assert!(disk.faults_fired() >= 60, "the disk was meant to be full");
    assert!(waiting.group.next_deadline(Duration::ZERO).is_some());
    disk.heal();
    assert!(turns(&mut waiting, &clock) <= 2);
    assert_eq!(waiting.group.next_deadline(Duration::ZERO), None);
}

/// Shows each look at the time to whoever wants to see it.
struct Watched {
    clock: ManualClock,
    group: Mutex<Option<Arc<ShareGroup>>>,
    members: Mutex<Vec<usize>>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").finish_non_exhaustive()
    }
}

impl Clock for Watched {
    fn wall_ms(&self) -> i64 {
        self.clock.wall_ms()
    }

    fn monotonic(&self) -> Duration {
        if let Some(group) = &*self.group.lock() {
            self.members.lock().push(group.members().len());
        }
        self.clock.monotonic()
    }
}

/// Between the two steps the group had no members and yet a record out: it could be reset, or made key-ordered.
#[test]
fn a_member_that_goes_gives_its_leases_back_before_the_group_may_be_without_members() {
    let clock = Arc::new(Watched {
        clock: ManualClock::at(1_700_000_000_000),
        group: Mutex::default(),
        members: Mutex::default(),
    });
    let (streams, _journal) = store(&SimDisk::new(1), clock.clone());
    let mut holder = member(&streams, ShareGroupConfig::new(), "t");
    lease(&mut holder);
    let group = Arc::clone(&holder.group);
    *clock.group.lock() = Some(Arc::clone(&group));
    drop(holder);
    *clock.group.lock() = None;
    let members = std::mem::take(&mut *clock.members.lock());
    assert!(!members.is_empty() && members.iter().all(|members| *members == 1), "{members:?}");
    assert_eq!((group.members().len(), group.next_deadline(Duration::ZERO)), (0, None));
}

/// Moves the record of `t` to `other`, and does something before it is read and something after.
fn moved(streams: &Streams, before: impl Fn(), after: impl Fn()) -> Result<Option<usize>> {
    let holder = member(streams, ShareGroupConfig::new(), "t");
    let from = streams.topic("t").unwrap().partition(0).unwrap();
    let (to, log) = (streams.topic("other").unwrap().id(), from.log().unwrap());
    let work = holder.group.partition(from.id());
    let settings = holder.group.settings();
    let site = Site { partition: &from, settings: &settings, now: Duration::ZERO };
    before();
    let deliveries = |_| {
        after();
        1
    };
    let done = |state: &State, _: &[Dead]| {
        work.check(site, state)?;
        Ok(Entry::ShareDone { group: holder.group.id, partition: from.id(), ranges: vec![(0, 1)] })
    };
    let dead = [Dead { offset: 0, reason: "rejected" }];
    move_first(to, &from, &log, "g", &dead, deliveries, done)
}

fn is_of_no_topic(moved: &Result<Option<usize>>) -> bool {
    matches!(moved, Err(Error::UnknownTopic { name }) if name == "t")
}

/// What was deleted turned up again in the dead-letter topic, after the deletion had returned; or its missing files were the
/// error.
#[test]
fn a_record_whose_topic_is_deleted_before_or_while_it_is_moved_is_not_copied_any_more() {
    for is_before in [true, false] {
        let (streams, _journal) = store(&SimDisk::new(1), Arc::new(ManualClock::at(0)));
        let delete = |now| {
            if now {
                streams.delete_topic("t").unwrap();
            }
        };
        let moved = moved(&streams, || delete(is_before), || delete(!is_before));
        assert!(is_of_no_topic(&moved), "{moved:?}");
        let dead = streams.topic("other").unwrap().partition(0).unwrap();
        assert_eq!(dead.end_offset().unwrap(), 0);
        assert!(!streams.shared.dir.logs().unwrap().contains(&"1/0".to_owned()));
    }
}

/// The name of a log that is gone was called invalid.
#[test]
fn a_record_whose_dead_letter_topic_is_deleted_before_or_while_it_is_moved_ends_without_one() {
    for is_before in [true, false] {
        let (streams, _journal) = store(&SimDisk::new(1), Arc::new(ManualClock::at(0)));
        let delete = |now| {
            if now {
                streams.delete_topic("other").unwrap();
            }
        };
        let moved = moved(&streams, || delete(is_before), || delete(!is_before));
        assert_eq!(moved.unwrap(), None);
    }
}

/// Its topic counted as deleted, so that the copy was forgotten, and a checkpoint said that there was none left to be made.
#[test]
fn a_copy_that_the_closing_of_the_store_overtakes_is_made_at_the_next_open() {
    let disk = SimDisk::new(1);
    let (streams, journal) = store(&disk, Arc::new(ManualClock::at(0)));
    let close = || streams.close().unwrap();
    assert_eq!(moved(&streams, || {}, || {}).unwrap(), Some(1));
    assert_eq!(moved(&streams, close, || {}).unwrap(), Some(1));
    streams.checkpoint().unwrap();
    drop((streams, journal));
    let (streams, _journal) = opened(&disk, Arc::new(ManualClock::at(0)));
    let dead = streams.topic("other").unwrap().partition(0).unwrap();
    assert_eq!(dead.end_offset().unwrap(), 2);
}
