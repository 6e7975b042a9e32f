//! Queues on a simulated machine, and an account of what they have promised: R17 to R21.
//!
//! Sends, deletes and changes are one history. After a crash the queue is as it was after some call since the last one that
//! was made durable: what was deleted is in none of these states, what was sent is in all. A receipt whose receive was
//! forgotten, or that was followed by another receive, has no power.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use logmill_queue::{
    Error as QueueError, Message, MessageState, Queue, QueueConfig, Queues, Receipt,
    ReceiveOptions, ReceivedMessage, Section,
};
use logmill_storage::io::sim::{CrashPlan, SimDisk};
use logmill_storage::{Clock, DataDirOptions, Error, Journal, ManualClock, Part};

use crate::counts::Counts;
use crate::examine::Looks;
use crate::oracle::{End, payload};
use crate::random::Random;
use crate::run::WALL_MS;
use crate::world::{Book, Halt, World};

mod model;
mod op;

pub use model::{At, Change, Item, Model};
pub use op::{QueueOp, QueueSetup, SMALL};

use op::{JUMP, LEASE, LONG};

const GROUPS: [&str; 3] = ["a", "b", "c"];
const SMALL_LEN: u32 = 40;
const BIG_LEN: u32 = 900;

/// A receipt that was given.
#[derive(Clone, Copy, Debug)]
struct Given {
    receipt: Receipt,
    id: u64,
    /// Which receive of the message it was.
    receives: u32,
    /// The queue was opened without that receive, or without the message, whose number may since be another's.
    forgotten: bool,
}

/// What the queue has promised.
#[derive(Clone, Debug)]
struct Account {
    /// The states after each call since the last one that was made durable, which comes first. Never none.
    past: Vec<Model>,
    /// What a call that has not answered makes of the last of them.
    pending: Option<Change>,
    /// What calls may have made, and nobody can see: of the state with that place in `past`, and of all that follow it.
    maybe: Vec<(usize, Change)>,
    given: Vec<Given>,
    created: bool,
    next_id: u64,
    /// The wall clock has jumped, so that nobody knows what time the queue has.
    jumped: bool,
    /// Received while the disk refused to note it.
    loose: BTreeSet<u64>,
    doubtful: bool,
    /// What a refused call has done cannot be seen: only the next opening tells.
    lost_track: bool,
    acks: u64,
    /// Receipts that were refused since they had lost their power.
    stale: u64,
    carried: u64,
}

/// A machine with a queue.
#[derive(Debug)]
pub struct QueueMachine {
    disk: SimDisk,
    setup: QueueSetup,
    clock: Arc<ManualClock>,
    account: Account,
    session: Option<Session>,
}

#[derive(Debug)]
struct Session {
    queue: Option<Queue>,
    queues: Queues,
    journal: Journal,
}

/// What was found when the queue was opened.
#[derive(Debug)]
pub struct QueueFound {
    seen: Model,
    /// Whether moments mean something.
    timed: bool,
}

impl Account {
    fn now(&self) -> &Model {
        self.past.last().unwrap_or_else(|| unreachable!("a queue has a state"))
    }

    /// The queue is so since a call that has answered.
    fn push(&mut self, model: Model) {
        self.past.push(model);
        self.pending = None;
        self.acks += 1;
    }

    /// All calls so far are durable.
    fn sync(&mut self) {
        self.past.drain(..self.past.len() - 1);
        match self.lost_track {
            true => self.maybe.iter_mut().for_each(|(since, _)| *since = 0),
            false => self.maybe.clear(),
        }
    }

    /// Whether the call that was refused has done what it was asked to is not known.
    fn doubt_pending(&mut self) {
        let last = self.past.len() - 1;
        self.maybe.extend(self.pending.take().map(|change| (last, change)));
    }

