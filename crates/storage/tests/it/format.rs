//! A second reader of the byte format, written from docs/format.md alone: it shares no code with the engine.
//!
//! It turns a file into text, one field a line, hexadecimal bytes first, then `#` and what they mean, and it checks what
//! the page says must hold. [`bytes_of`] is the way back.

use std::fmt::{Display, Write};
use std::ops::Range;

/// The bytes that a text stands for. `00*384` is a run.
pub fn bytes_of(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.lines() {
        for word in line.split('#').next().unwrap_or("").split_whitespace() {
            let (byte, times) = word.split_once('*').unwrap_or((word, "1"));
            let byte = u8::from_str_radix(byte, 16).expect("two hexadecimal digits");
            bytes.extend(std::iter::repeat_n(byte, times.parse().expect("a count")));
        }
    }
    bytes
}

/// CRC-32/ISO-HDLC, bit by bit.
pub fn crc32(pieces: &[&[u8]]) -> u32 {
    let mut crc = !0u32;
    for byte in pieces.iter().copied().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

pub fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

struct Dump<'a> {
    bytes: &'a [u8],
    at: usize,
    text: String,
}

impl<'a> Dump<'a> {
    fn new(bytes: &'a [u8]) -> Dump<'a> {
        Dump { bytes, at: 0, text: String::new() }
    }

    fn title(&mut self, what: impl Display) {
        let _ = writeln!(self.text, "\n# {what}, at {}", self.at);
    }

    fn show(&mut self, bytes: &[u8], meaning: impl Display) {
        let mut meaning = Some(meaning.to_string());
        let is_run = bytes.len() > 16 && bytes.iter().all(|b| *b == bytes[0]);
        let lines: Vec<String> = if is_run {
            vec![format!("{:02x}*{}", bytes[0], bytes.len())]
        } else {
            let hex = |line: &[u8]| line.iter().map(|b| format!("{b:02x} ")).collect::<String>();
            bytes.chunks(16).map(hex).collect()
        };
        for line in lines {
            match meaning.take() {
                Some(meaning) => {
                    let _ = writeln!(self.text, "{:<48} # {meaning}", line.trim_end());
                }
                None => {
                    let _ = writeln!(self.text, "{}", line.trim_end());
                }
            }
        }
    }

    fn take(&mut self, width: usize, meaning: impl FnOnce(&[u8]) -> String) -> &'a [u8] {
        let all: &'a [u8] = self.bytes;
        let taken = &all[self.at..self.at + width];
        self.at += width;
        self.show(taken, meaning(taken));
        taken
    }

    fn number(&mut self, width: usize, name: &str) -> u64 {
        number(self.take(width, |b| format!("{name}: {}", number(b))))
    }

    fn signed(&mut self, width: usize, name: &str) -> i64 {
        let value = |b: &[u8]| {
            let shift = 64 - 8 * b.len() as u32;
            (number(b) << shift).cast_signed() >> shift
        };
        value(self.take(width, |b| format!("{name}: {}", value(b))))
    }

    fn hex(&mut self, width: usize, name: &str) -> u64 {
        number(self.take(width, |b| format!("{name}: {:#010x}", number(b))))
    }

