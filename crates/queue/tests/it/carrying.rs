//! Giving back the journal's space on a disk that fails at one call: nothing that was acknowledged is lost, nothing that was
//! deleted comes back, and the next round works.

use std::time::Duration;

use logmill_queue::{
    DeduplicationWindow, Durability, Edit, Error, Message, MessageId, Missed, Queue, QueueConfig,
    QueuesOptions, ReceiveOptions, Repeat, Section,
};
use logmill_storage::Clock;
use logmill_storage::io::sim::{CrashPlan, Fault};

use crate::store::{START, Store, bodies, none, receive, receive_one, send, text};

const DAY: Duration = Duration::from_secs(86_400);

fn small_segments() -> QueuesOptions {
    QueuesOptions::default()
        .segment_bytes_max(64 << 10)
        .checkpoint_bytes(1 << 30)
        .durability(Durability::Buffered)
}

/// Sends and deletes so much that some segments of the journal hold little else than what was there before.
fn churn(store: &Store, queue: &Queue) {
    for _ in 0..60 {
        let batch = [Message::new(&[7; 250]).priority(9); 20];
        assert!(queue.send_batch(&batch).unwrap().iter().all(Result::is_ok));
        let receipts: Vec<_> = receive(queue, 20)
            .iter()
            .filter(|message| message.body() == [7; 250])
            .map(|message| *message.receipt())
            .collect();
        assert_eq!(receipts.len(), 20);
        assert!(queue.delete_batch(&receipts).unwrap().iter().all(Result::is_ok));
    }
    store.queues().tick();
}

/// `QueueOwner::carry` passed over a message that it could not read, and the segment went all the same.
#[test]
fn a_read_that_fails_while_space_is_given_back_loses_no_message() {
    for nth in 0.. {
        let mut store = Store::with(1, small_segments());
        let queue = store.create("q", QueueConfig::standard());
        send(&queue, "stuck");
        churn(&store, &queue);
        let (before, fired) = (store.disk.ops().total(), store.disk.faults_fired());
        store.disk.fail_nth(before + nth, Fault::Eio);
        let done = store.queues().reclaim();
        let has_fired = store.disk.faults_fired() > fired;
        store.disk.heal();
        drop(queue);
        store.kill();
        assert_eq!(bodies(&store.queue("q"), 9), ["stuck"], "call {nth} failed: {done:?}");
        if !has_fired {
            assert!(nth > 10, "{nth} calls");
            break;
        }
    }
}

/// An id that was seen stood in the segment that was given back, and nowhere else but in a checkpoint.
#[test]
fn an_id_that_is_remembered_outlives_the_segment_in_which_it_was_sent() {
    let mut store = Store::with(1, small_segments());
    let queue = store.create("q", QueueConfig::standard());
    let fifo = store.create("f.fifo", QueueConfig::fifo());
    churn(&store, &queue);
    store.queues().reclaim().unwrap();
    let message = Message::new(b"once").group("g").deduplication_id("id");
    assert!(!fifo.send(&message).unwrap().duplicate);
    let got = receive_one(&fifo);
    fifo.delete(got.receipt()).unwrap();
    churn(&store, &queue);
    store.queues().reclaim().unwrap();
    drop((queue, fifo));
    store.kill();
    assert!(store.queue("f.fifo").send(&message).unwrap().duplicate);
}

/// Where two opens lie on either side of a jump of the wall clock, time goes on where it was, and so after the next open:
/// the entry that says so is in the journal, in a checkpoint, or in a copy of what a segment that is gone said.
#[test]
fn time_keeps_its_pace_after_the_wall_clock_was_set_back_wherever_it_is_said() {
    let day = 86_400_000;
    for place in ["journal", "checkpoint", "copy"] {
        let mut store = Store::with(1, small_segments());
        let q = store.create("q", QueueConfig::standard());
        let later = store.create("later", QueueConfig::standard());
        send(&later, "held");
        drop((q, later));
        store.clock.set_wall_ms(START - day);
        store.kill();
        let later = store.queue("later");
        later.send(&Message::new(b"delayed").delay(Duration::from_secs(10))).unwrap();
        receive_one(&later);
        drop(later);
        store.pass(4_000);
        match place {
            "checkpoint" => store.reopen(),
            "copy" => {
                let first = "0/00000000000000000000.log";
                churn(&store, &store.queue("q"));
                store.queues().reclaim().unwrap();
                assert!(!store.disk.paths().iter().any(|path| path == first));
            }
            _ => {}
        }
        store.disk.kill();
        store.pass(5_999);
        store.kill();
        let later = store.queue("later");
        assert_eq!(bodies(&later, 1), none(), "{place}");
        store.pass(1);
        assert_eq!(bodies(&later, 1), ["delayed"], "{place}");
        // The clock is put right: everything comes sooner than it should, and nothing is lost.
        store.disk.kill();
        store.clock.set_wall_ms(store.clock.wall_ms() + day);
        store.kill();
        let later = store.queue("later");
        let got = receive(&later, 9);
        let again: Vec<_> = got.iter().map(|got| (text(got.body()), got.receive_count())).collect();
        assert_eq!(again, [("held".to_owned(), 2), ("delayed".to_owned(), 2)], "{place}");
    }
}

