//! What of a log's configuration may change while the log is open.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::compress::Compression;
use crate::config::{CompactionConfig, LogConfig, Retention};
use crate::sync::Mutex;

/// Each value by itself: whoever changes several is seen half-way, which no decision minds.
#[derive(Debug, Default)]
pub(crate) struct LiveConfig {
    codec: AtomicU8,
    segment_bytes_max: AtomicU64,
    segment_age_max_ms: AtomicU64,
    record_bytes_max: AtomicU64,
    has_age_limit: AtomicBool,
    rules: Mutex<(Retention, CompactionConfig)>,
}

impl LiveConfig {
    pub fn new(config: &LogConfig) -> LiveConfig {
        let live = LiveConfig::default();
        live.set(config);
        live
    }

    pub fn set(&self, config: &LogConfig) {
        let age = u64::try_from(config.segment_age_max.as_millis()).unwrap_or(u64::MAX);
        self.codec.store(config.compression.codec(), Ordering::Relaxed);
        self.segment_bytes_max.store(config.segment_bytes_max, Ordering::Relaxed);
        self.segment_age_max_ms.store(age, Ordering::Relaxed);
        self.record_bytes_max.store(config.record_bytes_max, Ordering::Relaxed);
        self.has_age_limit.store(config.retention.age.is_some(), Ordering::Relaxed);
        *self.rules.lock() = (config.retention, config.compaction);
    }

    pub fn compression(&self) -> Compression {
        Compression::of_codec(self.codec.load(Ordering::Relaxed))
    }

    pub fn segment_bytes_max(&self) -> u64 {
        self.segment_bytes_max.load(Ordering::Relaxed)
    }

    pub fn segment_age_max_ms(&self) -> u64 {
        self.segment_age_max_ms.load(Ordering::Relaxed)
    }

    pub fn record_bytes_max(&self) -> u64 {
        self.record_bytes_max.load(Ordering::Relaxed)
    }

    /// Whether segments go by their age.
    pub fn has_age_limit(&self) -> bool {
        self.has_age_limit.load(Ordering::Relaxed)
    }

    pub fn retention(&self) -> Retention {
        self.rules.lock().0
    }

    pub fn compaction(&self) -> CompactionConfig {
        self.rules.lock().1
    }
}
