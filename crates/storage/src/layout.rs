//! The fixed-size structures around the frames: segment head, footer, manifest slot, live page.
//!
//! The tables are in docs/format.md. Each structure ends with a CRC-32 of all its bytes before; decoding checks magic,
//! version, checksum, feature bits and ranges, in this order, and never looks at a clock or a file.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use byteorder::{ByteOrder, LittleEndian as LE};

use crate::error::Corruption;
use crate::record;

pub(crate) const VERSION: u16 = 1;
pub(crate) const HEAD_LEN: usize = 128;
pub(crate) const FOOTER_LEN: usize = 128;
/// A footer begins at a multiple of this, so that it lies in one sector.
pub(crate) const FOOTER_ALIGN: u64 = 512;
pub(crate) const SLOT_LEN: usize = 4096;
pub(crate) const LIVE_LEN: usize = 64;

pub(crate) const HEAD_MAGIC: &[u8; 8] = b"LOGMILLS";
const FOOTER_MAGIC: &[u8; 8] = b"LOGMILLF";
pub(crate) const MANIFEST_MAGIC: &[u8; 8] = b"LOGMILLM";
pub(crate) const LIVE_MAGIC: &[u8; 8] = b"LOGMILLL";
const HASH_XXH3_128: u16 = 1;
const OWNER_AT: usize = 130;

/// Every offset is below this, so that an offset and the counts that go with it never overflow.
pub(crate) const OFFSET_END: u64 = 1 << 63;
/// Positions in indexes have 32 bits, so no segment is longer.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 32;

/// What counts up at each recovery, store or rewriting must have a next number.
const NO_NEXT: Corruption = Corruption::Field("the last number that there is");

const _: () = assert!(FOOTER_ALIGN as usize >= FOOTER_LEN);
const _: () = assert!(SLOT_LEN.is_multiple_of(512));

/// This build knows no feature yet, so any bit that is set is unknown. Returns those with which a file may be read all the
/// same, and not be written.
fn read_only_features(incompatible: u32, read_only: u32) -> Result<u32, Corruption> {
    match incompatible {
        0 => Ok(read_only),
        unknown => Err(Corruption::Features { unknown }),
    }
}

/// Whether a file with these read-only-compatible features may be written.
fn check_writable(features: u32) -> Result<(), Corruption> {
    match features {
        0 => Ok(()),
        unknown => Err(Corruption::Features { unknown }),
    }
}

fn check(bytes: &[u8], magic: &[u8; 8], version: Option<u16>) -> Result<(), Corruption> {
    let body = bytes.split_last_chunk().filter(|_| bytes.starts_with(magic));
    let (body, crc) = body.ok_or(Corruption::Magic)?;
    if let Some(found) = version.filter(|version| *version != VERSION) {
        return Err(Corruption::Version { found });
    }
    let (expected, found) = (crc32fast::hash(body), u32::from_le_bytes(*crc));
    if expected == found { Ok(()) } else { Err(Corruption::Checksum { expected, found }) }
}

pub(crate) fn seal(bytes: &mut [u8]) {
    let (body, crc) = bytes.split_last_chunk_mut().expect("a structure ends with its checksum");
    *crc = crc32fast::hash(body).to_le_bytes();
}

fn array16(bytes: &[u8]) -> [u8; 16] {
    let mut array = [0; 16];
    array.copy_from_slice(bytes);
    array
}

/// The first 128 bytes of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentHead {
    /// Bits of features that this build does not know and that forbid it to write the file, and not to read it.
    pub read_only_features: u32,
    /// The log that it belongs to.
    pub log_id: [u8; 16],
    /// No record in it has a smaller offset.
    pub base_offset: u64,
    /// The log epoch of every frame in it.
    pub epoch: u32,
    /// How often it was rewritten with records left out.
    pub generation: u32,
    /// What the frames' timestamps count from, ms since 1970.
    pub base_timestamp: i64,
    /// The hash by which the next segment knows the ones that this one replaces; zero unless compacted.
    pub superseded_hash: [u8; 16],
}

