use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const ALL: [Assignor; 4] =
    [Assignor::Range, Assignor::RoundRobin, Assignor::Sticky, Assignor::CooperativeSticky];

/// Topic ids and what is owned, for each member in turn.
type Members = Vec<(BTreeSet<u32>, BTreeSet<PartitionId>)>;

fn run(strategy: Assignor, members: &Members, topics: &[(u32, u32)]) -> Vec<BTreeSet<PartitionId>> {
    let subscribers: Vec<_> =
        members.iter().map(|(topics, owned)| Subscriber { topics, owned }).collect();
    assign(strategy, &subscribers, topics)
}

fn set(pairs: &[(u32, u32)]) -> BTreeSet<PartitionId> {
    pairs.iter().map(|&(topic, partition)| PartitionId { topic, partition }).collect()
}

fn newcomers(topics: &[&[u32]]) -> Members {
    topics.iter().map(|topics| (topics.iter().copied().collect(), BTreeSet::new())).collect()
}

#[test]
fn range_gives_each_member_a_run_of_each_topic() {
    let members = newcomers(&[&[1, 2], &[1, 2]]);
    let assignment = run(Assignor::Range, &members, &[(1, 3), (2, 3)]);
    assert_eq!(assignment, [set(&[(1, 0), (1, 1), (2, 0), (2, 1)]), set(&[(1, 2), (2, 2)])]);
}

#[test]
fn range_counts_only_the_subscribers_of_a_topic() {
    let members = newcomers(&[&[1], &[1, 2], &[2]]);
    let assignment = run(Assignor::Range, &members, &[(1, 2), (2, 2)]);
    assert_eq!(assignment, [set(&[(1, 0)]), set(&[(1, 1), (2, 0)]), set(&[(2, 1)])]);
}

#[test]
fn round_robin_deals_all_partitions_in_turn() {
    let members = newcomers(&[&[1, 2], &[1, 2]]);
    let assignment = run(Assignor::RoundRobin, &members, &[(1, 3), (2, 3)]);
    assert_eq!(assignment, [set(&[(1, 0), (1, 2), (2, 1)]), set(&[(1, 1), (2, 0), (2, 2)])]);
}

#[test]
fn round_robin_passes_over_members_that_do_not_subscribe() {
    // The example of Kafka's documentation of its RoundRobinAssignor.
    let members = newcomers(&[&[1], &[1, 2], &[1, 2, 3]]);
    let assignment = run(Assignor::RoundRobin, &members, &[(1, 1), (2, 2), (3, 3)]);
    assert_eq!(
        assignment,
        [set(&[(1, 0)]), set(&[(2, 0)]), set(&[(2, 1), (3, 0), (3, 1), (3, 2)])]
    );
}

#[test]
fn sticky_is_fairer_than_round_robin_when_subscriptions_differ() {
    // The example of Kafka's documentation of its StickyAssignor.
    let members = newcomers(&[&[1], &[1, 2], &[1, 2, 3]]);
    let assignment = run(Assignor::Sticky, &members, &[(1, 1), (2, 2), (3, 3)]);
    assert_eq!(
        assignment,
        [set(&[(1, 0)]), set(&[(2, 0), (2, 1)]), set(&[(3, 0), (3, 1), (3, 2)])]
    );
}

#[test]
fn sticky_moves_only_the_partitions_of_a_member_that_left() {
    let topics = [(1, 4), (2, 4)];
    let all = newcomers(&[&[1, 2], &[1, 2], &[1, 2]]);
    let before = run(Assignor::Sticky, &all, &topics);
    let subscribed: BTreeSet<u32> = [1, 2].into();
    let remaining = vec![(subscribed.clone(), before[0].clone()), (subscribed, before[2].clone())];
    let after = run(Assignor::Sticky, &remaining, &topics);
    assert!(before[0].is_subset(&after[0]));
    assert!(before[2].is_subset(&after[1]));
    assert_eq!(after[0].len(), 4);
    assert_eq!(after[1].len(), 4);
}

#[test]
fn members_beyond_the_partitions_are_idle() {
    for strategy in ALL {
        let members = newcomers(&[&[1], &[1], &[1], &[1]]);
        let assignment = run(strategy, &members, &[(1, 3)]);
        assert_eq!(assignment.iter().filter(|set| set.is_empty()).count(), 1, "{strategy}");
    }
}

#[test]
fn nobody_gets_a_topic_that_nobody_wants_and_no_member_is_no_error() {
    for strategy in ALL {
        assert_eq!(
            run(strategy, &newcomers(&[&[1], &[]]), &[(1, 1), (2, 9)]),
            [set(&[(1, 0)]), set(&[])]
        );
        assert!(run(strategy, &Vec::new(), &[(1, 1)]).is_empty());
    }
}

