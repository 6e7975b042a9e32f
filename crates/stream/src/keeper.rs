//! What goes on in the background: silent members, idle files and groups, retention, checkpoints.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use logmill_storage::{Durability, Owner, Part, Task};

use crate::binding;
use crate::config::to_ms;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::known::OWNER;
use crate::shared::Shared;

/// How often the background looks around: silent members of groups are found after so long at the latest.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
pub(crate) const FIRST_LOOK: u64 = 1;
/// At each so many looks, files that were not used since are closed.
const SWEEP_EACH: u64 = 10;
/// After so many bytes of entries there is a checkpoint, unless the state is larger: then after as many as that.
const CHECKPOINT_BYTES: u64 = 1 << 20;
/// And after so many bytes of the journal, whoever wrote them: an open would have to read them.
const JOURNAL_BYTES: u64 = 32 << 20;

/// At each so many looks, groups that nobody used for too long are forgotten.
const EXPIRE_EACH: u64 = 60;
/// A group with members is noted as in use at least so often, whatever it commits.
const SEEN_EVERY_MS: i64 = 60 * 60 * 1000;
/// A partition whose log is closed is opened so often for its retention. (An open log looks after itself.)
const VISIT_EVERY: Duration = Duration::from_secs(30 * 60);
/// At most so many at each look, so that ten thousand do not come at once.
const VISITS_MAX: usize = 8;

impl Task for Shared {
    fn run(self: Arc<Self>) {
        let look = self.looks.fetch_add(1, Ordering::Relaxed);
        if look == FIRST_LOOK {
            self.look_for_lost();
        }
        // Whatever fails here is tried again, and is met by whoever works with the part concerned.
        if look.is_multiple_of(SWEEP_EACH) {
            self.open_logs.sweep();
            let _ = self.remove_condemned();
        }
        if look.is_multiple_of(EXPIRE_EACH) {
            let _ = self.expire_groups();
        }
        self.complete_intents();
        self.expire_members();
        self.expire_leases();
        self.visit_closed();
        if self.is_checkpoint_due() {
            let _ = self.checkpoint();
        }
        let task: Weak<dyn Task> = Arc::downgrade(&(Arc::clone(&self) as Arc<dyn Task>));
        self.dir.after(LOOK_EVERY, task);
    }
}

impl Shared {
    fn is_checkpoint_due(&self) -> bool {
        let known = self.known.lock();
        let behind = || Some(self.journal().ok()??.full_bytes_from(known.checkpointed()));
        known.is_checkpoint_due(CHECKPOINT_BYTES)
            || behind().is_some_and(|bytes| bytes > known.checkpoint_bytes().max(JOURNAL_BYTES))
    }

    pub(crate) fn checkpoint(&self) -> Result<()> {
        let Some(journal) = self.journal()? else { return Ok(()) };
        let mut known = self.known.lock();
        // Our entries are journaled and taken in under this lock, and intents under theirs, which is taken below: nothing
        // before this offset is unknown.
        known.reached(journal.reach().hot);
        let intents_are_done = self.intents.get().is_none_or(|intents| {
            let live = |part| intents.live_bytes(part, &[0, u64::MAX]).iter().sum::<u64>();
            live(Part::Hot) + live(Part::Cold) == 0
        });
        let (reach, bytes) = (known.next, known.checkpoint(intents_are_done));
        drop(known);
        Ok(journal.checkpoint(OWNER, reach, &bytes)?)
    }

    /// Says in the store's health which partitions have lost their logs, before somebody wants to use them.
    fn look_for_lost(&self) {
        let made: Vec<_> = self.look(|state| state.topics.made().collect());
        for (id, log) in made {
            // One that was deleted meanwhile is not missed.
            if binding::check(&self.dir, id, log).is_err()
                && self.look(|state| state.topics.has_made(id))
            {
                let _ = binding::check_and_note(&self.dir, id, log);
            }
        }
    }

    /// Applies the retention of partitions that nobody uses.
    fn visit_closed(self: &Arc<Self>) {
        let now = self.dir.clock().monotonic();
        let topics = self.topics.read().sorted();
        let mut visits = 0;
        for topic in topics.iter().filter(|topic| topic.settings().retires_records()) {
            for core in topic.partitions() {
                if !core.is_visit_due(now, VISIT_EVERY) {
                    continue;
                }
                // One that never had a record has no log yet, and is not to get one.
                if let Ok(partition) = self.partition(core.id)
                    && partition.has_log()
                {
                    let _ = partition.apply_retention();
                    visits += 1;
                }
                if visits == VISITS_MAX {
                    return;
                }
            }
        }
    }

    /// Forgets groups without members that were not used for too long, and notes those that are in use.
    fn expire_groups(&self) -> Result<()> {
        let now_ms = self.dir.clock().wall_ms();
        let groups: Vec<(u64, String, i64)> = self.look(|state| {
            state
                .groups
                .iter()
                .map(|(id, group)| (id, group.name.to_string(), group.seen_ms))
                .collect()
        });
        for (id, name, seen_ms) in groups {
            let since_ms = now_ms.saturating_sub(seen_ms);
            if self.member_count(id) > 0 {
                if since_ms >= SEEN_EVERY_MS {
                    let seen = Entry::GroupSeen { group: id, at_ms: now_ms }.encoded();
                    self.change(Durability::Buffered, |_| Ok((vec![seen], ())))?;
                }
            } else if self.offsets_retention.is_some_and(|retention| since_ms > to_ms(retention)) {
                match self.delete_group(&name) {
                    // Somebody joined this moment, or somebody else deleted it.
                    Err(Error::GroupActive { .. } | Error::UnknownGroup { .. }) => {}
                    result => result?,
                }
            }
        }
        Ok(())
    }
}