impl SegmentHead {
    pub(crate) fn encode(&self) -> [u8; HEAD_LEN] {
        let mut b = [0; HEAD_LEN];
        b[..8].copy_from_slice(HEAD_MAGIC);
        LE::write_u16(&mut b[8..], VERSION);
        LE::write_u16(&mut b[10..], HEAD_LEN as u16);
        LE::write_u32(&mut b[16..], self.read_only_features);
        b[24..40].copy_from_slice(&self.log_id);
        LE::write_u64(&mut b[40..], self.base_offset);
        LE::write_u32(&mut b[48..], self.epoch);
        LE::write_u32(&mut b[52..], self.generation);
        LE::write_i64(&mut b[56..], self.base_timestamp);
        b[64..80].copy_from_slice(&self.superseded_hash);
        seal(&mut b);
        b
    }

    pub(crate) fn check_writable(&self) -> Result<(), Corruption> {
        check_writable(self.read_only_features)
    }

    pub(crate) fn decode(b: &[u8; HEAD_LEN]) -> Result<SegmentHead, Corruption> {
        check(b, HEAD_MAGIC, Some(LE::read_u16(&b[8..])))?;
        let read_only_features =
            read_only_features(LE::read_u32(&b[12..]), LE::read_u32(&b[16..]))?;
        if LE::read_u16(&b[10..]) as usize != HEAD_LEN || b[80..124] != [0; 44] {
            return Err(Corruption::Field("segment head"));
        }
        let base_offset = LE::read_u64(&b[40..]);
        if base_offset >= OFFSET_END {
            return Err(Corruption::Field("an offset beyond 63 bits"));
        }
        let (epoch, generation) = (LE::read_u32(&b[48..]), LE::read_u32(&b[52..]));
        if epoch.max(generation) == u32::MAX {
            return Err(NO_NEXT);
        }
        Ok(SegmentHead {
            read_only_features,
            log_id: array16(&b[24..40]),
            base_offset,
            epoch,
            generation,
            base_timestamp: record::timestamp(0, LE::read_i64(&b[56..]))?,
            superseded_hash: array16(&b[64..80]),
        })
    }
}

/// The last 128 bytes of a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Footer {
    /// As in the head.
    pub epoch: u32,
    /// As in the head.
    pub log_id: [u8; 16],
    /// As in the head.
    pub base_offset: u64,
    /// One past the last offset of the segment.
    pub end_offset: u64,
    /// How many records the segment holds.
    pub count: u64,
    /// The position after the last frame.
    pub data_end: u64,
    /// The largest timestamp, ms since 1970; the least i64 if there is no record.
    pub max_timestamp: i64,
    /// The smallest timestamp, ms since 1970; the greatest i64 if there is no record.
    pub min_timestamp: i64,
    /// XXH3-128 of all bytes before `data_end`.
    pub hash: [u8; 16],
    /// When the footer was written, ms since 1970.
    pub sealed_at: i64,
    /// The hash of the segment before this one as it was when this one was sealed; zero: there was none.
    pub previous_hash: [u8; 16],
}

impl Footer {
    /// Where the footer begins in a segment whose frames end at `data_end`.
    pub(crate) const fn position(data_end: u64) -> u64 {
        data_end.next_multiple_of(FOOTER_ALIGN)
    }

    /// Bytes of the whole file.
    pub(crate) const fn file_len(&self) -> u64 {
        Footer::position(self.data_end).saturating_add(FOOTER_LEN as u64)
    }

