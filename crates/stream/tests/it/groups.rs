//! Consumer groups in one process: who reads what, what is committed, what happens when somebody goes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use logmill_storage::io::sim::{CrashPlan, SimDisk};
use logmill_storage::{AppendOptions, DataDirOptions, Durability, Entry, Journal, LogConfig};
use logmill_stream::{
    Assignor, Consumer, ConsumerConfig, Error, GroupPhase, OffsetAndMetadata, OutOfRange,
    RebalanceListener, Records, Refusal, ResetTo, ShareConsumerConfig, ShareGroupConfig, StartAt,
    Streams, StreamsOptions, TopicConfig, TopicPartition,
};

use crate::support::{TestStore, append, drain, manual, named, numbers, settle, texts};

#[test]
fn a_consumer_reads_its_topic_in_order_and_goes_on_where_it_committed() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b", "c"]);
    let mut consumer = store.subscriber("g", "t");
    assert_eq!(drain(&mut consumer), ["a", "b", "c"]);
    consumer.commit().unwrap();
    append(&topic, 0, &["d"]);
    assert_eq!(drain(&mut consumer), ["d"]);
    drop(consumer);
    assert_eq!(drain(&mut store.subscriber("g", "t")), ["d"], "what was not committed comes again");
    assert_eq!(
        drain(&mut store.subscriber("other", "t")),
        ["a", "b", "c", "d"],
        "every group has its own position"
    );
}

/// The group had not changed, so the consumer had nothing to do, and went on reading what it read before.
#[test]
fn a_member_that_subscribes_again_reads_the_new_topics_and_no_more_the_old_ones() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let (old, new) = (store.topic("old", 1), store.topic("new", 1));
    let mut consumer = store.subscriber("g", "old");
    append(&old, 0, &["a"]);
    assert_eq!(drain(&mut consumer), ["a"]);
    consumer.subscribe(&["new"]).unwrap();
    append(&old, 0, &["b"]);
    append(&new, 0, &["c"]);
    assert_eq!(drain(&mut consumer), ["c"]);
    consumer.subscribe_pattern("old|new").unwrap();
    append(&new, 0, &["d"]);
    let mut both = drain(&mut consumer);
    both.sort_unstable();
    assert!(both.contains(&"d".to_owned()) && both.contains(&"b".to_owned()), "{both:?}");
}

#[test]
fn positions_survive_a_restart_and_a_crash() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b", "c", "d"]);
    let mut consumer = store.consumer_with("g", manual().records_max(1));
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(texts(&consumer.poll(Duration::ZERO).unwrap()), ["a"]);
    consumer.commit().unwrap();
    drop((topic, consumer));
    store.close();

    let store = TestStore::open(place.path());
    let mut consumer = store.consumer_with("g", manual().records_max(2));
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(texts(&consumer.poll(Duration::ZERO).unwrap()), ["b", "c"]);
    consumer.commit().unwrap();
    drop((consumer, store));

    let store = TestStore::open(place.path());
    assert_eq!(drain(&mut store.subscriber("g", "t")), ["d"]);
}

#[test]
fn the_partitions_of_a_topic_are_shared_and_extra_consumers_take_over_from_one_that_goes() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    store.topic("t", 3);
    let mut a = store.subscriber("g", "t");
    let mut b = store.subscriber("g", "t");
    let mut c = store.subscriber("g", "t");
    let mut d = store.subscriber("g", "t");
    settle(&mut [&mut a, &mut b, &mut c, &mut d]);
    let mut all = [numbers(&a), numbers(&b), numbers(&c)].concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2]);
    assert!(d.assignment().is_empty());
    let left = numbers(&b);
    drop(b);
    settle(&mut [&mut a, &mut c, &mut d]);
    assert_eq!(numbers(&d), left);
}

#[test]
fn what_one_member_did_not_commit_its_successor_gets() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b", "c"]);
    let mut first = store.consumer_with("g", manual().records_max(1));
    first.subscribe(&["t"]).unwrap();
    let mut second = store.subscriber("g", "t");
    first.poll(Duration::ZERO).unwrap();
    first.commit().unwrap();
    assert_eq!(texts(&first.poll(Duration::ZERO).unwrap()), ["b"]);
    assert_eq!(drain(&mut second), [""; 0]);
    drop(first);
    assert_eq!(drain(&mut second), ["b", "c"]);
}

