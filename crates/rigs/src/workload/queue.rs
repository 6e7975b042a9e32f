//! Messages sent to a queue, received and deleted, with checkpoints and the journal's space given back in between.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use logmill::queue::{Queue, QueueConfig, Queues, QueuesOptions, ReceiveOptions, Section};
use logmill::storage::Durability;
use logmill::{Message, Receipt};
use logmill_torture::random::Random;

use super::{Level, Seen, Workload, dir, payload, refused};
use crate::history::{History, Moment, Violation};
use crate::tools::{Outcome, failed};

/// Longer than any run.
const VISIBILITY: Duration = Duration::from_secs(3600);

/// An operation that changes which messages there are.
#[derive(Debug)]
enum Change {
    Create,
    Send(std::ops::Range<u64>),
    Delete(Vec<u64>),
}

/// Sends and deletes.
#[derive(Debug, Default)]
pub struct Deletes {
    history: History,
    changes: Vec<Change>,
    sent: u64,
    held: Vec<(u64, Receipt)>,
}

fn open(store: &Path) -> logmill::queue::Result<Queues> {
    let options = QueuesOptions::default().segment_bytes_max(64 << 10).checkpoint_bytes(64 << 10);
    Queues::open(&dir(store)?, options)
}

fn number(body: &[u8]) -> Option<u64> {
    body.first_chunk().map(|id| u64::from_le_bytes(*id))
}

impl Deletes {
    fn begin(&mut self, change: Change, now: Moment) {
        self.history.begin(now);
        self.changes.push(change);
    }

    fn send(&mut self, queue: &Queue, random: &mut Random, now: &dyn Fn() -> Moment) -> Outcome {
        let ids = self.sent..self.sent + 1 + random.below(6);
        self.sent = ids.end;
        let bodies: Vec<_> = ids.clone().map(payload).collect();
        let messages: Vec<_> = bodies.iter().map(|body| Message::new(body)).collect();
        self.begin(Change::Send(ids), now());
        let sent = queue.send_batch(&messages).map_err(failed("send"))?;
        sent.into_iter().try_for_each(|sent| sent.map(|_| ())).map_err(failed("send"))
    }

    fn receive(&mut self, queue: &Queue, random: &mut Random) -> Outcome {
        let options =
            ReceiveOptions::new().max(1 + random.below(6) as usize).visibility_timeout(VISIBILITY);
        for message in queue.receive(&options).map_err(failed("receive"))? {
            let id = number(message.body()).ok_or("a message without a number")?;
            self.held.push((id, *message.receipt()));
        }
        Ok(())
    }

    /// Deletes some of what is held, in one batch.
    fn delete(&mut self, queue: &Queue, random: &mut Random, now: &dyn Fn() -> Moment) -> Outcome {
        let count = (1 + random.below(4) as usize).min(self.held.len());
        let mut ids = Vec::new();
        let mut receipts = Vec::new();
        for _ in 0..count {
            let (id, receipt) =
                self.held.swap_remove(random.below(self.held.len() as u64) as usize);
            ids.push(id);
            receipts.push(receipt);
        }
        self.begin(Change::Delete(ids), now());
        let deleted = queue.delete_batch(&receipts).map_err(failed("delete"))?;
        deleted.into_iter().collect::<Result<(), _>>().map_err(failed("delete"))
    }

    /// What is there after the first `count` changes; `None`: not even the queue.
    fn present(&self, count: usize) -> Option<BTreeSet<u64>> {
        let mut present = None::<BTreeSet<u64>>;
        for change in &self.changes[..count] {
            let set = present.get_or_insert_default();
            match change {
                Change::Create => {}
                Change::Send(ids) => set.extend(ids.clone()),
                Change::Delete(ids) => set.retain(|id| !ids.contains(id)),
            }
        }
        present
    }
}

impl Workload for Deletes {
    fn play(
        &mut self,
        store: &Path,
        operations: usize,
        level: Level,
        random: &mut Random,
        now: &dyn Fn() -> Moment,
    ) -> Outcome {
        let queues = open(store).map_err(failed("open"))?;
        let durability = if level == Level::Sync { Durability::Sync } else { Durability::Buffered };
        self.begin(Change::Create, now());
        let queue = queues
            .create("q", &QueueConfig::standard().durability(durability))
            .map_err(failed("create"))?;
        // Creating is durable at every level.
        self.history.acknowledge(1, now());
        for _ in 0..operations {
            match random.below(10) {
                0..4 => self.send(&queue, random, now)?,
                4..6 => self.receive(&queue, random)?,
                _ if self.held.is_empty() => self.receive(&queue, random)?,
                _ => self.delete(&queue, random, now)?,
            }
            if level != Level::Buffered {
                self.history.acknowledge(self.changes.len(), now());
            }
            if random.once_in(80) && level != Level::Lying {
                queues.checkpoint().map_err(failed("checkpoint"))?;
                queues.reclaim().map_err(failed("reclaim"))?;
            }
        }
        Ok(())
    }

