//! `queue`: what a shell user of SQS expects, each command a process of its own.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn run(dir: &Path, arguments: &[&str], input: &str) -> Output {
    use std::io::Write;
    let mut child = Command::new(env!("CARGO_BIN_EXE_logmill"))
        .arg("--dir")
        .arg(dir)
        .arg("queue")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn done(dir: &Path, arguments: &[&str], input: &str) -> Vec<Value> {
    let output = run(dir, arguments, input);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn refused(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments, "");
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

fn receive(dir: &Path, name: &str, more: &[&str]) -> Vec<Value> {
    done(dir, &[&["receive", name, "--json"], more].concat(), "")
}

#[test]
fn a_message_is_received_once_until_its_timeout_and_deleted_by_its_handle_in_another_process() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    done(dir, &["create", "work", "--visibility-timeout", "1h"], "");
    done(dir, &["create", "work", "--visibility-timeout", "1h"], "");
    assert!(refused(dir, &["create", "work", "--visibility-timeout", "2h"]).contains("work"));
    done(
        dir,
        &["send", "work", "--attribute", "kind=thumbnail", "--priority", "3"],
        "first\nsecond\n",
    );
    let got = receive(dir, "work", &["--max", "10"]);
    assert_eq!(got.len(), 2);
    assert_eq!(got[0]["body"], "first");
    assert_eq!(got[0]["receive_count"], 1);
    assert_eq!(got[0]["attributes"]["kind"]["type"], "String");
    assert_eq!(got[0]["attributes"]["kind"]["value"], "thumbnail");
    assert!(got[0]["sent_at"].as_i64().unwrap() > 1_600_000_000_000);
    assert_eq!(receive(dir, "work", &[]).len(), 0, "both are in flight");

    let handle = got[0]["receipt_handle"].as_str().unwrap();
    done(dir, &["delete-message", "work", handle], "");
    done(dir, &["delete-message", "work", handle], "");
    let second = got[1]["receipt_handle"].as_str().unwrap();
    done(dir, &["change-visibility", "work", second, "0s"], "");
    let again = receive(dir, "work", &[]);
    assert_eq!(again[0]["receive_count"], 2);
    let stale = refused(dir, &["delete-message", "work", second]);
    assert!(stale.contains("receipt"), "{stale}");
    done(dir, &["delete-message", "work", again[0]["receipt_handle"].as_str().unwrap()], "");
    assert!(refused(dir, &["delete-message", "work", "nonsense"]).contains("receipt"));
    assert_eq!(done(dir, &["describe", "work", "--json"], "")[0]["ready"], 0);
}

#[test]
fn too_many_receives_move_a_message_to_the_dead_letter_queue_at_the_next_receive() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    done(dir, &["create", "dead"], "");
    done(
        dir,
        &[
            "create",
            "work",
            "--visibility-timeout",
            "0s",
            "--dead-letter",
            "dead",
            "--max-receives",
            "2",
        ],
        "",
    );
    done(dir, &["send", "work"], "poison\n");
    let id = receive(dir, "work", &[])[0]["message_id"].clone();
    assert_eq!(receive(dir, "work", &[])[0]["receive_count"], 2);
    assert_eq!(receive(dir, "work", &[]).len(), 0);
    let dead = receive(dir, "dead", &[]);
    assert_eq!((dead[0]["body"].as_str(), &dead[0]["message_id"]), (Some("poison"), &id));
}

#[test]
fn a_fifo_queue_keeps_the_order_of_a_group_and_takes_a_duplicate_without_sending_it_again() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    done(dir, &["create", "jobs.fifo", "--fifo", "--content-dedup"], "");
    done(dir, &["send", "jobs.fifo", "--group", "g"], "one\ntwo\n");
    let again = done(dir, &["send", "jobs.fifo", "--group", "g", "--json"], "one\n");
    assert_eq!(again[0]["duplicate"], true);
    let got = receive(dir, "jobs.fifo", &[]);
    assert_eq!(got[0]["body"], "one");
    assert_eq!(receive(dir, "jobs.fifo", &[]).len(), 0, "the group is locked");
    done(dir, &["delete-message", "jobs.fifo", got[0]["receipt_handle"].as_str().unwrap()], "");
    assert_eq!(receive(dir, "jobs.fifo", &["--delete"])[0]["body"], "two");
}

