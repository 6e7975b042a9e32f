//! placeholder until the modules below are in
#![deny(unsafe_code)]
pub mod clock;
mod error;
pub mod io;
mod record;
mod varint;

pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{Corruption, Error, Result};
pub use record::{Header, Headers, Record, RecordView};
