//! What goes on in the background: silent members, idle files, checkpoints.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use logmill_storage::{Owner, Part, Task};

use crate::error::Result;
use crate::known::OWNER;
use crate::shared::Shared;

/// How often the background looks around: silent members of groups are found after so long at the latest.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// At each so many looks, files that were not used since are closed.
const SWEEP_EACH: u64 = 10;
/// After so many bytes of entries there is a checkpoint, unless the state is larger: then after as many as that.
const CHECKPOINT_BYTES: u64 = 1 << 20;

impl Task for Shared {
    fn run(self: Arc<Self>) {
        if self.looks.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP_EACH) {
            self.open_logs.sweep();
            // What cannot be removed now is tried again.
            let _ = self.remove_condemned();
        }
        if let Some(intents) = self.intents.get() {
            // What cannot be done now is tried again.
            let _ = intents.complete();
        }
        self.expire_members();
        self.expire_leases();
        if self.known.lock().is_checkpoint_due(CHECKPOINT_BYTES) {
            // A checkpoint only saves time, so the next one makes good for one that failed.
            let _ = self.checkpoint();
        }
        let task: Weak<dyn Task> = Arc::downgrade(&(Arc::clone(&self) as Arc<dyn Task>));
        self.dir.after(LOOK_EVERY, task);
    }
}

impl Shared {
    pub(crate) fn checkpoint(&self) -> Result<()> {
        let Some(journal) = self.journal()? else { return Ok(()) };
        let mut known = self.known.lock();
        let intents_are_done = self.intents.get().is_none_or(|intents| {
            let live = |part| intents.live_bytes(part, &[0, u64::MAX]).iter().sum::<u64>();
            live(Part::Hot) + live(Part::Cold) == 0
        });
        let (reach, bytes) = (known.next, known.checkpoint(intents_are_done));
        drop(known);
        Ok(journal.checkpoint(OWNER, reach, &bytes)?)
    }
}
