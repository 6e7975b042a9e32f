//! Rows 52 to 67: delay, schedules, priority, time to live, and what else jobs need.

use std::time::Duration;

use logmill_queue::{
    DeathReason, DeduplicationWindow, Edit, Error, Message, MessageState, Missed, QueueConfig,
    ReceiveOptions, Repeat, ReplayFrom, Section,
};
use logmill_storage::io::sim::CrashPlan;

use crate::store::{START, Store, bodies, ms, none, receive, receive_one, send, text};

#[test]
fn row_52_a_delay_of_any_length_survives_a_restart() {
    let mut store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    queue.send(&Message::new(b"in a year").delay(Duration::from_secs(365 * 86_400))).unwrap();
    drop(queue);
    store.kill();
    store.pass(365 * 86_400_000 - 1);
    store.reopen();
    assert_eq!(bodies(&store.queue("q"), 1), none());
    store.pass(1);
    assert_eq!(bodies(&store.queue("q"), 1), ["in a year"]);
}

#[test]
fn row_53_a_changed_queue_delay_counts_for_waiting_messages_on_fifo_queues_only() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard().delay(ms(1000)));
    let fifo =
        store.create("q.fifo", QueueConfig::fifo().content_deduplication(true).delay(ms(1000)));
    send(&queue, "m");
    fifo.send(&Message::new(b"m").group("g")).unwrap();
    for queue in [&queue, &fifo] {
        queue.set_config(|config| config.delay(ms(200))).unwrap();
    }
    store.pass(200);
    assert_eq!((bodies(&queue, 1), bodies(&fifo, 1)), (none(), vec!["m".to_owned()]));
    store.pass(800);
    assert_eq!(bodies(&queue, 1), ["m"]);
    let own = queue.send(&Message::new(b"own").delay(ms(0))).unwrap();
    assert_eq!(receive_one(&queue).id(), own.id, "a message's own delay wins");
}

#[test]
fn row_54_a_delayed_message_can_be_cancelled_rescheduled_and_fired_now() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    let later = |body: &'static [u8]| {
        queue.send(&Message::new(body).delay(Duration::from_secs(3600))).unwrap().id
    };
    let (cancelled, moved, fired) = (later(b"cancelled"), later(b"moved"), later(b"fired"));
    queue.cancel(cancelled).unwrap();
    queue.edit(moved, &Edit::new().delay(ms(50)).body(b"moved and changed").priority(3)).unwrap();
    queue.fire_now(fired).unwrap();
    assert_eq!(bodies(&queue, 9), ["fired"]);
    assert_eq!(queue.find(moved).unwrap().state(), MessageState::Delayed { until: START + 50 });
    store.pass(50);
    let got = receive_one(&queue);
    assert_eq!(
        (text(got.body()), got.priority(), got.id()),
        ("moved and changed".to_owned(), 3, moved)
    );
    assert!(matches!(queue.edit(moved, &Edit::new().body(b"x")), Err(Error::Unsupported { .. })));
}

#[test]
fn row_55_delays_are_exact_to_the_millisecond() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    for delay in [1, 2, 3, 999, 1000, 1001] {
        queue.send(&Message::new(b"m").delay(ms(delay))).unwrap();
    }
    let mut came = Vec::new();
    for now in 1..=1001 {
        store.pass(1);
        came.extend(bodies(&queue, 9).iter().map(|_| now));
    }
    assert_eq!(came, [1, 2, 3, 999, 1000, 1001]);
}

