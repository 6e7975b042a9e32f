//! Opening after a crash, by the size of the log.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use logmill_benches::{Scratch, filled};
use logmill_storage::{DataDir, Log, LogConfig, Record};

fn recovery(c: &mut Criterion) {
    let mut group = c.benchmark_group("open after a crash");
    group.sample_size(10);
    for megabytes in [64, 512] {
        let scratch = Scratch::new("recovery");
        {
            let dir = DataDir::open(scratch.path()).unwrap();
            filled(&dir, megabytes << 10, 1024, 100).close().unwrap();
        }
        group.bench_function(BenchmarkId::from_parameter(format!("{megabytes} MB")), |b| {
            b.iter_batched(
                || {
                    let dir = DataDir::open(scratch.path()).unwrap();
                    let log = Log::open(&dir, "1", LogConfig::default()).unwrap();
                    // Appended and dropped without a close: the next open finds a crashed log.
                    log.append(&Record::value(b"last")).unwrap();
                },
                |()| {
                    let dir = DataDir::open(scratch.path()).unwrap();
                    Log::open(&dir, "1", LogConfig::default()).unwrap()
                },
                criterion::BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, recovery);
criterion_main!(benches);
