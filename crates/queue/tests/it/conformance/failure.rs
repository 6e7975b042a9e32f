//! Rows 38 to 51: what happens to messages that fail.

use std::time::Duration;

use logmill_queue::{
    DeathReason, Error, Message, Outcome, Overflow, Queue, QueueConfig, RedriveAllow,
    RedriveFilter, RedriveOptions, RedriveStatus, Retry, Section,
};
use logmill_storage::io::sim::{CrashPlan, Op};

use crate::store::{START, Store, bodies, ms, none, receive, receive_one, send, text};

/// A queue with a dead-letter queue after `max` receives.
fn with_dead_letters(store: &Store, max: u32) -> (Queue, Queue) {
    let dead = store.create("dead", QueueConfig::standard());
    (store.create("q", QueueConfig::standard().dead_letter("dead", max)), dead)
}

#[test]
fn row_38_a_message_is_received_at_most_as_often_as_permitted() {
    let store = Store::new();
    let (queue, _) = with_dead_letters(&store, 3);
    send(&queue, "m");
    for count in 1..=3 {
        let got = receive_one(&queue);
        assert_eq!(got.receive_count(), count);
        queue.nack(got.receipt(), "no").unwrap();
    }
    assert_eq!(bodies(&queue, 1), none());
}

#[test]
fn row_39_at_the_limit_the_next_receive_that_would_return_it_moves_it() {
    let store = Store::new();
    let (queue, dead) = with_dead_letters(&store, 1);
    send(&queue, "bad");
    send(&queue, "good");
    queue.nack(receive_one(&queue).receipt(), "no").unwrap();
    assert_eq!(dead.counts().unwrap().ready, 0, "not before somebody asks");
    assert_eq!(bodies(&queue, 9), ["good"]);
    assert_eq!(bodies(&dead, 9), ["bad"]);
    let alone = store.create("alone", QueueConfig::standard().max_receives(1));
    send(&alone, "bad");
    receive_one(&alone);
    store.pass(30_000);
    assert_eq!(bodies(&alone, 9), none());
    assert_eq!(alone.counts().unwrap().dead, 1, "without a dead-letter queue it stays as dead");
    let endless = store.create("endless", QueueConfig::standard());
    send(&endless, "m");
    for _ in 0..50 {
        receive_one(&endless);
        store.pass(30_000);
    }
}

#[test]
fn row_40_dead_letters_are_the_queues_own_business_and_no_consumer_is_needed() {
    let store = Store::new();
    let (queue, dead) = with_dead_letters(&store, 1);
    queue
        .set_config(|config| config.retention(Duration::from_secs(1)).expired_to_dead_letter(true))
        .unwrap();
    send(&queue, "m");
    store.pass(1000);
    store.queues().tick();
    let message = receive_one(&dead);
    assert_eq!(
        message.earlier_history().unwrap().death.as_ref().unwrap().reason,
        DeathReason::Expired
    );
}

#[test]
fn row_41_a_move_to_the_dead_letter_queue_loses_and_doubles_nothing_whenever_it_is_cut() {
    for seed in 0..60 {
        let mut store = Store::with(seed, Default::default());
        let (queue, dead) = with_dead_letters(&store, 1);
        let id = queue.send(&Message::new(b"m")).unwrap().id;
        store.reject_unsynced(&queue);
        let op = store.disk.ops().total() + seed % 8;
        store.disk.stop_at(op);
        let _ = queue.receive(&Default::default());
        drop((queue, dead));
        store.crash(&CrashPlan::random(seed));
        let (here, there) =
            (store.queue("q").find(id).is_ok(), store.queue("dead").find(id).is_ok());
        assert!(here ^ there, "seed {seed}: in the queue {here}, in the dead-letter queue {there}");
    }
}