    /// What the queue that looks like `seen` may be, if every state before `first` is over: each of the others, with what
    /// refused calls have made of it as far as it shows.
    fn possible(&self, first: usize, seen: &Model, now: Option<i64>) -> Vec<Model> {
        let last = self.past.len() - 1;
        let pending = self.pending.iter().map(|change| (last, change));
        let maybe: Vec<_> =
            self.maybe.iter().map(|(since, change)| (*since, change)).chain(pending).collect();
        let followed = |(at, state): (usize, &Model)| {
            let mut state = state.clone();
            for (_, change) in maybe.iter().filter(|(since, _)| *since <= at) {
                state.follow(change, seen, now);
            }
            state
        };
        self.past.iter().enumerate().skip(first).map(followed).collect()
    }
}

impl QueueMachine {
    fn with(disk: SimDisk, setup: QueueSetup, clock: Arc<ManualClock>, account: Account) -> Self {
        QueueMachine { disk, setup, clock, account, session: None }
    }

    fn session(&self) -> Result<&Session, Halt> {
        self.session.as_ref().ok_or_else(|| Halt::Broken("no store is open".into()))
    }

    fn queue(&self) -> Result<&Queue, Halt> {
        let queue = self.session()?.queue.as_ref();
        queue.ok_or_else(|| Halt::Broken("no queue was made".into()))
    }

    /// What the engine has answered, if it counts.
    fn heard<T>(&self, answer: Result<T, Error>) -> Result<T, Halt> {
        if self.disk.is_stopped() { Err(Halt::Cut) } else { answer.map_err(Halt::Refused) }
    }

    fn told<T>(&self, answer: logmill_queue::Result<T>) -> Result<T, Halt> {
        match answer {
            _ if self.disk.is_stopped() => Err(Halt::Cut),
            Ok(told) => Ok(told),
            Err(QueueError::Storage(e)) => Err(Halt::Refused(e)),
            Err(QueueError::Unreadable { source, .. }) => self.told(Err(*source)),
            Err(e) => Err(Halt::Broken(e.to_string())),
        }
    }

    /// The queue's time, if it can be known.
    fn now(&self) -> Option<i64> {
        (!self.account.jumped).then(|| self.clock.wall_ms())
    }

    fn until(&self, span: Duration) -> i64 {
        self.clock.wall_ms() + i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
    }

    fn open(&mut self, how: End) -> Result<QueueFound, Halt> {
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
        let dir = DataDirOptions::new().threads(0).clock(clock).open_with(self.disk.io());
        let dir = self.heard(dir)?;
        let options = self.setup.options();
        let journal = self.heard(Journal::open(&dir, "0", options.journal_config()))?;
        let queues = self.told(Queues::open_on(&dir, &journal, options))?;
        let name = if self.setup.fifo { "q.fifo" } else { "q" };
        let queue = match queues.queue(name) {
            Err(QueueError::QueueDoesNotExist { .. }) if !self.account.created => None,
            queue => Some(self.told(queue)?),
        };
        self.session = Some(Session { queue, queues, journal });
        let seen = if self.session()?.queue.is_some() { self.look()? } else { Model::default() };
        self.settle_after(how, &seen)?;
        if self.session()?.queue.is_none() {
            let config = match self.setup.fifo {
                true => QueueConfig::fifo().content_deduplication(true),
                false => QueueConfig::standard(),
            };
            let config = config.visibility_timeout(LEASE);
            let made = self.session()?.queues.create(name, &config);
            let made = self.told(made)?;
            self.account.created = true;
            self.account.acks += 1;
            if let Some(session) = &mut self.session {
                session.queue = Some(made);
            }
        }
        Ok(QueueFound { seen, timed: !self.account.jumped })
    }

