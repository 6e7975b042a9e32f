//! `doctor`: on disks that are well, and on those for which it is needed.

use std::path::Path;
use std::process::Command;

use crate::support::{Finished, limited, logmill, parsed};

#[test]
fn doctor_says_what_it_finds_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().to_str().unwrap();
    let found = &parsed(&logmill(&["doctor", dir, "--json"]).ok())[0];
    assert!(found["fdatasync_us"]["max"].is_u64() && found["free_bytes"].as_u64() > Some(0));
    let mapped = ["ext4", "tmpfs"].contains(&found["file_system"].as_str().unwrap());
    assert_eq!(found["buffered_writes"], if mapped { "mapped" } else { "positional" });
    let text = logmill(&["doctor", dir]).ok_text();
    assert!(found["warnings"].is_array(), "a program is warned as a reader is: {found}");
    assert!(text.contains("fdatasync of 4 KiB") && text.contains("free space"), "{text}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    logmill(&["doctor", &format!("{dir}/absent")]).failed(1);
}

#[test]
fn the_flush_test_notices_a_page_that_was_synced_and_is_gone() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().to_str().unwrap();
    let printed = logmill(&["doctor", dir, "--flush-test", "--pages", "20"]).ok_text();
    assert_eq!(printed.lines().last(), Some("20"));
    let file = place.path().join("logmill-doctor.flush");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let message = logmill(&["doctor", dir, "--flush-check", "20"]).failed(3);
    assert!(message.contains("page 20 of 20"), "{message}");
    std::fs::write(&file, &whole).unwrap();
    logmill(&["doctor", dir, "--flush-check", "20"]).ok();
    assert!(!file.exists());
    logmill(&["doctor", dir, "--flush-check", "20"]).failed(3);
}

#[test]
fn the_flush_test_is_one_object_if_it_is_wanted_so() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().to_str().unwrap();
    let finished = logmill(&["doctor", dir, "--flush-test", "--pages", "20", "--json"]);
    let object = serde_json::json!({"pages": 20, "synced": 20, "failed": null});
    assert_eq!((finished.code, parsed(&finished.stdout)), (0, vec![object]));
    // What has to be noted before the power is cut comes as it is known.
    assert_eq!(finished.stderr.lines().last(), Some("20"));
    logmill(&["doctor", dir, "--flush-check", "20"]).ok();

    let finished = limited(40, &["doctor", dir, "--flush-test", "--pages", "20", "--json"]);
    let object = &parsed(&finished.stdout)[0];
    assert_eq!((&object["pages"], &object["synced"]), (&20.into(), &10.into()));
    assert!(object["failed"].as_str().unwrap().contains("too large"), "{object}");
    assert_eq!(finished.code, 1);
}

/// What it must say of a disk that cannot be written to.
fn says_what_it_can(text: Finished, json: Finished, why: &str) {
    let printed = String::from_utf8(text.stdout.clone()).unwrap();
    for words in ["file system ", "free space ", "open files ", "FAILED: ", why] {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    assert!(text.failed(1).contains("these checks failed: fdatasync of 4 KiB"));
    let found = &parsed(&json.stdout)[0];
    assert!(found["fdatasync_us"].is_null() && found["free_bytes"].is_u64(), "{found}");
    assert_eq!(found["failed"][0]["check"], "fdatasync of 4 KiB", "{found}");
    assert!(found["failed"][0]["message"].as_str().unwrap().contains(why), "{found}");
    json.failed(1);
}

/// It printed nothing at all where it is needed most.
#[test]
fn doctor_tells_what_it_can_of_a_disk_that_takes_no_bytes() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().to_str().unwrap();
    let (text, json) = (["doctor", dir], ["doctor", dir, "--json"]);
    says_what_it_can(limited(0, &text), limited(0, &json), "File too large");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

/// In a mount namespace of its own, so that nothing stays mounted: `script` is given the binary and a directory on a disk of
/// 64 KiB. `None` where that takes rights that we have not.
#[expect(clippy::print_stderr, reason = "what is skipped says so")]
fn on_a_small_disk(place: &Path, script: &str) -> Option<Finished> {
    let run = |script: &str| {
        let mounted = format!("mount -t tmpfs -o size=64k none \"$2\"; {script}");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-uc", &mounted, "sh", env!("CARGO_BIN_EXE_logmill")]);
        command.arg(place).output()
    };
    if !run("mountpoint -q \"$2\"").is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: a disk of our own takes root");
        return None;
    }
    Some(run(script).unwrap().into())
}

#[test]
fn doctor_tells_what_it_can_of_a_disk_that_is_full_or_read_only() {
    let place = tempfile::tempdir().unwrap();
    let full = "head -c 64k /dev/zero >\"$2/filler\";";
    let read_only = "mount -o remount,ro \"$2\";";
    for (state, why) in [(full, "No space left"), (read_only, "Read-only file system")] {
        let run = |options| {
            on_a_small_disk(place.path(), &format!("{state} exec \"$1\" doctor \"$2\" {options}"))
        };
        let (Some(text), Some(json)) = (run(""), run("--json")) else { return };
        says_what_it_can(text, json, why);
    }
}
