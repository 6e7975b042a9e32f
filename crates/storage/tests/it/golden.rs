//! Golden bytes: every structure of docs/format.md as the engine writes it today, field by field.
//!
//! The texts in tests/golden are read by people: a change there is a change of the format, and needs a new version of it.
//! With `LOGMILL_WRITE_GOLDEN=1` in the environment these tests write the texts anew instead of comparing.

use std::path::Path;
use std::sync::Arc;

use logmill_storage::io::Io;
use logmill_storage::io::sim::SimDisk;
use logmill_storage::{
    AppendOptions, Compression, DataDir, DataDirOptions, Entry, Header, Journal, Log, LogConfig,
    ManualClock, Producer, Reach, Record,
};

use crate::format::{self, bytes_of};
use crate::lens::Lens;

const NOW: i64 = 1_700_000_000_000;

/// A store on a simulated disk whose log ids, boot id and clock are the same in every run.
struct Store {
    disk: SimDisk,
    dir: DataDir,
}

impl Store {
    fn new() -> Store {
        let disk = SimDisk::new(1);
        let io: Arc<dyn Io> = Lens::on(disk.io());
        let clock = Arc::new(ManualClock::at(NOW));
        let dir = DataDirOptions::new().threads(0).clock(clock).open_with(io).unwrap();
        Store { disk, dir }
    }

    fn file(&self, path: &str) -> Vec<u8> {
        self.disk.read_file(path).unwrap_or_else(|| panic!("{path} in {:?}", self.disk.paths()))
    }
}

