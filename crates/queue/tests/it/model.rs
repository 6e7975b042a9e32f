//! The queue against a plain in-memory one, through crashes, kills, reopens, checkpoints, the carrying of old segments, and
//! disks that fail at one call.
//!
//! Sends, deletes and the like are synced, leases are not. After a loss of power the queue must be as it was after some
//! call since the last synced one: the model keeps its states since then and the queue must show one of them. R17 to R21
//! of the contract follow: what was deleted is in none of these states, what was sent is in all, and a receipt whose
//! receive was forgotten is refused.
//!
//! A call that comes to an error has happened or not. One that a failing disk has spoilt ends with a kill or a loss of power,
//! and what the queue shows then decides; where only the background has failed, the queue may go on.

use std::collections::BTreeMap;

use logmill_queue::{
    Counts, Error, Message, MessageState, Queue, QueueConfig, QueuesOptions, Receipt,
    ReceiveOptions, Section,
};
use logmill_storage::io::sim::{CrashPlan, Fault};

use crate::store::{START, Store};
use std::time::Duration;

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

const LEASE: i64 = 1000;
const MAX_RECEIVES: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Ready,
    Delayed(i64),
    InFlight(i64),
    Dead,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    body: Vec<u8>,
    priority: u8,
    group: Option<String>,
    at: At,
    /// A nacked FIFO message that waits, with its group.
    holding: bool,
    place: u64,
    receives: u32,
    failed: u32,
    timed_out: u32,
    released: u32,
}

/// A plain queue: everything in one map, every question answered by looking at all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    fifo: bool,
    next: u64,
    now: i64,
    items: BTreeMap<u64, Item>,
}

impl Model {
    fn advance(&mut self, now: i64) {
        self.now = now;
        for item in self.items.values_mut() {
            match item.at {
                At::Delayed(until) if until <= now => {
                    item.at = At::Ready;
                    item.holding = false;
                }
                At::InFlight(until) if until <= now => {
                    item.at = At::Ready;
                    item.timed_out += 1;
                }
                _ => {}
            }
        }
    }

    fn locked(&self, group: &Option<String>) -> bool {
        self.fifo
            && self.items.values().any(|item| {
                item.group == *group && (matches!(item.at, At::InFlight(_)) || item.holding)
            })
    }

    /// What a receive of `max` returns, and what it finds dead on the way.
    fn plan(&self, max: usize) -> (Vec<u64>, Vec<u64>) {
        let mut ready: Vec<(u64, &Item)> = self
            .items
            .iter()
            .filter(|(_, item)| item.at == At::Ready && !self.locked(&item.group))
            .map(|(sequence, item)| (*sequence, item))
            .collect();
        if self.fifo {
            let mut first: BTreeMap<&Option<String>, u64> = BTreeMap::new();
            for (sequence, item) in &ready {
                first.entry(&item.group).or_insert(*sequence);
            }
            ready.sort_by_key(|(sequence, item)| (first[&item.group], *sequence));
        } else {
            ready.sort_by_key(|(sequence, item)| (255 - item.priority, item.place, *sequence));
        }
        let (mut taken, mut dead) = (Vec::new(), Vec::new());
        for (sequence, item) in ready {
            if taken.len() == max {
                break;
            }
            if item.receives >= MAX_RECEIVES { dead.push(sequence) } else { taken.push(sequence) }
        }
        (taken, dead)
    }

    fn receive(&mut self, max: usize, between: &mut Vec<Model>) -> Vec<u64> {
        // Those found dead make room for others behind them.
        loop {
            let (taken, dead) = self.plan(max);
            for sequence in &dead {
                self.items.get_mut(sequence).unwrap().at = At::Dead;
            }
            if !dead.is_empty() {
                // Their death is a batch of its own.
                between.push(self.clone());
                continue;
            }
            let (next, now, fifo) = (self.next, self.now, self.fifo);
            for sequence in &taken {
                let item = self.items.get_mut(sequence).unwrap();
                item.at = At::InFlight(now + LEASE);
                item.receives += 1;
                if item.receives >= 3 && !fifo {
                    item.place = next;
                }
            }
            return taken;
        }
    }

