//! One test for each row of the table of what queues promise that applies here, by its number; docs/queue.md has the rows
//! that do not.

mod core;
mod failure;
mod ordering;
mod scheduling;
