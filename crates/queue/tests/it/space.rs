//! The journal's space: given back, never at the price of a live message; and a full disk.

use std::time::Duration;

use logmill_queue::{
    Edit, Error, Message, MessageId, MessageState, Queue, QueueConfig, QueuesOptions,
    ReceiveOptions, ReceivedMessage,
};

use crate::store::{Store, bodies, receive, receive_one, send};

#[test]
fn one_stuck_message_does_not_pin_the_segments_of_the_many_deleted_around_it() {
    let options = QueuesOptions::default()
        .segment_bytes_max(64 << 10)
        .checkpoint_bytes(64 << 10)
        .durability(logmill_queue::Durability::Buffered);
    let mut store = Store::with(1, options);
    let queue = store.create("q", QueueConfig::standard());
    let stuck = queue.send(&Message::new(b"stuck").priority(0)).unwrap().id;
    let held = receive_one(&queue);
    for _ in 0..300 {
        let batch = [Message::new(&[7; 100]); 20];
        assert!(queue.send_batch(&batch).unwrap().iter().all(Result::is_ok));
        let receipts: Vec<_> =
            receive(&queue, 20).iter().map(|message| *message.receipt()).collect();
        assert!(queue.delete_batch(&receipts).unwrap().iter().all(Result::is_ok));
        store.queues().tick();
    }
    store.queues().checkpoint().unwrap();
    store.queues().reclaim().unwrap();
    let segments = store.disk.paths().iter().filter(|path| path.ends_with(".log")).count();
    assert!(segments <= 4, "{:?}", store.disk.paths());
    let space = store.queues().space();
    assert!(space.segments > 10, "{space:?}");
    assert!(space.write_amplification() < 1.1, "{space:?}");
    assert_eq!(queue.find(stuck).unwrap().body(), b"stuck");
    store.pass(30_000);
    drop(held);
    drop(queue);
    store.kill();
    assert_eq!(bodies(&store.queue("q"), 9), ["stuck"]);
}