#[test]
fn peek_list_and_describe_look_without_touching_and_purge_and_delete_do_what_they_say() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    done(dir, &["create", "b"], "");
    done(dir, &["create", "a"], "");
    done(dir, &["send", "a", "--delay", "1h"], "later\n");
    done(dir, &["send", "a"], "now\n");
    let peeked = done(dir, &["peek", "a", "--json"], "");
    assert_eq!((peeked.len(), &peeked[0]["body"]), (1, &Value::from("now")));
    assert_eq!(peeked[0]["receive_count"], 0);
    assert_eq!(done(dir, &["peek", "a", "--json", "--state", "delayed"], "")[0]["body"], "later");
    let listed = done(dir, &["list", "--json"], "");
    assert_eq!(listed.iter().map(|q| q["name"].clone()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((&listed[0]["ready"], &listed[0]["delayed"]), (&Value::from(1), &Value::from(1)));
    done(dir, &["purge", "a"], "");
    assert_eq!(receive(dir, "a", &[]).len(), 0);
    done(dir, &["delete", "a"], "");
    assert!(refused(dir, &["describe", "a"]).contains('a'));
}

#[test]
fn redrive_brings_dead_letters_back_where_they_died_and_waits_until_it_is_done() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    done(dir, &["create", "dead"], "");
    done(dir, &["create", "dead.fifo", "--fifo"], "");
    let limit = ["--visibility-timeout", "0s", "--dead-letter", "dead", "--max-receives", "1"];
    for name in ["a", "b"] {
        done(dir, &[&["create", name], &limit[..]].concat(), "");
        done(dir, &["send", name], "one\ntwo\nthree\n");
        assert_eq!(receive(dir, name, &["--max", "10"]).len(), 3);
        assert_eq!(receive(dir, name, &["--max", "10"]).len(), 0);
    }
    assert_eq!(done(dir, &["describe", "dead", "--json"], "")[0]["ready"], 6);
    assert!(refused(dir, &["redrive", "dead", "--rate", "0"]).contains("a second"));
    assert!(refused(dir, &["redrive", "dead", "--to", "dead.fifo"]).contains("FIFO"));
    assert!(refused(dir, &["redrive", "dead", "--to", "nowhere"]).contains("nowhere"));

    let moved = done(dir, &["redrive", "dead", "--died-in", "a", "--rate", "100", "--json"], "");
    assert_eq!((&moved[0]["moved"], &moved[0]["queue"]), (&Value::from(3), &Value::from("dead")));
    assert_eq!(done(dir, &["peek", "a", "--json"], "").len(), 3);
    assert_eq!(done(dir, &["describe", "b", "--json"], "")[0]["ready"], 0);
    done(dir, &["redrive", "dead", "--to", "a"], "");
    assert_eq!(done(dir, &["describe", "a", "--json"], "")[0]["ready"], 6);
    assert_eq!(done(dir, &["describe", "dead", "--json"], "")[0]["ready"], 0);
    assert_eq!(receive(dir, "a", &["--max", "1"])[0]["body"], "one", "it may be received again");
}

