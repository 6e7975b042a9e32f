use std::borrow::Cow;
use std::time::Duration;

use super::*;
use crate::decide::{Now, ReceivePlan, SendPlan};
use crate::entry::{Fact, Gone, Lease, Mark};
use crate::message::Message;
use crate::space::Space;

/// A queue without a journal: what is decided is applied at once.
struct Bench {
    queue: QueueState,
    space: Space,
    location: u64,
    now: i64,
}

impl Bench {
    fn of(config: QueueConfig) -> Bench {
        Bench {
            queue: QueueState::new(1, "q", config, 1000),
            space: Space::default(),
            location: 0,
            now: 1000,
        }
    }

    fn apply(&mut self, fact: &Fact<'_>) {
        self.queue.apply(fact, self.location, &mut self.space);
        self.location += 1;
    }

    fn send(&mut self, message: Message<'_>) -> u64 {
        let mut buffer = Vec::new();
        let sequence = self.queue.next_sequence;
        match self
            .queue
            .plan_send(Now { time: self.now, wall: self.now }, &message, &mut buffer)
            .unwrap()
        {
            SendPlan::New(envelope) => {
                self.queue.apply(
                    &Fact::Sent { sequence, envelope },
                    self.location,
                    &mut self.space,
                );
                self.location += 1;
                sequence
            }
            SendPlan::Duplicate { sequence } => sequence,
        }
    }

    fn plan(&mut self, max: usize) -> ReceivePlan {
        self.queue.advance(self.now);
        self.queue.plan_receive(max, |_| true, Vec::new())
    }

    fn receive(&mut self, max: usize) -> Vec<u64> {
        let ReceivePlan { take, .. } = self.plan(max);
        let sequences = take.iter().map(|mark| mark.sequence).collect();
        if !take.is_empty() {
            let (time, back) = (self.now, self.queue.next_sequence);
            let lease = Lease { time, until: time + 30_000, epoch: 1, session: 0, back };
            self.apply(&Fact::Received { lease, attempt: "", marks: Cow::Owned(take) });
        }
        sequences
    }

    fn delete(&mut self, sequence: u64) {
        let marks = vec![Mark { sequence, generation: 1 }].into();
        self.apply(&Fact::Deleted { time: self.now, reason: Gone::Deleted, marks });
    }
}

#[test]
fn messages_of_one_priority_come_in_order_and_higher_priorities_first() {
    let mut bench = Bench::of(QueueConfig::standard());
    for priority in [0, 5, 0, 255, 5] {
        bench.send(Message::new(b"m").priority(priority));
    }
    assert_eq!(bench.receive(10), [4, 2, 5, 1, 3]);
    assert_eq!(bench.queue.counts.in_flight, 5);
}

#[test]
fn a_message_whose_lease_ended_comes_back_in_its_place_and_from_the_third_time_at_the_back() {
    let mut bench = Bench::of(QueueConfig::standard());
    (0..3).for_each(|_| {
        bench.send(Message::new(b"m"));
    });
    for expected in [1, 1, 1, 2] {
        assert_eq!(bench.receive(1), [expected]);
        bench.now += 30_000;
    }
    assert_eq!(bench.receive(9), [2, 3, 1]);
}

#[test]
fn a_fifo_group_is_locked_while_any_of_its_messages_is_in_flight_and_hides_no_other() {
    let mut bench = Bench::of(QueueConfig::fifo().content_deduplication(true));
    for (body, group) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a"), ("b2", "b")] {
        bench.send(Message::new(body.as_bytes()).group(group));
    }
    assert_eq!(bench.receive(2), [1, 2], "several of one group at once");
    assert_eq!(bench.receive(9), [3, 5]);
    bench.delete(1);
    assert_eq!(bench.receive(9), [0_u64; 0], "a deleted prefix does not unlock");
    bench.delete(2);
    assert_eq!(bench.receive(9), [4]);
}

#[test]
fn a_million_blocked_messages_of_one_group_cost_nothing_to_receive_past() {
    let mut bench = Bench::of(QueueConfig::fifo());
    let ids: Vec<String> = (0..100_000).map(|i| format!("id-{i}")).collect();
    for id in &ids {
        bench.send(Message::new(b"m").group("blocked").deduplication_id(id));
    }
    assert_eq!(bench.receive(1), [1]);
    let free = bench.send(Message::new(b"m").group("free").deduplication_id("free"));
    assert_eq!(bench.queue.ready.heads().len(), 1, "the order holds only free lanes");
    assert_eq!(bench.receive(10), [free]);
}

#[test]
fn delayed_messages_become_ready_by_time_alone_and_line_up_in_their_place() {
    let mut bench = Bench::of(QueueConfig::standard());
    bench.send(Message::new(b"late").delay(Duration::from_millis(1501)));
    bench.send(Message::new(b"now"));
    assert_eq!(bench.queue.counts.delayed, 1);
    bench.now += 1500;
    assert_eq!(bench.plan(9).take.len(), 1);
    bench.now += 1;
    assert_eq!(bench.receive(9), [1, 2]);
}

#[test]
fn a_noisy_tenant_is_served_after_quiet_ones_and_never_blocked() {
    let mut bench = Bench::of(QueueConfig::standard());
    (0..200).for_each(|_| {
        bench.send(Message::new(b"m").group("noisy"));
    });
    let quiet = bench.send(Message::new(b"m").group("quiet"));
    assert_eq!(bench.receive(29).len(), 29);
    assert!(bench.plan(1).take[0].sequence < quiet, "29 in flight are not yet noisy");
    bench.receive(1);
    assert_eq!(bench.receive(1), [quiet]);
    assert_eq!(bench.receive(5).len(), 5);
}

#[test]
fn at_most_n_messages_of_a_key_are_in_flight() {
    let mut bench = Bench::of(QueueConfig::standard().group_concurrency(2));
    for group in ["a", "a", "a", "b", "a", "b", "b"] {
        bench.send(Message::new(b"m").group(group));
    }
    assert_eq!(bench.receive(9), [1, 2, 4, 6]);
    bench.delete(4);
    assert_eq!(bench.receive(9), [7]);
}

#[test]
fn the_space_that_is_needed_is_that_of_the_live_messages() {
    let mut bench = Bench::of(QueueConfig::standard());
    (0..100).for_each(|_| {
        bench.send(Message::new(b"0123456789"));
    });
    assert_eq!(bench.space.total(logmill_storage::Part::Hot), 100 * 50);
    for sequence in bench.receive(100) {
        bench.delete(sequence);
    }
    assert_eq!(bench.space.total(logmill_storage::Part::Hot), 0);
    assert_eq!(bench.queue.counts, Counts::default());
}