#[test]
fn synced_commits_of_many_groups_share_a_sync_with_whatever_else_is_in_the_journal() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    append(&topic, 0, &["x"; 20]);
    let mut consumers: Vec<_> =
        (0..5).map(|group| store.subscriber(&format!("g{group}"), "t")).collect();
    for consumer in &mut consumers {
        assert_eq!(drain(consumer).len(), 20);
    }
    let at = topic.partition(0).unwrap().name();
    let before = store.dir.activity().syncs;
    let mut tickets = Vec::new();
    for offset in 1..=20 {
        for consumer in &mut consumers {
            let position = [(at.clone(), OffsetAndMetadata::from(offset))];
            tickets.push(consumer.commit_offsets_async(&position).unwrap());
        }
    }
    let other = Entry { owner: 77, bytes: b"another owner's" };
    let options = AppendOptions { durability: Some(Durability::Sync), ..AppendOptions::default() };
    let other = store.journal.submit(&[other], &options).unwrap();
    assert_eq!(store.dir.activity().syncs, before);
    other.wait().unwrap();
    assert_eq!(store.dir.activity().syncs, before + 1);
    tickets.into_iter().for_each(|ticket| ticket.wait().unwrap());
    assert_eq!(store.dir.activity().syncs, before + 1, "they were safe by then");
}

#[test]
fn a_commit_of_nothing_new_is_a_ticket_that_waits_for_what_is_not_synced_and_else_for_nothing() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a"]);
    let mut consumer = store.subscriber("g", "t");
    assert_eq!(drain(&mut consumer).len(), 1);
    let syncs = || store.dir.activity().syncs;
    let before = syncs();
    drop(consumer.commit_async().unwrap());
    assert_eq!(syncs(), before, "nobody waited");
    consumer.commit_async().unwrap().wait().unwrap();
    assert_eq!(syncs(), before + 1, "what was committed before is not synced");
    consumer.commit().unwrap();
    consumer.commit_async().unwrap().wait().unwrap();
    consumer.commit_offsets_async(&[]).unwrap().wait().unwrap();
    assert_eq!(syncs(), before + 1);
}

#[test]
fn a_commit_for_a_partition_that_moved_is_refused_as_a_whole() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 2);
    append(&topic, 0, &["a"]);
    append(&topic, 1, &["b"]);
    let mut first = store.subscriber("g", "t");
    assert_eq!(drain(&mut first).len(), 2);
    let mut second = store.subscriber("g", "t");
    settle(&mut [&mut first, &mut second]);
    let moved = second.assignment()[0].clone();
    let kept = first.assignment()[0].clone();
    let both: Vec<(TopicPartition, OffsetAndMetadata)> =
        vec![(kept.clone(), 1.into()), (moved.clone(), 1.into())];
    let refused = first.commit_offsets(&both).unwrap_err();
    assert!(
        matches!(&refused, Error::NotAssigned { partition, .. } if *partition == moved),
        "{refused}"
    );
    assert_eq!(
        first.committed("t", kept.partition).unwrap(),
        Some(0.into()),
        "only where it began"
    );
    first.commit_offsets(&both[..1]).unwrap();
    assert_eq!(first.committed("t", kept.partition).unwrap(), Some(1.into()));
}

#[test]
fn a_consumer_that_was_silent_for_too_long_is_fenced_and_then_joins_again() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b"]);
    let mut slow =
        store.consumer_with("g", manual().session_timeout(Duration::from_secs(30)).records_max(1));
    slow.subscribe(&["t"]).unwrap();
    let mut spare = store.consumer_with("g", manual().session_timeout(Duration::from_secs(3_000)));
    spare.subscribe(&["t"]).unwrap();
    assert_eq!(texts(&slow.poll(Duration::ZERO).unwrap()), ["a"]);
    store.clock.advance(Duration::from_secs(31));
    store.dir.tick();
    assert_eq!(drain(&mut spare), ["a", "b"]);
    let refused = slow.commit().unwrap_err();
    assert!(
        matches!(&refused, Error::Group { refusal: Refusal::UnknownMember(_), .. }),
        "{refused}"
    );
    spare.commit().unwrap();
    assert_eq!(drain(&mut slow), [""; 0]);
    drop(spare);
    append(&topic, 0, &["c"]);
    assert_eq!(drain(&mut slow), ["c"]);
}

