//! A damaged store: found by `verify`, and by `consume` when it comes to it; never skipped, never changed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Child;

use crate::support::{Finished, Store};

/// A store whose only segment was closed cleanly, with a value to aim at.
fn store() -> Store {
    let store = Store::new();
    let text: String =
        (0..2_000).map(|n| format!("a line of text with the number {n}\n")).collect();
    store.produce("events", text.as_bytes());
    store
}

/// Inverts one byte at `position`.
fn damage(path: &Path, position: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[!byte[0]], position).unwrap();
}

fn position_of(path: &Path, needle: &str) -> u64 {
    let bytes = fs::read(path).unwrap();
    bytes
        .windows(needle.len())
        .position(|window| window == needle.as_bytes())
        .expect("the needle is stored") as u64
}

/// Both commands exit with 3 and name the damaged file, and neither changes a byte.
fn is_found(store: &Store, path: &Path) -> Finished {
    let before = store.snapshot();
    let verified = store.run(&["verify"]);
    let report = String::from_utf8_lossy(&verified.stdout).into_owned() + &verified.stderr;
    assert_eq!(verified.code, 3, "{report}");
    assert!(report.contains(path.to_str().unwrap()), "{report}");
    let consumed = store.run(&["consume", "events"]);
    assert_eq!(consumed.code, 3, "{}", consumed.stderr);
    assert!(consumed.stderr.contains(path.to_str().unwrap()), "{}", consumed.stderr);
    assert!(store.snapshot() == before, "looking at damage changed the store");
    consumed
}

#[test]
fn a_sound_store_verifies_and_nothing_is_changed() {
    let store = store();
    let before = store.snapshot();
    assert_eq!(store.run(&["verify"]).code, 0);
    let json = store.run(&["verify", "--json"]).ok();
    assert!(
        serde_json::from_slice::<serde_json::Value>(&json).is_ok(),
        "{}",
        String::from_utf8_lossy(&json)
    );
    assert!(store.snapshot() == before, "verify changed the store");
}

#[test]
fn a_directory_that_is_no_store_does_not_verify() {
    let store = Store::new();
    fs::create_dir(store.dir()).unwrap();
    let message = store.run(&["verify"]).failed(1);
    assert!(message.contains(store.dir().to_str().unwrap()), "{message}");
}

#[test]
fn a_damaged_value_ends_consume_after_the_records_before_it() {
    let store = store();
    let segment = store.files("log").remove(0);
    damage(&segment, position_of(&segment, "the number 1500") + 11);
    let consumed = is_found(&store, &segment);
    let printed = String::from_utf8(consumed.stdout).unwrap();
    for (n, line) in printed.lines().enumerate() {
        assert_eq!(line, format!("a line of text with the number {n}"));
    }
    assert!(printed.lines().count() <= 1500);
}

#[test]
fn a_damaged_magic_is_corruption() {
    let store = store();
    let segment = store.files("log").remove(0);
    damage(&segment, 0);
    is_found(&store, &segment);
}

#[test]
fn an_unknown_version_is_corruption() {
    let store = store();
    let segment = store.files("log").remove(0);
    damage(&segment, 8);
    is_found(&store, &segment);
}

#[test]
fn a_segment_cut_short_is_corruption() {
    let store = store();
    let segment = store.files("log").remove(0);
    let half = position_of(&segment, "the number 1000");
    fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(half).unwrap();
    is_found(&store, &segment);
}

#[test]
fn damaged_indexes_change_nothing_for_a_reader() {
    let store = Store::new();
    store.create_topic_of_small_segments("events");
    let text: String =
        (0..10_000).map(|n| format!("a line of text with the number {n}\n")).collect();
    store.produce("events", text.as_bytes());
    let indexes = [store.files("index"), store.files("time")].concat();
    assert!(indexes.len() >= 8, "{indexes:?}");
    for index in indexes {
        damage(&index, fs::metadata(&index).unwrap().len() - 1);
    }
    assert_eq!(store.run(&["consume", "events"]).ok_text(), text);
    let last = store.run(&["consume", "events", "--from", "9999"]).ok_text();
    assert_eq!(last, "a line of text with the number 9999\n");
    assert_eq!(store.run(&["verify"]).code, 0, "what can be made anew is no damage");
}