    /// Everything in the queue, its bodies checked, in the order in which it was sent.
    fn look(&self) -> Result<Model, Halt> {
        let queue = self.queue()?;
        let mut seen = Model::default();
        for section in [Section::Ready, Section::Delayed, Section::InFlight, Section::Dead] {
            for message in self.told(queue.page(section, 0, 1000))? {
                let id = id_of(message.body())?;
                let group = message.group().and_then(|g| GROUPS.iter().position(|name| *name == g));
                let at = match message.state() {
                    MessageState::Ready => At::Ready,
                    MessageState::Delayed { until } => At::Later(until),
                    MessageState::InFlight { until } => At::Taken(until),
                    other => return Err(Halt::Broken(format!("message {id} is {other:?}"))),
                };
                let item = Item {
                    sequence: message.sequence(),
                    len: message.body().len() as u32,
                    group: group.unwrap_or(0) as u8,
                    at,
                    receives: message.receive_count(),
                };
                if seen.0.insert(id, item).is_some() {
                    return Err(Halt::Broken(format!("message {id} is there twice")));
                }
            }
        }
        let mut last = 0;
        for (id, item) in &seen.0 {
            if item.sequence <= last {
                return Err(Halt::Broken(format!("message {id} is out of order")));
            }
            last = item.sequence;
        }
        Ok(seen)
    }

    /// The state that the queue was opened in is one that it may be in; from now on it is the only one.
    fn settle_after(&mut self, how: End, seen: &Model) -> Result<(), Halt> {
        let now = self.now();
        let account = &mut self.account;
        let first = match how {
            End::Closed | End::Process => account.past.len() - 1,
            End::Power | End::Failure => 0,
        };
        let possible = account.possible(first, seen, now);
        let mut differs = Vec::new();
        for model in possible.iter().rev() {
            match model.differs(seen, now, &account.loose) {
                None => {
                    account.past = vec![seen.clone()];
                    account.pending = None;
                    account.maybe.clear();
                    account.loose.clear();
                    account.doubtful = false;
                    account.lost_track = false;
                    for given in &mut account.given {
                        let item = seen.0.get(&given.id);
                        given.forgotten |= item.is_none_or(|item| item.receives < given.receives);
                    }
                    return Ok(());
                }
                Some(what) => differs.push(what),
            }
        }
        Err(Halt::Broken(format!(
            "the queue is as it was after none of {} calls ({how:?}): {}",
            possible.len(),
            differs.join("; ")
        )))
    }

    /// After a refusal: what has become of the call?
    fn settle_pending(&mut self) -> Result<(), Halt> {
        let Some(pending) = self.account.pending.clone() else { return Ok(()) };
        if self.account.lost_track {
            self.account.doubt_pending();
            return Ok(());
        }
        let seen = match self.look() {
            // Bodies that were never durable may be gone from the cache, and with them the answer.
            Err(Halt::Refused(_)) if self.account.doubtful => {
                self.account.lost_track = true;
                self.account.doubt_pending();
                return Ok(());
            }
            seen => seen?,
        };
        let now = self.now();
        let before = self.account.now();
        let mut after = before.clone();
        after.follow(&pending, &seen, now);
        let is_receive = matches!(pending, Change::Take { .. });
        let taken: Vec<u64> =
            after.0.keys().copied().filter(|id| after.0.get(id) != before.0.get(id)).collect();
        if is_receive {
            let receivable = now.map(|now| before.receivable(self.setup.fifo, now));
            let out_of_turn = |id: &&u64| receivable.as_ref().is_some_and(|all| !all.contains(id));
            if let Some(id) = taken.iter().find(out_of_turn) {
                return Err(Halt::Broken(format!(
                    "message {id} was taken out of turn, and refused"
                )));
            }
            // Nobody was told of it, and it may not have been noted: a crash may forget it. Until then it counts.
            self.account.loose.extend(&taken);
        }
        let is_made = is_receive && !taken.is_empty();
        let loose = &self.account.loose;
        if !is_made && self.account.now().differs(&seen, now, loose).is_none() {
            // What is not there now may come back, if the write or the sync of it failed half-way.
            match self.account.doubtful {
                true => self.account.doubt_pending(),
                false => self.account.pending = None,
            }
        } else if let Some(what) = after.differs(&seen, now, loose) {
            return Err(Halt::Broken(format!("after a refusal: {what}")));
        } else {
            // Of a receive the account knows all that there is to know, and the queue may only say which messages it took.
            self.account.past.push(if is_receive { after } else { seen });
            self.account.pending = None;
        }
        Ok(())
    }