    fn check(&self, store: &Path, moment: Moment) -> Result<Seen, Violation> {
        let legal = self.history.legal(moment);
        let queues = open(store).map_err(refused("open"))?;
        let found = match queues.queue("q") {
            Ok(queue) => Some(numbers(&queue)?),
            Err(logmill::queue::Error::QueueDoesNotExist { .. }) => None,
            Err(e) => return Err(refused("queue")(e)),
        };
        let outcome = legal.clone().rev().find(|count| self.present(*count) == found);
        let Some(count) = outcome else {
            return Err(self.differs(found, &legal));
        };
        let seen = Seen::new(count < *legal.end(), None);
        let Some(held) = found.map(|_| drain(&queues)).transpose()? else { return Ok(seen) };
        queues.close().map_err(refused("close"))?;
        let queues = open(store).map_err(refused("open again"))?;
        let left = numbers(&queues.queue("q").map_err(refused("queue"))?)?.len() as u64;
        if left == held {
            Ok(seen)
        } else {
            Err(Violation::Lost(format!(
                "{held} in flight, {left} there after all else was deleted"
            )))
        }
    }
}

impl Deletes {
    /// Says how what was found differs from what is acknowledged.
    fn differs(
        &self,
        found: Option<BTreeSet<u64>>,
        legal: &std::ops::RangeInclusive<usize>,
    ) -> Violation {
        let (least, most) = (self.present(*legal.start()), self.present(*legal.end()));
        let (Some(found), Some(least)) = (found, least) else {
            return Violation::Lost("the queue".to_owned());
        };
        let most = most.unwrap_or_default();
        let lost: Vec<_> = least.difference(&found).filter(|id| most.contains(id)).collect();
        let known: BTreeSet<_> = self.changes[..*legal.end()]
            .iter()
            .flat_map(|change| match change {
                Change::Send(ids) => ids.clone(),
                _ => 0..0,
            })
            .collect();
        let invented: Vec<_> = found.difference(&known).collect();
        if !invented.is_empty() {
            return Violation::Invented(format!("messages {invented:?}"));
        }
        let back: Vec<_> = found.difference(&least).filter(|id| !most.contains(id)).collect();
        Violation::Lost(format!(
            "messages {lost:?}; deleted ones that are back: {back:?}; {legal:?}"
        ))
    }
}

/// The numbers of all messages, whose order and bodies are checked.
fn numbers(queue: &Queue) -> Result<BTreeSet<u64>, Violation> {
    let mut all = Vec::new();
    for section in [Section::Ready, Section::Delayed, Section::InFlight, Section::Dead] {
        let mut after = 0;
        loop {
            let page = queue.page(section, after, 1000).map_err(refused("page"))?;
            let Some(last) = page.last() else { break };
            after = last.sequence();
            for message in page {
                let Some(id) = number(message.body()) else {
                    return Err(Violation::Invented("a message without a number".to_owned()));
                };
                if message.body() != payload(id) {
                    return Err(Violation::Invented(format!("other bytes in message {id}")));
                }
                all.push((message.sequence(), id));
            }
        }
    }
    all.sort_unstable();
    if let Some(pair) = all.windows(2).find(|pair| pair[0].1 >= pair[1].1) {
        return Err(Violation::Reordered(format!("{pair:?}")));
    }
    Ok(all.into_iter().map(|(_, id)| id).collect())
}

/// Receives and deletes everything that is not in flight; returns how many are.
fn drain(queues: &Queues) -> Result<u64, Violation> {
    let queue = queues.queue("q").map_err(refused("queue"))?;
    let held = queue.counts().map_err(refused("counts"))?.in_flight;
    loop {
        let options = ReceiveOptions::new().max(1000).visibility_timeout(VISIBILITY);
        let messages = queue.receive(&options).map_err(refused("receive"))?;
        if messages.is_empty() {
            return Ok(held);
        }
        let receipts: Vec<_> = messages.iter().map(|message| *message.receipt()).collect();
        for deleted in queue.delete_batch(&receipts).map_err(refused("delete"))? {
            deleted.map_err(refused("delete"))?;
        }
    }
}
