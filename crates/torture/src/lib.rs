//! Crashes, faults and planted bugs for the storage engine, on a simulated disk, by the million.
//!
//! An [`oracle`] outside of the store keeps what was promised; [`run`] plays a workload ([`op`]) on a machine; [`sim`] cuts
//! it at every call and [`examine`]s what is left. Everything follows from seeds, and every failure comes with a line
//! ([`case`]) that brings it back.

pub mod case;
pub mod check;
pub mod counts;
pub mod damage;
pub mod examine;
pub mod faults;
pub mod log_world;
pub mod op;
pub mod oracle;
pub mod planted;
pub mod queue;
pub mod random;
pub mod run;
pub mod setup;
pub mod sim;
pub mod store;
pub mod world;
