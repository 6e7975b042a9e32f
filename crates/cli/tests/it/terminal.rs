//! What a person at a terminal sees that a pipe does not.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::process::Stdio;
use std::thread;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::Store;

/// A pseudo-terminal: what is read from the first was written to the second.
fn terminal() -> (File, File) {
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let name = ptsname(&screen, Vec::new()).unwrap().into_string().unwrap();
    (File::from(screen), OpenOptions::new().read(true).write(true).open(name).unwrap())
}

/// What appears on the terminal when it is the standard error of `logmill` with these arguments.
fn seen(store: &Store, arguments: &[&str]) -> String {
    let (mut screen, line) = terminal();
    let reader = thread::spawn(move || {
        let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
        // The far end of a terminal that nobody has open any more reads as an error, not as an end.
        while let Ok(len) = screen.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..len]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    });
    // The command owns the terminal's near end, and is dropped before the reader is waited for.
    let status = store.command(arguments).stdout(Stdio::null()).stderr(line).status().unwrap();
    assert!(status.success());
    reader.join().unwrap()
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