#[test]
fn a_partition_that_is_gone_is_corruption_and_is_not_begun_anew() {
    let store = store();
    let away = store.dir().join("away");
    fs::rename(store.partition(), &away).unwrap();
    is_found(&store, &store.partition());
    let refused = store.run_with(&["produce", "events"], b"over it\n");
    assert!(refused.failed(3).contains("bring its directory back"));
    assert!(!store.partition().exists());
    std::os::unix::fs::symlink(&away, store.partition()).unwrap();
    store.run(&["verify"]).failed(3);
    fs::remove_file(store.partition()).unwrap();
    fs::rename(away, store.partition()).unwrap();
    store.produce("events", b"the last\n");
    assert!(store.run(&["consume", "events"]).ok_text().ends_with("the number 1999\nthe last\n"));
}

#[test]
fn a_store_without_its_journal_is_corruption_and_takes_nothing_until_it_is_back() {
    let store = store();
    let (home, away) = (store.dir().join("0"), store.dir().join("away"));
    fs::rename(&home, &away).unwrap();
    is_found(&store, &home);
    for arguments in [&["produce", "new"][..], &["topic", "create", "new"], &["queue", "list"]] {
        let message = store.run(arguments).failed(3);
        assert!(message.contains("bring its directory back"), "{message}");
    }
    assert!(!home.exists());
    fs::rename(away, home).unwrap();
    store.produce("events", b"the last\n");
    assert_eq!(store.run(&["verify"]).code, 0);
}

/// A live producer that has acknowledged these lines.
fn fed(store: &Store, arguments: &[&str], lines: &[&str]) -> Child {
    let mut producer = store.live_producer(arguments);
    let mut stdout = BufReader::new(producer.stdout.take().unwrap());
    for line in lines {
        producer.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        stdout.read_line(&mut String::new()).unwrap();
    }
    producer
}

/// A buffered producer that was killed, whose last line is damaged afterwards: nothing can say whether that line had been
/// acknowledged, or was being written when the producer died.
#[test]
fn bytes_that_may_have_been_acknowledged_are_reported_before_and_after_they_are_set_aside() {
    let store = Store::new();
    let mut producer =
        fed(&store, &["events", "--durability", "buffered"], &["the first\n", "the second\n"]);
    producer.kill().unwrap();
    producer.wait().unwrap();
    let segment = store.files("log").remove(0);
    damage(&segment, position_of(&segment, "the second"));

    assert_eq!(is_found(&store, &store.partition()).stdout, b"the first\n");
    let described = store.run(&["topic", "describe", "events"]);
    assert!(String::from_utf8_lossy(&described.stdout).contains("PARTITION"));
    assert!(described.failed(3).contains("behind offset 1"));
    // What the producer was given is appended; that something else was set aside is no failure of its own.
    let produced = store.run_with(&["produce", "events"], b"the third\n");
    assert_eq!(produced.code, 0, "{}", produced.stderr);
    let set_aside = fs::read_dir(store.partition().join("quarantine")).unwrap().next().unwrap();
    let set_aside = set_aside.unwrap().path();
    assert!(produced.stderr.contains(set_aside.to_str().unwrap()), "{}", produced.stderr);
    let bytes = format!(" {} bytes ", fs::metadata(&set_aside).unwrap().len());
    assert!(produced.stderr.contains(&bytes), "{}", produced.stderr);
    assert_eq!(store.run(&["consume", "events"]).ok(), b"the first\nthe third\n");
    let verified = store.run(&["verify"]);
    let report = String::from_utf8(verified.stdout).unwrap();
    assert_eq!(verified.code, 3, "{report}");
    assert!(report.contains("quarantine"), "{report}");
}

