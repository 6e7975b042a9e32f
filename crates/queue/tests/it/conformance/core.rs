//! Rows 1 to 25: the core.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use logmill_queue::{
    Attribute, AttributeKind, Error, Message, QueueConfig, ReceiveOptions, Section, WorkerOptions,
};

use crate::store::{START, Store, bodies, ms, none, receive, receive_one, send, send_each};

#[test]
fn row_01_two_consumers_never_hold_one_message() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    (0..20).for_each(|i| {
        send(&queue, &i.to_string());
    });
    let mut all: Vec<String> = (0..10).flat_map(|_| bodies(&queue, 3)).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 20);
}

#[test]
fn row_02_each_message_is_acknowledged_by_itself() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    send_each(&queue, &["a", "b", "c"]);
    let got = receive(&queue, 3);
    queue.delete(got[1].receipt()).unwrap();
    store.pass(30_000);
    assert_eq!(bodies(&queue, 9), ["a", "c"]);
}

#[test]
fn row_03_a_message_is_visible_again_at_its_timeout_and_not_before() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard().visibility_timeout(ms(1500)));
    send(&queue, "m");
    receive_one(&queue);
    store.pass(1499);
    assert_eq!(bodies(&queue, 1), none());
    store.pass(1);
    assert_eq!(bodies(&queue, 1), ["m"]);
}

#[test]
fn row_04_a_lock_can_be_extended_and_shortened_from_now() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard().visibility_timeout(ms(1000)));
    send(&queue, "m");
    let got = receive_one(&queue);
    store.pass(900);
    queue.change_visibility(got.receipt(), ms(2000)).unwrap();
    store.pass(1999);
    assert_eq!(bodies(&queue, 1), none());
    queue.change_visibility(got.receipt(), ms(5)).unwrap();
    store.pass(5);
    assert_eq!(bodies(&queue, 1), ["m"]);
}

#[test]
fn row_05_no_lock_lasts_longer_than_twelve_hours_in_all() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    send(&queue, "m");
    let got = receive_one(&queue);
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    queue.change_visibility(got.receipt(), hours(12)).unwrap();
    store.pass(2 * 3_600_000);
    let beyond = queue.change_visibility(got.receipt(), hours(11)).unwrap_err();
    assert!(matches!(beyond, Error::OutOfBounds { most: 36_000_000, .. }), "{beyond}");
    queue.change_visibility(got.receipt(), hours(10)).unwrap();
}

#[test]
fn row_06_a_changed_timeout_does_not_stick_to_the_next_receive() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard().visibility_timeout(ms(1000)));
    send(&queue, "m");
    queue.change_visibility(receive_one(&queue).receipt(), ms(5000)).unwrap();
    store.pass(5000);
    receive_one(&queue);
    store.pass(1000);
    assert_eq!(bodies(&queue, 1), ["m"]);
}

#[test]
fn row_07_a_message_can_be_given_back_at_once() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    send(&queue, "m");
    queue.change_visibility(receive_one(&queue).receipt(), Duration::ZERO).unwrap();
    queue.release(receive_one(&queue).receipt()).unwrap();
    assert_eq!(receive_one(&queue).history().released, 2);
}

#[test]
fn row_08_a_released_message_keeps_its_place_and_from_the_third_receive_on_goes_to_the_back() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    send_each(&queue, &["a", "b", "c"]);
    for expected in ["a", "a", "a", "b"] {
        let got = receive_one(&queue);
        assert_eq!(got.body(), expected.as_bytes());
        queue.release(got.receipt()).unwrap();
    }
    assert_eq!(bodies(&queue, 9), ["b", "c", "a"]);
}

#[test]
fn row_09_a_receipt_handle_is_unique_per_receive() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    send(&queue, "m");
    let first = receive_one(&queue);
    store.pass(30_000);
    let second = receive_one(&queue);
    assert_ne!(first.receipt().to_string(), second.receipt().to_string());
    let stale = queue.delete(first.receipt()).unwrap_err();
    assert!(matches!(stale, Error::ReceiptHandleExpired { .. }), "{stale}");
    assert_eq!(queue.tally().unwrap().stale_receipts, 1);
    queue.delete(&second.receipt().to_string().parse().unwrap()).unwrap();
    assert_eq!(queue.counts().unwrap(), Default::default());
}

#[test]
fn row_10_a_late_acknowledgement_deletes_on_a_standard_queue_and_is_refused_on_a_fifo_one() {
    let store = Store::new();
    let standard = store.create("q", QueueConfig::standard());
    let fifo = store.create("q.fifo", QueueConfig::fifo().content_deduplication(true));
    send(&standard, "m");
    fifo.send(&Message::new(b"m").group("g")).unwrap();
    let (one, other) = (receive_one(&standard), receive_one(&fifo));
    store.pass(30_000);
    standard.delete(one.receipt()).unwrap();
    assert_eq!(bodies(&standard, 1), none());
    let late = fifo.delete(other.receipt()).unwrap_err();
    assert!(matches!(late, Error::ReceiptHandleExpired { .. }), "{late}");
    assert_eq!(bodies(&fifo, 1), ["m"]);
}

