//! kill -9 at each system call that changes a file, one after another: `strace` delivers the signal as the N-th call of a
//! kind begins, for every N until the command ends by itself.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use crate::support::{Store, parsed};

const CALLS: [&str; 7] =
    ["pwrite64", "fdatasync", "fsync", "ftruncate", "fallocate", "renameat", "unlinkat"];

#[expect(clippy::print_stderr, reason = "what is skipped says so")]
fn has_strace() -> bool {
    let found = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("SKIPPED: kills at every call take strace, which is not here");
    }
    found
}

/// What a command left that may have been killed.
struct Left<'a> {
    store: &'a Store,
    /// What it printed in whole lines.
    printed: &'a str,
    is_killed: bool,
    /// The call that the kill was to meet, and its number.
    at: &'a str,
}

/// Runs a command on a store that `prepare` has made, killed at the N-th call of each kind for every N, and has `check` look
/// at what it left. The command is given `input` as a file, unless there is none.
#[expect(clippy::print_stderr, reason = "how often it was killed is worth a line")]
fn at_every(arguments: &[&str], input: &str, prepare: impl Fn(&Store), check: impl Fn(&Left<'_>)) {
    if !has_strace() {
        return;
    }
    let mut kills = 0;
    for call in CALLS {
        for n in 1.. {
            let store = Store::new();
            prepare(&store);
            let path = store.file("input", input.as_bytes());
            let plain = store.command(arguments);
            let inject = format!("inject={call}:signal=KILL:when={n}");
            let mut traced = Command::new("strace");
            traced
                .args([
                    "-f",
                    "-qq",
                    "-o",
                    "/dev/null",
                    "-e",
                    &format!("trace={call}"),
                    "-e",
                    &inject,
                ])
                .arg(plain.get_program())
                .args(plain.get_args());
            if !input.is_empty() {
                traced.args(["--file", path.to_str().unwrap()]);
            }
            let output = traced.output().unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            let whole = printed.rfind('\n').map_or("", |end| &printed[..=end]);
            let is_killed = !output.status.success();
            let at = format!("{call} {n}");
            check(&Left { store: &store, printed: whole, is_killed, at: &at });
            assert_eq!(store.run(&["verify"]).code, 0, "{at}");
            if !is_killed {
                break;
            }
            kills += 1;
        }
    }
    eprintln!("{kills} kills");
    assert!(kills >= 10, "{kills} kills");
}

#[test]
fn a_producer_killed_at_any_call_has_stored_what_it_acknowledged() {
    at_every(
        &["produce", "events", "--print-offsets"],
        "one\ntwo\nthree\n",
        |store| store.produce("events", b"zero\n"),
        |left| {
            let read = left.store.run(&["consume", "events"]).ok_text();
            let found: Vec<_> = read.lines().collect();
            assert!(["zero", "one", "two", "three"].starts_with(&found), "{}: {found:?}", left.at);
            assert!(found.len() > left.printed.lines().count(), "{}: {}", left.at, left.printed);
        },
    );
}

#[test]
fn a_sender_killed_at_any_call_has_stored_what_it_acknowledged() {
    at_every(
        &["queue", "send", "q", "--json"],
        "0\n1\n2\n",
        |store| drop(store.run(&["queue", "create", "q"]).ok()),
        |left| {
            let there = parsed(&left.store.run(&["queue", "peek", "q", "--json"]).ok());
            let bodies = there.iter().map(|message| message["body"].as_str().unwrap().to_owned());
            assert!(bodies.eq((0..there.len()).map(|n| n.to_string())), "{}", left.at);
            assert!(there.len() >= left.printed.lines().count(), "{}: {}", left.at, left.printed);
        },
    );
}

#[test]
fn a_receiver_killed_at_any_call_has_deleted_what_it_acknowledged_and_nothing_that_it_had_not() {
    at_every(
        &["queue", "receive", "q", "--delete", "--max", "2", "--visibility-timeout", "0s"],
        "",
        |store| {
            store.run(&["queue", "create", "q"]).ok();
            store.run_with(&["queue", "send", "q"], b"0\n1\n2\n").ok();
        },
        |left| {
            let there = left.store.run(&["queue", "peek", "q"]).ok_text();
            // Both go in one batch; and only what was printed may go.
            let expected =
                if left.is_killed && there.lines().count() == 3 { "0\n1\n2\n" } else { "2\n" };
            assert_eq!(there, expected, "{}", left.at);
            assert!(there.len() > 2 || left.printed == "0\n1\n", "{}: {}", left.at, left.printed);
        },
    );
}

/// Filler, so that a few hundred lines fill a segment.
fn long_lines(prefix: &str, count: u64) -> String {
    (0..count).map(|n| format!("{prefix}{} {n} {}\n", n % 7, "a".repeat(400))).collect()
}

#[test]
fn a_compaction_killed_at_any_call_has_kept_the_latest_record_of_each_key() {
    let lines = long_lines("k", 500);
    let lines: Vec<_> = lines.lines().collect();
    at_every(
        &["compact", "users"],
        "",
        |store| {
            store.create_topic_of_small_segments("users");
            let input = long_lines("k", 500);
            store.run_with(&["produce", "users", "--key-field", "1"], input.as_bytes()).ok();
        },
        |left| {
            let mut latest = BTreeMap::new();
            let found = parsed(&left.store.run(&["consume", "users", "--json"]).ok());
            for record in &found {
                let offset = usize::try_from(record["offset"].as_u64().unwrap()).unwrap();
                assert_eq!(record["value"].as_str().unwrap(), lines[offset], "{}", left.at);
                latest.insert(record["key"].as_str().unwrap().to_owned(), offset);
            }
            let expected = (0..7).map(|key| (format!("k{key}"), 499 - (499 - key) % 7));
            assert_eq!(latest, expected.collect(), "{}", left.at);
            assert!(left.is_killed || found.len() < 300, "{} were left", found.len());
        },
    );
}

#[test]
fn a_producer_killed_at_any_call_while_old_segments_go_has_kept_what_retention_promises() {
    let lines = long_lines("", 800);
    at_every(
        &["produce", "events", "--print-offsets"],
        &lines,
        |store| {
            let settings = ["--set", "segment.bytes=65536", "--set", "retention.records=50"];
            store.run(&[&["topic", "create", "events"], &settings[..]].concat()).ok();
        },
        |left| {
            let found = parsed(&left.store.run(&["consume", "events", "--json"]).ok());
            let first = found.first().map_or(0, |record| record["offset"].as_u64().unwrap());
            for ((offset, line), record) in
                (0_u64..).zip(lines.lines()).skip(usize::try_from(first).unwrap()).zip(&found)
            {
                assert_eq!(
                    (record["offset"].as_u64(), record["value"].as_str()),
                    (Some(offset), Some(line)),
                    "{}",
                    left.at
                );
            }
            let end = first + found.len() as u64;
            assert!(end >= left.printed.lines().count() as u64, "{}", left.at);
            assert!(found.len() as u64 >= end.min(50), "{}: {first}..{end}", left.at);
            assert!(left.is_killed || first > 0, "nothing was removed");
        },
    );
}
