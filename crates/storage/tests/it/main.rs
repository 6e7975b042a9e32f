//! The behaviour of the storage crate, as specifications.

mod append;
mod journal;
