use super::*;
use crate::settings::Setting;

fn partition() -> PartitionId {
    PartitionId { topic: 3, partition: 200 }
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.set(Setting::RetentionMs, -1);
    settings.set(Setting::SegmentBytes, 65_536);
    settings
}

/// One entry of each kind, with the bytes that it has for ever.
fn golden() -> Vec<(Entry<'static>, &'static str)> {
    let committed =
        CommittedPosition { partition: partition(), epoch: 2, offset: 1_000, metadata: "m" };
    vec![
        (
            Entry::Snapshot {
                next_topic: 4,
                next_group: 300,
                next_producer: 1,
                entries: &[3, 6, 1, 3],
            },
            "010104ac02010403060103",
        ),
        (
            Entry::TopicCreated {
                topic: 3,
                name: "user-events",
                partitions: 3,
                settings: settings(),
            },
            "0201030b757365722d6576656e74730302010105808008",
        ),
        (Entry::TopicAltered { topic: 3, settings: settings() }, "03010302010105808008"),
        (Entry::PartitionsAdded { topic: 3, partitions: 300 }, "040103ac02"),
        (Entry::TopicDeleted { topic: 3, partitions: 300 }, "050103ac02"),
        (Entry::TopicRemoved { topic: 3 }, "060103"),
        (
            Entry::GroupCreated {
                group: 9,
                kind: GroupKind::Share,
                name: "g",
                settings: Settings::default(),
            },
            "07010901016700",
        ),
        (Entry::GroupAltered { group: 9, settings: settings() }, "08010902010105808008"),
        (Entry::GroupDeleted { group: 9 }, "090109"),
        (Entry::GroupSeen { group: 9, at_ms: 64 }, "0a01098001"),
        (
            Entry::Committed { group: 9, at_ms: 64, positions: vec![committed] },
            "0b010980010103c80102e807016d",
        ),
        (Entry::PositionsDropped { group: 9, partitions: vec![partition()] }, "0c01090103c801"),
        (Entry::ProducerOpened { producer: 5, epoch: 1, at_ms: 0, name: "p" }, "0d010501000170"),
        (
            Entry::ProducerSequence { producer: 5, partition: partition(), sequence: 128 },
            "0e010503c8018001",
        ),
        (Entry::ProducerRemoved { producer: 5 }, "0f0105"),
        (
            Entry::ShareStarted { group: 9, partition: partition(), epoch: 2, offset: 7 },
            "10010903c8010207",
        ),
        (
            Entry::ShareAcquired {
                group: 9,
                partition: partition(),
                ranges: vec![(7, 9), (200, 300)],
            },
            "11010903c801020702bf0164",
        ),
        (
            Entry::ShareDone { group: 9, partition: partition(), ranges: vec![(0, 1)] },
            "12010903c801010001",
        ),
        (
            Entry::ShareEpoch { group: 9, partition: partition(), epoch: 2, offset: 7 },
            "13010903c8010207",
        ),
        (
            Entry::ShareDeliveries {
                group: 9,
                partition: partition(),
                deliveries: vec![(7, 2), (8, 1)],
            },
            "14010903c8010207020801",
        ),
        (Entry::LogsMade { topic: 3, partitions: vec![(0, 2), (200, 201)] }, "150103020002c60101"),
        (
            Entry::LogsNamed { topic: 3, logs: vec![(0, [0xA5; 16]), (200, *b"0123456789abcdef")] },
            "1601030200a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5c80130313233343536373839616263646566",
        ),
        (
            Entry::ProducerRoute { producer: 5, topic: 3, from: 128, partitions: 300 },
            "170105038001ac02",
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_kind_of_entry_has_the_bytes_that_are_written_down() {
    let kinds: Vec<u8> = golden().iter().map(|(entry, _)| entry.kind()).collect();
    assert_eq!(kinds, (1..=23).collect::<Vec<u8>>());
    for (entry, bytes) in golden() {
        assert_eq!(hex(&entry.encoded()), bytes, "{entry:?}");
        assert_eq!(Entry::decode(&entry.encoded()), Ok(entry));
    }
}

#[test]
fn an_entry_cut_short_or_with_more_behind_it_is_refused() {
    for (entry, _) in golden() {
        let mut bytes = entry.encoded();
        for len in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..len]).is_err(), "{entry:?} cut to {len}");
        }
        bytes.push(0);
        assert!(Entry::decode(&bytes).is_err(), "{entry:?}");
    }
}

#[test]
fn no_flipped_bit_makes_the_decoder_panic_or_believe_in_an_unknown_version() {
    for (entry, _) in golden() {
        let bytes = entry.encoded();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let decoded = Entry::decode(&flipped);
            if bit / 8 == 1 {
                assert!(decoded.is_err());
            }
        }
    }
}

#[test]
fn a_count_that_the_bytes_cannot_hold_allocates_nothing() {
    let huge = [11, 1, 9, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F];
    assert_eq!(Entry::decode(&huge), Err("a count beyond the entry"));
}

/// The fuzzer wrote that a topic of 800 million partitions was deleted; opening then looked for the directory of each, for
/// hours. A range of records that were lent was as free.
#[test]
fn a_number_that_would_be_counted_up_to_for_hours_is_refused() {
    let with_partitions = |partitions| Entry::TopicDeleted { topic: 3, partitions }.encoded();
    assert!(Entry::decode(&with_partitions(PARTITIONS_MAX)).is_ok());
    assert!(Entry::decode(&with_partitions(PARTITIONS_MAX + 1)).is_err());
    let lent = |ranges| Entry::ShareAcquired { group: 9, partition: partition(), ranges }.encoded();
    assert!(Entry::decode(&lent(vec![(7, 9), (20, 18 + ACQUIRED_MAX)])).is_ok());
    assert!(Entry::decode(&lent(vec![(7, 9), (20, 19 + ACQUIRED_MAX)])).is_err());
    assert!(Entry::decode(&lent(vec![(0, u64::MAX)])).is_err());
}
