//! One sync for all that waits for one, whoever waits: counted on the simulated disk.
#![cfg(feature = "tokio")]

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use logmill::{
    Consumer, ConsumerConfig, ManualClock, Message, QueueConfig, Record, StartAt, TopicConfig,
};
use logmill_queue::{Queues, QueuesOptions};
use logmill_storage::io::FileSystem;
use logmill_storage::io::sim::{Op, SimDisk};
use logmill_storage::{AppendOptions, DataDirOptions, Durability, Journal, LogConfig};
use logmill_stream::{Streams, StreamsOptions};

const MEMBERS: usize = 40;

/// How many of them are not done.
fn waiting<F: Future + Unpin>(futures: &mut [F]) -> usize {
    let context = &mut Context::from_waker(Waker::noop());
    let polled = futures.iter_mut().map(|future| Pin::new(future).poll(context));
    polled.filter(Poll::is_pending).count()
}

fn are_done<T, E, F: Future<Output = Result<T, E>> + Unpin>(futures: &mut [F]) -> bool {
    let context = &mut Context::from_waker(Waker::noop());
    let mut polled = futures.iter_mut().map(|future| Pin::new(future).poll(context));
    polled.all(|polled| matches!(polled, Poll::Ready(Ok(_))))
}

#[test]
fn synced_commits_of_many_consumers_and_synced_sends_cost_one_sync_of_the_journal() {
    let disk = SimDisk::new(1);
    // Where nothing is mapped, so that each store is a call.
    disk.set_file_system(FileSystem::Other);
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    let dir = DataDirOptions::new().threads(0).clock(clock).open_with(disk.io()).unwrap();
    let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
    let streams = Streams::open(&dir, &journal, &StreamsOptions::default()).unwrap();
    let queues = Queues::open_on(&dir, &journal, QueuesOptions::default()).unwrap();
    let topic = streams.create_topic("events", &TopicConfig::new()).unwrap();
    let queue = queues.create("work", &QueueConfig::standard()).unwrap();
    let partition = topic.partition(0).unwrap();
    partition.append(&Record::value(b"read by all")).unwrap();
    let mut consumers: Vec<Consumer> = (0..MEMBERS)
        .map(|member| {
            let config = ConsumerConfig::new().start_at(StartAt::Earliest).auto_commit(None);
            let mut consumer = streams.consumer(&format!("g{member}"), config).unwrap();
            consumer.subscribe(&["events"]).unwrap();
            assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 1);
            consumer
        })
        .collect();
    journal.sync().unwrap();

    let syncs = || disk.ops().of(Op::Sync);
    let before = syncs();
    disk.start_trace();
    let mut commits: Vec<_> =
        consumers.iter_mut().map(|consumer| Box::pin(consumer.commit_async().unwrap())).collect();
    let messages: Vec<_> = (0..MEMBERS).map(|_| Message::new(b"do")).collect();
    let mut sends: Vec<_> =
        messages.iter().map(|message| Box::pin(queue.send_async(message))).collect();
    let options = AppendOptions { durability: Some(Durability::Sync), ..AppendOptions::default() };
    let mut appends: Vec<_> = (0..MEMBERS)
        .map(|_| Box::pin(partition.submit(&[Record::value(b"more")], &options).unwrap()))
        .collect();
    let waiting = [waiting(&mut commits), waiting(&mut sends), waiting(&mut appends)];
    assert_eq!(waiting, [MEMBERS; 3], "none is durable before a sync");
    assert_eq!(syncs(), before);

    // Who blocks syncs for all.
    queue.send(&Message::new(b"do")).unwrap();
    partition.append(&Record::value(b"more")).unwrap();
    assert!(are_done(&mut commits));
    assert!(are_done(&mut sends));
    assert!(are_done(&mut appends));
    let trace = disk.trace();
    let of = |log: &str| trace.iter().filter(|line| line.starts_with(log)).count();
    let (journal, log) = (of("sync 0/0000"), of("sync 1/0/0000"));
    assert_eq!((journal, log), (1, 1), "{trace:#?}");
    assert_eq!(syncs(), before + 2, "{trace:#?}");

    let groups = streams.groups().unwrap();
    assert_eq!(groups.len(), MEMBERS);
    assert!(
        groups
            .iter()
            .all(|(name, _)| streams.describe_group(name).unwrap().lag() == MEMBERS as u64 + 1)
    );
    assert_eq!(queue.counts().unwrap().ready, MEMBERS as u64 + 1);
}