    fn counts(&self) -> [u64; 4] {
        let count = |wanted: fn(&At) -> bool| {
            self.items.values().filter(|item| wanted(&item.at)).count() as u64
        };
        [
            count(|at| *at == At::Ready),
            count(|at| matches!(at, At::Delayed(_))),
            count(|at| matches!(at, At::InFlight(_))),
            count(|at| *at == At::Dead),
        ]
    }
}

/// Body, priority, state, and counts of receives, failures, timeouts and releases.
type Shown = (String, u8, At, [u32; 4]);

fn short(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    format!("{} {}", body.len(), text.trim_start_matches('x'))
}

/// What the queue shows of itself.
fn observed(queue: &Queue) -> BTreeMap<u64, Shown> {
    let mut all = BTreeMap::new();
    for section in [Section::Ready, Section::Delayed, Section::InFlight, Section::Dead] {
        let mut after = 0;
        loop {
            let page = queue.page(section, after, 7).unwrap();
            let Some(last) = page.last() else { break };
            after = last.sequence();
            for message in page {
                let at = match message.state() {
                    MessageState::Ready => At::Ready,
                    MessageState::Delayed { until } => At::Delayed(until),
                    MessageState::InFlight { until } => At::InFlight(until),
                    MessageState::Dead => At::Dead,
                    _ => unreachable!(),
                };
                let past = message.history();
                let counts = [past.receives, past.failed, past.timed_out, past.released];
                let seen = (short(message.body()), message.priority(), at, counts);
                assert!(
                    all.insert(message.sequence(), seen).is_none(),
                    "one message in two sections"
                );
            }
        }
    }
    all
}

fn expected(model: &Model) -> BTreeMap<u64, Shown> {
    let show = |item: &Item| {
        let counts = [item.receives, item.failed, item.timed_out, item.released];
        (short(&item.body), item.priority, item.at, counts)
    };
    model.items.iter().map(|(sequence, item)| (*sequence, show(item))).collect()
}

/// A receipt that was given, and which receive it was.
#[derive(Clone, Copy, Debug)]
struct Given {
    receipt: Receipt,
    sequence: u64,
    generation: u32,
    /// Its receive was forgotten by a loss of power.
    forgotten: bool,
}

struct Run {
    random: Random,
    store: Store,
    model: Model,
    /// The model after each call since the last synced one, which comes first.
    since_sync: Vec<Model>,
    given: Vec<Given>,
    /// A call came to an error on a failing disk.
    unsure: bool,
    /// The disk has failed this process, and the cold part of the journal may be poisoned.
    has_failed: bool,
    tally: Tally,
}

/// What a run has met.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    crashes: u64,
    /// Receives that a loss of power has taken back.
    forgotten: u64,
    carried_bytes: u64,
    faults: u64,
    /// Errors that calls came to.
    failed_calls: u64,
    failed_rounds: u64,
    failed_opens: u64,
    /// Faults after which the queue went on.
    went_on: u64,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.crashes += other.crashes;
        self.forgotten += other.forgotten;
        self.carried_bytes += other.carried_bytes;
        self.faults += other.faults;
        self.failed_calls += other.failed_calls;
        self.failed_rounds += other.failed_rounds;
        self.failed_opens += other.failed_opens;
        self.went_on += other.went_on;
    }
}

impl Run {
    fn new(seed: u64) -> Run {
        let mut random = Random::new(seed);
        let fifo = random.below(3) == 0;
        let options = QueuesOptions::default()
            .segment_bytes_max(4 << 10)
            .spare_bytes(0)
            .checkpoint_bytes(1 << 20);
        let store = Store::with(seed, options);
        let config = if fifo {
            QueueConfig::fifo().content_deduplication(true)
        } else {
            QueueConfig::standard()
        };
        let name = if fifo { "q.fifo" } else { "q" };
        store.create(name, config.visibility_timeout(span(LEASE)).max_receives(MAX_RECEIVES));
        let model = Model { fifo, next: 1, now: START, items: BTreeMap::new() };
        Run {
            random,
            store,
            since_sync: vec![model.clone()],
            model,
            given: Vec::new(),
            unsure: false,
            has_failed: false,
            tally: Tally::default(),
        }
    }