    fn perform(&mut self, op: QueueOp) -> Result<(), Halt> {
        match op {
            QueueOp::Send => self.send(&[SMALL_LEN], Duration::ZERO),
            QueueOp::SendBig => self.send(&[BIG_LEN], Duration::ZERO),
            QueueOp::SendThree => self.send(&[SMALL_LEN; 3], Duration::ZERO),
            QueueOp::SendLater if self.setup.fifo => self.send(&[SMALL_LEN], Duration::ZERO),
            QueueOp::SendLater => self.send(&[SMALL_LEN], LEASE / 2),
            QueueOp::Take => self.take(1).map(|_| ()),
            QueueOp::TakeAll => self.take(100).map(|_| ()),
            QueueOp::Delete => self.delete_one(self.account.given.len().checked_sub(1)),
            QueueOp::DeleteStale => self.delete_one(Some(0)),
            QueueOp::DeleteAll => self.delete_all(),
            QueueOp::Hide => self.change_visibility(LEASE * 2),
            QueueOp::Release => self.change_visibility(Duration::ZERO),
            QueueOp::Pass => {
                self.clock.advance(LEASE / 2);
                Ok(())
            }
            QueueOp::Expire => {
                self.clock.advance(LONG);
                Ok(())
            }
            QueueOp::ClockBack => {
                self.jump(-1);
                Ok(())
            }
            QueueOp::ClockAhead => {
                self.jump(1);
                Ok(())
            }
            QueueOp::Checkpoint => {
                let written = self.session()?.queues.checkpoint();
                self.told(written)?;
                self.account.sync();
                Ok(())
            }
            QueueOp::Reclaim => {
                let Session { queues, journal, .. } = self.session()?;
                let done = journal.reclaim(&[&*queues.owner()]);
                let done = self.heard(done)?;
                self.session()?.queues.note_reclaimed(&done);
                self.account.carried += done.carried_bytes;
                Ok(())
            }
            QueueOp::Tick => {
                self.session()?.queues.tick();
                Ok(())
            }
            QueueOp::Look => self.compare_with_account(),
            QueueOp::Drain => self.drain(),
            QueueOp::Close => {
                self.shut()?;
                self.start(End::Closed).map(|_| ())
            }
            QueueOp::Drop => {
                let how = self.dead();
                self.session = None;
                self.start(how).map(|_| ())
            }
            QueueOp::Kill => {
                let how = self.dead();
                self.kill();
                self.start(how).map(|_| ())
            }
            QueueOp::PowerLoss(seed) => {
                let how = if self.account.doubtful { End::Failure } else { End::Power };
                self.crash(&CrashPlan::random(seed));
                self.start(how).map(|_| ())
            }
        }
    }

    const fn dead(&self) -> End {
        if self.account.doubtful { End::Failure } else { End::Process }
    }

    fn jump(&mut self, hours: i64) {
        let jump = i64::try_from(JUMP.as_millis()).unwrap_or(0);
        self.clock.set_wall_ms(self.clock.wall_ms() + hours * jump);
        self.account.jumped = true;
    }

    fn compare_with_account(&self) -> Result<(), Halt> {
        let seen = self.look()?;
        match self.account.now().differs(&seen, self.now(), &self.account.loose) {
            Some(what) => Err(Halt::Broken(what)),
            None => Ok(()),
        }
    }

