//! Rows 26 to 37: order, groups, deduplication, fairness.

use std::time::Duration;

use logmill_queue::{
    DeduplicationScope, DeduplicationWindow, Error, Message, OnFailure, Queue, QueueConfig,
    ReceiveOptions, RedriveFilter, RedriveOptions,
};

use crate::store::{Store, bodies, ms, none, receive, receive_one, send};

fn fifo(store: &Store) -> Queue {
    store.create("q.fifo", QueueConfig::fifo().content_deduplication(true))
}

fn send_to(queue: &Queue, group: &str, body: &str) -> u64 {
    queue.send(&Message::new(body.as_bytes()).group(group)).unwrap().sequence
}

#[test]
fn row_26_one_group_is_one_order() {
    let store = Store::new();
    let queue = fifo(&store);
    let sent: Vec<String> = (0..100).map(|i| format!("m{i}")).collect();
    sent.iter().for_each(|body| {
        send_to(&queue, "g", body);
    });
    let mut got = Vec::new();
    while let [message] = receive(&queue, 1).as_slice() {
        got.push(crate::store::text(message.body()));
        queue.delete(message.receipt()).unwrap();
    }
    assert_eq!(got, sent);
}

#[test]
fn row_27_groups_are_handled_side_by_side_any_number_of_them() {
    let store = Store::new();
    let queue = fifo(&store);
    for i in 0..500 {
        send_to(&queue, &format!("g{i}"), &format!("first {i}"));
        send_to(&queue, &format!("g{i}"), &format!("second {i}"));
    }
    let held: Vec<_> = (0..500).map(|_| receive_one(&queue)).collect();
    assert!(
        held.iter()
            .enumerate()
            .all(|(i, message)| message.body() == format!("first {i}").as_bytes())
    );
    assert_eq!(bodies(&queue, 1000), none());
    queue.delete(held[321].receipt()).unwrap();
    assert_eq!(bodies(&queue, 1000), ["second 321"]);
}

#[test]
fn row_28_a_group_is_locked_while_any_of_its_messages_is_in_flight() {
    let store = Store::new();
    let queue = fifo(&store);
    ["a1", "a2", "a3"].iter().for_each(|body| {
        send_to(&queue, "a", body);
    });
    let held = receive(&queue, 2);
    assert_eq!(bodies(&queue, 9), none());
    queue.delete(held[0].receipt()).unwrap();
    assert_eq!(bodies(&queue, 9), none(), "a deleted prefix does not unlock");
    queue.release(held[1].receipt()).unwrap();
    assert_eq!(bodies(&queue, 9), ["a2", "a3"]);
}

#[test]
fn row_29_one_receive_takes_several_of_a_group_before_the_next() {
    let store = Store::new();
    let queue = fifo(&store);
    for (group, body) in [("a", "a1"), ("b", "b1"), ("a", "a2"), ("c", "c1"), ("a", "a3")] {
        send_to(&queue, group, body);
    }
    assert_eq!(bodies(&queue, 4), ["a1", "a2", "a3", "b1"]);
    assert_eq!(bodies(&queue, 4), ["c1"]);
}

#[test]
fn row_30_no_number_of_blocked_messages_hides_another_group() {
    let store = Store::new();
    let queue = fifo(&store);
    let bodies_of_one: Vec<String> = (0..130_000).map(|i| i.to_string()).collect();
    for some in bodies_of_one.chunks(1000) {
        let batch: Vec<_> =
            some.iter().map(|body| Message::new(body.as_bytes()).group("blocked")).collect();
        assert!(queue.send_batch(&batch).unwrap().iter().all(Result::is_ok));
    }
    receive_one(&queue);
    send_to(&queue, "free", "free");
    assert_eq!(bodies(&queue, 10), ["free"]);
    assert_eq!(queue.group_counts("blocked").unwrap().ready, 129_999);
}