#[test]
fn row_56_every_tick_of_a_schedule_fires_exactly_once_across_crashes() {
    let mut store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    queue.schedule("each", &Repeat::Every(ms(1000)), &Message::new(b"each"), Missed::Each).unwrap();
    queue
        .schedule("latest", &Repeat::Every(ms(1000)), &Message::new(b"latest"), Missed::Latest)
        .unwrap();
    queue.schedule("skip", &Repeat::Every(ms(1000)), &Message::new(b"skip"), Missed::Skip).unwrap();
    // START is 2023-11-14 22:13:20 UTC.
    queue
        .schedule(
            "cron",
            &Repeat::Cron("14 22 * * *".to_owned()),
            &Message::new(b"cron"),
            Missed::Each,
        )
        .unwrap();
    assert_eq!(queue.schedules().unwrap()[0].next_at, START + 40_000);
    drop(queue);
    for _ in 0..3 {
        store.pass(1000);
        store.queues().tick();
        store.queues().tick();
        store.kill();
    }
    let count = |store: &Store, wanted: &str| {
        let all = store.queue("q").page(Section::Ready, 0, 1000).unwrap();
        all.iter().filter(|message| message.body() == wanted.as_bytes()).count()
    };
    for name in ["each", "latest", "skip"] {
        assert_eq!(count(&store, name), 3, "{name}");
    }
    store.disk.kill();
    store.pass(37_500);
    store.kill();
    store.queues().tick();
    let counts = ["each", "latest", "skip", "cron"].map(|name| count(&store, name));
    assert_eq!(counts, [40, 4, 3, 1]);
    store.queue("q").unschedule("each").unwrap();
    store.pass(1000);
    store.queues().tick();
    assert_eq!(["each", "latest", "skip"].map(|name| count(&store, name)), [40, 5, 4]);
    let wrong = Repeat::Cron("61 * * * *".to_owned());
    let refused =
        store.queue("q").schedule("x", &wrong, &Message::new(b"x"), Missed::Each).unwrap_err();
    assert!(matches!(refused, Error::InvalidSchedule { .. }), "{refused}");
}

#[test]
fn row_57_priorities_are_strict_survive_a_requeue_and_combine_with_delay() {
    let mut store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    for (body, priority, delay) in
        [("low", 0, 0), ("mid 1", 9, 0), ("high", 255, 20), ("mid 2", 9, 0)]
    {
        queue.send(&Message::new(body.as_bytes()).priority(priority).delay(ms(delay))).unwrap();
    }
    let got = receive_one(&queue);
    assert_eq!(text(got.body()), "mid 1");
    queue.nack(got.receipt(), "no").unwrap();
    drop(queue);
    store.kill();
    store.pass(20);
    assert_eq!(bodies(&store.queue("q"), 9), ["high", "mid 1", "mid 2", "low"]);
}

#[test]
fn row_58_a_message_is_put_in_front_by_its_priority() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    send(&queue, "first");
    let urgent = queue.send(&Message::new(b"urgent")).unwrap().id;
    queue.edit(urgent, &Edit::new().priority(255)).unwrap();
    assert_eq!(bodies(&queue, 9), ["urgent", "first"]);
}

#[test]
fn row_60_an_id_can_be_unique_until_its_message_is_deleted() {
    let mut store = Store::new();
    let config = QueueConfig::fifo().deduplication_window(DeduplicationWindow::UntilDeleted);
    store.create("q.fifo", config);
    let send = |store: &Store| {
        let message = Message::new(b"m").group("g").deduplication_id("only-one");
        store.queue("q.fifo").send(&message).unwrap().duplicate
    };
    assert!(!send(&store));
    let got = receive_one(&store.queue("q.fifo"));
    store.pass(10_000_000);
    store.kill();
    assert!(send(&store), "it is there, for however long");
    let queue = store.queue("q.fifo");
    drop(got);
    queue.delete(receive_one(&queue).receipt()).unwrap();
    drop(queue);
    assert!(!send(&store));
}

#[test]
fn row_61_at_most_n_messages_of_a_key_are_in_flight() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard().group_concurrency(2));
    for i in 0..4 {
        queue.send(&Message::new(format!("a{i}").as_bytes()).group("a")).unwrap();
    }
    queue.send(&Message::new(b"b0").group("b")).unwrap();
    let got = queue.receive(&ReceiveOptions::new().max(10)).unwrap();
    assert_eq!(
        got.iter().map(|message| text(message.body())).collect::<Vec<_>>(),
        ["a0", "a1", "b0"]
    );
    queue.delete(got[0].receipt()).unwrap();
    assert_eq!(bodies(&queue, 10), ["a2"]);
}

#[test]
fn row_64_a_waiting_message_can_be_cancelled_and_a_running_one_not() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    let id = queue.send(&Message::new(b"m")).unwrap().id;
    let got = receive_one(&queue);
    assert!(matches!(queue.cancel(id), Err(Error::Unsupported { .. })));
    queue.release(got.receipt()).unwrap();
    queue.cancel(id).unwrap();
    assert_eq!(bodies(&queue, 1), none());
}

