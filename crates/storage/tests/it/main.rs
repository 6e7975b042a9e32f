//! The behaviour of the storage crate, as specifications.

#![expect(clippy::disallowed_methods, reason = "tests look at the files behind the engine's back")]

mod append;
mod intent;
mod journal;
mod lock;
mod space;
