//! What the fuzz target `codec` holds the decoders to, without a file between: built with `--cfg fuzzing` only.

use super::*;
use crate::index::IndexFile;
use crate::layout::{self, Footer, Live, Manifest, SegmentHead};
use crate::record::{Header, Record};

const BASE: u64 = 1_000;

fn scope() -> Scope {
    Scope::new(b"log of a fuzzer.", 7, BASE, 1_700_000_000_000)
}

/// A frame whose checksums are right is refused, or a copy as compaction writes it says the same.
pub fn frame(delta: u32, flags: u16, body: &[u8]) {
    let mut bytes = vec![0; HEAD_LEN];
    LE::write_u32(&mut bytes[4..8], u32::try_from(body.len()).expect("a fuzzer's input is short"));
    LE::write_u32(&mut bytes[8..12], delta);
    LE::write_u16(&mut bytes[12..14], flags);
    bytes.extend_from_slice(body);
    encode::seal(&scope(), &mut bytes);
    let Ok((spec, records)) = read(&bytes) else { return };
    for compression in [spec.compression, Compression::None, Compression::Lz4] {
        let (copy, same) = read(&copied(&spec, &records, compression)).expect("a copy can be read");
        assert_eq!(
            (FrameSpec { compression, ..copy }, same),
            (FrameSpec { compression, ..spec }, records.clone())
        );
    }
}

/// A block whose checksum is right is refused, or encodes to what says the same.
pub fn block(bytes: &[u8]) {
    again(bytes, |b| SegmentHead::decode(b).ok(), SegmentHead::encode);
    again(bytes, |b| Footer::decode(b).ok(), Footer::encode);
    again(bytes, |b| Manifest::decode(b).ok(), Manifest::encode);
    again(bytes, |b| Live::decode(b).ok(), Live::encode);
    let _ = std::hint::black_box(IndexFile::decode(bytes));
}

fn again<const N: usize, T: PartialEq + std::fmt::Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8; N]) -> Option<T>,
    encode: impl Fn(&T) -> [u8; N],
) {
    let Some(block) = bytes.first_chunk() else { return };
    let mut block = *block;
    layout::seal(&mut block);
    if let Some(said) = decode(&block) {
        assert_eq!(decode(&encode(&said)), Some(said));
    }
}

fn read(bytes: &[u8]) -> Result<(FrameSpec, Vec<RecordBuf>), Corruption> {
    let head = bytes.first_chunk().ok_or(Corruption::Field("frame head"))?;
    let head = FrameHead::decode(&scope(), head)?.ok_or(Corruption::Field("zeros"))?;
    head.verify(&scope(), bytes)?;
    let mut scratch = Vec::new();
    let batch = Batch::decode(&scope(), head, bytes, &mut scratch)?;
    let records = batch.records().map(|r| r.map(RecordBuf::from)).collect::<Result<_, _>>()?;
    Ok((batch.copied(), records))
}

fn copied(spec: &FrameSpec, records: &[RecordBuf], compression: Compression) -> Vec<u8> {
    let spec = FrameSpec { compression, ..*spec };
    let headers: Vec<Vec<Header<'_>>> = records
        .iter()
        .map(|r| r.headers.iter().map(|(name, value)| Header { name, value }).collect())
        .collect();
    let plain = records.iter().zip(&headers).map(|(record, headers)| {
        let delta = u32::try_from(record.offset - spec.base_offset).expect("a delta of 32 bits");
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        (delta, record.timestamp, Record { key, value, headers, timestamp: Some(record.timestamp) })
    });
    let mut out = Vec::new();
    Encoder::default().sparse(&mut out, &scope(), &spec, plain);
    out
}