    fn send(&mut self, lens: &[u32], delay: Duration) -> Result<(), Halt> {
        let first = self.account.next_id + 1;
        self.account.next_id += lens.len() as u64;
        let at = if delay.is_zero() { At::Ready } else { At::Later(self.until(delay)) };
        let item = |(id, len): (u64, &u32)| {
            let group = if self.setup.fifo { (id % 3) as u8 } else { 0 };
            (id, Item { sequence: 0, len: *len, group, at, receives: 0 })
        };
        let items: Vec<_> = (first..).zip(lens).map(item).collect();
        let mut after = self.account.now().clone();
        after.0.extend(items.iter().copied());
        self.account.pending = Some(Change::Add(items));
        let bodies: Vec<_> = (first..).zip(lens).map(|(id, len)| payload(id, *len)).collect();
        let message = |(id, body)| {
            let message = Message::new(body).delay(delay);
            if self.setup.fifo { message.group(GROUPS[(id % 3) as usize]) } else { message }
        };
        let messages: Vec<_> =
            (first..).zip(bodies.iter().map(Vec::as_slice)).map(message).collect();
        let sent = match &messages[..] {
            [message] => self.queue()?.send(message).map(|sent| vec![Ok(sent)]),
            many => self.queue()?.send_batch(many),
        };
        for (id, sent) in (first..).zip(self.told(sent)?) {
            let sent = self.told(sent)?;
            let last = self.account.now().0.values().map(|item| item.sequence).max().unwrap_or(0);
            if sent.duplicate || sent.sequence <= last {
                return Err(Halt::Broken(format!("message {id} was sent as {sent:?}")));
            }
            if let Some(item) = after.0.get_mut(&id) {
                item.sequence = sent.sequence;
            }
        }
        self.account.push(after);
        self.durable_unless_buffered();
        Ok(())
    }

    fn durable_unless_buffered(&mut self) {
        if !self.setup.buffered {
            self.account.sync();
        }
    }

    fn take(&mut self, max: usize) -> Result<Vec<(u64, Receipt)>, Halt> {
        let until = self.until(LEASE);
        self.account.pending = Some(Change::Take { max, until });
        let fired = self.disk.faults_fired();
        let taken = self.queue()?.receive(&ReceiveOptions::new().max(max));
        let taken: Vec<ReceivedMessage> = self.told(taken)?;
        let healthy = self.disk.faults_fired() == 0;
        let mut after = self.account.now().clone();
        let (mut receipts, mut given) = (Vec::new(), Vec::new());
        let receivable = self.now().map(|now| after.receivable(self.setup.fifo, now));
        for message in &taken {
            let id = id_of(message.body())?;
            let unexpected = receivable.as_ref().is_some_and(|all| !all.contains(&id));
            let Some(item) = after.0.get_mut(&id).filter(|_| !unexpected) else {
                return Err(Halt::Broken(format!("message {id} was received out of turn")));
            };
            item.receives += 1;
            item.at = At::Taken(until);
            if message.receive_count() != item.receives {
                let count = message.receive_count();
                return Err(Halt::Broken(format!("receive {count} of message {id}: {item:?}")));
            }
            receipts.push((id, *message.receipt()));
            given.push(Given {
                receipt: *message.receipt(),
                id,
                receives: item.receives,
                forgotten: false,
            });
        }
        if let Some(all) = receivable.filter(|_| healthy)
            && taken.len() != all.len().min(max)
        {
            let taken: Vec<_> = receipts.iter().map(|(id, _)| id).collect();
            return Err(Halt::Broken(format!("{all:?} can be received, {taken:?} were")));
        }
        self.in_order(&receipts)?;
        if self.disk.faults_fired() > fired {
            // What could not be noted is forgotten by a crash; what could not be read was taken, and not handed out.
            self.account.loose.extend(after.0.keys().copied());
        }
        if self.account.jumped {
            // When their turn ends is a matter of the queue's own time.
            after = self.look()?;
        }
        self.account.push(after);
        self.account.given.extend(given);
        Ok(receipts)
    }

    /// In a FIFO queue the messages of a group come in order.
    fn in_order(&self, taken: &[(u64, Receipt)]) -> Result<(), Halt> {
        let group = |id: &u64| id % 3;
        for (at, (id, _)) in taken.iter().enumerate().filter(|_| self.setup.fifo) {
            if let Some((later, _)) =
                taken[..at].iter().find(|(other, _)| group(other) == group(id) && other > id)
            {
                return Err(Halt::Broken(format!("message {id} was received after {later}")));
            }
        }
        Ok(())
    }

