//! Queues for tasks of a runtime: the same answers, and nothing lost when a future is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::StreamExt;
use logmill_queue::{
    Edit, Message, Missed, OnFailure, Queue, QueueConfig, Queues, QueuesOptions, ReceiveOptions,
    RedriveOptions, RedriveStatus, Repeat,
};
use logmill_storage::{DataDir, DataDirOptions, Durability, ManualClock};

const HOUR: Duration = Duration::from_secs(3600);

/// A queue on a real directory, with the background's threads and the commit thread.
fn with_queue(test: impl AsyncFnOnce(Queue)) {
    with_queues(async |_, queue| test(queue).await);
}

fn with_queues(test: impl AsyncFnOnce(&Queues, Queue)) {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let queues = Queues::open(&dir, QueuesOptions::default()).unwrap();
    let queue = queues.create("work", &QueueConfig::standard()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(test(&queues, queue));
    queues.close().unwrap();
}

fn long() -> ReceiveOptions<'static> {
    ReceiveOptions::new().wait(HOUR)
}

#[test]
fn a_task_sends_receives_and_deletes() {
    with_queue(async |queue| {
        let sent = queue.send_async(&Message::new(b"one")).await.unwrap();
        let got = queue.receive_async(&ReceiveOptions::new()).await.unwrap();
        assert_eq!((got[0].id(), got[0].body()), (sent.id, b"one".as_slice()));
        queue.delete_async(got[0].receipt()).await.unwrap();
        assert_eq!(queue.counts().unwrap(), Default::default());
        assert!(queue.receive_async(&ReceiveOptions::new()).await.unwrap().is_empty());
    });
}

#[test]
#[expect(clippy::disallowed_methods, reason = "somebody sends meanwhile")]
fn a_task_that_waits_is_woken_by_a_send_from_a_thread() {
    with_queue(async |queue| {
        let sender = queue.clone();
        let options = long();
        let receive = queue.receive_async(&options);
        let send = async {
            // The receive has been polled before and waits.
            std::thread::spawn(move || sender.send(&Message::new(b"late")).unwrap());
        };
        let (got, ()) = futures_util::future::join(receive, send).await;
        assert_eq!(got.unwrap()[0].body(), b"late");
    });
}

/// Counts how often a task was woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_task_that_waits_is_woken_by_what_it_waits_for_and_by_nothing_else() {
    with_queues(async |queues, queue| {
        let other = queues.create("other", &QueueConfig::standard()).unwrap();
        let wakes = Arc::new(Wakes::default());
        let count = || wakes.0.load(Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        let options = long();
        let mut receive = Box::pin(queue.receive_async(&options));
        assert!(receive.as_mut().poll(&mut context).is_pending());
        let sent = other.send(&Message::new(b"elsewhere")).unwrap();
        let got = other.receive(&ReceiveOptions::new()).unwrap();
        other.delete(got[0].receipt()).unwrap();
        assert!(queue.find(sent.id).is_err());
        assert!(queue.receive(&ReceiveOptions::new()).unwrap().is_empty());
        assert!(queue.peek(9).unwrap().is_empty());
        assert_eq!(queue.counts().unwrap(), Default::default());
        assert_eq!(count(), 0, "nothing has happened at its queue");
        queue.send(&Message::new(b"late")).unwrap();
        assert_eq!(count(), 1);
        match receive.as_mut().poll(&mut context) {
            Poll::Ready(got) => assert_eq!(got.unwrap()[0].body(), b"late"),
            Poll::Pending => panic!("there is a message"),
        }
    });
}

#[test]
fn a_receive_that_is_dropped_while_it_waits_has_taken_nothing() {
    with_queue(async |queue| {
        let options = long();
        let dropped = tokio::time::timeout(Duration::ZERO, queue.receive_async(&options)).await;
        assert!(dropped.is_err(), "nothing could be received");
        queue.send_async(&Message::new(b"one")).await.unwrap();
        assert_eq!((queue.counts().unwrap().ready, queue.counts().unwrap().in_flight), (1, 0));
        assert_eq!(queue.receive_async(&options).await.unwrap()[0].receive_count(), 1);
    });
}

#[test]
fn a_stream_that_is_dropped_gives_back_what_it_has_not_handed_out() {
    with_queue(async |queue| {
        for n in 0..10_u8 {
            queue.send_async(&Message::new(&[n])).await.unwrap();
        }
        let mut messages = queue.messages(ReceiveOptions::new().max(10));
        let first = messages.next().await.unwrap().unwrap();
        assert_eq!(queue.counts().unwrap().in_flight, 10, "all of them are leased");
        drop(messages);
        assert_eq!((queue.counts().unwrap().ready, queue.counts().unwrap().in_flight), (9, 1));
        queue.delete_async(first.receipt()).await.unwrap();
    });
}

#[test]
fn a_send_that_nobody_waits_for_any_more_reaches_those_who_wait_for_messages() {
    with_queue(async |queue| {
        let message = Message::new(b"orphan");
        let mut send = Box::pin(queue.send_async(&message));
        let polled_once = futures_util::poll!(send.as_mut());
        drop(send);
        let options = long();
        let got = queue.receive_async(&options).await.unwrap();
        assert_eq!(got[0].body(), b"orphan", "its send was {polled_once:?} when it was dropped");
    });
}