/// A store whose producer was killed has no clean end, so it seemed to end where the damage began: `consume` printed what
/// was before it and exited with 0, however much of what had been acknowledged was missing.
#[test]
fn damage_to_acknowledged_records_of_a_killed_producer_ends_consume_with_3() {
    let store = Store::new();
    let mut producer = fed(&store, &["events"], &["the first\n", "the second\n", "the third\n"]);
    producer.kill().unwrap();
    producer.wait().unwrap();
    let segment = store.files("log").remove(0);
    damage(&segment, position_of(&segment, "the second"));
    assert_eq!(is_found(&store, &segment).stdout, b"the first\n");
    damage(&segment, position_of(&segment, "the first"));
    assert_eq!(is_found(&store, &segment).stdout, b"");
}

/// The segment in which it lay could not be sealed, so each `produce` stored its lines, printed their offsets and exited with 3;
/// whoever sent them again had them twice.
#[test]
fn who_met_damage_after_everything_of_his_own_was_stored_says_so_and_exits_with_0() {
    let store = Store::new();
    let mut producer = fed(&store, &["events"], &["the first\n", "the second\n", "the third\n"]);
    // Idle, it notes that all of it is durable, so that the next writer trusts what it does not read.
    let manifest = || fs::read(store.partition().join("manifest")).unwrap();
    let before = manifest();
    while manifest() == before {
        std::thread::yield_now();
    }
    producer.kill().unwrap();
    producer.wait().unwrap();
    let segment = store.files("log").remove(0);
    damage(&segment, position_of(&segment, "the second"));
    for (offset, line) in [("0 3\n", "the fourth"), ("0 4\n", "the fifth")] {
        let produced = store.run_with(&["produce", "events", "--print-offsets"], line.as_bytes());
        assert_eq!(produced.code, 0, "{}", produced.stderr);
        assert_eq!(produced.stdout, offset.as_bytes());
        assert!(produced.stderr.contains(segment.to_str().unwrap()), "{}", produced.stderr);
        assert!(produced.stderr.contains("verify"), "{}", produced.stderr);
    }
    assert_eq!(is_found(&store, &segment).stdout, b"the first\n");
}

/// A log of which a file was lost was read as an empty one.
#[test]
fn a_lost_segment_and_a_lost_manifest_are_corruption() {
    for lost in ["log", "manifest"] {
        let store = store();
        let path = match lost {
            "log" => store.files("log").remove(0),
            _ => store.partition().join("manifest"),
        };
        fs::remove_file(&path).unwrap();
        let told = is_found(&store, &store.partition());
        assert_eq!(told.stdout, b"", "without {lost}");
        assert_eq!(told.stderr.contains("the manifest is gone"), lost == "manifest");
        assert!(!told.stderr.contains("bring its directory back"), "{}", told.stderr);
    }
}

/// A store with two topics and a queue of two messages, closed.
fn busy() -> Store {
    let store = store();
    store.produce("other", b"one\ntwo\n");
    store.run(&["queue", "create", "jobs"]).ok();
    store.run_with(&["queue", "send", "jobs"], b"first\nsecond\n").ok();
    store
}

/// Each command ends with 3, names the damaged file and changes nothing.
fn all_end_with_3(store: &Store, commands: &[&[&str]], path: &Path) {
    // A writer notes its pid before it looks.
    let files = || store.snapshot().into_iter().filter(|(path, _)| !path.ends_with("LOCK"));
    let before: Vec<_> = files().collect();
    for command in commands {
        let finished = store.run_with(command, b"a line\n");
        let said = String::from_utf8_lossy(&finished.stdout).into_owned() + &finished.stderr;
        assert_eq!(finished.code, 3, "{command:?}: {said}");
        assert!(said.contains(path.to_str().unwrap()), "{command:?}: {said}");
    }
    assert!(files().eq(before), "looking at damage changed the store");
}

