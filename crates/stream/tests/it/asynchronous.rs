//! Consumers for tasks of a runtime: the same answers, and nothing lost when a future is dropped.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{Either, join, join_all, select};
use futures_util::{FutureExt, SinkExt, StreamExt};
use logmill_storage::{
    AppendOptions, DataDirOptions, Durability, Journal, LogConfig, ManualClock, Record,
};
use logmill_stream::{
    Acknowledge, Consumer, ConsumerConfig, Error, ProducerConfig, ProducerRecord, ShareConsumer,
    ShareConsumerConfig, ShareGroupConfig, StartAt, Streams, StreamsOptions, Topic, TopicConfig,
};

use crate::support::{NOW_MS, TestStore, append, drain, manual, named, numbers, texts, values};

const LONG: Duration = Duration::from_secs(3600);

/// A store with threads in the background, as those who wait without one need, and a clock that stands still.
fn with_thread(path: &Path) -> TestStore {
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let dir = DataDirOptions::new().threads(1).clock(clock.clone()).open(path).unwrap();
    let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
    let streams = Streams::open(&dir, &journal, &StreamsOptions::default()).unwrap();
    TestStore { dir, journal, streams, clock }
}

/// A store with a topic `t` of as many partitions, whose clock stands still.
fn with_topic(partitions: u32, test: impl AsyncFnOnce(&TestStore, Topic)) {
    let place = tempfile::tempdir().unwrap();
    let store = with_thread(place.path());
    let topic =
        store.streams.create_topic("t", &TopicConfig::new().partitions(partitions)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(test(&store, topic));
    store.close();
}

fn sharer(store: &TestStore) -> ShareConsumer {
    let group = ShareGroupConfig::new().start_at(StartAt::Earliest);
    let config = ShareConsumerConfig::new().group(group).explicit(true);
    let mut consumer = store.streams.share_consumer("shared", config).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    consumer
}

fn committed(consumer: &Consumer) -> Option<u64> {
    consumer.committed("t", 0).unwrap().map(|committed| committed.offset)
}

/// Polls the future once and drops it: it must not be ready.
async fn drop_while_waiting<F: Future>(future: F) {
    assert!(future.now_or_never().is_none(), "there was nothing to return");
}

#[test]
fn a_task_polls_commits_and_closes() {
    with_topic(1, async |store, topic| {
        append(&topic, 0, &["a", "b"]);
        let mut consumer = store.subscriber("g", "t");
        assert_eq!(texts(&consumer.poll_async(LONG).await.unwrap()), ["a", "b"]);
        consumer.commit_async().unwrap().await.unwrap();
        assert_eq!(committed(&consumer), Some(2));
        assert!(consumer.poll_async(Duration::ZERO).await.unwrap().is_empty());
        consumer.close_async().await.unwrap();

        append(&topic, 0, &["c"]);
        let config = manual().auto_commit(Some(LONG));
        let mut next = store.consumer_with("g", config);
        next.subscribe(&["t"]).unwrap();
        assert_eq!(texts(&next.poll_async(LONG).await.unwrap()), ["c"]);
        next.close_async().await.unwrap();
        assert_eq!(committed(&store.consumer("g")), Some(3), "closing commits what was returned");
    });
}

#[test]
#[expect(clippy::disallowed_methods, reason = "somebody appends or waits meanwhile")]
fn a_task_that_waits_is_woken_by_an_append_from_a_thread() {
    with_topic(1, async |store, topic| {
        let mut consumer = store.subscriber("g", "t");
        let poll = consumer.poll_async(LONG);
        let append = async {
            // The poll has been polled before and waits.
            std::thread::spawn(move || append(&topic, 0, &["late"]));
        };
        let (records, ()) = join(poll, append).await;
        assert_eq!(texts(&records.unwrap()), ["late"]);
    });
}

#[test]
#[expect(clippy::disallowed_methods, reason = "somebody appends meanwhile")]
fn a_task_that_reads_a_partition_is_woken_by_an_append_and_by_the_end_of_its_time() {
    with_topic(1, async |_, topic| {
        let partition = topic.partition(0).unwrap();
        let mut reader = partition.reader(0).unwrap();
        assert!(reader.next_batch_timeout_async(Duration::ZERO).await.unwrap().is_none());
        drop_while_waiting(reader.next_batch_timeout_async(LONG)).await;
        let appender = topic.clone();
        // The reader has been polled before and waits.
        let append = async { drop(std::thread::spawn(move || append(&appender, 0, &["late"]))) };
        let (batch, ()) = join(reader.next_batch_timeout_async(LONG), append).await;
        let batch = batch.unwrap().unwrap();
        let record = batch.records().next().unwrap().unwrap();
        assert_eq!((record.offset, record.value), (0, Some(b"late".as_slice())));
        assert!(partition.wait_for_async(0, LONG).await.unwrap());
        assert!(!partition.wait_for_async(1, Duration::ZERO).await.unwrap());
    });
}

#[test]
#[expect(clippy::disallowed_methods, reason = "somebody appends meanwhile")]
fn a_task_of_a_process_that_only_reads_finds_the_log_that_the_writer_makes_meanwhile() {
    with_topic(1, async |store, topic| {
        let dir = DataDirOptions::new().read_only(true).open(store.dir.path()).unwrap();
        let follower = Streams::follow(&dir, &StreamsOptions::default()).unwrap();
        let partition = follower.topic("t").unwrap().partition(0).unwrap();
        assert!(!partition.wait_for_async(0, Duration::from_millis(1)).await.unwrap());
        let append = async { drop(std::thread::spawn(move || append(&topic, 0, &["new", "er"]))) };
        let (found, ()) = join(partition.wait_for_async(1, LONG), append).await;
        assert!(found.unwrap());
    });
}

#[test]
fn a_task_makes_a_partition_durable() {
    with_topic(1, async |_, topic| {
        let partition = topic.partition(0).unwrap();
        let buffered =
            AppendOptions { durability: Some(Durability::Buffered), ..AppendOptions::default() };
        partition.append_with(&[Record::value(b"v")], &buffered).unwrap();
        assert_eq!(partition.high_watermark().unwrap(), 0, "readers see what is durable");
        assert_eq!(partition.sync_async().await.unwrap(), 1);
        assert_eq!(partition.high_watermark().unwrap(), 1);
    });
}

#[test]
fn a_poll_that_is_dropped_while_it_waits_loses_no_record_and_no_position() {
    with_topic(1, async |store, topic| {
        let mut consumer = store.subscriber("g", "t");
        append(&topic, 0, &["a"]);
        assert_eq!(texts(&consumer.poll_async(LONG).await.unwrap()), ["a"]);
        for round in 0..3 {
            // News comes before, between and after its polls.
            let mut poll = Box::pin(consumer.poll_async(LONG));
            assert!(poll.as_mut().now_or_never().is_none());
            append(&topic, 0, &[&round.to_string()]);
            drop(poll);
            assert_eq!(consumer.position("t", 0).unwrap(), 1 + round);
            assert_eq!(drain(&mut consumer), [round.to_string()]);
        }
        drop_while_waiting(consumer.poll_async(LONG)).await;
        assert_eq!(consumer.position("t", 0).unwrap(), 4);
    });
}

/// A task may wait for longer than the session's time-out and then do something else: it was alive until then.
#[test]
fn a_member_whose_poll_waited_for_long_and_was_dropped_was_seen_then() {
    with_topic(1, async |store, _topic| {
        let session = ConsumerConfig::new().session_timeout(Duration::from_secs(10));
        let mut first = store.consumer_with("g", session);
        first.subscribe(&["t"]).unwrap();
        let mut other = store.subscriber("g", "t");
        let mut poll = Box::pin(first.poll_async(LONG));
        assert!(poll.as_mut().now_or_never().is_none());
        let members = |store: &TestStore, other: &mut Consumer| {
            other.heartbeat().unwrap();
            store.streams.describe_group("g").unwrap().members.len()
        };
        store.clock.advance(Duration::from_secs(3000));
        assert_eq!(members(store, &mut other), 2, "it waits, so it is alive");
        drop(poll);
        store.clock.advance(Duration::from_secs(9));
        assert_eq!(members(store, &mut other), 2, "it was seen 9 seconds ago");
        store.clock.advance(Duration::from_secs(2));
        assert_eq!(members(store, &mut other), 1, "11 seconds of silence");
    });
}

#[test]
fn a_member_that_waits_gives_up_what_moves_to_another_one() {
    with_topic(2, async |store, topic| {
        let mut first = store.subscriber("g", "t");
        drop_while_waiting(first.poll_async(LONG)).await;
        assert_eq!(numbers(&first), [0, 1]);
        let mut second = store.consumer("g");
        let joining = async {
            second.subscribe(&["t"]).unwrap();
            // The first has to let go before the second can have anything.
            append(&topic, 0, &["x"]);
            append(&topic, 1, &["x"]);
            second.poll_async(LONG).await.unwrap()
        };
        let waiting = Box::pin(async {
            let mut got = 0;
            loop {
                got += first.poll_async(LONG).await.unwrap().len();
                if got > 1 {
                    panic!("the second never got its partition");
                }
            }
        });
        let Either::Right((records, _)) = select(waiting, Box::pin(joining)).await;
        assert_eq!(records.len(), 1);
        assert_eq!((numbers(&first).len(), numbers(&second).len()), (1, 1));
    });
}

#[test]
fn a_stream_that_is_dropped_goes_back_to_what_it_has_not_handed_out() {
    with_topic(1, async |store, topic| {
        append(&topic, 0, &["a", "b", "c", "d"]);
        let mut consumer = store.subscriber("g", "t");
        let mut records = consumer.records();
        for (offset, value) in [(0, "a"), (1, "b")] {
            let polled = records.next().await.unwrap().unwrap();
            let record = polled.record();
            assert_eq!((record.offset, record.value), (offset, Some(value.as_bytes())));
        }
        drop(records);
        assert_eq!(drain(&mut consumer), ["c", "d"]);
        let mut records = consumer.records();
        assert!(records.next().now_or_never().is_none(), "it waits for more");
        append(&topic, 0, &["e"]);
        assert_eq!(records.next().await.unwrap().unwrap().record().offset, 4);
    });
}

#[test]
fn a_stream_commits_what_it_has_handed_out_and_no_more() {
    with_topic(1, async |store, topic| {
        append(&topic, 0, &["a", "b", "c", "d"]);
        let config = manual().auto_commit(Some(Duration::from_secs(5)));
        let mut consumer = store.consumer_with("g", config);
        consumer.subscribe(&["t"]).unwrap();
        let mut records = consumer.records();
        for _ in 0..3 {
            records.next().await.unwrap().unwrap();
        }
        records.commit_async().unwrap().await.unwrap();
        drop(records);
        assert_eq!(committed(&consumer), Some(3));
        store.clock.advance(Duration::from_secs(60));
        let mut records = consumer.records();
        records.next().await.unwrap().unwrap();
        drop(records);
        assert_eq!(committed(&consumer), Some(3), "nobody has said that the last one is done");
        consumer.close_async().await.unwrap();
        assert_eq!(committed(&store.consumer("g")), Some(4));
    });
}

#[test]
fn whoever_waits_for_records_when_the_store_is_closed_is_told() {
    let place = tempfile::tempdir().unwrap();
    let store = with_thread(place.path());
    let topic = store.topic("t", 1);
    let mut subscribed = store.subscriber("g", "t");
    let mut assigned = store.consumer("other");
    assigned.assign(&[named("t", 0)]).unwrap();
    let mut streamed = store.consumer("third");
    streamed.assign(&[named("t", 0)]).unwrap();
    let mut shared = sharer(&store);
    let is_closed =
        |error: &Error| matches!(error, Error::Storage(logmill_storage::Error::Closed { .. }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (mut first, mut second) =
            (Box::pin(subscribed.poll_async(LONG)), Box::pin(assigned.poll_async(LONG)));
        let mut third = Box::pin(shared.poll_async(LONG));
        let mut records = streamed.records();
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        assert!(records.next().now_or_never().is_none());
        store.close();
        assert!(is_closed(&first.await.unwrap_err()));
        assert!(is_closed(&second.await.unwrap_err()));
        assert!(is_closed(&third.await.unwrap_err()));
        assert!(records.next().await.is_none());
    });
    drop(topic);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "somebody appends or waits meanwhile")]
