//! Verifies one log: its manifest, its segments in order, what follows its end, and what lies beside.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::beside;
use super::report::{Problem, Severity};
use super::segment::{self, Subject, Verified};
use super::{Output, list};
use crate::data_dir::DataDir;
use crate::error::Corruption;
use crate::io::{File, Open};
use crate::layout::{Footer, Manifest};
use crate::live_page;
use crate::manifest;
use crate::recovery::{self, Known, Scan, Verdict};
use crate::segment::{file_name, parse_name};

/// How often a segment is looked at again that a live writer changes under our hands.
const TRIES: u32 = 5;

/// A log that is being verified.
pub(super) struct Subjects<'a> {
    pub dir: &'a DataDir,
    /// Relative to the store.
    pub name: &'a Path,
    pub shown: PathBuf,
    pub log_id: [u8; 16],
    pub is_alive: bool,
}

/// How the log stands at one moment.
struct Snapshot {
    bases: Vec<u64>,
    start: u64,
    /// Everything below must be there; `None`: nobody knows how far it goes.
    end: Option<u64>,
    /// It went at least as far.
    witness: u64,
}

/// How far the walk over the segments has come.
#[derive(Clone, Copy, Default)]
struct Walk {
    /// The next offset.
    cursor: u64,
    previous: Option<Previous>,
}

/// Whether a segment could be looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    There,
    /// It was removed since the directory was listed.
    Gone,
}

/// The segment before.
#[derive(Clone, Copy)]
struct Previous {
    chain_hash: [u8; 16],
    generation: u32,
    base: u64,
    is_sealed: bool,
    is_whole: bool,
}

pub(super) fn verify(out: &mut Output<'_>, dir: &DataDir, name: &Path) {
    let shown = dir.path().join(name);
    let entries = match list(dir, name) {
        Ok(entries) => entries,
        Err(e) => return out.error(e),
    };
    let is_alive = match dir.writer_is_alive() {
        Ok(is_alive) => is_alive,
        Err(e) => return out.error(e),
    };
    let bases: Vec<u64> =
        entries.iter().filter_map(|entry| parse_name(&entry.name, "log")).collect();
    beside::look_at_entries(out, &shown, &entries, is_alive);
    let has_manifest = entries.iter().any(|entry| entry.name == manifest::NAME);
    if !has_manifest && bases.is_empty() {
        // The directory of a topic, or of a log that its maker did not live to finish.
        return;
    }
    out.report.logs += 1;
    let current = if has_manifest {
        beside::look_at_manifest(out, dir, name)
    } else {
        let problem = Problem::Corruption(Corruption::LostManifest);
        out.damage(&shown.join(manifest::NAME), 0, None, problem);
        None
    };
    let known_id = current.as_ref().map(|manifest| manifest.log_id);
    let Some(log_id) = known_id.or_else(|| beside::any_log_id(dir, name, &bases)) else { return };
    let mut log = Subjects { dir, name, shown, log_id, is_alive };
    match (&current, is_alive) {
        (Some(_), true) => log.follow(out),
        (Some(manifest), false) => {
            let kept = std::mem::take(&mut out.report);
            log.judge(out, manifest, &bases);
            let found = std::mem::replace(&mut out.report, kept);
            log.is_alive = found.worst > Some(Severity::Note)
                && recovery::has_writer_come(dir, name, manifest).unwrap_or(false);
            // What a writer that has come meanwhile has changed is no damage.
            match log.is_alive {
                true => log.follow(out),
                false => out.report.absorb(found),
            }
        }
        (None, _) => {
            let start = bases.first().copied().unwrap_or(0);
            log.segments(out, &Snapshot { bases, start, end: None, witness: 0 });
        }
    }
    log.look_at_disposables(out, &entries);
    log.look_at_quarantine(out, &entries);
}