#[test]
fn every_command_that_changes_something_has_an_object_to_say_so_and_empty_hands_are_no_failure() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    assert_eq!(done(dir, &["create", "q", "--json"], "")[0]["name"], "q");
    let empty = run(dir, &["receive", "q", "--wait", "10ms", "--json"], "");
    assert!(empty.status.success() && empty.stdout.is_empty());
    let sent = done(dir, &["send", "q", "--json"], "body\n");
    let got = receive(dir, "q", &[]);
    assert_eq!(sent[0]["message_id"], got[0]["message_id"]);
    let handle = got[0]["receipt_handle"].as_str().unwrap();
    let changed = done(dir, &["change-visibility", "q", handle, "1m", "--json"], "");
    assert_eq!(changed[0]["visibility_timeout_ms"], 60_000);
    assert_eq!(done(dir, &["delete-message", "q", handle, "--json"], "")[0]["deleted"], true);
    assert_eq!(done(dir, &["purge", "q", "--json"], "")[0]["purged"], true);
    assert_eq!(done(dir, &["delete", "q", "--json"], "")[0]["deleted"], true);
    let unknown = run(dir, &["receive", "q"], "");
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn a_body_that_is_no_text_comes_in_base64_and_a_file_is_sent_line_by_line() {
    let place = tempfile::tempdir().unwrap();
    let dir = &place.path().join("store");
    let file = place.path().join("lines");
    std::fs::write(&file, b"\xff\xfe\nplain\n").unwrap();
    done(dir, &["create", "q"], "");
    done(dir, &["send", "q", "--file", file.to_str().unwrap()], "");
    let got = receive(dir, "q", &["--max", "2"]);
    assert_eq!((got[0]["body_base64"].as_str(), got[0].get("body")), (Some("//4="), None));
    assert_eq!(got[1]["body"], "plain");
}

/// `--cancel` went on with a redrive of its own, so that what was to stay moved after all.
#[test]
fn a_redrive_that_was_killed_is_cancelled_or_seen_through_by_the_next() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    done(dir, &["create", "dead"], "");
    let limit = ["--visibility-timeout", "0s", "--dead-letter", "dead", "--max-receives", "1"];
    done(dir, &[&["create", "q"], &limit[..]].concat(), "");
    done(dir, &["send", "q"], &"m\n".repeat(300));
    let ready = || done(dir, &["describe", "q", "--json"], "")[0]["ready"].as_u64().unwrap();
    let killed_at_rate = |rate: &str| {
        receive(dir, "q", &["--max", "300"]);
        assert_eq!(receive(dir, "q", &[]).len(), 0);
        let mut redrive = Command::new(env!("CARGO_BIN_EXE_logmill"))
            .arg("--dir")
            .arg(dir)
            .args(["queue", "redrive", "dead", "--rate", rate])
            .spawn()
            .unwrap();
        while ready() == 0 {
            std::thread::yield_now();
        }
        redrive.kill().unwrap();
        redrive.wait().unwrap();
        ready()
    };
    let moved = killed_at_rate("1");
    let told = done(dir, &["redrive", "dead", "--cancel", "--json"], "");
    let cancelled = told[0]["moved"].as_u64().unwrap();
    assert_eq!((told.len(), &told[0]["cancelled"]), (1, &Value::from(true)));
    assert!((moved..300).contains(&cancelled), "{cancelled}, and {moved} were before the kill");
    assert_eq!(ready(), cancelled, "the rest stays");
    assert!(refused(dir, &["redrive", "dead", "--cancel"]).contains("no redrive"));
    let both = run(dir, &["redrive", "dead", "--cancel", "--to", "q"], "");
    assert_eq!(both.status.code(), Some(2));
    assert_eq!(ready(), cancelled, "and none was begun");
    let told = done(dir, &["redrive", "dead", "--json"], "");
    assert_eq!(told[0]["moved"], 300 - cancelled);
    let moved = killed_at_rate("100");
    let told = done(dir, &["redrive", "dead", "--json"], "");
    let mut told: Vec<_> = told.iter().map(|one| one["moved"].as_u64()).collect();
    assert_eq!((told.pop(), ready()), (Some(Some(0)), 300), "its own had nothing left to do");
    // A machine that stood still for seconds has killed one that was through.
    assert_eq!(told, if moved < 300 { vec![Some(300)] } else { Vec::new() });
}
