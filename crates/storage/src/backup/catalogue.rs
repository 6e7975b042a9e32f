//! The catalogue: what a backup consists of, as lines of text.
//!
//! ```text
//! logmill backup 1
//! taken MS
//! log NAME id HEX epoch N start N end N created MS producers 0|1 owner HEX|-
//! segment BASE_OFFSET HEX LENGTH          of the log before, in order of base offsets; the hash as in a footer
//! producers OFFSET HEX LENGTH             of the log before, at most one
//! crc HEX                                 CRC-32 of all bytes before this line
//! ```

use std::fmt::Write as _;
use std::path::Path;
use std::str::SplitWhitespace;

use super::{CATALOGUE, hex};
use crate::data_dir::{DataDir, is_log_name};
use crate::error::{Corruption, Error, Result};
use crate::io::{Open, read_full};

pub(crate) const TITLE: &str = "logmill backup 1";
/// A store of a million segments has one of less than 100 MiB.
const LEN_MAX: u64 = 256 << 20;
const DAMAGED: Corruption = Corruption::Field("backup catalogue");

/// One backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Catalogue {
    pub taken_at: i64,
    pub logs: Vec<LogCopy>,
}

/// A log in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogCopy {
    pub name: String,
    pub log_id: [u8; 16],
    pub epoch: u32,
    pub start_offset: u64,
    pub end_offset: u64,
    pub created_at: i64,
    pub has_producers: bool,
    pub owner: Vec<u8>,
    pub segments: Vec<FileCopy>,
    pub producers: Option<FileCopy>,
}

/// A file in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileCopy {
    /// Its name in the backup.
    pub name: String,
    /// Where in the log it belongs.
    pub offset: u64,
    pub hash: [u8; 16],
    pub len: u64,
}

impl FileCopy {
    pub fn new(log: &str, extension: &str, offset: u64, hash: [u8; 16], len: u64) -> FileCopy {
        let name = format!("{}-{offset:020}-{}.{extension}", log.replace('/', "."), hex(&hash));
        FileCopy { name, offset, hash, len }
    }
}

impl LogCopy {
    pub fn files(&self) -> impl Iterator<Item = &FileCopy> {
        self.segments.iter().chain(&self.producers)
    }
}

impl Catalogue {
    /// The catalogue of a directory; `None` if there is none.
    pub fn load(dir: &DataDir) -> Result<Option<Catalogue>> {
        let path = dir.path().join(CATALOGUE);
        let file = match dir.io().open(Path::new(CATALOGUE), Open::Read) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::open(path, e)),
        };
        let failed = |e| Error::io("read", &path, e);
        let len = file.len().map_err(failed)?;
        let corrupt = |what| Error::Corrupt { path: path.clone(), position: 0, offset: 0, what };
        let len = usize::try_from(len.min(LEN_MAX)).map_err(|_| corrupt(DAMAGED))?;
        let mut bytes = vec![0; len];
        let read = read_full(file.as_ref(), &mut bytes, 0).map_err(failed)?;
        bytes.truncate(read);
        Catalogue::decode(&bytes).map(Some).map_err(corrupt)
    }

    pub fn encode(&self) -> String {
        let mut text = format!("{TITLE}\ntaken {}\n", self.taken_at);
        for log in &self.logs {
            let owner = if log.owner.is_empty() { "-".to_owned() } else { hex(&log.owner) };
            let _ = writeln!(
                text,
                "log {} id {} epoch {} start {} end {} created {} producers {} owner {owner}",
                log.name,
                hex(&log.log_id),
                log.epoch,
                log.start_offset,
                log.end_offset,
                log.created_at,
                u8::from(log.has_producers),
            );
            for (kind, file) in (log.segments.iter().map(|file| ("segment", file)))
                .chain(log.producers.iter().map(|file| ("producers", file)))
            {
                let _ = writeln!(text, "{kind} {} {} {}", file.offset, hex(&file.hash), file.len);
            }
        }
        let crc = crc32fast::hash(text.as_bytes());
        let _ = writeln!(text, "crc {crc:08x}");
        text
    }

    pub fn decode(bytes: &[u8]) -> Result<Catalogue, Corruption> {
        let text = std::str::from_utf8(bytes).map_err(|_| DAMAGED)?;
        let at = text.rfind("crc ").ok_or(DAMAGED)?;
        let (body, last) = text.split_at(at);
        let found = u32::from_str_radix(last.trim_start_matches("crc ").trim_end(), 16)
            .map_err(|_| DAMAGED)?;
        let expected = crc32fast::hash(body.as_bytes());
        if expected != found {
            return Err(Corruption::Checksum { expected, found });
        }
        let mut lines = body.lines();
        if lines.next() != Some(TITLE) {
            return Err(Corruption::Magic);
        }
        let mut words = lines.next().ok_or(DAMAGED)?.split_whitespace();
        let mut catalogue =
            Catalogue { taken_at: number(labelled(&mut words, "taken")?)?, logs: Vec::new() };
        for line in lines {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("log") => catalogue.logs.push(log(words)?),
                Some(kind @ ("segment" | "producers")) => {
                    let log = catalogue.logs.last_mut().ok_or(DAMAGED)?;
                    let mut next = || words.next().ok_or(DAMAGED);
                    let (offset, hash, len) = (number(next()?)?, id(next()?)?, number(next()?)?);
                    let extension = if kind == "segment" { "log" } else { "producers" };
                    let file = FileCopy::new(&log.name, extension, offset, hash, len);
                    match kind {
                        "segment" => log.segments.push(file),
                        _ => log.producers = Some(file),
                    }
                }
                _ => return Err(DAMAGED),
            }
        }
        Ok(catalogue)
    }
}

