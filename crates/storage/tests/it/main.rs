//! The behaviour of the storage crate, as specifications.

mod append;
mod format;
mod found;
mod golden;
mod intent;
mod journal;
mod lens;
mod lock;
mod size;
mod space;
