//! How streams behave, seen from outside.

mod groups;
mod support;
mod topics;