#[test]
fn row_42_a_dead_letter_keeps_its_id_time_attributes_and_whole_history() {
    let mut store = Store::new();
    let (queue, _) = with_dead_letters(&store, 3);
    let sent = queue.send(&Message::new(b"m").trace_header("t")).unwrap();
    queue.nack(receive_one(&queue).receipt(), "no paper").unwrap();
    receive_one(&queue);
    store.pass(30_000);
    queue.nack(receive_one(&queue).receipt(), "no ink").unwrap();
    assert_eq!(bodies(&queue, 1), none());
    drop(queue);
    store.kill();
    let letter = receive_one(&store.queue("dead"));
    assert_eq!((letter.id(), letter.sent_at(), letter.trace_header()), (sent.id, START, Some("t")));
    let past = letter.earlier_history().unwrap();
    assert_eq!((past.receives, past.failed, past.timed_out), (3, 2, 1));
    assert_eq!(past.last_reason.as_deref(), Some("no ink"));
    let outcomes: Vec<_> = past.attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::TimedOut, Outcome::Failed]);
    assert_eq!(past.attempts[1].ended_at, START + 30_000);
    let death = past.death.as_ref().unwrap();
    assert_eq!((death.queue.as_str(), death.reason), ("q", DeathReason::MaxReceives));
    assert_eq!(letter.receive_count(), 1, "the dead-letter queue counts by itself");
}

#[test]
fn row_43_dead_letters_are_redriven_filtered_at_a_rate_through_crashes_and_can_be_cancelled() {
    let mut store = Store::new();
    let (queue, dead) = with_dead_letters(&store, 1);
    for i in 0..30 {
        send(&queue, &format!("m{i}"));
        queue.reject(receive_one(&queue).receipt(), "bad").unwrap();
    }
    let wrong = RedriveFilter::new().reason(DeathReason::Expired);
    dead.redrive(&RedriveOptions::new().filter(wrong)).unwrap();
    store.queues().tick();
    assert_eq!(dead.redrives().unwrap()[0].status, RedriveStatus::Completed);
    assert_eq!((queue.counts().unwrap().ready, dead.counts().unwrap().ready), (0, 30));
    let filter = RedriveFilter::new().died_in("q").reason(DeathReason::Rejected);
    let options = RedriveOptions::new().filter(filter).messages_per_second(10);
    let id = dead.redrive(&options).unwrap();
    assert!(matches!(dead.redrive(&options), Err(Error::MoveTaskRunning { .. })));
    store.queues().tick();
    let moved = queue.counts().unwrap().ready;
    assert!(moved < 30);
    store.pass(1000);
    store.queues().tick();
    assert_eq!(queue.counts().unwrap().ready, 11);
    drop((queue, dead));
    store.kill();
    store.pass(1000);
    store.queues().tick();
    let (queue, dead) = (store.queue("q"), store.queue("dead"));
    assert_eq!((queue.counts().unwrap().ready, dead.counts().unwrap().ready), (21, 9));
    dead.cancel_redrive(id).unwrap();
    store.pass(10_000);
    store.queues().tick();
    assert_eq!(dead.counts().unwrap().ready, 9);
    assert_eq!(dead.redrives().unwrap()[0].status, RedriveStatus::Cancelled);
    let again = receive_one(&queue);
    assert_eq!((text(again.body()), again.receive_count()), ("m0".to_owned(), 1));
    dead.redrive(&RedriveOptions::new().to("q")).unwrap();
    store.queues().tick();
    assert_eq!(dead.counts().unwrap(), Default::default());
}

#[test]
fn messages_that_died_in_place_are_redriven_in_place() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard().max_receives(2));
    let id = queue.send(&Message::new(b"m")).unwrap().id;
    queue.reject(receive_one(&queue).receipt(), "bad").unwrap();
    let dead = queue.page(Section::Dead, 0, 10).unwrap();
    assert_eq!((dead[0].id(), dead[0].history().last_reason.as_deref()), (id, Some("bad")));
    assert_eq!(dead[0].history().death.as_ref().unwrap().reason, DeathReason::Rejected);
    queue.redrive(&RedriveOptions::new()).unwrap();
    store.queues().tick();
    for _ in 0..2 {
        assert_eq!(receive_one(&queue).id(), id);
        store.pass(30_000);
    }
    assert_eq!(bodies(&queue, 1), none());
}

