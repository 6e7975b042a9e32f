//! What a store has done since it was opened: counters that cost the writing threads next to nothing.
//!
//! A log counts its appends in cells of its own, which one thread at a time writes, with plain stores; only what happens
//! once for each sync or more rarely goes to the counters that all logs of a directory share.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::sync::Mutex;

/// Classes for each doubling: an upper bound is at most a quarter above what it stands for.
const CLASSES: usize = 4;
const BUCKETS: usize = CLASSES * 62;

/// What the logs of a directory have done since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activity {
    /// Batches that were appended; a single record is a batch of one.
    pub appends: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of their frames, as they are in the files.
    pub bytes: u64,
    /// Syncs of data.
    pub syncs: u64,
    /// How long each took, in microseconds.
    pub sync_micros: Histogram,
    /// How many appends each covered.
    pub group_sizes: Histogram,
    /// Segments that retention, compaction and the journal have removed.
    pub reclaimed_segments: u64,
    /// Their bytes.
    pub reclaimed_bytes: u64,
    /// Logs that were opened after a crash, so that their end had to be looked for.
    pub recoveries: u64,
    /// How long that took, for all of them.
    pub recovery_time: Duration,
}

/// How often values of each size were seen. A value is known to a quarter of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    sum: u64,
}

impl Histogram {
    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum, exact.
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// An upper bound of the value that the share `q` (0 to 1) of all values does not exceed; 0 without values.
    pub fn quantile(&self, q: f64) -> u64 {
        let wanted = (self.count() as f64 * q.clamp(0.0, 1.0)).ceil().max(1.0);
        let mut seen = 0.0;
        for (bound, count) in self.buckets() {
            seen += count as f64;
            if seen >= wanted {
                return bound;
            }
        }
        0
    }

    /// The sizes that occurred: an inclusive upper bound, and how many values lie between it and the bound before.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let occurred = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        occurred.map(|(bucket, count)| (upper_bound(bucket), *count))
    }
}

impl Histogram {
    /// Writes it as a histogram of Prometheus, in units of `unit`.
    fn write(&self, f: &mut fmt::Formatter<'_>, name: &str, unit: f64) -> fmt::Result {
        writeln!(f, "# TYPE logmill_{name} histogram")?;
        let mut seen = 0;
        for (bound, count) in self.buckets() {
            seen += count;
            writeln!(f, "logmill_{name}_bucket{{le=\"{}\"}} {seen}", bound as f64 * unit)?;
        }
        writeln!(f, "logmill_{name}_bucket{{le=\"+Inf\"}} {seen}")?;
        writeln!(f, "logmill_{name}_sum {}\nlogmill_{name}_count {seen}", self.sum() as f64 * unit)
    }
}

#[cfg(feature = "metrics")]
impl Activity {
    /// Tells the recorder of the `metrics` crate (feature `metrics`), under the names that [`Display`](fmt::Display) gives.
    /// Sync latency and group sizes are told as they happen.
    pub fn publish(&self) {
        metrics::counter!("logmill_appends_total").absolute(self.appends);
        metrics::counter!("logmill_records_total").absolute(self.records);
        metrics::counter!("logmill_appended_bytes_total").absolute(self.bytes);
        metrics::counter!("logmill_reclaimed_bytes_total").absolute(self.reclaimed_bytes);
        metrics::counter!("logmill_recoveries_total").absolute(self.recoveries);
        metrics::gauge!("logmill_recovery_seconds").set(self.recovery_time.as_secs_f64());
    }
}

impl fmt::Display for Activity {
    /// Prometheus' text format.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Activity { appends, records, bytes, reclaimed_bytes, recoveries, .. } = self;
        let counters = [
            ("appends", appends),
            ("records", records),
            ("appended_bytes", bytes),
            ("reclaimed_bytes", reclaimed_bytes),
            ("recoveries", recoveries),
        ];
        for (name, value) in counters {
            writeln!(f, "# TYPE logmill_{name}_total counter\nlogmill_{name}_total {value}")?;
        }
        let recovery = self.recovery_time.as_secs_f64();
        writeln!(f, "# TYPE logmill_recovery_seconds gauge\nlogmill_recovery_seconds {recovery}")?;
        self.sync_micros.write(f, "sync_seconds", 1e-6)?;
        self.group_sizes.write(f, "group_appends", 1.0)
    }
}

/// The value of a label in Prometheus' text format, in its quotation marks.
#[derive(Clone, Copy, Debug)]
pub struct Label<'a>(pub &'a str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escaped = self.0.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        write!(f, "\"{escaped}\"")
    }
}

fn bucket(value: u64) -> usize {
    let small = CLASSES as u64;
    if value < small {
        return usize::try_from(value).unwrap_or(0);
    }
    let doubling = value.ilog2();
    let class = (value >> (doubling - 2)) & (small - 1);
    (doubling as usize - 1) * CLASSES + usize::try_from(class).unwrap_or(0)
}

fn upper_bound(bucket: usize) -> u64 {
    if bucket < CLASSES {
        return bucket as u64;
    }
    let (doubling, class) = (bucket / CLASSES + 1, (bucket % CLASSES) as u64);
    let width = 1_u64 << (doubling - 2);
    (CLASSES as u64 + class) * width + (width - 1)
}

