//! The behaviour of queues, theme by theme.

mod asynchronous;
mod basic;
mod carrying;
mod conformance;
mod limits;
mod model;
mod opening;
mod space;
mod store;
mod threads;
mod typed;
