//! What is measured.

use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use logmill::{
    AppendOptions, Clock, Durability, Message, Partition, QueueConfig, ReceiveOptions, Record,
    Store, TopicConfig,
};

use super::{Measured, histogram};
use crate::failure::{Failure, Outcome};

const BATCH: u64 = 100;
/// As many as SQS takes at a time.
const QUEUE_BATCH: usize = 10;
const TOPIC: &str = "bench";

pub(super) struct Bench<'a> {
    pub clock: &'a dyn Clock,
    pub store: &'a Store,
    pub value: &'a [u8],
    pub threads: u32,
}

impl Bench<'_> {
    fn ns_since(&self, then: Duration) -> u64 {
        let took = self.clock.monotonic().saturating_sub(then);
        u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
    }

    fn bytes(&self, records: u64) -> u64 {
        records * self.value.len() as u64
    }

    fn topic(&self, name: &str, durability: Durability) -> Outcome<Partition> {
        let config = TopicConfig::new().partitions(1).durability(durability);
        Ok(self.store.create_topic(name, config)?.partition(0)?)
    }

    pub fn append(&self, records: u64) -> Outcome<Measured> {
        let partition = self.topic(TOPIC, Durability::Buffered)?;
        Measured::of("append", "batch of 100", self.clock, |latency| {
            let batch = vec![Record::value(self.value); BATCH as usize];
            let batches = records.div_ceil(BATCH);
            for _ in 0..batches {
                let before = self.clock.monotonic();
                partition.append_batch(&batch)?;
                latency.saturating_record(self.ns_since(before));
            }
            Ok((batches * BATCH, self.bytes(batches * BATCH)))
        })
    }

    pub fn scan(&self) -> Outcome<Measured> {
        let partition = self.store.topic(TOPIC)?.partition(0)?;
        Measured::of("scan", "batch of 100", self.clock, |latency| {
            let mut reader = partition.reader(0)?;
            let (mut records, mut bytes) = (0, 0);
            loop {
                let before = self.clock.monotonic();
                let Some(batch) = reader.next_batch()? else { return Ok((records, bytes)) };
                for record in batch.records().flatten() {
                    records += 1;
                    bytes += record.value.map_or(0, <[u8]>::len) as u64;
                }
                latency.saturating_record(self.ns_since(before));
            }
        })
    }

    pub fn sync(&self, records: u64) -> Outcome<Measured> {
        let partition = self.topic("bench-sync", Durability::Sync)?;
        let each = records.div_ceil(u64::from(self.threads));
        Measured::of("sync", "record", self.clock, |latency| {
            self.on_threads(latency, |_, latency| {
                for _ in 0..each {
                    let before = self.clock.monotonic();
                    self.append_synced(&partition)?;
                    latency.saturating_record(self.ns_since(before));
                }
                Ok(())
            })?;
            let records = each * u64::from(self.threads);
            Ok((records, self.bytes(records)))
        })
    }

    pub fn latency(&self, rate: u32, time: Duration) -> Outcome<Measured> {
        let partition = self.topic("bench-latency", Durability::Sync)?;
        let total = u128::from(rate) * time.as_millis() / 1_000;
        let total = u32::try_from(total).unwrap_or(u32::MAX).max(1);
        let begin = self.clock.monotonic();
        Measured::of("latency", "record at its rate", self.clock, |latency| {
            self.on_threads(latency, |thread, latency| {
                for n in (thread..total).step_by(self.threads as usize) {
                    let due = begin + Duration::from_secs(1) * n / rate;
                    self.wait_until(due);
                    self.append_synced(&partition)?;
                    // From when it was due: what came late because of the one before it counts in full.
                    latency.saturating_record(self.ns_since(due));
                }
                Ok(())
            })?;
            Ok((total.into(), self.bytes(total.into())))
        })
    }

    pub fn queue(&self, messages: u64) -> Outcome<Measured> {
        let queue = self.store.create_queue("bench", &QueueConfig::standard())?;
        let failed = |e: logmill::queue::Error| Failure::from(logmill::Error::from(e));
        Measured::of("queue", "send, receive, delete 10", self.clock, |latency| {
            let batch = vec![Message::new(self.value); QUEUE_BATCH];
            let options = ReceiveOptions::new().max(QUEUE_BATCH);
            let cycles = messages.div_ceil(QUEUE_BATCH as u64);
            for _ in 0..cycles {
                let before = self.clock.monotonic();
                for sent in queue.send_batch(&batch).map_err(failed)? {
                    sent.map_err(failed)?;
                }
                let received = queue.receive(&options).map_err(failed)?;
                let receipts: Vec<_> = received.iter().map(|message| *message.receipt()).collect();
                for deleted in queue.delete_batch(&receipts).map_err(failed)? {
                    deleted.map_err(failed)?;
                }
                latency.saturating_record(self.ns_since(before));
            }
            let messages = cycles * QUEUE_BATCH as u64;
            Ok((messages, self.bytes(messages)))
        })
    }

    fn append_synced(&self, partition: &Partition) -> Outcome {
        let options =
            AppendOptions { durability: Some(Durability::Sync), ..AppendOptions::default() };
        partition.append_with(&[Record::value(self.value)], &options)?;
        Ok(())
    }

    /// Runs `work` on every thread, with the thread's number, and adds up the latencies.
    #[expect(clippy::disallowed_methods, reason = "one thread for each writer")]
    fn on_threads(
        &self,
        latency: &mut Histogram<u64>,
        work: impl Fn(u32, &mut Histogram<u64>) -> Outcome + Sync,
    ) -> Outcome {
        let sum = Mutex::new(Ok(histogram()?));
        thread::scope(|scope| {
            for thread in 0..self.threads {
                let (work, sum) = (&work, &sum);
                scope.spawn(move || {
                    let own = histogram().and_then(|mut own| work(thread, &mut own).map(|()| own));
                    let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    match own {
                        Ok(own) => {
                            if let Ok(sum) = sum.as_mut() {
                                // The same bounds, so it fits.
                                let _ = sum.add(own);
                            }
                        }
                        Err(failure) => *sum = Err(failure),
                    }
                });
            }
        });
        *latency = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)?;
        Ok(())
    }

    fn wait_until(&self, due: Duration) {
        while let Some(left) = due.checked_sub(self.clock.monotonic()).filter(|d| !d.is_zero()) {
            thread::park_timeout(left);
        }
    }
}
