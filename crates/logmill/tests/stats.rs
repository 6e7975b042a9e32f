//! The numbers that a store gives are those of what it did.

use std::sync::Arc;
use std::time::Duration;

use logmill::storage::{DataDirOptions, StatsPage};
use logmill::{
    ConsumerConfig, ManualClock, Message, ProducerRecord, QueueConfig, ReceiveOptions, StartAt,
    Store, TopicConfig,
};

#[test]
fn stats_count_what_was_done_and_what_is_there() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path()).unwrap();
    store.create_topic("events", TopicConfig::new()).unwrap();
    let mut consumer = store
        .consumer_with("audit", ConsumerConfig::new().start_at(StartAt::Earliest).auto_commit(None))
        .unwrap();
    consumer.subscribe(&["events"]).unwrap();
    let producer = store.producer().unwrap();
    for _ in 0..5 {
        let sent = producer.send(&ProducerRecord::new("events", b"event")).unwrap();
        sent.wait().unwrap();
    }
    let queue = store.create_queue("work", &QueueConfig::standard()).unwrap();
    for _ in 0..4 {
        queue.send(&Message::new(b"task")).unwrap();
    }
    queue.send(&Message::new(b"later").delay(Duration::from_secs(3600))).unwrap();
    let got = queue.receive(&ReceiveOptions::new().max(2)).unwrap();
    queue.delete(got[0].receipt()).unwrap();

    let stats = store.stats().unwrap();
    assert!(stats.activity.appends >= 11, "{:?}", stats.activity);
    assert!(stats.activity.bytes > 0);
    assert!(stats.activity.syncs > 0);
    assert_eq!(stats.activity.sync_micros.count(), stats.activity.group_sizes.count());
    assert!(stats.activity.group_sizes.sum() <= stats.activity.appends);
    let [work] = stats.queues.as_slice() else { panic!("{:?}", stats.queues) };
    let counts = work.counts;
    assert_eq!((counts.ready, counts.in_flight, counts.delayed, counts.dead), (2, 1, 1, 0));
    assert!(work.oldest_claimable_age.is_some());
    let [audit] = stats.groups.as_slice() else { panic!("{:?}", stats.groups) };
    assert_eq!((audit.name.as_str(), audit.members, audit.lag), ("audit", 1, 5));
    assert!(stats.health.is_ok(), "{:?}", stats.health);

    let text = stats.to_string();
    for line in [
        "logmill_queue_messages{queue=\"work\",state=\"ready\"} 2",
        "logmill_group_lag{group=\"audit\"} 5",
        "logmill_problems 0",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }
    drop(consumer);
    store.close().unwrap();
}

#[test]
fn a_writer_publishes_its_numbers_while_it_lives_and_only_new_ones() {
    let place = tempfile::tempdir().unwrap();
    let page = || -> Option<StatsPage> {
        let dir = DataDirOptions::new().read_only(true).open(place.path()).unwrap();
        dir.stats_page().unwrap()
    };
    let clock = Arc::new(ManualClock::at(1_000_000));
    let open = || {
        let builder = Store::builder().threads(0).clock(Arc::<ManualClock>::clone(&clock));
        builder.open(place.path()).unwrap()
    };
    let tick = |store: &Store, ms| {
        clock.advance(Duration::from_millis(ms));
        store.tick();
    };
    let store = open();
    let queue = store.create_queue("work", &QueueConfig::standard()).unwrap();
    tick(&store, 999);
    assert_eq!(page(), None);
    tick(&store, 1);
    let first = page().unwrap();
    assert_eq!(first.taken_at, 1_001_000);
    assert!(first.text.contains("{queue=\"work\",state=\"ready\"} 0\n"), "{}", first.text);
    tick(&store, 1_000);
    assert_eq!(page(), Some(first), "there was nothing new to say");
    queue.send(&Message::new(b"task")).unwrap();
    tick(&store, 1_000);
    let second = page().unwrap();
    assert_eq!(second.taken_at, 1_003_000);
    assert!(second.text.contains("{queue=\"work\",state=\"ready\"} 1\n"), "{}", second.text);

    let file = place.path().join("stats");
    drop((store, queue));
    assert!(file.exists());
    assert_eq!(page(), None, "its writer is dead");
    let store = open();
    assert_eq!(page(), None, "another writer has said nothing yet");
    tick(&store, 1_000);
    assert!(page().is_some());
    store.close().unwrap();
    assert!(!file.exists());
}
