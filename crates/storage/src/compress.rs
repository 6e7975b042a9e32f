//! Codecs of a frame's records, with the numbers that Kafka gave them.

use crate::error::{Corruption, Error, Result};

/// How the records of a frame are compressed before they go to disk.
///
/// A frame that would not get smaller is stored as it is. Reading needs no setting: each frame names its codec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// As they are. The default: fastest, and right for data that is compressed already.
    #[default]
    None,
    /// LZ4 blocks (pure Rust): cheap, for text and JSON in batches.
    Lz4,
    /// Zstandard level 3: smaller and slower. Needs the feature `zstd`, to write and to read.
    Zstd,
}

/// The largest run of records that a frame may unfold to.
pub(crate) const UNCOMPRESSED_MAX: u64 = (1 << 30) + (64 << 10);

/// No codec here shrinks more than this, so a frame that claims it is hostile (lz4 cannot exceed 255).
const RATIO_MAX: u64 = if cfg!(feature = "zstd") { 1 << 15 } else { 256 };

pub(crate) const NONE: u8 = 0;
const LZ4: u8 = 3;
const ZSTD: u8 = 4;

impl Compression {
    /// Kafka's number of the codec: 0 none, 3 lz4, 4 zstd.
    pub const fn codec(self) -> u8 {
        match self {
            Compression::None => NONE,
            Compression::Lz4 => LZ4,
            Compression::Zstd => ZSTD,
        }
    }

    /// What a frame with Kafka's codec number was compressed with.
    pub(crate) const fn of_codec(codec: u8) -> Compression {
        match codec {
            LZ4 => Compression::Lz4,
            #[cfg(feature = "zstd")]
            ZSTD => Compression::Zstd,
            _ => Compression::None,
        }
    }

    pub(crate) fn check(self) -> Result<()> {
        match self {
            Compression::Zstd if cfg!(not(feature = "zstd")) => {
                Err(Error::UnsupportedCodec { codec: 4 })
            }
            _ => Ok(()),
        }
    }

    /// Compresses `records` into `out`, and returns the codec's number if that made them smaller.
    pub(crate) fn encode(self, records: &[u8], out: &mut Vec<u8>) -> u8 {
        out.clear();
        let codec = match self {
            Compression::None => return NONE,
            Compression::Lz4 => {
                out.resize(lz4_flex::block::get_maximum_output_size(records.len()), 0);
                match lz4_flex::block::compress_into(records, out) {
                    Ok(len) => out.truncate(len),
                    Err(_) => return NONE,
                }
                LZ4
            }
            #[cfg(feature = "zstd")]
            Compression::Zstd => {
                out.resize(zstd::zstd_safe::compress_bound(records.len()), 0);
                match zstd::bulk::compress_to_buffer(records, out.as_mut_slice(), 3) {
                    Ok(len) => out.truncate(len),
                    Err(_) => return NONE,
                }
                ZSTD
            }
            #[cfg(not(feature = "zstd"))]
            Compression::Zstd => return NONE,
        };
        if out.len() < records.len() { codec } else { NONE }
    }
}

/// Unfolds `compressed` into `out`, which must become exactly `len` bytes.
pub(crate) fn decode(
    codec: u8,
    compressed: &[u8],
    len: u64,
    out: &mut Vec<u8>,
) -> Result<(), Corruption> {
    if len > UNCOMPRESSED_MAX || len > (compressed.len() as u64 + 16) * RATIO_MAX {
        return Err(Corruption::Field("uncompressed length"));
    }
    let len = usize::try_from(len).map_err(|_| Corruption::Field("uncompressed length"))?;
    out.clear();
    out.try_reserve(len).map_err(|_| Corruption::Field("uncompressed length"))?;
    out.resize(len, 0);
    let unfolded = match codec {
        LZ4 => lz4_flex::block::decompress_into(compressed, out).ok(),
        #[cfg(feature = "zstd")]
        ZSTD => zstd::bulk::decompress_to_buffer(compressed, out.as_mut_slice()).ok(),
        _ => return Err(Corruption::Field("compression codec")),
    };
    if unfolded == Some(len) { Ok(()) } else { Err(Corruption::Field("compressed records")) }
}
