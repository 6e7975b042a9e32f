//! kill -9 at each system call that changes a file, one after another: `strace` delivers the signal as the N-th call of a
//! kind begins, for every N until the command ends by itself.

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

/// Runs a command on a store that `prepare` has made, killed at the N-th `call` for every N, and has `check` look at what it
/// printed in whole lines and at the store. Returns how often it was killed.
fn at_every(
    call: &str,
    arguments: &[&str],
    input: &[u8],
    prepare: impl Fn(&Store),
    check: impl Fn(&Store, &str, u64),
) -> u64 {
    for n in 1.. {
        let store = Store::new();
        prepare(&store);
        let input = store.file("input", input);
        let plain = store.command(arguments);
        let inject = format!("inject={call}:signal=KILL:when={n}");
        let output = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject])
            .arg(plain.get_program())
            .args(plain.get_args())
            .args(["--file", input.to_str().unwrap()])
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let whole = printed.rfind('\n').map_or("", |end| &printed[..=end]);
        check(&store, whole, n);
        assert_eq!(store.run(&["verify"]).code, 0, "{call} {n}");
        if output.status.success() {
            return n - 1;
        }
    }
    0
}

#[test]
fn a_producer_killed_at_any_call_has_stored_what_it_acknowledged() {
    if !has_strace() {
        return;
    }
    let lines = ["one", "two", "three"];
    let kills: u64 = CALLS
        .into_iter()
        .map(|call| {
            let arguments = ["produce", "events", "--print-offsets"];
            at_every(
                call,
                &arguments,
                b"one\ntwo\nthree\n",
                |store| store.produce("events", b"zero\n"),
                |store, printed, n| {
                    let read = store.run(&["consume", "events"]).ok_text();
                    let found: Vec<_> = read.lines().collect();
                    assert_eq!(found[0], "zero", "{call} {n}");
                    assert!(
                        found[1..].iter().zip(lines).all(|(found, line)| *found == line),
                        "{call} {n}"
                    );
                    assert!(found.len() > printed.lines().count(), "{call} {n}: {printed}");
                },
            )
        })
        .sum();
    eprintln!("{kills} kills");
    assert!(kills >= 10, "{kills} kills");
}

#[test]
fn a_sender_killed_at_any_call_has_stored_what_it_acknowledged() {
    if !has_strace() {
        return;
    }
    let kills: u64 = CALLS
        .into_iter()
        .map(|call| {
            let prepare = |store: &Store| drop(store.run(&["queue", "create", "q"]).ok());
            at_every(
                call,
                &["queue", "send", "q", "--json"],
                b"0\n1\n2\n",
                prepare,
                |store, printed, n| {
                    let there = parsed(&store.run(&["queue", "peek", "q", "--json"]).ok());
                    let bodies =
                        there.iter().map(|message| message["body"].as_str().unwrap().to_owned());
                    assert!(bodies.eq((0..there.len()).map(|n| n.to_string())), "{call} {n}");
                    assert!(there.len() >= printed.lines().count(), "{call} {n}: {printed}");
                },
            )
        })
        .sum();
    eprintln!("{kills} kills");
    assert!(kills >= 10, "{kills} kills");
}
