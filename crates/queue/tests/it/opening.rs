//! What opening reads, and what closing says.

use logmill_queue::{Durability, Error, Message, QueueConfig, QueuesOptions};
use logmill_storage::io::sim::{Fault, Op};

use crate::store::Store;

#[test]
fn opening_after_a_kill_reads_the_checkpoint_and_what_was_journaled_since() {
    for (before, behind) in [(0, 0), (10_000, 0), (0, 1_000), (10_000, 1_000)] {
        let options = QueuesOptions::default().durability(Durability::Buffered);
        let mut store = Store::with(1, options);
        let queue = store.create("q", QueueConfig::standard());
        let send = |count: usize| {
            for _ in 0..count {
                queue.send(&Message::new(&[7; 1000])).unwrap();
            }
        };
        send(before);
        store.queues().checkpoint().unwrap();
        store.pass(1_000);
        store.queues().tick();
        send(behind);
        let reserved = store.disk.read_file("0/00000000000000000000.log").unwrap().len();
        let read = store.disk.ops().bytes_read();
        drop(queue);
        store.kill();
        let read = store.disk.ops().bytes_read() - read;
        assert_eq!(store.queue("q").counts().unwrap().ready, (before + behind) as u64);
        let zeros = reserved - 1_020 * (before + behind);
        let most = 100_000 + 10 * before + 4_300 * behind + zeros;
        assert!(read < most as u64, "{before} and {behind}: {read} bytes of {most}");
    }
}

#[test]
fn closing_says_that_a_sync_failed_and_has_kept_what_was_acknowledged() {
    for fault in [Fault::SyncEioKeep, Fault::SyncEioSome, Fault::SyncEioRevert, Fault::SyncEioDrop]
    {
        let mut store = Store::new();
        let queue = store.create("q", QueueConfig::standard());
        queue.send(&Message::new(b"durable")).unwrap();
        queue.send_with(&Message::new(b"in doubt"), Durability::Buffered).unwrap();
        drop(queue);
        store.disk.fail_next(Op::Sync, fault);
        let said = store.close().unwrap_err();
        assert_eq!(store.disk.faults_fired(), 1);
        assert!(matches!(said, Error::Storage(_)), "{fault}: {said}");
        store.kill();
        assert_eq!(store.queue("q").peek(10).unwrap()[0].body(), b"durable");
    }
}