fn a_task_shares_records_and_a_share_poll_that_is_dropped_has_leased_none() {
    with_topic(1, async |store, topic| {
        let mut consumer = sharer(store);
        drop_while_waiting(consumer.poll_async(LONG)).await;
        let append = async {
            let topic = topic.clone();
            std::thread::spawn(move || append(&topic, 0, &["a"]));
        };
        let (records, ()) = join(consumer.poll_async(LONG), append).await;
        let records = records.unwrap();
        let record = records.iter().next().unwrap();
        assert_eq!((record.record.value, record.delivery_count), (Some(b"a".as_slice()), 1));
        consumer.acknowledge(record.receipt(), Acknowledge::Accept).unwrap();
        consumer.commit_async().await.unwrap();
        consumer.close_async().await.unwrap();
        let mut next = sharer(store);
        assert!(next.poll_async(Duration::ZERO).await.unwrap().is_empty());
    });
}

#[test]
fn a_task_sends_and_is_told_where_the_record_went() {
    with_topic(1, async |store, topic| {
        let producer = store.streams.producer(ProducerConfig::new()).unwrap();
        for offset in 0..3 {
            let sent = producer.send_async(&ProducerRecord::new("t", b"v")).await.unwrap();
            assert_eq!((sent.partition, sent.offset), (named("t", 0), Some(offset)));
            assert_eq!(topic.partition(0).unwrap().high_watermark().unwrap(), offset + 1);
        }
        producer.close_async().await.unwrap();
    });
}

