//! The live page as it is read, perhaps beside the writer that writes it.

use std::path::Path;

use crate::error::{Error, Result};
use crate::io::{File, Io, Open, is_not_a_file, read_full};
use crate::layout::{LIVE_LEN, Live};

/// How often a page is read that does not decode. A read may meet a write of the same bytes half-way, beside a busy writer
/// about once in ten thousand times; a page that stays like this is damaged.
const LOOKS: u32 = 64;

/// The live page of the log, if it is one. A damaged page, or what is no file, says nothing; one that cannot be
/// opened may say much.
pub(crate) fn load(io: &dyn Io, root: &Path, dir: &Path) -> Result<Option<Live>> {
    let path = dir.join("live");
    match io.open(&path, Open::Read) {
        Ok(file) => Ok(read(file.as_ref())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound || is_not_a_file(&e) => Ok(None),
        Err(e) => Err(Error::open(root.join(path), e)),
    }
}

fn read(file: &dyn File) -> Option<Live> {
    let mut bytes = [0; LIVE_LEN];
    (0..LOOKS).find_map(|_| {
        let len = read_full(file, &mut bytes, 0).ok()?;
        Live::decode(&bytes).ok().filter(|_| len == LIVE_LEN)
    })
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{LOOKS, read};
    use crate::io::{File, Region};
    use crate::layout::Live;

    /// A page of which the first reads get one half as it was and one half as it is. Nothing else can be done with it.
    #[derive(Debug)]
    struct Page {
        old: Live,
        new: Live,
        torn_reads: AtomicU32,
    }

    impl File for Page {
        fn read_at(&self, buffer: &mut [u8], _: u64) -> io::Result<usize> {
            buffer.copy_from_slice(&self.new.encode());
            let left = self.torn_reads.load(Ordering::Relaxed);
            if left > 0 {
                self.torn_reads.store(left - 1, Ordering::Relaxed);
                buffer[44..].copy_from_slice(&self.old.encode()[44..]);
            }
            Ok(buffer.len())
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn len(&self) -> io::Result<u64> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn sync_data(&self) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn drop_cache(&self) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn map(&self, _: u64) -> io::Result<Box<dyn Region>> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    fn page(torn_reads: u32) -> Page {
        let old =
            Live { log_id: [7; 16], epoch: 2, mapped: false, durable: 5, stored: 9, boot: [3; 8] };
        let new = Live { durable: 700, stored: 1_000, ..old };
        Page { old, new, torn_reads: AtomicU32::new(torn_reads) }
    }

    /// A reader that opened a log beside a busy producer met a write of the page half-way (about once in ten thousand
    /// times on ext4), took it for damage, and showed the log as it had been at the last roll: records that had been
    /// acknowledged long before were missing from what it printed.
    #[test]
    fn a_page_that_is_read_while_it_is_written_is_read_again() {
        let busy = page(3);
        assert_eq!(read(&busy), Some(busy.new));
        assert_eq!(busy.torn_reads.into_inner(), 0);
    }

    #[test]
    fn a_page_that_stays_damaged_says_nothing() {
        assert_eq!(read(&page(LOOKS)), None);
    }
}
