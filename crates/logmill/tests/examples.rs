//! The examples do what they say, on real text.

#[path = "../examples/audit.rs"]
#[expect(dead_code, reason = "its main is for the command line")]
mod audit;
#[path = "../examples/cdc.rs"]
#[expect(dead_code, reason = "its main is for the command line")]
mod cdc;
#[path = "../examples/cron.rs"]
#[expect(dead_code, reason = "its main is for the command line")]
mod cron;
#[path = "../examples/event_sourcing.rs"]
#[expect(dead_code, reason = "its main is for the command line")]
mod event_sourcing;
#[path = "../examples/outbox.rs"]
#[expect(dead_code, reason = "its main is for the command line")]
mod outbox;
#[path = "../examples/prometheus.rs"]
#[expect(dead_code, reason = "its main is for the command line")]
mod prometheus;
#[path = "../examples/publish.rs"]
#[expect(dead_code, reason = "its main is for the command line")]
mod publish;
#[path = "../examples/user_events.rs"]
#[expect(dead_code, reason = "its main is for the command line")]
mod user_events;

/// Text with many different first words.
const INPUT: &str = concat!(
    include_str!("../../../docs/format.md"),
    include_str!("../../../docs/durability.md"),
    include_str!("../../../README.md")
);

#[test]
fn user_events_reach_every_group_in_order_and_an_idle_consumer_takes_over() {
    let place = tempfile::tempdir().unwrap();
    let lines = INPUT.lines().filter(|line| line.split_whitespace().next().is_some());
    let users: std::collections::BTreeSet<_> =
        lines.clone().filter_map(|line| line.split_whitespace().next()).collect();
    let reports = user_events::run(INPUT, place.path()).unwrap();
    assert_eq!(
        reports.iter().map(|r| r.group).collect::<Vec<_>>(),
        ["analytics", "recommendations", "notifications"]
    );
    for report in &reports {
        assert_eq!(
            (report.events, report.users),
            (lines.clone().count(), users.len()),
            "{report:?}"
        );
        assert_eq!(report.out_of_order, 0, "{report:?}");
    }
    assert_eq!(reports[0].redelivered, 0);
    let idle: Vec<_> = reports.iter().map(|report| (report.idle, report.took_over)).collect();
    assert_eq!(idle, [(0, 0), (0, 0), (1, 1)], "the fourth consumer of three partitions");
    assert!(reports[2].redelivered > 0, "what the dead consumer had not committed came again");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the server that is asked")]
fn prometheus_gets_the_numbers_of_the_store_that_serves_them() {
    use std::io::{Read, Write};
    let place = tempfile::tempdir().unwrap();
    let store = logmill::Store::open(place.path()).unwrap();
    let queue = store.create_queue("work", &logmill::QueueConfig::standard()).unwrap();
    for line in INPUT.lines().filter(|line| !line.is_empty()).take(20) {
        queue.send(&logmill::Message::new(line.as_bytes())).unwrap();
    }
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = store.clone();
    let serving = std::thread::spawn(move || prometheus::serve(&server, &listener, Some(1)));
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    connection.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    serving.join().unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let ready = "logmill_queue_messages{queue=\"work\",state=\"ready\"} 20";
    assert!(answer.lines().any(|line| line == ready), "{answer}");
    store.close().unwrap();
}

#[test]
fn event_sourcing_folds_only_what_came_after_the_snapshot() {
    let place = tempfile::tempdir().unwrap();
    let words: Vec<&str> = INPUT.split_whitespace().collect();
    let (counts, folded) = event_sourcing::run(INPUT, place.path()).unwrap();
    assert_eq!(counts.next, words.len() as u64);
    assert_eq!(folded, (words.len() - words.len() / 2) as u64);
    let the = words.iter().filter(|word| **word == "the").count() as u64;
    assert!(the > 0);
    assert_eq!(counts.words["the"], the);
    assert_eq!(counts.words.values().sum::<u64>(), words.len() as u64);
}

#[test]
fn the_outbox_sends_each_row_once_however_often_it_runs() {
    let place = tempfile::tempdir().unwrap();
    let rows: Vec<&str> = INPUT.lines().filter(|line| !line.is_empty()).collect();
    let half = rows.len() / 2;
    assert_eq!(outbox::run(&rows[..half], place.path()).unwrap(), half as u64);
    assert_eq!(outbox::run(&rows, place.path()).unwrap(), rows.len() as u64);
    assert_eq!(outbox::run(&rows, place.path()).unwrap(), rows.len() as u64);
}

#[test]
fn the_audit_log_keeps_a_month_and_finds_what_happened_on_a_day() {
    let place = tempfile::tempdir().unwrap();
    // So long that a day fills about a segment, however the text grows or shrinks.
    let input = INPUT.repeat(60);
    let lines: Vec<&str> = input.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let report = audit::run(&input, 7, place.path()).unwrap();
    assert_eq!(report.written, lines.len() as u64);
    // Whole segments go: of what is kept, a little may be older than a month. What is a month old to the hour may be gone.
    assert!((29..32).contains(&report.oldest_days), "{} days", report.oldest_days);
    assert!(report.first_kept > report.written / 3, "{} of {}", report.first_kept, report.written);
    let a_day = lines.len() / 60;
    assert!((a_day - 1..=a_day + 1).contains(&report.day.len()), "{} of {a_day}", report.day.len());
    let first = format!("{} {}", report.day[0].0, report.day[0].1);
    assert!(lines.contains(&first.trim()), "{first}");
}

#[test]
fn cron_fires_on_after_a_restart() {
    let place = tempfile::tempdir().unwrap();
    let every = std::time::Duration::from_millis(20);
    let ran = cron::run("rotate the keys", every, 4, place.path()).unwrap();
    assert_eq!(ran, ["rotate the keys"; 4]);
}

#[test]
fn change_data_capture_keeps_the_latest_of_each_row_and_little_else() {
    let place = tempfile::tempdir().unwrap();
    let changes = INPUT.repeat(3);
    let mut expected = std::collections::BTreeMap::new();
    let lines = changes.lines().map(str::trim).filter(|line| !line.is_empty());
    for line in lines.clone() {
        match line.split_once(' ') {
            Some((key, value)) => expected.insert(key.to_owned(), value.to_owned()),
            None => expected.remove(line),
        };
    }
    let (table, records) = cdc::run(&changes, place.path()).unwrap();
    assert_eq!(table, expected);
    assert!(records < lines.count(), "{records} records are left");
}

const PUBLISH_IN: &str = "LOGMILL_TEST_PUBLISH_IN";

/// The process that the test below kills: it accepts, and then works until it is gone.
#[test]
fn a_publisher_that_is_killed() {
    let Some(dir) = std::env::var_os(PUBLISH_IN).map(std::path::PathBuf::from) else { return };
    let store = publish::open(&dir.join("store")).unwrap();
    for (title, text) in publish::articles(INPUT).take(20) {
        publish::accept(&store, title, text).unwrap();
    }
    println!("\naccepted");
    publish::work(&store, &dir.join("site")).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn what_was_accepted_is_published_though_its_process_is_killed() {
    use std::io::BufRead;
    let place = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_publisher_that_is_killed", "--nocapture"])
        .env(PUBLISH_IN, place.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "accepted"));
    child.kill().unwrap();
    child.wait().unwrap();

    let store = publish::open(&place.path().join("store")).unwrap();
    let site = place.path().join("site");
    publish::work(&store, &site).unwrap();
    let titles: std::collections::BTreeSet<String> = publish::articles(INPUT)
        .take(20)
        .map(|(title, _)| title.chars().filter(char::is_ascii_alphanumeric).take(80).collect())
        .collect();
    for title in &titles {
        for what in ["html", "thumbnail", "mail"] {
            assert!(site.join(format!("{title}.{what}")).exists(), "{title}.{what}");
        }
    }
    assert_eq!(store.queue("failed").unwrap().counts().unwrap(), logmill::Counts::default());
    store.close().unwrap();
}
