//! The fold from the journal at open.

use std::borrow::Cow;
use std::collections::HashMap;

use logmill_storage::{Journal, Part, Reach};

use crate::engine::Engine;
use crate::entry::{Entry, Fact, Mark};
use crate::error::{Error, Result};
use crate::location;
use crate::shared::OWNER;

/// What carried entries know: hot entries below these offsets are passed over for what they are about.
#[derive(Debug, Default)]
struct Known {
    messages: HashMap<(u32, u64), u64>,
    catalogues: HashMap<u32, u64>,
}

impl Known {
    fn message(&self, queue: u32, sequence: u64, offset: u64) -> bool {
        self.messages.get(&(queue, sequence)).is_some_and(|as_of| offset < *as_of)
    }

    /// The entry without what is known already; `None` if nothing is left.
    fn sift<'a>(&self, entry: Entry<'a>, offset: u64) -> Option<Entry<'a>> {
        let queue = entry.queue;
        let sift_marks = |marks: Cow<'a, [Mark]>| -> Cow<'a, [Mark]> {
            marks
                .iter()
                .filter(|mark| !self.message(queue, mark.sequence, offset))
                .copied()
                .collect()
        };
        let fact = match entry.fact {
            fact if fact.is_of_catalogue() => {
                let known = self.catalogues.get(&queue).is_some_and(|as_of| offset < *as_of);
                return (!known).then_some(Entry { queue, fact });
            }
            Fact::Deleted { time, reason, marks } => {
                Fact::Deleted { time, reason, marks: sift_marks(marks) }
            }
            Fact::Received { lease, attempt, marks } => {
                Fact::Received { lease, attempt, marks: sift_marks(marks) }
            }
            Fact::VisibilityChanged { time, until, marks } => {
                Fact::VisibilityChanged { time, until, marks: sift_marks(marks) }
            }
            Fact::Sent { sequence, .. }
            | Fact::Snapshot { sequence, .. }
            | Fact::Returned { sequence, .. }
            | Fact::Edited { sequence, .. }
            | Fact::Rescheduled { sequence, .. }
            | Fact::Died { sequence, .. }
            | Fact::Revived { sequence, .. }
                if self.message(queue, sequence, offset) =>
            {
                return None;
            }
            fact => fact,
        };
        Some(Entry { queue, fact })
    }
}

/// Folds what the journal says from `from` on into `engine`.
pub(crate) fn replay(journal: &Journal, from: Reach, engine: &mut Engine) -> Result<()> {
    let hot_start = journal.part(Part::Hot).start_offset();
    let mut known = Known::default();
    let mut failed = None;
    let mut bytes = 0;
    let replayed = journal.replay(from, |entry| {
        if entry.owner != OWNER || failed.is_some() {
            return Ok(());
        }
        let offset = entry.place.offset();
        let decoded = match Entry::decode(entry.bytes) {
            Ok(decoded) => decoded,
            Err(malformed) => {
                failed = Some(Error::Corrupt { offset, what: malformed.0 });
                return Ok(());
            }
        };
        bytes += entry.bytes.len() as u64;
        let at = location::of(entry.place);
        if let Some(as_of) = entry.as_of.filter(|as_of| *as_of > hot_start) {
            match &decoded.fact {
                Fact::Snapshot { sequence, .. } => {
                    known.messages.insert((decoded.queue, *sequence), as_of);
                }
                Fact::QueueSnapshot { .. } => {
                    known.catalogues.insert(decoded.queue, as_of);
                }
                _ => {}
            }
        }
        if entry.as_of.is_some_and(|as_of| as_of < from.hot) {
            // The checkpoint knows more than this copy, but not that the copy is there.
            engine.apply_known_copy(&decoded, at, entry.as_of.unwrap_or(0));
        } else if entry.as_of.is_some()
            || (known.messages.is_empty() && known.catalogues.is_empty())
        {
            engine.apply(&decoded, at);
        } else if let Fact::Moved { sequence, target, target_sequence, .. } = &decoded.fact {
            let source_known = known.message(decoded.queue, *sequence, offset);
            let target_known = known.message(*target, *target_sequence, offset);
            engine.apply_moved(&decoded, at, !source_known, !target_known);
        } else if let Some(sifted) = known.sift(decoded, offset) {
            engine.apply(&sifted, at);
        }
        Ok(())
    });
    replayed?;
    if let Some(error) = failed {
        return Err(error);
    }
    engine.unchecked_bytes += bytes;
    engine.replayed();
    engine.cold_known = journal.reach().cold;
    Ok(())
}