/// What says what a queue is was written to the cold part in pieces, and of two the first made an end of the older copy.
#[test]
fn what_a_queue_is_and_remembers_is_carried_as_a_whole_wherever_it_is_cut() {
    let store = Store::with(1, small_segments());
    let queue = store.create("q", QueueConfig::standard());
    let fifo = store.create("f.fifo", QueueConfig::fifo().retention(DAY));
    let ids: Vec<String> = (0..50_000).map(|i| format!("{i}")).collect();
    for ids in ids.chunks(1000) {
        let batch: Vec<_> =
            ids.iter().map(|id| Message::new(b"m").group("g").deduplication_id(id)).collect();
        assert!(fifo.send_batch(&batch).unwrap().iter().all(Result::is_ok));
        let got = receive(&fifo, 1000);
        assert_eq!(got.len(), 1000);
        let receipts: Vec<_> = got.iter().map(|message| *message.receipt()).collect();
        assert!(fifo.delete_batch(&receipts).unwrap().iter().all(Result::is_ok));
    }
    churn(&store, &queue);
    store.queues().reclaim().unwrap();
    fifo.set_tags(&[("printer".to_owned(), "2".to_owned())].into()).unwrap();
    churn(&store, &queue);
    let mut cuts = 0;
    for inside in [false, true] {
        for nth in 0.. {
            let mut store = store.fork(nth);
            let before = store.disk.ops().total();
            if inside {
                store.disk.stop_inside(before + nth)
            } else {
                store.disk.stop_at(before + nth)
            }
            let _ = store.queues().reclaim();
            if !store.disk.is_stopped() {
                break;
            }
            cuts += 1;
            store.kill();
            let fifo = store.queue("f.fifo");
            assert_eq!(fifo.tags().unwrap()["printer"], "2");
            for id in [&ids[0], &ids[49_999]] {
                let message = Message::new(b"m").group("g").deduplication_id(id);
                assert!(fifo.send(&message).unwrap().duplicate, "{id}, cut at call {nth}");
            }
        }
    }
    assert!(cuts > 20, "{cuts} cuts");
}

/// A queue whose messages had all gone began to count again where it stood when its attributes were last set.
#[test]
fn a_number_is_not_given_again_when_the_segments_of_those_that_had_it_are_gone() {
    let mut store = Store::with(1, small_segments());
    let queue = store.create("q", QueueConfig::standard());
    let numbered = store.create("n", QueueConfig::standard());
    churn(&store, &queue);
    store.queues().reclaim().unwrap();
    for _ in 0..5 {
        send(&numbered, "m");
        numbered.delete(receive_one(&numbered).receipt()).unwrap();
    }
    churn(&store, &queue);
    store.queues().reclaim().unwrap();
    drop((queue, numbered));
    store.kill();
    assert_eq!(send(&store.queue("n"), "m"), 6);
}

/// The same of the numbers of queues.
#[test]
fn the_number_of_a_deleted_queue_is_not_given_again() {
    let mut store = Store::with(1, small_segments());
    let queue = store.create("q", QueueConfig::standard());
    store.create("gone", QueueConfig::standard());
    let old = send(&store.queue("gone"), "m");
    let old = store.queue("gone").page(Section::Ready, old - 1, 1).unwrap()[0].id();
    store.queues().delete("gone").unwrap();
    for _ in 0..40 {
        // Each round carries what the queues are, so that the cold part has segments to give back, too.
        let tags = (0..50).map(|n| (format!("{n}"), "v".repeat(256))).collect();
        queue.set_tags(&tags).unwrap();
        churn(&store, &queue);
        store.queues().reclaim().unwrap();
    }
    let first = |path: &String| path.starts_with("0/1/") && path.ends_with(".log");
    let cold = store.disk.paths().into_iter().find(first).unwrap();
    assert_ne!(cold, "0/1/00000000000000000000.log", "a cold segment has gone");
    drop(queue);
    store.kill();
    let new = store.create("new", QueueConfig::standard());
    send(&new, "m");
    let new = new.page(Section::Ready, 0, 1).unwrap()[0].id();
    assert_ne!(new, old);
}

