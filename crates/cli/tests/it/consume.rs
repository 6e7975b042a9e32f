//! `consume`: where it starts, where it stops, and what it prints.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use crate::support::{Store, parsed};

fn ten() -> Store {
    let store = Store::new();
    store.produce("events", b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    store
}

#[test]
fn from_says_where_to_start_and_max_where_to_stop() {
    let store = ten();
    let cases: [(&[&str], &str); 8] = [
        (&["--max", "3"], "0\n1\n2\n"),
        (&["--from", "earliest", "--max", "1"], "0\n"),
        (&["--from", "latest"], ""),
        (&["--from", "7"], "7\n8\n9\n"),
        (&["--from", "4", "--max", "2"], "4\n5\n"),
        (&["--from", "10"], ""),
        (&["--max", "0"], ""),
        (&["--partition", "0", "--from", "9"], "9\n"),
    ];
    for (arguments, expected) in cases {
        let found = store.run(&[&["consume", "events"], arguments].concat()).ok_text();
        assert_eq!(found, expected, "{arguments:?}");
    }
}

#[test]
fn from_a_timestamp_starts_at_the_first_record_that_is_not_older() {
    let store = Store::new();
    let mut producer = store.live_producer(&["events"]);
    let mut stdin = producer.stdin.take().unwrap();
    let mut stdout = BufReader::new(producer.stdout.take().unwrap());
    for n in 0..5 {
        stdin.write_all(format!("{n}\n").as_bytes()).unwrap();
        stdout.read_line(&mut String::new()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(stdin);
    producer.wait().unwrap();
    let records = parsed(&store.run(&["consume", "events", "--format", "json"]).ok());
    for record in &records {
        let timestamp = record["timestamp"].as_i64().unwrap();
        let first =
            records.iter().position(|r| r["timestamp"].as_i64().unwrap() >= timestamp).unwrap();
        let from = format!("@{timestamp}");
        assert_eq!(
            parsed(&store.run(&["consume", "events", "--from", &from, "--format", "json"]).ok()),
            records[first..]
        );
    }
    let after = records[4]["timestamp"].as_i64().unwrap() + 1;
    assert_eq!(store.run(&["consume", "events", "--from", &format!("@{after}")]).ok_text(), "");
    assert_eq!(store.run(&["consume", "events", "--from", "@-1", "--max", "1"]).ok_text(), "0\n");
}

#[test]
fn json_has_a_line_for_each_record_with_its_place() {
    let store = ten();
    let records = parsed(
        &store.run(&["consume", "events", "--format", "json", "--from", "3", "--max", "2"]).ok(),
    );
    assert_eq!(records.len(), 2);
    for (record, offset) in records.iter().zip(3..) {
        let mut names: Vec<_> = record.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["headers", "key", "offset", "partition", "timestamp", "value"]);
        assert_eq!(record["partition"], 0);
        assert_eq!(record["offset"], offset);
        assert_eq!(record["value"], offset.to_string());
        assert!(record["timestamp"].as_i64().unwrap() > 1_700_000_000_000);
    }
}

#[test]
fn partitions_are_read_one_after_the_other() {
    let store = Store::new();
    store.create_topic("events", 3);
    let input: String = (0..1_000).map(|n| format!("user-{} {n}\n", n % 7)).collect();
    store.run_with(&["produce", "events", "--key-field", "1"], input.as_bytes()).ok();
    let records = parsed(&store.run(&["consume", "events", "--format", "json"]).ok());
    let places: Vec<_> = records
        .iter()
        .map(|r| (r["partition"].as_u64().unwrap(), r["offset"].as_u64().unwrap()))
        .collect();
    assert_eq!(places.len(), 1_000);
    assert!(places.is_sorted());
    let one: Vec<_> =
        parsed(&store.run(&["consume", "events", "--partition", "1", "--format", "json"]).ok());
    assert!(one.iter().eq(records.iter().filter(|record| record["partition"] == 1)));
    let limited =
        parsed(&store.run(&["consume", "events", "--format", "json", "--max", "900"]).ok());
    assert_eq!(limited, records[..900]);
}

#[test]
fn it_reads_beside_a_live_producer_and_writes_no_byte() {
    let store = Store::new();
    let mut producer = store.live_producer(&["events"]);
    let mut stdin = producer.stdin.take().unwrap();
    let mut stdout = BufReader::new(producer.stdout.take().unwrap());
    stdin.write_all(b"one\ntwo\n").unwrap();
    stdout.read_line(&mut String::new()).unwrap();
    stdout.read_line(&mut String::new()).unwrap();
    assert_eq!(store.run(&["consume", "events"]).ok(), b"one\ntwo\n");
    drop(stdin);
    producer.wait().unwrap();

    let before = store.snapshot();
    assert_eq!(store.run(&["consume", "events"]).ok(), b"one\ntwo\n");
    assert!(store.snapshot() == before, "reading changed the store");
}

#[test]
fn follow_prints_what_arrives_and_ends_at_max() {
    let store = Store::new();
    store.produce("events", b"0\n1\n");
    let mut consumer =
        store.command(&["consume", "events", "--follow", "--max", "5"]).spawn().unwrap();
    let mut printed = BufReader::new(consumer.stdout.take().unwrap());
    let mut line = String::new();
    printed.read_line(&mut line).unwrap();
    printed.read_line(&mut line).unwrap();
    assert_eq!(line, "0\n1\n");

    let mut producer = store.live_producer(&["events"]);
    let mut stdin = producer.stdin.take().unwrap();
    for n in 2..4 {
        stdin.write_all(format!("{n}\n").as_bytes()).unwrap();
        line.clear();
        printed.read_line(&mut line).unwrap();
        assert_eq!(line, format!("{n}\n"));
    }
    drop(stdin);
    producer.wait().unwrap();

    // A writer that came after the consumer, and after another writer.
    store.produce("events", b"4\n5\n");
    let mut rest = String::new();
    printed.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "4\n");
    assert!(consumer.wait().unwrap().success());
}

/// It went on waiting for records that nobody would read, until one came.
#[test]
fn follow_ends_when_nobody_reads_what_it_prints() {
    let store = ten();
    let mut follower = store.command(&["consume", "events", "--follow"]).spawn().unwrap();
    let mut output = BufReader::new(follower.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "0\n");
    drop(output);
    assert_eq!(follower.wait().unwrap().code(), Some(0));
}

#[test]
fn what_a_buffered_topic_has_stored_is_printed_beside_its_writer() {
    let store = Store::new();
    let create = ["topic", "create", "events", "--partitions", "1", "--set", "durability=buffered"];
    store.run(&create).ok();
    let mut producer = store.live_producer(&["events", "--durability", "buffered"]);
    let mut input = producer.stdin.take().unwrap();
    let mut acknowledged = BufReader::new(producer.stdout.take().unwrap());
    for n in 0..20 {
        writeln!(input, "{n}").unwrap();
        acknowledged.read_line(&mut String::new()).unwrap();
        let from = n.to_string();
        assert_eq!(store.run(&["consume", "events", "--from", &from]).ok_text(), format!("{n}\n"));
    }
    drop(input);
    producer.wait().unwrap();
}

#[test]
fn follow_reads_all_partitions_at_once() {
    let store = Store::new();
    store.create_topic("events", 3);
    let mut consumer =
        store.command(&["consume", "events", "--follow", "--from", "latest", "--max", "300"]);
    let mut consumer = consumer.spawn().unwrap();
    let input: Vec<String> = (0..300).map(|n| format!("user-{n}")).collect();
    store.run_with(&["produce", "events", "--key-field", "1"], input.join("\n").as_bytes()).ok();
    // `latest` is where the consumer found the end: it may have started late, so the test sends until it has enough.
    while consumer.try_wait().unwrap().is_none() {
        store.run_with(&["produce", "events", "--key-field", "1"], b"more\nand\nmore\n").ok();
    }
    let output = consumer.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 300);
}

