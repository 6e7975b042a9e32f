use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);

fn join(strategy: Assignor, topics: &[u32]) -> Join {
    Join {
        topics: topics.iter().copied().collect(),
        instance: None,
        session_timeout: TIMEOUT,
        strategy,
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Lets every member do what the coordinator asks of it, until nothing changes.
fn settle(group: &mut Coordinator) {
    for _ in 0..4 {
        for member in group.members() {
            let revoked = group.to_revoke(member).unwrap();
            group.release(member, &revoked).unwrap();
            group.claim(member).unwrap();
        }
    }
    assert!(!group.is_rebalancing());
}

fn group_of(strategy: Assignor, members: usize, partitions: u32) -> (Coordinator, Vec<MemberId>) {
    let mut group = Coordinator::new(vec![(1, partitions)]);
    let ids = (0..members).map(|_| group.join(at(0), join(strategy, &[1])).unwrap()).collect();
    settle(&mut group);
    (group, ids)
}

#[test]
fn a_lone_member_reads_everything_at_once() {
    let mut group = Coordinator::new(vec![(1, 3)]);
    let member = group.join(at(0), join(Assignor::Range, &[1])).unwrap();
    assert_eq!(group.claim(member).unwrap().len(), 3);
    assert_eq!(group.claim(member).unwrap().len(), 0);
    assert_eq!(group.owner(PartitionId { topic: 1, partition: 2 }), Some(member));
}

#[test]
fn a_cooperative_member_gives_up_only_what_moves_and_keeps_it_until_it_does() {
    let (mut group, ids) = group_of(Assignor::CooperativeSticky, 1, 4);
    let second = group.join(at(0), join(Assignor::CooperativeSticky, &[1])).unwrap();
    let moving = group.to_revoke(ids[0]).unwrap();
    assert_eq!(moving.len(), 2);
    assert!(group.claim(second).unwrap().is_empty());
    for partition in &moving {
        assert!(group.check_owner(ids[0], *partition).is_ok());
    }
    group.release(ids[0], &moving).unwrap();
    assert_eq!(group.claim(second).unwrap(), moving);
    for partition in &moving {
        let refused = group.check_owner(ids[0], *partition);
        assert!(matches!(refused, Err(Refusal::NotAssigned { generation: 2, .. })), "{refused:?}");
    }
}

#[test]
fn with_an_eager_strategy_nobody_starts_before_everybody_stopped() {
    let (mut group, ids) = group_of(Assignor::Sticky, 2, 4);
    let third = group.join(at(0), join(Assignor::Sticky, &[1])).unwrap();
    let first = group.to_revoke(ids[0]).unwrap();
    let second = group.to_revoke(ids[1]).unwrap();
    assert_eq!((first.len(), second.len()), (2, 2));
    group.release(ids[0], &first).unwrap();
    assert!(group.claim(ids[0]).unwrap().is_empty());
    assert!(group.claim(third).unwrap().is_empty());
    group.release(ids[1], &second).unwrap();
    assert_eq!(group.claim(third).unwrap().len(), 1);
    settle(&mut group);
}

#[test]
fn an_eager_rebalance_that_would_change_nothing_stops_nobody() {
    let (mut group, ids) = group_of(Assignor::Range, 3, 3);
    let idle = group.join(at(0), join(Assignor::Range, &[1])).unwrap();
    assert!(group.to_revoke(ids[0]).unwrap().is_empty());
    group.leave(idle);
    assert!(group.to_revoke(ids[0]).unwrap().is_empty());
    assert_eq!(group.owned(ids[2]).len(), 1);
}

#[test]
fn a_fourth_consumer_of_three_partitions_sits_idle_and_takes_over_when_one_dies() {
    for strategy in
        [Assignor::Range, Assignor::RoundRobin, Assignor::Sticky, Assignor::CooperativeSticky]
    {
        let (mut group, ids) = group_of(strategy, 4, 3);
        assert!(group.owned(ids[3]).is_empty());
        group.leave(ids[1]);
        settle(&mut group);
        assert_eq!(group.owned(ids[3]).len(), 1, "{strategy}");
    }
}

#[test]
fn a_silent_member_loses_its_partitions_and_learns_it() {
    let (mut group, ids) = group_of(Assignor::CooperativeSticky, 2, 2);
    let mine = group.owned(ids[0]);
    group.heartbeat(at(5), ids[1]).unwrap();
    assert_eq!(group.next_expiry(), Some(at(10)));
    assert!(group.expire(at(10)).is_empty());
    assert_eq!(group.expire(at(11)), [ids[0]]);
    assert_eq!(group.claim(ids[1]).unwrap(), mine);
    assert!(
        matches!(group.heartbeat(at(11), ids[0]), Err(Refusal::UnknownMember(member)) if member == ids[0])
    );
    assert!(matches!(group.to_revoke(ids[0]), Err(Refusal::UnknownMember(_))));
    assert!(matches!(
        group.check_owner(ids[0], *mine.first().unwrap()),
        Err(Refusal::UnknownMember(_))
    ));
}

#[test]
fn an_eager_group_does_not_wait_for_ever_for_a_member_that_hangs() {
    let (mut group, ids) = group_of(Assignor::Range, 2, 3);
    group.join(at(9), join(Assignor::Range, &[1])).unwrap();
    group.heartbeat(at(9), ids[1]).unwrap();
    let held = group.to_revoke(ids[1]).unwrap();
    group.release(ids[1], &held).unwrap();
    assert!(group.claim(ids[1]).unwrap().is_empty());
    assert_eq!(group.expire(at(11)), [ids[0]]);
    assert_eq!(group.claim(ids[1]).unwrap().len(), 2);
}

#[test]
fn a_static_member_that_comes_back_finds_its_partitions_and_disturbs_nobody() {
    let mut group = Coordinator::new(vec![(1, 4)]);
    let fixed = |name: &str| Join { instance: Some(name.into()), ..join(Assignor::Range, &[1]) };
    let a = group.join(at(0), fixed("a")).unwrap();
    let b = group.join(at(0), fixed("b")).unwrap();
    settle(&mut group);
    let (generation, before) = (group.generation(), group.owned(a));
    let again = group.join(at(1), fixed("a")).unwrap();
    assert_ne!(again, a);
    assert_eq!(group.generation(), generation);
    assert_eq!(group.owned(again), before);
    assert!(group.to_revoke(b).unwrap().is_empty());
    assert!(
        matches!(group.heartbeat(at(1), a), Err(Refusal::InstanceFenced { instance }) if instance == "a")
    );
    assert!(matches!(
        group.check_owner(a, *before.first().unwrap()),
        Err(Refusal::InstanceFenced { .. })
    ));
    // It keeps its place in the order too, so a later rebalance leaves it where it was.
    group.topics_changed(vec![(1, 4), (2, 4)]);
    assert_eq!(group.members(), [again, b]);
}

#[test]
fn added_partitions_are_dealt_out_and_other_topics_disturb_nobody() {
    let (mut group, ids) = group_of(Assignor::CooperativeSticky, 2, 2);
    let generation = group.generation();
    group.topics_changed(vec![(1, 2), (9, 5)]);
    assert_eq!(group.generation(), generation);
    group.topics_changed(vec![(1, 4), (9, 5)]);
    assert_eq!(group.generation(), generation + 1);
    settle(&mut group);
    assert_eq!((group.owned(ids[0]).len(), group.owned(ids[1]).len()), (2, 2));
    group.topics_changed(vec![(9, 5)]);
    settle(&mut group);
    assert!(group.owned(ids[0]).is_empty());
}

#[test]
fn a_member_may_change_its_mind_about_topics() {
    let mut group = Coordinator::new(vec![(1, 2), (2, 2)]);
    let member = group.join(at(0), join(Assignor::CooperativeSticky, &[1])).unwrap();
    settle(&mut group);
    group.subscribe(member, [2].into()).unwrap();
    let generation = group.generation();
    group.subscribe(member, [2].into()).unwrap();
    assert_eq!(group.generation(), generation);
    settle(&mut group);
    assert!(group.owned(member).iter().all(|p| p.topic == 2));
}

#[test]
fn members_of_one_group_use_one_strategy() {
    let (mut group, ids) = group_of(Assignor::Range, 1, 2);
    let refused = group.join(at(0), join(Assignor::Sticky, &[1]));
    assert!(matches!(
        refused,
        Err(Refusal::InconsistentStrategy { group: Assignor::Range, found: Assignor::Sticky })
    ));
    group.leave(ids[0]);
    assert!(group.join(at(0), join(Assignor::Sticky, &[1])).is_ok());
}

/// One step of a random history; numbers pick a member by remainder.
#[derive(Clone, Debug)]
enum Step {
    Join(BTreeSet<u32>),
    Leave(usize),
    Obey(usize),
    ReleaseOnly(usize),
    Silence(usize),
    AddPartitions(usize),
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    prop_oneof![
        2 => proptest::collection::btree_set(1u32..4, 1..4).prop_map(Step::Join),
        1 => (0usize..8).prop_map(Step::Leave),
        6 => (0usize..8).prop_map(Step::Obey),
        2 => (0usize..8).prop_map(Step::ReleaseOnly),
        1 => (0usize..8).prop_map(Step::Silence),
        1 => (0usize..3).prop_map(Step::AddPartitions),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_partition_has_two_readers_and_what_does_not_move_is_never_paused(
        steps in proptest::collection::vec(step(), 1..40),
        which in 0usize..4,
    ) {
        let strategy =
            [Assignor::Range, Assignor::RoundRobin, Assignor::Sticky, Assignor::CooperativeSticky][which];
        let mut topics = vec![(1, 3), (2, 1), (3, 2)];
        let mut group = Coordinator::new(topics.clone());
        let mut now = at(0);
        for step in steps {
            let members = group.members();
            let pick = |n: usize| members.get(n % members.len().max(1)).copied();
            match step {
                Step::Join(topics) => {
                    let ids: Vec<u32> = topics.into_iter().collect();
                    group.join(now, join(strategy, &ids)).unwrap();
                }
                Step::Leave(n) => if let Some(member) = pick(n) { group.leave(member) },
                Step::Obey(n) => if let Some(member) = pick(n) {
                    let owned = group.owned(member);
                    let revoked = group.to_revoke(member).unwrap();
                    if strategy.is_cooperative() {
                        // Whatever the member shall go on reading stays with it through the whole rebalance.
                        let kept: BTreeSet<_> = owned.intersection(&group.members[&member].target).copied().collect();
                        prop_assert!(kept.is_disjoint(&revoked));
                    }
                    group.release(member, &revoked).unwrap();
                    group.claim(member).unwrap();
                },
                Step::ReleaseOnly(n) => if let Some(member) = pick(n) {
                    let revoked = group.to_revoke(member).unwrap();
                    group.release(member, &revoked).unwrap();
                },
                Step::Silence(n) => {
                    now += TIMEOUT + Duration::from_secs(1);
                    let silent = pick(n);
                    for member in &members {
                        if Some(*member) != silent {
                            group.heartbeat(now, *member).unwrap();
                        }
                    }
                    prop_assert_eq!(group.expire(now), silent.into_iter().collect::<Vec<_>>());
                }
                Step::AddPartitions(n) => {
                    topics[n].1 += 1;
                    group.topics_changed(topics.clone());
                }
            }
            let mut readers = BTreeMap::new();
            for member in group.members() {
                for partition in group.owned(member) {
                    prop_assert_eq!(readers.insert(partition, member), None);
                }
            }
            prop_assert_eq!(&readers, &group.owners);
        }
        settle(&mut group);
        let wanted: BTreeSet<u32> = group.members.values().flat_map(|m| &m.topics).copied().collect();
        let expected: u32 = topics.iter().filter(|(topic, _)| wanted.contains(topic)).map(|(_, n)| n).sum();
        prop_assert_eq!(group.owners.len(), expected as usize);
    }
}
