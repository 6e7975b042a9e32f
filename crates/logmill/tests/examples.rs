//! The examples do what they say, on real text.

#[path = "../examples/prometheus.rs"]
#[expect(dead_code, reason = "its main is for the command line")]
mod prometheus;
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
