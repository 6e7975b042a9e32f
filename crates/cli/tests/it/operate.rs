//! Looking after a store: stats, compact, salvage, backup, restore, and what a shell is told.

use std::fs;
use std::io::Write;
use std::process::Command;

use logmill::QueueConfig;

use crate::support::{Finished, Store, parsed};

fn lines(count: usize) -> Vec<u8> {
    (0..count).flat_map(|n| format!("user-{} did {n}\n", n % 10).into_bytes()).collect()
}

/// A store with a topic, a group that has read half of it, and a queue.
fn filled() -> Store {
    let store = Store::new();
    store.produce("events", &lines(100));
    store.run(&["consume", "events", "--group", "g", "--from", "earliest", "--max", "40"]).ok();
    let open = logmill::Store::open(store.dir()).unwrap();
    open.create_queue("jobs", &QueueConfig::standard()).unwrap();
    open.close().unwrap();
    store.run_with(&["queue", "send", "jobs"], b"one\ntwo\n").ok();
    store
}

#[test]
fn stats_counts_topics_groups_and_queues_and_changes_nothing() {
    let store = filled();
    let before = store.snapshot();
    let stats = &parsed(&store.run(&["stats", "--json"]).ok())[0];
    assert_eq!(stats["writer_is_alive"], false);
    assert_eq!(
        (&stats["topics"][0]["name"], &stats["topics"][0]["records"]),
        (&"events".into(), &100.into())
    );
    assert_eq!(
        (&stats["groups"][0]["name"], &stats["groups"][0]["lag"]),
        (&"g".into(), &60.into())
    );
    assert_eq!(
        (&stats["queues"][0]["name"], &stats["queues"][0]["ready"]),
        (&"jobs".into(), &2.into())
    );
    let text = store.run(&["stats"]).ok_text();
    // In a pipe there are neither frames nor colours.
    assert!(text.is_ascii() && !text.contains('\u{1b}'), "{text}");
    for words in [
        "TOPIC PARTITIONS RECORDS SEGMENTS SIZE",
        "events 1 100 1",
        "GROUP KIND PARTITIONS LAG",
        "jobs 2 0 0 0",
    ] {
        let squeezed: Vec<_> =
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert!(squeezed.iter().any(|line| line.starts_with(words)), "{words}: {text}");
    }
    assert_eq!(store.snapshot(), before);
}

#[test]
fn compact_keeps_the_latest_record_of_each_key() {
    let store = Store::new();
    store.create_topic_of_small_segments("users");
    store.run_with(&["produce", "users", "--key-field", "1"], &lines(20_000)).ok();
    let report = &parsed(&store.run(&["compact", "users", "--json"]).ok())[0];
    assert!(report["records_removed"].as_u64().unwrap() > 10_000, "{report}");
    let left = store.run(&["consume", "users"]).ok_text();
    // The last record of each key stays, in order; the active segment is left alone.
    assert!(left.ends_with("user-8 did 19998\nuser-9 did 19999\n"));
    assert!(left.lines().count() < 10_000);
    assert_eq!(store.run(&["compact", "users"]).ok_text().lines().count(), 1);
    assert_eq!(store.run(&["verify"]).code, 0);
}

#[test]
fn compact_says_why_it_has_nothing_to_do() {
    let store = Store::new();
    store.run_with(&["produce", "users", "--key-field", "1"], &lines(100)).ok();
    let said = store.run(&["compact", "users"]).ok_text();
    assert!(said.contains("the segment that is being written"), "{said}");
    let report = &parsed(&store.run(&["compact", "users", "--json"]).ok())[0];
    assert!(report["why_idle"].as_str().unwrap().contains("being written"), "{report}");

    let store = Store::new();
    store.create_topic_of_small_segments("users");
    store.run_with(&["produce", "users", "--key-field", "1"], &lines(20_000)).ok();
    let report = &parsed(&store.run(&["compact", "users", "--json"]).ok())[0];
    assert!(report["why_idle"].is_null() && report["records_removed"].as_u64() > Some(0));
    let said = store.run(&["compact", "users"]).ok_text();
    assert!(said.contains("the latest of its key"), "{said}");
}

