//! kill -9 of senders and of receivers that delete: what was acknowledged as sent is there, what was acknowledged as deleted
//! is not, and in between is nothing that was never sent. `LOGMILL_KILLS` as in [`kill`](crate::kill).

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::support::{Numbers, Store, parsed};

const SEED: u64 = 0x7175_6575_6500;
/// A store is as long in use as it costs no more and more to open.
const STORE_CYCLES: u64 = 20;

/// What a command printed in whole lines before it ended, and whether a kill was what ended it.
struct Printed {
    lines: Vec<serde_json::Value>,
    killed: bool,
}

/// Runs a command that prints JSON, fed with `input`, and kills it once it has printed something and `after` has passed.
fn run_and_kill(store: &Store, arguments: &[&str], input: Vec<u8>, after: Duration) -> Printed {
    let mut child =
        store.command(arguments).stdin(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The pipe breaks when the kill comes first.
    let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
    let mut stdout = child.stdout.take().unwrap();
    let mut printed = vec![0; 1];
    let first = stdout.read(&mut printed).unwrap();
    printed.truncate(first);
    let reader = thread::spawn(move || {
        stdout.read_to_end(&mut printed).unwrap();
        printed
    });
    thread::sleep(after);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    let killed = status.signal() == Some(9);
    assert!(killed || status.success(), "{status}");
    feeder.join().unwrap();
    let printed = reader.join().unwrap();
    let whole = printed.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    Printed { lines: parsed(&printed[..whole]), killed }
}

/// The numbers of messages, in the order in which they were printed.
fn numbers(messages: &[serde_json::Value]) -> Vec<u64> {
    messages.iter().map(|message| message["body"].as_str().unwrap().parse().unwrap()).collect()
}

/// Draining to the end found that `receive --delete` of an empty queue failed: it asked for a deletion of nothing.
#[test]
fn kill_takes_no_sent_message_and_brings_back_no_deleted_one() {
    let mut random = Numbers(SEED);
    let mut left = crate::kill::cycles().div_ceil(4);
    let (mut senders, mut receivers) = (0, 0);
    while left > 0 {
        let store = Store::new();
        store.run(&["queue", "create", "q"]).ok();
        for _ in 0..left.min(STORE_CYCLES) {
            let count = 1 + random.below(600);
            let input: String = (0..count).map(|n| format!("{n}\n")).collect();
            let after = Duration::from_micros(random.below(4000));
            let sent = run_and_kill(&store, &["queue", "send", "q", "--json"], input.into(), after);
            senders += u64::from(sent.killed);

            let receive =
                ["queue", "receive", "q", "--json", "--delete", "--visibility-timeout", "0s"];
            let max = (1 + random.below(300)).to_string();
            let some = [&receive[..], &["--max", &max]].concat();
            let after = Duration::from_micros(random.below(4000));
            let received = run_and_kill(&store, &some, Vec::new(), after);
            receivers += u64::from(received.killed);

            let mut rest = Vec::new();
            loop {
                let some = [&receive[..], &["--max", "1000"]].concat();
                let messages = parsed(&store.run(&some).ok());
                if messages.is_empty() {
                    break;
                }
                rest.extend(numbers(&messages));
            }
            let printed = numbers(&received.lines);
            assert!(rest.is_sorted_by(|a, b| a < b), "in order, and none twice: {rest:?}");
            if !received.killed {
                let back: Vec<_> = printed.iter().filter(|number| rest.contains(number)).collect();
                assert!(back.is_empty(), "deleted ones came back: {back:?}");
            }
            let seen: BTreeSet<u64> = printed.into_iter().chain(rest).collect();
            let end = seen.last().map_or(0, |last| last + 1);
            assert!(seen.into_iter().eq(0..end), "a hole before {end}");
            assert!(end <= count, "{end} of {count}");
            let acknowledged = sent.lines.len() as u64;
            assert!(end >= acknowledged, "{acknowledged} were acknowledged, {end} were there");
            assert_eq!(store.run(&["verify"]).code, 0);
        }
        left = left.saturating_sub(STORE_CYCLES);
    }
    eprintln!("{senders} senders and {receivers} receivers were killed at work");
    assert!(senders > 0 && receivers > 0, "{senders} senders, {receivers} receivers");
}
