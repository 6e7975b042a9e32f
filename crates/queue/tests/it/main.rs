//! The behaviour of queues, theme by theme.

mod basic;
mod conformance;
mod limits;
mod model;
mod space;
mod store;
mod threads;