    fn queue(&self) -> Queue {
        self.store.queue(if self.model.fifo { "q.fifo" } else { "q" })
    }

    fn synced(&mut self) {
        self.since_sync = vec![self.model.clone()];
    }

    fn unsynced(&mut self) {
        self.since_sync.push(self.model.clone());
    }

    fn step(&mut self) {
        match self.random.below(104) {
            100 => self.fail_a_call(),
            101..103 => self.fail_in_the_background(),
            103 => self.fail_to_open(),
            op => self.do_one(op),
        }
        let [ready, delayed, in_flight, dead] = self.model.counts();
        let Counts { ready: r, delayed: d, in_flight: f, dead: x, .. } =
            self.queue().counts().unwrap();
        assert_eq!([r, d, f, x], [ready, delayed, in_flight, dead]);
    }

    /// Has one of the next `calls` calls to the disk fail; how many have failed before, and how.
    fn arm(&mut self, calls: u64) -> (u64, Fault) {
        use Fault::{Eio, Emfile, Enospc, SyncEioDrop, SyncEioKeep, SyncEioRevert, SyncEioSome};
        let faults =
            [Eio, Eio, Eio, Enospc, Emfile, SyncEioDrop, SyncEioKeep, SyncEioRevert, SyncEioSome];
        let fault = faults[self.random.below(faults.len() as u64) as usize];
        let at = self.store.disk.ops().total() + self.random.below(calls);
        self.store.disk.fail_nth(at, fault);
        (self.store.disk.faults_fired(), fault)
    }

    fn is_spoilt(&self) -> bool {
        self.store.disk.faults_fired() > self.tally.faults
    }

    fn has_fired(&mut self, before: u64) -> bool {
        self.store.disk.heal();
        let fired = self.store.disk.faults_fired() - before;
        self.tally.faults += fired;
        self.has_failed |= fired > 0;
        fired > 0
    }

    /// A call while the disk fails once.
    fn fail_a_call(&mut self) {
        let (before, fault) = self.arm(4);
        let mut op = self.random.below(70);
        if fault == Fault::Enospc {
            // A receive goes on without the deaths that find no space: see space.rs.
            op = [0, 60][(op % 2) as usize];
        }
        self.do_one(op);
        let has_fired = self.has_fired(before);
        let failed = std::mem::take(&mut self.unsure);
        self.tally.failed_calls += u64::from(failed);
        // On a full disk a receive is kept in memory alone.
        if failed || has_fired && fault == Fault::Enospc {
            self.end_somehow();
        } else {
            self.go_on();
        }
    }

    /// What the background does while the disk fails once.
    fn fail_in_the_background(&mut self) {
        self.store.queues().tick();
        let (before, _) = self.arm(60);
        let queues = self.store.queues();
        let done = match self.random.below(6) {
            0 => queues.checkpoint(),
            1 => {
                queues.tick();
                Ok(())
            }
            _ => queues.reclaim(),
        };
        if !self.has_fired(before) {
            assert!(done.is_ok() || self.has_failed, "{done:?}");
            return;
        }
        self.tally.failed_rounds += u64::from(done.is_err());
        self.go_on();
    }

    /// Opens the store while the disk fails once, and then again.
    fn fail_to_open(&mut self) {
        self.store.disk.kill();
        let (before, _) = self.arm(60);
        let opened = self.store.try_open();
        if self.has_fired(before) && opened.is_err() {
            self.tally.failed_opens += 1;
            self.store.kill();
            self.resolve();
        } else {
            opened.unwrap();
            self.go_on();
        }
    }

    /// Goes on, if the journal is not poisoned.
    fn go_on(&mut self) {
        if self.queue().set_tags(&BTreeMap::new()).is_err() {
            return self.end_somehow();
        }
        self.tally.went_on += 1;
        self.synced();
        self.check();
    }

