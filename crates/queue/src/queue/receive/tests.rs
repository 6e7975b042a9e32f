use std::sync::Arc;

use logmill_storage::io::sim::SimDisk;
use logmill_storage::{DataDirOptions, ManualClock};

use super::*;
use crate::{Message, QueueConfig, Queues, QueuesOptions};

const HOUR: Duration = Duration::from_secs(3600);

/// How long a receive at `queue` that may wait for an hour sleeps before it looks again by itself.
fn pause(queue: &Queue) -> Duration {
    let mut engine = queue.shared.lock();
    let ask = queue.ask(&mut engine, &ReceiveOptions::new().wait(HOUR)).unwrap();
    match queue.turn(&mut engine, &ask).unwrap() {
        Turn::Wait(pause) => pause,
        Turn::Over => panic!("it does not wait"),
        Turn::Messages(taken) => panic!("it has received {} messages", taken.len()),
    }
}

#[test]
fn a_waiting_receive_sleeps_until_a_delay_or_a_timeout_or_its_wait_ends_whichever_is_first() {
    let clock = Arc::new(ManualClock::at(0));
    let options = DataDirOptions::new().threads(0).clock(Arc::<ManualClock>::clone(&clock));
    let dir = options.open_with(SimDisk::new(1).io()).unwrap();
    let queues = Queues::open(&dir, QueuesOptions::default()).unwrap();
    let minute = Duration::from_secs(60);
    let queue = queues.create("q", &QueueConfig::standard().visibility_timeout(minute)).unwrap();
    let other = queues.create("other", &QueueConfig::standard()).unwrap();
    assert_eq!(pause(&queue), HOUR, "there is nothing");
    other.send(&Message::new(b"delayed").delay(Duration::from_millis(1))).unwrap();
    assert_eq!(pause(&queue), HOUR, "another queue is none of its business");
    queue.send(&Message::new(b"delayed").delay(minute * 2)).unwrap();
    assert_eq!(pause(&queue), minute * 2);
    queue.send(&Message::new(b"m")).unwrap();
    let got = queue.receive(&ReceiveOptions::new()).unwrap();
    assert_eq!(pause(&queue), minute, "the timeout comes before the delay");
    clock.advance(Duration::from_secs(59));
    assert_eq!(pause(&queue), Duration::from_secs(1));
    queue.delete(got[0].receipt()).unwrap();
    assert_eq!(pause(&queue), Duration::from_secs(61), "what is deleted has no timeout");
}
