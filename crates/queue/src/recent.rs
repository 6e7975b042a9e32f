//! The receives of a FIFO queue that may be asked for again by their attempt id: the answer may have been lost.

use std::collections::{HashMap, VecDeque};

use crate::entry::Mark;

/// How long an attempt id is remembered, as in SQS.
const WINDOW_MS: i64 = 300_000;

/// What a receive returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempted {
    pub(crate) marks: Vec<Mark>,
    /// The end of the leases that it gave; another end means that a lease was changed since.
    pub(crate) until: i64,
    time: i64,
}

/// Receives by their attempt id.
#[derive(Debug, Default)]
pub(crate) struct RecentReceives {
    by_id: HashMap<String, Attempted>,
    order: VecDeque<(i64, String)>,
}

impl RecentReceives {
    /// Remembers a receive. If it was asked for again, the window still counts from the first time.
    pub(crate) fn remember(&mut self, id: &str, marks: &[Mark], time: i64, until: i64) {
        match self.by_id.get_mut(id) {
            Some(known) if known.marks == marks => known.until = until,
            _ => {
                let attempted = Attempted { marks: marks.to_vec(), until, time };
                self.by_id.insert(id.to_owned(), attempted);
                self.order.push_back((time, id.to_owned()));
            }
        }
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Attempted> {
        self.by_id.get(id)
    }

    pub(crate) fn advance(&mut self, now: i64) {
        while let Some((time, id)) = self.order.pop_front_if(|(time, _)| *time + WINDOW_MS <= now) {
            if self.by_id.get(&id).is_some_and(|attempted| attempted.time == time) {
                self.by_id.remove(&id);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = RecentReceives::default();
    }

    /// All, oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, i64, &Attempted)> {
        self.order.iter().filter_map(|(time, id)| {
            let attempted = self.by_id.get(id).filter(|attempted| attempted.time == *time)?;
            Some((id.as_str(), *time, attempted))
        })
    }
}
