//! Random histories of groups, on a disk that loses what was not synced, checked step by step against plain data.
//!
//! Promises: each record reaches each group at least once; in order for each partition; never two members of a group at
//! once, unless one was silent for too long; a commit of a member that lost its partition is refused; a position counts,
//! after a crash, exactly as far as its commit was acknowledged. `LOGMILL_MODEL_SEQUENCES` says how many histories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use logmill_storage::io::sim::{CrashPlan, SimDisk};
use logmill_storage::{
    DataDir, DataDirOptions, Durability, Journal, LogConfig, ManualClock, Record,
};
use logmill_stream::{
    Assignor, Consumer, ConsumerConfig, Error, RebalanceListener, Refusal, StartAt, Streams,
    StreamsOptions, Topic, TopicConfig, TopicPartition,
};

const GROUPS: usize = 2;
const SESSION: Duration = Duration::from_secs(30);
const STEPS: usize = 40;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }
}

/// A consumer, and what the model knows about it.
struct Member {
    consumer: Consumer,
    /// It polls no more, and its group does not know yet.
    hangs: bool,
    last_seen: Duration,
    /// The next offset that a poll must return, for partitions that it has read from since they were assigned to it.
    next: BTreeMap<u32, u64>,
    /// Partitions that were taken from it; it may have got them back in the same call.
    taken: Arc<Mutex<BTreeSet<u32>>>,
}

struct Taken(Arc<Mutex<BTreeSet<u32>>>);

impl RebalanceListener for Taken {
    fn on_revoked(&mut self, _: &mut Consumer, partitions: &[TopicPartition]) {
        self.0.lock().unwrap().extend(partitions.iter().map(|p| p.partition));
    }

    fn on_lost(&mut self, consumer: &mut Consumer, partitions: &[TopicPartition]) {
        self.on_revoked(consumer, partitions);
    }
}

#[derive(Default)]
struct Group {
    members: Vec<Member>,
    /// Offsets that reached some member.
    delivered: BTreeMap<u32, BTreeSet<u64>>,
    /// Positions in the order in which they were committed; those before `durable` in it are superseded for good.
    commits: BTreeMap<u32, Commits>,
}

#[derive(Default)]
struct Commits {
    history: Vec<u64>,
    /// Where in the history the last commit is that no crash can take back.
    durable: usize,
}

struct World {
    disk: SimDisk,
    clock: Arc<ManualClock>,
    dir: DataDir,
    journal: Journal,
    streams: Streams,
    topic: Topic,
    durability: Durability,
    assignor: Assignor,
    groups: Vec<Group>,
    /// What each partition holds, by offset.
    records: Vec<Vec<u64>>,
    next_value: u64,
    random: Random,
    counts: Counts,
}

/// What has happened, so that a test that tests nothing is seen.
#[derive(Debug, Default)]
struct Counts {
    appended: u64,
    delivered: u64,
    redelivered: u64,
    commits: u64,
    refused_commits: u64,
    expired: u64,
    kills: u64,
    power_losses: u64,
    lost_records: u64,
    lost_positions: u64,
    taken_back_commits: u64,
    partitions_added: u64,
}