    fn end_somehow(&mut self) {
        if self.random.below(2) == 0 {
            return self.crash();
        }
        // What a failed sync has left in the cache is anybody's guess.
        self.store.kill();
        self.resolve();
    }

    fn failed(&mut self, after: Model) {
        self.since_sync.push(self.model.clone());
        self.since_sync.push(after);
        self.unsure = true;
    }

    fn do_one(&mut self, op: u64) {
        match op {
            0..28 => self.send(),
            28..55 => self.receive(),
            55..70 => self.delete(),
            70..75 => self.change_visibility(),
            75..80 => self.nack(),
            80..82 => self.edit(),
            82..84 => self.cancel(),
            84..90 => {
                let ms = self.random.below(LEASE as u64 * 3 / 2);
                self.store.pass(ms);
                self.model.advance(self.model.now + ms as i64);
                // What time does is no call, and follows in every earlier state by itself.
            }
            90..92 => self.crash(),
            92..94 => {
                self.store.kill();
                self.has_failed = false;
                self.check();
            }
            94..96 if !self.has_failed => {
                self.store.reopen();
                self.synced();
                self.check();
            }
            96..98 => {
                self.store.queues().checkpoint().unwrap();
                self.synced();
            }
            98 => {
                let done = self.store.queues().reclaim();
                assert!(done.is_ok() || self.has_failed, "{done:?}");
                self.check();
            }
            _ => {
                // A sealed segment is what can be carried.
                self.store.queues().tick();
                self.check();
            }
        }
    }

    fn send(&mut self) {
        let queue = self.queue();
        let (now, fifo, next) = (self.model.now, self.model.fifo, self.model.next);
        let len = 1 + self.random.below(300) as usize;
        let mut body = vec![b'x'; len];
        body.extend_from_slice(next.to_string().as_bytes());
        let group = fifo.then(|| format!("g{}", self.random.below(3)));
        let priority = if fifo { 0 } else { [0, 0, 0, 7, 200][self.random.below(5) as usize] };
        let delay = if !fifo && self.random.below(4) == 0 { self.random.below(2000) } else { 0 };
        let mut message = Message::new(&body).priority(priority).delay(span(delay as i64));
        if let Some(group) = &group {
            message = message.group(group);
        }
        let sent = queue.send(&message);
        let at = if delay > 0 { At::Delayed(now + delay as i64) } else { At::Ready };
        let item = Item {
            body,
            priority,
            group,
            at,
            holding: false,
            place: next,
            receives: 0,
            failed: 0,
            timed_out: 0,
            released: 0,
        };
        let mut after = self.model.clone();
        after.next += 1;
        after.items.insert(next, item);
        let Some(sent) = self.unless_spoilt(sent, &after) else { return };
        let sent = sent.unwrap();
        assert_eq!((sent.sequence, sent.duplicate), (next, false));
        self.model = after;
        self.synced();
    }

    /// What a call has returned; `None` if the disk has spoilt it, and `after` may have come of it.
    fn unless_spoilt<T>(
        &mut self,
        result: Result<T, Error>,
        after: &Model,
    ) -> Option<Result<T, Error>> {
        if matches!(result, Err(Error::Storage(_) | Error::Unreadable { .. })) && self.is_spoilt() {
            self.failed(after.clone());
            return None;
        }
        Some(result)
    }

    fn receive(&mut self) {
        let max = 1 + self.random.below(4) as usize;
        let got = self.queue().receive(&ReceiveOptions::new().max(max));
        let mut after = self.model.clone();
        let expected = after.receive(max, &mut self.since_sync);
        let Some(got) = self.unless_spoilt(got, &after) else { return };
        let got = got.unwrap();
        self.model = after;
        let mut expected = expected;
        if self.is_spoilt() && !self.model.fifo && !got.is_empty() {
            // Those that could not be read come again.
            expected.retain(|sequence| got.iter().any(|message| message.sequence() == *sequence));
        }
        assert_eq!(got.iter().map(|message| message.sequence()).collect::<Vec<_>>(), expected);
        for message in got {
            let item = &self.model.items[&message.sequence()];
            assert_eq!(
                (message.body(), message.receive_count()),
                (item.body.as_slice(), item.receives)
            );
            self.given.push(Given {
                receipt: *message.receipt(),
                sequence: message.sequence(),
                generation: item.receives,
                forgotten: false,
            });
        }
        self.unsynced();
    }