    /// Whether a receipt is the one of the latest receive of its message, and has power.
    fn has_power(&self, given: &Given) -> Option<bool> {
        let item = self.account.now().0.get(&given.id)?;
        let latest = !given.forgotten && item.receives == given.receives;
        let taken = match (item.at, self.now()) {
            _ if !self.setup.fifo => true,
            (At::Taken(until), Some(now)) => until > now,
            (At::Taken(_), None) => return if latest { None } else { Some(false) },
            _ => false,
        };
        Some(latest && taken)
    }

    fn delete_one(&mut self, at: Option<usize>) -> Result<(), Halt> {
        let Some(given) = at.and_then(|at| self.account.given.get(at).copied()) else {
            return Ok(());
        };
        let before = self.account.now().clone();
        let mut after = before.clone();
        after.0.remove(&given.id);
        let power = self.has_power(&given);
        if power != Some(false) {
            self.account.pending = Some(Change::Remove(vec![given.id]));
        }
        let deleted = self.queue()?.delete(&given.receipt);
        match deleted {
            Err(QueueError::ReceiptHandleExpired { .. })
                if power != Some(true) && (given.forgotten || before.0.contains_key(&given.id)) =>
            {
                self.account.pending = None;
                self.account.stale += 1;
                return if self.disk.is_stopped() { Err(Halt::Cut) } else { Ok(()) };
            }
            Ok(()) if power == Some(false) && !self.disk.is_stopped() => {
                return Err(Halt::Broken(format!(
                    "a receipt without power has deleted message {}",
                    given.id
                )));
            }
            other => self.told(other)?,
        }
        self.account.push(after);
        self.durable_unless_buffered();
        Ok(())
    }

    fn delete_all(&mut self) -> Result<(), Halt> {
        let given = std::mem::take(&mut self.account.given);
        let (mut with, mut receipts) = (Vec::new(), Vec::new());
        let mut after = self.account.now().clone();
        for given in &given {
            // The others are for `DeleteStale`.
            if self.has_power(given) == Some(true) && after.0.remove(&given.id).is_some() {
                receipts.push(given.receipt);
                with.push(given.id);
            }
        }
        self.account.given = given;
        if receipts.is_empty() {
            return Ok(());
        }
        self.account.pending = Some(Change::Remove(with.clone()));
        let deleted = self.queue()?.delete_batch(&receipts);
        for (id, deleted) in with.iter().zip(self.told(deleted)?) {
            match deleted {
                Err(QueueError::ReceiptHandleExpired { .. }) => {
                    return Err(Halt::Broken(format!("the receipt of message {id} was refused")));
                }
                other => self.told(other)?,
            }
        }
        self.account.push(after);
        self.durable_unless_buffered();
        Ok(())
    }

    fn change_visibility(&mut self, timeout: Duration) -> Result<(), Halt> {
        let Some(given) = self.account.given.last().copied() else { return Ok(()) };
        let before = self.account.now().clone();
        let mut after = before.clone();
        let at = if timeout.is_zero() { At::Ready } else { At::Taken(self.until(timeout)) };
        if let Some(item) = after.0.get_mut(&given.id) {
            item.at = at;
        }
        self.account.pending = Some(Change::Place(given.id, at));
        let fired = self.disk.faults_fired();
        match self.queue()?.change_visibility(&given.receipt, timeout) {
            Err(
                QueueError::ReceiptHandleExpired { .. }
                | QueueError::MessageDoesNotExist { .. }
                | QueueError::MessageNotInflight { .. },
            ) if !self.disk.is_stopped() => {
                let has_power = self.has_power(&given) == Some(true);
                let taken = before.0.get(&given.id).is_some_and(|item| {
                    matches!((item.at, self.now()), (At::Taken(until), Some(now)) if until > now)
                });
                self.account.pending = None;
                return if has_power && taken {
                    Err(Halt::Broken(format!("the lease of message {} is not known", given.id)))
                } else {
                    Ok(())
                };
            }
            changed => self.told(changed)?,
        }
        if self.has_power(&given) == Some(false) {
            return Err(Halt::Broken(format!(
                "a receipt without power has hidden or shown message {}",
                given.id
            )));
        }
        if self.disk.faults_fired() > fired {
            self.account.loose.insert(given.id);
        }
        if self.account.jumped {
            after = self.look()?;
        }
        self.account.push(after);
        Ok(())
    }

