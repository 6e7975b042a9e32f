//! The classic: a request to publish is accepted at once, and workers render the page, make its thumbnail, purge the cache
//! and notify the subscribers. Each task has its own queue and its own policy for failures, and kill -9 loses none of them.
//!
//! ```text
//! cargo run --example publish -- article.txt [DIR]
//! ```
//! The first line of each paragraph is taken for its title. A task may run twice (its process died before it could say that
//! it was done), so each writes the same file again.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]
#![expect(clippy::disallowed_methods, reason = "the site's files are not the store's")]

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use logmill::queue::{Failure, Retry, WorkerOptions};
use logmill::{Message, QueueConfig, ReceivedMessage, Store};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
type Task = fn(&Path, &ReceivedMessage, &str, &str) -> Result<(), Failure>;

const TASKS: [(&str, Task); 4] =
    [("render", render), ("thumbnail", thumbnail), ("purge", purge), ("notify", notify)];

/// Makes the queues, or finds them as they were left.
pub fn open(dir: &Path) -> Outcome<Store> {
    let store = Store::open(dir)?;
    store.create_queue("failed", &QueueConfig::standard())?;
    let (short, long) = (Duration::from_millis(10), Duration::from_secs(60));
    for (task, retry) in [
        ("render", Retry::Fixed { delay: short }),
        ("thumbnail", Retry::Linear { step: short, most: long }),
        ("purge", Retry::Immediate),
        ("notify", Retry::Exponential { first: short, most: long, jitter: 50 }),
    ] {
        let config = QueueConfig::standard().retry(retry).dead_letter("failed", 5);
        store.create_queue(task, &config.visibility_timeout(Duration::from_secs(1)))?;
    }
    Ok(store)
}

/// Accepts an article. When this returns, it will be published, whatever happens to this process.
pub fn accept(store: &Store, title: &str, text: &str) -> Outcome<()> {
    let body = format!("{title}\n{text}");
    for (task, _) in TASKS {
        store.queue(task)?.send(&Message::new(body.as_bytes()))?;
    }
    Ok(())
}

/// Does all tasks that there are, and returns how many succeeded and how many tries failed.
pub fn work(store: &Store, site: &Path) -> Outcome<(u64, u64)> {
    std::fs::create_dir_all(site)?;
    let (done, next) = mpsc::channel();
    let mut workers = Vec::new();
    for (name, task) in TASKS {
        let (site, done) = (site.to_owned(), done.clone());
        let handler = move |message: &ReceivedMessage| {
            let body = String::from_utf8_lossy(message.body());
            let (title, text) = body.split_once('\n').unwrap_or((&body, ""));
            let outcome = task(&site, message, title, text);
            let _ = done.send(());
            outcome
        };
        workers.push(store.queue(name)?.worker(WorkerOptions::new().threads(2)).run(handler)?);
    }
    while left(store)? > 0 {
        // What another process held when it died comes back at the end of its lease.
        let _ = next.recv_timeout(Duration::from_millis(50));
    }
    let reports = workers.into_iter().map(|worker| worker.shutdown(Duration::from_secs(10)));
    Ok(reports.fold((0, 0), |sum, report| (sum.0 + report.succeeded, sum.1 + report.failed)))
}

fn left(store: &Store) -> Outcome<u64> {
    let mut left = 0;
    for (task, _) in TASKS {
        let counts = store.queue(task)?.counts()?;
        left += counts.ready + counts.delayed + counts.in_flight;
    }
    Ok(left)
}

fn file(site: &Path, title: &str, what: &str) -> PathBuf {
    let name: String = title.chars().filter(char::is_ascii_alphanumeric).take(80).collect();
    site.join(format!("{name}.{what}"))
}

fn render(site: &Path, _: &ReceivedMessage, title: &str, text: &str) -> Result<(), Failure> {
    if title.is_empty() {
        return Err(Failure::Reject("an article without a title".to_owned()));
    }
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    Ok(std::fs::write(file(site, title, "html"), format!("<h1>{title}</h1><p>{escaped}</p>"))?)
}

fn thumbnail(site: &Path, _: &ReceivedMessage, title: &str, text: &str) -> Result<(), Failure> {
    let short: String = text.chars().take(60).collect();
    Ok(std::fs::write(file(site, title, "thumbnail"), short)?)
}

fn purge(site: &Path, _: &ReceivedMessage, title: &str, _: &str) -> Result<(), Failure> {
    match std::fs::remove_file(file(site, title, "cached")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn notify(site: &Path, message: &ReceivedMessage, title: &str, _: &str) -> Result<(), Failure> {
    if message.receive_count() == 1 {
        return Err(Failure::Retry("the mail server is busy".to_owned()));
    }
    Ok(std::fs::write(file(site, title, "mail"), format!("Read {title}!"))?)
}

/// The articles of a text: a title and what follows it.
pub fn articles(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let paragraphs = text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
    paragraphs.map(|paragraph| paragraph.split_once('\n').unwrap_or((paragraph, "")))
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(input) = arguments.next() else { return Err("usage: publish FILE [DIR]".into()) };
    let text = std::fs::read_to_string(input)?;
    let place = tempfile::tempdir()?;
    let dir = arguments.next().map_or_else(|| place.path().to_owned(), Into::into);
    let store = open(&dir.join("store"))?;
    for (title, text) in articles(&text) {
        accept(&store, title, text)?;
        println!("accepted {title}");
    }
    let (succeeded, failed) = work(&store, &dir.join("site"))?;
    println!("{succeeded} tasks done, {failed} tries failed");
    Ok(store.close()?)
}