#[test]
fn a_task_sends_a_value_and_is_told_where_it_went() {
    with_topic(1, async |store, topic| {
        let producer = store.streams.producer(ProducerConfig::new()).unwrap();
        let sent = producer.send_json_async(&ProducerRecord::to("t"), &[1, 2]).await.unwrap();
        assert_eq!((sent.partition, sent.offset), (named("t", 0), Some(0)));
        assert_eq!(values(&topic.partition(0).unwrap()), ["[1,2]"]);
    });
}

#[test]
#[expect(clippy::disallowed_methods, reason = "somebody appends or waits meanwhile")]
fn deliveries_of_one_batch_are_told_to_every_task_though_the_first_to_ask_is_gone() {
    with_topic(1, async |store, _topic| {
        let producer = store.streams.producer(ProducerConfig::new()).unwrap();
        let send = || producer.send(&ProducerRecord::new("t", b"v")).unwrap();
        let gone = send();
        let deliveries: Vec<_> = (0..50).map(|_| send()).collect();
        assert_eq!(
            gone.into_future().now_or_never().map(Result::unwrap),
            None,
            "the sync is for later"
        );
        let waiting = send();
        let thread = std::thread::spawn(move || waiting.wait().unwrap());
        let told = join_all(deliveries.into_iter().map(IntoFuture::into_future)).await;
        let offsets: Vec<_> = told.into_iter().map(|sent| sent.unwrap().offset.unwrap()).collect();
        assert_eq!(offsets, (1..51).collect::<Vec<_>>());
        thread.join().unwrap();
    });
}

