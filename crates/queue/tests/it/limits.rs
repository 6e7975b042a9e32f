//! Every limit broken once: a typed error that names it, and nothing written.

use std::collections::BTreeMap;
use std::time::Duration;

use logmill_queue::{
    Attribute, DeduplicationWindow, Error, Limit, Message, Missed, Queue, QueueConfig,
    ReceiveOptions, RedriveAllow, RedriveOptions, Repeat, Retry, WorkerOptions,
};

use crate::store::{Store, ms, receive_one, send};

const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

fn broken<T: std::fmt::Debug>(result: Result<T, Error>, expected: Limit) {
    match result {
        Err(Error::OutOfBounds { limit, .. }) if limit == expected => {}
        other => panic!("{expected:?} expected, {other:?} found"),
    }
}

/// Runs `check` and sees to it that nothing was journaled meanwhile.
fn nothing_is_written(store: &Store, check: impl FnOnce()) {
    let before = store.queues().space().journaled_bytes;
    check();
    assert_eq!(store.queues().space().journaled_bytes, before);
}

#[test]
fn every_limit_of_a_queue_has_its_typed_error() {
    let store = Store::new();
    nothing_is_written(&store, || {
        let create = |name: &str, config: QueueConfig| store.queues().create(name, &config);
        let set = |config| create("q", config);
        let standard = QueueConfig::standard;
        broken(create("", standard()), Limit::QueueNameLength);
        broken(create(&"x".repeat(81), standard()), Limit::QueueNameLength);
        for (name, config) in
            [("a.b", standard()), ("../x", standard()), ("é", standard()), ("q.fifo", standard())]
        {
            assert!(matches!(create(name, config), Err(Error::InvalidQueueName { .. })), "{name}");
        }
        assert!(matches!(
            create("q", QueueConfig::fifo()),
            Err(Error::InvalidQueueName { fifo: true, .. })
        ));
        assert!(matches!(
            create(".fifo", QueueConfig::fifo()),
            Err(Error::InvalidQueueName { .. })
        ));
        broken(
            set(standard().visibility_timeout(Duration::from_secs(12 * 3600 + 1))),
            Limit::VisibilityTimeout,
        );
        broken(set(standard().delay(CENTURY * 2)), Limit::Delay);
        broken(set(standard().retention(ms(999))), Limit::Retention);
        broken(set(standard().retention(CENTURY * 2)), Limit::Retention);
        broken(set(standard().receive_wait(Duration::from_secs(86_401))), Limit::ReceiveWait);
        broken(set(standard().message_bytes_max(1023)), Limit::MessageBytesMax);
        broken(set(standard().message_bytes_max(16_000_001)), Limit::MessageBytesMax);
        broken(set(standard().lease_max(ms(999))), Limit::LeaseMax);
        broken(set(standard().lease_max(CENTURY)), Limit::LeaseMax);
        broken(set(standard().in_flight_max(0)), Limit::InFlight);
        broken(set(standard().max_receives(0)), Limit::MaxReceives);
        broken(set(standard().dead_letter("d", 1001)), Limit::MaxReceives);
        broken(
            set(standard().redrive_allow(RedriveAllow::Queues(Vec::new()))),
            Limit::RedriveSources,
        );
        broken(
            set(standard().redrive_allow(RedriveAllow::Queues(vec![String::new(); 11]))),
            Limit::RedriveSources,
        );
        broken(set(standard().messages_max(0)), Limit::LengthMessages);
        broken(set(standard().bytes_max(0)), Limit::LengthBytes);
        broken(set(standard().group_concurrency(0)), Limit::GroupConcurrency);
        broken(set(standard().keep_deleted(CENTURY * 2)), Limit::KeepDeleted);
        broken(set(standard().retry(Retry::Fixed { delay: CENTURY * 2 })), Limit::RetryDelay);
        let jitter = Retry::Exponential { first: ms(1), most: ms(1), jitter: 101 };
        broken(set(standard().retry(jitter)), Limit::RetryJitter);
        let window = DeduplicationWindow::For(Duration::ZERO);
        broken(
            create("q.fifo", QueueConfig::fifo().deduplication_window(window)),
            Limit::DeduplicationWindow,
        );
        assert!(matches!(
            set(standard().content_deduplication(true)),
            Err(Error::Unsupported { .. })
        ));
        let concurrency = QueueConfig::fifo().group_concurrency(2);
        assert!(matches!(create("q.fifo", concurrency), Err(Error::Unsupported { .. })));
    });
    assert_eq!(store.queues().list(""), Vec::<String>::new());
}