    pub(crate) fn encode(&self) -> [u8; FOOTER_LEN] {
        let mut b = [0; FOOTER_LEN];
        b[..8].copy_from_slice(FOOTER_MAGIC);
        LE::write_u16(&mut b[8..], VERSION);
        LE::write_u16(&mut b[10..], HASH_XXH3_128);
        LE::write_u32(&mut b[12..], self.epoch);
        b[16..32].copy_from_slice(&self.log_id);
        LE::write_u64(&mut b[32..], self.base_offset);
        LE::write_u64(&mut b[40..], self.end_offset);
        LE::write_u64(&mut b[48..], self.count);
        LE::write_u64(&mut b[56..], self.data_end);
        LE::write_i64(&mut b[64..], self.max_timestamp);
        LE::write_i64(&mut b[72..], self.min_timestamp);
        b[80..96].copy_from_slice(&self.hash);
        LE::write_i64(&mut b[96..], self.sealed_at);
        b[104..120].copy_from_slice(&self.previous_hash);
        seal(&mut b);
        b
    }

    pub(crate) fn decode(b: &[u8; FOOTER_LEN]) -> Result<Footer, Corruption> {
        check(b, FOOTER_MAGIC, Some(LE::read_u16(&b[8..])))?;
        let footer = Footer {
            epoch: LE::read_u32(&b[12..]),
            log_id: array16(&b[16..32]),
            base_offset: LE::read_u64(&b[32..]),
            end_offset: LE::read_u64(&b[40..]),
            count: LE::read_u64(&b[48..]),
            data_end: LE::read_u64(&b[56..]),
            max_timestamp: LE::read_i64(&b[64..]),
            min_timestamp: LE::read_i64(&b[72..]),
            hash: array16(&b[80..96]),
            sealed_at: LE::read_i64(&b[96..]),
            previous_hash: array16(&b[104..120]),
        };
        let plausible = LE::read_u16(&b[10..]) == HASH_XXH3_128
            && b[120..124] == [0; 4]
            && footer.end_offset < OFFSET_END
            && footer
                .end_offset
                .checked_sub(footer.base_offset)
                .is_some_and(|span| footer.count <= span)
            && (HEAD_LEN as u64..=SEGMENT_BYTES_MAX).contains(&footer.data_end);
        if plausible { Ok(footer) } else { Err(Corruption::Field("footer")) }
    }
}

/// Whether the log was closed, or has been open since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A writer has it open, or died.
    Open,
    /// Closed: the proven point is the end.
    Clean,
}

/// One slot of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Manifest {
    /// Bits of features that this build does not know and that forbid it to write the log, and not to read it.
    pub read_only_features: u32,
    /// The valid slot with the larger one counts.
    pub generation: u64,
    /// Random, given once when the log was made.
    pub log_id: [u8; 16],
    /// The log epoch.
    pub epoch: u32,
    /// Whether the log was closed.
    pub state: State,
    /// The first offset that is there.
    pub start_offset: u64,
    /// Everything below is durable; recovery begins to scan here.
    pub proven: Proven,
    /// Which start of the machine this was written in.
    pub boot_id: [u8; 16],
    /// When the log was made, ms since 1970.
    pub created_at: i64,
    /// Some frame carries an idempotent producer.
    pub has_producers: bool,
    /// Bytes of whoever owns the log.
    pub owner: Vec<u8>,
}

/// A point in the log below which everything is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proven {
    /// Every smaller offset is durable.
    pub offset: u64,
    /// The base offset of the segment that holds the point.
    pub segment: u64,
    /// Where in that segment it is.
    pub position: u64,
    /// Of the records of that segment below the point; the least i64 if there are none.
    pub max_timestamp: i64,
}

