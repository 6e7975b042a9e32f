//! An append in steady state allocates nothing.

use logmill_storage::{DataDirOptions, Durability, Log, LogConfig, Record, WritePath};

/// Between two entries of the index, two stretches of zeros and two growths of the file there is only the append itself.
fn allocations_of(appends: u64, way: WritePath, batch: usize) -> u64 {
    let scratch = tempfile::tempdir().unwrap();
    let dir = DataDirOptions::new().threads(0).open(scratch.path()).unwrap();
    let config = LogConfig::default().durability(Durability::Buffered).write_path(way);
    let log = Log::open(&dir, "1", config).unwrap();
    let value = [b'x'; 100];
    let records = vec![Record::value(&value); batch];
    let append = || log.append_batch(&records).unwrap().last_offset;
    (0..100).for_each(|_| assert!(append() < u64::MAX));
    allocation_counter::measure(|| (0..appends).for_each(|_| assert!(append() < u64::MAX)))
        .count_total
}

#[test]
fn a_buffered_append_allocates_nothing_in_steady_state() {
    for (way, batch) in
        [(WritePath::Mapped, 1), (WritePath::Mapped, 100), (WritePath::Positional, 1)]
    {
        let count = allocations_of(1000, way, batch);
        // The index grows by doubling and the file by doubling: a logarithm of the appends, none for each.
        assert!(count < 40, "{count} allocations in 1,000 appends of {batch} ({way:?})");
        let more = allocations_of(4000, way, batch);
        assert!(
            more < count + 40,
            "{more} allocations in 4,000 appends, {count} in 1,000 ({way:?})"
        );
    }
}
