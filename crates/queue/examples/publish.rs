//! The classic: a request to publish an article is accepted at once, and background workers render it, make its
//! thumbnails, purge the cache and notify the readers. Each kind of work has a queue with a retry policy of its own, and
//! what was accepted survives kill -9: run it again after killing it, and it goes on.
//!
//! `cargo run -p logmill-queue --example publish [DIR] [ARTICLES]`

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use logmill_queue::{
    Failure, Message, Queue, QueueConfig, Queues, QueuesOptions, ReceivedMessage, Retry,
    RunningWorker, WorkerOptions,
};
use logmill_storage::DataDir;

/// The steps of publishing, and how each is retried.
fn steps() -> [(&'static str, Retry, u32); 4] {
    let ms = Duration::from_millis;
    [
        ("render", Retry::Immediate, 3),
        ("thumbnails", Retry::Linear { step: ms(5), most: ms(50) }, 5),
        ("purge-cache", Retry::Fixed { delay: ms(10) }, 20),
        ("notify", Retry::Exponential { first: ms(5), most: ms(200), jitter: 50 }, 10),
    ]
}

/// Accepts a request: four messages, and it is done. With the default durability they are on the disk when this returns.
fn publish(queues: &[Queue], article: u64) -> logmill_queue::Result<()> {
    let body = article.to_string();
    for queue in queues {
        queue.send(&Message::new(body.as_bytes()))?;
    }
    Ok(())
}

/// The work. The outside world fails now and then.
fn work(step: &str, message: &ReceivedMessage) -> Result<(), Failure> {
    let article: u64 = std::str::from_utf8(message.body())?.parse()?;
    match step {
        // A body that nobody can render will never be rendered.
        "render" if article % 97 == 13 => {
            Err(Failure::Reject(format!("article {article} has no title")))
        }
        "purge-cache" if message.receive_count() < 3 => {
            Err(Failure::Retry("the cache is restarting".to_owned()))
        }
        "notify" if article % 7 == u64::from(message.receive_count()) => {
            Err(Failure::Retry("mail server busy".to_owned()))
        }
        "thumbnails" if article % 31 == 5 && message.receive_count() == 1 => {
            panic!("the image library crashed")
        }
        _ => Ok(()),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let temporary = tempfile::tempdir()?;
    let place = arguments.next().map_or_else(|| temporary.path().to_owned(), Into::into);
    let articles: u64 = arguments.next().map_or(Ok(100), |text| text.parse())?;
    // The panics below are part of the play.
    std::panic::set_hook(Box::new(|_| {}));

    let store = DataDir::open(&place)?;
    let queues = Queues::open(&store, QueuesOptions::default())?;
    let failed = queues.create("failed", &QueueConfig::standard())?;
    let mut lines = Vec::new();
    for (step, retry, max_receives) in steps() {
        let config = QueueConfig::standard().dead_letter("failed", max_receives).retry(retry);
        lines.push(queues.create(step, &config)?);
    }
    let left: u64 = lines
        .iter()
        .map(|queue| queue.counts().map(|c| c.ready + c.delayed + c.in_flight))
        .sum::<Result<_, _>>()?;
    println!("{left} tasks are left from an earlier run");

    let done = Arc::new(AtomicU64::new(0));
    let mut workers: Vec<RunningWorker> = Vec::new();
    for (queue, (step, ..)) in lines.iter().zip(steps()) {
        let done = Arc::clone(&done);
        workers.push(queue.worker(WorkerOptions::new().threads(2)).run(move |message| {
            work(step, message)?;
            done.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })?);
    }
    for article in 0..articles {
        publish(&lines, article)?;
    }
    println!("{articles} articles are accepted");
    for queue in &lines {
        while queue.counts()? != Default::default() {
            std::thread::yield_now();
        }
    }
    for (worker, (step, ..)) in workers.into_iter().zip(steps()) {
        let report = worker.shutdown(Duration::from_secs(60));
        println!(
            "{step}: {} done, {} failed attempts, {} panics",
            report.succeeded, report.failed, report.panicked
        );
    }
    let dead = failed.counts()?.ready;
    println!(
        "{} tasks are done, {dead} dead letters wait to be looked at",
        done.load(Ordering::Relaxed)
    );
    if let Some(letter) = failed.peek(1)?.first() {
        let past = letter.earlier_history().cloned().unwrap_or_default();
        println!("the first says: {}", past.last_reason.unwrap_or_default());
    }
    drop((lines, failed));
    queues.close()?;
    Ok(())
}