#[expect(clippy::disallowed_methods, reason = "the golden texts are no files of a store")]
fn compare(name: &str, bytes: &[u8], text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("LOGMILL_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
    assert!(bytes_of(&golden) == bytes, "the bytes of {name} changed:\n{text}");
    assert_eq!(golden, text, "what {name} says changed");
}

/// A segment with a lone record, a batch with all that a record can have, and a producer's batch; then one more record in
/// the next segment.
fn store_with_everything() -> Store {
    let store = Store::new();
    let log = Log::open(&store.dir, "7/3", LogConfig::default()).unwrap();
    log.append(&Record::value(b"a lone value")).unwrap();
    let headers = [
        Header { name: "content-type", value: b"text/plain" },
        Header { name: "empty", value: b"" },
    ];
    log.append_batch(&[
        Record::value(b"with headers").key(b"key").headers(&headers),
        Record::tombstone(b"key").timestamp(NOW - 1_000),
        Record::value(b"").timestamp(NOW + 70_000),
    ])
    .unwrap();
    let producer = Some(Producer { id: 1_000, epoch: 2, sequence: 0 });
    let options = AppendOptions { producer, ..AppendOptions::default() };
    log.append_with(&[Record::value(b"once"), Record::value(b"and only once")], &options).unwrap();
    log.roll().unwrap();
    log.settle().unwrap();
    log.append(&Record::value(b"in the next segment")).unwrap();
    store
}

#[test]
fn a_sealed_segment() {
    let bytes = store_with_everything().file("7/3/00000000000000000000.log");
    compare("sealed-segment.txt", &bytes, &format::segment(&bytes));
}

#[test]
fn an_active_segment_with_its_reservation() {
    let bytes = store_with_everything().file("7/3/00000000000000000006.log");
    compare("active-segment.txt", &bytes, &format::segment(&bytes));
}

#[test]
fn a_segment_with_a_compressed_frame() {
    let store = Store::new();
    let config = LogConfig::default().compression(Compression::Lz4);
    let log = Log::open(&store.dir, "8/0", config).unwrap();
    let value = b"again and again and again and again and again and again";
    log.append_batch(&[Record::value(value), Record::value(value)]).unwrap();
    log.close().unwrap();
    let bytes = store.file("8/0/00000000000000000000.log");
    compare("lz4-segment.txt", &bytes, &format::segment(&bytes));
}

#[test]
fn both_indexes() {
    let store = Store::new();
    let log = Log::open(&store.dir, "7/3", LogConfig::default()).unwrap();
    for n in 0..9i64 {
        log.append(&Record::value(&[b'x'; 10_000]).timestamp(NOW + n * 100)).unwrap();
    }
    log.roll().unwrap();
    log.settle().unwrap();
    let offsets = store.file("7/3/00000000000000000000.index");
    compare("offset-index.txt", &offsets, &format::index(&offsets, 1));
    let times = store.file("7/3/00000000000000000000.time");
    compare("time-index.txt", &times, &format::index(&times, 2));
}

#[test]
fn the_manifest_of_a_log_that_is_open_and_then_closed() {
    let store = store_with_everything();
    let open = store.file("7/3/manifest");
    compare("manifest.txt", &open, &format::manifest(&open));
    let log = Log::open(&store.dir, "7/4", LogConfig::default()).unwrap();
    log.append(&Record::value(b"one")).unwrap();
    log.close().unwrap();
    let closed = store.file("7/4/manifest");
    compare("manifest-closed.txt", &closed, &format::manifest(&closed));
}

#[test]
fn the_live_page() {
    let bytes = store_with_everything().file("7/3/live");
    compare("live.txt", &bytes, &format::live(&bytes));
}

#[test]
fn the_producers_beside_a_sealed_segment() {
    let bytes = store_with_everything().file("7/3/00000000000000000006.producers");
    compare("producers.txt", &bytes, &format::producers(&bytes));
}

#[test]
fn a_journal_with_entries_of_two_owners_and_a_checkpoint() {
    let store = Store::new();
    let journal = Journal::open(&store.dir, "0", LogConfig::default()).unwrap();
    let entries =
        [Entry { owner: 0, bytes: b"a topic" }, Entry { owner: 300, bytes: b"a message" }];
    journal.append(&entries, &AppendOptions::default()).unwrap();
    journal.checkpoint(300, Reach { hot: 2, cold: 0 }, b"one message").unwrap();
    let checkpoint = store.file("0/checkpoint-300");
    compare("checkpoint.txt", &checkpoint, &format::checkpoint(&checkpoint));
    journal.close().unwrap();
    let hot = store.file("0/00000000000000000000.log");
    compare("journal-hot.txt", &hot, &format::segment(&hot));
}

#[test]
fn a_carried_entry_in_the_cold_part() {
    struct Keeper;
    impl logmill_storage::Owner for Keeper {
        fn number(&self) -> u64 {
            300
        }
        fn live_bytes(&self, _: logmill_storage::Part, bounds: &[u64]) -> Vec<u64> {
            vec![0; bounds.len() - 1]
        }
        fn carry(
            &self,
            _: logmill_storage::Part,
            upto: u64,
            out: &mut logmill_storage::Carry,
        ) -> logmill_storage::Result<u64> {
            out.say(b"what is left");
            Ok(upto)
        }
        fn carried(&self, _: logmill_storage::Part, _: u64, _: &[logmill_storage::Place]) {}
    }
    let store = Store::new();
    let journal = Journal::open(&store.dir, "0", LogConfig::default()).unwrap();
    for _ in 0..2 {
        let entry = Entry { owner: 300, bytes: b"dead" };
        journal.append(&[entry; 100], &AppendOptions::default()).unwrap();
        journal.part(logmill_storage::Part::Hot).roll().unwrap();
        journal.part(logmill_storage::Part::Hot).settle().unwrap();
    }
    journal.reclaim(&[&Keeper]).unwrap();
    journal.close().unwrap();
    let cold = store.file("0/1/00000000000000000000.log");
    compare("journal-cold.txt", &cold, &format::segment(&cold));
}

#[test]
fn the_checksum_and_the_hash_are_the_ones_with_these_vectors() {
    assert_eq!(format::crc32(&[b"123456789"]), 0xCBF4_3926);
    assert_eq!(crc32fast::hash(b"123456789"), 0xCBF4_3926);
    let hash = xxhash_rust::xxh3::xxh3_128(b"");
    assert_eq!(hash, 0x99AA_06D3_0147_98D8_6001_C324_468D_497F);
    assert_eq!(hash.to_le_bytes()[..4], [0x7F, 0x49, 0x8D, 0x46]);
}