/// Notes what it is told, and commits when partitions are taken away.
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn note(&self, what: &str, partitions: &[TopicPartition]) {
        let numbers: Vec<String> = partitions.iter().map(|p| p.partition.to_string()).collect();
        self.0.lock().unwrap().push(format!("{what} {}", numbers.join(",")));
    }
}

impl RebalanceListener for Notes {
    fn on_assigned(&mut self, _: &mut Consumer, partitions: &[TopicPartition]) {
        self.note("assigned", partitions);
    }

    fn on_revoked(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) {
        consumer.commit().unwrap();
        self.note("revoked", partitions);
    }

    fn on_lost(&mut self, _: &mut Consumer, partitions: &[TopicPartition]) {
        self.note("lost", partitions);
    }
}

fn notes(consumer: &mut Consumer) -> Arc<Mutex<Vec<String>>> {
    let notes = Arc::new(Mutex::new(Vec::new()));
    consumer.set_listener(Notes(notes.clone()));
    notes
}

#[test]
fn a_cooperative_rebalance_tells_only_of_what_moves_and_leaves_time_to_commit_it() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 2);
    append(&topic, 0, &["a"]);
    append(&topic, 1, &["b"]);
    let mut first = store.consumer("g");
    let told = notes(&mut first);
    first.subscribe(&["t"]).unwrap();
    drain(&mut first);
    let mut second = store.subscriber("g", "t");
    settle(&mut [&mut first, &mut second]);
    assert_eq!(*told.lock().unwrap(), ["assigned 0,1", "revoked 1"]);
    assert_eq!(drain(&mut second), [""; 0], "what was read was committed before it moved");
    store.clock.advance(Duration::from_secs(3_000));
    store.dir.tick();
    first.heartbeat().unwrap();
    assert_eq!(told.lock().unwrap()[2..], ["lost 0", "assigned 0,1"]);
}

/// A heartbeat in the midst of the work gave partitions up and committed, automatically, what the last poll had returned there:
/// the next reader began behind records that nobody had done yet, and a crash made that a loss.
#[test]
fn a_heartbeat_that_gives_partitions_up_commits_nothing_that_is_still_being_worked_on() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 2);
    append(&topic, 0, &["a"]);
    append(&topic, 1, &["b", "c"]);
    let config = ConsumerConfig::new().start_at(StartAt::Earliest).records_max(2);
    let mut first = store.consumer_with("g", config.clone());
    first.subscribe(&["t"]).unwrap();
    assert_eq!(texts(&first.poll(Duration::ZERO).unwrap()), ["a", "b"]);
    let mut second = store.subscriber("g", "t");
    first.heartbeat().unwrap();
    assert_eq!(numbers(&first), [0]);
    assert_eq!(drain(&mut second), ["b", "c"]);
    // What was committed by name stays committed.
    append(&topic, 0, &["d", "e", "f"]);
    let eager = config.assignor(Assignor::Range).records_max(3);
    let mut first = store.consumer_with("h", eager.clone());
    first.subscribe(&["t"]).unwrap();
    assert_eq!(texts(&first.poll(Duration::ZERO).unwrap()), ["a", "d", "e"]);
    first.commit_offsets(&[(named("t", 0), 2.into())]).unwrap();
    let mut second = store.consumer_with("h", eager);
    second.subscribe(&["t"]).unwrap();
    first.heartbeat().unwrap();
    assert_eq!(first.committed("t", 0).unwrap(), Some(2.into()));
}

#[test]
fn a_poll_that_gives_partitions_up_commits_what_earlier_ones_returned() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 2);
    append(&topic, 0, &["a"]);
    append(&topic, 1, &["b"]);
    let mut first = store.consumer_with("g", ConsumerConfig::new().start_at(StartAt::Earliest));
    first.subscribe(&["t"]).unwrap();
    assert_eq!(first.poll(Duration::ZERO).unwrap().len(), 2);
    let mut second = store.subscriber("g", "t");
    assert!(first.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!((numbers(&first), numbers(&second).len()), (vec![0], 0));
    assert_eq!(drain(&mut second), [""; 0]);
    assert_eq!(numbers(&second), [1]);
}