fn open(disk: &SimDisk, clock: &Arc<ManualClock>) -> (DataDir, Journal, Streams) {
    let dir = DataDirOptions::new().threads(0).clock(clock.clone()).open_with(disk.io()).unwrap();
    let journal =
        Journal::open(&dir, "0", LogConfig::default().segment_bytes_max(16 << 10)).unwrap();
    let streams =
        Streams::open(&dir, &journal, &StreamsOptions::default().open_partitions_max(2)).unwrap();
    (dir, journal, streams)
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let disk = SimDisk::new(seed);
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let (dir, journal, streams) = open(&disk, &clock);
        let durability = if random.chance(2) { Durability::Sync } else { Durability::Buffered };
        let config = TopicConfig::new().partitions(2).durability(durability);
        let topic = streams.create_topic("t", &config).unwrap();
        let all =
            [Assignor::Range, Assignor::RoundRobin, Assignor::Sticky, Assignor::CooperativeSticky];
        World {
            assignor: all[random.below(4)],
            groups: (0..GROUPS).map(|_| Group::default()).collect(),
            records: vec![Vec::new(); 2],
            next_value: 0,
            counts: Counts::default(),
            durability,
            disk,
            clock,
            dir,
            journal,
            streams,
            topic,
            random,
        }
    }

    fn now(&self) -> Duration {
        self.dir.clock().monotonic()
    }

    fn append(&mut self) {
        let partition = self.random.below(self.records.len());
        for _ in 0..=self.random.below(4) {
            let value = self.next_value;
            self.next_value += 1;
            let bytes = value.to_le_bytes();
            let number = u32::try_from(partition).unwrap();
            let offset =
                self.topic.partition(number).unwrap().append(&Record::value(&bytes)).unwrap();
            assert_eq!(offset, self.records[partition].len() as u64);
            self.records[partition].push(value);
            self.counts.appended += 1;
        }
    }

    fn config(&mut self) -> ConsumerConfig {
        let durability =
            if self.random.chance(2) { Durability::Sync } else { Durability::Buffered };
        ConsumerConfig::new()
            .assignor(self.assignor)
            .start_at(StartAt::Earliest)
            .auto_commit(None)
            .commit_durability(durability)
            .session_timeout(SESSION)
            .records_max(1 + self.random.below(5))
    }

    fn join(&mut self, group: usize) {
        if self.groups[group].members.len() >= 4 {
            return;
        }
        let config = self.config();
        let mut consumer = self.streams.consumer(&format!("g{group}"), config).unwrap();
        let taken = Arc::new(Mutex::new(BTreeSet::new()));
        consumer.set_listener(Taken(taken.clone()));
        consumer.subscribe(&["t"]).unwrap();
        let member =
            Member { consumer, hangs: false, last_seen: self.now(), next: BTreeMap::new(), taken };
        self.groups[group].members.push(member);
        self.check_owners(group);
    }

    /// One of the group's members, hanging or not.
    fn pick(&mut self, group: usize) -> Option<usize> {
        let count = self.groups[group].members.len();
        (count > 0).then(|| self.random.below(count))
    }

    fn poll(&mut self, group: usize, index: usize) {
        let now = self.now();
        let member = &mut self.groups[group].members[index];
        if member.hangs {
            return;
        }
        member.last_seen = now;
        let polled = member.consumer.poll(Duration::ZERO);
        let after: BTreeSet<u32> =
            member.consumer.assignment().iter().map(|p| p.partition).collect();
        // What was taken and came back goes on from wherever the group is now.
        let taken = std::mem::take(&mut *member.taken.lock().unwrap());
        member.next.retain(|partition, _| !taken.contains(partition));
        let records = match polled {
            Ok(records) => records,
            Err(Error::PositionLost { partition, offset, end, .. }) => {
                assert_eq!(self.durability, Durability::Buffered);
                assert!(offset > end);
                assert!(end <= self.records[partition.partition as usize].len() as u64);
                self.counts.lost_positions += 1;
                member.consumer.seek("t", partition.partition, end).unwrap();
                member.next.insert(partition.partition, end);
                return;
            }
            Err(error) => panic!("{error}"),
        };
        for record in records.iter() {
            assert!(after.contains(&record.partition), "only what is assigned is read");
            let value = u64::from_le_bytes(record.value.unwrap().try_into().unwrap());
            assert_eq!(value, self.records[record.partition as usize][record.offset as usize]);
            let commits = self.groups[group].commits.entry(record.partition).or_default();
            let committed = commits.history.last().copied().unwrap_or(0);
            let member = &mut self.groups[group].members[index];
            let expected = member.next.get(&record.partition).copied().unwrap_or(committed);
            assert_eq!(record.offset, expected, "in order, from the committed position on");
            member.next.insert(record.partition, record.offset + 1);
            self.counts.delivered += 1;
            if !self.groups[group]
                .delivered
                .entry(record.partition)
                .or_default()
                .insert(record.offset)
            {
                self.counts.redelivered += 1;
            }
        }
        self.check_owners(group);
    }

    /// No partition is read by two members, but for those that were silent for too long.
    fn check_owners(&self, group: usize) {
        let now = self.now();
        let mut owners = BTreeMap::new();
        for (index, member) in self.groups[group].members.iter().enumerate() {
            if now.saturating_sub(member.last_seen) > SESSION {
                continue;
            }
            for partition in member.consumer.assignment() {
                assert_eq!(owners.insert(partition, index), None, "two readers of one partition");
            }
        }
    }

    fn commit(&mut self, group: usize, index: usize) {
        let now = self.now();
        let member = &mut self.groups[group].members[index];
        let expired = now.saturating_sub(member.last_seen) > SESSION;
        let positions: Vec<(u32, u64)> = member
            .consumer
            .assignment()
            .iter()
            .filter_map(|p| member.next.get(&p.partition).map(|next| (p.partition, *next)))
            .collect();
        let durable_before = self.journal.part(logmill_storage::Part::Hot).durable_offset();
        match member.consumer.commit() {
            Ok(()) => {
                member.last_seen = now;
                self.counts.commits += 1;
                for (partition, position) in positions {
                    let commits = self.groups[group].commits.entry(partition).or_default();
                    if commits.history.last() != Some(&position) {
                        commits.history.push(position);
                    }
                }
            }
            Err(
                Error::NotAssigned { .. } | Error::Group { refusal: Refusal::UnknownMember(_), .. },
            ) => {
                assert!(expired, "only who was silent for too long is refused");
                self.counts.refused_commits += 1;
            }
            Err(error) => panic!("{error}"),
        }
        // A synced commit makes everything before it durable too.
        if self.journal.part(logmill_storage::Part::Hot).durable_offset() > durable_before {
            self.note_durable();
        }
    }

    fn note_durable(&mut self) {
        let hot = self.journal.part(logmill_storage::Part::Hot);
        if hot.durable_offset() < hot.end_offset() {
            return;
        }
        for commits in self.groups.iter_mut().flat_map(|group| group.commits.values_mut()) {
            commits.durable = commits.history.len().saturating_sub(1);
        }
    }

    fn add_partitions(&mut self) {
        if self.records.len() < 5 {
            self.records.push(Vec::new());
            self.topic.add_partitions(u32::try_from(self.records.len()).unwrap()).unwrap();
            self.counts.partitions_added += 1;
            self.note_durable();
        }
    }

    fn pass_time(&mut self) {
        let seconds = [1, 5, 20, 31][self.random.below(4)];
        self.clock.advance(Duration::from_secs(seconds));
        self.dir.tick();
        let now = self.now();
        for group in &self.groups {
            let expired = group
                .members
                .iter()
                .filter(|member| now.saturating_sub(member.last_seen) > SESSION);
            self.counts.expired += expired.count() as u64;
        }
        self.note_durable();
    }

    /// All processes die; with the power, what was not synced may go.
    fn crash(&mut self, power: bool) {
        if power {
            self.counts.power_losses += 1;
            self.disk.crash(&CrashPlan::random(self.random.next()));
        } else {
            self.counts.kills += 1;
            self.disk.kill();
        }
        for group in &mut self.groups {
            group.members.clear();
        }
        let (dir, journal, streams) = open(&self.disk, &self.clock);
        self.topic = streams.topic("t").unwrap();
        (self.dir, self.journal, self.streams) = (dir, journal, streams);
        self.after_crash(power);
    }

    fn after_crash(&mut self, power: bool) {
        assert_eq!(self.topic.partition_count() as usize, self.records.len());
        for (partition, records) in (0u32..).zip(&mut self.records) {
            let end = self.topic.partition(partition).unwrap().end_offset().unwrap() as usize;
            assert!(end <= records.len());
            if !power || self.durability == Durability::Sync {
                assert_eq!(end, records.len(), "what was acknowledged is there");
            }
            self.counts.lost_records += (records.len() - end) as u64;
            records.truncate(end);
            for group in &mut self.groups {
                group.delivered.entry(partition).or_default().retain(|offset| *offset < end as u64);
            }
        }
        for (number, group) in self.groups.iter_mut().enumerate() {
            let positions: BTreeMap<u32, u64> =
                match self.streams.describe_group(&format!("g{number}")) {
                    Ok(group) => group
                        .partitions
                        .iter()
                        .filter_map(|p| Some((p.partition.partition, p.committed?)))
                        .collect(),
                    Err(Error::UnknownGroup { .. }) => BTreeMap::new(),
                    Err(error) => panic!("{error}"),
                };
            for (partition, commits) in &mut group.commits {
                let found = positions.get(partition).copied().unwrap_or(0);
                let possible: Vec<u64> =
                    commits.history.iter().copied().skip(commits.durable).collect();
                // Before the first synced commit, the start of the group is possible too.
                let from_the_start = commits.durable == 0 && found == 0;
                assert!(possible.contains(&found) || from_the_start, "{found} of {possible:?}");
                if !power {
                    assert!(
                        commits.history.last().is_none_or(|last| *last == found),
                        "kill takes nothing back"
                    );
                } else if commits.history.last() != Some(&found) {
                    self.counts.taken_back_commits += 1;
                }
                commits.history = vec![found];
                commits.durable = 0;
            }
        }
    }

    fn step(&mut self) {
        let group = self.random.below(GROUPS);
        match self.random.below(100) {
            0..25 => self.append(),
            25..35 => self.join(group),
            35..70 => {
                if let Some(index) = self.pick(group) {
                    self.poll(group, index);
                }
            }
            70..82 => {
                if let Some(index) = self.pick(group) {
                    self.commit(group, index);
                }
            }
            82..86 => {
                if let Some(index) = self.pick(group) {
                    drop(self.groups[group].members.remove(index));
                }
            }
            86..89 => {
                if let Some(index) = self.pick(group) {
                    self.groups[group].members[index].hangs = true;
                }
            }
            89..95 => self.pass_time(),
            95..97 => self.add_partitions(),
            97 => self.crash(false),
            _ => self.crash(true),
        }
    }

    /// In the end everything reaches everybody.
    fn finish(&mut self) {
        for group in 0..GROUPS {
            self.groups[group].members.clear();
            self.join(group);
            for _ in 0..10_000 {
                let before = self.counts.delivered + self.counts.lost_positions;
                self.poll(group, 0);
                if before == self.counts.delivered + self.counts.lost_positions {
                    break;
                }
            }
            for (partition, records) in (0u32..).zip(&self.records) {
                let delivered = self.groups[group].delivered.entry(partition).or_default();
                let all: BTreeSet<u64> = (0..records.len() as u64).collect();
                assert_eq!(*delivered, all, "each record reaches each group");
            }
        }
    }
}

