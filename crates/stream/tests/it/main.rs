//! How streams behave, seen from outside.

mod groups;
mod producers;
mod support;
mod topics;
