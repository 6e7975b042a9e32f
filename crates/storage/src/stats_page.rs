//! The stats page: what a store's writer says of itself, for whoever looks from another process without opening a log.
//!
//! It is a file of text in the format of Prometheus, whose first line is a comment that says when, how much and its checksum.
//! It is written in place, never synced and never needed: a reader that meets it half-written looks again.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::data_dir::DataDir;
use crate::error::{Error, Result};
use crate::io::{File, Open, is_not_a_file, read_full, write_full};
use crate::schedule::Task;
use crate::sync::Mutex;

pub(crate) const NAME: &str = "stats";
/// How often it is written at most.
const EVERY: Duration = Duration::from_secs(1);
/// Making it takes at most one part in so many of one thread's time.
const SHARE: u32 = 100;
/// The first line is shorter.
const HEAD_LEN_MAX: usize = 128;
/// A longer page is none.
const LEN_MAX: u64 = 64 << 20;
/// How often a page is read that does not decode; see `live_page`.
const LOOKS: u32 = 64;

/// Who knows what stands on the page.
pub trait Tell: Debug + Send + Sync {
    /// The text, in Prometheus' format.
    fn tell(&self) -> String;
}

/// A page as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatsPage {
    /// When it was written, in ms since 1970.
    pub taken_at: i64,
    /// What its writer tells, in Prometheus' format.
    pub text: String,
}

impl StatsPage {
    fn encode(&self) -> Vec<u8> {
        let head = format!("# logmill stats 1 taken {} length {}", self.taken_at, self.text.len());
        format!("{head} crc {:08x}\n{}", checksum(&head, &self.text), self.text).into_bytes()
    }

    fn decode(bytes: &[u8]) -> Option<StatsPage> {
        let end = bytes.iter().take(HEAD_LEN_MAX).position(|byte| *byte == b'\n')?;
        let (line, rest) = bytes.split_at(end);
        let (head, crc) = std::str::from_utf8(line).ok()?.rsplit_once(" crc ")?;
        let fields = head.strip_prefix("# logmill stats 1 taken ")?;
        let (taken_at, length) = fields.split_once(" length ")?;
        let text = rest.get(1..)?.get(..length.parse().ok()?)?;
        let text = std::str::from_utf8(text).ok()?;
        (crc == format!("{:08x}", checksum(head, text))).then(|| StatsPage {
            taken_at: taken_at.parse().unwrap_or_default(),
            text: text.to_owned(),
        })
    }
}

fn checksum(head: &str, text: &str) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head.as_bytes());
    crc.update(text.as_bytes());
    crc.finalize()
}

/// Writes the page at intervals, for as long as this lives and there is something new to say. Dropping it leaves the page to
/// the next writer.
#[derive(Debug)]
pub struct Publisher {
    work: Arc<Work>,
}

impl Publisher {
    /// Removes the page. Background work has to be over: see [`DataDir::stop_background`].
    pub fn end(&self) {
        if self.work.last.lock().file.take().is_some() {
            // The lock that goes next says the same to whoever finds it.
            let _ = self.work.dir.io().unlink(Path::new(NAME));
        }
    }
}

#[derive(Debug)]
struct Work {
    dir: DataDir,
    source: Weak<dyn Tell>,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    text: String,
    /// `None` before the first page.
    file: Option<Arc<dyn File>>,
}

impl Work {
    fn schedule(self: &Arc<Self>, delay: Duration) {
        let task: Weak<dyn Task> = Arc::downgrade(&(Arc::clone(self) as Arc<dyn Task>));
        self.dir.after(delay, task);
    }

    fn write(&self, last: &mut Last, text: String) -> io::Result<()> {
        let file = match &last.file {
            Some(file) => file,
            None => last.file.insert(self.dir.io().open(Path::new(NAME), Open::Create)?),
        };
        let page = StatsPage { taken_at: self.dir.clock().wall_ms(), text };
        let bytes = page.encode();
        write_full(file.as_ref(), &bytes, 0)?;
        if page.text.len() < last.text.len() {
            file.set_len(bytes.len() as u64)?;
        }
        last.text = page.text;
        Ok(())
    }
}

impl Task for Work {
    fn run(self: Arc<Self>) {
        let Some(source) = self.source.upgrade() else { return };
        let begun = self.dir.clock().monotonic();
        let text = source.tell();
        drop(source);
        let mut last = self.last.lock();
        if text != last.text {
            // A page that could not be written does not decode, and nobody depends on one: the next look writes it anew.
            if self.write(&mut last, text).is_err() {
                last.text.clear();
            }
        }
        drop(last);
        let took = self.dir.clock().monotonic().saturating_sub(begun);
        self.schedule(EVERY.max(took.saturating_mul(SHARE)));
    }
}

impl DataDir {
    /// Has what `source` tells published on the store's stats page, where [`stats_page`](Self::stats_page) finds it in any
    /// process: at most once a second, and only if it has changed. A directory that is open for reading publishes nothing.
    pub fn publish(&self, source: Weak<dyn Tell>) -> Publisher {
        let work = Arc::new(Work { dir: self.unused(), source, last: Mutex::default() });
        if !self.is_read_only() {
            // What a dead writer said. Where it cannot be removed nothing is published, and the store opens all the same.
            let _ = self.io().unlink(Path::new(NAME));
            work.schedule(EVERY);
        }
        Publisher { work }
    }

    /// What the live writer has said last of itself; `None` if there is no writer, or it has not said anything yet.
    ///
    /// # Errors
    /// [`Error::Io`].
    /// # Cost
    /// One small file is read.
    pub fn stats_page(&self) -> Result<Option<StatsPage>> {
        if !self.writer_is_alive()? {
            return Ok(None);
        }
        match self.io().open(Path::new(NAME), Open::Read) {
            Ok(file) => Ok((0..LOOKS).find_map(|_| read(file.as_ref()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound || is_not_a_file(&e) => Ok(None),
            Err(e) => Err(Error::open(self.path().join(NAME), e)),
        }
    }
}

fn read(file: &dyn File) -> Option<StatsPage> {
    let len = file.len().ok().filter(|len| *len <= LEN_MAX)?;
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    let len = read_full(file, &mut bytes, 0).ok()?;
    StatsPage::decode(bytes.get(..len)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_page_are_those_of_the_format() {
        let page = StatsPage { taken_at: 1_700_000_000_000, text: "logmill_problems 0\n".into() };
        let bytes = page.encode();
        let golden =
            "# logmill stats 1 taken 1700000000000 length 19 crc 3912d6c2\nlogmill_problems 0\n";
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), golden);
        assert_eq!(StatsPage::decode(&[&bytes[..], b"of a longer one"].concat()), Some(page));
    }

    #[test]
    fn a_page_that_is_cut_or_flipped_anywhere_says_nothing() {
        let text = "logmill_syncs_total 7\n".repeat(3);
        let bytes = StatsPage { taken_at: -5, text }.encode();
        for len in 0..bytes.len() {
            assert_eq!(StatsPage::decode(&bytes[..len]), None, "{len} bytes");
        }
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            assert_eq!(StatsPage::decode(&flipped), None, "bit {at}");
        }
    }
}