fn log(mut words: SplitWhitespace<'_>) -> Result<LogCopy, Corruption> {
    let name = words.next().filter(|name| is_log_name(name)).ok_or(DAMAGED)?.to_owned();
    let mut field = |name| labelled(&mut words, name);
    let log = LogCopy {
        name,
        log_id: id(field("id")?)?,
        epoch: number(field("epoch")?)?,
        start_offset: number(field("start")?)?,
        end_offset: number(field("end")?)?,
        created_at: number(field("created")?)?,
        has_producers: field("producers")? == "1",
        owner: match field("owner")? {
            "-" => Vec::new(),
            owner => unhex(owner)?,
        },
        segments: Vec::new(),
        producers: None,
    };
    if log.start_offset > log.end_offset { Err(DAMAGED) } else { Ok(log) }
}

fn labelled<'a>(words: &mut SplitWhitespace<'a>, name: &str) -> Result<&'a str, Corruption> {
    if words.next() != Some(name) {
        return Err(DAMAGED);
    }
    words.next().ok_or(DAMAGED)
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, Corruption> {
    word.parse().map_err(|_| DAMAGED)
}

fn id(word: &str) -> Result<[u8; 16], Corruption> {
    unhex(word)?.try_into().map_err(|_| DAMAGED)
}

fn unhex(word: &str) -> Result<Vec<u8>, Corruption> {
    let (pairs, rest) = word.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err(DAMAGED);
    }
    pairs
        .iter()
        .map(|pair| {
            let digits = std::str::from_utf8(pair).ok().filter(|d| !d.starts_with('+'));
            u8::from_str_radix(digits.ok_or(DAMAGED)?, 16).map_err(|_| DAMAGED)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> (Catalogue, &'static str) {
        let text = "logmill backup 1\n\
                    taken 1700000000000\n\
                    log 7/3 id 000102030405060708090a0b0c0d0e0f epoch 4 start 5 end 17 created 1600000000000 producers 1 owner 6f77\n\
                    segment 5 ffffffffffffffffffffffffffffffff 4096\n\
                    producers 9 00000000000000000000000000000000 36\n\
                    log 8/0 id 000102030405060708090a0b0c0d0e0f epoch 1 start 0 end 0 created -1 producers 0 owner -\n\
                    crc 8d273ccb\n";
        let log_id = std::array::from_fn(|i| i as u8);
        let logs = vec![
            LogCopy {
                name: "7/3".into(),
                log_id,
                epoch: 4,
                start_offset: 5,
                end_offset: 17,
                created_at: 1_600_000_000_000,
                has_producers: true,
                owner: b"ow".to_vec(),
                segments: vec![FileCopy::new("7/3", "log", 5, [0xff; 16], 4096)],
                producers: Some(FileCopy::new("7/3", "producers", 9, [0; 16], 36)),
            },
            LogCopy {
                name: "8/0".into(),
                log_id,
                epoch: 1,
                start_offset: 0,
                end_offset: 0,
                created_at: -1,
                has_producers: false,
                owner: Vec::new(),
                segments: Vec::new(),
                producers: None,
            },
        ];
        (Catalogue { taken_at: 1_700_000_000_000, logs }, text)
    }

    #[test]
    fn a_catalogue_is_pinned_text() {
        let (catalogue, text) = golden();
        assert_eq!(catalogue.encode(), text);
        assert_eq!(Catalogue::decode(text.as_bytes()), Ok(catalogue));
        assert_eq!(
            FileCopy::new("7/3", "log", 5, [0xff; 16], 1).name,
            "7.3-00000000000000000005-ffffffffffffffffffffffffffffffff.log"
        );
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_noticed() {
        let (catalogue, text) = golden();
        // The last newline says nothing.
        for len in 0..text.len() - 1 {
            assert!(Catalogue::decode(&text.as_bytes()[..len]).is_err(), "length {len}");
        }
        for bit in 0..text.len() * 8 {
            let mut bytes = text.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // A digit of the checksum in the other case says the same.
            let decoded = Catalogue::decode(&bytes);
            assert!(decoded.is_err() || decoded == Ok(catalogue.clone()), "bit {bit}");
        }
    }

    #[test]
    fn a_log_whose_name_leads_elsewhere_is_refused() {
        for name in ["..", "../7", "/7", "7/3/1", "a", "07"] {
            let body = format!(
                "{TITLE}\ntaken 0\nlog {name} id {} epoch 1 start 0 end 0 created 0 producers 0 owner -\n",
                hex(&[0; 16])
            );
            let text = format!("{body}crc {:08x}\n", crc32fast::hash(body.as_bytes()));
            assert_eq!(Catalogue::decode(text.as_bytes()), Err(DAMAGED), "{name}");
        }
    }
}
