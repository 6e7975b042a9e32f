//! What one file of a store holds, item by item, as its bytes say: for `logmill dump`, and for whoever looks into damage.
//!
//! Nothing is opened but this file, nothing is changed, and no other file has to be sound.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::{Batch, Scope};
use crate::error::{Corruption, Error, Result};
use crate::frames::{Frames, Step};
use crate::index::{self, Entries};
use crate::io::{Disk, File, Io, Open, read_full};
use crate::layout::{
    FOOTER_LEN, Footer, HEAD_LEN, LIVE_LEN, Live, Manifest, SLOT_LEN, SegmentHead, State,
};
use crate::manifest;
use crate::segment::parse_name;

/// The largest index file that is read; no segment needs a larger one.
const INDEX_LEN_MAX: u64 = 64 << 20;

/// One thing in a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Item<'a> {
    /// A structure of fixed fields.
    Fields {
        /// What it is: `segment head`, `footer`, `manifest slot`, `live page`, `offset index`, `time index`.
        title: &'static str,
        /// Where it begins, in bytes from the start of the file.
        position: u64,
        /// Names and values, as docs/format.md calls and orders them.
        fields: Vec<(&'static str, String)>,
    },
    /// A frame of a segment, verified.
    Frame {
        /// Where it begins, in bytes from the start of the file.
        position: u64,
        /// Its length in bytes, head included.
        len: u64,
        /// What it holds.
        batch: Batch<'a>,
    },
    /// An entry of an offset index: at or after `position`, a frame begins with the record at `offset`.
    Position {
        /// The offset.
        offset: u64,
        /// Bytes from the start of the segment.
        position: u64,
    },
    /// An entry of a time index: no record before `offset` is younger than `max_timestamp`.
    Time {
        /// Ms since 1970.
        max_timestamp: i64,
        /// The offset.
        offset: u64,
    },
}

