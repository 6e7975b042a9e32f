//! The alphabet of queues, and its spelling in replay lines.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use logmill_queue::QueuesOptions;
use logmill_storage::{Durability, WritePath};

use crate::random::Random;

/// Small, so that a few messages fill a segment of the journal.
const SEGMENT_BYTES: u64 = 4 << 10;
const CHECKPOINT_BYTES: u64 = 64 << 10;

/// The variants of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSetup {
    /// Messages have groups, whose order holds.
    pub fifo: bool,
    /// Stores through a mapping, not positional writes.
    pub mapped: bool,
    /// Sends and deletes are stored only, not durable.
    pub buffered: bool,
}

impl QueueSetup {
    /// The variants of which all short workloads are tried.
    pub const PLAIN: [QueueSetup; 3] = [
        QueueSetup { fifo: false, mapped: false, buffered: false },
        QueueSetup { fifo: false, mapped: true, buffered: true },
        QueueSetup { fifo: true, mapped: true, buffered: false },
    ];

    /// Any variant.
    pub const fn random(random: &mut Random) -> QueueSetup {
        QueueSetup {
            fifo: random.once_in(3),
            mapped: random.once_in(2),
            buffered: random.once_in(3),
        }
    }

    pub(super) fn options(&self) -> QueuesOptions {
        QueuesOptions::default()
            .segment_bytes_max(SEGMENT_BYTES)
            .checkpoint_bytes(CHECKPOINT_BYTES)
            .spare_bytes(0)
            .write_path(if self.mapped { WritePath::Mapped } else { WritePath::Positional })
            .durability(if self.buffered { Durability::Buffered } else { Durability::Sync })
    }
}

impl fmt::Display for QueueSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.fifo { "queue+fifo" } else { "queue" })?;
        f.write_str(if self.mapped { "+mapped" } else { "+positional" })?;
        f.write_str(if self.buffered { "+buffered" } else { "+sync" })
    }
}

impl FromStr for QueueSetup {
    type Err = String;

    fn from_str(text: &str) -> Result<QueueSetup, String> {
        let mut setup = QueueSetup { fifo: false, mapped: false, buffered: false };
        let words = text.strip_prefix("queue").ok_or_else(|| format!("{text:?} is no queue"))?;
        for word in words.split('+').filter(|word| !word.is_empty()) {
            match word {
                "fifo" => setup.fifo = true,
                "mapped" => setup.mapped = true,
                "buffered" => setup.buffered = true,
                "positional" | "sync" => {}
                _ => return Err(format!("{word:?} says nothing about a queue")),
            }
        }
        Ok(setup)
    }
}

/// One step of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueOp {
    /// Send a small message.
    Send,
    /// Send one that takes a quarter of a segment.
    SendBig,
    /// Send three in one batch.
    SendThree,
    /// Send one that can be received later only, where the queue has that.
    SendLater,
    /// Receive one message.
    Take,
    /// Receive all that can be received.
    TakeAll,
    /// Delete with the receipt that was given last.
    Delete,
    /// Delete with all receipts that were given, in one batch.
    DeleteAll,
    /// Delete with the oldest receipt that was given, which may have lost its power.
    DeleteStale,
    /// Hide for longer what was received last.
    Hide,
    /// Give back what was received last.
    Release,
    /// Let half a visibility timeout pass.
    Pass,
    /// Let every visibility timeout and delay pass.
    Expire,
    /// Set the wall clock an hour back.
    ClockBack,
    /// Set the wall clock an hour ahead.
    ClockAhead,
    /// Write the state out.
    Checkpoint,
    /// Give back space of the journal.
    Reclaim,
    /// Let the background do what is due.
    Tick,
    /// Look at everything.
    Look,
    /// Let all timeouts pass, receive everything and delete it: each message comes exactly once.
    Drain,
    /// Close and open again.
    Close,
    /// Drop everything unclosed and open again.
    Drop,
    /// kill -9 and open again.
    Kill,
    /// Power loss and open again.
    PowerLoss(u64),
}

use QueueOp::{
    Checkpoint, ClockAhead, ClockBack, Close, Delete, DeleteAll, DeleteStale, Drain, Drop, Expire,
    Hide, Kill, Look, Pass, PowerLoss, Reclaim, Release, Send, SendBig, SendLater, SendThree, Take,
    TakeAll, Tick,
};

/// The small alphabet, from which all short sequences are made.
pub const SMALL: [QueueOp; 12] = [
    Send,
    SendBig,
    TakeAll,
    Delete,
    DeleteStale,
    Release,
    Expire,
    ClockBack,
    Checkpoint,
    Reclaim,
    Close,
    Kill,
];

const WORDS: [(QueueOp, &str); 23] = [
    (Send, "send"),
    (SendBig, "big"),
    (SendThree, "three"),
    (SendLater, "later"),
    (Take, "take"),
    (TakeAll, "takeall"),
    (Delete, "delete"),
    (DeleteAll, "deleteall"),
    (DeleteStale, "stale"),
    (Hide, "hide"),
    (Release, "release"),
    (Pass, "pass"),
    (Expire, "expire"),
    (ClockBack, "back"),
    (ClockAhead, "ahead"),
    (Checkpoint, "checkpoint"),
    (Reclaim, "reclaim"),
    (Tick, "tick"),
    (Look, "look"),
    (Drain, "drain"),
    (Close, "close"),
    (Drop, "drop"),
    (Kill, "kill"),
];

impl QueueOp {
    /// One of all operations, sends, receives and deletes most often.
    pub fn random(random: &mut Random) -> QueueOp {
        const OFTEN: [QueueOp; 12] = [
            Send,
            SendBig,
            SendBig,
            SendThree,
            SendLater,
            Take,
            Take,
            TakeAll,
            Delete,
            Delete,
            DeleteAll,
            DeleteStale,
        ];
        match random.below(40) {
            0..24 => random.pick(&OFTEN),
            24..38 => random.pick(&WORDS[9..]).0,
            _ => PowerLoss(random.below(10_000)),
        }
    }
}

impl fmt::Display for QueueOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, WORDS.iter().find(|(op, _)| op == self)) {
            (PowerLoss(seed), _) => write!(f, "power{seed}"),
            (_, Some((_, word))) => f.write_str(word),
            (_, None) => Err(fmt::Error),
        }
    }
}

impl FromStr for QueueOp {
    type Err = String;

    fn from_str(text: &str) -> Result<QueueOp, String> {
        let unknown = || format!("{text:?} is no operation of a queue");
        if let Some((op, _)) = WORDS.iter().find(|(_, word)| *word == text) {
            return Ok(*op);
        }
        let seed = text.strip_prefix("power").ok_or_else(unknown)?;
        seed.parse().map(PowerLoss).map_err(|_| unknown())
    }
}

/// How long a received message stays hidden.
pub const LEASE: Duration = Duration::from_secs(30);
/// Longer than every timeout and delay here.
pub const LONG: Duration = Duration::from_secs(100);
/// How far a wall clock jumps.
pub const JUMP: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_on_a_queue_is_read_as_it_is_written() {
        let mut random = Random::new(1);
        for _ in 0..1_000 {
            let op = QueueOp::random(&mut random);
            assert_eq!(op.to_string().parse(), Ok(op));
            let setup = QueueSetup::random(&mut random);
            assert_eq!(setup.to_string().parse(), Ok(setup));
        }
        assert!("powers".parse::<QueueOp>().is_err());
    }
}