/// They failed at once, whatever they were told.
#[test]
fn salvage_and_restore_wait_for_whoever_writes_where_they_write() {
    let store = Store::new();
    store.produce("events", b"line\n");
    let target = Store::new();
    let writer = logmill::storage::DataDir::open(target.dir()).unwrap();
    let (source, into) = (store.dir(), target.dir());
    for (store, command, other) in [(&store, "salvage", &into), (&target, "restore", &source)] {
        let started = std::time::Instant::now();
        let asked = ["--lock-wait", "300ms", command, other.to_str().unwrap()];
        assert!(store.run(&asked).failed(1).contains("is open in process"), "{command}");
        assert!(started.elapsed() >= std::time::Duration::from_millis(300), "{command}");
    }
    drop(writer);
}

#[test]
fn salvage_copies_what_verifies_says_what_is_lost_and_exits_with_three() {
    let store = Store::new();
    store.create_topic_of_small_segments("events");
    store.produce("events", &lines(10_000));
    let whole = Store::new();
    let into = whole.dir();
    let sound = store.run(&["salvage", into.to_str().unwrap()]);
    assert_eq!(sound.code, 0, "{}", sound.stderr);
    assert_eq!(whole.run(&["consume", "events"]).ok(), lines(10_000));

    let is_full = |path: &&std::path::PathBuf| fs::metadata(path).unwrap().len() > 10_000;
    let segments = store.files("log");
    let segment = segments.iter().find(is_full).unwrap();
    let mut bytes = fs::read(segment).unwrap();
    bytes[5_000] ^= 1;
    fs::write(segment, bytes).unwrap();
    let before = store.snapshot();
    let rescued = Store::new();
    let finished = store.run(&["salvage", rescued.dir().to_str().unwrap(), "--json"]);
    assert!(finished.stderr.contains("something of"), "{}", finished.stderr);
    assert_eq!(finished.code, 3);
    let said = parsed(&finished.stdout);
    let lost = said.iter().find(|line| line["lost"].is_object()).unwrap();
    let (start, end) =
        (lost["lost"]["start"].as_u64().unwrap(), lost["lost"]["end"].as_u64().unwrap());
    let printed = rescued.run(&["consume", "events"]).ok_text();
    let kept: Vec<_> = printed.lines().collect();
    let all = String::from_utf8(lines(10_000)).unwrap();
    let expected: Vec<_> = (0u64..)
        .zip(all.lines())
        .filter(|(n, _)| !(start..end).contains(n))
        .map(|(_, line)| line)
        .collect();
    assert!(end > start && kept == expected, "lost {start}..{end}, kept {}", kept.len());
    assert_eq!(store.snapshot(), before);
    // Not over something that is there.
    store.run(&["salvage", whole.dir().to_str().unwrap()]).failed(1);
}

#[test]
fn a_backup_beside_a_live_producer_is_restored_and_goes_on() {
    let store = filled();
    let backup = Store::new();
    let into = backup.dir();
    let into = into.to_str().unwrap();
    let mut producer = store.live_producer(&["events"]);
    let mut input = producer.stdin.take().unwrap();
    input.write_all(b"while it lives\n").unwrap();
    let mut first = [0; 6];
    std::io::Read::read_exact(producer.stdout.as_mut().unwrap(), &mut first).unwrap();
    assert_eq!(&first, b"0 100\n");
    let report = &parsed(&store.run(&["backup", into, "--json"]).ok())[0];
    assert!(report["copied_segments"].as_u64().unwrap() >= 2, "{report}");
    // What is acknowledged after the backup is in the next one.
    input.write_all(b"later\n").unwrap();
    std::io::Read::read_exact(producer.stdout.as_mut().unwrap(), &mut first).unwrap();

    let restored = Store::new();
    restored.run(&["restore", into]).ok();
    let expected = [lines(100), b"while it lives\n".to_vec()].concat();
    assert_eq!(restored.run(&["consume", "events"]).ok(), expected);
    let stats = &parsed(&restored.run(&["stats", "--json"]).ok())[0];
    assert_eq!((&stats["groups"][0]["lag"], &stats["queues"][0]["ready"]), (&61.into(), &2.into()));
    assert_eq!(restored.run(&["verify"]).code, 0);
    restored.produce("events", b"and on\n");
    let left = restored.run(&["consume", "events", "--group", "g", "--max", "62"]).ok_text();
    assert!(left.ends_with("while it lives\nand on\n"), "{left}");
    assert_eq!(restored.run(&["queue", "receive", "jobs", "--max", "2"]).ok_text(), "one\ntwo\n");

    // Neither into a store nor into the backup; nor is a backup taken where something else lies.
    for target in [&restored, &store, &backup] {
        let said = target.run(&["restore", into]).stderr;
        assert!(said.contains("must be empty") || said.contains("is open in"), "{said}");
    }
    store.run(&["backup", restored.dir().to_str().unwrap()]).failed(1);
    drop(input);
    assert!(producer.wait().unwrap().success());
    let second = &parsed(&store.run(&["backup", into, "--json"]).ok())[0];
    assert!(second["copied_bytes"].as_u64() > Some(0), "{second}");
    let again = Store::new();
    again.run(&["restore", into]).ok();
    assert_eq!(again.run(&["consume", "events"]).ok(), [expected, b"later\n".to_vec()].concat());
}

