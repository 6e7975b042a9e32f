//! What kind of store a workload runs on.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use logmill_storage::{Compression, Durability, LogConfig, WritePath};

use crate::random::Random;

/// Small, so that a few appends roll.
pub const SEGMENT_BYTES: u64 = 4 << 10;
/// Small, so that a few records make several frames.
const FRAME_BYTES: u64 = 1 << 10;
const SPARE_BYTES: u64 = 4 << 10;

/// The variants of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Stores through a mapping, not positional writes.
    pub mapped: bool,
    /// The log's level is `Buffered`, not `Sync`.
    pub buffered: bool,
    /// Batches are compressed.
    pub compressed: bool,
    /// The log keeps a spare segment.
    pub spare: bool,
    /// A journal, not a plain log.
    pub journal: bool,
    /// Each record has one of a few keys, so that compaction finds something; never a journal.
    pub keyed: bool,
}

impl Setup {
    /// A plain log, by both ways of writing and at both levels.
    pub const PLAIN: [Setup; 4] = [
        Setup::plain(false, false),
        Setup::plain(true, false),
        Setup::plain(false, true),
        Setup::plain(true, true),
    ];

    const fn plain(mapped: bool, buffered: bool) -> Setup {
        Setup { mapped, buffered, compressed: false, spare: false, journal: false, keyed: false }
    }

    /// A log that is compacted by key.
    pub const KEYED: [Setup; 2] = [
        Setup { keyed: true, ..Setup::plain(false, false) },
        Setup { keyed: true, ..Setup::plain(true, true) },
    ];

    /// A journal.
    pub const JOURNAL: [Setup; 2] = [
        Setup { journal: true, ..Setup::plain(false, false) },
        Setup { journal: true, ..Setup::plain(true, true) },
    ];

    /// Any variant, journals and spares now and then.
    pub fn random(random: &mut Random) -> Setup {
        let journal = random.once_in(6);
        Setup {
            mapped: random.once_in(2),
            buffered: random.once_in(2),
            compressed: random.once_in(4),
            spare: random.once_in(4),
            journal,
            keyed: !journal && random.once_in(4),
        }
    }

    /// The configuration of the log.
    pub fn config(&self) -> LogConfig {
        LogConfig::default()
            .segment_bytes_max(SEGMENT_BYTES)
            .frame_bytes(FRAME_BYTES)
            .record_bytes_max(64 << 10)
            .spare_bytes(if self.spare { SPARE_BYTES } else { 0 })
            .compression(if self.compressed { Compression::Lz4 } else { Compression::None })
            .write_path(if self.mapped { WritePath::Mapped } else { WritePath::Positional })
            .durability(if self.buffered { Durability::Buffered } else { Durability::Sync })
            .segment_age_max(Duration::from_secs(3600))
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.mapped { "mapped" } else { "positional" })?;
        f.write_str(if self.buffered { "+buffered" } else { "+sync" })?;
        for (has, word) in [
            (self.compressed, "+lz4"),
            (self.spare, "+spare"),
            (self.journal, "+journal"),
            (self.keyed, "+keyed"),
        ] {
            f.write_str(if has { word } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Setup {
    type Err = String;

    fn from_str(text: &str) -> Result<Setup, String> {
        let mut setup = Setup::plain(false, false);
        for word in text.split('+') {
            match word {
                "mapped" => setup.mapped = true,
                "buffered" => setup.buffered = true,
                "lz4" => setup.compressed = true,
                "spare" => setup.spare = true,
                "journal" => setup.journal = true,
                "keyed" => setup.keyed = true,
                "positional" | "sync" => {}
                _ => return Err(format!("{word:?} says nothing about a store")),
            }
        }
        Ok(setup)
    }
}
