//! How streams behave, seen from outside.

mod background;
mod groups;
mod journal;
mod producers;
mod replay;
mod shares;
mod support;
mod topics;
