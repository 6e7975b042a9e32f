//! How streams behave, seen from outside.

mod asynchronous;
mod background;
mod conformance;
mod foreign;
mod full_disk;
mod groups;
mod journal;
mod load;
mod lost;
mod model;
mod poisoned;
mod producers;
mod replay;
mod shares;
mod support;
mod topics;
mod typed;
mod undelivered;
