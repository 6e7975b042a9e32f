use proptest::prelude::*;

use super::*;
use crate::PartitionId;
use crate::entry::{CommittedPosition, GroupKind};
use crate::settings::{Setting, Settings};

fn partition(topic: u32, partition: u32) -> PartitionId {
    PartitionId { topic, partition }
}

fn fold(entries: &[Entry<'_>]) -> State {
    let mut state = State::default();
    for entry in entries {
        state.apply(entry).unwrap();
    }
    state
}

/// What a snapshot of `state` makes of another state.
fn restored(other: &State, state: &State) -> State {
    let mut other = other.clone();
    other.apply(&Entry::decode(&state.snapshot()).unwrap()).unwrap();
    other
}

fn topic_created(topic: u32, name: &str) -> Entry<'_> {
    Entry::TopicCreated { topic, name, partitions: 2, settings: Settings::default() }
}

fn group_created(group: u64, name: &str) -> Entry<'_> {
    Entry::GroupCreated { group, kind: GroupKind::Consumers, name, settings: Settings::default() }
}

fn committed(group: u64, at_ms: i64, partition: PartitionId, offset: u64) -> Entry<'static> {
    let position = CommittedPosition { partition, epoch: 1, offset, metadata: "" };
    Entry::Committed { group, at_ms, positions: vec![position] }
}

#[test]
fn a_deleted_topic_takes_its_positions_with_it_and_its_id_is_not_given_again() {
    let state = fold(&[
        topic_created(1, "a"),
        topic_created(2, "b"),
        group_created(1, "g"),
        committed(1, 5, partition(1, 0), 10),
        committed(1, 6, partition(2, 0), 20),
        Entry::TopicDeleted { topic: 2, partitions: 2 },
    ]);
    assert_eq!(state.topics.id_of("b"), None);
    assert_eq!(state.topics.condemned().collect::<Vec<_>>(), [(2, 2)]);
    assert_eq!(state.topics.next_id(), 3);
    let positions = &state.groups.get(1).unwrap().positions;
    assert_eq!(positions.keys().copied().collect::<Vec<_>>(), [partition(1, 0)]);
    assert_eq!(restored(&State::default(), &state), state);
}

#[test]
fn a_commit_for_a_deleted_group_changes_nothing() {
    let gone = fold(&[
        group_created(1, "g"),
        Entry::GroupDeleted { group: 1 },
        committed(1, 5, partition(1, 0), 10),
    ]);
    assert_eq!(gone.groups.iter().count(), 0);
    assert_eq!(gone.groups.next_id(), 2);
}

#[test]
fn the_last_commit_counts_even_if_it_goes_back() {
    let state = fold(&[
        group_created(1, "g"),
        committed(1, 5, partition(1, 0), 10),
        committed(1, 6, partition(1, 0), 3),
    ]);
    let group = state.groups.get(1).unwrap();
    assert_eq!(group.positions[&partition(1, 0)].offset, 3);
    assert_eq!(group.seen_ms, 6);
}

#[test]
fn share_state_keeps_every_hole_and_forgets_what_lies_below_the_first() {
    let mut share = ShareState::new(1, 10);
    let (group, partition) = (1, partition(1, 0));
    share.apply(&Entry::ShareAcquired { group, partition, ranges: vec![(10, 20)] });
    share.apply(&Entry::ShareDone { group, partition, ranges: vec![(11, 12), (13, 14), (19, 20)] });
    assert_eq!((share.start, share.done.len(), share.deliveries.len()), (10, 3, 7));
    share.apply(&Entry::ShareDone { group, partition, ranges: vec![(10, 11)] });
    assert_eq!((share.start, share.done.len(), share.deliveries.len()), (12, 2, 6));
    share.apply(&Entry::ShareAcquired { group, partition, ranges: vec![(12, 13)] });
    assert_eq!(share.deliveries[&12], 2);
    share.apply(&Entry::ShareDone { group, partition, ranges: vec![(0, 1_000_000)] });
    assert_eq!((share.start, share.done.len(), share.deliveries.len()), (1_000_000, 0, 0));
}

