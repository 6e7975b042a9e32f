//! The journal: what streams need of it survives the loss of its old segments and of its checkpoints.

use logmill_storage::io::sim::SimDisk;
use logmill_storage::{
    DataDir, DataDirOptions, Durability, Entry, Journal, LogConfig, Part, Record,
};
use logmill_stream::{GroupDescription, Streams, StreamsOptions, TopicConfig};

use crate::support::{append, drain, manual, named};

struct Small {
    dir: DataDir,
    journal: Journal,
    streams: Streams,
}

/// A store whose journal has segments of a few KiB.
fn open(path: &std::path::Path) -> Small {
    let dir = DataDirOptions::new().threads(0).open(path).unwrap();
    let config = LogConfig::default().segment_bytes_max(8 << 10).durability(Durability::Buffered);
    let journal = Journal::open(&dir, "0", config).unwrap();
    let streams = Streams::open(&dir, &journal, &StreamsOptions::default()).unwrap();
    Small { dir, journal, streams }
}

impl Small {
    /// Everything that the journal knows about streams, as text.
    fn facts(&self) -> String {
        let topics: Vec<_> = self
            .streams
            .topics()
            .unwrap()
            .iter()
            .map(|t| (t.name().to_owned(), t.id(), t.settings()))
            .collect();
        let groups: Vec<GroupDescription> = self
            .streams
            .groups()
            .unwrap()
            .iter()
            .map(|(name, _)| self.streams.describe_group(name).unwrap())
            .collect();
        format!("{topics:?} {groups:?}")
    }

    fn commit_many(&self, times: u64) {
        let mut consumer =
            self.streams.consumer("g", manual().commit_durability(Durability::Buffered)).unwrap();
        for n in 0..times {
            consumer.commit_offsets(&[(named("t", 0), (n % 7).into())]).unwrap();
        }
    }

    fn start_of(&self, part: Part) -> u64 {
        self.journal.part(part).start_offset()
    }
}

/// Somebody else's entries between ours, all dead.
fn noise(journal: &Journal) {
    let entries = [Entry { owner: 77, bytes: &[1; 100] }; 50];
    journal.append(&entries, &Default::default()).unwrap();
}

#[test]
fn old_segments_of_the_journal_go_and_nothing_is_forgotten() {
    let place = tempfile::tempdir().unwrap();
    let mut store = open(place.path());
    let topic = store.streams.create_topic("t", &TopicConfig::new().partitions(2)).unwrap();
    append(&topic, 0, &["a", "b", "c", "d", "e", "f", "g"]);
    drop(topic);
    for round in 0..6 {
        let facts_before = {
            store.commit_many(400);
            noise(&store.journal);
            store.facts()
        };
        let starts = (store.start_of(Part::Hot), store.start_of(Part::Cold));
        store.journal.part(Part::Hot).settle().unwrap();
        let done = store.streams.with_owners(|owners| store.journal.reclaim(owners)).unwrap();
        assert!(done.segments > 0, "round {round}: {done:?}");
        assert!(store.start_of(Part::Hot) > starts.0);
        store.commit_many(3);
        assert_eq!(store.streams.describe_group("g").unwrap().partitions[0].committed, Some(2));
        store.commit_many(400 % 7);
        let facts = store.facts();
        assert_eq!(facts.len(), facts_before.len());
        match round % 3 {
            0 => {}
            1 => {
                drop(store.journal);
                drop(store.streams);
                drop(store.dir);
                store = open(place.path());
                assert_eq!(store.facts(), facts, "after a crash");
            }
            _ => {
                store.streams.close().unwrap();
                store.journal.close().unwrap();
                drop(store.streams);
                drop(store.dir);
                store = open(place.path());
                assert_eq!(store.facts(), facts, "after a stop");
            }
        }
    }
    let mut consumer = store.streams.consumer("g", manual()).unwrap();
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(drain(&mut consumer).len(), 7);
}

#[test]
fn a_checkpoint_that_is_lost_or_damaged_changes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let store = open(place.path());
    let topic = store.streams.create_topic("t", &TopicConfig::new()).unwrap();
    append(&topic, 0, &["a"]);
    store.commit_many(10);
    store.streams.checkpoint().unwrap();
    store.commit_many(6);
    let facts = store.facts();
    drop((store, topic));
    let path = std::path::Path::new("0/checkpoint-0");
    for damage in [0, 1, 2] {
        let store = open(place.path());
        assert_eq!(store.facts(), facts);
        let io = store.dir.io().clone();
        let len = {
            let file = io.open(path, logmill_storage::io::Open::Write).unwrap();
            match damage {
                1 => file.set_len(20).unwrap(),
                2 => drop(file.write_at(&[0xFF], 60).unwrap()),
                _ => {}
            }
            file.len().unwrap()
        };
        assert!(len > 0, "the checkpoint that was to be damaged is there");
        drop(store);
        let store = open(place.path());
        assert_eq!(store.facts(), facts, "damage {damage}");
        store.streams.checkpoint().unwrap();
    }
    let store = open(place.path());
    store.dir.io().unlink(path).unwrap();
    drop(store);
    assert_eq!(open(place.path()).facts(), facts, "lost");
}

/// The command appended a line, printed its offset, and then failed with "no space": whoever believed it sent the line again.
#[test]
fn a_disk_too_full_for_a_checkpoint_does_not_fail_a_close_that_has_kept_everything() {
    let disk = SimDisk::new(1);
    let open = || {
        let dir = DataDirOptions::new().threads(0).open_with(disk.io()).unwrap();
        let journal = Journal::open(&dir, "0", LogConfig::default()).unwrap();
        let streams = Streams::open(&dir, &journal, &StreamsOptions::default()).unwrap();
        (journal, streams)
    };
    let (journal, streams) = open();
    let topic = streams.create_topic("t", &TopicConfig::new()).unwrap();
    topic.partition(0).unwrap().append(&Record::value(b"kept")).unwrap();
    disk.set_capacity(Some(0));
    assert!(streams.checkpoint().is_err(), "there must be no space for it");
    streams.close().unwrap();
    journal.close().unwrap();
    assert!(!disk.paths().iter().any(|path| path.ends_with(".tmp")), "{:?}", disk.paths());
    drop((topic, streams));
    let (_journal, streams) = open();
    assert_eq!(
        streams.topic("t").unwrap().partition(0).unwrap().get(0).unwrap().unwrap().offset,
        0
    );
}
