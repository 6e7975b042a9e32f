//! The frame grammar, group by group, against golden bytes; and bytes that nobody should have written.

use super::*;
use crate::record::{Header, Record};

const BASE: u64 = 1_000;
const BASE_MS: i64 = 1_700_000_000_000;

fn scope() -> Scope {
    Scope::new(b"golden log id 16", 7, BASE, BASE_MS)
}

/// The bytes of a text in which everything from `#` to the end of the line is a comment.
fn bytes_of(text: &str) -> Vec<u8> {
    text.lines()
        .flat_map(|line| line.split('#').next().unwrap_or("").split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

/// A frame of this delta, flags and body, with the checksums that it should have.
fn frame(delta: u32, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = [0; HEAD_LEN];
    LE::write_u32(&mut frame[4..8], body.len() as u32);
    LE::write_u32(&mut frame[8..12], delta);
    LE::write_u16(&mut frame[12..14], flags);
    let head_crc = scope().head_crc(&frame);
    LE::write_u16(&mut frame[14..16], head_crc);
    let mut frame = [&frame, body].concat();
    let crc = scope().crc(&frame[4..]);
    LE::write_u32(&mut frame[0..4], crc);
    frame
}

fn head_of(scope: &Scope, bytes: &[u8]) -> Result<FrameHead, Corruption> {
    let first = bytes.first_chunk().ok_or(Corruption::Field("too short"))?;
    let head = FrameHead::decode(scope, first)?.ok_or(Corruption::Field("zeros"))?;
    if head.frame_len() != bytes.len() {
        return Err(Corruption::Field("length"));
    }
    head.verify(scope, bytes)?;
    Ok(head)
}

/// What a frame says, and its records.
fn read<T>(
    bytes: &[u8],
    look: impl FnOnce(&Batch<'_>) -> T,
) -> Result<(T, Vec<RecordBuf>), Corruption> {
    let head = head_of(&scope(), bytes)?;
    let mut scratch = Vec::new();
    let batch = Batch::decode(&scope(), head, bytes, &mut scratch)?;
    let records = batch.records().map(|r| r.map(RecordBuf::from)).collect::<Result<_, _>>()?;
    Ok((look(&batch), records))
}

fn records(bytes: &[u8]) -> Result<Vec<RecordBuf>, Corruption> {
    read(bytes, |_| ()).map(|(_, records)| records)
}

/// The frame that the encoder makes is the golden one, and the golden one reads back as what was encoded.
fn pin(golden: &str, spec: &FrameSpec, given: &[(u32, i64, Record<'_>)]) {
    let golden = bytes_of(golden);
    let mut out = b"what is there stays".to_vec();
    let before = out.len();
    let max = Encoder::default().sparse(&mut out, &scope(), spec, given.iter().copied());
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x} ")).collect::<String>();
    assert_eq!(hex(&out[before..]), hex(&golden));
    let ((), found) = read(&golden, |batch| {
        assert_eq!(batch.base_offset(), spec.base_offset);
        assert_eq!(batch.count() as usize, given.len());
        assert_eq!((batch.base_timestamp(), batch.max_timestamp()), (given[0].1, max));
        assert_eq!(batch.epoch(), 7);
        assert_eq!(batch.durable_upto(), spec.durable_upto);
        assert_eq!(batch.producer(), spec.producer);
        assert_eq!(batch.continues(), spec.continues);
        assert_eq!(batch.delete_horizon(), spec.delete_horizon);
        let last = spec.base_offset + u64::from(given[given.len() - 1].0);
        assert_eq!(batch.last_offset(), spec.last_offset.unwrap_or(last));
    })
    .unwrap();
    for ((delta, timestamp, record), found) in given.iter().zip(&found) {
        assert_eq!(found.offset, spec.base_offset + u64::from(*delta));
        assert_eq!(found.timestamp, *timestamp);
        assert_eq!(found.key.as_deref(), record.key);
        assert_eq!(found.value.as_deref(), record.value);
        let headers: Vec<_> = found.headers.iter().map(|(n, v)| (n.as_str(), &v[..])).collect();
        let given: Vec<_> = record.headers.iter().map(|h| (h.name, h.value)).collect();
        assert_eq!(headers, given);
    }
    assert_eq!(found.len(), given.len());
}

fn spec() -> FrameSpec {
    FrameSpec { base_offset: BASE, ..FrameSpec::default() }
}

#[test]
fn a_lone_record_has_no_group_but_its_timestamp() {
    pin(
        "01 e0 b2 8d  08 00 00 00  00 00 00 00  00 00  c1 a1  # crc, length 8, delta 0, no flags, head crc
         00                                                   # base timestamp: the segment's
         0c  00 00 00  01  00  00                             # attributes, deltas, no key, empty value, 0 headers",
        &spec(),
        &[(0, BASE_MS, Record::value(b""))],
    );
}

#[test]
fn count_and_largest_timestamp() {
    pin(
        "5e 39 6d ca  20 00 00 00  05 00 00 00  08 00  5e f9  # delta 5, COUNT
         01                                                   # 1 ms before the segment's timestamp
         03  64                                               # 3 records; the largest timestamp is 100 ms ahead
         0e  00 00 00  01  02 61  00
         10  00 c8 01 02  02 6b  01  00                       # 100 ms and 1 offset on; a key; no value
         16  00 02 04  01  02 63  02  02 6e  02 76            # a header n = v",
        &FrameSpec { base_offset: BASE + 5, ..spec() },
        &[
            (0, BASE_MS - 1, Record::value(b"a")),
            (1, BASE_MS + 99, Record::tombstone(b"k")),
            (2, BASE_MS, Record::value(b"c").headers(&[Header { name: "n", value: b"v" }])),
        ],
    );
}

#[test]
fn span_of_a_compacted_frame_whose_last_records_are_gone() {
    pin(
        "16 b9 07 2f  16 00 00 00  00 00 00 00  18 00  c3 88  # COUNT, SPAN
         00
         02  00
         c6 01                                                # last offset delta 199 = 1 + 198
         0e  00 00 06  01  02 61  00                          # offset delta 3
         10  00 00 84 02  01  02 62  00                       # offset delta 130",
        &FrameSpec { last_offset: Some(BASE + 199), ..spec() },
        &[(3, BASE_MS, Record::value(b"a")), (130, BASE_MS, Record::value(b"b"))],
    );
}

#[test]
fn durable_upto_of_an_earlier_segment() {
    pin(
        "60 35 dd 35  0b 00 00 00  00 00 00 00  20 00  60 3e  # DURABLE
         00
         ac 02                                                # 300 below the base offset
         0e  00 00 00  01  02 61  00",
        &FrameSpec { durable_upto: Some(BASE - 300), ..spec() },
        &[(0, BASE_MS, Record::value(b"a"))],
    );
}

#[test]
fn producer() {
    pin(
        "6a 26 e8 96  17 00 00 00  00 00 00 00  40 00  a1 34  # PRODUCER
         00
         08 07 06 05 04 03 02 01  0a 09  0e 0d 0c 0b          # id, epoch, base sequence
         0e  00 00 00  01  02 61  00",
        &FrameSpec {
            producer: Some(Producer {
                id: 0x0102_0304_0506_0708,
                epoch: 0x090A,
                sequence: 0x0B0C_0D0E,
            }),
            ..spec()
        },
        &[(0, BASE_MS, Record::value(b"a"))],
    );
}

#[test]
fn continuation() {
    pin(
        "cc 14 96 0a  09 00 00 00  00 00 00 00  00 02  d3 ab  # CONTINUATION
         00
         0e  00 00 00  01  02 61  00",
        &FrameSpec { continues: true, ..spec() },
        &[(0, BASE_MS, Record::value(b"a"))],
    );
}

#[test]
fn delete_horizon_counts_from_the_frames_base_timestamp() {
    pin(
        "40 c4 58 ec  0e 00 00 00  00 00 00 00  00 04  9f 15  # HORIZON
         cf 0f                                                # 1 s before the segment's timestamp
         d0 ff b2 52                                          # 86,401 s after the frame's
         0e  00 00 00  02 6b  01  00",
        &FrameSpec { delete_horizon: Some(BASE_MS + 86_400_000), ..spec() },
        &[(0, BASE_MS - 1_000, Record::tombstone(b"k"))],
    );
}

#[test]
fn all_groups_at_once_stand_in_the_order_of_their_bits() {
    pin(
        "80 e0 2e 8c  24 00 00 00  02 00 00 00  78 06  5f b5  # COUNT, SPAN, DURABLE, PRODUCER, CONTINUATION, HORIZON
         00
         02  00
         09
         01
         01 00 00 00 00 00 00 00  02 00  03 00 00 00
         01
         0e  00 00 00  01  02 61  00
         0e  00 00 02  01  02 62  00",
        &FrameSpec {
            base_offset: BASE + 2,
            durable_upto: Some(BASE + 1),
            producer: Some(Producer { id: 1, epoch: 2, sequence: 3 }),
            continues: true,
            delete_horizon: Some(BASE_MS - 1),
            last_offset: Some(BASE + 12),
            ..spec()
        },
        &[(0, BASE_MS, Record::value(b"a")), (1, BASE_MS, Record::value(b"b"))],
    );
}

/// One record `a`, as the records of a frame.
const ONE: [u8; 8] = [0x0E, 0, 0, 0, 1, 2, b'a', 0];

fn body(groups: &[u8], records: &[u8]) -> Vec<u8> {
    [groups, records].concat()
}

#[test]
fn flags_without_a_group_of_their_own_are_read_though_nobody_writes_them_yet() {
    for flag in [1 << 7, 1 << 8, 1 << 11] {
        assert_eq!(records(&frame(0, flag, &body(&[0], &ONE))).unwrap().len(), 1, "{flag:#x}");
    }
}

#[test]
fn flags_that_mean_nothing_are_refused() {
    for bit in 12..16 {
        let bytes = frame(0, 1 << bit, &body(&[0], &ONE));
        assert_eq!(records(&bytes), Err(Corruption::Field("frame head")), "bit {bit}");
    }
}

#[test]
fn codecs_that_this_version_does_not_read_are_refused_by_number() {
    for codec in [1, 2, 5, 6, 7] {
        let bytes = frame(0, codec, &body(&[0, 8], &ONE));
        assert_eq!(records(&bytes), Err(Corruption::Field("compression codec")), "{codec}");
    }
}

#[test]
fn zeros_are_no_frame_and_a_frame_is_never_empty() {
    assert_eq!(FrameHead::decode(&scope(), &[0; HEAD_LEN]), Ok(None));
    assert_eq!(head_of(&scope(), &frame(0, 0, &[])).err(), Some(Corruption::Field("frame head")));
}

#[test]
fn a_frame_of_another_log_epoch_or_segment_is_none_here() {
    let bytes = frame(0, 0, &body(&[0], &ONE));
    assert!(head_of(&scope(), &bytes).is_ok());
    for other in [
        Scope::new(b"golden log id 17", 7, BASE, BASE_MS),
        Scope::new(b"golden log id 16", 8, BASE, BASE_MS),
        Scope::new(b"golden log id 16", 7, BASE + 1, BASE_MS),
    ] {
        let head = bytes.first_chunk().unwrap();
        // Sixteen bits of checksum may agree by chance; all thirty-two may not.
        let passes = FrameHead::decode(&other, head)
            .is_ok_and(|head| head.is_some_and(|head| head.verify(&other, &bytes).is_ok()));
        assert!(!passes, "{other:?}");
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_of_a_frame_is_detected() {
    let golden = [
        frame(0, 0, &body(&[0], &ONE)),
        bytes_of(
            "80 e0 2e 8c 24 00 00 00 02 00 00 00 78 06 5f b5 00 02 00 09 01 01 00 00 00 00 00 00 00
             02 00 03 00 00 00 01 0e 00 00 00 01 02 61 00 0e 00 00 02 01 02 62 00",
        ),
    ];
    for golden in golden {
        assert!(records(&golden).is_ok());
        for len in 0..golden.len() {
            assert!(head_of(&scope(), &golden[..len]).is_err(), "length {len}");
        }
        for bit in 0..golden.len() * 8 {
            let mut bytes = golden.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(head_of(&scope(), &bytes).is_err(), "bit {bit}");
        }
    }
}

/// Bodies under valid checksums, and what is wrong with each.
#[test]
fn impossible_values_under_a_valid_checksum_are_refused() {
    let max = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1];
    let max_signed = [0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1];
    let million_records = body(&[0, 0xC0, 0x84, 0x3D, 0], &ONE);
    let huge_span = body(&[&[0, 1, 0], &max[..]].concat(), &ONE);
    let mut far = Vec::new();
    Record::value(b"").encode(&mut far, 1 << 61, 0);
    let cases: &[(&str, u16, Vec<u8>)] = &[
        ("a timestamp beyond 2^61 ms", 0, body(&[0], &far)),
        ("a varint that does not end", 0, vec![0x80; 9]),
        ("a varint that does not end", 0, vec![0xFF; 10]),
        ("a timestamp beyond 2^61 ms", 0, body(&max_signed, &ONE)),
        ("a timestamp beyond 2^61 ms", COUNT, body(&[&[0, 1], &max[..]].concat(), &ONE)),
        ("record count", COUNT, body(&[0, 0, 0], &ONE)),
        ("record count", COUNT, body(&[0, 2, 0], &ONE)),
        ("record count", COUNT, million_records),
        ("record count", COUNT, body(&[&[0], &max[..], &[0]].concat(), &ONE)),
        ("record count", 0, vec![0]),
        ("offset span", COUNT | SPAN, huge_span),
        ("offset span", SPAN, body(&[0, 0x80, 0x80, 0x80, 0x80, 0x10], &ONE)),
        ("durable_upto", DURABLE, body(&[0, 0xE9, 0x07], &ONE)),
        ("producer", PRODUCER, vec![0; 14]),
        ("producer", PRODUCER, body(&[&[0], &[0xFF; 14][..]].concat(), &ONE)),
        ("a timestamp beyond 2^61 ms", HORIZON, body(&[&[0], &max_signed[..]].concat(), &ONE)),
        ("uncompressed length", 3, body(&[&[0], &max[..]].concat(), &ONE)),
        ("uncompressed length", 3, body(&[0, 0xFF, 0xFF, 0xFF, 0x7F], &ONE)),
        ("compressed records", 3, body(&[0, 9], &[0xFF; 9])),
        ("compressed records", 3, body(&[0, 9], &[0x10, b'a', 5, 0, 0])),
        ("an empty record", 0, vec![0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("a negative length in a record", 0, body(&[0], &[1, 0, 0, 0, 1, 0, 0])),
        ("a record longer than its frame", 0, body(&[0], &[0x7E, 0, 0, 0, 1, 0, 0])),
        ("record attributes", 0, body(&[0], &[0x0C, 1, 0, 0, 1, 0, 0])),
        ("a record's offset delta out of order", 0, body(&[0], &[0x0C, 0, 0, 1, 1, 0, 0])),
        ("a record's offset delta out of order", 0, body(&[0], &[0x0C, 0, 0, 2, 1, 0, 0])),
        ("a negative length in a record", 0, body(&[0], &[0x0C, 0, 0, 0, 3, 0, 0])),
        ("a record longer than its frame", 0, body(&[0], &[0x0C, 0, 0, 0, 0x7E, 0, 0])),
        ("a negative header count", 0, body(&[0], &[0x0C, 0, 0, 0, 1, 0, 1])),
        ("a varint that does not end", 0, body(&[0], &[0x0C, 0, 0, 0, 1, 0, 0x7E])),
        ("bytes after a record's headers", 0, body(&[0], &[0x0E, 0, 0, 0, 1, 0, 0, 0])),
        ("a header name that is not UTF-8", 0, body(&[0], &[0x12, 0, 0, 0, 1, 0, 2, 2, 0xFF, 0])),
        ("bytes after the last record", 0, [&[0], &ONE[..], &ONE[..]].concat()),
        ("a record's offset delta out of order", COUNT, [&[0, 2, 0], &ONE[..], &ONE[..]].concat()),
    ];
    for (i, (what, flags, body)) in cases.iter().enumerate() {
        let found = records(&frame(0, *flags, body));
        assert_eq!(found, Err(Corruption::Field(what)), "case {i}: {flags:#x} {body:02x?}");
    }
}

#[cfg(feature = "zstd")]
#[test]
fn a_golden_zstd_frame_is_read() {
    let golden = bytes_of(
        "09 d4 57 7f  29 00 00 00  00 00 00 00  0c 00  23 86  # codec 4, COUNT
         00
         02  00
         ea 04                                                # 618 bytes of records
         28 b5 2f fd 60 6a 01 d5 00 00 78 e6 04 00 00 00      # one zstd frame
         01 d8 04 7a 00 e6 04 00 00 02 02 00 2d 38 4b 2d
         28 2a 38 02",
    );
    let values: Vec<_> = records(&golden).unwrap().into_iter().map(|r| r.value.unwrap()).collect();
    assert_eq!(values, vec![vec![b'z'; 300]; 2]);
}

#[test]
fn compression_is_left_out_where_it_would_not_help_and_never_changes_a_record() {
    let noise: Vec<u8> = (0..200u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let codecs: &[Compression] = if cfg!(feature = "zstd") {
        &[Compression::None, Compression::Lz4, Compression::Zstd]
    } else {
        &[Compression::None, Compression::Lz4]
    };
    for compression in codecs {
        for (value, shrinks) in [(vec![b'x'; 5_000], true), (noise.clone(), false)] {
            let mut out = Vec::new();
            let spec = FrameSpec { compression: *compression, ..spec() };
            Encoder::default().dense(&mut out, &scope(), &spec, &[Record::value(&value)], BASE_MS);
            let (codec, found) = read(&out, |batch| batch.codec()).unwrap();
            assert_eq!(found[0].value.as_deref(), Some(&value[..]));
            assert_eq!(codec != 0, shrinks && *compression != Compression::None);
            assert_eq!(out.len() < value.len(), codec != 0);
        }
    }
}

/// A short key is copied with what stands before it, a long one by itself.
#[test]
fn keys_and_values_of_every_length_about_that_of_a_short_key_read_back() {
    let bytes = [7; 300];
    for key in (0..40).map(Some).chain([None]) {
        for value in [None, Some(0), Some(1), Some(63), Some(64), Some(300)] {
            let part = |len: Option<usize>| len.map(|len| &bytes[..len]);
            let record = Record { key: part(key), value: part(value), ..Record::default() };
            let given = [(0, BASE_MS, record), (9, BASE_MS + 70_000, record)];
            let mut out = Vec::new();
            Encoder::default().sparse(&mut out, &scope(), &spec(), given.iter().copied());
            let found = records(&out).unwrap();
            let found = found.iter().map(|r| (r.key.as_deref(), r.value.as_deref(), r.timestamp));
            let given = given.iter().map(|(_, timestamp, r)| (r.key, r.value, *timestamp));
            assert!(found.eq(given), "{key:?} {value:?}");
        }
    }
}

/// A reader may stand anywhere in a batch. What it passes is only looked at; what makes no sense it meets as everybody does.
#[test]
fn records_below_a_position_are_passed_up_to_the_first_that_does_not_decode() {
    let from = |offset: u64, flags: u16, body: &[u8]| {
        let bytes = frame(0, flags, body);
        let (head, mut scratch) = (head_of(&scope(), &bytes).unwrap(), Vec::new());
        let batch = Batch::decode(&scope(), head, &bytes, &mut scratch).unwrap();
        let records = batch.starting_at(offset).records();
        records.map(|record| record.map(|record| record.offset)).collect::<Vec<_>>()
    };
    // Two records, the second at this offset delta, of this length.
    let second = |delta: u8, len: u8| {
        let bytes = [len, 0, 0, delta, 1, 2, b'b', 0];
        body(&[0, 2, 0, 1], &[ONE, bytes].concat())
    };
    let sound = second(4, 0x0E);
    for (offset, left) in [
        (0, &[BASE, BASE + 2][..]),
        (BASE, &[BASE, BASE + 2]),
        (BASE + 1, &[BASE + 2]),
        (BASE + 2, &[BASE + 2]),
        (BASE + 3, &[]),
        (u64::MAX, &[]),
    ] {
        let left: Vec<_> = left.iter().copied().map(Ok).collect();
        assert_eq!(from(offset, COUNT | SPAN, &sound), left, "from {offset}");
    }
    let order = "a record's offset delta out of order";
    for (what, delta, len) in [
        ("a record longer than its frame", 4, 0x7E),
        (order, 0, 0x0E),
        (order, 1, 0x0E),
        (order, 6, 0x0E),
    ] {
        let found = from(BASE + 9, COUNT | SPAN, &second(delta, len));
        assert_eq!(found, [Err(Corruption::Field(what))], "delta {delta}, length {len}");
    }
}

/// Flags of which this version writes none: Kafka's transactional, control and log-append-time batches.
#[test]
fn a_copy_of_a_batch_carries_the_flags_that_have_no_group_and_no_meaning_yet() {
    for carried in [1 << 7, 1 << 8, 1 << 11, 1 << 7 | 1 << 8 | 1 << 11] {
        let bytes = frame(0, carried, &body(&[0], &ONE));
        let (spec, _) = read(&bytes, |batch| batch.copied()).unwrap();
        let mut out = Vec::new();
        Encoder::default().dense(&mut out, &scope(), &spec, &[Record::value(b"a")], BASE_MS);
        assert_eq!(out, bytes, "{carried:#x}");
    }
}

#[test]
fn a_head_with_no_length_or_a_longer_one_than_any_is_refused() {
    let decode = |length: u32| {
        let mut head = [0; HEAD_LEN];
        LE::write_u32(&mut head[4..8], length);
        LE::write_u32(&mut head[8..12], 1);
        let crc = scope().head_crc(&head);
        LE::write_u16(&mut head[14..16], crc);
        FrameHead::decode(&scope(), &head).map(|head| head.map(|head| head.frame_len()))
    };
    // The largest record, and what goes with it.
    let most = (1 << 30) + (64 << 10) + (64 << 10);
    assert_eq!(decode(1), Ok(Some(17)));
    assert_eq!(decode(most), Ok(Some(most as usize + 16)));
    for length in [0, most + 1, u32::MAX] {
        assert_eq!(decode(length), Err(Corruption::Field("frame head")), "{length}");
    }
}

#[test]
fn what_unfolds_to_more_than_any_frame_holds_is_refused_before_there_is_memory_for_it() {
    let compressed = vec![0; 5 << 20];
    let refused = compress::decode(3, &compressed, (1 << 30) + (64 << 10) + 1, &mut Vec::new());
    assert_eq!(refused, Err(Corruption::Field("uncompressed length")));
}

#[test]
#[cfg(not(feature = "zstd"))]
fn what_unfolds_to_more_than_its_codec_can_shrink_is_refused_before_there_is_memory_for_it() {
    let compressed = [0; 100];
    let most = (100 + 16) * 256;
    for (len, damage) in [(most, "compressed records"), (most + 1, "uncompressed length")] {
        let refused = compress::decode(3, &compressed, len, &mut Vec::new());
        assert_eq!(refused, Err(Corruption::Field(damage)), "{len}");
    }
}

#[test]
#[cfg(not(feature = "zstd"))]
fn a_build_without_a_codec_is_not_asked_to_write_it() {
    use crate::error::Error;
    assert!(matches!(Compression::Zstd.check(), Err(Error::UnsupportedCodec { codec: 4 })));
    assert!(Compression::Lz4.check().is_ok());
}

#[test]
fn what_compression_does_not_make_smaller_is_stored_as_it_is() {
    let (mut as_long, mut smaller) = (0, 0);
    for repeated in 0..10 {
        let records: Vec<u8> = (0..10).chain(0..repeated).chain(100..120).collect();
        let compressed = lz4_flex::block::compress(&records).len();
        as_long += u32::from(compressed == records.len());
        smaller += u32::from(compressed < records.len());
        let codec = Compression::Lz4.encode(&records, &mut Vec::new());
        assert_eq!(codec == 3, compressed < records.len(), "{repeated}");
    }
    assert!(as_long > 0 && smaller > 0, "{as_long}, {smaller}");
}

#[test]
fn a_record_has_a_key_or_none() {
    assert!(Record::tombstone(b"").has_key());
    assert!(!Record::value(b"v").has_key());
}

#[test]
fn the_writer_counts_at_least_what_a_record_takes_however_many_headers_it_has() {
    for count in [0, 1, 1_000] {
        let headers = vec![Header { name: "a", value: b"" }; count];
        let record = Record::value(b"v").headers(&headers);
        let mut out = Vec::new();
        record.encode(&mut out, i64::MIN, u32::MAX);
        assert!(out.len() as u64 <= record.encoded_len_max(), "{count} headers");
    }
}

#[test]
fn a_record_in_memory_takes_its_parts_and_what_holds_them() {
    let record = RecordBuf {
        offset: 1,
        timestamp: 2,
        key: Some(Bytes::from_static(b"seven..")),
        value: Some(Bytes::from_static(b"thirteen.....")),
        headers: vec![("eleven.....".into(), Bytes::from_static(b"seventeen........")); 3],
    };
    let header = size_of::<(String, Bytes)>() + 11 + 17;
    assert_eq!(record.len_in_memory(), size_of::<RecordBuf>() + 7 + 13 + 3 * header);
    let bare = RecordBuf { key: None, value: None, headers: Vec::new(), ..record };
    assert_eq!(bare.len_in_memory(), size_of::<RecordBuf>());
}

#[test]
fn headers_know_how_many_of_them_are_left() {
    let given = [Header { name: "a", value: b"1" }, Header { name: "b", value: b"" }];
    for count in 0..=given.len() {
        let mut bytes = Vec::new();
        let record = Record::value(b"v").headers(&given[..count]);
        Encoder::default().dense(&mut bytes, &scope(), &spec(), &[record], BASE_MS);
        let check = |batch: &Batch<'_>| {
            let mut headers = batch.records().next().unwrap().unwrap().headers;
            for left in (0..=count).rev() {
                assert_eq!((headers.len(), headers.is_empty()), (left, left == 0));
                assert_eq!(headers.size_hint(), (left, Some(left)));
                assert_eq!(headers.next(), given[..count].get(count - left).copied());
            }
        };
        read(&bytes, check).unwrap();
    }
}

#[test]
fn a_record_weighs_what_it_carries_and_a_little_more() {
    let weight = |record: Record<'_>| {
        let mut bytes = Vec::new();
        Encoder::default().dense(&mut bytes, &scope(), &spec(), &[record], BASE_MS);
        read(&bytes, |batch| batch.records().next().unwrap().unwrap().weight()).unwrap().0
    };
    let headers = [Header { name: "name", value: b"value" }];
    assert_eq!(weight(Record::value(b"")), 8);
    assert_eq!(weight(Record::value(b"seven..")), 15);
    assert_eq!(weight(Record::value(b"seven..").key(b"three")), 20);
    // Each of a header's parts has its length before it.
    assert_eq!(weight(Record::value(b"seven..").headers(&headers)), 15 + 11);
}
