//! How streams behave, seen from outside.

mod support;
mod topics;
