//! `top`, `doctor` and `bench`: in pipes, and `top` in a real terminal.

use std::io::Write;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use logmill::QueueConfig;

use crate::support::{Finished, Store, parsed};

fn logmill(arguments: &[&str]) -> Finished {
    Command::new(env!("CARGO_BIN_EXE_logmill")).args(arguments).output().unwrap().into()
}

fn filled() -> Store {
    let store = Store::new();
    store.produce("events", &b"a line\n".repeat(1_234));
    let open = logmill::Store::open(store.dir()).unwrap();
    open.create_queue("jobs", &QueueConfig::standard()).unwrap();
    open.close().unwrap();
    store.run_with(&["queue", "send", "jobs"], &b"job\n".repeat(56)).ok();
    store
}

#[test]
fn top_in_a_pipe_is_one_screen_of_text_without_escapes() {
    let store = filled();
    let text = store.run(&["top"]).ok_text();
    assert!(!text.contains('\u{1b}'), "{text}");
    for words in ["events", "1234", "jobs", "56", "no writer"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let looks = parsed(&store.run(&["top", "--json", "--once"]).ok());
    assert_eq!((looks.len(), &looks[0]["queues"][0]["ready"]), (1, &56.into()));
}

#[test]
fn top_beside_a_live_writer_shows_what_its_page_says() {
    let store = filled();
    let open = logmill::Store::open(store.dir()).unwrap();
    let jobs = open.queue("jobs").unwrap();
    jobs.send(&logmill::Message::new(b"one more")).unwrap();
    let page = store.dir().join("stats");
    let started = Instant::now();
    while !std::fs::read_to_string(&page).is_ok_and(|page| page.contains("\"ready\"} 57")) {
        assert!(started.elapsed() < Duration::from_secs(60), "no page has come");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let look = || parsed(&store.run(&["top", "--json", "--once"]).ok()).remove(0);
    let seen = look();
    assert_eq!((&seen["writer_is_alive"], &seen["queues"][0]["ready"]), (&true.into(), &57.into()));
    assert!(seen["queues"][0]["oldest_claimable_age_ms"].is_u64(), "{seen}");
    assert!(seen["syncs"]["count"].as_u64() > Some(0), "{seen}");
    assert!(seen["syncs"]["p50_us"].as_u64() <= seen["syncs"]["p99_us"].as_u64(), "{seen}");
    open.close().unwrap();
    let seen = look();
    assert_eq!(
        (&seen["syncs"], &seen["queues"][0]["ready"]),
        (&serde_json::Value::Null, &57.into())
    );
}

/// A terminal multiplexer with one window, ended with the test.
struct Tmux {
    name: String,
}

impl Tmux {
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new("tmux").args(["-L", &self.name]).args(arguments).output().unwrap()
    }

    /// What is on the screen.
    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.run(&["capture-pane", "-p"]).stdout).into_owned()
    }

    /// Looks until `wanted` is on the screen. The limit only ends a test that has failed.
    fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> String {
        let started = Instant::now();
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{screen}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}

#[test]
fn top_in_a_terminal_follows_a_live_producer_and_gives_the_terminal_back() {
    if Command::new("tmux").arg("-V").output().is_err() {
        eprintln!("SKIPPED: tmux is not installed, so `top` was not tried in a real terminal");
        return;
    }
    let store = filled();
    let tmux = Tmux { name: format!("logmill-test-{}", std::process::id()) };
    let started =
        tmux.run(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", "sh"]);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let command = format!(
        "{} --dir {} top --every 100ms; echo ended with $?",
        env!("CARGO_BIN_EXE_logmill"),
        store.dir().display()
    );
    tmux.run(&["send-keys", &command, "Enter"]);
    let screen = tmux.wait_for(|screen| screen.contains("no writer") && screen.contains("jobs"));
    assert!(screen.contains("1234"), "{screen}");
    assert!(screen.contains("q ends"), "{screen}");

    let mut producer = store.live_producer(&["events"]);
    let mut input = producer.stdin.take().unwrap();
    input.write_all(&b"more\n".repeat(766)).unwrap();
    let screen = tmux.wait_for(|screen| screen.contains("2000") && screen.contains("writer alive"));
    assert!(screen.contains("APPENDED/S"), "{screen}");
    tmux.run(&["resize-window", "-x", "60", "-y", "20"]);
    tmux.wait_for(|screen| screen.lines().all(|line| line.chars().count() <= 60));
    // The writer's page has come, and there is its line.
    tmux.run(&["resize-window", "-x", "100", "-y", "30"]);
    tmux.wait_for(|screen| screen.contains("sync us: p50 "));
    drop(input);
    assert!(producer.wait().unwrap().success());
    tmux.wait_for(|screen| screen.contains("no writer") && !screen.contains("sync us"));
    tmux.run(&["send-keys", "q"]);
    let screen = tmux.wait_for(|screen| screen.contains("ended with 0"));
    // The shell's own screen is back.
    assert!(!screen.contains("APPENDED/S"), "{screen}");
}

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
fn bench_measures_everything_draws_it_and_removes_its_store() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().to_str().unwrap();
    let plot = place.path().join("plot.svg");
    let arguments = [
        "bench",
        dir,
        "--records",
        "2000",
        "--time",
        "200ms",
        "--rate",
        "200",
        "--json",
        "--plot",
        plot.to_str().unwrap(),
    ];
    let results = parsed(&logmill(&arguments).ok());
    let names: Vec<_> = results.iter().map(|result| result["test"].as_str().unwrap()).collect();
    assert_eq!(names, ["append", "scan", "sync", "queue", "latency"]);
    let records: Vec<_> =
        results.iter().map(|result| result["records"].as_u64().unwrap()).collect();
    assert_eq!(records, [2000, 2000, 20, 200, 40]);
    for result in &results {
        let at = |name| result["latency_ns"][name].as_u64().unwrap();
        assert!(0 < at("p50") && at("p50") <= at("p99") && at("p99") <= at("max"), "{result}");
    }
    let message = logmill(&["bench", dir, "--plot", "plot.png"]);
    assert!(message.code == 2 && message.stderr.contains("ends in .svg"), "{}", message.stderr);
    let drawing = std::fs::read(&plot).unwrap();
    let drawing = String::from_utf8(drawing).unwrap();
    assert!(drawing.starts_with("<svg") && drawing.contains("latency (record at its rate)"));
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
}
