//! What a store tells the recorder of the `metrics` crate.
#![cfg(feature = "metrics")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use logmill::{
    ConsumerConfig, ManualClock, Message, QueueConfig, Record, StartAt, Store, TopicConfig,
};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

type Values = Arc<Mutex<BTreeMap<String, f64>>>;

/// Keeps the last value of everything, by name and labels.
#[derive(Default)]
struct Kept(Values);

struct Cell(String, Values);

impl Cell {
    fn set(&self, value: f64) {
        self.1.lock().unwrap().insert(self.0.clone(), value);
    }
}

impl CounterFn for Cell {
    fn increment(&self, value: u64) {
        *self.1.lock().unwrap().entry(self.0.clone()).or_default() += value as f64;
    }
    fn absolute(&self, value: u64) {
        self.set(value as f64);
    }
}

impl GaugeFn for Cell {
    fn increment(&self, value: f64) {
        *self.1.lock().unwrap().entry(self.0.clone()).or_default() += value;
    }
    fn decrement(&self, value: f64) {
        GaugeFn::increment(self, -value);
    }
    fn set(&self, value: f64) {
        Cell::set(self, value);
    }
}

impl HistogramFn for Cell {
    fn record(&self, _: f64) {
        CounterFn::increment(self, 1);
    }
}

impl Kept {
    fn cell(&self, key: &Key) -> Arc<Cell> {
        let labels: Vec<_> = key.labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
        Arc::new(Cell(format!("{}{{{}}}", key.name(), labels.join(",")), Arc::clone(&self.0)))
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.cell(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.cell(key))
    }
}

#[test]
fn the_background_tells_the_recorder_what_was_done_and_what_waits() {
    let recorder = Kept::default();
    metrics::with_local_recorder(&recorder, || {
        let place = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let builder = Store::builder().threads(0).clock(Arc::<ManualClock>::clone(&clock));
        let store = builder.open(place.path()).unwrap();
        let topic = store.create_topic("events", TopicConfig::new()).unwrap();
        let earliest = ConsumerConfig::new().start_at(StartAt::Earliest).auto_commit(None);
        let mut consumer = store.consumer_with("audit", earliest).unwrap();
        consumer.subscribe(&["events"]).unwrap();
        for _ in 0..5 {
            topic.partition(0).unwrap().append(&Record::value(b"event")).unwrap();
        }
        let queue = store.create_queue("work", &QueueConfig::standard()).unwrap();
        queue.send(&Message::new(b"now")).unwrap();
        queue.send(&Message::new(b"later").delay(Duration::from_secs(3600))).unwrap();
        clock.advance(Duration::from_secs(30));
        store.tick();
        let stats = store.stats().unwrap();
        drop(consumer);
        store.close().unwrap();

        let values = recorder.0.lock().unwrap();
        let value = |name: &str| {
            *values.get(name).unwrap_or_else(|| panic!("{name} is not in {values:#?}"))
        };
        assert!(value("logmill_appends_total{}") >= 7.0);
        assert!(value("logmill_appended_bytes_total{}") > 0.0);
        assert!(value("logmill_reclaimed_bytes_total{}") >= 0.0);
        assert!(value("logmill_recovery_seconds{}") >= 0.0);
        assert!(value("logmill_sync_seconds{}") >= stats.activity.syncs as f64);
        assert!(value("logmill_group_appends{}") >= 1.0);
        assert_eq!(value("logmill_group_lag{group=audit}"), 5.0);
        assert_eq!(value("logmill_queue_messages{queue=work,state=ready}"), 1.0);
        assert_eq!(value("logmill_queue_messages{queue=work,state=delayed}"), 1.0);
        assert_eq!(value("logmill_queue_messages{queue=work,state=in_flight}"), 0.0);
        assert_eq!(value("logmill_queue_messages{queue=work,state=dead}"), 0.0);
        assert_eq!(value("logmill_queue_oldest_claimable_seconds{queue=work}"), 30.0);
    });
}
