//! The `logmill` binary, driven from outside as a shell would drive it.
#![expect(
    clippy::disallowed_methods,
    reason = "these tests arrange and damage files on the real disk"
)]

mod backup;
mod consume;
mod damage;
mod doctor;
mod dump;
mod group;
mod kill;
mod kill_at;
mod kill_queue;
mod kill_upkeep;
mod operate;
mod produce;
mod queue;
mod salvage;
mod space;
mod support;
mod terminal;
mod topic;
mod usage;
mod watch;
