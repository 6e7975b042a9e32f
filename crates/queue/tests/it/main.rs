//! The behaviour of queues, theme by theme.

mod basic;
mod model;
mod store;
