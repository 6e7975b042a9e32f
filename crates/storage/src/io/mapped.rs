//! Stores into a shared mapping: the one module with `unsafe` code.
//!
//! Invariants that the rest of the crate keeps and these few lines rest on: the file is a segment of a store that this
//! process holds the exclusive lock of, on a file system of the allow-list; its blocks were reserved before it was
//! mapped; it is cut only after the region is dropped.

use std::fs::File as StdFile;
use std::io;
use std::ptr;
use std::sync::atomic::{Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

use super::{Region, disk};

/// Maps the first `len` bytes of `file`, all of which must have blocks.
///
/// # Errors
/// `InvalidInput` for an empty or a sparse prefix: on a full disk, a store into a hole kills the process.
pub(super) fn map(file: &StdFile, len: u64) -> io::Result<Box<dyn Region>> {
    let bytes = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
    if bytes == 0 || !disk::is_reserved(&file.metadata()?, len) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "only reserved bytes can be mapped",
        ));
    }
    Ok(Box::new(Mapping { map: MmapOptions::new().len(bytes).map_raw(file)?, let_go: 0 }))
}

/// The pages of so many bytes are let go of at once.
const STRETCH: usize = 256 << 10;

#[derive(Debug)]
struct Mapping {
    map: MmapRaw,
    /// The pages before this were.
    let_go: usize,
}

impl Mapping {
    /// Lets go of the pages before `start`; their bytes stay in the page cache. A sync takes each page that is mapped out of
    /// the page table by itself, and interrupts the thread that appends for each.
    fn let_go(&mut self, start: usize) {
        let upto = start / STRETCH * STRETCH;
        if upto <= self.let_go {
            return;
        }
        #[cfg(target_os = "linux")]
        {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the mapping is shared and of a file, so its bytes are those of the page cache, with or without an entry
            // in the page table; and no reference into it is ever made.
            let _ =
                unsafe { self.map.unchecked_advise_range(advice, self.let_go, upto - self.let_go) };
        }
        self.let_go = upto;
    }
}

impl Region for Mapping {
    fn len(&self) -> u64 {
        self.map.len() as u64
    }

    fn store(&mut self, position: u64, bytes: &[u8]) {
        let start = usize::try_from(position).unwrap_or(usize::MAX);
        let end = start.checked_add(bytes.len());
        assert!(end.is_some_and(|end| end <= self.map.len()), "a store outside the mapped region");
        // SAFETY: `start..start + bytes.len()` is inside the mapping, which is writable and lives as long as `self`
        // (asserted above; `MmapRaw` unmaps only when dropped). `bytes` cannot overlap it: no reference into the mapping
        // is ever made, here or elsewhere, for it is written through this pointer only and read with `pread`.
        // `&mut self` keeps other threads of this process out. Other processes may change the same bytes only by ignoring
        // both the exclusive lock and mode 0600; that changes what the file holds, and no Rust reference sees it.
        // No SIGBUS: `map` saw the blocks in place, only the holder of the lock cuts the file, and it drops the region
        // first; file systems that take new blocks for a store into an old one (btrfs, reflinks) are not on the list.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(start), bytes.len());
        }
        // A kill between two calls must not leave the later one's bytes without the earlier one's: a frame's head is
        // stored after its body. This keeps the compiler from swapping or merging the copies, and another processor that
        // reads the page cache from seeing them swapped; a killed process completes the stores that it has retired.
        fence(Ordering::Release);
        self.let_go(start);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use crate::io::{Disk, File, Io, Open, read_full};

    fn reserved(len: u64) -> (tempfile::TempDir, Arc<dyn File>) {
        let directory = tempfile::tempdir().unwrap();
        let file = Disk::open(directory.path(), false)
            .unwrap()
            .open(Path::new("a"), Open::Create)
            .unwrap();
        file.reserve(0, len).unwrap();
        (directory, file)
    }

    #[test]
    fn what_is_stored_is_read_and_outlives_the_region() {
        let (_directory, file) = reserved(10_000);
        let mut region = file.map(10_000).unwrap();
        region.store(4_090, b"across a page");
        region.store(9_999, b"z");
        region.store(10_000, b"");
        let mut bytes = [0; 13];
        read_full(&*file, &mut bytes, 4_090).unwrap();
        assert_eq!(&bytes, b"across a page");
        drop(region);
        read_full(&*file, &mut bytes, 4_090).unwrap();
        assert_eq!(&bytes, b"across a page");
        file.sync_data().unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
    }

    /// Each page that was stored to stayed in the page table. A sync of the file took them out one by one, each with an
    /// interrupt for the thread that appended meanwhile: half the time of a send in a batch of ten went there.
    #[cfg(target_os = "linux")]
    #[test]
    #[expect(clippy::disallowed_methods, reason = "what the kernel says of this process")]
    fn pages_far_behind_the_last_store_leave_the_page_table_and_keep_their_bytes() {
        let len = 4 << 20;
        let (directory, file) = reserved(len);
        let mut region = file.map(len).unwrap();
        for position in (0..len).step_by(64) {
            region.store(position, &position.to_le_bytes());
        }
        let path = directory.path().join("a");
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let of_file = maps.lines().skip_while(|line| !line.ends_with(path.to_str().unwrap()));
        let resident = of_file.skip(1).find_map(|line| line.strip_prefix("Rss:")).unwrap();
        let resident: usize = resident.trim().trim_end_matches(" kB").parse().unwrap();
        assert!((4..=super::STRETCH >> 9).contains(&resident), "{resident} KiB are mapped");
        region.store(8, b"again");
        let mut bytes = [0; 8];
        for position in (0..len).step_by(64) {
            read_full(&*file, &mut bytes, position).unwrap();
            assert_eq!(bytes, position.to_le_bytes());
        }
        read_full(&*file, &mut bytes[..5], 8).unwrap();
        assert_eq!(&bytes[..5], b"again");
    }

    #[test]
    #[should_panic(expected = "outside the mapped region")]
    fn a_store_that_ends_outside_the_region_is_the_callers_mistake() {
        let (_directory, file) = reserved(4_096);
        file.map(4_096).unwrap().store(4_095, b"ab");
    }

    #[test]
    #[should_panic(expected = "outside the mapped region")]
    fn a_store_whose_end_overflows_is_the_callers_mistake() {
        let (_directory, file) = reserved(4_096);
        file.map(4_096).unwrap().store(u64::MAX, b"ab");
    }
}
