//! Where an entry is, in 48 bits: its journal offset, and bit 47 for the cold part.

use logmill_storage::{Part, Place};

pub(crate) const COLD: u64 = 1 << 47;

/// # Panics
/// Beyond 2^47 entries in one part.
pub(crate) fn of(place: Place) -> u64 {
    let offset = place.offset();
    assert!(offset < COLD, "a journal offset beyond 47 bits");
    match place.part() {
        Part::Hot => offset,
        Part::Cold => offset | COLD,
    }
}

pub(crate) fn place(location: u64) -> Place {
    let part = if location & COLD == 0 { Part::Hot } else { Part::Cold };
    Place::new(part, location & !COLD)
}

/// Whether an entry lies in `part` below `upto`.
pub(crate) fn is_below(location: u64, part: Part, upto: u64) -> bool {
    let place = place(location);
    place.part() == part && place.offset() < upto
}
