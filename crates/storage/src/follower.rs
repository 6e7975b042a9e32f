//! A log that another process writes, seen by one that only reads.
//!
//! While the writer lives, its live page says what is durable, and what it has stored beyond that; where it stores through
//! a mapping, the commits that can be verified say the latter. When it is gone, what recovery would keep is there to be
//! read.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::epochs;
use crate::error::{Corruption, Error, Result};
use crate::frames::Step;
use crate::io::{File, Kind, Open};
use crate::layout::{HEAD_LEN, Proven};
use crate::live_page;
use crate::manifest;
use crate::recovery::{self, Known, Verdict};
use crate::segment::Segment;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::view::View;

/// How often a segment is looked for that another process removes or replaces meanwhile.
const LOOKS: u32 = 5;

/// A segment, the base offset of the one after it, and its file.
type Found = (Arc<Segment>, Option<u64>, Arc<dyn File>);

/// What is known of the other process's log.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    state: Mutex<State>,
    /// One past what the manifest or the live page vouch for.
    noted: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// How far an earlier look without a writer has come, and under which epoch. It is no proof against a later writer, who
    /// may have looked at the device and not at the cache.
    scanned: Option<(u32, Proven)>,
    /// How far an earlier look at what a living writer stores through its mapping has come.
    stored: Option<Stored>,
    /// When that was, by the store's monotonic clock.
    looked_at: Duration,
    /// What is wrong where the log ends.
    damage: Option<Damage>,
    verdict: Verdict,
}

/// The end of the last commit that was verified in the active segment.
#[derive(Clone, Copy, Debug)]
struct Stored {
    epoch: u32,
    segment: u64,
    position: u64,
    offset: u64,
}

#[derive(Debug)]
struct Damage {
    path: PathBuf,
    position: u64,
    offset: u64,
    /// `None`: it is no file.
    what: Option<Corruption>,
}

impl Follower {
    /// Looks whether there is more.
    pub fn refresh(&self, view: &View) -> Result<()> {
        self.look(view, &mut self.state.lock())
    }

    /// As [`refresh`](Self::refresh), unless somebody has looked less than `interval` ago. Returns how long nobody needs to
    /// look now.
    pub fn look_again(&self, view: &View, interval: Duration) -> Result<Duration> {
        let mut state = self.state.lock();
        let since = view.dir.clock().monotonic().saturating_sub(state.looked_at);
        if since < interval {
            return Ok(interval - since);
        }
        self.look(view, &mut state)?;
        Ok(interval)
    }

    fn look(&self, view: &View, state: &mut State) -> Result<()> {
        let mut looks = 0;
        while !self.is_seen(view, state, looks == LOOKS)? {
            looks += 1;
        }
        Ok(())
    }

