//! What the first use of a partition costs: `cargo run --release -p logmill-benches --example first_use`. Its log is made, the
//! journal is told so, synced, and then the record is appended, synced. Beside it the same of a log that no journal knows, and
//! a sync of the journal alone. They take turns.

use std::time::{Duration, Instant};

use logmill::{ConsumerConfig, Durability, Record, StartAt, Store, TopicConfig, TopicPartition};
use logmill_benches::{Scratch, payload};
use logmill_storage::{DataDir, Log, LogConfig};

const TIMES: u32 = 500;

fn timed(spent: &mut Vec<Duration>, work: impl FnOnce()) {
    let begin = Instant::now();
    work();
    spent.push(begin.elapsed());
}

fn main() {
    let (scratch, bare) = (Scratch::new("first-use"), Scratch::new("first-use-bare"));
    let store = Store::open(scratch.path()).expect("store");
    let dir = DataDir::open(bare.path()).expect("directory");
    let config = TopicConfig::new().partitions(TIMES).durability(Durability::Sync);
    let topic = store.create_topic("t", config).expect("topic");
    let config = ConsumerConfig::new().start_at(StartAt::Earliest).auto_commit(None);
    let mut consumer = store.consumer_with("g", config).expect("consumer");
    let value = payload(100, 1);
    let [mut first, mut later, mut unknown, mut journal] = [const { Vec::new() }; 4];
    let mut logs = Vec::new();
    for number in 0..TIMES {
        let partition = topic.partition(number).expect("partition");
        let append = || {
            partition.append(&Record::value(&value)).expect("append");
        };
        timed(&mut first, append);
        timed(&mut later, append);
        timed(&mut unknown, || {
            let log = Log::open(&dir, &format!("1/{number}"), LogConfig::default()).expect("log");
            log.append(&Record::value(&value)).expect("append");
            logs.push(log);
        });
        let at = TopicPartition { topic: "t".into(), partition: number };
        timed(&mut journal, || consumer.commit_offsets(&[(at, 1.into())]).expect("commit"));
    }
    for (what, mut spent) in [
        ("first append of a partition", first),
        ("second append", later),
        ("first append of a log without a journal", unknown),
        ("synced commit", journal),
    ] {
        spent.sort_unstable();
        let at = |share: usize| spent[(spent.len() - 1) * share / 100].as_secs_f64() * 1e6;
        println!("{what:<42} p50 {:>8.0} us, p99 {:>8.0} us", at(50), at(99));
    }
    store.close().expect("close");
}