#[test]
fn row_65_a_message_expires_by_its_own_time_to_live_or_the_queues_retention_whichever_ends_first() {
    let mut store = Store::new();
    let dead = QueueConfig::standard().dead_letter("dead", 9).expired_to_dead_letter(true);
    store.create("dead", QueueConfig::standard());
    let queue = store.create("q", dead.retention(Duration::from_secs(10)));
    queue.send(&Message::new(b"short").time_to_live(ms(500))).unwrap();
    queue.send(&Message::new(b"long").time_to_live(Duration::from_secs(3600))).unwrap();
    send(&queue, "plain");
    store.pass(500);
    assert_eq!(queue.counts().unwrap().ready, 2, "counts are exact without anybody receiving");
    let held = receive_one(&queue);
    store.pass(9499);
    queue.change_visibility(held.receipt(), Duration::from_secs(60)).unwrap();
    store.pass(1);
    assert_eq!(bodies(&queue, 9), none());
    assert_eq!(queue.counts().unwrap().in_flight, 1, "what a consumer holds is not taken from it");
    queue.delete(held.receipt()).unwrap();
    drop(queue);
    store.kill();
    let dead = store.queue("dead");
    let reason = |message: logmill_queue::ReceivedMessage| {
        (text(message.body()), message.earlier_history().unwrap().death.as_ref().unwrap().reason)
    };
    assert_eq!(reason(receive_one(&dead)), ("short".to_owned(), DeathReason::Expired));
    assert_eq!(reason(receive_one(&dead)), ("plain".to_owned(), DeathReason::Expired));
}

#[test]
fn a_shorter_retention_counts_at_once_for_what_is_there() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    send(&queue, "line");
    send(&queue, "returned");
    receive_one(&queue);
    store.pass(60_000);
    queue.set_config(|config| config.retention(Duration::from_secs(60))).unwrap();
    assert_eq!(queue.counts().unwrap(), Default::default());
    assert_eq!(queue.tally().unwrap().expired, 2);
}

#[test]
fn deleted_messages_can_be_read_again_for_the_period_from_a_time_or_a_sequence() {
    let mut store = Store::new();
    let queue = store.create("q", QueueConfig::standard().keep_deleted(Duration::from_secs(60)));
    for i in 0..10 {
        send(&queue, &format!("m{i}"));
        store.pass(1000);
    }
    for _ in 0..8 {
        queue.delete(receive_one(&queue).receipt()).unwrap();
    }
    drop(queue);
    store.kill();
    let queue = store.queue("q");
    let read = |from| -> Vec<String> {
        queue.replay(from).unwrap().map(|message| text(message.unwrap().body())).collect()
    };
    let all: Vec<String> = (0..10).map(|i| format!("m{i}")).collect();
    assert_eq!(read(ReplayFrom::Start), all);
    assert_eq!(read(ReplayFrom::Sequence(9)), all[8..]);
    assert_eq!(read(ReplayFrom::Time(START + 3000)), all[3..]);
    assert_eq!(queue.counts().unwrap().ready, 2, "reading again makes nothing receivable");
    let plain = store.create("plain", QueueConfig::standard());
    assert!(matches!(plain.replay(ReplayFrom::Start), Err(Error::Unsupported { .. })));
}

#[test]
fn the_age_of_the_oldest_claimable_message_leaves_out_what_cannot_be_claimed() {
    let store = Store::new();
    let queue = store.create("q.fifo", QueueConfig::fifo().content_deduplication(true));
    assert_eq!(queue.oldest_claimable_age().unwrap(), None);
    queue.send(&Message::new(b"a1").group("a")).unwrap();
    queue.send(&Message::new(b"a2").group("a")).unwrap();
    store.pass(100);
    queue.send(&Message::new(b"b1").group("b")).unwrap();
    store.pass(50);
    assert_eq!(queue.oldest_claimable_age().unwrap(), Some(ms(150)));
    receive_one(&queue);
    assert_eq!(queue.oldest_claimable_age().unwrap(), Some(ms(50)));
}

