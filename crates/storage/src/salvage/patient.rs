//! A file of which some blocks cannot be read: these read as zeros, and are remembered.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::io::{File, Region};
use crate::sync::Mutex;

/// A device refuses at least this much at once.
const BLOCK: u64 = 4096;

#[derive(Debug)]
pub(super) struct Patient {
    file: Arc<dyn File>,
    unreadable: Mutex<Vec<(Range<u64>, String)>>,
}

impl Patient {
    pub fn new(file: Arc<dyn File>) -> Patient {
        Patient { file, unreadable: Mutex::default() }
    }

    /// What the system said about the first bytes of `range` that it would not read.
    pub fn refusal(&self, range: &Range<u64>) -> Option<String> {
        let unreadable = self.unreadable.lock();
        let hit = |r: &Range<u64>| r.start < range.end && range.start < r.end;
        unreadable.iter().find(|(refused, _)| hit(refused)).map(|(_, message)| message.clone())
    }
}

impl File for Patient {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        match self.file.read_at(buffer, position) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => {}
            done => return done,
        }
        let left = BLOCK - position % BLOCK;
        let len = usize::try_from(left).unwrap_or(buffer.len()).min(buffer.len());
        let message = match self.file.read_at(&mut buffer[..len], position) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => e.to_string(),
            done => return done,
        };
        let end = self.file.len()?;
        let len = usize::try_from(end.saturating_sub(position)).unwrap_or(len).min(len);
        buffer[..len].fill(0);
        let range = position..position + len as u64;
        let mut unreadable = self.unreadable.lock();
        if !unreadable.iter().any(|(known, _)| *known == range) {
            unreadable.push((range, message));
        }
        Ok(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn written_from(&self, position: u64) -> io::Result<Vec<Range<u64>>> {
        self.file.written_from(position)
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.file.drop_cache()
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn map(&self, _: u64) -> io::Result<Box<dyn Region>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten blocks of which the fourth is gone.
    #[derive(Debug)]
    struct Scratched;

    impl File for Scratched {
        fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
            let end = position + buffer.len() as u64;
            if end > 3 * BLOCK && position < 4 * BLOCK {
                return Err(io::Error::other("scratched"));
            }
            let left = usize::try_from((10 * BLOCK).saturating_sub(position)).unwrap();
            let len = buffer.len().min(left);
            buffer[..len].fill(7);
            Ok(len)
        }
        fn len(&self) -> io::Result<u64> {
            Ok(10 * BLOCK)
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
            panic!("a source is never written to")
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            panic!("a source is never written to")
        }
        fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
            panic!("a source is never written to")
        }
        fn sync_data(&self) -> io::Result<()> {
            panic!("a source is never written to")
        }
        fn drop_cache(&self) -> io::Result<()> {
            Ok(())
        }
        fn map(&self, _: u64) -> io::Result<Box<dyn Region>> {
            panic!("a source is never mapped")
        }
    }

    #[test]
    fn only_the_block_that_cannot_be_read_is_zero_and_it_is_remembered() {
        let file = Patient::new(Arc::new(Scratched));
        for start in [0, 1, BLOCK, 2 * BLOCK + 5, 3 * BLOCK, 3 * BLOCK + 100] {
            let mut bytes = vec![1; usize::try_from(10 * BLOCK - start).unwrap()];
            let got = crate::io::read_full(&file, &mut bytes, start).unwrap();
            assert_eq!(got, bytes.len());
            for (position, byte) in (start..).zip(&bytes) {
                let is_bad = (3 * BLOCK..4 * BLOCK).contains(&position);
                assert_eq!(*byte, if is_bad { 0 } else { 7 }, "position {position}");
            }
        }
        assert_eq!(file.refusal(&(0..3 * BLOCK)), None);
        assert_eq!(file.refusal(&(3 * BLOCK..3 * BLOCK + 1)).as_deref(), Some("scratched"));
        assert_eq!(file.refusal(&(4 * BLOCK..10 * BLOCK)), None);
        assert!(file.write_at(b"x", 0).is_err());
    }
}
