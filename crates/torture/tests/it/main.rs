//! The torture crate at work on storage, in each run of the tests.

mod crash;