#[test]
fn row_31_sequence_numbers_rise_for_ever() {
    let mut store = Store::new();
    let mut last = send_to(&fifo(&store), "g", "0");
    for i in 1..10 {
        if i % 3 == 0 {
            store.queue("q.fifo").purge().unwrap();
            store.kill();
        }
        let next = send_to(&store.queue("q.fifo"), "g", &i.to_string());
        assert!(next > last);
        last = next;
    }
}

#[test]
fn row_32_the_same_content_is_sent_once_within_the_window() {
    let mut store = Store::new();
    let queue = fifo(&store);
    let first = queue.send(&Message::new(b"same").group("g")).unwrap();
    receive_one(&queue);
    drop(queue);
    store.pass(299_999);
    store.kill();
    let queue = store.queue("q.fifo");
    let again = queue.send(&Message::new(b"same").group("h")).unwrap();
    assert_eq!((again.id, again.sequence, again.duplicate), (first.id, first.sequence, true));
    assert_eq!(queue.tally().unwrap().duplicates, 1);
    store.pass(1);
    assert!(!queue.send(&Message::new(b"same").group("g")).unwrap().duplicate);
}

#[test]
fn row_33_an_explicit_id_wins_has_a_window_and_a_scope() {
    let store = Store::new();
    let window = DeduplicationWindow::For(Duration::from_millis(50));
    let config = QueueConfig::fifo()
        .deduplication_window(window)
        .deduplication_scope(DeduplicationScope::Group);
    let queue = store.create("q.fifo", config);
    let send = |body: &'static str, group| {
        queue
            .send(&Message::new(body.as_bytes()).group(group).deduplication_id("id"))
            .unwrap()
            .duplicate
    };
    assert!(!send("a", "g"));
    assert!(send("another body", "g"));
    assert!(!send("a", "another-group"));
    store.pass(50);
    assert!(!send("a", "g"));
    let missing = queue.send(&Message::new(b"x").group("g")).unwrap_err();
    assert!(matches!(missing, Error::Missing { .. }), "{missing}");
    let batch = [
        Message::new(b"1").group("h").deduplication_id("b"),
        Message::new(b"2").group("h").deduplication_id("b"),
    ];
    let sent = queue.send_batch(&batch).unwrap();
    assert!(!sent[0].as_ref().unwrap().duplicate && sent[1].as_ref().unwrap().duplicate);
}