/// Without a journal's records a store has no topics and no queues. Commands that only read said so, and exited with 0 or
/// with "there is no such topic".
#[test]
fn a_journal_that_lost_its_end_is_met_by_every_command() {
    type Damage = fn(&Path);
    let cases: [Damage; 3] = [
        |path| fs::remove_file(path).unwrap(),
        |path| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
            file.write_all_at(&vec![0; len - 200], 200).unwrap();
        },
        |path| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        },
    ];
    for damage in cases {
        let store = busy();
        damage(&store.dir().join("0/00000000000000000000.log"));
        let backup = store.dir().with_file_name("backup");
        let commands: [&[&str]; 15] = [
            &["topic", "list"],
            &["topic", "describe", "events"],
            &["stats"],
            &["stats", "--json"],
            &["top", "--once"],
            &["queue", "list"],
            &["queue", "peek", "jobs"],
            &["queue", "describe", "jobs"],
            &["group", "list"],
            &["consume", "events"],
            &["verify"],
            &["produce", "events"],
            &["queue", "send", "jobs"],
            &["consume", "events", "--group", "g"],
            &["backup", backup.to_str().unwrap()],
        ];
        all_end_with_3(&store, &commands, &store.dir().join("0"));
    }
}

/// Where a segment or a partition was lost or something else has its place, the exit code went by where one began to read.
#[test]
fn a_partition_of_which_a_part_is_gone_or_no_file_is_met_by_every_command() {
    type Damage = fn(&Store, &[std::path::PathBuf]);
    let cases: [(&str, Damage); 8] = [
        ("no first segment", |_, logs| fs::remove_file(&logs[0]).unwrap()),
        ("no second segment", |_, logs| fs::remove_file(&logs[1]).unwrap()),
        ("no last segment", |_, logs| fs::remove_file(logs.last().unwrap()).unwrap()),
        ("a pipe", |_, logs| {
            fs::remove_file(&logs[1]).unwrap();
            assert!(std::process::Command::new("mkfifo").arg(&logs[1]).status().unwrap().success());
        }),
        ("a hard link", |store, logs| {
            fs::hard_link(&logs[1], store.dir().with_file_name("link")).unwrap();
        }),
        ("a symbolic link", |store, logs| {
            let away = store.dir().with_file_name("away");
            fs::rename(&logs[1], &away).unwrap();
            std::os::unix::fs::symlink(away, &logs[1]).unwrap();
        }),
        ("a directory behind a link", |store, _| {
            let away = store.dir().with_file_name("away");
            fs::rename(store.partition(), &away).unwrap();
            std::os::unix::fs::symlink(away, store.partition()).unwrap();
        }),
        ("no directory", |store, _| fs::remove_dir_all(store.partition()).unwrap()),
    ];
    for (case, damage) in cases {
        let store = Store::new();
        store.create_topic_of_small_segments("events");
        let text: String = (0..10_000).map(|n| format!("a line with the number {n}\n")).collect();
        store.produce("events", text.as_bytes());
        store.produce("other", b"one\ntwo\n");
        let logs = store.files("log");
        assert!(logs.len() > 3, "{logs:?}");
        damage(&store, &logs);
        let backup = store.dir().with_file_name("backup");
        let commands: [&[&str]; 11] = [
            &["verify"],
            &["consume", "events"],
            &["consume", "events", "--from", "3"],
            &["consume", "events", "--from", "9999"],
            &["consume", "events", "--from", "latest"],
            &["consume", "events", "--from", "@9999999999999"],
            &["stats"],
            &["topic", "describe", "events"],
            &["produce", "events"],
            &["consume", "events", "--group", "g", "--from", "9999"],
            &["backup", backup.to_str().unwrap()],
        ];
        for command in commands {
            let finished = store.run_with(command, b"a line\n");
            assert_eq!(finished.code, 3, "{case}, {command:?}: {}", finished.stderr);
        }
        // The rest is shown all the same.
        let stats = store.run(&["stats"]);
        assert!(String::from_utf8_lossy(&stats.stdout).contains(" other "), "{case}");
        assert!(stats.stderr.contains(store.partition().to_str().unwrap()), "{}", stats.stderr);
        let stats = store.run(&["stats", "--json"]);
        let figures = crate::support::parsed(&stats.stdout).remove(0);
        assert_eq!(figures["damage"].as_array().unwrap().len(), 1, "{figures}");
        assert_eq!(store.run(&["consume", "other"]).ok(), b"one\ntwo\n", "{case}");
    }
}