#[test]
fn every_limit_of_a_message_has_its_typed_error() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    let fifo = store.create("q.fifo", QueueConfig::fifo());
    nothing_is_written(&store, || {
        let send = |message: Message<'_>| queue.send(&message);
        broken(send(Message::new(b"")), Limit::MessageBytes);
        broken(send(Message::new(&vec![0; (1 << 20) + 1])), Limit::MessageBytes);
        broken(send(Message::new(b"m").delay(CENTURY * 2)), Limit::Delay);
        broken(send(Message::new(b"m").time_to_live(Duration::ZERO)), Limit::TimeToLive);
        broken(send(Message::new(b"m").trace_header("")), Limit::TraceHeaderBytes);
        broken(send(Message::new(b"m").group("")), Limit::GroupIdLength);
        broken(send(Message::new(b"m").group(&"g".repeat(129))), Limit::GroupIdLength);
        assert!(matches!(send(Message::new(b"m").group("a b")), Err(Error::InvalidId { .. })));
        assert!(matches!(
            send(Message::new(b"m").deduplication_id("d")),
            Err(Error::Unsupported { .. })
        ));
        let to_fifo = |message: Message<'_>| fifo.send(&message.deduplication_id("d"));
        assert!(matches!(to_fifo(Message::new(b"m")), Err(Error::Missing { .. })));
        assert!(matches!(fifo.send(&Message::new(b"m").group("g")), Err(Error::Missing { .. })));
        assert!(matches!(
            to_fifo(Message::new(b"m").group("g").delay(ms(1))),
            Err(Error::Unsupported { .. })
        ));
        assert!(matches!(
            to_fifo(Message::new(b"m").group("g").priority(1)),
            Err(Error::Unsupported { .. })
        ));
        let long = "d".repeat(129);
        broken(
            fifo.send(&Message::new(b"m").group("g").deduplication_id(&long)),
            Limit::DeduplicationIdLength,
        );
        broken(queue.send_batch(&[]), Limit::BatchEntries);
        broken(queue.send_batch(&[Message::new(b"m"); 1001]), Limit::BatchEntries);
        let big = vec![0; 1 << 20];
        broken(queue.send_batch(&[Message::new(&big); 65]), Limit::BatchBytes);
        attributes(&queue);
    });
    assert_eq!(queue.counts().unwrap(), Default::default());
}