    /// `false`: a writer has come while its log was judged as one that nobody writes, which is to be done anew unless this was
    /// the last look.
    fn is_seen(&self, view: &View, state: &mut State, is_last: bool) -> Result<bool> {
        state.looked_at = view.dir.clock().monotonic();
        let (io, root) = (view.dir.io(), view.dir.path());
        let alive = view.dir.writer_is_alive()?;
        let Some((manifest, _)) = manifest::load(io.as_ref(), &view.path, root, Open::Read)? else {
            return Ok(true);
        };
        if manifest.log_id != view.log_id {
            return Err(Error::Removed { path: view.shown() });
        }
        if manifest.epoch < view.epoch() {
            // A slot that is read while it is written does not count, and the other one may be of the writer before.
            return Ok(true);
        }
        let live = live_page::load(io.as_ref(), root, &view.path)?
            .filter(|live| live.log_id == manifest.log_id && live.epoch == manifest.epoch);
        let named = recovery::list_names(io.as_ref(), root, &view.path)?;
        let bases: Vec<u64> = named.iter().map(|(base, _)| *base).collect();
        let known = Known {
            io,
            root,
            dir: &view.path,
            live,
            from: state
                .scanned
                .filter(|(epoch, point)| {
                    *epoch == manifest.epoch && point.offset >= manifest.proven.offset
                })
                .map_or(manifest.proven, |(_, point)| point),
            manifest: &manifest,
            strict: false,
            drop_cache: false,
        };
        state.damage = None;
        state.verdict = Verdict::Clean;
        let mut stored = 0;
        // The live page may be behind; what was deleted was durable before.
        let noted = live.map_or(0, |live| live.durable);
        let noted = noted.max(manifest.proven.offset).max(manifest.start_offset);
        let end = if alive {
            // What was stored is lost with the boot.
            if let Some(live) = live.filter(|live| live.boot[..] == io.boot_id()[..8]) {
                stored = if live.mapped {
                    state.stored = self::stored(&known, &bases, state.stored)?;
                    state.stored.map_or(0, |stored| stored.offset)
                } else {
                    live.stored
                };
            }
            if view.epoch() == manifest.epoch {
                // A page that is read while it is written says nothing.
                stored = stored.max(view.stored());
            }
            noted
        } else {
            let judged = known.judge(&bases);
            let is_sound = judged.as_ref().is_ok_and(|scan| scan.verdict != Verdict::Corrupt);
            if !is_sound && !is_last && recovery::has_writer_come(&view.dir, &view.path, &manifest)?
            {
                return Ok(false);
            }
            match judged {
                Ok(scan) => {
                    state.scanned = Some((manifest.epoch, scan.end));
                    state.verdict = scan.verdict;
                    let (offset, position) = (scan.end.offset, scan.end.position);
                    state.damage = (scan.verdict == Verdict::Corrupt).then(|| Damage {
                        path: scan
                            .segments
                            .last()
                            .map_or_else(|| view.shown(), |last| last.shown()),
                        position,
                        offset,
                        what: Some(scan.damage),
                    });
                    offset
                }
                // What comes before it is there to be read, as far as anybody vouches for it: a stray segment may be far behind.
                Err(Error::Corrupt { path, position, offset, what }) => {
                    let offset = offset.min(noted).max(manifest.start_offset);
                    state.verdict = Verdict::Corrupt;
                    state.damage = Some(Damage { path, position, offset, what: Some(what) });
                    offset
                }
                Err(Error::NotAFile { path }) => {
                    let base = named.iter().find(|(_, kind)| *kind != Kind::File);
                    let offset = base.map_or(0, |(base, _)| *base);
                    let offset = offset.min(noted).max(manifest.start_offset);
                    state.verdict = Verdict::Corrupt;
                    state.damage = Some(Damage { path, position: 0, offset, what: None });
                    offset
                }
                Err(e) => return Err(e),
            }
        };
        let first = known.first_kept(&bases)?;
        view.change_segments(|segments| {
            let known: Vec<_> = std::mem::take(segments);
            for base in &bases[first..] {
                let kept = known.iter().find(|segment| segment.base_offset() == *base);
                segments.push(kept.map_or_else(
                    || {
                        Arc::new(Segment::new(
                            Arc::clone(io),
                            root,
                            &view.path,
                            manifest.log_id,
                            *base,
                        ))
                    },
                    Arc::clone,
                ));
            }
        });
        view.set_start(manifest.start_offset);
        self.noted.fetch_max(noted, Ordering::AcqRel);
        if view.epoch() != manifest.epoch {
            view.end_anew_at(end);
        }
        view.set_durable(end);
        view.set_stored(view.durable().max(stored));
        // Last: who sees the new epoch sees how far it reaches.
        view.set_epoch(manifest.epoch);
        Ok(true)
    }

