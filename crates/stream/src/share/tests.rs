//! Leases that cannot end in the usual way, and what a member that goes leaves behind, seen from within.

use std::fmt;

use logmill_storage::io::sim::{Fault, SimDisk};
use logmill_storage::{DataDirOptions, LogConfig, ManualClock, Record};

use super::*;
use crate::{StartAt, StreamsOptions, TopicConfig};

/// A store with the topics `t` and `other`, and a record in `t`.
fn store(disk: &SimDisk, clock: Arc<dyn Clock>) -> (Streams, Journal) {
    let dir = DataDirOptions::new().threads(0).clock(clock).open_with(disk.io()).unwrap();
    let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
    let streams = Streams::open(&dir, &journal, &StreamsOptions::default()).unwrap();
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