/// As in Kafka: whoever leaves of his own accord is told as in a rebalance, and can commit.
#[test]
fn who_unsubscribes_or_closes_is_told_what_is_about_to_be_revoked() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a"]);
    for ends in [true, false] {
        let mut consumer = store.consumer("g");
        let told = notes(&mut consumer);
        consumer.subscribe(&["t"]).unwrap();
        consumer.seek("t", 0, 0).unwrap();
        assert_eq!(drain(&mut consumer), ["a"]);
        if ends {
            consumer.close().unwrap();
        } else {
            consumer.unsubscribe().unwrap();
        }
        assert_eq!(*told.lock().unwrap(), ["assigned 0", "revoked 0"]);
        assert_eq!(store.consumer("g").committed("t", 0).unwrap(), Some(1.into()));
    }
}

#[test]
fn a_poll_returns_no_more_bytes_than_asked_but_at_least_one_record() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 3);
    let (small, large) = ("s".repeat(100), "l".repeat(5_000));
    for partition in 0..3 {
        append(&topic, partition, &[&*small; 20]);
    }
    append(&topic, 0, &[&*large, &*small]);
    let bytes = |records: &Records| texts(records).iter().map(String::len).sum::<usize>();
    let config = manual().bytes_max(1_000).partition_bytes_max(300);
    let mut consumer = store.consumer_with("g", config);
    consumer.subscribe(&["t"]).unwrap();
    let first = consumer.poll(Duration::ZERO).unwrap();
    assert_eq!(
        (first.partitions().count(), bytes(&first)),
        (3, 900),
        "at most 300 of each partition"
    );
    let mut count = first.len();
    loop {
        let records = consumer.poll(Duration::ZERO).unwrap();
        if records.is_empty() {
            break;
        }
        count += records.len();
        assert!(
            bytes(&records) <= 1_000 || texts(&records).contains(&large),
            "{}",
            bytes(&records)
        );
    }
    assert_eq!(count, 62);
    let mut consumer = store.consumer_with("h", manual().bytes_max(250));
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(
        bytes(&consumer.poll(Duration::ZERO).unwrap()),
        300,
        "it ends with the record that reaches the limit"
    );
}

#[test]
fn an_eager_rebalance_takes_everything_before_it_gives_anything() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    store.topic("t", 4);
    let mut first = store.consumer_with("g", manual().assignor(Assignor::Range));
    let told = notes(&mut first);
    first.subscribe(&["t"]).unwrap();
    let mut second = store.consumer_with("g", manual().assignor(Assignor::Range));
    second.subscribe(&["t"]).unwrap();
    settle(&mut [&mut first, &mut second]);
    assert_eq!(*told.lock().unwrap(), ["assigned 0,1,2,3", "revoked 0,1,2,3", "assigned 0,1"]);
    let mut third = store.consumer_with("g", manual().assignor(Assignor::Sticky));
    let refused = third.subscribe(&["t"]).unwrap_err();
    assert!(
        matches!(&refused, Error::Group { refusal: Refusal::InconsistentStrategy { .. }, .. }),
        "{refused}"
    );
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_fences_its_double() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    store.topic("t", 2);
    let fixed = |name: &str| {
        store.consumer_with("g", manual().instance(name).session_timeout(Duration::from_secs(60)))
    };
    let mut a = fixed("a");
    a.subscribe(&["t"]).unwrap();
    let mut b = fixed("b");
    b.subscribe(&["t"]).unwrap();
    let told = notes(&mut b);
    settle(&mut [&mut a, &mut b]);
    let before = numbers(&a);
    a.close().unwrap();
    settle(&mut [&mut b]);
    let mut again = fixed("a");
    again.subscribe(&["t"]).unwrap();
    assert_eq!(numbers(&again), before);
    settle(&mut [&mut again, &mut b]);
    let mut double = fixed("a");
    double.subscribe(&["t"]).unwrap();
    assert_eq!(numbers(&double), before);
    let refused = again.heartbeat().unwrap_err();
    assert!(
        matches!(&refused, Error::Group { refusal: Refusal::InstanceFenced { .. }, .. }),
        "{refused}"
    );
    assert_eq!(*told.lock().unwrap(), ["assigned 1"]);
    drop((again, double));
    store.clock.advance(Duration::from_secs(61));
    b.heartbeat().unwrap();
    assert_eq!(numbers(&b), [0, 1], "after its time-out the place of a static member is free");
}

