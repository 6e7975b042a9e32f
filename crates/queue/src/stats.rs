//! Every queue's numbers at once.

use std::fmt;
use std::time::Duration;

use logmill_storage::Label;

use crate::engine::Tally;
use crate::error::{Error, Result};
use crate::queues::Queues;
use crate::state::Counts;

/// One queue.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueueStats {
    /// Its name.
    pub name: String,
    /// Its messages by state, exact at this moment.
    pub counts: Counts,
    /// How long the oldest message that could be received now has been waiting.
    pub oldest_claimable_age: Option<Duration>,
    /// What has happened in it since the store was opened.
    pub tally: Tally,
}

impl QueueStats {
    fn by_state(&self) -> [(&'static str, u64); 4] {
        let Counts { ready, delayed, in_flight, dead, .. } = self.counts;
        [("ready", ready), ("delayed", delayed), ("in_flight", in_flight), ("dead", dead)]
    }

    fn oldest_claimable_seconds(&self) -> f64 {
        self.oldest_claimable_age.unwrap_or_default().as_secs_f64()
    }

    /// Writes the numbers of `queues` in Prometheus' text format.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn write_text(queues: &[QueueStats], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# TYPE logmill_queue_messages gauge")?;
        for queue in queues {
            for (state, count) in queue.by_state() {
                let name = Label(&queue.name);
                writeln!(f, "logmill_queue_messages{{queue={name},state=\"{state}\"}} {count}")?;
            }
        }
        writeln!(f, "# TYPE logmill_queue_oldest_claimable_seconds gauge")?;
        for queue in queues {
            let (name, age) = (Label(&queue.name), queue.oldest_claimable_seconds());
            writeln!(f, "logmill_queue_oldest_claimable_seconds{{queue={name}}} {age}")?;
        }
        Ok(())
    }

    /// Tells the recorder of the `metrics` crate (feature `metrics`).
    #[cfg(feature = "metrics")]
    pub fn publish(&self) {
        for (state, count) in self.by_state() {
            let queue = self.name.clone();
            metrics::gauge!("logmill_queue_messages", "queue" => queue, "state" => state)
                .set(count as f64);
        }
        metrics::gauge!("logmill_queue_oldest_claimable_seconds", "queue" => self.name.clone())
            .set(self.oldest_claimable_seconds());
    }
}

impl Queues {
    /// Every queue, by name.
    ///
    /// # Errors
    /// [`Error::Closed`].
    /// # Cost
    /// Each queue takes the queues' lock three times for an instant.
    pub fn stats(&self) -> Result<Vec<QueueStats>> {
        let mut all = Vec::new();
        for name in self.list("") {
            match self.stats_of(name) {
                Ok(queue) => all.push(queue),
                // It was deleted this moment.
                Err(Error::QueueDoesNotExist { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    fn stats_of(&self, name: String) -> Result<QueueStats> {
        let queue = self.queue(&name)?;
        Ok(QueueStats {
            counts: queue.counts()?,
            oldest_claimable_age: queue.oldest_claimable_age()?,
            tally: queue.tally()?,
            name,
        })
    }
}