#[test]
fn row_44_a_dead_letter_keeps_its_age_on_standard_queues_and_begins_anew_on_fifo_ones() {
    let store = Store::new();
    let day = Duration::from_secs(86_400);
    let (queue, dead) = with_dead_letters(&store, 1);
    dead.set_config(|config| config.retention(2 * day)).unwrap();
    let config = QueueConfig::fifo().content_deduplication(true);
    let dead_fifo = store.create("dead.fifo", config.clone().retention(2 * day));
    let fifo = store.create("q.fifo", config.dead_letter("dead.fifo", 1));
    send(&queue, "m");
    fifo.send(&Message::new(b"m").group("g")).unwrap();
    store.pass(86_400_000);
    queue.reject(receive_one(&queue).receipt(), "").unwrap();
    fifo.reject(receive_one(&fifo).receipt(), "").unwrap();
    store.pass(86_400_000);
    assert_eq!((bodies(&dead, 1), bodies(&dead_fifo, 1)), (none(), vec!["m".to_owned()]));
}

#[test]
fn row_45_a_queue_says_whose_dead_letters_it_takes() {
    let store = Store::new();
    let queues = store.queues();
    let only = RedriveAllow::Queues(vec!["friend".to_owned()]);
    store.create("dead", QueueConfig::standard().redrive_allow(only));
    store.create("closed", QueueConfig::standard().redrive_allow(RedriveAllow::None));
    store.create("dead.fifo", QueueConfig::fifo());
    store.create("friend", QueueConfig::standard().dead_letter("dead", 1));
    for target in ["dead", "closed", "dead.fifo", "stranger"] {
        let refused =
            queues.create("stranger", &QueueConfig::standard().dead_letter(target, 1)).unwrap_err();
        assert!(matches!(refused, Error::RedriveRefused { .. }), "{refused}");
    }
    let missing =
        queues.create("stranger", &QueueConfig::standard().dead_letter("nowhere", 1)).unwrap_err();
    assert!(matches!(missing, Error::QueueDoesNotExist { .. }));
    assert_eq!(queues.dead_letter_sources("dead"), ["friend"]);
    assert!(matches!(queues.delete("dead"), Err(Error::QueueInUse { .. })));
}

#[test]
fn row_46_a_failed_message_waits_by_the_queues_policy_or_as_it_is_told() {
    let store = Store::new();
    let retry = Retry::Exponential { first: ms(100), most: ms(300), jitter: 0 };
    let queue = store.create("q", QueueConfig::standard().retry(retry));
    send(&queue, "m");
    for delay in [100, 200, 300, 300] {
        queue.nack(receive_one(&queue).receipt(), "no").unwrap();
        store.pass(delay - 1);
        assert_eq!(bodies(&queue, 1), none());
        store.pass(1);
    }
    queue.nack_after(receive_one(&queue).receipt(), ms(7), "no").unwrap();
    store.pass(7);
    receive_one(&queue);
}

#[test]
fn row_47_failed_timed_out_and_released_are_counted_apart() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    send(&queue, "m");
    queue.nack(receive_one(&queue).receipt(), "no").unwrap();
    queue.release(receive_one(&queue).receipt()).unwrap();
    receive_one(&queue);
    store.pass(30_000);
    let past = receive_one(&queue).history().clone();
    assert_eq!((past.failed, past.released, past.timed_out, past.receives), (1, 1, 1, 4));
}

#[test]
fn row_48_a_message_can_be_rejected_for_good_now() {
    let store = Store::new();
    let (queue, dead) = with_dead_letters(&store, 1000);
    send(&queue, "m");
    queue.reject(receive_one(&queue).receipt(), "malformed").unwrap();
    assert_eq!(queue.counts().unwrap(), Default::default());
    let letter = receive_one(&dead);
    let past = letter.earlier_history().unwrap();
    assert_eq!(past.death.as_ref().unwrap().reason, DeathReason::Rejected);
    assert_eq!((past.failed, past.last_reason.as_deref()), (1, Some("malformed")));
}