#[test]
fn new_partitions_and_new_topics_of_a_pattern_are_read_as_they_come() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let user = store.topic("user-a", 1);
    store.topic("other", 1);
    let mut consumer = store.consumer("g");
    consumer.subscribe_pattern("user-.*").unwrap();
    assert_eq!(consumer.assignment(), [named("user-a", 0)]);
    user.add_partitions(2).unwrap();
    let second = store.topic("user-b", 1);
    append(&second, 0, &["x"]);
    append(&user, 1, &["y"]);
    let mut seen = drain(&mut consumer);
    seen.sort_unstable();
    assert_eq!(seen, ["x", "y"]);
    assert_eq!(consumer.assignment(), [named("user-a", 0), named("user-a", 1), named("user-b", 0)]);
    drop(second);
    store.streams.delete_topic("user-b").unwrap();
    drain(&mut consumer);
    assert_eq!(consumer.assignment(), [named("user-a", 0), named("user-a", 1)]);
    let refused = consumer.subscribe_pattern("(").unwrap_err();
    assert!(matches!(refused, Error::InvalidPattern { .. }));
    assert!(matches!(consumer.subscribe(&["typo"]), Err(Error::UnknownTopic { .. })));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what other threads do meanwhile is the matter")]
fn a_poll_that_waits_is_woken_by_an_append_by_a_waker_and_by_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let dir = logmill_storage::DataDir::open(place.path()).unwrap();
    let journal =
        logmill_storage::Journal::open(&dir, "0", logmill_storage::LogConfig::default()).unwrap();
    let streams = logmill_stream::Streams::open(&dir, &journal, &Default::default()).unwrap();
    let topic = streams.create_topic("t", &TopicConfig::new()).unwrap();
    let mut consumer = streams.consumer("g", manual()).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    assert!(consumer.poll(Duration::from_millis(20)).unwrap().is_empty());
    let waker = consumer.waker();
    let mut poll_long = |then: &dyn Fn()| {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| texts(&consumer.poll(Duration::from_secs(600)).unwrap()));
            then();
            waiting.join().unwrap()
        })
    };
    assert_eq!(poll_long(&|| append(&topic, 0, &["x"])), ["x"]);
    assert_eq!(poll_long(&|| waker.wake()), [""; 0]);
}

#[test]
fn paused_partitions_give_nothing_until_they_are_resumed() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 2);
    let mut consumer = store.subscriber("g", "t");
    consumer.pause(&[named("t", 0)]).unwrap();
    append(&topic, 0, &["a"]);
    append(&topic, 1, &["b"]);
    assert_eq!(drain(&mut consumer), ["b"]);
    assert_eq!(consumer.paused(), [named("t", 0)]);
    append(&topic, 0, &["c"]);
    assert_eq!(drain(&mut consumer), [""; 0]);
    consumer.resume(&[named("t", 0)]).unwrap();
    assert_eq!(drain(&mut consumer), ["a", "c"]);
}

/// A consumer that had the log open went on to hand out what was deleted, up to the end of the segment.
#[test]
fn what_retention_takes_from_a_paused_partition_is_told_when_it_is_resumed() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b", "c", "d"]);
    let mut consumers = [OutOfRange::Error, OutOfRange::Earliest].map(|out_of_range| {
        let config = manual().out_of_range(out_of_range).records_max(1);
        let mut consumer = store.consumer_with(&format!("{out_of_range:?}"), config);
        consumer.subscribe(&["t"]).unwrap();
        assert_eq!(texts(&consumer.poll(Duration::ZERO).unwrap()), ["a"]);
        consumer.pause(&[named("t", 0)]).unwrap();
        consumer
    });
    topic.partition(0).unwrap().delete_records_before(3).unwrap();
    for consumer in &mut consumers {
        assert!(consumer.poll(Duration::ZERO).unwrap().is_empty(), "it is paused");
        consumer.resume(&[named("t", 0)]).unwrap();
    }
    let [strict, lenient] = &mut consumers;
    let removed = strict.poll(Duration::ZERO).unwrap_err();
    assert!(matches!(removed, Error::PositionRemoved { offset: 1, start: 3, .. }), "{removed}");
    let skipped = lenient.poll(Duration::ZERO).unwrap();
    assert_eq!((skipped.skipped()[0].position, skipped.skipped()[0].resumed_at), (1, 3));
    assert_eq!([texts(&skipped), drain(lenient)].concat(), ["d"]);
}

