//! `produce`: what becomes a record, and when its offset is printed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::support::{Numbers, Store, parsed};

#[test]
fn each_line_is_a_record_in_order() {
    let store = Store::new();
    store.produce("events", b"one\ntwo\nthree\n");
    assert_eq!(store.run(&["consume", "events"]).ok(), b"one\ntwo\nthree\n");
}

#[test]
fn lines_of_arbitrary_bytes_come_back_as_they_were() {
    let store = Store::new();
    let mut numbers = Numbers(1);
    let input: Vec<u8> = (0..300_000).map(|_| numbers.next().to_le_bytes()[0]).collect();
    store.produce("events", &input);
    assert_eq!(store.run(&["consume", "events"]).ok(), [&input[..], b"\n"].concat());
}

#[test]
fn a_file_gives_the_same_records_as_standard_input() {
    let store = Store::new();
    let text: String = (0..20_000).map(|n| format!("line {n} of a file\n")).collect();
    let file = store.file("input.txt", text.as_bytes());
    assert_eq!(store.run(&["produce", "events", "--file", file.to_str().unwrap()]).ok_text(), "");
    assert_eq!(store.run(&["consume", "events"]).ok_text(), text);
}

#[test]
fn empty_lines_carriage_returns_and_a_last_line_without_newline_are_kept() {
    let store = Store::new();
    store.produce("events", b"\r\n\n\nlast");
    let records = parsed(&store.run(&["consume", "events", "--format", "json"]).ok());
    let values: Vec<_> = records.iter().map(|record| record["value"].as_str().unwrap()).collect();
    assert_eq!(values, ["\r", "", "", "last"]);
}

#[test]
fn an_empty_input_makes_an_empty_topic() {
    let store = Store::new();
    store.produce("events", b"");
    assert_eq!(store.run(&["consume", "events"]).ok_text(), "");
}

#[test]
fn the_key_field_is_the_key_and_the_value_stays_the_whole_line() {
    let store = Store::new();
    let input = b"2024 alice  logged in\nshort\n\t2025\tbob\n2026 \xff\n";
    store.run_with(&["produce", "events", "--key-field", "2"], input).ok();
    let records = parsed(&store.run(&["consume", "events", "--format", "json"]).ok());
    assert_eq!(records[0]["key"], "alice");
    assert_eq!(records[0]["value"], "2024 alice  logged in");
    assert_eq!(records[1]["key"], serde_json::Value::Null);
    assert_eq!(records[2]["key"], "bob");
    assert_eq!(records[3]["key_base64"], "/w==");
    assert_eq!(records[3]["value_base64"], "MjAyNiD/");
    assert!(records[3].get("key").is_none());
}

#[test]
fn offsets_are_printed_for_every_line_in_input_order_and_go_on_in_the_next_run() {
    let store = Store::new();
    for (durability, first) in [("sync", 0), ("interval", 5_000), ("buffered", 10_000)] {
        let input: String = (0..5_000).map(|n| format!("{n}\n")).collect();
        let offsets = store
            .run_with(
                &["produce", "events", "--print-offsets", "--durability", durability],
                input.as_bytes(),
            )
            .ok_text();
        let expected: String =
            (first..first + 5_000).map(|offset| format!("0 {offset}\n")).collect();
        assert_eq!(offsets, expected, "{durability}");
    }
}

#[test]
fn a_line_is_acknowledged_before_the_next_one_arrives() {
    let store = Store::new();
    let mut producer = store.live_producer(&["events"]);
    let mut stdin = producer.stdin.take().unwrap();
    let mut stdout = BufReader::new(producer.stdout.take().unwrap());
    for offset in 0..3 {
        stdin.write_all(format!("line {offset}\n").as_bytes()).unwrap();
        let mut acknowledged = String::new();
        stdout.read_line(&mut acknowledged).unwrap();
        assert_eq!(acknowledged, format!("0 {offset}\n"));
    }
    drop(stdin);
    assert!(producer.wait().unwrap().success());
}

#[test]
fn keys_choose_the_partition_as_kafka_does_and_offsets_are_printed_in_input_order() {
    let store = Store::new();
    store.create_topic("events", 3);
    let mut numbers = Numbers(2);
    let input: Vec<String> =
        (0..4_000).map(|n| format!("user-{} did {n}", numbers.below(50))).collect();
    let printed = store
        .run_with(
            &["produce", "events", "--key-field", "1", "--print-offsets"],
            input.join("\n").as_bytes(),
        )
        .ok_text();
    let mut next = [0u64; 3];
    for (line, printed) in input.iter().zip(printed.lines()) {
        let key = line.split(' ').next().unwrap();
        let partition = logmill::stream::partition_for_key(key.as_bytes(), 3) as usize;
        assert_eq!(printed, format!("{partition} {}", next[partition]), "{line}");
        next[partition] += 1;
    }
    assert_eq!(printed.lines().count(), input.len());
    assert!(next.iter().all(|count| *count > 0), "{next:?}");
}

#[test]
fn places_are_printed_as_objects_if_they_are_wanted_so() {
    let store = Store::new();
    let printed = store.run_with(&["produce", "events", "--json"], b"a\nb\n").ok();
    let places = crate::support::parsed(&printed);
    let expected = |offset: u64| serde_json::json!({ "partition": 0, "offset": offset });
    assert_eq!(places, [expected(0), expected(1)]);
    assert_eq!(store.run(&["produce", "events", "--json", "--print-offsets"]).code, 2);
}

