//! Cron without a scheduler: a queue sends itself a message at every tick, across restarts.
//!
//! ```text
//! cargo run --example cron -- [DIR]
//! ```
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::path::Path;
use std::time::Duration;

use logmill::queue::{Missed, Repeat};
use logmill::{Message, QueueConfig, ReceiveOptions, Store};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Schedules `task` at an interval and waits for it `times` times, with a restart in the middle.
pub fn run(task: &str, every: Duration, times: usize, dir: &Path) -> Outcome<Vec<String>> {
    let store = Store::open(dir)?;
    let queue = store.create_queue("ticks", &QueueConfig::standard())?;
    queue.schedule(
        "tick",
        &Repeat::Every(every),
        &Message::new(task.as_bytes()),
        Missed::Latest,
    )?;
    let mut ran = receive(&store, times / 2)?;
    store.close()?;

    // The schedule is the store's, not the process's.
    let store = Store::open(dir)?;
    ran.extend(receive(&store, times - times / 2)?);
    store.queue("ticks")?.unschedule("tick")?;
    store.close()?;
    Ok(ran)
}

fn receive(store: &Store, times: usize) -> Outcome<Vec<String>> {
    let queue = store.queue("ticks")?;
    let mut ran = Vec::new();
    while ran.len() < times {
        for message in queue.receive(&ReceiveOptions::new().wait(Duration::from_secs(20)))? {
            ran.push(String::from_utf8(message.body().to_vec())?);
            queue.delete(message.receipt())?;
        }
    }
    Ok(ran)
}

fn main() -> Outcome<()> {
    let place = tempfile::tempdir()?;
    let dir = std::env::args_os().nth(1).map_or_else(|| place.path().to_owned(), Into::into);
    for task in run("rotate the keys", Duration::from_secs(1), 4, &dir)? {
        println!("{task}");
    }
    Ok(())
}