impl Subjects<'_> {
    pub(super) fn open(&self, name: &str) -> std::io::Result<Arc<dyn File>> {
        self.dir.io().open(&self.name.join(name), Open::Read)
    }

    /// A log that nobody writes: recovery's own scan says where it ends, and all before that must be there.
    fn judge(&self, out: &mut Output<'_>, manifest: &Manifest, bases: &[u64]) {
        let (io, root) = (self.dir.io(), self.dir.path());
        let live = match live_page::load(io.as_ref(), root, self.name) {
            Ok(live) => live,
            Err(e) => return out.error(e),
        };
        let known = Known {
            io,
            root,
            dir: self.name,
            manifest,
            live,
            from: manifest.proven,
            strict: false,
            drop_cache: true,
        };
        let scanned = known.judge(bases);
        let first = match known.first_kept(bases) {
            Ok(first) => first,
            Err(e) => return out.error(e),
        };
        for base in &bases[..first] {
            out.note(&self.shown.join(file_name(*base, "log")), Problem::Superseded);
        }
        let live = live
            .filter(|live| live.log_id == manifest.log_id && live.epoch == manifest.epoch)
            .map_or(0, |live| live.durable);
        let mut snapshot = Snapshot {
            bases: bases[first..].to_vec(),
            start: manifest.start_offset,
            end: None,
            witness: manifest.proven.offset.max(live),
        };
        if let Ok(scan) = &scanned {
            snapshot.witness = snapshot.witness.max(scan.witness);
            if scan.verdict != Verdict::Corrupt || scan.later.is_empty() {
                snapshot.end = Some(scan.end.offset);
                let later: Vec<u64> = scan.later.iter().map(|later| later.base_offset()).collect();
                snapshot.bases.retain(|base| !later.contains(base));
            }
        }
        self.segments(out, &snapshot);
        let is_met = out.report.worst >= Some(Severity::Unreadable);
        match scanned {
            // What stopped the scan was met again on the way, unless it lies outside of the segments.
            Err(_) if is_met => {}
            Ok(_) if is_met && snapshot.end.is_none() => {}
            Ok(scan) => self.look_behind(out, &scan),
            Err(e) => out.error(e),
        }
    }

    /// What follows the end.
    fn look_behind(&self, out: &mut Output<'_>, scan: &Scan) {
        let path = match scan.segments.last() {
            Some(last) => last.shown(),
            None => self.shown.clone(),
        };
        let (position, offset, bytes) = (scan.end.position, scan.end.offset, scan.rest_bytes);
        match scan.verdict {
            Verdict::Clean => {}
            Verdict::Cut => {
                out.find(Severity::Note, &path, position, None, Problem::TornTail { bytes });
            }
            Verdict::Ambiguous | Verdict::Refused => {
                let (severity, offsets) = (Severity::Ambiguous, Some(offset..u64::MAX));
                out.find(severity, &path, position, offsets, Problem::DoubtfulTail { bytes });
                for later in &scan.later {
                    let from = later.base_offset();
                    let problem = Problem::DoubtfulTail { bytes: 0 };
                    out.find(severity, &later.shown(), 0, Some(from..u64::MAX), problem);
                }
            }
            Verdict::Corrupt => {
                let problem = Problem::Corruption(scan.damage.clone());
                out.damage(&path, position, Some(offset..scan.witness), problem);
            }
        }
    }

    /// The segments of a log that nobody changes, in order.
    fn segments(&self, out: &mut Output<'_>, snapshot: &Snapshot) {
        let mut walk = Walk { cursor: snapshot.start, previous: None };
        for base in &snapshot.bases {
            if self.segment(out, snapshot, *base, &mut walk) == Presence::Gone {
                self.gone(out, *base);
            }
        }
    }

    fn gone(&self, out: &mut Output<'_>, base: u64) {
        let path = self.shown.join(file_name(base, "log"));
        out.unreadable(&path, "open", &std::io::ErrorKind::NotFound.into());
    }

    /// A log that is being written: what is durable must be there, while segments come and go.
    fn follow(&self, out: &mut Output<'_>) {
        let mut walk = Walk::default();
        let mut tries = 0;
        // How many segments before the nearest were looked at in vain: they are left over from a merge.
        let mut back = 0;
        let mut upto = None;
        while let Some(mut snapshot) = self.snapshot(out) {
            // As far as the log went when this began: whoever keeps appending would keep it from ever being done.
            snapshot.end = *upto.get_or_insert(snapshot.end);
            if walk.cursor < snapshot.start {
                walk = Walk { cursor: snapshot.start, previous: None };
            }
            if snapshot.end.is_none_or(|end| walk.cursor >= end) {
                return;
            }
            let after = snapshot.bases.partition_point(|base| *base <= walk.cursor);
            let nearest = after.max(1).checked_sub(1 + back);
            let Some(base) = nearest.and_then(|i| snapshot.bases.get(i).copied()) else {
                let what = Corruption::LostDurable { durable_upto: snapshot.witness };
                let lost = Some(walk.cursor..snapshot.witness);
                return out.damage(&self.shown, 0, lost, Problem::Corruption(what));
            };
            let before = walk;
            if base < walk.cursor {
                // It has taken in the segments that were looked at.
                walk.previous = None;
            }
            let kept = std::mem::take(&mut out.report);
            let presence = self.segment(out, &snapshot, base, &mut walk);
            let found = std::mem::replace(&mut out.report, kept);
            let is_gone = presence == Presence::Gone;
            let is_doubtful = found.worst > Some(Severity::Note);
            if (is_gone && tries < TRIES) || (is_doubtful && tries == 0) {
                // It may be that the segment was replaced or removed while it was read.
                tries += 1;
                walk = before;
                continue;
            }
            tries = 0;
            out.report.absorb(found);
            if is_gone {
                return self.gone(out, base);
            }
            back = if walk.cursor > before.cursor { 0 } else { back + 1 };
        }
    }

    fn snapshot(&self, out: &mut Output<'_>) -> Option<Snapshot> {
        let (io, root) = (self.dir.io().as_ref(), self.dir.path());
        // The acknowledged end comes first: whatever it covers is in the files that are looked at after it.
        let loaded = manifest::load(io, self.name, root, Open::Read);
        let live = live_page::load(io, root, self.name);
        let bases = recovery::list_segments(io, root, self.name);
        match (loaded, live, bases) {
            (Ok(Some((manifest, _))), Ok(live), Ok(bases)) => {
                let live = live
                    .filter(|live| live.log_id == manifest.log_id && live.epoch == manifest.epoch);
                let durable = live.map_or(0, |live| live.durable).max(manifest.proven.offset);
                let start = manifest.start_offset;
                Some(Snapshot { bases, start, end: Some(durable), witness: durable })
            }
            (Ok(None), ..) => None,
            (Err(e), ..) | (_, Err(e), _) | (_, _, Err(e)) => {
                out.error(e);
                None
            }
        }
    }

    fn segment(
        &self,
        out: &mut Output<'_>,
        snapshot: &Snapshot,
        base: u64,
        walk: &mut Walk,
    ) -> Presence {
        let path = self.shown.join(file_name(base, "log"));
        if base > walk.cursor {
            let what = Corruption::Gap { expected: walk.cursor, found: base };
            out.damage(&path, 0, Some(walk.cursor..base), Problem::Corruption(what));
            *walk = Walk { cursor: base, previous: None };
        } else if base < walk.cursor
            && let Some(before) = &walk.previous
        {
            if before.generation > 0 {
                out.note(&path, Problem::Superseded);
            } else {
                let what = Corruption::Offset { expected: walk.cursor, found: base };
                out.damage(&path, 0, Some(base..walk.cursor), Problem::Corruption(what));
            }
            return Presence::There;
        }
        let next_base = snapshot.bases.iter().copied().find(|next| *next > base);
        let until = match (next_base, snapshot.end) {
            (Some(next), Some(end)) => Some(next.min(end)),
            (next, end) => next.or(end),
        };
        let reach = until.unwrap_or(snapshot.witness).max(base);
        let lost = Walk { cursor: reach.max(walk.cursor), previous: None };
        let file = match self.open(&file_name(base, "log")) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Presence::Gone,
            Err(e) => {
                out.unreadable(&path, "open", &e);
                *walk = lost;
                return Presence::There;
            }
        };
        let subject = Subject {
            file: &file,
            shown: &path,
            base_offset: base,
            log_id: self.log_id,
            until,
            reach: if reach > base { reach } else { u64::MAX },
        };
        let Some(verified) = segment::verify(out, &subject) else {
            *walk = lost;
            return Presence::There;
        };
        self.look_at_chain(out, &path, walk.previous.as_ref(), &verified);
        self.look_at_indexes(out, &path, &verified);
        let cursor = match &verified.footer {
            Some(footer) => footer.end_offset,
            // What is missing at its end has been reported.
            None => verified.end_offset.max(reach),
        };
        *walk = Walk {
            cursor: cursor.max(base),
            previous: Some(Previous {
                chain_hash: verified.chain_hash,
                generation: verified.generation,
                base,
                is_sealed: verified.footer.is_some(),
                is_whole: verified.is_whole,
            }),
        };
        Presence::There
    }

    /// Whether the segment follows the one that it was sealed after.
    fn look_at_chain(
        &self,
        out: &mut Output<'_>,
        path: &Path,
        previous: Option<&Previous>,
        verified: &Verified,
    ) {
        let (Some(previous), Some(footer)) = (previous, &verified.footer) else { return };
        if previous.chain_hash == footer.previous_hash {
            return;
        }
        if previous.is_sealed {
            let at = Footer::position(footer.data_end);
            let what = Corruption::Field("the hash of the segment before, in the footer");
            out.damage(path, at, None, Problem::Corruption(what));
        } else if previous.is_whole && !self.is_alive {
            // Beside a live writer it may have been sealed since.
            let path = self.shown.join(file_name(previous.base, "log"));
            let what = Corruption::Field("no footer, and the next segment was sealed after it");
            out.damage(&path, 0, None, Problem::Corruption(what));
        }
    }
}