#[test]
fn a_full_disk_can_be_read_and_drained_and_is_written_to_again_when_space_returns() {
    let options = QueuesOptions::default().spare_bytes(256 << 10).checkpoint_bytes(1 << 30);
    let store = Store::with(1, options);
    let queue = store.create("q", QueueConfig::standard());
    store.queues().tick();
    (0..200).for_each(|i| {
        send(&queue, &format!("m{i}"));
    });
    store.pass(1000);
    store.queues().tick();
    store.disk.set_capacity(Some(store.disk.used()));
    let refused = loop {
        match queue.send(&Message::new(&[7; 5000])) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(
        matches!(refused, Error::Storage(logmill_storage::Error::DiskFull { .. })),
        "{refused}"
    );
    let got = receive(&queue, 200);
    assert_eq!(got.len(), 200, "receives need no disk space");
    for message in &got {
        queue.delete(message.receipt()).unwrap();
    }
    assert_eq!(bodies(&queue, 1).len(), queue.counts().unwrap().in_flight.min(1) as usize);
    store.disk.set_capacity(None);
    send(&queue, "again");
    assert!(queue.peek(1000).unwrap().iter().any(|message| message.body() == b"again"));
}

/// A checkpoint that found no space kept the background from giving any back.
#[test]
fn a_full_disk_is_given_back_what_was_deleted_though_there_is_no_space_for_a_checkpoint() {
    let options = QueuesOptions::default()
        .segment_bytes_max(64 << 10)
        .checkpoint_bytes(64 << 10)
        .spare_bytes(64 << 10)
        .durability(logmill_queue::Durability::Buffered);
    let store = Store::with(1, options);
    let queue = store.create("q", QueueConfig::standard());
    let mut receipts = Vec::new();
    for _ in 0..20 {
        let batch = [Message::new(&[7; 100]); 100];
        assert!(queue.send_batch(&batch).unwrap().iter().all(Result::is_ok));
        receipts.extend(receive(&queue, 100).iter().map(|message| *message.receipt()));
    }
    store.queues().tick();
    store.queues().reclaim().unwrap();
    store.queues().tick();
    let full = store.disk.used();
    store.disk.set_capacity(Some(full));
    while queue.send(&Message::new(&[7; 5000])).is_ok() {}
    assert!(store.queues().checkpoint().is_err(), "there is no space for one");
    for receipts in receipts.chunks(100) {
        assert!(queue.delete_batch(receipts).unwrap().iter().all(Result::is_ok));
    }
    for _ in 0..3 {
        store.pass(60_000);
        store.queues().tick();
    }
    assert!(store.queues().space().segments > 2, "{:?}", store.queues().space());
    assert!(store.disk.used() < full * 3 / 4, "{} of {full}", store.disk.used());
    send(&queue, "again");
}

#[test]
fn a_lease_that_a_full_disk_kept_from_being_stored_is_not_mistaken_for_a_later_one() {
    let options = QueuesOptions::default().spare_bytes(0).checkpoint_bytes(1 << 30);
    let mut store = Store::with(1, options);
    let queue = store.create("q", QueueConfig::standard());
    send(&queue, "m");
    store.disk.set_capacity(Some(store.disk.used()));
    while queue.send(&Message::new(&[7; 5000])).is_ok() {}
    while queue.send(&Message::new(&[7; 1])).is_ok() {}
    let volatile = receive_one(&queue);
    assert_eq!(volatile.body(), b"m");
    let stored = queue.find(volatile.id()).unwrap();
    assert!(matches!(stored.state(), MessageState::InFlight { .. }), "it is held all the same");
    drop(queue);
    store.disk.set_capacity(None);
    store.kill();
    let queue = store.queue("q");
    let again = receive_one(&queue);
    assert_eq!(again.body(), b"m", "the crash has forgotten the receive");
    assert!(matches!(queue.delete(volatile.receipt()), Err(Error::ReceiptHandleExpired { .. })));
    queue.delete(again.receipt()).unwrap();
}

/// Sends and deletes so much that the journal's segments before it hold nothing else than what is stuck, and gives them back.
fn churn(store: &Store, queue: &Queue) {
    let before = store.queues().space().segments;
    for _ in 0..120 {
        let batch = [Message::new(&[7; 100]).priority(9); 20];
        assert!(queue.send_batch(&batch).unwrap().iter().all(Result::is_ok));
        let receipts: Vec<_> = receive(queue, 20)
            .iter()
            .filter(|message| message.body() == [7; 100])
            .map(|message| *message.receipt())
            .collect();
        assert_eq!(receipts.len(), 20);
        assert!(queue.delete_batch(&receipts).unwrap().iter().all(Result::is_ok));
    }
    store.queues().tick();
    store.queues().reclaim().unwrap();
    assert!(store.queues().space().segments > before + 3, "{:?}", store.queues().space());
}

/// What has become of a message so far.
fn history(queue: &Queue, id: MessageId) -> String {
    let message = queue.find(id).unwrap();
    format!("{:?} {:?}", message.state(), message.history())
}

/// A message whose body had been copied to the cold part was nacked; the hot segment that held the nack was given back, and
/// after a crash without a checkpoint the message stood as it was when it was copied. Found by the model at seed 11402.
#[test]
fn what_happens_to_a_message_after_it_was_copied_outlives_the_segment_that_says_so() {
    type Change = fn(&Store, &Queue, &ReceivedMessage);
    let changes: [(&str, Change); 5] = [
        ("nacked", |_, queue, held| queue.nack(held.receipt(), "no ink").unwrap()),
        ("put off", |_, queue, held| {
            queue.nack_after(held.receipt(), Duration::from_secs(86_400), "later").unwrap();
            queue.edit(held.id(), &Edit::new().delay(Duration::from_secs(9000))).unwrap();
        }),
        ("rejected", |_, queue, held| queue.reject(held.receipt(), "never").unwrap()),
        ("timed out", |store, queue, _| {
            store.pass(3_700_000);
            assert_eq!(receive_one(queue).body(), b"stuck");
        }),
        ("extended", |_, queue, held| {
            queue.change_visibility(held.receipt(), Duration::from_secs(40_000)).unwrap();
        }),
    ];
    for (name, change) in changes {
        let options = QueuesOptions::default()
            .segment_bytes_max(64 << 10)
            .checkpoint_bytes(1 << 30)
            .durability(logmill_queue::Durability::Buffered);
        let mut store = Store::with(1, options);
        let queue = store.create("q", QueueConfig::standard());
        let stuck = queue.send(&Message::new(b"stuck")).unwrap().id;
        let for_an_hour = ReceiveOptions::new().visibility_timeout(Duration::from_secs(3600));
        let held = queue.receive(&for_an_hour).unwrap().remove(0);
        churn(&store, &queue);
        change(&store, &queue, &held);
        let before = history(&queue, stuck);
        churn(&store, &queue);
        drop(queue);
        store.kill();
        assert_eq!(history(&store.queue("q"), stuck), before, "{name}");
    }
}

#[test]
fn the_default_reserve_lets_fifteen_thousand_deletes_through_one_at_a_time() {
    let options = QueuesOptions::default()
        .durability(logmill_queue::Durability::Buffered)
        .checkpoint_bytes(1 << 30);
    let mut store = Store::with(1, options);
    let queue = store.create("q", QueueConfig::standard());
    store.queues().tick();
    let batch = [Message::new(b"m"); 1000];
    let mut receipts = Vec::new();
    for _ in 0..30 {
        assert!(queue.send_batch(&batch).unwrap().iter().all(Result::is_ok));
        receipts.extend(receive(&queue, 1000).iter().map(|message| *message.receipt()));
    }
    store.pass(1000);
    store.queues().tick();
    store.disk.set_capacity(Some(store.disk.used()));
    while queue.send(&Message::new(&[7; 5000])).is_ok() {}
    while queue.send(&Message::new(b"m")).is_ok() {}
    let refused = |receipt: &&_| {
        let deleted = queue.delete(receipt);
        assert!(
            matches!(
                deleted,
                Ok(()) | Err(Error::Storage(logmill_storage::Error::DiskFull { .. }))
            ),
            "{deleted:?}"
        );
        deleted.is_err()
    };
    let deleted = receipts.iter().position(|receipt| refused(&receipt)).expect("the reserve ends");
    assert!(deleted >= 15_000, "{deleted}");
    let in_flight = queue.counts().unwrap().in_flight;
    assert_eq!(in_flight as usize, 30_000 - deleted);
    drop(queue);
    store.disk.set_capacity(None);
    store.kill();
    assert_eq!(store.queue("q").counts().unwrap().in_flight, in_flight, "none came back");
}