#[test]
fn automatic_commits_cover_what_earlier_polls_returned() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b", "c"]);
    let config = ConsumerConfig::new().start_at(StartAt::Earliest).records_max(1);
    let mut consumer = store.consumer_with("g", config.clone());
    consumer.subscribe(&["t"]).unwrap();
    consumer.poll(Duration::ZERO).unwrap();
    store.clock.advance(Duration::from_millis(4_999));
    consumer.poll(Duration::ZERO).unwrap();
    assert_eq!(consumer.committed("t", 0).unwrap(), Some(0.into()), "not before its interval");
    consumer.seek("t", 0, 1).unwrap();
    store.clock.advance(Duration::from_millis(1));
    assert_eq!(texts(&consumer.poll(Duration::ZERO).unwrap()), ["b"]);
    assert_eq!(consumer.committed("t", 0).unwrap(), Some(1.into()));
    consumer.close().unwrap();
    let mut consumer = store.consumer_with("g", config);
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(
        texts(&consumer.poll(Duration::ZERO).unwrap()),
        ["c"],
        "closing commits what was returned"
    );
}

#[test]
fn a_position_that_retention_removed_is_skipped_visibly_or_is_an_error_as_chosen() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a", "b", "c", "d"]);
    let consumer = |group: &str, policy| {
        let mut consumer = store.consumer_with(group, manual().records_max(1).out_of_range(policy));
        consumer.subscribe(&["t"]).unwrap();
        consumer.poll(Duration::ZERO).unwrap();
        consumer.seek("t", 0, 1).unwrap();
        consumer
    };
    let mut earliest = consumer("earliest", OutOfRange::Earliest);
    let mut latest = consumer("latest", OutOfRange::Latest);
    let mut error = consumer("error", OutOfRange::Error);
    topic.partition(0).unwrap().delete_records_before(3).unwrap();

    let records = earliest.poll(Duration::ZERO).unwrap();
    assert_eq!((records.skipped()[0].position, records.skipped()[0].resumed_at), (1, 3));
    assert_eq!([texts(&records), drain(&mut earliest)].concat(), ["d"]);
    let records = latest.poll(Duration::ZERO).unwrap();
    assert_eq!((records.skipped()[0].position, records.skipped()[0].resumed_at), (1, 4));
    assert_eq!(drain(&mut latest), [""; 0]);
    for _ in 0..2 {
        let removed = error.poll(Duration::ZERO).unwrap_err();
        assert!(matches!(removed, Error::PositionRemoved { offset: 1, start: 3, .. }), "{removed}");
    }
    error.seek_to_beginning("t", 0).unwrap();
    assert_eq!(drain(&mut error), ["d"]);
}

/// The partition that failed was looked at first by the next poll too, and nothing else was ever read.
#[test]
fn a_partition_that_cannot_be_read_does_not_keep_the_others_from_being_read() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 2);
    (0..2).for_each(|partition| append(&topic, partition, &["a"]));
    let mut consumer =
        store.consumer_with("g", manual().out_of_range(OutOfRange::Error).records_max(1));
    consumer.subscribe(&["t"]).unwrap();
    (0..2).for_each(|partition| assert_eq!(consumer.position("t", partition).unwrap(), 0));
    append(&topic, 1, &["b", "c"]);
    topic.partition(0).unwrap().delete_records_before(1).unwrap();
    let (mut read, mut errors) = (Vec::new(), 0);
    for _ in 0..6 {
        match consumer.poll(Duration::ZERO) {
            Ok(records) => read.extend(texts(&records)),
            Err(error) => {
                assert!(matches!(error, Error::PositionRemoved { .. }), "{error}");
                errors += 1;
            }
        }
    }
    assert_eq!((read.as_slice(), errors), (&["a".into(), "b".into(), "c".into()][..], 3));
}

#[test]
fn a_group_of_the_other_kind_and_a_group_in_use_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    store.topic("t", 1);
    let consumer = store.subscriber("g", "t");
    assert!(matches!(store.streams.delete_group("g"), Err(Error::GroupActive { members: 1, .. })));
    let mut other = store.consumer("g");
    other.assign(&[named("t", 0)]).unwrap();
    let refused = other.commit_offsets(&[(named("t", 0), 0.into())]).unwrap_err();
    assert!(matches!(refused, Error::GroupActive { .. }), "{refused}");
    drop(consumer);
    other.commit_offsets(&[(named("t", 0), 0.into())]).unwrap();
    store.streams.delete_group("g").unwrap();
    assert!(matches!(store.streams.delete_group("g"), Err(Error::UnknownGroup { .. })));
    assert!(store.streams.groups().unwrap().is_empty());
}