/// A histogram that threads add to.
struct Cells {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Default for Cells {
    fn default() -> Cells {
        Cells { counts: [const { AtomicU64::new(0) }; BUCKETS], sum: AtomicU64::new(0) }
    }
}

impl Cells {
    fn add(&self, value: u64) {
        if let Some(count) = self.counts.get(bucket(value)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    fn load(&self) -> Histogram {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Histogram { counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

/// The appends of one log, by whoever holds its lock.
#[derive(Debug)]
pub(crate) struct Appends {
    appends: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    counters: Weak<Counters>,
}

impl Appends {
    /// Counts one batch. One thread at a time calls it, so no counter needs an atomic addition.
    pub fn count(&self, records: u64, bytes: u64) {
        let add = |cell: &AtomicU64, n: u64| {
            cell.store(cell.load(Ordering::Relaxed) + n, Ordering::Relaxed);
        };
        add(&self.appends, 1);
        add(&self.records, records);
        add(&self.bytes, bytes);
    }

    /// Batches so far.
    pub fn batches(&self) -> u64 {
        self.appends.load(Ordering::Relaxed)
    }

    fn load(&self) -> [u64; 3] {
        [&self.appends, &self.records, &self.bytes].map(|cell| cell.load(Ordering::Relaxed))
    }
}

impl Drop for Appends {
    fn drop(&mut self) {
        if let Some(counters) = self.counters.upgrade() {
            let mut logs = counters.logs.lock();
            logs.open.retain(|log| log.strong_count() > 0);
            logs.closed = sum(logs.closed, self.load());
        }
    }
}

fn sum(a: [u64; 3], b: [u64; 3]) -> [u64; 3] {
    std::array::from_fn(|i| a[i] + b[i])
}

#[derive(Debug, Default)]
struct Logs {
    open: Vec<Weak<Appends>>,
    /// What logs had appended that are closed by now.
    closed: [u64; 3],
}

/// The counters of a directory.
#[derive(Default)]
pub(crate) struct Counters {
    logs: Mutex<Logs>,
    sync_micros: Cells,
    group_sizes: Cells,
    reclaimed_segments: AtomicU64,
    reclaimed_bytes: AtomicU64,
    recoveries: AtomicU64,
    recovery_nanos: AtomicU64,
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

impl Counters {
    /// Cells for one more log.
    pub fn log(self: &Arc<Self>) -> Arc<Appends> {
        let appends = Arc::new(Appends {
            appends: AtomicU64::new(0),
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            counters: Arc::downgrade(self),
        });
        self.logs.lock().open.push(Arc::downgrade(&appends));
        appends
    }

    pub fn synced(&self, took: Duration, appends: u64) {
        self.sync_micros.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        self.group_sizes.add(appends);
        crate::events::synced(appends, took);
        #[cfg(feature = "metrics")]
        {
            metrics::histogram!("logmill_sync_seconds").record(took.as_secs_f64());
            metrics::histogram!("logmill_group_appends").record(appends as f64);
        }
    }

    pub fn reclaimed(&self, segments: u64, bytes: u64) {
        self.reclaimed_segments.fetch_add(segments, Ordering::Relaxed);
        self.reclaimed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn recovered(&self, took: Duration) {
        self.recoveries.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.recovery_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub fn load(&self) -> Activity {
        let logs = self.logs.lock();
        // Held until after the lock is let go: the last handle of a log takes the lock when it is dropped.
        let open: Vec<Arc<Appends>> = logs.open.iter().filter_map(Weak::upgrade).collect();
        let closed = logs.closed;
        drop(logs);
        let [appends, records, bytes] = open.iter().map(|log| log.load()).fold(closed, sum);
        let sync_micros = self.sync_micros.load();
        Activity {
            appends,
            records,
            bytes,
            syncs: sync_micros.count(),
            sync_micros,
            group_sizes: self.group_sizes.load(),
            reclaimed_segments: self.reclaimed_segments.load(Ordering::Relaxed),
            reclaimed_bytes: self.reclaimed_bytes.load(Ordering::Relaxed),
            recoveries: self.recoveries.load(Ordering::Relaxed),
            recovery_time: Duration::from_nanos(self.recovery_nanos.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_bounds_what_is_in_it_to_a_quarter() {
        for value in (0..10_000).chain([u64::from(u32::MAX), 1 << 50, (1 << 62) + 1]) {
            let bound = upper_bound(bucket(value));
            assert!(bound >= value, "{value} is above {bound}");
            assert!(bound - value <= value / 4, "{value} is too far below {bound}");
            assert!(bucket(value) < BUCKETS, "{value}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let cells = Cells::default();
        (1..=1000).for_each(|value| cells.add(value));
        let histogram = cells.load();
        assert_eq!((histogram.count(), histogram.sum()), (1000, 500_500));
        for (q, exact) in [(0.5, 500), (0.99, 990), (1.0, 1000)] {
            let bound = histogram.quantile(q);
            assert!((exact..=exact + exact / 4).contains(&bound), "{q}: {bound}");
        }
        assert_eq!(Histogram::default().quantile(0.5), 0);
    }

    #[test]
    fn what_a_log_appended_is_counted_after_it_is_gone() {
        let counters = Arc::new(Counters::default());
        let (one, other) = (counters.log(), counters.log());
        one.count(3, 100);
        other.count(1, 10);
        drop(one);
        let activity = counters.load();
        assert_eq!((activity.appends, activity.records, activity.bytes), (2, 4, 110));
    }
}
