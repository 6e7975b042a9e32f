//! Queues and messages: what everybody does first.

use std::time::Duration;

use logmill_queue::{Durability, Error, Message, QueueConfig, ReceiveOptions};
use logmill_storage::io::sim::{CrashPlan, Op};

use crate::store::{Store, bodies, receive, send};

#[test]
fn a_message_is_received_hidden_deleted_and_never_comes_back() {
    let mut store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    let sent = queue.send(&Message::new(b"work").priority(3)).unwrap();
    let got = receive(&queue, 10);
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].body(), got[0].id(), got[0].priority()), (b"work".as_slice(), sent.id, 3));
    assert_eq!(got[0].receive_count(), 1);
    assert_eq!(bodies(&queue, 10), Vec::<String>::new());
    queue.delete(got[0].receipt()).unwrap();
    queue.delete(got[0].receipt()).unwrap();
    store.pass(1_000_000);
    assert_eq!(bodies(&queue, 10), Vec::<String>::new());
    store.crash(&CrashPlan::random(7));
    store.pass(1_000_000);
    let queue = store.queue("q");
    assert_eq!(bodies(&queue, 10), Vec::<String>::new());
    assert_eq!(queue.counts().unwrap(), Default::default());
}

#[test]
fn what_was_sent_survives_a_clean_close_a_kill_and_a_crash() {
    let mut store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    for i in 0..100 {
        send(&queue, &format!("m{i}"));
    }
    drop(queue);
    store.reopen();
    send(&store.queue("q"), "m100");
    store.kill();
    send(&store.queue("q"), "m101");
    store.crash(&CrashPlan::random(3));
    let expected: Vec<String> = (0..102).map(|i| format!("m{i}")).collect();
    assert_eq!(bodies(&store.queue("q"), 1000), expected);
}

#[test]
fn two_thousand_queues_share_one_journal_and_one_group_commit() {
    let mut store = Store::new();
    let queues: Vec<_> =
        (0..2000).map(|n| store.create(&format!("q{n}"), QueueConfig::standard())).collect();
    let logs = store.disk.paths().iter().filter(|path| path.ends_with(".log")).count();
    assert_eq!(logs, 1, "{:?}", store.disk.paths());
    let syncs = || store.disk.ops().of(Op::Sync);
    let before = syncs();
    for queue in &queues[1..] {
        queue.send_with(&Message::new(b"m"), Durability::Buffered).unwrap();
    }
    assert_eq!(syncs(), before, "nobody has asked for one");
    send(&queues[0], "m");
    assert_eq!(syncs(), before + 1, "one for all");
    drop(queues);
    store.crash(&CrashPlan::nothing());
    for n in 0..2000 {
        assert_eq!(store.queue(&format!("q{n}")).counts().unwrap().ready, 1, "q{n}");
    }
}

#[test]
fn creating_again_finds_the_queue_and_another_value_is_a_conflict() {
    let store = Store::new();
    let config = QueueConfig::standard().visibility_timeout(Duration::from_secs(5));
    store.create("q", config.clone());
    store.create("q", config);
    store.create("q", QueueConfig::standard());
    let other = QueueConfig::standard().visibility_timeout(Duration::from_secs(6));
    let conflict = store.queues().create("q", &other).unwrap_err();
    assert!(matches!(conflict, Error::QueueNameExists { attribute: "visibility_timeout", .. }));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "somebody waits meanwhile")]
fn a_long_poll_wakes_on_a_send_from_another_thread() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    let other = queue.clone();
    let waiting = std::thread::spawn(move || {
        other.receive(&ReceiveOptions::new().wait(Duration::from_secs(3600))).unwrap()
    });
    send(&queue, "now");
    assert_eq!(waiting.join().unwrap()[0].body(), b"now");
}