fn attributes(queue: &Queue) {
    let send =
        |attributes: &[Attribute<'_>]| queue.send(&Message::new(b"m").attributes(attributes));
    let names: Vec<String> = (0..11).map(|i| i.to_string()).collect();
    let eleven: Vec<_> = names.iter().map(|name| Attribute::string(name, "x")).collect();
    broken(send(&eleven), Limit::Attributes);
    broken(send(&[Attribute::string("", "x")]), Limit::AttributeNameLength);
    broken(send(&[Attribute::string(&"n".repeat(257), "x")]), Limit::AttributeNameLength);
    broken(
        send(&[Attribute::string("n", "x").label(&"l".repeat(250))]),
        Limit::AttributeTypeLength,
    );
    broken(send(&[Attribute::string("n", "")]), Limit::AttributeValueBytes);
    broken(send(&[Attribute::binary("n", &[])]), Limit::AttributeValueBytes);
    broken(send(&[Attribute::number("n", &"9".repeat(39))]), Limit::NumberDigits);
    let invalid = [
        Attribute::string("AWS.n", "x"),
        Attribute::string("amazon.n", "x"),
        Attribute::string(".n", "x"),
        Attribute::string("n.", "x"),
        Attribute::string("n..n", "x"),
        Attribute::string("n n", "x"),
        Attribute::number("n", "1.2.3"),
        Attribute::number("n", "x"),
        Attribute::number("n", "1e"),
        Attribute::number("n", "1e127"),
        Attribute::number("n", "-1.1e126"),
        Attribute::number("n", "9.9e-129"),
        Attribute::number("n", "0.1e-128"),
    ];
    for attribute in invalid {
        assert!(matches!(send(&[attribute]), Err(Error::InvalidAttribute { .. })), "{attribute:?}");
    }
    let twice = [Attribute::string("n", "x"), Attribute::number("n", "1")];
    assert!(matches!(send(&twice), Err(Error::InvalidAttribute { .. })));
}

/// Zeros counted as digits, and there were no bounds: half of what SQS takes was refused, and what it refuses taken.
#[test]
fn a_number_has_38_digits_without_the_zeros_at_either_end() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    let send =
        |attributes: &[Attribute<'_>]| queue.send(&Message::new(b"m").attributes(attributes));
    let small = format!("0.{}1", "0".repeat(60));
    let large = format!("00{}{}", "7".repeat(38), "0".repeat(60));
    for number in ["1e126", "-1E-128", "0e999", "+.5", &small, &large] {
        assert!(send(&[Attribute::number("n", number)]).is_ok(), "{number}");
    }
}

#[test]
fn every_limit_of_a_call_has_its_typed_error() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard().in_flight_max(1));
    let fifo = store.create("q.fifo", QueueConfig::fifo());
    send(&queue, "held");
    send(&queue, "waiting");
    let held = receive_one(&queue);
    nothing_is_written(&store, || {
        let receive = |options: ReceiveOptions<'_>| queue.receive(&options);
        broken(receive(ReceiveOptions::new().max(0)), Limit::ReceiveMax);
        broken(receive(ReceiveOptions::new().max(1001)), Limit::ReceiveMax);
        broken(
            receive(ReceiveOptions::new().wait(Duration::from_secs(86_401))),
            Limit::ReceiveWait,
        );
        let long = Duration::from_secs(12 * 3600 + 1);
        broken(receive(ReceiveOptions::new().visibility_timeout(long)), Limit::VisibilityTimeout);
        broken(fifo.receive(&ReceiveOptions::new().attempt_id("")), Limit::ReceiveAttemptIdLength);
        assert!(matches!(
            receive(ReceiveOptions::new().attempt_id("x")),
            Err(Error::Unsupported { .. })
        ));
        assert!(matches!(
            receive(ReceiveOptions::new()),
            Err(Error::OverLimit { in_flight_max: 1 })
        ));
        broken(queue.change_visibility(held.receipt(), long), Limit::VisibilityTimeout);
        broken(queue.nack(held.receipt(), &"x".repeat(4097)), Limit::ReasonBytes);
        broken(queue.reject(held.receipt(), &"x".repeat(4097)), Limit::ReasonBytes);
        broken(queue.nack_after(held.receipt(), CENTURY * 2, ""), Limit::Delay);
        broken(queue.delete_batch(&[]), Limit::BatchEntries);
        broken(queue.delete_batch(&[*held.receipt(); 1001]), Limit::BatchEntries);
        broken(queue.peek(0), Limit::ReceiveMax);
        let tags = |n: usize, key: &str| {
            (0..n).map(|i| (format!("{key}{i}"), String::new())).collect::<BTreeMap<_, _>>()
        };
        broken(queue.set_tags(&tags(51, "k")), Limit::Tags);
        broken(queue.set_tags(&tags(1, &"k".repeat(128))), Limit::TagLength);
        broken(queue.redrive(&RedriveOptions::new().messages_per_second(0)), Limit::RedriveRate);
        let every = |interval| {
            queue.schedule("s", &Repeat::Every(interval), &Message::new(b"m"), Missed::Each)
        };
        broken(every(Duration::ZERO), Limit::ScheduleInterval);
        broken(queue.worker(WorkerOptions::new().threads(0)).run(|_| Ok(())), Limit::WorkerThreads);
        assert!(matches!(
            "garbage".parse::<logmill_queue::Receipt>(),
            Err(Error::ReceiptHandleIsInvalid)
        ));
        assert!(matches!(fifo.delete(held.receipt()), Err(Error::ReceiptHandleIsInvalid)));
        assert!(matches!(
            "garbage".parse::<logmill_queue::MessageId>(),
            Err(Error::InvalidMessageId { .. })
        ));
        assert!(matches!(store.queues().queue("nowhere"), Err(Error::QueueDoesNotExist { .. })));
    });
    assert_eq!(fifo.receive(&ReceiveOptions::new()).unwrap().len(), 0);
}

#[test]
fn what_is_not_held_any_more_cannot_be_extended_and_a_closed_store_says_so() {
    let store = Store::new();
    let queue = store.create("q", QueueConfig::standard());
    send(&queue, "m");
    let held = receive_one(&queue);
    queue.nack_after(held.receipt(), ms(1000), "later").unwrap();
    nothing_is_written(&store, || {
        let refused = queue.change_visibility(held.receipt(), ms(1000)).unwrap_err();
        assert!(matches!(refused, Error::MessageNotInflight { .. }), "{refused}");
    });
    store.queues().clone().close().unwrap();
    assert!(matches!(queue.send(&Message::new(b"m")), Err(Error::Closed)));
    assert!(matches!(queue.receive(&ReceiveOptions::new()), Err(Error::Closed)));
    assert!(matches!(queue.delete(held.receipt()), Err(Error::Closed)));
    assert!(matches!(store.queues().queue("q"), Err(Error::Closed)));
}