#[test]
fn row_11_the_receive_count_is_told() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    send(&queue, "m");
    for expected in 1..5 {
        let got = receive_one(&queue);
        assert_eq!(got.receive_count(), expected);
        queue.release(got.receipt()).unwrap();
    }
}

#[test]
fn row_12_the_time_of_the_first_receive_stays() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    send(&queue, "m");
    store.pass(77);
    queue.release(receive_one(&queue).receipt()).unwrap();
    store.pass(1000);
    let again = receive_one(&queue);
    assert_eq!((again.sent_at(), again.first_received_at()), (START, Some(START + 77)));
}

#[expect(clippy::disallowed_methods, reason = "somebody waits meanwhile")]
#[test]
fn row_13_a_waiting_receive_wakes_on_a_send_the_end_of_a_delay_and_the_end_of_a_timeout() {
    let store = Store::in_real_time();
    let queue = store.create("q", QueueConfig::standard().visibility_timeout(ms(30)));
    let wait = ReceiveOptions::new().wait(Duration::from_secs(3600));
    queue.send(&Message::new(b"delayed").delay(ms(20))).unwrap();
    let delayed = queue.receive(&wait).unwrap();
    assert_eq!(delayed[0].body(), b"delayed");
    let again = queue.receive(&wait).unwrap();
    assert_eq!(again[0].receive_count(), 2, "its timeout has passed");
    queue.delete(again[0].receipt()).unwrap();
    let waiting = queue.clone();
    let waiter = std::thread::spawn(move || waiting.receive(&wait).unwrap());
    send(&queue, "sent");
    assert_eq!(waiter.join().unwrap()[0].body(), b"sent");
}

#[test]
fn row_14_a_receive_gets_at_most_as_many_as_it_asks_for() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    (0..1500).for_each(|_| {
        send(&queue, "m");
    });
    assert_eq!(receive(&queue, 10).len(), 10);
    assert_eq!(receive(&queue, 1000).len(), 1000);
    assert_eq!(receive(&queue, 1000).len(), 490);
    assert!(matches!(
        queue.receive(&ReceiveOptions::new().max(1001)),
        Err(Error::OutOfBounds { most: 1000, .. })
    ));
}

#[test]
fn row_15_each_message_of_a_batch_has_its_own_result() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    let bad = [Attribute::string("AWS.x", "y")];
    let batch = [Message::new(b"a"), Message::new(b"b").attributes(&bad), Message::new(b"c")];
    let results = queue.send_batch(&batch).unwrap();
    assert!(results[0].is_ok());
    assert!(matches!(results[1], Err(Error::InvalidAttribute { .. })));
    assert_eq!(results[2].as_ref().unwrap().sequence, results[0].as_ref().unwrap().sequence + 1);
    assert_eq!(bodies(&queue, 9), ["a", "c"]);
}

#[test]
fn row_16_a_batch_of_deletes_has_a_result_for_each() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    send_each(&queue, &["a", "b"]);
    let old = receive(&queue, 2);
    queue.release(old[1].receipt()).unwrap();
    let new = receive_one(&queue);
    let receipts = [*old[0].receipt(), *old[1].receipt(), *new.receipt(), *new.receipt()];
    let results = queue.delete_batch(&receipts).unwrap();
    assert!(results[0].is_ok() && results[2].is_ok() && results[3].is_ok());
    assert!(matches!(results[1], Err(Error::ReceiptHandleExpired { .. })));
    assert_eq!(queue.counts().unwrap(), Default::default());
}

#[test]
fn row_17_a_worker_holds_no_more_messages_than_it_has_threads() {
    let store = Store::in_real_time();
    let queue = store.create("q", QueueConfig::standard());
    (0..50).for_each(|_| {
        send(&queue, "m");
    });
    let (most, watched) = (Arc::new(AtomicU64::new(0)), queue.clone());
    let seen = Arc::clone(&most);
    let worker = queue.worker(WorkerOptions::new().threads(3)).run(move |_| {
        seen.fetch_max(watched.counts()?.in_flight, Ordering::SeqCst);
        Ok(())
    });
    let worker = worker.unwrap();
    while queue.counts().unwrap() != Default::default() {
        std::thread::yield_now();
    }
    assert_eq!(worker.shutdown(Duration::from_secs(3600)).succeeded, 50);
    assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
}