    /// The segment that holds `offset`, its file, and the base offset of the one after it; `None` if it was removed.
    ///
    /// The other process may remove segments and put new ones in their places at any time, so nothing is believed that was
    /// read of a file before it was opened.
    pub fn find(&self, view: &View, offset: u64) -> Result<Option<Found>> {
        let mut looks = 0;
        loop {
            let segments = view.segments();
            let after = segments.partition_point(|segment| segment.base_offset() <= offset);
            let mut until = segments.get(after).map(|next| next.base_offset());
            let mut is_gone = false;
            for candidate in segments[..after].iter().rev() {
                let segment = Arc::new(candidate.unread());
                let file = match segment.open(Open::Read) {
                    Ok(file) => file,
                    Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                        is_gone = true;
                        break;
                    }
                    Err(e) => return Err(e),
                };
                let head = match segment.head(file.as_ref()) {
                    Ok(head) => head,
                    Err(e) => {
                        // It may be the segment of another log that has the name now.
                        self.refresh(view)?;
                        return Err(e);
                    }
                };
                if looks < LOOKS && head.epoch > view.epoch() {
                    // Whose writer that is has not been noticed yet.
                    is_gone = true;
                    break;
                }
                let ends_before = segment.footer(file.as_ref())?.is_some_and(|footer| {
                    footer.end_offset <= offset && footer.end_offset < view.durable()
                });
                if !ends_before {
                    return Ok(Some((segment, until, file)));
                }
                // It is left over from a merge into a segment before it.
                until = until.or(Some(offset + 1));
            }
            if offset < view.start() {
                return Ok(None);
            }
            if looks == LOOKS {
                let what = match segments.get(after) {
                    Some(next) => Corruption::Gap { expected: offset, found: next.base_offset() },
                    None => Corruption::LostDurable { durable_upto: view.durable() },
                };
                let path = view.shown();
                return match is_gone {
                    true => Err(Error::Io { op: "open", path, source: ErrorKind::NotFound.into() }),
                    false => Err(Error::Corrupt { path, position: 0, offset, what }),
                };
            }
            looks += 1;
            self.refresh(view)?;
        }
    }

    /// One past the last offset of `epoch`, which is over, as far as what is there shows; `None` if nothing of it is.
    pub fn end_of_epoch(&self, view: &View, epoch: u32) -> Result<Option<u64>> {
        let mut looks = 0;
        loop {
            let segments = view.segments();
            match epochs::first_after(&segments, epoch) {
                Ok(0) => return Ok(None),
                Ok(first) => {
                    let later = segments.get(first).map(|segment| segment.base_offset());
                    return Ok(Some(later.unwrap_or_else(|| view.stored())));
                }
                // Retention and compaction remove segments while they are looked at.
                Err(Error::Io { source, .. })
                    if source.kind() == ErrorKind::NotFound && looks < LOOKS =>
                {
                    looks += 1;
                    self.refresh(view)?;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// One past what was durable at the last look.
    pub fn noted_durable(&self) -> u64 {
        self.noted.load(Ordering::Acquire)
    }

    /// What the last look found behind the end; a live writer's business is not looked at.
    pub fn verdict(&self) -> Verdict {
        self.state.lock().verdict
    }

    /// What is wrong at `offset`, where reading has come to its end.
    pub fn check_end(&self, offset: u64) -> Result<()> {
        let state = self.state.lock();
        match &state.damage {
            Some(Damage { path, position, offset: from, what }) if offset >= *from => {
                let path = path.clone();
                Err(match what.clone() {
                    Some(what) => Error::Corrupt { path, position: *position, offset: *from, what },
                    None => Error::NotAFile { path },
                })
            }
            _ => Ok(()),
        }
    }
}

/// The end of what a living writer has stored through its mapping. It never takes a commit back, and everything before its
/// latest segment was stored before that was made; bytes that are no whole commit are one on its way.
fn stored(known: &Known<'_>, bases: &[u64], earlier: Option<Stored>) -> Result<Option<Stored>> {
    let Some(base) = bases.last().copied() else { return Ok(None) };
    let segment = known.segment(base);
    let file = match segment.open(Open::Read) {
        // The writer has rolled back a segment without records, or deleted the log.
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(earlier);
        }
        // Whoever reads as far is told.
        Err(Error::NotAFile { .. }) => return Ok(earlier),
        opened => opened?,
    };
    let epoch = known.manifest.epoch;
    let mut end = earlier
        .filter(|earlier| (earlier.epoch, earlier.segment) == (epoch, base))
        .unwrap_or(Stored { epoch, segment: base, position: HEAD_LEN as u64, offset: base });
    let limit = match segment.footer(file.as_ref())? {
        Some(footer) => footer.data_end,
        None => segment.len(file.as_ref())?,
    };
    let mut frames = segment.frames(file, end.position, limit)?;
    let mut next = end.offset;
    while let Step::Frame(head) = frames.peek().map_err(segment.failed("read"))? {
        let Ok(batch) = frames.take(head) else { break };
        if batch.base_offset() != next {
            break;
        }
        next = batch.last_offset() + 1;
        if !batch.continues() {
            end = Stored { position: frames.position(), offset: next, ..end };
        }
    }
    Ok(Some(end))
}