#[test]
fn lines_without_a_key_spread_over_the_partitions_and_none_is_lost() {
    let store = Store::new();
    store.create_topic("events", 3);
    let input: String = (0..200_000).map(|n| format!("{n}\n")).collect();
    let printed =
        store.run_with(&["produce", "events", "--print-offsets"], input.as_bytes()).ok_text();
    assert_eq!(printed.lines().count(), 200_000);
    let mut all: Vec<u32> = Vec::new();
    for partition in ["0", "1", "2"] {
        let values = store.run(&["consume", "events", "--partition", partition]).ok_text();
        assert!(!values.is_empty(), "partition {partition} got nothing");
        let values: Vec<u32> = values.lines().map(|value| value.parse().unwrap()).collect();
        assert!(values.is_sorted());
        all.extend(values);
    }
    all.sort_unstable();
    assert!(all.into_iter().eq(0..200_000));
}

#[test]
fn a_missing_input_file_is_named_and_nothing_is_made() {
    let store = Store::new();
    let message = store.run(&["produce", "events", "--file", "/nonexistent/input"]).failed(1);
    assert!(message.contains("/nonexistent/input"), "{message}");
    assert!(!store.dir().exists());
}

#[test]
fn a_line_that_is_too_long_fails_after_those_before_it_are_stored() {
    let store = Store::new();
    let input = [b"before\n".to_vec(), vec![b'x'; 17 << 20], b"\nafter\n".to_vec()].concat();
    let finished = store.run_with(&["produce", "events", "--print-offsets"], &input);
    assert_eq!(finished.stdout, b"0 0\n");
    let message = finished.failed(1);
    assert!(message.contains("1 line"), "{message}");
    assert_eq!(store.run(&["consume", "events"]).ok(), b"before\n");
}

/// A line of 16 MiB passed the check of lines and failed as a record, with all that came with it.
#[test]
fn the_longest_line_is_what_the_topic_takes_as_a_record_and_a_longer_one_is_named_by_its_number() {
    let store = Store::new();
    store.run(&["topic", "create", "events", "--set", "max.message.bytes=2048"]).ok();
    let line = |len: usize| [vec![b'x'; len], b"\n".to_vec()].concat();
    let (mut fits, mut fails) = (0, 4096);
    while fails - fits > 1 {
        let len = usize::midpoint(fits, fails);
        let input = [b"one\n".to_vec(), b"two\n".to_vec(), line(len)].concat();
        let finished = store.run_with(&["produce", "events"], &input);
        if finished.code == 0 {
            fits = len;
            continue;
        }
        fails = len;
        let message = finished.failed(1);
        assert!(message.contains("line 3 of standard input"), "{message}");
        assert!(message.contains("at most 2048"), "{message}");
        assert!(message.contains("acknowledged before that: 2 lines"), "{message}");
    }
    // Next to the limit itself: a record has a few bytes beside its value.
    assert!((1900..2048).contains(&fits), "{fits}");

    let store = Store::new();
    let finished =
        store.run_with(&["produce", "events"], &[b"one\n".to_vec(), line(16 << 20)].concat());
    let message = finished.failed(1);
    assert!(
        message.contains("line 2 of standard input") && message.contains("16777216"),
        "{message}"
    );
    assert_eq!(store.run(&["consume", "events"]).ok(), b"one\n");
    // And a topic that takes longer ones gets them.
    store.run(&["topic", "alter", "events", "--set", "max.message.bytes=33554432"]).ok();
    store.produce("events", &line(17 << 20));
}

#[test]
fn a_second_writer_is_refused_with_the_pid_of_the_first_or_waits_for_it() {
    let store = Store::new();
    let mut first = store.live_producer(&["events"]);
    let mut stdin = first.stdin.take().unwrap();
    let mut stdout = BufReader::new(first.stdout.take().unwrap());
    stdin.write_all(b"first\n").unwrap();
    stdout.read_line(&mut String::new()).unwrap();

    let message =
        store.run_with(&["--lock-wait", "0", "produce", "events"], b"refused\n").failed(1);
    assert!(message.contains(&first.id().to_string()), "{message}");
    assert!(message.contains(store.dir().to_str().unwrap()), "{message}");

    let mut second = store.live_producer(&["--lock-wait", "1h", "events"]);
    second.stdin.take().unwrap().write_all(b"second\n").unwrap();
    drop(stdin);
    assert!(first.wait().unwrap().success());
    assert!(second.wait().unwrap().success());
    assert_eq!(store.run(&["consume", "events"]).ok(), b"first\nsecond\n");
}

/// Lines for 300 partitions at once take more files than a soft limit of 256 allows; a shell's 1,024 were not enough either
/// for a thousand partitions.
#[test]
fn the_soft_limit_of_open_files_does_not_limit_the_partitions_of_one_run() {
    let store = Store::new();
    store.create_topic("events", 300);
    let lines: String = (0..3000).map(|n| format!("{n}\n")).collect();
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -S -n 256; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_logmill"), "--dir"])
        .arg(store.dir())
        .args(["produce", "events", "--key-field", "1", "--durability", "buffered"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(store.run(&["consume", "events"]).ok().split(|byte| *byte == b'\n').count(), 3001);
}