#[test]
fn row_18_peeking_changes_nothing() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    queue.send(&Message::new(b"a")).unwrap();
    queue.send(&Message::new(b"b").priority(9)).unwrap();
    queue.send(&Message::new(b"c").delay(ms(5))).unwrap();
    for _ in 0..5 {
        let seen = queue.peek(10).unwrap();
        assert_eq!(seen.iter().map(|message| message.body()).collect::<Vec<_>>(), [b"b", b"a"]);
        assert_eq!(seen[0].receive_count(), 0);
    }
    assert_eq!(queue.page(Section::Delayed, 0, 10).unwrap()[0].body(), b"c");
    assert_eq!(queue.counts().unwrap().ready, 2);
}

#[test]
fn row_19_an_unread_message_can_be_deleted_by_its_id() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    send(&queue, "a");
    let sent = queue.send(&Message::new(b"b")).unwrap();
    assert_eq!(queue.find(sent.id).unwrap().body(), b"b");
    queue.cancel(sent.id.to_string().parse().unwrap()).unwrap();
    assert!(matches!(queue.find(sent.id), Err(Error::MessageDoesNotExist { .. })));
    assert_eq!(bodies(&queue, 9), ["a"]);
}

#[test]
fn row_20_a_purge_takes_messages_in_every_state_and_forgets_deduplication_ids() {
    let mut store = Store::new();
    let queue = store.create("q.fifo", QueueConfig::fifo().content_deduplication(true));
    let other = store.create("q", QueueConfig::standard());
    queue.send(&Message::new(b"m").group("g")).unwrap();
    send(&other, "in flight");
    let held = receive_one(&other);
    send(&other, "ready");
    other.send(&Message::new(b"delayed").delay(ms(9000))).unwrap();
    for queue in [&queue, &other] {
        queue.purge().unwrap();
        assert_eq!(queue.counts().unwrap(), Default::default());
    }
    other.delete(held.receipt()).unwrap();
    drop(other);
    assert!(!queue.send(&Message::new(b"m").group("g")).unwrap().duplicate);
    drop(queue);
    store.kill();
    assert_eq!(store.queue("q").counts().unwrap(), Default::default());
    assert_eq!(bodies(&store.queue("q.fifo"), 9), ["m"]);
}

#[test]
fn row_21_typed_attributes_travel_with_a_message() {
    let mut store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    let attributes = [
        Attribute::string("name", "Ada").label("person"),
        Attribute::number("size", "-12.5e3"),
        Attribute::binary("thumb", &[0, 255]),
    ];
    let message = Message::new(b"m").attributes(&attributes).trace_header("Root=1-5759e988");
    queue.send(&message).unwrap();
    drop(queue);
    store.reopen();
    let got = receive_one(&store.queue("q"));
    assert_eq!(got.attributes(), attributes);
    assert_eq!(got.attributes()[0].type_name(), "String.person");
    assert_eq!(got.attributes()[2].kind(), AttributeKind::Binary);
    assert_eq!(got.trace_header(), Some("Root=1-5759e988"));
}

#[test]
fn row_24_creating_again_finds_the_queue_or_names_the_attribute_that_differs() {
    let store = Store::new();
    store.create("q", QueueConfig::standard().delay(ms(10)));
    store.create("q", QueueConfig::standard());
    store
        .create("q", QueueConfig::standard().delay(ms(10)).retention(Duration::from_secs(345_600)));
    let conflict = store.queues().create("q", &QueueConfig::standard().delay(ms(11))).unwrap_err();
    assert!(matches!(conflict, Error::QueueNameExists { attribute: "delay", .. }), "{conflict}");
    store.queues().delete("q").unwrap();
    store.create("q", QueueConfig::standard().delay(ms(11)));
}

#[test]
fn queues_are_listed_described_tagged_and_changed_live() {
    let mut store = Store::new();
    for name in ["orders", "order-items", "invoices"] {
        store.create(name, QueueConfig::standard());
    }
    assert_eq!(store.queues().list("order"), ["order-items", "orders"]);
    let queue = store.queue("orders");
    queue.set_config(|config| config.visibility_timeout(ms(7))).unwrap();
    let tags = BTreeMap::from([("team".to_owned(), "print".to_owned())]);
    queue.set_tags(&tags).unwrap();
    drop(queue);
    store.kill();
    let queue = store.queue("orders");
    assert_eq!(queue.config().unwrap().get_visibility_timeout(), ms(7));
    assert_eq!(queue.tags().unwrap(), tags);
    store.queues().delete("orders").unwrap();
    assert!(matches!(queue.counts(), Err(Error::QueueDoesNotExist { .. })));
    drop(queue);
    store.reopen();
    assert_eq!(store.queues().list(""), ["invoices", "order-items"]);
}
