//! What goes on by itself: retention of partitions that nobody uses, the end of groups that nobody uses.

use std::time::Duration;

use logmill_storage::Record;
use logmill_stream::{Error, StreamsOptions, TopicConfig};

use crate::support::{NOW_MS, TestStore, append, drain};

fn pass(store: &TestStore, seconds: u64, step: u64) {
    for _ in 0..seconds / step {
        store.clock.advance(Duration::from_secs(step));
        store.dir.tick();
    }
}

#[test]
fn retention_reaches_partitions_whose_files_are_closed() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let config = TopicConfig::new()
        .partitions(2)
        .segment_bytes_max(4_096)
        .retention(Some(Duration::from_secs(60)));
    let topic = store.streams.create_topic("t", &config).unwrap();
    for _ in 0..10 {
        topic.partition(0).unwrap().append(&Record::value(&[0; 1_000]).timestamp(NOW_MS)).unwrap();
    }
    topic.partition(0).unwrap().stats().unwrap();
    drop(topic);
    store.close();
    let store = TestStore::open(place.path());
    assert_eq!(store.streams.open_partitions(), 0);
    pass(&store, 2 * 3_600, 10);
    let topic = store.streams.topic("t").unwrap();
    assert!(topic.partition(0).unwrap().start_offset().unwrap() > 0);
    assert!(
        !store.dir.logs().unwrap().contains(&"1/1".into()),
        "a partition without records gets no files"
    );
}

#[test]
fn a_group_is_forgotten_seven_days_after_its_last_member_and_not_before() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("t", 1);
    append(&topic, 0, &["a"]);
    let mut busy = store.consumer_with(
        "busy",
        crate::support::manual().session_timeout(Duration::from_secs(40 * 86_400)),
    );
    busy.subscribe(&["t"]).unwrap();
    let mut gone = store.subscriber("gone", "t");
    drain(&mut gone);
    gone.commit().unwrap();
    drop(gone);
    pass(&store, 6 * 86_400, 600);
    assert!(store.streams.describe_group("gone").is_ok());
    pass(&store, 2 * 86_400, 600);
    assert!(matches!(store.streams.describe_group("gone"), Err(Error::UnknownGroup { .. })));
    assert!(
        store.streams.describe_group("busy").is_ok(),
        "a group with a member stays, whether it commits or not"
    );
    drop((topic, busy));
    drop(store);
    let store = TestStore::open(place.path());
    // The new clock starts where the old one did.
    store.clock.advance(Duration::from_secs(16 * 86_400));
    pass(&store, 120, 1);
    assert!(matches!(store.streams.describe_group("busy"), Err(Error::UnknownGroup { .. })));
}

#[test]
fn groups_are_kept_for_ever_if_the_store_says_so() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::with(place.path(), &StreamsOptions::default().offsets_retention(None));
    store.topic("t", 1);
    drop(store.subscriber("g", "t"));
    pass(&store, 30 * 86_400, 3_600);
    assert!(store.streams.describe_group("g").is_ok());
}