/// A retention that began late held up the end of all later messages: they lived up to twice the period.
#[test]
fn a_message_whose_retention_began_late_does_not_hold_up_the_end_of_later_ones() {
    let hour = 3_600_000;
    let mut store = Store::new();
    let config = QueueConfig::standard().retention(ms(24 * hour));
    let queue = store.create("q", config.clone());
    queue.send(&Message::new(b"late").delay(ms(20 * hour))).unwrap();
    send(&queue, "plain");
    let dead = store.create("dead", config);
    let dying = store.create("dying", QueueConfig::standard().dead_letter("dead", 1));
    send(&dying, "old");
    store.pass(20 * hour);
    send(&dying, "new");
    let got = receive(&dying, 2);
    got.iter().rev().for_each(|message| dying.reject(message.receipt(), "").unwrap());
    let there = |store: &Store, name: &str| {
        let peeked = store.queue(name).peek(9).unwrap();
        peeked.iter().map(|message| text(message.body())).collect::<Vec<_>>()
    };
    assert_eq!(there(&store, "q"), ["late", "plain"]);
    assert_eq!(there(&store, "dead"), ["new", "old"]);
    drop((queue, dead, dying));
    store.reopen();
    store.pass(4 * hour - 1);
    assert_eq!((there(&store, "q").len(), there(&store, "dead").len()), (2, 2));
    store.pass(1);
    assert_eq!(there(&store, "q"), ["late"]);
    assert_eq!(there(&store, "dead"), ["new"]);
    store.pass(20 * hour);
    assert_eq!((there(&store, "q"), there(&store, "dead")), (none(), none()));
}

/// A fire was shown before it was durable, so that a loss of power took back what a consumer had seen.
#[test]
fn a_scheduled_message_that_was_seen_survives_a_loss_of_power() {
    let mut store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    let every = Repeat::Every(ms(1000));
    queue.schedule("s", &every, &Message::new(b"tick"), Missed::Skip).unwrap();
    // What the log syncs by itself when it falls idle is behind it.
    store.pass(990);
    store.queues().tick();
    store.pass(10);
    store.queues().tick();
    assert_eq!(bodies(&queue, 9), ["tick"]);
    drop(queue);
    store.pass(1);
    store.crash(&CrashPlan::nothing());
    store.queues().tick();
    store.pass(998);
    assert_eq!(bodies(&store.queue("q"), 9), ["tick"], "the receive was not synced, the fire was");
}

#[test]
fn jumps_of_the_wall_clock_end_no_lease_or_delay_early_and_hold_none_up() {
    let day = 86_400_000;
    let mut store = Store::new();
    let queue = store.create("q", QueueConfig::standard().retention(ms(3_600_000)));
    send(&queue, "held");
    receive_one(&queue);
    queue.send(&Message::new(b"delayed").delay(ms(10_000))).unwrap();
    for jump in [day, -day, 400 * day] {
        store.clock.set_wall_ms(START + jump);
        store.queues().tick();
        assert_eq!(bodies(&queue, 1), none());
    }
    store.pass(9_999);
    assert_eq!(bodies(&queue, 1), none());
    store.pass(1);
    let late = receive_one(&queue);
    assert_eq!(
        (late.body(), late.sent_at()),
        (&b"delayed"[..], START),
        "the wall's time of the send"
    );
    queue.delete(late.receipt()).unwrap();
    drop(queue);
    // While no process looked, time cannot be told from a jump: a step back stands still, and no message expires by it.
    store.clock.set_wall_ms(START - day);
    store.kill();
    let queue = store.queue("q");
    assert_eq!(bodies(&queue, 1), none());
    store.pass(19_999);
    assert_eq!(bodies(&queue, 1), none());
    store.pass(1);
    assert_eq!(bodies(&queue, 1), ["held"]);
}

/// A queue that nobody wrote to had come further in time by itself, and its checkpoint said so; the time at which the store
/// was opened again went by the entries alone, and by a wall clock that had been set back. Until that time had caught up
/// with the queue's, no lease of it ended.
#[test]
fn a_lease_ends_in_time_where_the_clock_was_set_back_after_a_quiet_time() {
    let mut store = Store::new();
    let queue = store.create("q", QueueConfig::standard().visibility_timeout(ms(30_000)));
    send(&queue, "held");
    store.pass(86_400_000);
    assert_eq!(queue.page(Section::Ready, 0, 9).unwrap().len(), 1);
    drop(queue);
    store.clock.set_wall_ms(START);
    store.reopen();
    let queue = store.queue("q");
    receive_one(&queue);
    store.pass(29_999);
    assert_eq!(bodies(&queue, 1), none());
    store.pass(1);
    assert_eq!(bodies(&queue, 1), ["held"]);
}