    fn some_receipt(&mut self) -> Option<Given> {
        // Mostly a recent one.
        let len = self.given.len() as u64;
        let back = self.random.below(10).min(self.random.below(len.max(1)));
        self.given.get(len.checked_sub(1 + back)? as usize).copied()
    }

    /// Whether a receipt is the latest of its message.
    fn is_latest(&self, given: &Given) -> bool {
        let item = self.model.items.get(&given.sequence);
        !given.forgotten
            && item.is_some_and(|item| item.receives == given.generation && item.at != At::Dead)
    }

    fn delete(&mut self) {
        let Some(given) = self.some_receipt() else { return };
        let result = self.queue().delete(&given.receipt);
        let mut after = self.model.clone();
        let latest = self.is_latest(&given);
        if let Some(item) = self.model.items.get(&given.sequence)
            && latest
            && (!self.model.fifo || matches!(item.at, At::InFlight(_)))
        {
            after.items.remove(&given.sequence);
        }
        let Some(result) = self.unless_spoilt(result, &after) else { return };
        let Some(item) = self.model.items.get(&given.sequence) else {
            return result.unwrap();
        };
        if !after.items.contains_key(&given.sequence) {
            result.unwrap();
            self.model = after;
            self.synced();
        } else {
            assert!(
                matches!(result, Err(Error::ReceiptHandleExpired { .. })),
                "{given:?} {item:?} {result:?}"
            );
        }
    }

    fn change_visibility(&mut self) {
        let Some(given) = self.some_receipt() else { return };
        let timeout = [0, 1, LEASE / 2, LEASE * 2][self.random.below(4) as usize];
        let result = self.queue().change_visibility(&given.receipt, span(timeout));
        let (latest, fifo, now) = (self.is_latest(&given), self.model.fifo, self.model.now);
        let Some(item) = self.model.items.get_mut(&given.sequence) else {
            assert!(matches!(result, Err(Error::MessageDoesNotExist { .. })));
            return;
        };
        match item.at {
            At::InFlight(_) if latest && timeout == 0 => {
                result.unwrap();
                item.at = At::Ready;
                item.released += 1;
            }
            At::InFlight(_) if latest => {
                result.unwrap();
                item.at = At::InFlight(now + timeout);
            }
            At::Ready if latest && !fifo => {
                result.unwrap();
                if timeout > 0 {
                    item.at = At::InFlight(now + timeout);
                }
            }
            _ => assert!(result.is_err()),
        }
        self.unsynced();
    }

    fn nack(&mut self) {
        let Some(given) = self.some_receipt() else { return };
        let delay = [0, 0, LEASE / 3][self.random.below(3) as usize];
        let released = self.random.below(3) == 0;
        let result = if released {
            self.queue().release(&given.receipt)
        } else {
            self.queue().nack_after(&given.receipt, span(delay), "it broke")
        };
        let (latest, fifo, now) = (self.is_latest(&given), self.model.fifo, self.model.now);
        let Some(item) = self.model.items.get_mut(&given.sequence) else {
            assert!(matches!(result, Err(Error::MessageDoesNotExist { .. })));
            return;
        };
        if latest && matches!(item.at, At::InFlight(_)) {
            result.unwrap();
            item.at = if delay > 0 && !released { At::Delayed(now + delay) } else { At::Ready };
            item.holding = fifo && item.at != At::Ready;
            if released { item.released += 1 } else { item.failed += 1 }
        } else {
            assert!(result.is_err());
        }
        self.unsynced();
    }

