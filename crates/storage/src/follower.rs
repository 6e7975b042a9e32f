//! A log that another process writes, seen by one that only reads.
//!
//! While the writer lives, its live page says what is durable, and nothing beyond that is looked at. When it is gone, what
//! recovery would keep is there to be read.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Corruption, Error, Result};
use crate::io::Open;
use crate::layout::Proven;
use crate::manifest;
use crate::recovery::{self, Known, Verdict};
use crate::segment::Segment;
use crate::view::View;

/// What is known of the other process's log.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How far an earlier look without a writer has come.
    scanned: Option<Proven>,
    /// What is wrong where the log ends.
    damage: Option<Damage>,
    verdict: Verdict,
}

#[derive(Debug)]
struct Damage {
    path: PathBuf,
    position: u64,
    offset: u64,
    what: Corruption,
}

impl Follower {
    /// Looks whether there is more.
    pub fn refresh(&self, view: &View) -> Result<()> {
        let mut state = self.state.lock();
        let (io, root) = (view.dir.io(), view.dir.path());
        let alive = view.dir.writer_is_alive()?;
        let Some((manifest, _)) = manifest::load(io.as_ref(), &view.path, root, Open::Read)? else {
            return Ok(());
        };
        let live = recovery::load_live(io.as_ref(), &view.path)
            .filter(|live| live.log_id == manifest.log_id && live.epoch == manifest.epoch);
        let bases = recovery::list_segments(io.as_ref(), root, &view.path)?;
        let known = Known {
            io,
            root,
            dir: &view.path,
            live,
            from: state
                .scanned
                .filter(|p| p.offset >= manifest.proven.offset)
                .unwrap_or(manifest.proven),
            manifest: &manifest,
            strict: false,
            drop_cache: false,
        };
        state.damage = None;
        state.verdict = Verdict::Clean;
        let end = if alive {
            manifest.proven.offset.max(live.map_or(0, |live| live.durable))
        } else if let Some(closed) = known.closed(&bases)? {
            closed.end.offset
        } else {
            let scan = known.scan(&bases)?;
            state.scanned = Some(scan.end);
            state.verdict = scan.verdict;
            let (offset, position) = (scan.end.offset, scan.end.position);
            state.damage = (scan.verdict == Verdict::Corrupt).then(|| Damage {
                path: scan.segments.last().map_or_else(|| view.shown(), |last| last.shown()),
                position,
                offset,
                what: scan.damage,
            });
            offset
        };
        view.change_segments(|segments| {
            let known: Vec<_> = std::mem::take(segments);
            let first =
                bases.partition_point(|base| *base <= manifest.start_offset).saturating_sub(1);
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
        view.set_epoch(manifest.epoch);
        view.set_start(manifest.start_offset);
        view.set_durable(end);
        view.set_stored(view.durable());
        Ok(())
    }

    /// What the last look found behind the end; a live writer's business is not looked at.
    pub fn verdict(&self) -> Verdict {
        self.state.lock().verdict
    }

    /// What is wrong at `offset`, where reading has come to its end.
    pub fn check_end(&self, offset: u64) -> Result<()> {
        let state = self.state.lock();
        match &state.damage {
            Some(damage) if offset >= damage.offset => Err(Error::Corrupt {
                path: damage.path.clone(),
                position: damage.position,
                offset: damage.offset,
                what: damage.what.clone(),
            }),
            _ => Ok(()),
        }
    }
}
