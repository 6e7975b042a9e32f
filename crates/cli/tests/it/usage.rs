//! Arguments that make no sense exit with 2 and touch nothing.

use std::process::{Command, Stdio};

use crate::support::{Finished, Store};

#[test]
fn bad_arguments_exit_with_two_and_make_nothing() {
    let store = Store::new();
    let cases: [&[&str]; 13] = [
        &[],
        &["produce"],
        &["consume"],
        &["frobnicate"],
        &["produce", "events", "--durability", "maybe"],
        &["produce", "events", "--key-field", "0"],
        &["produce", "events", "--key-field", "-1"],
        &["produce", "events", "--lock-wait", "5"],
        &["consume", "events", "--from", "yesterday"],
        &["consume", "events", "--from", "@noon"],
        &["consume", "events", "--max", "-1"],
        &["consume", "events", "--format", "xml"],
        &["dump"],
    ];
    for arguments in cases {
        let finished = store.run(arguments);
        assert_eq!(finished.code, 2, "{arguments:?}: {}", finished.stderr);
        assert!(finished.stdout.is_empty(), "{arguments:?}");
    }
    assert!(!store.dir().exists());
}

#[test]
fn commands_that_need_a_store_ask_for_its_directory() {
    for arguments in [&["produce", "events"][..], &["consume", "events"], &["verify"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_logmill"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let message = Finished::from(output).failed(2);
        assert!(message.contains("--dir"), "{message}");
    }
}

#[test]
fn names_that_no_topic_may_have_are_refused() {
    let store = Store::new();
    for name in ["", ".", "..", "a/b", "a b", "naïve", &"x".repeat(250)] {
        let finished = store.run_with(&["produce", name], b"line\n");
        assert!([1, 2].contains(&finished.code), "{name:?}: {} {}", finished.code, finished.stderr);
        assert!(!finished.stderr.is_empty(), "{name:?}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    let store = Store::new();
    let help = store.run(&["--help"]).ok_text();
    for command in ["produce", "consume", "topic", "group", "verify", "dump"] {
        assert!(help.contains(command), "{help}");
        assert!(store.run(&["help", command]).ok_text().contains("Usage: logmill"), "{command}");
    }
    assert!(store.run(&["--version"]).ok_text().starts_with("logmill "));
}