/// The list of the files was refused as a whole, and with it everything that lay before.
#[test]
fn what_comes_before_something_that_is_no_file_is_printed() {
    for number in [1, 2, 3] {
        let store = Store::new();
        store.create_topic_of_small_segments("events");
        let text: String = (0..10_000).map(|n| format!("a line with the number {n}\n")).collect();
        store.produce("events", text.as_bytes());
        let logs = store.files("log");
        assert!(logs.len() > 3, "{logs:?}");
        let log = if number == 3 { logs.last().unwrap() } else { &logs[number] };
        fs::remove_file(log).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(log).status().unwrap().success());
        let base: usize = log.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        for from in [0, 3] {
            let consumed = store.run(&["consume", "events", "--from", &from.to_string()]);
            let printed = String::from_utf8_lossy(&consumed.stdout).into_owned();
            assert!(printed.lines().eq(text.lines().take(base).skip(from)), "up to {base}");
            assert!(consumed.failed(3).contains(log.to_str().unwrap()));
        }
    }
}

/// One byte less at the end of the last segment, and `consume` printed nothing.
#[test]
fn what_comes_before_a_cut_is_printed() {
    let store = Store::new();
    for n in 0..10 {
        store.produce("events", format!("line {n}\n").as_bytes());
    }
    let segment = store.files("log").remove(0);
    let len = fs::metadata(&segment).unwrap().len();
    fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(len - 1).unwrap();
    let printed = String::from_utf8(is_found(&store, &segment).stdout).unwrap();
    assert_eq!(printed.lines().count(), 9, "{printed}");
    let report = String::from_utf8(store.run(&["verify"]).stdout).unwrap();
    assert!(report.contains("(offsets 9..10)"), "{report}");
}

/// The last entry of the journal is damaged, and nothing is left that says whether it had been acknowledged.
#[test]
fn doubt_about_the_end_of_the_journal_is_told_by_who_reads_and_by_who_sets_it_aside() {
    let store = busy();
    let mut producer = store.live_producer(&["third"]);
    let mut stdin = producer.stdin.take().unwrap();
    stdin.write_all(b"a line\n").unwrap();
    let mut stdout = BufReader::new(producer.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    producer.kill().unwrap();
    producer.wait().unwrap();
    let journal = store.dir().join("0/00000000000000000000.log");
    fs::remove_file(store.dir().join("0/live")).unwrap();
    let end = fs::read(&journal).unwrap().iter().rposition(|byte| *byte != 0).unwrap() as u64;
    damage(&journal, end);

    let doubtful = store.dir().join("0").display().to_string() + ": behind offset";
    for command in [&["topic", "list"][..], &["stats"], &["queue", "list"], &["group", "list"]] {
        let finished = store.run(command);
        let is_empty = finished.stdout.is_empty();
        assert!(finished.failed(3).contains(&doubtful), "{command:?}");
        assert!(command[0] == "group" || !is_empty, "{command:?}");
    }
    let sent = store.run_with(&["queue", "send", "jobs"], b"third\n");
    assert_eq!(sent.code, 0, "{}", sent.stderr);
    assert!(sent.stderr.contains("/0/quarantine/"), "{}", sent.stderr);
    assert_eq!(store.run(&["queue", "send", "jobs"]).stderr, "");
    store.run(&["topic", "list"]).ok();
    store.run(&["verify"]).failed(3);
}

/// A group that goes on behind what was set aside would never hear of it.
#[test]
fn a_group_that_sets_bytes_aside_is_told_once_that_they_may_have_been_records() {
    let store = Store::new();
    let mut producer =
        fed(&store, &["events", "--durability", "buffered"], &["the first\n", "the second\n"]);
    producer.kill().unwrap();
    producer.wait().unwrap();
    let segment = store.files("log").remove(0);
    damage(&segment, position_of(&segment, "the second"));
    let consumed = store.run(&["consume", "events", "--group", "g"]);
    assert_eq!(consumed.stdout, b"the first\n");
    assert!(consumed.failed(3).contains("quarantine"));
    assert_eq!(store.run(&["consume", "events", "--group", "g"]).ok(), b"");
}