#[test]
fn what_is_not_there_is_an_error_that_says_so_and_nothing_is_made() {
    let store = Store::new();
    let message = store.run(&["consume", "events"]).failed(1);
    assert!(message.contains(store.dir().to_str().unwrap()), "{message}");
    assert!(!store.dir().exists());

    let store = ten();
    let message = store.run(&["consume", "event"]).failed(1);
    assert!(message.contains("event"), "{message}");
    // The last one once passed for an empty range of partitions.
    for number in ["1", "4294967295"] {
        let message = store.run(&["consume", "events", "--partition", number]).failed(1);
        assert!(message.contains(&format!("no partition {number}")), "{message}");
    }
    let message = store.run(&["consume", "events", "--from", "11"]).failed(1);
    assert!(message.contains("offset 11 is outside 0..10"), "{message}");
}

#[test]
fn an_offset_without_a_partition_is_bad_usage_where_there_are_several() {
    let store = Store::new();
    store.create_topic("events", 2);
    store.run(&["consume", "events", "--from", "3"]).failed(2);
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let store = Store::new();
    let text: String = (0..500_000).map(|n| format!("{n}\n")).collect();
    store.produce("events", text.as_bytes());
    let mut consumer =
        store.command(&["consume", "events"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(consumer.stdout.take().unwrap());
    let mut line = String::new();
    printed.read_line(&mut line).unwrap();
    assert_eq!(line, "0\n");
    drop(printed);
    let output = consumer.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