    fn some_sequence(&mut self) -> Option<u64> {
        let len = self.model.items.len() as u64;
        self.model.items.keys().nth(self.random.below(len.max(1)) as usize).copied()
    }

    fn edit(&mut self) {
        let Some(sequence) = self.some_sequence() else { return };
        let queue = self.queue();
        let id = queue.page(Section::Ready, sequence - 1, 1).unwrap();
        let Some(id) =
            id.first().filter(|message| message.sequence() == sequence).map(|message| message.id())
        else {
            return;
        };
        let body = format!("edited {sequence}").into_bytes();
        queue.edit(id, &logmill_queue::Edit::new().body(&body)).unwrap();
        self.model.items.get_mut(&sequence).unwrap().body = body;
        self.synced();
    }

    fn cancel(&mut self) {
        let Some(sequence) = self.some_sequence() else { return };
        let queue = self.queue();
        let section = match self.model.items[&sequence].at {
            At::Ready => Section::Ready,
            At::Delayed(_) => Section::Delayed,
            At::InFlight(_) => return,
            At::Dead => Section::Dead,
        };
        let id = queue.page(section, sequence - 1, 1).unwrap()[0].id();
        queue.cancel(id).unwrap();
        self.model.items.remove(&sequence);
        self.synced();
    }

    fn crash(&mut self) {
        self.tally.crashes += 1;
        let seed = self.random.next();
        self.store.crash(&CrashPlan::random(seed));
        self.resolve();
    }

    /// Finds out which of its possible states the queue is in.
    fn resolve(&mut self) {
        self.has_failed = false;
        let now = self.model.now;
        let seen = observed(&self.queue());
        let mut possible = self.since_sync.clone();
        possible.iter_mut().for_each(|model| model.advance(now));
        let Some(model) = possible.into_iter().rev().find(|model| expected(model) == seen) else {
            let mut states = String::new();
            for model in &self.since_sync {
                let mut model = model.clone();
                model.advance(now);
                states += &format!("\n{:?}", expected(&model));
            }
            panic!("after the crash the queue shows\n{seen:?}\nand its states were{states}");
        };
        self.model = model;
        for given in &mut self.given {
            let known = self.model.items.get(&given.sequence);
            if known.is_some_and(|item| item.receives < given.generation) && !given.forgotten {
                given.forgotten = true;
                self.tally.forgotten += 1;
            }
        }
        self.synced();
    }

    /// The queue shows what the model does.
    fn check(&mut self) {
        let seen = observed(&self.queue());
        assert_eq!(seen, expected(&self.model));
    }
}

fn span(ms: i64) -> Duration {
    Duration::from_millis(ms.unsigned_abs())
}

/// How many sequences: CI runs 20,000, a developer fewer.
fn sequences() -> u64 {
    std::env::var("LOGMILL_MODEL_SEQUENCES").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

#[test]
fn the_queue_is_what_a_plain_one_would_be_whatever_happens() {
    let first: u64 =
        std::env::var("LOGMILL_MODEL_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut tally = Tally::default();
    for seed in first..first + sequences() {
        let run = std::panic::catch_unwind(|| {
            let mut run = Run::new(seed);
            for _ in 0..120 {
                run.step();
            }
            run.check();
            run.tally.carried_bytes = run.store.queues().space().carried_bytes;
            run.tally
        });
        match run {
            Ok(one) => tally.add(one),
            Err(failure) => {
                eprintln!("LOGMILL_MODEL_SEED={seed} LOGMILL_MODEL_SEQUENCES=1 runs this again");
                std::panic::resume_unwind(failure);
            }
        }
    }
    println!("{tally:?}");
    if sequences() >= 300 {
        assert!(tally.crashes > 300 && tally.forgotten > 30, "{tally:?}");
        assert!(tally.carried_bytes > 10_000, "{tally:?}");
        assert!(tally.failed_calls > 30 && tally.failed_rounds > 30, "{tally:?}");
        assert!(tally.failed_opens > 30 && tally.went_on > 30, "{tally:?}");
    }
}
