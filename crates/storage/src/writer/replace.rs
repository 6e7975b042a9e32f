//! Puts a compacted segment in the place of those that it was made of.

use super::*;
use crate::error::Corruption;
use crate::io::File;
use crate::segment_writer::Written;

impl Writer {
    /// Renames `written` over the first of `inputs` and removes the others, which must be adjacent. `false`, and nothing
    /// was done, if one of them is not part of the log any more.
    ///
    /// Until the rename is durable nothing is removed, so after a crash there are all inputs, or the new segment and any of
    /// the other inputs: recovery knows these by their base offsets, which lie inside a segment of a later generation.
    pub fn replace(
        &self,
        inputs: &[(Arc<Segment>, Arc<dyn File>)],
        written: Written,
    ) -> Result<bool> {
        let Written { temporary, file, head, footer, index } = written;
        let data_end = footer.data_end;
        let output = self.new_segment(head.base_offset);
        // What it was made of goes for good, so it is first read as any reader would.
        let walked = output.walk(&file, data_end)?;
        if (walked.hash, walked.count) != (footer.hash, footer.count) {
            return Err(output.corrupt(data_end, footer.base_offset, Corruption::Hash));
        }
        output.set_sealed(head, footer);
        let _maintenance = self.maintenance.lock();
        self.check_writable(&self.state.lock())?;
        let Some(range) = self.range_of(inputs) else { return Ok(false) };
        // A log that was left as closed is not looked at for what a crash may leave of this.
        self.mark_open()?;
        let (io, dir) = (self.view.dir.io(), &self.view.path);
        for (segment, file) in inputs {
            segment.pin(Arc::clone(file));
        }
        io.rename(temporary.path(), &output.path()).map_err(output.failed("rename"))?;
        temporary.keep();
        // If this fails, the log goes on with the old files, which are open; the disk has either, and both are whole.
        io.sync_dir(dir).map_err(|e| Error::io("sync", self.view.shown(), e))?;
        self.view.change_segments(|segments| {
            segments.splice(range, [Arc::clone(&output)]);
        });
        output.store_index(index);
        self.moved(inputs, output.base_offset(), data_end)?;
        let root = self.view.dir.path();
        for (segment, _) in &inputs[1..] {
            crate::recovery::remove_segment(io.as_ref(), root, dir, segment.base_offset())?;
        }
        // Before anybody can raise the start offset to where one of them began.
        io.sync_dir(dir).map_err(|e| Error::io("sync", self.view.shown(), e))?;
        Ok(true)
    }

    /// Where `inputs` are in the log.
    fn range_of(&self, inputs: &[(Arc<Segment>, Arc<dyn File>)]) -> Option<std::ops::Range<usize>> {
        let segments = self.view.segments();
        let (first, _) = inputs.first()?;
        let start = segments.iter().position(|segment| Arc::ptr_eq(segment, first))?;
        let found = segments.get(start..start + inputs.len())?;
        let is_same = found.iter().zip(inputs).all(|(a, (b, _))| Arc::ptr_eq(a, b));
        is_same.then_some(start..start + inputs.len())
    }

    /// The proven point may lie at the end of a segment that has another file, or another name, now.
    fn moved(
        &self,
        inputs: &[(Arc<Segment>, Arc<dyn File>)],
        segment: u64,
        position: u64,
    ) -> Result<()> {
        let is_input =
            |base_offset| inputs.iter().any(|(input, _)| input.base_offset() == base_offset);
        let point = |proven: &mut Proven| {
            if is_input(proven.segment) {
                (proven.segment, proven.position) = (segment, position);
            }
        };
        point(&mut self.synced.lock());
        self.or_poison(self.manifest.lock().store(|m| point(&mut m.proven)))
    }

    /// The base offsets of the commits that are remembered for their producers, rising.
    pub fn recent_batches(&self) -> Vec<u64> {
        let state = self.state.lock();
        let mut offsets: Vec<u64> =
            state.producers.recent().map(|(_, batch)| batch.base_offset).collect();
        offsets.sort_unstable();
        offsets
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::data_dir::DataDirOptions;
    use crate::io::sim::SimDisk;
    use crate::log::Log;

    #[test]
    fn whoever_has_looked_a_segment_up_before_it_is_replaced_opens_what_it_was() {
        let clock = Arc::new(ManualClock::at(0));
        let options = DataDirOptions::new().threads(0).clock(clock);
        let dir = options.open_with(SimDisk::new(1).io()).unwrap();
        let log = Log::open(&dir, "1/0", LogConfig::default()).unwrap();
        for _ in 0..2 {
            for _ in 0..10 {
                log.append(&Record::value(b"v").key(b"k")).unwrap();
            }
            log.roll().unwrap();
        }
        log.settle().unwrap();
        let before = log.view().segments();
        assert_eq!(before.len(), 2);
        let report = log.compact().unwrap();
        assert_eq!((report.rewritten, report.written), (2, 1));
        for segment in before.iter() {
            let file = segment.open(Open::Read).unwrap();
            let footer = segment.footer(file.as_ref()).unwrap().unwrap();
            assert_eq!((footer.count, segment.head(file.as_ref()).unwrap().generation), (10, 0));
            assert_eq!(segment.walk(&file, footer.data_end).unwrap().hash, footer.hash);
        }
        let after = log.view().segments();
        let file = after[0].open(Open::Read).unwrap();
        assert_eq!(after[0].footer(file.as_ref()).unwrap().unwrap().count, 1);
    }
}