    fn bytes(&mut self, width: usize, name: &str) -> &'a [u8] {
        self.take(width, |_| name.to_owned())
    }

    fn text(&mut self, width: usize, name: &str) -> &'a [u8] {
        self.take(width, |b| format!("{name} {:?}", String::from_utf8_lossy(b)))
    }

    fn zeros(&mut self, width: usize, name: &str) {
        if width > 0 {
            assert!(self.bytes(width, name).iter().all(|b| *b == 0), "{name} at {}", self.at);
        }
    }

    fn magic(&mut self, magic: &str) {
        assert_eq!(self.text(8, "magic"), magic.as_bytes());
    }

    fn features(&mut self) {
        for name in ["incompatible", "read-only-compatible", "compatible"] {
            assert_eq!(self.number(4, &format!("{name} feature bits")), 0);
        }
    }

    /// A CRC of everything from `start` to here.
    fn crc_since(&mut self, start: usize) {
        let expected = crc32(&[&self.bytes[start..self.at]]);
        assert_eq!(self.hex(4, "CRC-32 of the bytes above"), u64::from(expected));
    }

    fn varint(&mut self, name: &str, meaning: impl FnOnce(u64) -> i128) -> u64 {
        let width = 1 + self.bytes[self.at..].iter().position(|b| b & 0x80 == 0).expect("an end");
        let value = |b: &[u8]| b.iter().rev().fold(0u64, |v, b| v << 7 | u64::from(b & 0x7F));
        value(self.take(width, |b| format!("{name}: {}", meaning(value(b)))))
    }

    fn unsigned(&mut self, name: &str) -> u64 {
        self.varint(name, i128::from)
    }

    fn zigzag(&mut self, name: &str) -> i64 {
        unzigzag(self.varint(name, |v| i128::from(unzigzag(v))))
    }

    fn optional(&mut self, name: &str) {
        if let Ok(len) = usize::try_from(self.zigzag(&format!("    length of the {name}"))) {
            self.text(len, &format!("    {name}"));
        }
    }

    fn records(&mut self) -> u64 {
        let mut count = 0;
        while self.at < self.bytes.len() {
            let len = self.zigzag("  a record of this many bytes");
            let end = self.at + usize::try_from(len).expect("a length");
            assert_eq!(self.number(1, "    attributes"), 0);
            self.zigzag("    timestamp delta");
            self.zigzag("    offset delta");
            self.optional("key");
            self.optional("value");
            for _ in 0..self.zigzag("    headers") {
                self.optional("header's name");
                self.optional("header's value");
            }
            assert_eq!(self.at, end, "a record is as long as it says");
            count += 1;
        }
        count
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// A whole segment file, or what there is of one.
pub fn segment(bytes: &[u8]) -> String {
    let mut d = Dump::new(bytes);
    d.title("segment head");
    d.magic("LOGMILLS");
    assert_eq!(d.number(2, "format version"), 1);
    assert_eq!(d.number(2, "head length"), 128);
    d.features();
    let log_id = d.bytes(16, "log id");
    let base_offset = d.bytes(8, "base offset");
    let epoch = d.bytes(4, "log epoch");
    d.number(4, "generation");
    d.signed(8, "base timestamp");
    d.bytes(16, "hash of what it supersedes");
    d.zeros(16, "key id");
    d.zeros(28, "zero");
    d.crc_since(0);
    let seed = [log_id, epoch, base_offset];
    while d.at + 16 <= bytes.len() && bytes[d.at..d.at + 16] != [0; 16] {
        frame(&mut d, &seed);
    }
    let data_end = d.at;
    if bytes.len() > d.at {
        let rest = &bytes[d.at..];
        let zeros = rest.iter().position(|b| *b != 0).unwrap_or(rest.len());
        d.title("padding or reservation");
        d.zeros(zeros, "zero");
    }
    if d.at < bytes.len() {
        footer(&mut d, &seed, data_end);
    }
    assert_eq!(d.at, bytes.len());
    d.text
}

/// Where the frames of a segment are.
pub fn frames(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 128;
    std::iter::from_fn(move || {
        let head = bytes.get(at..at + 16)?;
        if *head == [0; 16] || head.starts_with(b"LOGMILLF") {
            return None;
        }
        let start = at;
        at += 16 + number(&head[4..8]) as usize;
        Some(start..at)
    })
}

/// Where the frames of a segment end.
pub fn data_end(bytes: &[u8]) -> usize {
    frames(bytes).last().map_or(128, |frame| frame.end)
}

fn frame(d: &mut Dump<'_>, seed: &[&[u8]; 3]) {
    let start = d.at;
    let body = &d.bytes[start + 4..];
    let length = number(&body[..4]) as usize;
    let seeded = |covered| crc32(&[seed[0], seed[1], seed[2], covered]);
    d.title("frame");
    assert_eq!(d.hex(4, "CRC-32, seeded"), u64::from(seeded(&body[..12 + length])));
    d.number(4, "length");
    d.number(4, "delta");
    let flags = d.take(2, |b| format!("flags: {:#018b}", number(b)));
    let flags = number(flags);
    assert_eq!(d.hex(2, "head CRC"), u64::from(seeded(&body[..10]) & 0xFFFF));
    let has = |bit: u32| flags & (1 << bit) != 0;
    assert_eq!(flags >> 12, 0);
    d.zigzag("base timestamp, from the segment's");
    let mut count = 1;
    if has(3) {
        count = d.unsigned("COUNT: records");
        d.unsigned("       largest timestamp, from the base timestamp");
    }
    if has(4) {
        d.unsigned("SPAN: offsets without a record");
    }
    if has(5) {
        d.unsigned("DURABLE: base offset - durable_upto");
    }
    if has(6) {
        d.number(8, "PRODUCER: id");
        d.number(2, "          epoch");
        d.number(4, "          base sequence");
    }
    for (bit, name) in [
        (7, "TRANSACTIONAL"),
        (8, "CONTROL"),
        (9, "CONTINUATION: the commit goes on"),
        (11, "LOG_APPEND_TIME"),
    ] {
        if has(bit) {
            let _ = writeln!(d.text, "{:48} # {name}", "");
        }
    }
    if has(10) {
        d.zigzag("HORIZON: tombstones may go, from the base timestamp");
    }
    let end = start + 16 + length;
    let found = match flags & 7 {
        0 => records(d, &d.bytes[d.at..end], true),
        3 => {
            let len = d.unsigned("length of the records before compression");
            let unfolded = unfold_lz4(d.bytes(end - d.at, "lz4 block; unfolded it is"));
            assert_eq!(unfolded.len() as u64, len);
            records(d, &unfolded, false)
        }
        codec => panic!("codec {codec}"),
    };
    assert_eq!(found, count);
    d.at = end;
}

fn records(d: &mut Dump<'_>, bytes: &[u8], in_place: bool) -> u64 {
    let mut inner = Dump::new(bytes);
    let count = inner.records();
    for line in inner.text.lines() {
        let _ = writeln!(d.text, "{}{line}", if in_place { "" } else { "#     " });
    }
    count
}

/// An LZ4 block: literals and copies of what came before.
pub fn unfold_lz4(mut block: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let take = |block: &mut &[u8], n: usize| {
        let (taken, rest) = block.split_at(n);
        *block = rest;
        taken.to_vec()
    };
    let long = |block: &mut &[u8], nibble: u8| {
        let (mut len, mut last) = (usize::from(nibble), nibble | 0xF0);
        while last == 255 {
            last = take(block, 1)[0];
            len += usize::from(last);
        }
        len
    };
    while !block.is_empty() {
        let token = take(&mut block, 1)[0];
        let literals = long(&mut block, token >> 4);
        out.extend(take(&mut block, literals));
        if block.is_empty() {
            break;
        }
        let back = number(&take(&mut block, 2)) as usize;
        for _ in 0..long(&mut block, token & 15) + 4 {
            out.push(out[out.len() - back]);
        }
    }
    out
}

fn footer(d: &mut Dump<'_>, seed: &[&[u8]; 3], data_end: usize) {
    let start = d.at;
    d.title("footer");
    assert_eq!((start % 512, start), (0, data_end.next_multiple_of(512)));
    d.magic("LOGMILLF");
    assert_eq!(d.number(2, "format version"), 1);
    assert_eq!(d.number(2, "hash algorithm"), 1);
    assert_eq!(d.bytes(4, "log epoch"), seed[1]);
    assert_eq!(d.bytes(16, "log id"), seed[0]);
    assert_eq!(d.bytes(8, "base offset"), seed[2]);
    d.number(8, "end offset");
    d.number(8, "records");
    assert_eq!(d.number(8, "data end"), data_end as u64);
    d.signed(8, "largest timestamp");
    d.signed(8, "smallest timestamp");
    let hash = d.bytes(16, "XXH3-128 of everything before the data end");
    let expected = xxhash_rust::xxh3::xxh3_128(&d.bytes[..data_end]);
    assert_eq!(u128::from_le_bytes(hash.try_into().expect("16 bytes")), expected);
    d.signed(8, "sealed at");
    d.bytes(16, "hash of the segment before");
    d.zeros(4, "zero");
    d.crc_since(start);
}

/// A manifest file.
pub fn manifest(bytes: &[u8]) -> String {
    let mut d = Dump::new(bytes);
    for _ in 0..2 {
        let start = d.at;
        d.title("manifest slot");
        d.magic("LOGMILLM");
        assert_eq!(d.number(2, "format version"), 1);
        let used = d.number(2, "slot length in use");
        d.features();
        d.number(8, "generation");
        d.bytes(16, "log id");
        d.number(4, "log epoch");
        d.number(4, "state");
        d.number(8, "log start offset");
        d.number(8, "proven offset");
        d.number(8, "base offset of the segment that holds it");
        d.number(8, "position of it there");
        d.bytes(16, "boot id");
        d.signed(8, "created at");
        d.number(8, "flags");
        d.signed(8, "largest timestamp below the proven offset in that segment");
        let owner = d.number(2, "length of the owner's configuration");
        d.bytes(owner as usize, "owner's configuration");
        assert_eq!(used, 130 + owner);
        d.zeros(4092 - used as usize, "zero");
        d.crc_since(start);
    }
    assert_eq!(d.at, bytes.len());
    d.text
}

/// A live page.
pub fn live(bytes: &[u8]) -> String {
    let mut d = Dump::new(bytes);
    d.title("live page");
    d.magic("LOGMILLL");
    d.bytes(16, "log id");
    d.number(4, "log epoch");
    d.number(4, "flags");
    d.number(8, "durable offset");
    d.number(8, "stored offset");
    d.bytes(8, "first half of the boot id");
    d.zeros(4, "zero");
    d.crc_since(0);
    assert_eq!(d.at, bytes.len());
    d.text
}

/// An offset index (kind 1) or a time index (kind 2).
pub fn index(bytes: &[u8], kind: u64) -> String {
    let mut d = Dump::new(bytes);
    d.title("index");
    d.magic("LOGMILLI");
    assert_eq!(d.number(2, "format version"), 1);
    assert_eq!(d.number(2, "kind"), kind);
    d.bytes(16, "log id");
    d.number(8, "base offset");
    let count = d.number(4, "entries");
    let expected = crc32(&[&bytes[..40], &bytes[44..]]);
    assert_eq!(d.hex(4, "CRC-32 of the bytes above and the entries"), u64::from(expected));
    for _ in 0..count {
        if kind == 2 {
            d.signed(8, "largest timestamp so far");
        }
        d.number(4, "offset delta");
        if kind == 1 {
            d.number(4, "position");
        }
    }
    assert_eq!(d.at, bytes.len());
    d.text
}

/// A snapshot of producers.
pub fn producers(bytes: &[u8]) -> String {
    let mut d = Dump::new(bytes);
    d.title("producers");
    d.magic("LOGMILLP");
    assert_eq!(d.hex(4, "CRC-32 of the bytes below"), u64::from(crc32(&[&bytes[12..]])));
    d.number(8, "state just before this offset");
    d.bytes(16, "log id");
    while d.at < bytes.len() {
        d.number(8, "producer id");
        d.number(2, "  epoch");
        d.zeros(2, "  zero");
        d.number(4, "  first sequence of the batch");
        d.number(4, "  last sequence");
        d.number(8, "  base offset");
    }
    d.text
}

/// A checkpoint of an owner of a journal.
pub fn checkpoint(bytes: &[u8]) -> String {
    let mut d = Dump::new(bytes);
    d.title("checkpoint");
    d.magic("LOGMILLC");
    assert_eq!(d.hex(4, "CRC-32 of the bytes below"), u64::from(crc32(&[&bytes[12..]])));
    assert_eq!(d.number(2, "format version"), 1);
    d.zeros(2, "zero");
    d.bytes(16, "log id of the hot part");
    d.number(8, "owner");
    d.number(8, "reach in the hot part");
    d.number(8, "reach in the cold part");
    d.text(bytes.len() - d.at, "state");
    d.text
}
