//! The behaviour of the storage crate, as specifications.

#![expect(clippy::disallowed_methods, reason = "tests look at the files behind the engine's back")]

mod allocations;
mod append;
mod backup;
mod bitflip;
mod compaction;
mod damage;
mod dump;
mod end;
mod evil;
mod fixtures;
mod follower;
mod format;
mod found;
mod golden;
mod intent;
mod journal;
mod judge;
mod lens;
mod lock;
mod model;
mod opening;
mod producers;
mod recovery;
mod retention;
mod rollback;
mod salvage;
mod segments;
mod size;
mod space;
mod support;
mod verify;
