//! Values that are JSON.

use std::collections::HashMap;
use std::error::Error as _;
use std::time::Duration;

use logmill_stream::{Error, ProducerConfig, ProducerRecord, TypedRecord};
use serde::{Deserialize, Serialize};

use crate::support::{TestStore, named};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Click<'a> {
    page: &'a str,
    at: u64,
}

#[test]
fn values_are_sent_and_read_and_one_that_does_not_decode_says_where_it_is() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    store.topic("clicks", 3);
    let producer = store.streams.producer(ProducerConfig::new()).unwrap();
    let at = ProducerRecord::to("clicks").partition(2).key(b"k");
    let _ = producer.send_json(&at, &Click { page: "/", at: 1 }).unwrap();
    let bad = ProducerRecord::new("clicks", b"{\"page\": \"/\"}").partition(2);
    let _ = producer.send(&bad).unwrap();
    let _ = producer.send(&ProducerRecord::tombstone("clicks", b"k").partition(2)).unwrap();
    let _ = producer.send_json(&at, &Click { page: "/b", at: 4 }).unwrap();
    producer.flush().unwrap();

    let mut consumer = store.subscriber("g", "clicks");
    let records = consumer.poll(Duration::ZERO).unwrap();
    let mut typed: Vec<_> = records.json::<Click<'_>>().collect();
    assert_eq!(typed.iter().map(|typed| typed.record.offset).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(typed.remove(3).value.unwrap(), Some(Click { page: "/b", at: 4 }));
    assert_eq!(typed.remove(2).value.unwrap(), None, "a tombstone");
    let TypedRecord { record, value } = typed.remove(1);
    let error = value.unwrap_err();
    let Error::NotDecoded { partition, offset, source } = &error else { panic!("{error}") };
    assert_eq!((partition, *offset), (&named("clicks", 2), record.offset));
    assert!(source.is_data(), "{source}");
    assert!(error.source().unwrap().is::<serde_json::Error>());
    assert!(error.to_string().starts_with("the value of record 1 in partition 2 of topic"));
    assert_eq!(typed.remove(0).value.unwrap(), Some(Click { page: "/", at: 1 }));
    store.close();
}

#[test]
fn a_value_without_json_is_not_sent() {
    let place = tempfile::tempdir().unwrap();
    let store = TestStore::open(place.path());
    let topic = store.topic("clicks", 1);
    let producer = store.streams.producer(ProducerConfig::new()).unwrap();
    let error = producer
        .send_json(&ProducerRecord::to("clicks"), &HashMap::from([((1, 2), 3)]))
        .unwrap_err();
    assert!(matches!(&error, Error::NotEncoded { topic, .. } if topic == "clicks"), "{error}");
    producer.flush().unwrap();
    assert_eq!(topic.partition(0).unwrap().end_offset().unwrap(), 0);
    store.close();
}
