//! What a store tells a subscriber of `tracing`.
#![cfg(feature = "tracing")]

use std::sync::{Arc, Mutex};

use logmill::{Cleanup, ManualClock, Record, Store, TopicConfig};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as SpanRecord};
use tracing::{Event, Level, Metadata, Subscriber};

/// A line for each event: its level, the spans that it is in, its message.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// The name of each span, by its id, from 1.
    names: Vec<&'static str>,
    entered: Vec<&'static str>,
    lines: Vec<String>,
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("logmill")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut kept = self.0.lock().unwrap();
        kept.names.push(span.metadata().name());
        Id::from_u64(kept.names.len() as u64)
    }
    fn record(&self, _: &Id, _: &SpanRecord<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let mut kept = self.0.lock().unwrap();
        let spans = kept.entered.join(":");
        kept.lines.push(format!("{} {spans} {}", event.metadata().level(), message.0));
    }
    fn enter(&self, span: &Id) {
        let mut kept = self.0.lock().unwrap();
        let name = kept.names[usize::try_from(span.into_u64()).unwrap() - 1];
        kept.entered.push(name);
    }
    fn exit(&self, _: &Id) {
        self.0.lock().unwrap().entered.pop();
    }
}

#[test]
fn work_on_logs_is_told_in_spans_and_a_clean_life_warns_of_nothing() {
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        let place = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let open = || {
            let builder = Store::builder().threads(0).clock(Arc::<ManualClock>::clone(&clock));
            builder.open(place.path()).unwrap()
        };
        let store = open();
        let config = TopicConfig::new().cleanup(Cleanup::Compact).segment_bytes_max(64 << 10);
        let rows = store.create_topic("rows", config).unwrap().partition(0).unwrap();
        for _ in 0..200 {
            rows.append(&Record::value(&[7; 1_000]).key(b"row")).unwrap();
        }
        rows.compact().unwrap();
        store.close().unwrap();
        open().close().unwrap();
    });
    let kept = lines.0.lock().unwrap();
    let has = |line: &str| kept.lines.iter().any(|other| other == line);
    assert!(has("DEBUG open_log log opened"), "{:#?}", kept.lines);
    assert!(has("TRACE  appends are durable"), "{:#?}", kept.lines);
    assert!(kept.names.contains(&"compact"), "{:?}", kept.names);
    assert_eq!(kept.entered, Vec::<&str>::new(), "every span was left");
    let loud = [Level::INFO, Level::WARN, Level::ERROR].map(|level| format!("{level} "));
    let loud = |line: &&String| loud.iter().any(|level| line.starts_with(level));
    assert_eq!(kept.lines.iter().filter(loud).count(), 0, "{:#?}", kept.lines);
}