#[test]
fn row_34_a_receive_that_is_repeated_by_its_attempt_id_gets_the_same_messages() {
    let mut store = Store::new();
    let queue = fifo(&store);
    ["a1", "a2"].iter().for_each(|body| {
        send_to(&queue, "a", body);
    });
    send_to(&queue, "b", "b1");
    let attempt = ReceiveOptions::new().max(2).attempt_id("try-1");
    let first = queue.receive(&attempt).unwrap();
    drop(queue);
    store.pass(20_000);
    store.kill();
    let queue = store.queue("q.fifo");
    let again = queue.receive(&attempt).unwrap();
    let receipts = |messages: &[logmill_queue::ReceivedMessage]| {
        messages.iter().map(|message| message.receipt().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(receipts(&first), receipts(&again));
    store.pass(20_000);
    assert_eq!(queue.counts().unwrap().in_flight, 2, "the visibility timeout began anew");
    queue.delete(again[0].receipt()).unwrap();
    let touched = queue.receive(&attempt).unwrap();
    assert_eq!(touched.iter().map(|message| message.body()).collect::<Vec<_>>(), [b"b1"]);
}

#[test]
fn row_36_a_noisy_tenant_comes_after_quiet_ones_and_is_never_blocked() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    (0..100).for_each(|_| {
        send_to(&queue, "noisy", "n");
    });
    assert_eq!(receive(&queue, 40).len(), 40);
    send_to(&queue, "quiet", "q1");
    send(&queue, "no tenant");
    assert_eq!(bodies(&queue, 3), ["q1", "no tenant", "n"]);
    assert_eq!(bodies(&queue, 1000).len(), 59);
}

#[test]
fn a_parked_group_stands_still_in_order_until_it_is_resumed() {
    let mut store = Store::new();
    let config =
        QueueConfig::fifo().content_deduplication(true).max_receives(2).on_failure(OnFailure::Park);
    let queue = store.create("q.fifo", config);
    ["a1", "a2"].iter().for_each(|body| {
        send_to(&queue, "a", body);
    });
    send_to(&queue, "b", "b1");
    for _ in 0..2 {
        queue.nack(receive_one(&queue).receipt(), "no").unwrap();
    }
    assert_eq!(bodies(&queue, 9), ["b1"]);
    assert_eq!(queue.groups().unwrap(), [("a".to_owned(), true), ("b".to_owned(), false)]);
    drop(queue);
    store.kill();
    let queue = store.queue("q.fifo");
    store.pass(1_000_000);
    assert_eq!(bodies(&queue, 9), ["b1"], "b1 has timed out, a stands still");
    queue.resume("a").unwrap();
    assert!(matches!(queue.resume("a"), Err(Error::NotFound { .. })));
    assert_eq!(bodies(&queue, 9), ["a1", "a2"]);
}

#[test]
fn a_group_is_counted_by_itself_in_every_state() {
    let mut store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    for group in ["a", "b"] {
        (0..3).for_each(|_| {
            send_to(&queue, group, "m");
        });
        queue.send(&Message::new(b"late").group(group).delay(ms(1000))).unwrap();
    }
    let got = receive(&queue, 2);
    queue.reject(got[0].receipt(), "never").unwrap();
    drop(queue);
    for _ in 0..2 {
        let queue = store.queue("q");
        let of = |group| {
            let counts = queue.group_counts(group).unwrap();
            (counts.ready, counts.delayed, counts.in_flight, counts.dead)
        };
        assert_eq!([of("a"), of("b"), of("c")], [(1, 1, 1, 1), (3, 1, 0, 0), (0, 0, 0, 0)]);
        let all = queue.counts().unwrap();
        assert_eq!((all.ready, all.delayed, all.in_flight, all.dead), (4, 2, 1, 1));
        drop(queue);
        store.kill();
    }
}

#[test]
fn a_parked_group_is_redriven_in_order_and_goes_on_with_what_came_later() {
    let mut store = Store::new();
    let config =
        QueueConfig::fifo().content_deduplication(true).max_receives(1).on_failure(OnFailure::Park);
    let queue = store.create("q.fifo", config);
    store.create("other.fifo", QueueConfig::fifo());
    for (group, body) in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("c", "c1")] {
        send_to(&queue, group, body);
    }
    for group in ["a", "b"] {
        let got = receive_one(&queue);
        assert_eq!(got.group(), Some(group));
        queue.nack(got.receipt(), "no").unwrap();
    }
    let filter = RedriveFilter::new().group("a");
    queue.redrive(&RedriveOptions::new().filter(filter).to("other.fifo")).unwrap();
    send_to(&queue, "a", "a3");
    assert_eq!(bodies(&queue, 9), ["c1"], "a and b stand still");
    store.queues().tick();
    assert_eq!(bodies(&store.queue("other.fifo"), 9), ["a1", "a2"]);
    drop(queue);
    store.kill();
    let queue = store.queue("q.fifo");
    assert_eq!(bodies(&queue, 9), ["a3"], "b still does");
    queue.resume("b").unwrap();
    assert_eq!(bodies(&queue, 9), ["b1"]);
}

#[test]
fn a_nacked_message_with_a_delay_holds_its_group() {
    let store = Store::new();
    let queue = fifo(&store);
    ["a1", "a2"].iter().for_each(|body| {
        send_to(&queue, "a", body);
    });
    queue.nack_after(receive_one(&queue).receipt(), ms(500), "later").unwrap();
    assert_eq!(bodies(&queue, 9), none());
    store.pass(500);
    assert_eq!(bodies(&queue, 9), ["a1", "a2"]);
}