/// In a mount namespace of its own, so that nothing stays mounted. `$1` is the binary, `$2` an empty directory, `$3` a file
/// of lines.
const ON_XFS: &str = r#"
cd "$2" && mkdir disk && truncate -s 300M image && mkfs.xfs -q -K image && mount -o loop image disk && cd disk
"$1" --dir store topic create events --set segment.bytes=65536 --set durability=buffered >&2
"$1" --dir store produce events --file "$3" >&2
"$1" --dir store backup copy --json
for file in copy/files/1.0-*.log; do filefrag -v "$file" | grep -q shared && echo shared || echo own; done
"$1" --dir store produce events --file "$3" >&2
"$1" --dir restored restore copy >&2
"$1" --dir restored consume events | cmp - "$3"
"$1" --dir restored verify >&2 && "$1" --dir store verify >&2
"#;

#[test]
fn on_xfs_a_backup_shares_the_blocks_of_sealed_segments() {
    let store = Store::new();
    let place = tempfile::tempdir().unwrap();
    let input = store.file("lines.txt", &lines(20_000));
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let run = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-euc", script, "sh", env!("CARGO_BIN_EXE_logmill")]);
        command.arg(place.path()).arg(&input).env("PATH", &path).output()
    };
    let can =
        "command -v mkfs.xfs filefrag && test -e /dev/loop-control && mount -t tmpfs none /mnt";
    if !run(can).is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: XFS on a loop device takes root, loop devices, xfsprogs and e2fsprogs");
        return;
    }
    let output = run(ON_XFS).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}{said}");
    let (report, blocks) = printed.split_once('\n').unwrap();
    let report = &parsed(report.as_bytes())[0];
    let count = |kind| blocks.lines().filter(|line| *line == kind).count() as u64;
    assert!(count("shared") > 3, "{printed}");
    assert_eq!(count("own"), 0, "{printed}");
    // The journal's are among them.
    assert!(report["cloned_segments"].as_u64() >= Some(count("shared")), "{report}");
}

#[test]
fn a_damaged_store_is_not_backed_up_and_a_damaged_backup_not_restored() {
    let store = Store::new();
    store.create_topic_of_small_segments("events");
    store.produce("events", &lines(5_000));
    let backup = Store::new();
    let into = backup.dir();
    store.run(&["backup", into.to_str().unwrap()]).ok();
    let copies = fs::read_dir(into.join("files")).unwrap().map(|e| e.unwrap().path());
    let copy = copies.filter(|path| path.to_str().unwrap().contains("1.0-")).max().unwrap();
    let flip = |path: &std::path::Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[3_000] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    flip(&copy);
    let message = Store::new().run(&["restore", into.to_str().unwrap()]).failed(3);
    assert!(message.contains("position"), "{message}");
    flip(&store.files("log")[0]);
    let elsewhere = Store::new();
    store.run(&["backup", elsewhere.dir().to_str().unwrap()]).failed(3);
}

#[test]
fn completions_and_manual_pages_are_made_of_the_command_itself() {
    let store = Store::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = store.run(&["completions", shell]).ok_text();
        assert!(script.contains("consume") && script.contains("print-offsets"), "{shell}");
    }
    let page = store.run(&["man"]).ok_text();
    assert!(page.contains(".TH") && page.contains("produce"), "{page}");
    let page = store.run(&["man", "queue", "send"]).ok_text();
    assert!(
        page.contains("LOGMILL\\-QUEUE\\-SEND") || page.contains("LOGMILL-QUEUE-SEND"),
        "{page}"
    );
    assert!(page.contains("\"logmill "), "it does not say of which version it is: {page}");
    let failed: Finished = store.run(&["man", "frobnicate"]);
    assert_eq!(failed.code, 2);
}
