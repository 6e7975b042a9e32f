//! Share groups.
pub(crate) mod leases;
