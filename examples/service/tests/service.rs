//! The service as a process, with real text, real requests and a real kill.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use logmill_service_example::{Article, page};

const INPUT: &str = concat!(
    include_str!("../../../README.md"),
    include_str!("../../../docs/durability.md"),
    include_str!("../../../docs/queue.md")
);

struct Running {
    process: Child,
    address: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start(dir: &Path) -> Running {
    let mut process = Command::new(env!("CARGO_BIN_EXE_logmill-service-example"))
        .arg(dir)
        .arg("127.0.0.1:0")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("http://").expect("where it listens").to_owned();
    Running { process, address }
}

/// The status and the body of the answer.
fn request(running: &Running, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut connection = TcpStream::connect(&running.address).unwrap();
    write!(
        connection,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn publish(running: &Running, title: &str, text: &str) -> u16 {
    let article = Article { title: title.to_owned(), text: text.to_owned() };
    request(running, "POST", "/publish", &serde_json::to_string(&article).unwrap()).0
}

/// How many messages the queue has in each of these states, at one moment.
fn count(running: &Running, queue: &str, states: &[&str]) -> u64 {
    let (status, metrics) = request(running, "GET", "/metrics", "");
    assert_eq!(status, 200, "{metrics}");
    let of = |state: &&str| {
        let name = format!("logmill_queue_messages{{queue=\"{queue}\",state=\"{state}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse::<u64>().unwrap()
    };
    states.iter().map(of).sum()
}

/// Not state by state: what the killed process held becomes ready between two looks.
fn wait_until_idle(running: &Running) {
    while count(running, "articles", &["ready", "delayed", "in_flight"]) > 0 {}
}

fn articles() -> impl Iterator<Item = (&'static str, &'static str)> {
    let paragraphs = INPUT.split("\n\n").map(str::trim).filter(|text| !text.is_empty());
    paragraphs.map(|text| text.split_once('\n').unwrap_or((text, ""))).take(60)
}

#[test]
fn what_was_answered_with_202_is_published_though_the_process_is_killed() {
    let place = tempfile::tempdir().unwrap();
    let running = start(place.path());
    for (title, text) in articles() {
        assert_eq!(publish(&running, title, text), 202);
    }
    // Without a word to it.
    drop(running);

    let running = start(place.path());
    wait_until_idle(&running);
    for (title, _) in articles() {
        assert!(page(&place.path().join("site"), title).exists(), "{title}");
    }
    assert_eq!(count(&running, "failed", &["ready"]), 0);
    assert_eq!(request(&running, "GET", "/health", "").0, 200);
}

#[test]
fn what_is_no_article_is_refused_at_once_and_one_without_a_title_ends_among_the_failed() {
    let place = tempfile::tempdir().unwrap();
    let running = start(place.path());
    assert_eq!(request(&running, "POST", "/publish", "{\"title\": 7}").0, 422);
    assert_eq!(request(&running, "POST", "/publish", "no JSON").0, 400);
    assert_eq!(count(&running, "articles", &["ready"]), 0);
    assert_eq!(publish(&running, "", "text"), 202);
    wait_until_idle(&running);
    assert_eq!(count(&running, "failed", &["ready"]), 1);
}

#[test]
fn a_service_that_is_asked_to_stop_closes_its_store() {
    let place = tempfile::tempdir().unwrap();
    let mut running = start(place.path());
    assert_eq!(publish(&running, "the last one", "text"), 202);
    let pid = running.process.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert!(running.process.wait().unwrap().success());
    let store = logmill::Store::open(place.path().join("store")).unwrap();
    let counts = store.queue("articles").unwrap().counts().unwrap();
    let published = page(&place.path().join("site"), "the last one").exists();
    assert_eq!(counts.ready, u64::from(!published), "{counts:?}");
    store.close().unwrap();
}
