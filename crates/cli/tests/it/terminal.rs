//! What a person at a terminal sees that a pipe does not.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::support::Store;

/// A pseudo-terminal: what is read from the first was written to the second.
fn terminal() -> (File, File) {
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let name = ptsname(&screen, Vec::new()).unwrap().into_string().unwrap();
    (File::from(screen), OpenOptions::new().read(true).write(true).open(name).unwrap())
}

/// Which output of a command is the terminal; the other goes nowhere.
#[derive(Clone, Copy)]
enum Watched {
    Output,
    Errors,
}

/// What appears on the terminal when it is that output of the command, and the code that this ends with.
fn watch(mut command: Command, watched: Watched) -> (String, Option<i32>) {
    let (mut screen, line) = terminal();
    let size = Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&line, size).unwrap();
    let reader = thread::spawn(move || {
        let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
        // The far end of a terminal that nobody has open any more reads as an error, not as an end.
        while let Ok(len) = screen.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..len]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    });
    match watched {
        Watched::Output => command.stdout(line).stderr(Stdio::null()),
        Watched::Errors => command.stdout(Stdio::null()).stderr(line),
    };
    let status = command.status().unwrap();
    // It has the terminal's near end open.
    drop(command);
    (reader.join().unwrap(), status.code())
}

/// What appears on the terminal when it is the standard error of `logmill` with these arguments.
fn seen(store: &Store, arguments: &[&str]) -> String {
    let (seen, code) = watch(store.command(arguments), Watched::Errors);
    assert_eq!(code, Some(0), "{seen}");
    seen
}

#[test]
fn a_file_is_appended_under_a_progress_bar_and_standard_input_is_not() {
    let store = Store::new();
    let file = store.file("input.txt", &b"a line of some length\n".repeat(200_000));
    let bar = seen(&store, &["produce", "events", "--file", file.to_str().unwrap()]);
    assert!(bar.contains(" %"), "{bar:?}");
    assert_eq!(seen(&store, &["produce", "events"]), "");
    assert_eq!(store.run(&["produce", "events", "--file", file.to_str().unwrap()]).ok_text(), "");
}

#[test]
fn whatever_goes_through_a_whole_store_shows_how_far_it_is() {
    let store = Store::new();
    store.create_topic_of_small_segments("events");
    let lines: String =
        (0..200_000).map(|n| format!("{} a line of some length\n", n % 7)).collect();
    store.run_with(&["produce", "events", "--key-field", "1"], lines.as_bytes()).ok();
    let restored = Store::new();
    let beside = |name: &str| store.dir().with_file_name(name).to_str().unwrap().to_owned();
    let (backup, rescued) = (beside("backup"), beside("rescued"));
    let cases: [(&Store, &[&str], &str); 6] = [
        (&store, &["consume", "events"], " records "),
        (&store, &["verify"], "B/s"),
        (&store, &["backup", &backup], "B/s"),
        (&restored, &["restore", &backup], "B/s"),
        (&store, &["salvage", &rescued], "B/s"),
        (&store, &["compact", "events"], "B/s"),
    ];
    for (store, arguments, unit) in cases {
        let bar = seen(store, arguments);
        assert!(bar.contains(" %") && bar.contains(unit), "{arguments:?}: {bar:?}");
    }
}

#[test]
fn queues_are_shown_in_colours_to_a_person_and_plainly_to_a_program() {
    let store = Store::new();
    store.run(&["queue", "create", "jobs"]).ok();
    store.run_with(&["queue", "send", "jobs"], b"one\ntwo\n").ok();
    let list: &[&str] = &["queue", "list"];
    let describe: &[&str] = &["queue", "describe", "jobs"];
    for (arguments, words) in [(list, "IN FLIGHT"), (describe, "oldest_claimable_age_ms")] {
        let (coloured, _) = watch(store.command(arguments), Watched::Output);
        assert!(coloured.contains("\u{1b}[") && coloured.contains(words), "{coloured:?}");
        let mut command = store.command(arguments);
        command.env("NO_COLOR", "1");
        let (plain, _) = watch(command, Watched::Output);
        assert!(!plain.contains('\u{1b}') && plain.contains(words), "{plain:?}");
        assert!(plain.contains("jobs") && plain.contains('2'), "{plain:?}");
        let piped = store.run(arguments).ok_text();
        assert!(piped.is_ascii() && !piped.contains('\u{1b}'), "{piped:?}");
    }
}
