//! `salvage` of a store of which whole logs are gone, or refused, or in each other's places.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Finished, Store};

/// A topic of two partitions with 1000 records, and one of a single partition with 10.
fn store() -> Store {
    let store = Store::new();
    store.create_topic("a", 2);
    let lines: String = (0..1_000).map(|n| format!("{n}\n")).collect();
    let produced = store.run_with(&["produce", "a", "--key-field", "1"], lines.as_bytes());
    assert_eq!(produced.ok_text(), "");
    store.produce("b", b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    store
}

fn rescued(store: &Store) -> PathBuf {
    store.dir().with_file_name("rescued")
}

/// Salvages the store, which must come to its end in spite of what is lost, and tells what it printed.
fn salvage(store: &Store) -> String {
    let salvaged = store.run(&["salvage", rescued(store).to_str().unwrap()]);
    let printed = String::from_utf8_lossy(&salvaged.stdout).into_owned();
    assert_eq!(salvaged.code, 3, "{printed}{}", salvaged.stderr);
    assert!(salvaged.stderr.contains("something of"), "{}", salvaged.stderr);
    printed
}

/// Runs a command on what was rescued.
fn after(store: &Store, arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logmill"));
    command.arg("--dir").arg(rescued(store)).args(arguments).output().unwrap().into()
}

/// How many records the rescued logs of these names hold together, as `salvage` says.
fn records(printed: &str, logs: &[&str]) -> u64 {
    let of = |log: &str| {
        let line = printed.lines().find_map(|line| line.strip_prefix(&format!("{log}: ")));
        let line = line.unwrap_or_else(|| panic!("nothing of {log} was rescued: {printed}"));
        line.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    logs.iter().map(|log| of(log)).sum()
}

fn is_lost(printed: &str, log: &str, why: &str) {
    let start = format!("lost: {log}: ");
    let line = printed.lines().find(|line| line.starts_with(&start));
    assert!(line.is_some_and(|line| line.contains(why)), "{log}: {printed}");
}

fn swap(a: &Path, b: &Path) {
    let aside = a.with_extension("aside");
    fs::rename(a, &aside).unwrap();
    fs::rename(b, a).unwrap();
    fs::rename(&aside, b).unwrap();
}

/// It went through the directories that are there, exited with 0 and said that 0 offsets were lost, whatever was not there.
#[test]
fn logs_that_are_gone_are_named_as_lost_and_all_others_are_rescued() {
    for (gone, lost, kept) in [
        ("1/0", &["1/0"][..], &["1/1", "2/0"][..]),
        ("1", &["1/0", "1/1"], &["2/0"]),
        ("2", &["2/0"], &["1/0", "1/1"]),
    ] {
        let store = store();
        assert_eq!(records(&whole(&store), &["1/0", "1/1", "2/0"]), 1_010);
        fs::remove_dir_all(store.dir().join(gone)).unwrap();
        let printed = salvage(&store);
        for log in lost {
            is_lost(&printed, log, "is gone");
        }
        assert_eq!(printed.matches("lost: ").count(), lost.len(), "{printed}");
        assert!(records(&printed, kept) > 0, "{printed}");
    }
}

/// What is printed of the store while nothing is lost.
fn whole(store: &Store) -> String {
    let place = rescued(store);
    let printed = store.run(&["salvage", place.to_str().unwrap()]).ok_text();
    fs::remove_dir_all(place).unwrap();
    printed
}

#[test]
fn a_journal_that_is_gone_is_named_as_lost_and_every_partition_is_rescued() {
    let store = store();
    fs::remove_dir_all(store.dir().join("0")).unwrap();
    let printed = salvage(&store);
    is_lost(&printed, "0", "is gone");
    assert_eq!(records(&printed, &["1/0", "1/1", "2/0"]), 1_010);
}

/// Both were named, and copied to where they lay, so that whoever had nothing else left had to swap them himself.
#[test]
fn partitions_in_each_others_places_are_put_where_the_journal_says_that_they_belong() {
    let store = store();
    let sorted = |consumed: Finished| {
        let text = consumed.ok_text();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let before = sorted(store.run(&["consume", "a", "--json"]));
    assert_eq!(before.len(), 1_000);
    swap(&store.dir().join("1/0"), &store.dir().join("1/1"));
    store.run(&["consume", "a"]).failed(3);
    let printed = whole(&store);
    assert_eq!(records(&printed, &["1/0", "1/1", "2/0"]), 1_010);
    for (home, place) in [("1/0", "1/1"), ("1/1", "1/0")] {
        let line = printed.lines().find(|line| line.starts_with(home)).unwrap();
        assert!(line.ends_with(&format!("it lay in {place}")), "{printed}");
    }
    let json = store.run(&["salvage", rescued(&store).to_str().unwrap(), "--json"]).ok_text();
    assert!(json.contains(r#""found_in":"1/1""#), "{json}");
    assert_eq!(sorted(after(&store, &["consume", "a", "--json"])), before);
    assert_eq!(after(&store, &["verify"]).code, 0);
}

#[test]
fn a_partition_of_which_a_copy_lies_in_the_place_of_another_stays_and_the_copy_is_named() {
    let store = store();
    let (first, second) = (store.dir().join("1/0"), store.dir().join("1/1"));
    fs::remove_dir_all(&second).unwrap();
    assert!(Command::new("cp").arg("-a").args([&first, &second]).status().unwrap().success());
    let printed = salvage(&store);
    is_lost(&printed, "1/1", "belongs here");
    assert_eq!(printed.matches("lost: ").count(), 1, "{printed}");
    assert_eq!(records(&printed, &["1/0"]), records(&printed, &["1/1"]));
}

/// Its segments say all that the manifest said, but for whether they are all. It said that nothing was lost, also where the
/// last segment was gone, too.
#[test]
fn a_partition_that_lost_its_manifest_is_rescued_and_its_ends_are_said_to_be_unknown() {
    for is_damaged in [false, true] {
        let store = store();
        let manifest = store.dir().join("1/0/manifest");
        match is_damaged {
            true => fs::write(manifest, [0xEE; 8192]).unwrap(),
            false => fs::remove_file(manifest).unwrap(),
        }
        let printed = salvage(&store);
        is_lost(&printed, "1/0", "what the log's ends were is not known");
        assert_eq!(printed.matches("lost: ").count(), 1, "{printed}");
        assert_eq!(records(&printed, &["1/0", "1/1"]), 1_000);
        assert_eq!(after(&store, &["verify"]).code, 0);
    }
}

/// The text did not say it, and the command ended with 0. Where no time could be counted from what was there, all records of
/// the segment were lost.
#[test]
fn timestamps_that_are_guessed_are_said_to_be() {
    for (position, written) in [(63, &b"\x01"[..]), (56, b"invented"), (100, b"x")] {
        let store = store();
        let segment = store.dir().join("2/0/00000000000000000000.log");
        let segment = fs::OpenOptions::new().write(true).open(segment).unwrap();
        segment.write_all_at(written, position).unwrap();
        let printed = salvage(&store);
        is_lost(&printed, "2/0", "timestamps");
        assert_eq!(printed.matches("lost: ").count(), 1, "{printed}");
        assert_eq!(records(&printed, &["1/0", "1/1", "2/0"]), 1_010);
        assert_eq!(after(&store, &["verify"]).code, 0);
    }
}

/// It wrote logs, a lock and a mark into what it was to rescue.
#[test]
fn a_target_inside_of_the_damaged_store_or_around_it_is_refused_before_anything_is_written() {
    let store = store();
    let dir = store.dir();
    let link = dir.with_file_name("link");
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    let listed = || Command::new("ls").args(["-lR", "--full-time"]).arg(&dir).output().unwrap();
    let before = listed().stdout;
    let inside = [
        dir.clone(),
        dir.join("9"),
        dir.join("1/0/quarantine"),
        dir.join("9/9/9"),
        link.clone(),
        link.join("9"),
        link.join("none/../9"),
        dir.with_file_name("none").join("../link/9"),
        dir.parent().unwrap().to_owned(),
    ];
    for target in inside {
        let error = store.run(&["salvage", target.to_str().unwrap()]).failed(1);
        assert!(error.contains("elsewhere"), "{}: {error}", target.display());
        assert!(listed().stdout == before, "{}", target.display());
    }
    assert!(!dir.with_file_name("none").exists());
    let beside = dir.join("../beside");
    store.run(&["salvage", beside.to_str().unwrap()]).ok_text();
}

/// A second name of a file is refused, since who knows what else is written through it. That ended the salvage before the
/// first partition, although there is nothing in that log.
#[test]
fn a_refused_file_in_one_log_is_named_and_all_others_are_rescued() {
    type Refuse = fn(&Path);
    let cases: [Refuse; 2] = [
        |manifest| fs::hard_link(manifest, manifest.with_extension("second")).unwrap(),
        |manifest| {
            fs::remove_file(manifest).unwrap();
            assert!(Command::new("mkfifo").arg(manifest).status().unwrap().success());
        },
    ];
    for refuse in cases {
        let store = store();
        refuse(&store.dir().join("0/1/manifest"));
        let printed = salvage(&store);
        is_lost(&printed, "0/1", "manifest");
        assert_eq!(printed.matches("lost: ").count(), 1, "{printed}");
        is_seen(&store);
    }
}

/// Commands that only read see all that was rescued.
fn is_seen(store: &Store) {
    let listed = after(store, &["topic", "list"]).ok_text();
    let names: Vec<_> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["TOPIC", "a", "b"], "{listed}");
    let lines = after(store, &["consume", "b", "--from", "earliest"]).ok_text();
    assert_eq!(lines.lines().count(), 10, "{lines}");
    assert_eq!(after(store, &["verify"]).code, 0);
}

/// It said that nothing was lost, and then there was no topic in the result.
#[test]
fn without_the_journals_cold_part_what_was_rescued_is_seen_by_who_only_reads() {
    let store = store();
    fs::remove_file(store.dir().join("0/1/manifest")).unwrap();
    let printed = salvage(&store);
    is_lost(&printed, "0/1", "is gone");
    assert_eq!(printed.matches("lost: ").count(), 1, "{printed}");
    is_seen(&store);
}

/// Every byte of the hole was looked at, several times over.
#[test]
fn a_segment_with_a_hole_of_a_tebibyte_behind_its_end_is_dumped_and_salvaged() {
    let store = store();
    let path = store.dir().join("2/0/00000000000000000000.log");
    let segment = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let len = segment.metadata().unwrap().len();
    segment.set_len(1 << 40).unwrap();
    let printed = store.run(&["salvage", rescued(&store).to_str().unwrap()]).ok_text();
    assert_eq!(records(&printed, &["1/0", "1/1", "2/0"]), 1_010);
    let dumped = store.run(&["dump", path.to_str().unwrap()]).ok_text();
    let unused = format!("zero bytes at position {len}: {}\n", (1u64 << 40) - len);
    assert!(dumped.ends_with(&unused), "{dumped}");
    // What is no zero is met, wherever it lies in what is read.
    segment.write_all_at(b"x", len + 100).unwrap();
    assert_eq!(store.run(&["dump", path.to_str().unwrap()]).code, 3);
}

/// A writer that died when it had begun its next segment left one without a byte in it; `verify` calls that sound.
#[test]
fn a_next_segment_that_is_empty_or_zero_is_no_loss() {
    for content in [&b""[..], &[0; 4096]] {
        let store = store();
        fs::write(store.dir().join("2/0/00000000000000000010.log"), content).unwrap();
        assert_eq!(store.run(&["verify"]).code, 0);
        let printed = store.run(&["salvage", rescued(&store).to_str().unwrap()]).ok_text();
        assert_eq!(records(&printed, &["2/0"]), 10);
        is_seen(&store);
    }
}
