//! How streams behave, seen from outside.

mod groups;
mod journal;
mod producers;
mod shares;
mod support;
mod topics;