fn topics() -> impl proptest::strategy::Strategy<Value = Vec<(u32, u32)>> {
    proptest::collection::btree_map(1u32..7, 1u32..9, 0..6)
        .prop_map(|map| map.into_iter().collect())
}

fn partitions() -> impl proptest::strategy::Strategy<Value = BTreeSet<PartitionId>> {
    proptest::collection::btree_set((1u32..8, 0u32..10), 0..12).prop_map(|pairs| {
        pairs.into_iter().map(|(topic, partition)| PartitionId { topic, partition }).collect()
    })
}

fn members() -> impl proptest::strategy::Strategy<Value = Members> {
    proptest::collection::vec((proptest::collection::btree_set(1u32..7, 0..6), partitions()), 0..7)
}

fn equal_members() -> impl proptest::strategy::Strategy<Value = Members> {
    (proptest::collection::btree_set(1u32..7, 1..6), proptest::collection::vec(partitions(), 1..7))
        .prop_map(|(topics, owned)| {
            owned.into_iter().map(|owned| (topics.clone(), owned)).collect()
        })
}

fn wanted(members: &Members, topics: &[(u32, u32)]) -> BTreeSet<PartitionId> {
    partitions_of(topics)
        .filter(|p| members.iter().any(|(wants, _)| wants.contains(&p.topic)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn each_partition_goes_to_exactly_one_of_its_subscribers(members in members(), topics in topics()) {
        for strategy in ALL {
            let assignment = run(strategy, &members, &topics);
            let mut seen = BTreeSet::new();
            for (set, (wants, _)) in assignment.iter().zip(&members) {
                for partition in set {
                    prop_assert!(wants.contains(&partition.topic));
                    prop_assert!(seen.insert(*partition), "{strategy}: {partition:?} twice");
                }
            }
            prop_assert_eq!(seen, wanted(&members, &topics));
        }
    }

    #[test]
    fn equal_subscribers_differ_by_at_most_one_partition(members in equal_members(), topics in topics()) {
        for strategy in [Assignor::RoundRobin, Assignor::Sticky] {
            let loads: Vec<usize> = run(strategy, &members, &topics).iter().map(BTreeSet::len).collect();
            prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{strategy}: {loads:?}");
        }
        // Range is even for each topic by itself.
        let ranges = run(Assignor::Range, &members, &topics);
        for &(topic, _) in &topics {
            let loads: Vec<usize> = ranges.iter().map(|set| set.iter().filter(|p| p.topic == topic).count()).collect();
            prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
        }
    }

    #[test]
    fn no_single_move_would_make_a_sticky_assignment_more_even(members in members(), topics in topics()) {
        let assignment = run(Assignor::Sticky, &members, &topics);
        for from in &assignment {
            for partition in from {
                for (to, (wants, _)) in assignment.iter().zip(&members) {
                    prop_assert!(!wants.contains(&partition.topic) || to.len() + 1 >= from.len());
                }
            }
        }
    }

    #[test]
    fn sticky_moves_no_partition_that_evenness_lets_stay(members in equal_members(), topics in topics()) {
        let assignment = run(Assignor::Sticky, &members, &topics);
        let wanted = wanted(&members, &topics);
        let least = wanted.len() / members.len();
        let richer = wanted.len() % members.len();
        let mut claimed = BTreeSet::new();
        let valid: Vec<usize> = members
            .iter()
            .map(|(_, owned)| owned.iter().filter(|p| wanted.contains(p) && claimed.insert(**p)).count())
            .collect();
        let above = valid.iter().filter(|count| **count > least).count().min(richer);
        let most_that_can_stay = valid.iter().map(|count| (*count).min(least)).sum::<usize>() + above;
        let owner: BTreeMap<PartitionId, usize> = {
            let mut owner = BTreeMap::new();
            for (i, (_, owned)) in members.iter().enumerate() {
                for partition in owned.iter().filter(|p| wanted.contains(p)) {
                    owner.entry(*partition).or_insert(i);
                }
            }
            owner
        };
        let stayed: usize =
            assignment.iter().enumerate().map(|(i, set)| set.iter().filter(|p| owner.get(p) == Some(&i)).count()).sum();
        prop_assert_eq!(stayed, most_that_can_stay);
    }

    #[test]
    fn a_sticky_assignment_is_its_own_successor(members in members(), topics in topics()) {
        let first = run(Assignor::Sticky, &members, &topics);
        let again: Members = members.iter().zip(&first).map(|((wants, _), set)| (wants.clone(), set.clone())).collect();
        prop_assert_eq!(run(Assignor::Sticky, &again, &topics), first);
    }
}