#[test]
fn an_id_that_is_unique_until_its_message_is_deleted_outlives_segments_too() {
    let mut store = Store::with(1, small_segments());
    let queue = store.create("q", QueueConfig::standard());
    let until_deleted = QueueConfig::fifo().deduplication_window(DeduplicationWindow::UntilDeleted);
    let fifo = store.create("f.fifo", until_deleted);
    // What the queue is was carried before it had any ids.
    churn(&store, &queue);
    store.queues().reclaim().unwrap();
    let message = |id| Message::new(b"once").group("g").deduplication_id(id);
    let ids = ["waits", "edited", "done"];
    let sent = ids.map(|id| fifo.send(&message(id)).unwrap());
    let got = fifo.receive(&ReceiveOptions::new().max(3)).unwrap();
    fifo.delete(got[2].receipt()).unwrap();
    got[..2].iter().for_each(|got| fifo.release(got.receipt()).unwrap());
    for _ in 0..2 {
        churn(&store, &queue);
        fifo.edit(sent[1].id, &Edit::new().body(b"edited")).unwrap();
        churn(&store, &queue);
        store.queues().reclaim().unwrap();
    }
    drop((queue, fifo));
    store.kill();
    let fifo = store.queue("f.fifo");
    let again = ids.map(|id| fifo.send(&message(id)).unwrap().duplicate);
    assert_eq!(again, [true, true, false]);
    let got = fifo.receive(&ReceiveOptions::new().max(3)).unwrap();
    fifo.delete(got[0].receipt()).unwrap();
    assert!(!fifo.send(&message("waits")).unwrap().duplicate);
}

/// Keeps what is sent next away from what was sent before: what lies close behind damage cannot be reached.
fn set_apart(queue: &Queue) {
    queue.send(&Message::new(&[7; 5000])).unwrap();
    queue.delete(receive_one(queue).receipt()).unwrap();
}

const SEGMENT: &str = "0/00000000000000000000.log";

/// Where the latest entry with a body is, that nobody has in memory.
fn position(store: &Store, body: &[u8]) -> u64 {
    let bytes = store.disk.read_file(SEGMENT).unwrap();
    (0..bytes.len()).rev().find(|at| bytes[*at..].starts_with(body)).unwrap() as u64
}

fn damage(store: &Store, body: &[u8]) {
    store.disk.flip_bit(SEGMENT, position(store, body) * 8).unwrap();
}

/// What lay behind a damaged message, up to the next entry of the segment's index, could not be read.
#[test]
fn a_damaged_message_hides_none_that_was_sent_with_it_or_right_after_it() {
    let mut store = Store::with(1, small_segments());
    let queue = store.create("q", QueueConfig::standard());
    for body in ["first", "damaged", "damaged, too", "last"] {
        send(&queue, body);
    }
    drop(queue);
    // Nobody has them in memory.
    store.reopen();
    damage(&store, b"damaged");
    damage(&store, b"damaged");
    let queue = store.queue("q");
    assert_eq!(bodies(&queue, 4), ["first", "last"]);
    assert_eq!(queue.tally().unwrap().unreadable, 2);
}

/// A head says where its frame ends: without it, what follows up to the next entry of an index was out of reach.
#[test]
fn a_damaged_head_hides_its_own_message_alone_which_is_named_and_counted() {
    let mut store = Store::with(1, small_segments());
    let queue = store.create("q", QueueConfig::standard());
    let sent: Vec<String> = (0..100).map(|at| format!("{at:03} {}", "x".repeat(96))).collect();
    let ids: Vec<_> =
        sent.iter().map(|body| queue.send(&Message::new(body.as_bytes())).unwrap().id).collect();
    drop(queue);
    // Nobody has them in memory.
    store.reopen();
    // A value is followed by an empty list of headers, and that by the next frame's head.
    let head = position(&store, sent[49].as_bytes()) + 100 + 1;
    store.disk.flip_bit(SEGMENT, (head + 9) * 8).unwrap();
    let queue = store.queue("q");
    let got = bodies(&queue, 100);
    assert_eq!((&got[..50], &got[50..]), (&sent[..50], &sent[51..]));
    assert_eq!(queue.tally().unwrap().unreadable, 1);
    assert_eq!(queue.counts().unwrap().in_flight, 100, "none is forgotten");
    let refused = queue.find(ids[50]).unwrap_err();
    assert!(
        matches!(&refused, Error::Unreadable { id: found, .. } if *found == ids[50]),
        "{refused}"
    );
}