#[test]
fn row_49_the_message_of_a_consumer_that_died_comes_back_at_its_timeout_with_retries_counted() {
    let mut store = Store::new();
    let (queue, _) = with_dead_letters(&store, 2);
    send(&queue, "m");
    receive_one(&queue);
    drop(queue);
    store.kill();
    assert_eq!(bodies(&store.queue("q"), 1), none(), "the lease belongs to the store");
    store.pass(30_000);
    assert_eq!(receive_one(&store.queue("q")).receive_count(), 2);
    store.pass(30_000);
    assert_eq!(bodies(&store.queue("q"), 1), none());
    assert_eq!(bodies(&store.queue("dead"), 1), ["m"]);
}

#[test]
fn row_51_what_was_acknowledged_stays_acknowledged_whatever_holes_it_leaves() {
    let mut store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    (0..1000).for_each(|i| {
        send(&queue, &i.to_string());
    });
    let got = crate::store::receive(&queue, 1000);
    let odd: Vec<_> = got.iter().skip(1).step_by(2).map(|message| *message.receipt()).collect();
    assert!(queue.delete_batch(&odd).unwrap().iter().all(Result::is_ok));
    drop(queue);
    store.crash(&CrashPlan::random(9));
    store.pass(30_000);
    let expected: Vec<String> = (0..1000).step_by(2).map(|i| i.to_string()).collect();
    assert_eq!(bodies(&store.queue("q"), 1000), expected);
}

#[test]
fn length_limits_reject_drop_or_dead_letter() {
    let store = Store::new();
    store.create("dead", QueueConfig::standard());
    let limited = |name: &str, overflow| {
        let config =
            QueueConfig::standard().messages_max(2).overflow(overflow).dead_letter("dead", 9);
        let queue = store.create(name, config);
        let results = ["a", "b", "c"].map(|body| queue.send(&Message::new(body.as_bytes())));
        (queue, results)
    };
    let (queue, [.., third]) = limited("reject", Overflow::Reject);
    assert!(matches!(third, Err(Error::QueueFull { messages: 2, .. })));
    assert_eq!(bodies(&queue, 9), ["a", "b"]);
    assert_eq!(bodies(&limited("drop", Overflow::DropOldest).0, 9), ["b", "c"]);
    assert_eq!(bodies(&limited("letter", Overflow::DeadLetter).0, 9), ["b", "c"]);
    let letter = receive_one(&store.queue("dead"));
    assert_eq!(
        letter.earlier_history().unwrap().death.as_ref().unwrap().reason,
        DeathReason::Overflow
    );
    let bytes = store.create("bytes", QueueConfig::standard().bytes_max(10));
    assert!(bytes.send(&Message::new(&[7; 10])).is_ok());
    assert!(matches!(bytes.send(&Message::new(b"x")), Err(Error::QueueFull { bytes: 10, .. })));
}

/// A step of a redrive looked at every dead letter anew: 100,000 of them took 200 looks at each.
#[test]
fn a_redrive_of_many_skips_what_it_is_not_about_and_takes_the_rest_in_order() {
    let mut store = Store::new();
    let queue = store.create("q", QueueConfig::standard().max_receives(1));
    store.create("other", QueueConfig::standard());
    let count = 40_000;
    for from in (0..count).step_by(1000) {
        let texts: Vec<_> =
            (from..from + 1000).map(|n| (n.to_string(), format!("g{}", n % 700))).collect();
        let messages: Vec<_> =
            texts.iter().map(|(body, group)| Message::new(body.as_bytes()).group(group)).collect();
        queue.send_batch(&messages).unwrap();
    }
    // A part of them dies here, in another order than they were sent.
    let mut died = 0;
    while died < count / 4 {
        let got = receive(&queue, 1000);
        died += got.len();
        got.iter().rev().for_each(|message| queue.reject(message.receipt(), "").unwrap());
    }
    assert_eq!(queue.counts().unwrap().dead, died as u64);
    let filter = RedriveFilter::new().group("g3");
    let about: Vec<_> = (0..count).filter(|n| n % 700 == 3).map(|n| n.to_string()).collect();
    queue.redrive(&RedriveOptions::new().filter(filter).to("other")).unwrap();
    for step in 0.. {
        if step % 20 == 19 {
            store.kill();
        }
        store.queues().tick();
        let redrive = &store.queue("q").redrives().unwrap()[0];
        if redrive.status == RedriveStatus::Completed {
            assert_eq!(redrive.moved, about.len() as u64);
            break;
        }
        store.pass(1);
    }
    assert_eq!(bodies(&store.queue("other"), 1000), about);
    let left = store.queue("q").counts().unwrap();
    assert_eq!((left.ready + left.dead) as usize, count - about.len());
}