impl Manifest {
    #[expect(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        reason = "an owner comes from a slot, so it fits into one"
    )]
    pub(crate) fn encode(&self) -> [u8; SLOT_LEN] {
        let mut b = [0; SLOT_LEN];
        b[..8].copy_from_slice(MANIFEST_MAGIC);
        LE::write_u16(&mut b[8..], VERSION);
        #[expect(clippy::cast_possible_truncation, reason = "a slot is 4,096 bytes")]
        LE::write_u16(&mut b[10..], (OWNER_AT + self.owner.len()) as u16);
        LE::write_u32(&mut b[16..], self.read_only_features);
        LE::write_u64(&mut b[24..], self.generation);
        b[32..48].copy_from_slice(&self.log_id);
        LE::write_u32(&mut b[48..], self.epoch);
        LE::write_u32(&mut b[52..], u32::from(self.state == State::Clean));
        LE::write_u64(&mut b[56..], self.start_offset);
        LE::write_u64(&mut b[64..], self.proven.offset);
        LE::write_u64(&mut b[72..], self.proven.segment);
        LE::write_u64(&mut b[80..], self.proven.position);
        b[88..104].copy_from_slice(&self.boot_id);
        LE::write_i64(&mut b[104..], self.created_at);
        LE::write_u64(&mut b[112..], u64::from(self.has_producers));
        LE::write_i64(&mut b[120..], self.proven.max_timestamp);
        #[expect(clippy::cast_possible_truncation, reason = "a slot is 4,096 bytes")]
        LE::write_u16(&mut b[128..], self.owner.len() as u16);
        b[OWNER_AT..OWNER_AT + self.owner.len()].copy_from_slice(&self.owner);
        seal(&mut b);
        b
    }

    pub(crate) fn check_writable(&self) -> Result<(), Corruption> {
        check_writable(self.read_only_features)
    }

    pub(crate) fn decode(b: &[u8; SLOT_LEN]) -> Result<Manifest, Corruption> {
        check(b, MANIFEST_MAGIC, Some(LE::read_u16(&b[8..])))?;
        let read_only_features =
            read_only_features(LE::read_u32(&b[12..]), LE::read_u32(&b[16..]))?;
        let owner = b[OWNER_AT..SLOT_LEN - 4]
            .get(..LE::read_u16(&b[128..]) as usize)
            .ok_or(Corruption::Field("length of the owner's configuration"))?;
        let offsets = [LE::read_u64(&b[56..]), LE::read_u64(&b[64..]), LE::read_u64(&b[72..])];
        if offsets.iter().any(|offset| *offset >= OFFSET_END) {
            return Err(Corruption::Field("an offset beyond 63 bits"));
        }
        let [start_offset, offset, segment] = offsets;
        let position = LE::read_u64(&b[80..]);
        if segment > offset || segment == offset && position > HEAD_LEN as u64 {
            return Err(Corruption::Field("proven point"));
        }
        let (generation, epoch) = (LE::read_u64(&b[24..]), LE::read_u32(&b[48..]));
        if generation == u64::MAX || epoch == u32::MAX {
            return Err(NO_NEXT);
        }
        Ok(Manifest {
            read_only_features,
            generation,
            log_id: array16(&b[32..48]),
            epoch,
            state: match LE::read_u32(&b[52..]) {
                0 => State::Open,
                1 => State::Clean,
                _ => return Err(Corruption::Field("state of the log")),
            },
            start_offset,
            proven: Proven { offset, segment, position, max_timestamp: LE::read_i64(&b[120..]) },
            boot_id: array16(&b[88..104]),
            created_at: LE::read_i64(&b[104..]),
            has_producers: match LE::read_u64(&b[112..]) {
                0 => false,
                1 => true,
                _ => return Err(Corruption::Field("flags of the manifest")),
            },
            owner: owner.to_vec(),
        })
    }
}

/// What the running writer has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Live {
    /// The log that it belongs to.
    pub log_id: [u8; 16],
    /// The epoch in which it was written.
    pub epoch: u32,
    /// The writer stores through a mapping: then what it has stored is in the segment alone.
    pub mapped: bool,
    /// Everything below was durable when this was written.
    pub durable: u64,
    /// Everything below was stored; 0 if the writer stores through a mapping.
    pub stored: u64,
    /// The first bytes of the boot id; `stored` counts within the same boot only.
    pub boot: [u8; 8],
}

impl Live {
    pub(crate) fn encode(&self) -> [u8; LIVE_LEN] {
        let mut b = [0; LIVE_LEN];
        b[..8].copy_from_slice(LIVE_MAGIC);
        b[8..24].copy_from_slice(&self.log_id);
        LE::write_u32(&mut b[24..], self.epoch);
        LE::write_u32(&mut b[28..], self.mapped.into());
        LE::write_u64(&mut b[32..], self.durable);
        LE::write_u64(&mut b[40..], self.stored);
        b[48..56].copy_from_slice(&self.boot);
        seal(&mut b);
        b
    }

