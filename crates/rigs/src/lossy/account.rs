//! What the real command was told, what it acknowledged, and what must therefore be found.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

use crate::history::{Violation, judge};

/// The records of a topic: those that were found settled, and those that were sent since.
#[derive(Debug, Default)]
pub struct Topic {
    settled: Vec<String>,
    pending: Vec<String>,
    /// How many of the pending ones must be there.
    required: usize,
    /// Of each key only the latest record need be there.
    compacted: bool,
}

/// The key of a line: its first word.
fn key(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

impl Topic {
    /// A topic that is compacted.
    pub fn compacted() -> Topic {
        Topic { compacted: true, ..Topic::default() }
    }

    /// `lines` were sent.
    pub fn send(&mut self, lines: Vec<String>) {
        self.pending.extend(lines);
    }

    /// Of the pending records the first `required` must be there.
    pub const fn require(&mut self, required: usize) {
        self.required = required;
    }

    /// Holds what was found against the account, and takes it for settled. The last line sent was settled by a sync.
    pub fn settle(&mut self, found: &BTreeMap<u64, String>) -> Result<(), Violation> {
        let end = found.keys().next_back().map_or(0, |last| *last as usize + 1);
        let Some(last) = self.pending.pop() else { return Ok(()) };
        let kept = end.saturating_sub(self.settled.len() + 1);
        judge(kept, &(self.required..=self.pending.len()))?;
        self.pending.truncate(kept);
        self.settled.append(&mut self.pending);
        self.settled.push(last);
        self.required = 0;
        let mut later = HashSet::new();
        for (offset, line) in self.settled.iter().enumerate().rev() {
            let is_latest = later.insert(key(line));
            match found.get(&(offset as u64)) {
                Some(other) if other == line => {}
                Some(other) if self.settled.contains(other) => {
                    return Err(Violation::Reordered(format!("{other:.40} at offset {offset}")));
                }
                Some(other) => {
                    return Err(Violation::Invented(format!("{other:.40} at offset {offset}")));
                }
                None if self.compacted && !is_latest => {}
                None => return Err(Violation::Lost(format!("{line:.40} at offset {offset}"))),
            }
        }
        Ok(())
    }
}

/// The messages of a queue, by their numbers.
#[derive(Debug, Default)]
pub struct Queue {
    settled: BTreeSet<u64>,
    /// Sent since; what is there of them are the first few.
    pending: Range<u64>,
    required: u64,
    deleted: BTreeSet<u64>,
    acknowledged: bool,
}

impl Queue {
    /// Numbers for so many more messages.
    pub const fn send(&mut self, count: u64) -> Range<u64> {
        let first = self.pending.end;
        self.pending.end += count;
        first..self.pending.end
    }

    /// Of the pending messages the first `required` must be there.
    pub const fn require(&mut self, required: u64) {
        self.required = required;
    }

    /// Messages were received to be deleted.
    pub fn delete(&mut self, received: &[u64], acknowledged: bool) -> Result<(), Violation> {
        if let Some(number) = received.iter().find(|number| !self.settled.contains(number)) {
            return Err(Violation::Invented(format!("message {number} was received")));
        }
        self.deleted = received.iter().copied().collect();
        self.acknowledged = acknowledged;
        Ok(())
    }

    /// Holds the numbers that were found, in their order, against the account, and takes them for settled.
    pub fn settle(&mut self, found: &[u64]) -> Result<(), Violation> {
        if !found.is_sorted_by(|a, b| a < b) {
            return Err(Violation::Reordered(format!("messages {found:?}")));
        }
        let found: BTreeSet<u64> = found.iter().copied().collect();
        let first = self.pending.start;
        if let Some(number) = found.iter().find(|number| **number >= self.pending.end) {
            return Err(Violation::Invented(format!("message {number}")));
        }
        let back = |number: &&u64| {
            **number < first
                && (!self.settled.contains(number)
                    || self.acknowledged && self.deleted.contains(number))
        };
        if let Some(number) = found.iter().find(back) {
            return Err(Violation::Lost(format!("message {number} was deleted, and is back")));
        }
        let kept = found.last().map_or(first, |last| (last + 1).max(first));
        let due = self.settled.difference(&self.deleted).copied();
        let due = due.chain(first..kept.max(first + self.required));
        if let Some(number) = due.into_iter().find(|number| !found.contains(number)) {
            return Err(Violation::Lost(format!("message {number}")));
        }
        self.pending.start = self.pending.end;
        self.required = 0;
        self.deleted.clear();
        self.acknowledged = false;
        self.settled = found;
        Ok(())
    }
}