#[test]
fn a_damaged_message_keeps_its_segment_and_holds_up_no_other() {
    let store = Store::with(1, small_segments());
    let queue = store.create("q", QueueConfig::standard());
    store.create("dead", QueueConfig::standard());
    let limited = QueueConfig::standard().dead_letter("dead", 2);
    let jobs = store.create("jobs", limited);
    for body in ["first", "damaged", "last"] {
        send(&jobs, body);
        set_apart(&queue);
    }
    let id = jobs.page(Section::Ready, 1, 1).unwrap()[0].id();
    churn(&store, &queue);
    damage(&store, b"damaged");
    let segments = || store.disk.paths().iter().filter(|path| path.ends_with(".log")).count();
    let before = segments();
    for _ in 0..2 {
        assert!(store.queues().reclaim().is_err());
        assert_eq!(segments(), before, "it keeps its segment and those behind it");
    }
    let refused = jobs.find(id).unwrap_err();
    assert!(matches!(refused, Error::Unreadable { id: found, .. } if found == id), "{refused}");
    // Others are received beside it, and deleted.
    let got = receive(&jobs, 3);
    assert_eq!(got.iter().map(|got| got.body()).collect::<Vec<_>>(), [&b"first"[..], b"last"]);
    got.iter().for_each(|got| jobs.delete(got.receipt()).unwrap());
    assert_eq!(jobs.tally().unwrap().unreadable, 1);
    store.pass(31_000);
    let alone = jobs.receive(&ReceiveOptions::new()).unwrap_err();
    assert!(matches!(alone, Error::Unreadable { id: found, .. } if found == id), "{alone}");
    store.pass(31_000);
    // It cannot be moved to the dead-letter queue, and is kept as dead.
    assert_eq!(bodies(&jobs, 3), none());
    assert_eq!((jobs.counts().unwrap().ready, jobs.counts().unwrap().dead), (0, 1));
    send(&jobs, "more");
    assert_eq!(bodies(&jobs, 3), ["more"]);
    assert!(store.queues().reclaim().is_err());
    jobs.cancel(id).unwrap();
    store.queues().reclaim().unwrap();
    assert!(segments() < before);
}

#[test]
fn a_damaged_dead_letter_stays_when_the_others_are_redriven() {
    let store = Store::with(1, small_segments());
    let queue = store.create("q", QueueConfig::standard());
    store.create("dead", QueueConfig::standard());
    let jobs = store.create("jobs", QueueConfig::standard().dead_letter("dead", 2));
    for body in ["first", "damaged", "last"] {
        send(&jobs, body);
        jobs.reject(receive_one(&jobs).receipt(), "never").unwrap();
        set_apart(&queue);
    }
    churn(&store, &queue);
    damage(&store, b"damaged");
    let dead = store.queue("dead");
    dead.redrive(&logmill_queue::RedriveOptions::new()).unwrap();
    store.queues().tick();
    assert_eq!(bodies(&jobs, 3), ["first", "last"]);
    assert_eq!(dead.counts().unwrap().ready, 1);
}

/// What has become of a message so far.
fn history(queue: &Queue, id: MessageId) -> String {
    match queue.find(id) {
        Ok(message) => {
            let body = String::from_utf8_lossy(message.body()).into_owned();
            format!("{body} {:?} {:?}", message.state(), message.history())
        }
        Err(Error::MessageDoesNotExist { .. }) => "gone".to_owned(),
        Err(error) => panic!("{error}"),
    }
}

/// Everything that is needed of the journal for one reason or another, some of it in the cold part already.
struct Kept {
    messages: [MessageId; 5],
}

