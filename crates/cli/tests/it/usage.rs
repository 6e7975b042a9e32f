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
        for arguments in
            [["produce", name].as_slice(), &["topic", "create", name, "--partitions", "1"]]
        {
            let finished = store.run_with(arguments, b"line\n");
            assert_eq!(finished.code, 2, "{arguments:?}: {}", finished.stderr);
            assert!(!finished.stderr.is_empty(), "{name:?}");
        }
        assert_eq!(store.run(&["queue", "create", name]).code, 2);
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

#[test]
fn commands_on_topics_and_groups_that_are_not_there_exit_with_one_say_which_and_change_nothing() {
    let store = Store::new();
    store.produce("events", b"line\n");
    store.run(&["consume", "events", "--group", "g"]).ok();
    let before = store.snapshot();
    let cases: [&[&str]; 12] = [
        &["topic", "describe", "absent"],
        &["topic", "retain", "absent"],
        &["topic", "alter", "absent", "--retention", "1d"],
        &["topic", "delete", "absent"],
        &["topic", "add-partitions", "absent", "--partitions", "2"],
        &["group", "describe", "absent"],
        &["group", "reset", "absent", "--to", "earliest"],
        &["group", "reset", "g", "--to", "earliest", "--topic", "absent"],
        &["group", "delete", "absent"],
        &["consume", "absent"],
        &["consume", "absent", "--group", "g"],
        &["compact", "absent"],
    ];
    for arguments in cases {
        for arguments in [arguments.to_vec(), [arguments, &["--json"]].concat()] {
            let finished = store.run(&arguments);
            assert_eq!(finished.stdout, b"", "{arguments:?}");
            let message = finished.failed(1);
            assert!(message.contains("absent"), "{arguments:?}: {message}");
        }
    }
    let unchanged = store.run(&["group", "describe", "g", "--json"]).ok();
    assert_eq!(crate::support::parsed(&unchanged)[0]["lag"], 0);
    assert_eq!(store.run(&["consume", "events"]).ok(), b"line\n");
    let names = |files: Vec<(std::path::PathBuf, Vec<u8>)>| {
        files.into_iter().map(|(path, _)| path).collect::<Vec<_>>()
    };
    assert_eq!(names(store.snapshot()), names(before), "no file was made");
}

#[test]
fn every_command_on_topics_and_groups_prints_json_that_a_program_reads() {
    let store = Store::new();
    let cases: [(&[&str], &str); 13] = [
        (&["topic", "create", "t", "--partitions", "2"], "name"),
        (&["produce", "t"], ""),
        (&["topic", "list"], "name"),
        (&["topic", "describe", "t"], "partition_count"),
        (&["topic", "alter", "t", "--retention", "1d"], "name"),
        (&["topic", "add-partitions", "t", "--partitions", "3"], "partition_count"),
        (&["topic", "retain", "t"], "records_removed"),
        (&["consume", "t", "--group", "g"], "offset"),
        (&["group", "list"], "kind"),
        (&["group", "describe", "g"], "lag"),
        (&["group", "reset", "g", "--to", "earliest"], "lag"),
        (&["group", "delete", "g"], "name"),
        (&["topic", "delete", "t"], "name"),
    ];
    for (arguments, field) in cases {
        if field.is_empty() {
            store.run_with(arguments, b"a\nb\n").ok();
            continue;
        }
        let lines = crate::support::parsed(&store.run(&[arguments, &["--json"]].concat()).ok());
        assert!(!lines.is_empty(), "{arguments:?}");
        assert!(lines.iter().all(|line| !line[field].is_null()), "{arguments:?}: {lines:?}");
    }
}

/// A wrong `--dir` was an empty store to every command that reads.
#[test]
fn commands_that_make_no_store_say_that_there_is_none_and_make_none() {
    let store = Store::new();
    let cases: [&[&str]; 25] = [
        &["consume", "events"],
        &["consume", "events", "--group", "g"],
        &["topic", "list"],
        &["topic", "describe", "events"],
        &["topic", "alter", "events", "--retention", "1d"],
        &["topic", "add-partitions", "events", "--partitions", "2"],
        &["topic", "delete", "events"],
        &["group", "list"],
        &["group", "describe", "g"],
        &["group", "reset", "g", "--to", "earliest"],
        &["group", "delete", "g"],
        &["queue", "list"],
        &["queue", "describe", "jobs"],
        &["queue", "peek", "jobs"],
        &["queue", "receive", "jobs"],
        &["queue", "send", "jobs"],
        &["queue", "purge", "jobs"],
        &["queue", "redrive", "jobs"],
        &["queue", "delete", "jobs"],
        &["stats"],
        &["top", "--once"],
        &["verify"],
        &["compact", "events"],
        &["salvage", "/nonexistent/rescued"],
        &["backup", "/nonexistent/backup"],
    ];
    let elsewhere = Store::new();
    std::fs::create_dir(elsewhere.dir()).unwrap();
    std::fs::write(elsewhere.dir().join("letter.txt"), "no store").unwrap();
    std::fs::create_dir(elsewhere.dir().join("2024")).unwrap();
    let before = elsewhere.snapshot();
    for arguments in cases {
        for store in [&store, &elsewhere] {
            let finished = store.run(arguments);
            assert_eq!(finished.stdout, b"", "{arguments:?}");
            let message = finished.failed(1);
            assert!(message.contains("there is no store at"), "{arguments:?}: {message}");
            assert!(message.contains(store.dir().to_str().unwrap()), "{arguments:?}: {message}");
        }
    }
    assert!(!store.dir().exists());
    assert_eq!(elsewhere.snapshot(), before);
    // These make one.
    store.run_with(&["produce", "events"], b"line\n").ok();
    for create in [["topic", "create", "t"], ["queue", "create", "q"]] {
        let store = Store::new();
        store.run(&create).ok();
        store.run(&["stats"]).ok();
    }
}