#[test]
fn a_group_without_members_can_be_sent_anywhere() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 2);
    for n in 0..10 {
        let value = format!("{n}");
        let record = logmill_storage::Record::value(value.as_bytes()).timestamp(n * 1_000);
        topic.partition(0).unwrap().append(&record).unwrap();
    }
    let mut consumer = store.subscriber("g", "t");
    assert_eq!(drain(&mut consumer).len(), 10);
    consumer.commit().unwrap();
    let refused = store.streams.reset_group("g", "t", ResetTo::Earliest).unwrap_err();
    assert!(matches!(refused, Error::GroupActive { members: 1, .. }));
    drop(consumer);
    for (to, left) in [
        (ResetTo::Earliest, 10),
        (ResetTo::Latest, 0),
        (ResetTo::Offset(7), 3),
        (ResetTo::Offset(1_000), 0),
        (ResetTo::Timestamp(2_500), 7),
        (ResetTo::Timestamp(99_000), 0),
    ] {
        store.streams.reset_group("g", "t", to).unwrap();
        assert_eq!(drain(&mut store.subscriber("g", "t")).len(), left, "{to:?}");
    }
    assert!(matches!(
        store.streams.reset_group("h", "t", ResetTo::Earliest),
        Err(Error::UnknownGroup { .. })
    ));
    assert!(matches!(
        store.streams.reset_group("g", "u", ResetTo::Earliest),
        Err(Error::UnknownTopic { .. })
    ));
}

#[test]
fn a_group_is_described_with_its_members_its_positions_and_its_lag() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 2);
    append(&topic, 0, &["a", "b", "c"]);
    let mut consumer = store.consumer_with("g", manual().instance("i").records_max(1));
    consumer.subscribe(&["t"]).unwrap();
    consumer.poll(Duration::ZERO).unwrap();
    let remark = OffsetAndMetadata { offset: 1, metadata: "half".into() };
    consumer.commit_offsets(&[(named("t", 0), remark)]).unwrap();
    let group = store.streams.describe_group("g").unwrap();
    assert_eq!((group.phase, group.lag(), group.partitions.len()), (GroupPhase::Stable, 2, 2));
    let first = &group.partitions[0];
    assert_eq!(
        (first.committed, first.metadata.as_str(), first.end, first.lag),
        (Some(1), "half", 3, 2)
    );
    assert_eq!(first.member, Some(group.members[0].id));
    assert_eq!(group.members[0].instance.as_deref(), Some("i"));
    assert_eq!(group.members[0].partitions, [named("t", 0), named("t", 1)]);
    consumer.unsubscribe().unwrap();
    let group = store.streams.describe_group("g").unwrap();
    assert_eq!((group.phase, group.members.len(), group.lag()), (GroupPhase::Empty, 0, 2));
    assert!(matches!(store.streams.describe_group("h"), Err(Error::UnknownGroup { .. })));
    let long = OffsetAndMetadata { offset: 1, metadata: "x".repeat(4_097) };
    let refused = consumer.commit_offsets(&[(named("t", 0), long)]).unwrap_err();
    assert!(matches!(refused, Error::MetadataTooLong { bytes: 4_097 }));
}

/// They were left out of the lag, which said that there was nothing to be read.
#[test]
fn partitions_without_a_position_of_a_topic_that_a_group_reads_count_from_where_it_would_begin() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a"]);
    let mut consumer = store.subscriber("g", "t");
    drain(&mut consumer);
    consumer.commit().unwrap();
    drop(consumer);
    for (name, start) in [("late", StartAt::Latest), ("early", StartAt::Earliest)] {
        let group = ShareGroupConfig::new().start_at(start);
        let config = ShareConsumerConfig::new().group(group);
        let mut consumer = store.streams.share_consumer(name, config).unwrap();
        consumer.subscribe(&["t"]).unwrap();
        consumer.poll(Duration::ZERO).unwrap();
        consumer.close().unwrap();
    }
    topic.add_partitions(3).unwrap();
    append(&topic, 1, &["b", "c"]);
    store.topic("unread", 1);
    for (group, lag) in [("g", 2), ("late", 0), ("early", 2)] {
        let group = store.streams.describe_group(group).unwrap();
        let partitions: Vec<_> = group.partitions.iter().map(|at| at.partition.clone()).collect();
        assert_eq!(partitions, [named("t", 0), named("t", 1), named("t", 2)], "{}", group.name);
        assert_eq!((group.partitions[1].committed, group.lag()), (None, lag), "{}", group.name);
    }
    let mut nowhere = store.consumer_with("nowhere", manual().start_at(StartAt::Nowhere));
    nowhere.assign(&[named("t", 2)]).unwrap();
    assert!(matches!(nowhere.poll(Duration::ZERO), Err(Error::NoPosition { .. })));
    assert!(!place.path().join("1/2").exists(), "to be asked for its end makes no log");
}

