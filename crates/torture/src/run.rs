//! Runs a workload on a simulated machine, and keeps account of what it was promised.

use std::sync::Arc;
use std::time::Duration;

use logmill_storage::io::sim::{CrashPlan, SimDisk};
use logmill_storage::{Error, ManualClock, Reader, Ticket, Visibility};

use crate::check;
use crate::op::{Level, Op, Shape};
use crate::oracle::{End, Oracle, Slot};
use crate::setup::Setup;
use crate::store::Store;
use crate::world::Halt;

/// When all machines are started.
pub const WALL_MS: i64 = 1_700_000_000_000;

/// A machine, its store, and what the store has promised.
#[derive(Debug)]
pub struct Machine {
    /// The disk.
    pub disk: SimDisk,
    /// What kind of store.
    pub setup: Setup,
    /// What was promised.
    pub oracle: Oracle,
    /// A call has failed that may have left bytes behind, so what was only stored is no longer sure.
    pub doubtful: bool,
    /// Records that compaction has removed.
    pub removed: u64,
    clock: Arc<ManualClock>,
    session: Option<Session>,
    follower: Option<Store>,
}

#[derive(Debug)]
struct Session {
    tickets: Vec<(Ticket, u64)>,
    tail: Option<Reader>,
    store: Store,
}

impl Machine {
    /// A machine that is off, with this disk.
    pub fn new(disk: SimDisk, setup: Setup, oracle: Oracle) -> Machine {
        let clock = Arc::new(ManualClock::at(WALL_MS));
        Machine {
            disk,
            setup,
            oracle,
            doubtful: false,
            removed: 0,
            clock,
            session: None,
            follower: None,
        }
    }

    /// A machine whose store was made and closed, without records unless they are for compaction.
    pub fn fresh(setup: Setup, seed: u64) -> Result<Machine, Halt> {
        let mut machine = Machine::new(SimDisk::new(seed), setup, Oracle::default());
        machine.start(End::Closed)?;
        // Of many keys there is more than one record, in segments that can be compacted.
        for _ in 0..if setup.keyed { 6 } else { 0 } {
            machine.run(Op::Append(Level::Buffered, Shape::Three))?;
        }
        machine.shut()?;
        Ok(machine)
    }

    /// The same machine again, off, and with its own disk.
    pub fn copy(&self, seed: u64) -> Machine {
        let mut copy = Machine::new(self.disk.fork(seed), self.setup, self.oracle.clone());
        copy.doubtful = self.doubtful;
        copy
    }

    /// Whether a store is open.
    pub const fn is_open(&self) -> bool {
        self.session.is_some()
    }

    /// The open store.
    pub fn store(&self) -> Result<&Store, Halt> {
        self.session
            .as_ref()
            .map(|session| &session.store)
            .ok_or_else(|| Halt::Broken("no store is open".into()))
    }

    fn alive(&self) -> Result<(), Halt> {
        if self.disk.is_stopped() { Err(Halt::Cut) } else { Ok(()) }
    }

    /// What the engine has answered, if it counts.
    fn heard<T>(&self, answer: Result<T, Error>) -> Result<T, Halt> {
        self.alive()?;
        answer.map_err(Halt::Refused)
    }

    /// Opens the store and compares what is there with what was promised before the last session ended `how`.
    pub fn start(&mut self, how: End) -> Result<check::Found, Halt> {
        let opened = Store::open(self.disk.io(), &self.setup, &self.clock);
        let store = self.heard(opened)?;
        // What a compaction that failed has left behind, an open looks through as after a crash.
        let how = match how {
            End::Closed if self.setup.keyed && self.disk.faults_fired() > 0 => End::Process,
            how => how,
        };
        let found = check::recovered(&store, &self.oracle, how);
        self.alive()?;
        let found = found?;
        let checkpoint = check::checkpoint(&store, &self.oracle);
        if self.disk.faults_fired() == 0 {
            checkpoint?;
        } else {
            // One that cannot be read is as good as none.
            self.oracle.checkpoint = 0;
        }
        self.oracle.settle(found.start, found.end, found.epoch);
        self.doubtful = false;
        self.session = Some(Session { tickets: Vec::new(), tail: None, store });
        Ok(found)
    }