/// Every message of all other groups was read to be passed over.
#[test]
fn a_redrive_of_one_group_reads_no_message_of_another() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    let other = store.create("other", QueueConfig::standard());
    let body = vec![7; 10_000];
    queue.send(&Message::new(b"asked for").group("this")).unwrap();
    for n in 0..500 {
        queue.send(&Message::new(&body).group(&format!("g{n}"))).unwrap();
    }
    let reads = || store.disk.ops().of(Op::Read);
    let before = reads();
    let filter = RedriveFilter::new().group("this");
    queue.redrive(&RedriveOptions::new().filter(filter).to("other")).unwrap();
    store.queues().tick();
    assert!(matches!(queue.redrives().unwrap()[0].status, RedriveStatus::Completed));
    assert!(reads() - before < 10, "{} reads", reads() - before);
    assert_eq!(bodies(&other, 9), ["asked for"]);
}

#[test]
fn large_dead_letters_are_moved_a_few_at_a_time() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard().message_bytes_max(16_000_000));
    let other = store.create("other", QueueConfig::standard());
    let body = vec![7; 1_500_000];
    for _ in 0..6 {
        queue.send(&Message::new(&body)).unwrap();
    }
    queue.redrive(&RedriveOptions::new().to("other")).unwrap();
    store.queues().tick();
    let moved = other.counts().unwrap().ready;
    assert!(moved > 0 && moved < 6, "{moved} in the steps of one look");
    while queue.counts().unwrap().ready > 0 {
        store.pass(1);
        store.queues().tick();
    }
    assert_eq!(other.counts().unwrap().ready, 6);
}

#[test]
fn a_redrive_whose_target_goes_away_fails_and_says_why() {
    let store = Store::new();
    let (queue, dead) = with_dead_letters(&store, 1);
    let other = store.create("other", QueueConfig::standard());
    for i in 0..5 {
        send(&queue, &format!("m{i}"));
        queue.reject(receive_one(&queue).receipt(), "").unwrap();
    }
    dead.redrive(&RedriveOptions::new().to("other").messages_per_second(1)).unwrap();
    store.queues().tick();
    assert_eq!(other.counts().unwrap().ready, 1);
    store.queues().delete("other").unwrap();
    store.pass(1000);
    store.queues().tick();
    let redrive = &dead.redrives().unwrap()[0];
    assert!(matches!(&redrive.status, RedriveStatus::Failed(why) if why.contains("target")));
    assert_eq!((redrive.moved, dead.counts().unwrap().ready), (1, 4));
}

/// It was looked for under the sequence that its id names, which it no longer had.
#[test]
fn a_message_that_came_back_by_a_redrive_is_found_by_its_id() {
    let mut store = Store::new();
    let (queue, dead) = with_dead_letters(&store, 1);
    let id = queue.send(&Message::new(b"m")).unwrap().id;
    queue.reject(receive_one(&queue).receipt(), "").unwrap();
    assert!(matches!(queue.find(id), Err(Error::MessageDoesNotExist { .. })));
    assert_eq!(dead.find(id).unwrap().id(), id);
    dead.redrive(&RedriveOptions::new()).unwrap();
    store.queues().tick();
    assert_eq!(queue.find(id).unwrap().id(), id);
    drop((queue, dead));
    store.reopen();
    let queue = store.queue("q");
    queue.cancel(id).unwrap();
    assert_eq!(queue.counts().unwrap(), Default::default());
    assert!(matches!(queue.cancel(id), Err(Error::MessageDoesNotExist { .. })));
}