/// Calls `each` with everything in the file `path`, which is a segment, an index, a manifest or a live page.
///
/// # Errors
/// [`Error::Corrupt`] where something is damaged; what comes before, and of a segment the footer, was handed out.
/// [`Error::NotAFile`], [`Error::Io`], and what `each` returns.
/// # Cost
/// Reads the file once, with a buffer of at most one frame.
pub fn inspect<E: From<Error>>(
    path: impl AsRef<Path>,
    mut each: impl FnMut(Item<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let opened = Opened::open(path.as_ref())?;
    match opened.kind()? {
        Kind::Segment => opened.segment(&mut each),
        Kind::Index => opened.index(&mut each),
        Kind::Manifest => opened.manifest(&mut each),
        Kind::Live => opened.live(&mut each),
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Segment,
    Index,
    Manifest,
    Live,
}

struct Opened {
    path: PathBuf,
    file: Arc<dyn File>,
    len: u64,
}

impl Opened {
    fn open(path: &Path) -> Result<Opened> {
        let failed = |e| Error::open(path, e);
        let Some(name) = path.file_name() else {
            return Err(Error::NotAFile { path: path.to_owned() });
        };
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let file = Disk::open(parent, false)
            .and_then(|disk| disk.open(Path::new(name), Open::Read))
            .map_err(failed)?;
        let len = file.len().map_err(|e| Error::io("stat", path, e))?;
        Ok(Opened { path: path.to_owned(), file, len })
    }

    fn corrupt(&self, position: u64, offset: u64, what: Corruption) -> Error {
        Error::Corrupt { path: self.path.clone(), position, offset, what }
    }

    /// What the name says, so that a damaged magic does not hide it; a copy under another name is known by its magic.
    fn kind(&self) -> Result<Kind> {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if parse_name(name, "log").is_some() {
            return Ok(Kind::Segment);
        }
        if parse_name(name, "index").or(parse_name(name, "time")).is_some() {
            return Ok(Kind::Index);
        }
        match name {
            manifest::NAME => return Ok(Kind::Manifest),
            "live" => return Ok(Kind::Live),
            _ => {}
        }
        match &self.bytes::<8>(0)?.unwrap_or_default() {
            b"LOGMILLS" => Ok(Kind::Segment),
            b"LOGMILLI" => Ok(Kind::Index),
            b"LOGMILLM" => Ok(Kind::Manifest),
            b"LOGMILLL" => Ok(Kind::Live),
            _ => Err(self.corrupt(0, 0, Corruption::Magic)),
        }
    }

    /// `N` bytes at `position`; `None` if the file ends before.
    fn bytes<const N: usize>(&self, position: u64) -> Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        let len = read_full(self.file.as_ref(), &mut bytes, position)
            .map_err(|e| Error::io("read", &self.path, e))?;
        Ok((len == N).then_some(bytes))
    }

    fn need<const N: usize>(&self, position: u64) -> Result<[u8; N]> {
        let found = self.len.saturating_sub(position);
        self.bytes(position)?.ok_or_else(|| {
            self.corrupt(position, 0, Corruption::Truncated { expected: N as u64, found })
        })
    }

    fn segment<E: From<Error>>(
        &self,
        each: &mut impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let head = SegmentHead::decode(&self.need(0)?).map_err(|what| self.corrupt(0, 0, what))?;
        each(Item::Fields { title: "segment head", position: 0, fields: head_fields(&head) })?;
        let footer = self.footer(&head)?;
        let limit = footer.as_ref().map_or(self.len, |(_, footer)| footer.data_end);
        let damage = self.frames(&head, limit, each)?;
        if let Some((position, footer)) = &footer {
            let (title, position) = ("footer", *position);
            each(Item::Fields { title, position, fields: footer_fields(footer) })?;
        }
        match damage {
            Some(damage) => Err(damage.into()),
            None => Ok(()),
        }
    }

    /// The footer and its position, if the segment is sealed.
    fn footer(&self, head: &SegmentHead) -> Result<Option<(u64, Footer)>> {
        let Some(position) = self.len.checked_sub(FOOTER_LEN as u64) else { return Ok(None) };
        let Some(bytes) = self.bytes(position)? else { return Ok(None) };
        let footer = Footer::decode(&bytes).ok().filter(|footer| {
            footer.log_id == head.log_id && Footer::position(footer.data_end) == position
        });
        Ok(footer.map(|footer| (position, footer)))
    }

    /// Hands out the frames before `limit`, and returns the damage that ended the walk.
    fn frames<E: From<Error>>(
        &self,
        head: &SegmentHead,
        limit: u64,
        each: &mut impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<Option<Error>, E> {
        let scope = Scope::new(&head.log_id, head.epoch, head.base_offset, head.base_timestamp);
        let mut frames = Frames::new(Arc::clone(&self.file), scope, HEAD_LEN as u64, limit);
        let mut next_offset = head.base_offset;
        loop {
            let position = frames.position();
            let frame = match frames.peek().map_err(|e| Error::io("read", &self.path, e))? {
                Step::Frame(frame) => frame,
                Step::End => return Ok(None),
                Step::Damaged(what) => return Ok(Some(self.corrupt(position, next_offset, what))),
            };
            let batch = match frames.take(frame) {
                Ok(batch) => batch,
                Err(what) => return Ok(Some(self.corrupt(position, next_offset, what))),
            };
            next_offset = batch.last_offset() + 1;
            each(Item::Frame { position, len: frame.frame_len() as u64, batch })?;
        }
    }

    fn index<E: From<Error>>(
        &self,
        each: &mut impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let damaged = |what| self.corrupt(0, 0, what);
        let len = self.len.min(INDEX_LEN_MAX + 1);
        if len > INDEX_LEN_MAX {
            return Err(damaged(Corruption::Field("length of an index")).into());
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let read = read_full(self.file.as_ref(), &mut bytes, 0);
        bytes.truncate(read.map_err(|e| Error::io("read", &self.path, e))?);
        let index = index::describe(&bytes).map_err(damaged)?;
        let (title, count) = match &index.entries {
            Entries::Offsets(entries) => ("offset index", entries.len()),
            Entries::Times(entries) => ("time index", entries.len()),
        };
        let fields = vec![
            ("log id", hex(&index.log_id)),
            ("base offset", index.base_offset.to_string()),
            ("entries", count.to_string()),
        ];
        each(Item::Fields { title, position: 0, fields })?;
        let offset = |delta: u32| index.base_offset.saturating_add(u64::from(delta));
        match &index.entries {
            Entries::Offsets(entries) => entries.iter().try_for_each(|entry| {
                each(Item::Position {
                    offset: offset(entry.delta),
                    position: u64::from(entry.position),
                })
            }),
            Entries::Times(entries) => entries.iter().try_for_each(|entry| {
                let max_timestamp = entry.max_timestamp;
                each(Item::Time { max_timestamp, offset: offset(entry.delta) })
            }),
        }
    }

    /// Both slots; a damaged one is an error after the other was handed out.
    fn manifest<E: From<Error>>(
        &self,
        each: &mut impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut damage = None;
        for position in [0, SLOT_LEN as u64] {
            let slot = self.need::<SLOT_LEN>(position).and_then(|bytes| {
                Manifest::decode(&bytes).map_err(|what| self.corrupt(position, 0, what))
            });
            match slot {
                Ok(slot) => {
                    let (title, fields) = ("manifest slot", manifest_fields(&slot));
                    each(Item::Fields { title, position, fields })?;
                }
                Err(error) => damage = damage.or(Some(error)),
            }
        }
        match damage {
            Some(damage) => Err(damage.into()),
            None => Ok(()),
        }
    }

    fn live<E: From<Error>>(
        &self,
        each: &mut impl FnMut(Item<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let bytes = self.need::<LIVE_LEN>(0)?;
        let live = Live::decode(&bytes).map_err(|what| self.corrupt(0, 0, what))?;
        let fields = vec![
            ("log id", hex(&live.log_id)),
            ("log epoch", live.epoch.to_string()),
            ("durable offset", live.durable.to_string()),
            ("stored offset", live.stored.to_string()),
            ("boot id begins", hex(&live.boot)),
        ];
        each(Item::Fields { title: "live page", position: 0, fields })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn head_fields(head: &SegmentHead) -> Vec<(&'static str, String)> {
    vec![
        ("log id", hex(&head.log_id)),
        ("base offset", head.base_offset.to_string()),
        ("log epoch", head.epoch.to_string()),
        ("generation", head.generation.to_string()),
        ("base timestamp", head.base_timestamp.to_string()),
        ("superseded hash", hex(&head.superseded_hash)),
    ]
}

fn footer_fields(footer: &Footer) -> Vec<(&'static str, String)> {
    vec![
        ("log epoch", footer.epoch.to_string()),
        ("log id", hex(&footer.log_id)),
        ("base offset", footer.base_offset.to_string()),
        ("end offset", footer.end_offset.to_string()),
        ("records", footer.count.to_string()),
        ("data end", footer.data_end.to_string()),
        ("largest timestamp", footer.max_timestamp.to_string()),
        ("smallest timestamp", footer.min_timestamp.to_string()),
        ("hash", hex(&footer.hash)),
        ("sealed at", footer.sealed_at.to_string()),
        ("hash of the segment before", hex(&footer.previous_hash)),
    ]
}

fn manifest_fields(slot: &Manifest) -> Vec<(&'static str, String)> {
    let state = match slot.state {
        State::Open => "open",
        State::Clean => "clean",
    };
    vec![
        ("generation", slot.generation.to_string()),
        ("log id", hex(&slot.log_id)),
        ("log epoch", slot.epoch.to_string()),
        ("state", state.to_owned()),
        ("log start offset", slot.start_offset.to_string()),
        ("proven offset", slot.proven.offset.to_string()),
        ("proven segment", slot.proven.segment.to_string()),
        ("proven position", slot.proven.position.to_string()),
        ("boot id", hex(&slot.boot_id)),
        ("created at", slot.created_at.to_string()),
        ("has producers", slot.has_producers.to_string()),
        ("owner's bytes", hex(&slot.owner)),
    ]
}