    /// Opens what is on the disk as a process that only reads; `None` if there is no store.
    pub fn try_follow(&self) -> Result<Option<Store>, Halt> {
        match Store::follow(self.disk.io(), &self.setup, &self.clock) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(None)
            }
            opened => self.heard(opened).map(Some),
        }
    }

    /// Closes the store.
    pub fn shut(&mut self) -> Result<(), Halt> {
        let Some(Session { store, tickets, tail }) = self.session.take() else { return Ok(()) };
        drop((tickets, tail));
        let closed = store.close();
        self.heard(closed)?;
        let end = self.oracle.end();
        self.oracle.promise_durable(end)?;
        Ok(())
    }

    /// The process dies, with all that it had open; the disk stays as it is.
    pub fn kill(&mut self) {
        self.disk.kill();
        self.session = None;
        self.follower = None;
    }

    /// The power goes.
    pub fn crash(&mut self, plan: &CrashPlan) {
        self.disk.crash(plan);
        self.session = None;
        self.follower = None;
    }

    /// How the store was left if its process dies now.
    pub const fn dead(&self) -> End {
        if self.doubtful { End::Failure } else { End::Process }
    }

    /// Runs one operation. A refusal leaves the account as it must be then.
    pub fn run(&mut self, op: Op) -> Result<(), Halt> {
        let done = self.perform(op);
        self.alive()?;
        // What the background could not do is told by nobody but the log's end.
        let failed = done.is_err() || (op == Op::Tick && self.disk.faults_fired() > 0);
        if failed && let Some(session) = &self.session {
            // What the engine has taken back, it may give again.
            let end = session.store.log().end_offset();
            if end < self.oracle.end() {
                if end < self.oracle.stored && !self.doubtful {
                    return Err(Halt::Broken(format!(
                        "after {op} the log ends at {end}, and {} was promised",
                        self.oracle.stored
                    )));
                }
                self.oracle.forget_from(end);
            }
        }
        done?;
        self.observe()
    }

    /// What the store says of itself binds it.
    fn observe(&mut self) -> Result<(), Halt> {
        let Some(session) = &self.session else { return Ok(()) };
        let log = session.store.log();
        let (durable, high, end) = (log.durable_offset(), log.high_watermark(), log.end_offset());
        if end != self.oracle.end() {
            return Err(Halt::Broken(format!("ends at {end}, not at {}", self.oracle.end())));
        }
        self.oracle.promise_durable(durable)?;
        if self.setup.buffered {
            self.oracle.promise_stored(high)?;
        } else if high > durable {
            return Err(Halt::Broken(format!("shows {high}, and only {durable} is durable")));
        }
        Ok(())
    }

    fn perform(&mut self, op: Op) -> Result<(), Halt> {
        match op {
            Op::Append(level, shape) => self.append(level, shape),
            Op::Submit(shape) => self.submit(shape),
            Op::Retry => self.retry(),
            Op::Wait => self.wait(),
            Op::Sync => {
                let end = self.oracle.end();
                let synced = self.store()?.log().sync();
                let durable = self.heard(synced)?;
                if durable < end {
                    return Err(Halt::Broken(format!("sync said {durable}, not {end}")));
                }
                Ok(self.oracle.promise_durable(durable)?)
            }
            Op::Roll => {
                let rolled = self.store()?.log().roll();
                self.heard(rolled)
            }
            Op::Settle => {
                let end = self.oracle.end();
                let settled = self.store()?.log().settle();
                self.heard(settled)?;
                Ok(self.oracle.promise_durable(end)?)
            }
            Op::Tick => {
                self.clock.advance(Duration::from_millis(500));
                self.store()?.tick();
                self.alive()
            }
            Op::DeleteHalf => {
                let offset = self.oracle.start + (self.oracle.end() - self.oracle.start) / 2;
                self.delete(offset)
            }
            Op::DeleteAll => self.delete(self.oracle.end()),
            Op::Compact if self.setup.keyed => {
                let compacted = self.store()?.log().compact();
                let report = self.heard(compacted)?;
                self.removed += report.records_removed;
                Ok(())
            }
            Op::Checkpoint if self.setup.journal => self.checkpoint(),
            Op::Compact | Op::Checkpoint => Ok(()),
            Op::Read => self.read(),
            Op::Follow => self.follow(),
            Op::Close => {
                self.shut()?;
                self.start(End::Closed).map(|_| ())
            }
            Op::Drop => {
                let how = self.dead();
                self.session = None;
                self.start(how).map(|_| ())
            }
            Op::Kill => {
                let how = self.dead();
                self.kill();
                self.start(how).map(|_| ())
            }
            Op::PowerLoss(seed) => {
                let how = if self.doubtful { End::Failure } else { End::Power };
                self.crash(&CrashPlan::random(seed));
                self.start(how).map(|_| ())
            }
        }
    }

    /// Offsets for a batch of this shape.
    fn begin(&mut self, shape: Shape) -> (Vec<Slot>, Option<i32>) {
        let lens: &[u32] = match shape {
            Shape::One => &[40],
            Shape::Three => &[400; 3],
            Shape::Frames => &[450; 4],
            Shape::Large => &[1000; 6],
            Shape::Idempotent => &[60; 2],
        };
        let first = (shape == Shape::Idempotent).then(|| {
            let known = self.oracle.last_sequence(self.oracle.end());
            known.map_or(0, |(last, _)| last + 1)
        });
        let slots = self.oracle.begin(lens, first.map(|first| first + lens.len() as i32 - 1));
        (slots, first)
    }

    fn append(&mut self, level: Level, shape: Shape) -> Result<(), Halt> {
        let from = self.oracle.end();
        let (slots, first) = self.begin(shape);
        let answer = self.store()?.append(&slots, level, first);
        let appended = self.heard(answer)?;
        let end = from + slots.len() as u64;
        if appended.duplicate || (appended.base_offset, appended.last_offset + 1) != (from, end) {
            return Err(Halt::Broken(format!("{from}..{end} expected, {appended:?} given")));
        }
        self.oracle.acknowledge(from, end, appended.epoch)?;
        match level {
            Level::Sync => self.oracle.promise_durable(end)?,
            Level::Buffered | Level::Interval => self.oracle.promise_stored(end)?,
        }
        Ok(())
    }

    fn submit(&mut self, shape: Shape) -> Result<(), Halt> {
        let (slots, first) = self.begin(shape);
        let answer = self.store()?.submit(&slots, first);
        let ticket = self.heard(answer)?;
        let end = self.oracle.end();
        if ticket.offsets().last_offset + 1 != end {
            return Err(Halt::Broken(format!("{end} expected, {:?} given", ticket.offsets())));
        }
        if let Some(session) = &mut self.session {
            session.tickets.push((ticket, end));
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), Halt> {
        let Some(session) = &mut self.session else { return Ok(()) };
        for (ticket, end) in std::mem::take(&mut session.tickets) {
            let answer = ticket.wait();
            let appended = self.heard(answer)?;
            self.oracle.acknowledge(appended.base_offset, end, appended.epoch)?;
            self.oracle.promise_durable(end)?;
        }
        Ok(())
    }

    /// The producer's last batch again: it must not be appended a second time.
    fn retry(&mut self) -> Result<(), Halt> {
        let end = self.oracle.end();
        let Some((last, at)) = self.oracle.last_sequence(end) else { return Ok(()) };
        if at < self.oracle.start {
            return Ok(());
        }
        let from = at - 1;
        let slots = self.oracle.slots[from as usize..=at as usize].to_vec();
        let answer = self.store()?.append(&slots, Level::Sync, Some(last - 1));
        let appended = self.heard(answer)?;
        if !appended.duplicate || (appended.base_offset, appended.last_offset) != (from, at) {
            return Err(Halt::Broken(format!("a retry of {from}..={at} became {appended:?}")));
        }
        Ok(self.oracle.promise_durable(at + 1)?)
    }

    fn checkpoint(&mut self) -> Result<(), Halt> {
        let Some(journal) = self.store()?.journal() else { return Ok(()) };
        let reach = journal.reach();
        let state = check::checkpoint_state(reach.hot);
        let written = journal.checkpoint(check::CHECKPOINT_OWNER, reach, &state);
        self.heard(written)?;
        self.oracle.checkpoint = reach.hot;
        Ok(self.oracle.promise_durable(reach.hot)?)
    }

    fn delete(&mut self, offset: u64) -> Result<(), Halt> {
        self.oracle.start_max = self.oracle.start_max.max(offset);
        let answer = self.store()?.log().delete_records_before(offset);
        let start = self.heard(answer)?;
        if start < offset {
            return Err(Halt::Broken(format!("deleted up to {start}, not to {offset}")));
        }
        self.oracle.start = start;
        Ok(())
    }

    fn read(&mut self) -> Result<(), Halt> {
        let store = self.store()?;
        let (start, high) = (store.log().start_offset(), store.log().high_watermark());
        let read = check::contents(store, &self.oracle, Visibility::Level, start, high);
        self.alive()?;
        read?;
        let Some(session) = &mut self.session else { return Ok(()) };
        let fits = |tail: &Reader| tail.position() >= start;
        let tail = match session.tail.take().filter(fits) {
            Some(tail) => Ok(tail),
            None => session.store.log().reader(start),
        };
        let mut tail = self.heard(tail)?;
        loop {
            let at = tail.position();
            let batch = tail.next_batch();
            let batch = if self.disk.is_stopped() { return Err(Halt::Cut) } else { batch };
            let Some(batch) = batch.map_err(Halt::Refused)? else { break };
            if batch.base_offset() > at && !self.setup.keyed {
                return Err(Halt::Broken(format!("the tail jumps from {at}")));
            }
            for record in batch.records() {
                let record = record.map_err(|what| format!("decoding: {what}"))?;
                self.oracle.check(record.offset, record.value.unwrap_or(&[]))?;
            }
        }
        if tail.position() != high {
            return Err(Halt::Broken(format!("the tail ends at {}, not {high}", tail.position())));
        }
        if let Some(session) = &mut self.session {
            session.tail = Some(tail);
        }
        Ok(())
    }

    /// A reader in another process: it writes nothing, and sees nothing that can be taken back.
    fn follow(&mut self) -> Result<(), Halt> {
        let before = self.disk.change_points().len();
        let follower = match self.follower.take() {
            Some(follower) => {
                let refreshed = follower.log().refresh();
                self.heard(refreshed)?;
                follower
            }
            None => {
                let opened = Store::follow(self.disk.io(), &self.setup, &self.clock);
                self.heard(opened)?
            }
        };
        let (start, high) = (follower.log().start_offset(), follower.log().high_watermark());
        let read = check::contents(&follower, &self.oracle, Visibility::Level, start, high);
        self.alive()?;
        read.map_err(|what| format!("a follower: {what}"))?;
        if self.disk.change_points().len() > before {
            return Err(Halt::Broken("a follower has written".into()));
        }
        // It sees what the log's level calls done, as a reader beside the writer does.
        if self.setup.buffered {
            self.oracle.promise_stored(high)?;
        } else {
            self.oracle.promise_durable(high)?;
        }
        self.follower = Some(follower);
        Ok(())
    }
}