    pub(crate) fn decode(b: &[u8; LIVE_LEN]) -> Result<Live, Corruption> {
        check(b, LIVE_MAGIC, None)?;
        let (durable, stored) = (LE::read_u64(&b[32..]), LE::read_u64(&b[40..]));
        if durable.max(stored) >= OFFSET_END {
            return Err(Corruption::Field("an offset beyond 63 bits"));
        }
        let mut boot = [0; 8];
        boot.copy_from_slice(&b[48..56]);
        Ok(Live {
            log_id: array16(&b[8..24]),
            epoch: LE::read_u32(&b[24..]),
            mapped: match LE::read_u32(&b[28..]) {
                0 => false,
                1 => true,
                _ => return Err(Corruption::Field("write path of the live page")),
            },
            durable,
            stored,
            boot,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fuzzing found that a segment could say to begin so near the last u64 that its frames' offsets overflowed: a panic
    /// where overflow is checked, and records at wrong offsets where it is not.
    #[test]
    fn a_head_with_an_offset_beyond_63_bits_is_refused() {
        let mut head = SegmentHead {
            read_only_features: 0,
            log_id: [7; 16],
            base_offset: OFFSET_END - 1,
            epoch: 1,
            generation: 0,
            base_timestamp: 0,
            superseded_hash: [0; 16],
        };
        assert_eq!(SegmentHead::decode(&head.encode()), Ok(head.clone()));
        head.base_offset = OFFSET_END;
        let refused = Corruption::Field("an offset beyond 63 bits");
        assert_eq!(SegmentHead::decode(&head.encode()), Err(refused));
    }

    #[test]
    fn a_head_that_is_summed_rightly_and_makes_no_sense_is_refused() {
        let head = SegmentHead {
            read_only_features: 6,
            log_id: [7; 16],
            base_offset: 10,
            epoch: 1,
            generation: 0,
            base_timestamp: 0,
            superseded_hash: [0; 16],
        };
        let with = |at: usize, value: u8| {
            let mut bytes = head.encode();
            bytes[at] = value;
            seal(&mut bytes);
            SegmentHead::decode(&bytes)
        };
        assert_eq!(with(16, 6), Ok(head.clone()), "what it may not write, it may read");
        assert_eq!(head.check_writable(), Err(Corruption::Features { unknown: 6 }));
        assert_eq!(with(16, 0).unwrap().check_writable(), Ok(()));
        assert_eq!(with(12, 1), Err(Corruption::Features { unknown: 1 }));
        for at in [10, 80, 123] {
            assert_eq!(with(at, 1), Err(Corruption::Field("segment head")), "{at}");
        }
    }

    fn manifest() -> Manifest {
        Manifest {
            read_only_features: 0,
            generation: 3,
            log_id: [7; 16],
            epoch: 2,
            state: State::Open,
            start_offset: 5,
            proven: Proven { offset: 9, segment: 6, position: 200, max_timestamp: 4 },
            boot_id: [1; 16],
            created_at: 8,
            has_producers: true,
            owner: b"a queue".to_vec(),
        }
    }

    #[test]
    fn a_manifest_has_room_for_as_long_an_owner_as_its_slot_has_bytes_left() {
        let room = SLOT_LEN - 4 - OWNER_AT;
        for len in [0, 1, room] {
            let manifest = Manifest { owner: vec![9; len], ..manifest() };
            let mut bytes = manifest.encode();
            assert_eq!(usize::from(LE::read_u16(&bytes[10..])), OWNER_AT + len);
            assert_eq!(Manifest::decode(&bytes), Ok(manifest));
            LE::write_u16(&mut bytes[128..], room as u16 + 1);
            seal(&mut bytes);
            let refused = Corruption::Field("length of the owner's configuration");
            assert_eq!(Manifest::decode(&bytes), Err(refused));
        }
    }

    #[test]
    fn a_manifest_that_is_summed_rightly_and_makes_no_sense_is_refused() {
        let with = |change: fn(&mut Manifest)| {
            let mut changed = manifest();
            change(&mut changed);
            Manifest::decode(&changed.encode()).map(|manifest| manifest.check_writable())
        };
        let features = |unknown| Corruption::Features { unknown };
        assert_eq!(with(|_| {}), Ok(Ok(())));
        assert_eq!(with(|manifest| manifest.read_only_features = 6), Ok(Err(features(6))));
        let mut bytes = manifest().encode();
        bytes[12] = 1;
        seal(&mut bytes);
        assert_eq!(Manifest::decode(&bytes), Err(features(1)));
        // A segment without frames begins at the end.
        let point = |segment, position| {
            let proven = Proven { segment, position, ..manifest().proven };
            Manifest::decode(&Manifest { proven, ..manifest() }.encode()).map(|_| ())
        };
        assert_eq!(point(9, HEAD_LEN as u64), Ok(()));
        for (segment, position) in [(9, HEAD_LEN as u64 + 1), (10, HEAD_LEN as u64)] {
            assert_eq!(point(segment, position), Err(Corruption::Field("proven point")));
        }
        assert_eq!(with(|manifest| manifest.generation = u64::MAX), Err(NO_NEXT));
        assert_eq!(with(|manifest| manifest.epoch = u32::MAX), Err(NO_NEXT));
    }

    /// Every flipped bit is the checksum's to find. What follows is summed rightly, by somebody who means harm or a writer that is
    /// wrong.
    #[test]
    fn a_footer_that_is_summed_rightly_and_makes_no_sense_is_refused() {
        let footer = Footer {
            epoch: 1,
            log_id: [7; 16],
            base_offset: 10,
            end_offset: 20,
            count: 10,
            data_end: HEAD_LEN as u64,
            max_timestamp: 5,
            min_timestamp: 4,
            hash: [3; 16],
            sealed_at: 6,
            previous_hash: [2; 16],
        };
        let with = |at: usize, value: u64, width: usize| {
            let mut bytes = footer.encode();
            bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            seal(&mut bytes);
            Footer::decode(&bytes)
        };
        assert_eq!(with(40, 20, 8), Ok(footer.clone()));
        assert_eq!(
            with(56, SEGMENT_BYTES_MAX, 8).map(|footer| footer.data_end),
            Ok(SEGMENT_BYTES_MAX)
        );
        for (at, value, width) in [
            (10, u64::from(HASH_XXH3_128) + 1, 2),
            (123, 1, 1),
            (40, OFFSET_END, 8),
            (40, 9, 8),
            (48, 11, 8),
            (56, HEAD_LEN as u64 - 1, 8),
            (56, SEGMENT_BYTES_MAX + 1, 8),
        ] {
            assert_eq!(with(at, value, width), Err(Corruption::Field("footer")), "{value} at {at}");
        }
    }

    #[test]
    fn a_live_page_that_is_summed_rightly_and_makes_no_sense_is_refused() {
        let page = Live {
            log_id: [7; 16],
            epoch: 1,
            mapped: true,
            durable: OFFSET_END - 1,
            stored: OFFSET_END - 1,
            boot: [1; 8],
        };
        assert_eq!(Live::decode(&page.encode()), Ok(page));
        for wrong in [Live { durable: OFFSET_END, ..page }, Live { stored: OFFSET_END, ..page }] {
            let refused = Corruption::Field("an offset beyond 63 bits");
            assert_eq!(Live::decode(&wrong.encode()), Err(refused));
        }
        let mut bytes = page.encode();
        bytes[28] = 2;
        seal(&mut bytes);
        let refused = Corruption::Field("write path of the live page");
        assert_eq!(Live::decode(&bytes), Err(refused));
    }
}
