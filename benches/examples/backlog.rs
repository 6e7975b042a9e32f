//! What a backlog costs: memory, the price of a receive, the time of an open. `cargo run --release -p logmill-benches
//! --example backlog [one|many|delayed|stuck [MESSAGES]]`; all of them by default, one after the other in some 2 GB of disk.
//! The backlogs have 10 M messages in one queue and in 100, and 1 M delayed ones; `stuck` sends and deletes 10 M beside one
//! that is never deleted.

use std::process::Command;
use std::time::Duration;

use logmill::queue::Durability;
use logmill::{Message, Queue, QueueConfig, ReceiveOptions, Store};
use logmill_benches::{Scratch, anonymous, payload, seconds};

/// Cycles by which the price of a receive and delete is measured.
const CYCLES: usize = 200_000;
const BATCH: usize = 100;

fn open(path: &std::path::Path) -> Store {
    Store::builder().durability(Durability::Buffered).open(path).expect("store")
}

fn queues(store: &Store, count: usize) -> Vec<Queue> {
    let config = QueueConfig::standard();
    (0..count).map(|n| store.create_queue(&format!("q{n}"), &config).expect("queue")).collect()
}

fn fill(queues: &[Queue], messages: usize, delay: Option<Duration>) {
    let body = payload(100, 7);
    // Interleaved: neighbours in the journal belong to different queues.
    let batch = if queues.len() > 1 { 10 } else { BATCH };
    let mut message = Message::new(&body);
    if let Some(delay) = delay {
        message = message.delay(delay);
    }
    let batch = vec![message; batch];
    for n in 0..messages / batch.len() {
        assert!(
            queues[n % queues.len()].send_batch(&batch).expect("send").iter().all(Result::is_ok)
        );
    }
}

/// Seconds of `CYCLES` receives and deletes, a message a call.
fn drained(queues: &[Queue]) -> f64 {
    let options = ReceiveOptions::new();
    seconds(|| {
        for n in 0..CYCLES {
            let queue = &queues[n % queues.len()];
            let got = queue.receive(&options).expect("receive");
            queue.delete(got[0].receipt()).expect("delete");
        }
    })
}

/// The seconds of an open, in a process of its own.
fn reopened(path: &std::path::Path) -> f64 {
    let this = std::env::current_exe().expect("this program");
    let output = Command::new(this).arg("--open").arg(path).output().expect("open");
    String::from_utf8(output.stdout).expect("text").trim().parse().expect("seconds")
}

fn backlog(what: &str, queue_count: usize, messages: usize, bound: f64) {
    // The price beside no backlog: as many messages as the cycles take, in as many queues.
    let empty = {
        let scratch = Scratch::new("no-backlog");
        let store = open(scratch.path());
        let queues = queues(&store, queue_count);
        fill(&queues, CYCLES, None);
        let spent = drained(&queues);
        drop(queues);
        store.close().expect("close");
        spent
    };
    let scratch = Scratch::new("backlog");
    let this = std::env::current_exe().expect("this program");
    let fill = Command::new(this)
        .arg("--fill")
        .arg(scratch.path())
        .args([queue_count.to_string(), messages.to_string()])
        .output()
        .expect("fill");
    print!("{what}: {}", String::from_utf8_lossy(&fill.stdout));
    let killed = reopened(scratch.path());
    let clean = reopened(scratch.path());
    println!("{what}: open after kill -9      {:7.0} ms   target 1000", killed * 1e3);
    println!("{what}: open after a clean stop {:7.0} ms   target 300", clean * 1e3);
    let store = open(scratch.path());
    let queues: Vec<_> =
        (0..queue_count).map(|n| store.queue(&format!("q{n}")).expect("queue")).collect();
    println!(
        "{what}: receive+delete          {:7.2} x    target {bound}",
        drained(&queues) / empty
    );
    drop(queues);
    store.close().expect("close");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default| {
        arguments.get(at).map_or(default, |text| text.parse().expect("a number"))
    };
    match arguments.first().map(String::as_str) {
        Some("--open") => {
            let path = std::path::Path::new(&arguments[1]);
            let mut store = None;
            println!("{}", seconds(|| store = Some(open(path))));
            store.expect("open").close().expect("close");
        }
        Some("--fill") => {
            let store = open(std::path::Path::new(&arguments[1]));
            let queues = queues(&store, number(2, 1));
            let before = anonymous();
            fill(&queues, number(3, 0), None);
            println!("memory                  {:7.1} MiB  target 64", anonymous() - before);
            // SIGKILL: nothing of this process gets to run again.
            let kill = Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
            unreachable!("{kill:?}");
        }
        only => {
            let runs = |name| only.is_none_or(|only| only == name);
            if runs("one") {
                backlog("one queue ", 1, number(1, 10_000_000), 1.3);
            }
            if runs("many") {
                backlog("100 queues", 100, number(1, 10_000_000), 2.0);
            }
            if runs("delayed") {
                delayed(number(1, 1_000_000));
            }
            if runs("stuck") {
                stuck(number(1, 10_000_000));
            }
        }
    }
}

fn delayed(messages: usize) {
    let scratch = Scratch::new("delayed");
    let store = open(scratch.path());
    let queues = queues(&store, 1);
    let before = anonymous();
    fill(&queues, messages, Some(Duration::from_secs(3600)));
    println!("delayed   : memory                  {:7.1} MiB  target 64", anonymous() - before);
    drop(queues);
    store.close().expect("close");
}

/// One message that nobody ever deletes beside very many that come and go.
fn stuck(messages: usize) {
    let scratch = Scratch::new("stuck");
    let store = open(scratch.path());
    let queues = queues(&store, 1);
    let queue = &queues[0];
    queue.send(&Message::new(b"stuck").delay(Duration::from_secs(86_400))).expect("send");
    let options = ReceiveOptions::new().max(BATCH);
    let mut done = 0;
    while done < messages {
        fill(&queues, 10 * BATCH, None);
        loop {
            let got = queue.receive(&options).expect("receive");
            if got.is_empty() {
                break;
            }
            done += got.len();
            let receipts: Vec<_> = got.iter().map(|message| *message.receipt()).collect();
            assert!(queue.delete_batch(&receipts).expect("delete").iter().all(Result::is_ok));
        }
    }
    let space = store.stats().expect("stats").space;
    drop(queues);
    store.close().expect("close");
    println!("stuck     : segments left           {:5}    target 4", segments(scratch.path()));
    println!(
        "stuck     : {} segments removed, {:.3} bytes written for each that was sent",
        space.segments,
        space.write_amplification()
    );
}

fn segments(dir: &std::path::Path) -> usize {
    let entries =
        std::fs::read_dir(dir).expect("directory").map(|entry| entry.expect("entry").path());
    entries
        .map(|path| match path.is_dir() {
            true => segments(&path),
            false => usize::from(path.extension().is_some_and(|extension| extension == "log")),
        })
        .sum()
}
