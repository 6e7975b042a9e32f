//! The alphabet: everything that a workload may do to a store, and its spelling in replay lines.

use std::fmt;
use std::str::FromStr;

use crate::random::Random;

/// What an append asks to have done before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Durable.
    Sync,
    /// Stored.
    Buffered,
    /// Stored, and durable 200 ms later.
    Interval,
}

/// What is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One small record.
    One,
    /// A batch of three records, a third of a small segment.
    Three,
    /// A batch that is cut into several frames.
    Frames,
    /// A batch that is larger than a segment.
    Large,
    /// A batch of an idempotent producer.
    Idempotent,
}

/// One step of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Append and wait for the acknowledgement.
    Append(Level, Shape),
    /// Append, durably, and do not wait.
    Submit(Shape),
    /// Wait for everything that was submitted.
    Wait,
    /// The last batch of the idempotent producer once more.
    Retry,
    /// Make everything durable.
    Sync,
    /// End the active segment.
    Roll,
    /// Do now what the background does in time.
    Settle,
    /// Let half a second pass, and the background do what is due.
    Tick,
    /// Remove the older half.
    DeleteHalf,
    /// Remove everything.
    DeleteAll,
    /// Of each key leave the latest record, in what is sealed.
    Compact,
    /// Write a checkpoint of the journal.
    Checkpoint,
    /// Read everything that is visible, and go on reading where the last tail read has ended.
    Read,
    /// A reader in another process looks.
    Follow,
    /// Close and open again.
    Close,
    /// Drop everything unclosed and open again.
    Drop,
    /// kill -9 and open again.
    Kill,
    /// Power loss and open again.
    PowerLoss(u64),
}

use Level::{Buffered, Interval, Sync};
use Shape::{Frames, Idempotent, Large, One, Three};

/// The small alphabet, from which all short sequences are made.
pub const SMALL: [Op; 12] = [
    Op::Append(Sync, One),
    Op::Append(Buffered, Three),
    Op::Append(Sync, Frames),
    Op::Submit(Three),
    Op::Append(Buffered, Idempotent),
    Op::Sync,
    Op::Roll,
    Op::Tick,
    Op::DeleteHalf,
    Op::DeleteAll,
    Op::Close,
    Op::Kill,
];

/// The alphabet of a log that is compacted by key.
pub const COMPACTING: [Op; 8] = [
    Op::Append(Sync, One),
    Op::Append(Buffered, Three),
    Op::Append(Buffered, Idempotent),
    Op::Settle,
    Op::Roll,
    Op::Compact,
    Op::DeleteHalf,
    Op::Kill,
];

/// The alphabet of a journal.
pub const JOURNALING: [Op; 9] = [
    Op::Append(Sync, Three),
    Op::Append(Buffered, Frames),
    Op::Submit(Large),
    Op::Checkpoint,
    Op::Sync,
    Op::Roll,
    Op::DeleteHalf,
    Op::Close,
    Op::Kill,
];

impl Op {
    /// One of all operations, appends most often.
    pub fn random(random: &mut Random) -> Op {
        const SHAPES: [Shape; 8] = [One, One, One, Three, Three, Frames, Large, Idempotent];
        let shape = random.pick(&SHAPES);
        match random.below(36) {
            0..=4 => Op::Append(Sync, shape),
            5..=9 => Op::Append(Buffered, shape),
            10 => Op::Append(Interval, shape),
            11..=13 => Op::Submit(shape),
            14 => Op::Wait,
            15 => Op::Retry,
            16 | 17 => Op::Sync,
            18 => Op::Roll,
            19 => Op::Settle,
            20 | 21 => Op::Tick,
            22 => Op::DeleteHalf,
            23 => Op::DeleteAll,
            24 => Op::Read,
            25 | 26 => Op::Follow,
            27 => Op::Close,
            28 => Op::Drop,
            29 => Op::Kill,
            30 | 31 => Op::Compact,
            32 => Op::Checkpoint,
            _ => Op::PowerLoss(random.below(10_000)),
        }
    }

    /// Whether it can put records into the log.
    pub const fn appends(self) -> bool {
        matches!(self, Op::Append(..) | Op::Submit(_))
    }
}

impl Shape {
    const fn letter(self) -> char {
        match self {
            One => '1',
            Three => '3',
            Frames => 'f',
            Large => 'l',
            Idempotent => 'i',
        }
    }

    fn parse(text: &str) -> Option<Shape> {
        [One, Three, Frames, Large, Idempotent]
            .into_iter()
            .find(|shape| text.chars().eq([shape.letter()]))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Append(Sync, shape) => write!(f, "s{}", shape.letter()),
            Op::Append(Buffered, shape) => write!(f, "b{}", shape.letter()),
            Op::Append(Interval, shape) => write!(f, "v{}", shape.letter()),
            Op::Submit(shape) => write!(f, "u{}", shape.letter()),
            Op::PowerLoss(seed) => write!(f, "power{seed}"),
            Op::Wait => f.write_str("wait"),
            Op::Retry => f.write_str("retry"),
            Op::Sync => f.write_str("sync"),
            Op::Roll => f.write_str("roll"),
            Op::Settle => f.write_str("settle"),
            Op::Tick => f.write_str("tick"),
            Op::DeleteHalf => f.write_str("half"),
            Op::DeleteAll => f.write_str("all"),
            Op::Compact => f.write_str("compact"),
            Op::Checkpoint => f.write_str("checkpoint"),
            Op::Read => f.write_str("read"),
            Op::Follow => f.write_str("follow"),
            Op::Close => f.write_str("close"),
            Op::Drop => f.write_str("drop"),
            Op::Kill => f.write_str("kill"),
        }
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(text: &str) -> Result<Op, String> {
        const WORDS: [Op; 15] = [
            Op::Wait,
            Op::Retry,
            Op::Sync,
            Op::Roll,
            Op::Settle,
            Op::Tick,
            Op::DeleteHalf,
            Op::DeleteAll,
            Op::Compact,
            Op::Checkpoint,
            Op::Read,
            Op::Follow,
            Op::Close,
            Op::Drop,
            Op::Kill,
        ];
        if let Some(op) = WORDS.into_iter().find(|op| op.to_string() == text) {
            return Ok(op);
        }
        let unknown = || format!("{text:?} is no operation");
        if let Some(seed) = text.strip_prefix("power") {
            return seed.parse().map(Op::PowerLoss).map_err(|_| unknown());
        }
        let shape = |rest| Shape::parse(rest).ok_or_else(unknown);
        match text.split_at_checked(1) {
            Some(("s", rest)) => Ok(Op::Append(Sync, shape(rest)?)),
            Some(("b", rest)) => Ok(Op::Append(Buffered, shape(rest)?)),
            Some(("v", rest)) => Ok(Op::Append(Interval, shape(rest)?)),
            Some(("u", rest)) => Ok(Op::Submit(shape(rest)?)),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_read_as_it_is_written() {
        let mut random = Random::new(1);
        for _ in 0..1_000 {
            let op = Op::random(&mut random);
            assert_eq!(op.to_string().parse(), Ok(op));
        }
        assert!("x9".parse::<Op>().is_err());
    }
}