#[test]
fn a_position_whose_records_a_power_loss_took_back_is_an_error_and_skips_nothing() {
    let disk = SimDisk::new(7);
    let (_journal, streams) = simulated(&disk);
    let config = TopicConfig::new().durability(Durability::Buffered);
    let topic = streams.create_topic("t", &config).unwrap();
    append(&topic, 0, &["a", "b", "c"]);
    let mut consumer = streams.consumer("g", manual()).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(drain(&mut consumer), ["a", "b", "c"]);
    consumer.commit().unwrap();
    // The position was synced; the records were not, and are gone. New ones have their offsets.
    disk.crash(&CrashPlan::nothing());
    let (_journal, streams) = simulated(&disk);
    let topic = streams.topic("t").unwrap();
    assert_eq!(topic.partition(0).unwrap().end_offset().unwrap(), 0, "the power loss took them");
    append(&topic, 0, &["d", "e", "f", "g"]);
    let mut consumer = streams.consumer("g", manual()).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    for _ in 0..2 {
        let lost = consumer.poll(Duration::ZERO).unwrap_err();
        assert!(
            matches!(lost, Error::PositionLost { offset: 3, end: 0, .. }),
            "not \"g\", which is what lies at offset 3 now: {lost}"
        );
    }
    consumer.seek_to_beginning("t", 0).unwrap();
    assert_eq!(drain(&mut consumer), ["d", "e", "f", "g"]);
}

/// A store on a simulated disk; what it has not synced can be lost.
fn simulated(disk: &SimDisk) -> (Journal, Streams) {
    let dir = DataDirOptions::new().threads(0).open_with(disk.io()).unwrap();
    let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
    let streams = Streams::open(&dir, &journal, &StreamsOptions::default()).unwrap();
    (journal, streams)
}

/// Its silence was counted from when the group had last looked at who was silent, which a member that polls all the time gives
/// no reason for: one that was replaced within seconds found its partitions with others.
#[test]
fn a_static_member_that_goes_keeps_its_place_for_its_session_time_out_from_then_on() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    store.topic("t", 2);
    let join = |instance: &str| {
        let config = manual().instance(instance).session_timeout(Duration::from_secs(60));
        let mut consumer = store.consumer_with("g", config);
        consumer.subscribe(&["t"]).unwrap();
        consumer
    };
    let (mut a, mut b) = (join("a"), join("b"));
    settle(&mut [&mut a, &mut b]);
    let (of_a, of_b) = (numbers(&a), numbers(&b));
    assert_eq!((of_a.len(), of_b.len()), (1, 1));
    store.clock.advance(Duration::from_secs(59));
    settle(&mut [&mut a, &mut b]);
    drop(a);
    store.clock.advance(Duration::from_secs(59));
    settle(&mut [&mut b]);
    assert_eq!(numbers(&b), of_b, "it may come back for another second");
    let mut a = join("a");
    settle(&mut [&mut a, &mut b]);
    assert_eq!((numbers(&a), numbers(&b)), (of_a, of_b));
    drop(a);
    store.clock.advance(Duration::from_secs(61));
    settle(&mut [&mut b]);
    assert_eq!(numbers(&b), [0, 1]);
}

/// The end of the longest time-out was beyond the end of time, and computing it panicked.
#[test]
fn a_member_may_have_all_the_time_in_the_world() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    store.clock.advance(Duration::from_secs(1));
    let mut patient = store.consumer_with("g", manual().session_timeout(Duration::MAX));
    patient.subscribe(&["t"]).unwrap();
    let mut other = store.subscriber("g", "t");
    store.clock.advance(Duration::from_secs(100 * 365 * 86_400));
    settle(&mut [&mut other]);
    append(&topic, 0, &["a"]);
    assert_eq!(drain(&mut patient), ["a"]);
    patient.commit().unwrap();
}