#[test]
fn a_task_changes_a_queue_and_what_waits_in_it_and_waits_for_the_disk() {
    let place = tempfile::tempdir().unwrap();
    // What moves so many messages a second does not get far while the clock stands still.
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let dir = DataDirOptions::new().threads(1).clock(clock).open(place.path()).unwrap();
    let queues = Queues::open(&dir, QueuesOptions::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // The answer of a change, after a sync.
    macro_rules! synced {
        ($change:expr) => {{
            let before = dir.activity().syncs;
            let answer = runtime.block_on($change).unwrap();
            assert!(dir.activity().syncs > before, "it is ready before any sync");
            answer
        }};
    }
    let queue = queues.create("work", &QueueConfig::standard()).unwrap();
    let sent = queue.send(&Message::new(b"draft").delay(HOUR)).unwrap();
    synced!(queue.edit_async(sent.id, &Edit::new().body(b"final")));
    synced!(queue.fire_now_async(sent.id));
    let got = queue.receive(&ReceiveOptions::new()).unwrap();
    assert_eq!(got[0].body(), b"final");
    queue.delete(got[0].receipt()).unwrap();
    let sent = queue.send(&Message::new(b"unwanted")).unwrap();
    synced!(queue.cancel_async(sent.id));
    assert_eq!(queue.counts().unwrap(), Default::default());

    let tick = Message::new(b"tick");
    synced!(queue.schedule_async("hourly", &Repeat::Every(HOUR), &tick, Missed::Skip));
    assert_eq!(queue.schedules().unwrap()[0].name, "hourly");
    synced!(queue.unschedule_async("hourly"));
    assert!(queue.schedules().unwrap().is_empty());

    let tags = BTreeMap::from([("team".to_owned(), "mail".to_owned())]);
    synced!(queue.set_tags_async(&tags));
    assert_eq!(queue.tags().unwrap(), tags);
    synced!(queue.set_config_async(|config| config.delay(HOUR)));
    assert_eq!(queue.config().unwrap().get_delay(), HOUR);

    let failing = queues.create("failing", &QueueConfig::standard()).unwrap();
    for _ in 0..5 {
        failing.send(&Message::new(b"bad")).unwrap();
        let got = failing.receive(&ReceiveOptions::new()).unwrap();
        synced!(failing.reject_async(got[0].receipt(), "no"));
    }
    let slowly = RedriveOptions::new().messages_per_second(1);
    let id = synced!(failing.redrive_async(&slowly));
    assert_eq!(failing.redrives().unwrap()[0].status, RedriveStatus::Running);
    synced!(failing.cancel_redrive_async(id));
    assert_eq!(failing.redrives().unwrap()[0].status, RedriveStatus::Cancelled);

    let config = QueueConfig::fifo().on_failure(OnFailure::Park);
    let parking = queues.create("parking.fifo", &config).unwrap();
    parking.send(&Message::new(b"stuck").group("g").deduplication_id("1")).unwrap();
    let got = parking.receive(&ReceiveOptions::new()).unwrap();
    parking.reject(got[0].receipt(), "no").unwrap();
    assert_eq!(parking.groups().unwrap(), [("g".to_owned(), true)]);
    synced!(parking.resume_async("g"));
    assert_eq!(parking.groups().unwrap(), [("g".to_owned(), false)]);
    synced!(parking.purge_async());
    queues.close().unwrap();
}

/// Whether another task of the same thread had its turn before `always_ready` came to its end.
async fn others_have_their_turn(always_ready: impl Future<Output = ()>) -> bool {
    let had_turn = Arc::new(AtomicBool::new(false));
    let other = Arc::clone(&had_turn);
    let other = tokio::spawn(async move { other.store(true, Ordering::Relaxed) });
    always_ready.await;
    let had_turn = had_turn.load(Ordering::Relaxed);
    other.await.unwrap();
    had_turn
}

/// A worker whose queue was never empty kept its thread for itself: no timer fired and no request was answered meanwhile.
#[test]
fn a_task_that_never_has_to_wait_lets_others_have_their_turn() {
    const MESSAGES: usize = 300;
    with_queue(async |queue| {
        queue.set_config(|config| config.durability(Durability::Buffered)).unwrap();
        let sends = async {
            for _ in 0..MESSAGES {
                queue.send_async(&Message::new(b"m")).await.unwrap();
            }
        };
        assert!(others_have_their_turn(sends).await, "sending");
        let mut received = Vec::new();
        let receives = async {
            for _ in 0..MESSAGES {
                received.extend(queue.receive_async(&long()).await.unwrap());
            }
        };
        assert!(others_have_their_turn(receives).await, "receiving");
        for message in &received {
            queue.release(message.receipt()).unwrap();
        }
        let mut messages = queue.messages(ReceiveOptions::new().max(1000));
        let mut again = Vec::new();
        let nexts = async {
            for _ in 0..MESSAGES {
                again.push(messages.next().await.unwrap().unwrap());
            }
        };
        assert!(others_have_their_turn(nexts).await, "a stream of what was received at once");
        let deletes = async {
            for message in &again {
                queue.delete_async(message.receipt()).await.unwrap();
            }
        };
        assert!(others_have_their_turn(deletes).await, "deleting");
    });
}
