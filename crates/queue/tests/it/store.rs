//! Stores on the simulated disk, under a manual clock, without background threads: one seed is one run.

use std::sync::Arc;
use std::time::Duration;

use logmill_queue::{
    Error, Message, Queue, QueueConfig, Queues, QueuesOptions, ReceiveOptions, ReceivedMessage,
};
use logmill_storage::io::sim::{CrashPlan, SimDisk};
use logmill_storage::{Clock, DataDir, DataDirOptions, ManualClock};

pub const START: i64 = 1_700_000_000_000;

/// A store that can crash and be opened again.
pub struct Store {
    pub disk: SimDisk,
    pub clock: Arc<ManualClock>,
    options: QueuesOptions,
    queues: Option<Queues>,
    dir: Option<DataDir>,
}

impl Store {
    pub fn new() -> Store {
        Store::with(1, QueuesOptions::default())
    }

    pub fn with(seed: u64, options: QueuesOptions) -> Store {
        Store::on(SimDisk::new(seed), Arc::new(ManualClock::at(START)), options)
    }

    /// On a disk that may have a store already.
    pub fn on(disk: SimDisk, clock: Arc<ManualClock>, options: QueuesOptions) -> Store {
        let mut store = Store { disk, clock, options, queues: None, dir: None };
        store.open();
        store
    }

    /// What a new process on another machine finds, with the same bytes on its disk.
    pub fn fork(&self, seed: u64) -> Store {
        let clock = Arc::new(ManualClock::at(self.clock.wall_ms()));
        Store::on(self.disk.fork(seed), clock, self.options.clone())
    }

    /// On the system's clock and with background threads, for what waits.
    pub fn in_real_time() -> Store {
        Store::real(QueuesOptions::default())
    }

    fn real(options: QueuesOptions) -> Store {
        let clock = Arc::new(ManualClock::at(START));
        let disk = SimDisk::new(1);
        let dir = DataDirOptions::new().open_with(disk.io()).unwrap();
        let queues = Some(Queues::open(&dir, options.clone()).unwrap());
        Store { disk, clock, options, queues, dir: Some(dir) }
    }

    /// Receives the one message of a queue that permits one receive, and lets its timeout pass.
    pub fn reject_unsynced(&self, queue: &Queue) {
        receive_one(queue);
        self.pass(30_000);
    }

    fn open(&mut self) {
        self.try_open().unwrap();
    }

    /// Opens the store again, if the disk lets it.
    pub fn try_open(&mut self) -> Result<(), Error> {
        (self.queues, self.dir) = (None, None);
        let clock: Arc<ManualClock> = Arc::clone(&self.clock);
        let dir = DataDirOptions::new().threads(0).clock(clock).open_with(self.disk.io())?;
        self.queues = Some(Queues::open(&dir, self.options.clone())?);
        self.dir = Some(dir);
        Ok(())
    }

    pub fn queues(&self) -> &Queues {
        self.queues.as_ref().expect("an open store")
    }

    pub fn queue(&self, name: &str) -> Queue {
        self.queues().queue(name).unwrap()
    }

    pub fn create(&self, name: &str, config: QueueConfig) -> Queue {
        self.queues().create(name, &config).unwrap()
    }

    /// Closes the store cleanly and opens it again.
    pub fn reopen(&mut self) {
        self.close().unwrap();
        self.dir = None;
        self.open();
    }

    /// Closes the store, and leaves it closed.
    pub fn close(&mut self) -> Result<(), Error> {
        self.queues.take().expect("an open store").close()
    }

    /// kill -9, and a new process.
    pub fn kill(&mut self) {
        self.disk.kill();
        self.queues = None;
        self.dir = None;
        self.open();
    }

    /// Loss of power, and a new boot.
    pub fn crash(&mut self, plan: &CrashPlan) {
        self.disk.crash(plan);
        self.queues = None;
        self.dir = None;
        self.open();
    }

    pub fn pass(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
    }
}

pub fn send(queue: &Queue, body: &str) -> u64 {
    queue.send(&Message::new(body.as_bytes())).unwrap().sequence
}

pub fn receive(queue: &Queue, max: usize) -> Vec<ReceivedMessage> {
    queue.receive(&ReceiveOptions::new().max(max)).unwrap()
}

/// The bodies of what a receive gets.
pub fn bodies(queue: &Queue, max: usize) -> Vec<String> {
    receive(queue, max).iter().map(|message| text(message.body())).collect()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub fn receive_one(queue: &Queue) -> ReceivedMessage {
    receive(queue, 1).pop().expect("a message to receive")
}

pub fn none() -> Vec<String> {
    Vec::new()
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn send_each(queue: &Queue, bodies: &[&str]) {
    for body in bodies {
        send(queue, body);
    }
}