#[test]
fn a_send_that_is_dropped_before_it_is_acknowledged_is_there_after_a_flush() {
    with_topic(1, async |store, topic| {
        let producer = store.streams.producer(ProducerConfig::new()).unwrap();
        drop_while_waiting(producer.send_async(&ProducerRecord::new("t", b"orphan"))).await;
        producer.flush_async().await.unwrap();
        assert_eq!(values(&topic.partition(0).unwrap()), ["orphan"]);
        assert_eq!(producer.buffered_bytes(), 0);
    });
}

#[test]
fn a_send_that_has_no_room_waits_for_what_is_on_its_way_and_occupies_no_thread() {
    with_topic(1, async |store, topic| {
        let config = ProducerConfig::new().linger(Duration::ZERO).buffer_bytes_max(1_000);
        let producer = store.streams.producer(config).unwrap();
        let record = ProducerRecord::new("t", &[b'x'; 900]);
        let first = producer.send(&record).unwrap();
        let mut second = Box::pin(producer.send_async(&record));
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(topic.partition(0).unwrap().end_offset().unwrap(), 1, "it was not sent yet");
        assert_eq!(second.await.unwrap().offset, Some(1));
        assert_eq!(first.await.unwrap().offset, Some(0));
    });
}

#[test]
fn what_was_not_delivered_is_told_to_the_task_that_waits_and_to_the_next_flush() {
    with_topic(1, async |store, _topic| {
        let producer = store.streams.producer(ProducerConfig::new()).unwrap();
        let delivery = producer.send(&ProducerRecord::new("t", b"v")).unwrap();
        store.streams.delete_topic("t").unwrap();
        let error = delivery.await.unwrap_err();
        assert!(matches!(error, Error::NotDelivered { .. }), "{error}");
        let error = producer.flush_async().await.unwrap_err();
        assert!(matches!(error, Error::NotDelivered { .. }), "{error}");
        producer.flush_async().await.unwrap();
    });
}

