//! Every group's numbers at once.

use std::fmt;

use logmill_storage::Label;

use crate::entry::GroupKind;
use crate::error::{Error, Result};
use crate::streams::Streams;

/// One group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupStats {
    /// Its name.
    pub name: String,
    /// Whether its members share partitions or records.
    pub kind: GroupKind,
    /// How many members it has in this process.
    pub members: usize,
    /// Records between its positions and the ends of its partitions.
    pub lag: u64,
}

impl GroupStats {
    /// Writes the numbers of `groups` in Prometheus' text format.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn write_text(groups: &[GroupStats], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# TYPE logmill_group_lag gauge")?;
        groups.iter().try_for_each(|group| {
            writeln!(f, "logmill_group_lag{{group={}}} {}", Label(&group.name), group.lag)
        })
    }

    /// Tells the recorder of the `metrics` crate (feature `metrics`).
    #[cfg(feature = "metrics")]
    pub fn publish(&self) {
        metrics::gauge!("logmill_group_lag", "group" => self.name.clone()).set(self.lag as f64);
    }
}

impl Streams {
    /// Every consumer and share group, by name.
    ///
    /// # Errors
    /// [`Error::Storage`].
    /// # Cost
    /// Each group looks at the ends of its partitions, which opens those that are closed.
    pub fn group_stats(&self) -> Result<Vec<GroupStats>> {
        let mut all = Vec::new();
        for (name, kind) in self.groups()? {
            match self.describe_group(&name) {
                Ok(group) => all.push(GroupStats {
                    name,
                    kind,
                    members: group.members.len(),
                    lag: group.partitions.iter().map(|partition| partition.lag).sum(),
                }),
                // It was deleted this moment.
                Err(Error::UnknownGroup { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }
}