    /// R17 and R18: what is there comes, once and in order of its group; what is not never does.
    fn drain(&mut self) -> Result<(), Halt> {
        let mut left: BTreeSet<u64> = self.account.now().0.keys().copied().collect();
        self.clock.advance(LONG);
        loop {
            let taken = self.take(100)?;
            if taken.is_empty() {
                break;
            }
            for (id, _) in &taken {
                if !left.remove(id) {
                    return Err(Halt::Broken(format!("message {id} was delivered again")));
                }
            }
            let mut after = self.account.now().clone();
            for (id, _) in &taken {
                after.0.remove(id);
            }
            self.account.pending = Some(Change::Remove(taken.iter().map(|(id, _)| *id).collect()));
            let receipts: Vec<Receipt> = taken.into_iter().map(|(_, receipt)| receipt).collect();
            let deleted = self.queue()?.delete_batch(&receipts);
            for deleted in self.told(deleted)? {
                self.told(deleted)?;
            }
            self.account.push(after);
            self.durable_unless_buffered();
        }
        match left.first() {
            Some(id) => Err(Halt::Broken(format!(
                "message {id} is never delivered: {:?}",
                self.look()?.0.get(id)
            ))),
            None => Ok(()),
        }
    }

    fn shut(&mut self) -> Result<(), Halt> {
        let Some(Session { queue, queues, journal }) = self.session.take() else { return Ok(()) };
        drop(queue);
        self.told(queues.close())?;
        self.heard(journal.close())?;
        self.account.sync();
        Ok(())
    }
}

/// The number in a body, all of which is checked.
fn id_of(body: &[u8]) -> Result<u64, Halt> {
    let id = body.first_chunk().map(|id| u64::from_le_bytes(*id));
    match id {
        Some(id) if body == payload(id, body.len() as u32) => Ok(id),
        _ => Err(Halt::Broken(format!("a body of {} bytes that nobody sent", body.len()))),
    }
}

impl World for QueueMachine {
    type Setup = QueueSetup;
    type Op = QueueOp;
    type Found = QueueFound;