#[test]
fn a_new_epoch_voids_what_was_done_beyond_its_beginning() {
    let mut share = ShareState::new(1, 0);
    let (group, partition) = (1, partition(1, 0));
    share.apply(&Entry::ShareAcquired { group, partition, ranges: vec![(0, 100)] });
    share.apply(&Entry::ShareDone { group, partition, ranges: vec![(0, 40), (50, 100)] });
    share.apply(&Entry::ShareEpoch { group, partition, epoch: 2, offset: 60 });
    assert_eq!((share.start, share.epoch), (40, 2));
    assert!(share.is_done(59));
    assert!(!share.is_done(60));
    share.apply(&Entry::ShareEpoch { group, partition, epoch: 3, offset: 30 });
    assert_eq!((share.start, share.done.len(), share.deliveries.len()), (30, 0, 0));
}

/// An entry about one of a few topics, groups and producers.
fn entry() -> impl Strategy<Value = Entry<'static>> {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let partitions = (1u32..5, 0u32..3).prop_map(|(t, p)| partition(t, p));
    let ranges = proptest::collection::btree_set(0u64..40, 0..6).prop_map(|points| {
        let points: Vec<u64> = points.into_iter().collect();
        points.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>()
    });
    let settings = (0i64..5).prop_map(|ms| {
        let mut settings = Settings::default();
        settings.set(Setting::RetentionMs, ms);
        settings
    });
    (0usize..19, 1u32..5, partitions, ranges, settings, 0u64..60).prop_map(
        |(what, id, partition, ranges, settings, n)| {
            let name = NAMES[id as usize - 1];
            let group = u64::from(id);
            let at_ms = n.cast_signed();
            match what {
                0 | 1 => Entry::TopicCreated { topic: id, name, partitions: 3, settings },
                2 => Entry::TopicAltered { topic: id, settings },
                3 => Entry::PartitionsAdded { topic: id, partitions: 9 },
                4 => Entry::TopicDeleted { topic: id, partitions: 3 },
                5 => Entry::TopicRemoved { topic: id },
                6 => Entry::GroupCreated { group, kind: GroupKind::Share, name, settings },
                7 => Entry::GroupDeleted { group },
                8 => Entry::GroupSeen { group, at_ms },
                9 => committed(group, at_ms, partition, n),
                10 => Entry::PositionsDropped { group, partitions: vec![partition] },
                11 => Entry::ProducerOpened { producer: group, epoch: 3, at_ms, name },
                12 => Entry::ProducerSequence { producer: group, partition, sequence: n },
                13 => Entry::ProducerRemoved { producer: group },
                14 => Entry::ShareStarted { group, partition, epoch: 1, offset: n % 7 },
                15 => Entry::ShareAcquired { group, partition, ranges },
                16 => Entry::ShareDone { group, partition, ranges },
                17 => Entry::ProducerRoute {
                    producer: group,
                    topic: partition.topic,
                    from: n,
                    partitions: 1 + id,
                },
                _ => Entry::ShareEpoch { group, partition, epoch: 2, offset: n },
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_snapshot_makes_the_same_state_from_any_other(entries in proptest::collection::vec(entry(), 0..60)) {
        let state = fold(&entries);
        prop_assert_eq!(&restored(&State::default(), &state), &state);
        let other = fold(&entries[..entries.len() / 2]);
        prop_assert_eq!(&restored(&other, &state), &state, "also on top of something else");
    }

    #[test]
    fn a_share_partition_is_what_a_plain_set_says(entries in proptest::collection::vec(entry(), 0..60)) {
        let mut share = ShareState::new(1, 5);
        let mut done: std::collections::BTreeSet<u64> = (0..5).collect();
        for entry in &entries {
            match entry {
                Entry::ShareDone { ranges, .. } => {
                    for &(first, end) in ranges {
                        done.extend(first..end);
                    }
                }
                Entry::ShareEpoch { offset, .. } => done.retain(|o| o < offset),
                _ => {}
            }
            share.apply(entry);
        }
        for offset in 0..60 {
            prop_assert_eq!(share.is_done(offset), done.contains(&offset), "{}", offset);
            prop_assert!(!share.is_done(offset) || !share.deliveries.contains_key(&offset));
        }
    }
}

#[test]
fn a_snapshot_with_something_else_inside_is_refused() {
    let mut state = State::default();
    let snapshot =
        |entries| Entry::Snapshot { next_topic: 1, next_group: 1, next_producer: 1, entries };
    assert!(state.apply(&snapshot(&[9, 1])).is_err());
    assert!(state.apply(&snapshot(&[2, 99, 1])).is_err());
    let mut nested = Vec::new();
    put_bytes(&mut nested, &State::default().snapshot());
    assert_eq!(state.apply(&snapshot(&nested)), Err("a snapshot inside a snapshot"));
}
