//! Reading: scans with every checksum verified, gets at random, look-ups by time.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use logmill_benches::{Scratch, filled};
use logmill_storage::DataDir;

fn read(c: &mut Criterion) {
    for (len, batch, count) in [(100, 1, 1_000_000), (100, 100, 1_000_000), (1024, 100, 200_000)] {
        let scratch = Scratch::new("read");
        let dir = DataDir::open(scratch.path()).unwrap();
        let log = filled(&dir, count, len, batch);
        let mut group = c.benchmark_group("scan");
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new(format!("{len} B"), batch), |b| {
            b.iter(|| {
                let mut reader = log.reader(0).unwrap();
                let (mut seen, mut bytes) = (0, 0);
                while let Some(batch) = reader.next_batch().unwrap() {
                    for record in batch.records() {
                        bytes += record.unwrap().value.unwrap().len();
                        seen += 1;
                    }
                }
                assert_eq!((seen, bytes), (count, count * len));
            });
        });
        group.finish();
        let mut group = c.benchmark_group("get");
        group.throughput(Throughput::Elements(1));
        let mut state = 1u64;
        group.bench_function(BenchmarkId::new(format!("{len} B"), batch), |b| {
            b.iter(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                log.get((state >> 33) % count as u64).unwrap().unwrap()
            });
        });
        group.finish();
        c.bench_function(&format!("offset_for_timestamp/{len} B/{batch}"), |b| {
            let ms = log.get(count as u64 / 2).unwrap().unwrap().timestamp;
            b.iter(|| log.offset_for_timestamp(ms).unwrap().unwrap());
        });
    }
}

criterion_group!(benches, read);
criterion_main!(benches);