    const PROBE: QueueOp = QueueOp::Send;
    const LOOK: QueueOp = QueueOp::Look;
    const GOES_ON: &'static [QueueOp] = &[
        QueueOp::DeleteStale,
        QueueOp::SendBig,
        QueueOp::TakeAll,
        QueueOp::Delete,
        QueueOp::Reclaim,
        QueueOp::Drain,
        QueueOp::SendThree,
    ];
    const DERIVED: &'static [&'static str] =
        &[".index", ".time", ".producers", "/live", "/checkpoint-2"];

    fn books() -> Vec<Book<QueueMachine>> {
        vec![Book { name: "queue", setups: &QueueSetup::PLAIN, letters: &SMALL, share: 200 }]
    }

    fn random_setup(random: &mut Random) -> QueueSetup {
        QueueSetup::random(random)
    }

    fn random_op(random: &mut Random) -> QueueOp {
        QueueOp::random(random)
    }

    fn empty(setup: QueueSetup, seed: u64) -> QueueMachine {
        let account = Account {
            past: vec![Model::default()],
            pending: None,
            maybe: Vec::new(),
            given: Vec::new(),
            created: false,
            next_id: 0,
            jumped: false,
            loose: BTreeSet::new(),
            doubtful: false,
            lost_track: false,
            acks: 0,
            stale: 0,
            carried: 0,
        };
        let clock = Arc::new(ManualClock::at(WALL_MS));
        QueueMachine::with(SimDisk::new(seed), setup, clock, account)
    }

    /// Three segments of the journal hold little that lives, so that giving back space has to carry it.
    fn fresh(setup: QueueSetup, seed: u64) -> Result<QueueMachine, Halt> {
        let mut machine = QueueMachine::empty(setup, seed);
        machine.start(End::Closed)?;
        machine.run(QueueOp::Send)?;
        machine.run(QueueOp::Take)?;
        machine.run(QueueOp::Hide)?;
        machine.run(QueueOp::SendThree)?;
        for _ in 0..9 {
            machine.run(QueueOp::SendBig)?;
        }
        machine.run(QueueOp::TakeAll)?;
        // All but the first four, oldest last.
        let given = machine.account.given.clone();
        machine.account.given.retain(|given| given.id > 4);
        machine.run(QueueOp::DeleteAll)?;
        machine.account.given = given;
        machine.account.given.retain(|given| given.id <= 4);
        machine.run(QueueOp::Tick)?;
        machine.shut()?;
        Ok(machine)
    }

    fn copy(&self, seed: u64) -> QueueMachine {
        let clock = Arc::new(ManualClock::at(self.clock.wall_ms()));
        QueueMachine::with(self.disk.fork(seed), self.setup, clock, self.account.clone())
    }

    fn take_account_of(&mut self, earlier: &QueueMachine) {
        self.account = earlier.account.clone();
    }

    fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn setup(&self) -> QueueSetup {
        self.setup
    }

    fn tally(&self, counts: &mut Counts) {
        counts.acks += self.account.acks;
        counts.stale += self.account.stale;
        counts.carried += self.account.carried;
    }

    fn promises(&self) -> String {
        format!("{:?}", self.account)
    }

    fn start(&mut self, how: End) -> Result<QueueFound, Halt> {
        let opened = self.open(how);
        if opened.is_err() {
            self.session = None;
        }
        opened
    }

    fn run(&mut self, op: QueueOp) -> Result<(), Halt> {
        self.settle_pending()?;
        if self.account.lost_track && op != QueueMachine::PROBE {
            return Ok(());
        }
        self.perform(op)?;
        if self.disk.is_stopped() { Err(Halt::Cut) } else { Ok(()) }
    }

    fn is_open(&self) -> bool {
        self.session.is_some()
    }

    fn kill(&mut self) {
        self.disk.kill();
        self.session = None;
    }

    fn crash(&mut self, plan: &CrashPlan) {
        self.disk.crash(plan);
        self.session = None;
    }

    fn note(&self, open: &QueueMachine, found: &QueueFound, counts: &mut Counts) {
        counts.lossy += u64::from(found.seen != *self.account.now());
        if let Ok(session) = open.session() {
            counts.note(session.journal.part(Part::Hot).recovery());
        }
    }

    fn same(first: &QueueFound, second: &QueueFound) -> bool {
        let whats = |found: &QueueFound| -> Vec<_> {
            let all = found.seen.0.iter();
            all.map(|(id, item)| (*id, item.sequence, item.receives)).collect()
        };
        if first.timed && second.timed {
            first.seen == second.seen
        } else {
            whats(first) == whats(second)
        }
    }

    fn compare(
        &self,
        _: End,
        _: &QueueMachine,
        _: &QueueFound,
        _: Looks,
        _: u64,
        _: &mut Counts,
    ) -> Result<(), String> {
        Ok(())
    }

    fn stripped(&mut self) {}

    fn doubt(&mut self) {
        self.account.doubtful = true;
    }

    fn is_doubtful(&self) -> bool {
        self.account.doubtful
    }

    /// A cache that a failed sync has emptied may have forgotten bodies that are not durable.
    fn may_forget(&self, op: QueueOp) -> bool {
        self.account.pending.is_some() || matches!(op, QueueOp::Look | QueueOp::Drain)
    }

    fn answers_late(_: QueueSetup) -> bool {
        true
    }
}
