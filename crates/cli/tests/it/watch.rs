//! `top` and `bench`: in pipes, and `top` in a real terminal.

use std::io::Write;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use logmill::QueueConfig;

use crate::support::{Store, limited, logmill, parsed};

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

/// A window in which `top` runs, as soon as it shows the store; `None` without tmux.
#[expect(clippy::print_stderr, reason = "what is skipped says so")]
fn top_in_a_window(store: &Store, name: &str) -> Option<Tmux> {
    if Command::new("tmux").arg("-V").output().is_err() {
        eprintln!("SKIPPED: tmux is not installed, so `top` was not tried in a real terminal");
        return None;
    }
    let tmux = Tmux { name: format!("logmill-{name}-{}", std::process::id()) };
    let started =
        tmux.run(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", "sh"]);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let command = format!(
        "{} --dir {} top --every 100ms; echo ended with $?",
        env!("CARGO_BIN_EXE_logmill"),
        store.dir().display()
    );
    tmux.run(&["send-keys", &command, "Enter"]);
    tmux.wait_for(|screen| screen.contains("no writer") && screen.contains("jobs"));
    Some(tmux)
}

#[test]
fn top_in_a_terminal_follows_a_live_producer_and_gives_the_terminal_back() {
    let store = filled();
    let Some(tmux) = top_in_a_window(&store, "follow") else { return };
    let screen = tmux.screen();
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

/// It left the terminal raw and on the other screen: whoever typed saw nothing of it.
#[test]
fn top_that_is_told_to_end_gives_the_terminal_back() {
    for (signal, code) in [("TERM", 143), ("HUP", 129)] {
        let store = filled();
        let Some(tmux) = top_in_a_window(&store, signal) else { return };
        let pane = tmux.run(&["display-message", "-p", "#{pane_pid}"]).stdout;
        let shell = String::from_utf8(pane).unwrap();
        let children = format!("/proc/{0}/task/{0}/children", shell.trim());
        let top = std::fs::read_to_string(children).unwrap();
        let killed = Command::new("kill").args([&format!("-{signal}"), top.trim()]).status();
        assert!(killed.unwrap().success(), "{top}");
        let screen = tmux.wait_for(|screen| screen.contains(&format!("ended with {code}")));
        assert!(!screen.contains("q ends"), "{screen}");
        tmux.run(&["send-keys", "stty -a | tr -d '\n'; echo", "Enter"]);
        // A raw terminal has neither.
        let screen = tmux.wait_for(|screen| screen.replace('\n', "").contains("icrnl"));
        let settings = screen.replace('\n', "");
        for set in [" icanon", " echo ", " icrnl"] {
            assert!(settings.contains(set) && !settings.contains("-icanon"), "{signal}: {screen}");
        }
    }
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

#[test]
fn bench_on_a_full_disk_says_so_and_removes_its_store() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().to_str().unwrap();
    for kib in [0, 256, 20_000] {
        let message = limited(kib, &["bench", dir, "--test", "append"]).failed(1);
        assert!(message.contains("no space"), "{kib} KiB: {message}");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "{kib} KiB");
    }
}

#[test]
fn bench_that_is_told_to_end_removes_its_store() {
    for signal in ["-INT", "-TERM", "-HUP"] {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().to_str().unwrap();
        let mut bench = Command::new(env!("CARGO_BIN_EXE_logmill"))
            .args(["bench", dir, "--test", "sync", "--records", "100000000"])
            .spawn()
            .unwrap();
        let scratch = place.path().join(format!("logmill-bench-{}/1/0", bench.id()));
        let started = Instant::now();
        while std::fs::read_dir(&scratch).map_or(0, Iterator::count) < 2 {
            assert!(started.elapsed() < Duration::from_secs(60), "nothing was measured");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let killed = Command::new("kill").args([signal, &bench.id().to_string()]).status();
        assert!(killed.unwrap().success());
        let status = bench.wait().unwrap();
        assert!(std::os::unix::process::ExitStatusExt::signal(&status).is_some(), "{status}");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "{signal}");
    }
}