#[test]
fn a_sink_takes_records_and_its_flush_tells_what_went_wrong() {
    with_topic(1, async |store, topic| {
        let config = ProducerConfig::new().buffer_bytes_max(100);
        let producer = store.streams.producer(config).unwrap();
        let lines: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        let records = lines.iter().map(|line| Ok(ProducerRecord::new("t", line.as_bytes())));
        futures_util::stream::iter(records).forward(producer.sink()).await.unwrap();
        assert_eq!(values(&topic.partition(0).unwrap()), lines);

        let mut sink = producer.sink();
        sink.feed(ProducerRecord::new("t", b"lost")).await.unwrap();
        store.streams.delete_topic("t").unwrap();
        let error = SinkExt::<ProducerRecord<'_>>::flush(&mut sink).await.unwrap_err();
        assert!(matches!(error, Error::NotDelivered { .. }), "{error}");
        let error = sink.send(ProducerRecord::new("t", b"nowhere")).await.unwrap_err();
        assert!(matches!(error, Error::UnknownTopic { .. }), "{error}");
    });
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

/// A task whose every call was ready at once kept its thread for itself.
#[test]
fn a_task_that_never_has_to_wait_lets_others_have_their_turn() {
    const RECORDS: usize = 300;
    with_topic(1, async |store, topic| {
        topic.alter(TopicConfig::new().durability(Durability::Buffered)).unwrap();
        let record = ProducerRecord::new("t", b"v");
        let producer = store.streams.producer(ProducerConfig::new()).unwrap();
        let sends = async {
            for _ in 0..RECORDS {
                producer.send_async(&record).await.unwrap();
            }
        };
        assert!(others_have_their_turn(sends).await, "sending");
        let mut sink = producer.sink();
        let feeds = async {
            for _ in 0..RECORDS {
                sink.feed(record).await.unwrap();
            }
        };
        assert!(others_have_their_turn(feeds).await, "a sink");
        sink.flush().await.unwrap();

        let mut consumer = store.consumer_with("one", manual().records_max(1));
        consumer.subscribe(&["t"]).unwrap();
        let polls = async {
            for _ in 0..RECORDS {
                assert_eq!(consumer.poll_async(LONG).await.unwrap().len(), 1);
            }
        };
        assert!(others_have_their_turn(polls).await, "polling");
        let mut consumer = store.subscriber("two", "t");
        let mut records = consumer.records();
        let nexts = async {
            for _ in 0..RECORDS {
                records.next().await.unwrap().unwrap();
            }
        };
        assert!(others_have_their_turn(nexts).await, "a stream");
        drop(records);
        let group = ShareGroupConfig::new().start_at(StartAt::Earliest);
        let config = ShareConsumerConfig::new().group(group).records_max(1);
        let mut consumer = store.streams.share_consumer("shared", config).unwrap();
        consumer.subscribe(&["t"]).unwrap();
        let polls = async {
            for _ in 0..RECORDS {
                assert_eq!(consumer.poll_async(LONG).await.unwrap().len(), 1);
            }
        };
        assert!(others_have_their_turn(polls).await, "polling as one of a share group");
    });
}

#[test]
fn a_task_waits_for_the_first_record_of_a_partition_without_making_a_log() {
    with_topic(2, async |store, topic| {
        let partition = topic.partition(1).unwrap();
        let mut reader = partition.reader(0).unwrap();
        drop_while_waiting(reader.next_batch_timeout_async(LONG)).await;
        assert_eq!(store.dir.logs().unwrap(), ["0", "0/1"]);
        let append = async { append(&topic, 1, &["a"]) };
        let (found, ()) = join(reader.next_batch_timeout_async(LONG), append).await;
        assert_eq!(found.unwrap().unwrap().count(), 1);
        assert_eq!(store.dir.logs().unwrap(), ["0", "0/1", "1/1"]);
    });
}