fn run(seed: u64) -> Counts {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.finish();
    world.counts
}

#[test]
fn groups_keep_their_promises_through_any_history() {
    let sequences: u64 =
        std::env::var("LOGMILL_MODEL_SEQUENCES").map_or(2_000, |n| n.parse().unwrap());
    let first: u64 = std::env::var("LOGMILL_MODEL_SEED").map_or(1, |n| n.parse().unwrap());
    let mut totals = [0; 12];
    for seed in first..first + sequences {
        let counts = std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|panic| {
            println!("again: LOGMILL_MODEL_SEED={seed} LOGMILL_MODEL_SEQUENCES=1");
            std::panic::resume_unwind(panic)
        });
        let Counts { appended, delivered, redelivered, commits, refused_commits, expired, .. } =
            counts;
        let Counts {
            kills,
            power_losses,
            lost_records,
            lost_positions,
            taken_back_commits,
            partitions_added,
            ..
        } = counts;
        let counted = [
            appended,
            delivered,
            redelivered,
            commits,
            refused_commits,
            expired,
            kills,
            power_losses,
            lost_records,
            lost_positions,
            taken_back_commits,
            partitions_added,
        ];
        for (total, count) in totals.iter_mut().zip(counted) {
            *total += count;
        }
    }
    println!("{sequences} histories: {totals:?}");
    if sequences >= 1_000 {
        assert!(
            totals.iter().all(|total| *total > 0),
            "everything that was meant to happen happened: {totals:?}"
        );
    }
}
