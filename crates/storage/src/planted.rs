//! Bugs that are planted on purpose, to show that the tests catch them.
//!
//! Only a build with `--cfg planted` has them, each asleep until `plant` wakes it; in every other build `has` is a
//! constant and what it guards is not compiled. `logmill-torture planted` wakes one after the other.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Segments are not synced.
    NoSync = 1,
    /// Durable appends are acknowledged before the sync.
    AcknowledgedBeforeSync,
    /// Stored appends are acknowledged before they are written.
    AcknowledgedBeforeStored,
    /// The directory is not synced after a segment was made.
    NoDirectorySync,
    /// A failed sync is tried again.
    SyncRetried,
    /// A failed sync does not poison.
    NotPoisoned,
    /// Recovery believes the page cache: it neither writes the tail again nor syncs it.
    CacheTrusted,
    /// Recovery cuts at the first bad frame, whatever the witnesses say.
    WitnessesIgnored,
    /// Bytes in doubt are cut off without a copy.
    NotQuarantined,
    /// The epoch stays after a crash.
    EpochKept,
    /// Segments are removed before the new start offset is durable.
    RemovedBeforeStart,
    /// Offsets that were rolled back on a full disk are not given again.
    RolledBackByHalf,
    /// A full disk poisons.
    FullDiskPoisons,
    /// A batch that was cut short is taken for whole.
    PartialBatchKept,
    /// The manifest is not synced.
    ManifestNotSynced,
    /// The manifest does not say that the log has a writer.
    NotMarkedOpen,
    /// Readers of a synced log see what is not durable.
    UndurableShown,
    /// A retry of an idempotent producer is appended again.
    RetryAppended,
    /// A retired segment counts as synced.
    RetiredNotSynced,
    /// The log is marked as closed before its end is durable.
    ClosedBeforeSync,
    /// A snapshot of producers is written before what it tells of is durable, is kept, and believed.
    SnapshotAheadBelieved,
    /// A frame's checksum is not compared.
    ChecksumIgnored,
    /// After a tail was cut off, the last offset before it, which may have been acknowledged, is given again.
    OffsetReused,
    /// No fence between the move of a log's end and the look for who waits for it, nor on their side.
    NotFenced,
    /// Whoever waits for the end to move looks at it before the lock is held under which it would be told.
    LookedBeforeLocked,
    /// A task's waker is kept only after the lock was let go under which its ticket was found to be pending.
    WakerKeptLate,
}

impl Bug {
    /// All that a single thread shows; the last three are found by `interleavings`.
    pub const ALL: [Bug; 23] = [
        Bug::NoSync,
        Bug::AcknowledgedBeforeSync,
        Bug::AcknowledgedBeforeStored,
        Bug::NoDirectorySync,
        Bug::SyncRetried,
        Bug::NotPoisoned,
        Bug::CacheTrusted,
        Bug::WitnessesIgnored,
        Bug::NotQuarantined,
        Bug::EpochKept,
        Bug::RemovedBeforeStart,
        Bug::RolledBackByHalf,
        Bug::FullDiskPoisons,
        Bug::PartialBatchKept,
        Bug::ManifestNotSynced,
        Bug::NotMarkedOpen,
        Bug::UndurableShown,
        Bug::RetryAppended,
        Bug::RetiredNotSynced,
        Bug::ClosedBeforeSync,
        Bug::SnapshotAheadBelieved,
        Bug::ChecksumIgnored,
        Bug::OffsetReused,
    ];
}

#[cfg(planted)]
static AWAKE: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Wakes one bug, or none.
#[cfg(planted)]
pub fn plant(bug: Option<Bug>) {
    AWAKE.store(bug.map_or(0, |bug| bug as u8), std::sync::atomic::Ordering::SeqCst);
}

/// Whether this bug is awake.
#[cfg(planted)]
pub(crate) fn has(bug: Bug) -> bool {
    AWAKE.load(std::sync::atomic::Ordering::Relaxed) == bug as u8
}

/// Whether this bug is awake: never.
#[cfg(not(planted))]
pub(crate) const fn has(_: Bug) -> bool {
    false
}