fn keep(store: &Store) -> Kept {
    let queue = store.create("q", QueueConfig::standard());
    let jobs = store.create("jobs", QueueConfig::standard());
    let fifo = store.create("f.fifo", QueueConfig::fifo());
    let repeat = Repeat::Every(DAY);
    jobs.schedule("daily", &repeat, &Message::new(b"day"), Missed::Latest).unwrap();
    let messages =
        ["a", "b", "c", "d", "e"].map(|body| jobs.send(&Message::new(body.as_bytes())).unwrap().id);
    let got = jobs.receive(&ReceiveOptions::new().max(5).visibility_timeout(DAY / 2)).unwrap();
    assert_eq!(got.len(), 5);
    let message = Message::new(b"once").group("g").deduplication_id("early");
    assert!(!fifo.send(&message).unwrap().duplicate);
    churn(store, &queue);
    store.queues().reclaim().unwrap();
    // Each of these says something about a message that has a copy in the cold part.
    jobs.nack(got[1].receipt(), "no ink").unwrap();
    jobs.delete(got[2].receipt()).unwrap();
    jobs.release(got[3].receipt()).unwrap();
    jobs.release(got[4].receipt()).unwrap();
    jobs.edit(messages[4], &Edit::new().body(b"edited")).unwrap();
    let message = Message::new(b"once").group("g").deduplication_id("late");
    assert!(!fifo.send(&message).unwrap().duplicate);
    jobs.set_tags(&[("printer".to_owned(), "2".to_owned())].into()).unwrap();
    churn(store, &queue);
    Kept { messages }
}

impl Kept {
    fn histories(&self, store: &Store) -> [String; 5] {
        let jobs = store.queue("jobs");
        self.messages.map(|id| history(&jobs, id))
    }

    fn check(&self, store: &Store, expected: &[String; 5], context: &str) {
        assert_eq!(self.histories(store), *expected, "{context}");
        let jobs = store.queue("jobs");
        assert_eq!(jobs.schedules().unwrap()[0].name, "daily", "{context}");
        assert_eq!(jobs.tags().unwrap()["printer"], "2", "{context}");
        let fifo = store.queue("f.fifo");
        for id in ["early", "late"] {
            let message = Message::new(b"once").group("g").deduplication_id(id);
            assert!(fifo.send(&message).unwrap().duplicate, "{id}, {context}");
        }
        let sent = jobs.send(&Message::new(b"more")).unwrap();
        assert!(self.messages.iter().all(|id| *id < sent.id), "{context}");
    }
}

/// The disk fails at each call of a round in turn; then the queue goes on, and a message with half a copy is deleted; then the
/// machine stops.
#[test]
fn a_round_that_fails_anywhere_loses_nothing_and_brings_nothing_back() {
    let base = Store::with(1, small_segments().durability(Durability::Sync));
    let kept = keep(&base);
    let (mut fired, mut failed, mut went_on) = (0, 0, 0);
    for fault in [Fault::Eio, Fault::Enospc, Fault::Emfile] {
        for nth in 0.. {
            let mut store = base.fork(nth);
            let mut expected = kept.histories(&store);
            let (before, faults) = (store.disk.ops().total(), store.disk.faults_fired());
            store.disk.fail_nth(before + nth, fault);
            let first = store.queues().reclaim();
            if store.disk.faults_fired() == faults {
                assert!(nth > 10, "{nth} calls");
                break;
            }
            store.disk.heal();
            fired += 1;
            failed += u64::from(first.is_err());
            let context = format!("{fault:?} at call {nth}: {first:?}");
            let jobs = store.queue("jobs");
            // It is unknown what becomes of a delete that is not acknowledged.
            let deleted = jobs.cancel(kept.messages[3]).is_ok();
            let checked = nth % 3 == 0 && store.queues().checkpoint().is_ok();
            let second = if nth % 2 == 0 { Ok(()) } else { store.queues().reclaim() };
            went_on += u64::from(deleted && checked && first.is_err() && second.is_ok());
            drop(jobs);
            if nth % 5 == 0 {
                store.kill()
            } else {
                store.crash(&CrashPlan::random(nth))
            }
            let found = kept.histories(&store);
            if deleted {
                expected[3] = "gone".to_owned();
            } else if found[3] == "gone" {
                expected[3].clone_from(&found[3]);
            }
            kept.check(&store, &expected, &context);
            // And once more, from what is there now.
            store.queues().reclaim().unwrap();
            store.kill();
            kept.check(&store, &expected, &context);
        }
    }
    assert!(fired > 100 && failed > 30 && went_on > 5, "{fired}, {failed}, {went_on}");
}
