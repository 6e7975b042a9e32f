//! What the fuzz targets share: checksums made right again, so that a mutation gets past them, and small stores.

use std::path::Path;
use std::sync::Arc;

use logmill_storage::dump::dump_file;
use logmill_storage::io::sim::SimDisk;
use logmill_storage::{DataDir, DataDirOptions, Error, Log, ManualClock, RecordBuf, Visibility};

pub mod checksums;
pub mod files;
pub mod stores;

/// A store on `disk`, without background threads, at a time that stands still.
pub fn dir_on(disk: &SimDisk, read_only: bool) -> Result<DataDir, Error> {
    let clock = Arc::new(ManualClock::at(1_700_000_000_000));
    DataDirOptions::new().threads(0).clock(clock).read_only(read_only).open_with(disk.io())
}

/// Looks at everything that a file says.
pub fn dump(disk: &SimDisk, path: &str) -> Result<usize, Error> {
    let mut items = 0;
    dump_file::<Error>(&*disk.io(), Path::new(path), Path::new(path), |item| {
        std::hint::black_box(format!("{item:?}").len());
        items += 1;
        Ok(())
    })?;
    Ok(items)
}

/// Reads a log up to its end or the first error.
pub fn read(log: &Log) -> Result<Vec<RecordBuf>, Error> {
    let mut records = Vec::new();
    let mut reader = log.reader_with(log.start_offset(), Visibility::Stored)?;
    reader.for_each(|record| {
        records.push(RecordBuf::from(record));
        Ok::<_, Error>(())
    })?;
    Ok(records)
}
