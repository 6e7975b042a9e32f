//! A machine with a log or a journal, as the explorers see it.

use logmill_storage::Visibility;
use logmill_storage::io::sim::{CrashPlan, SimDisk};

use crate::check::{self, Found};
use crate::counts::Counts;
use crate::examine::Looks;
use crate::op::{COMPACTING, JOURNALING, Level, Op, SMALL, Shape};
use crate::oracle::{End, Oracle};
use crate::random::Random;
use crate::run::Machine;
use crate::setup::Setup;
use crate::world::{Book, Halt, World, explain};

impl World for Machine {
    type Setup = Setup;
    type Op = Op;
    type Found = Found;

    const PROBE: Op = Op::Append(Level::Sync, Shape::One);
    const LOOK: Op = Op::Read;
    const GOES_ON: &'static [Op] = &[
        Op::Append(Level::Buffered, Shape::Three),
        Op::Append(Level::Sync, Shape::Idempotent),
        Op::Retry,
        Op::Compact,
        Op::Checkpoint,
        Op::Read,
        Op::Follow,
    ];
    const DERIVED: &'static [&'static str] =
        &[".index", ".time", ".producers", "/live", "/checkpoint-9"];

    fn books() -> Vec<Book<Machine>> {
        vec![
            Book { name: "log", setups: &Setup::PLAIN, letters: &SMALL, share: 120 },
            Book { name: "compaction", setups: &Setup::KEYED, letters: &COMPACTING, share: 40 },
            Book { name: "journal", setups: &Setup::JOURNAL, letters: &JOURNALING, share: 40 },
        ]
    }

    fn random_setup(random: &mut Random) -> Setup {
        Setup::random(random)
    }

    fn random_op(random: &mut Random) -> Op {
        Op::random(random)
    }

    fn empty(setup: Setup, seed: u64) -> Machine {
        Machine::new(SimDisk::new(seed), setup, Oracle::default())
    }

    fn fresh(setup: Setup, seed: u64) -> Result<Machine, Halt> {
        Machine::fresh(setup, seed)
    }

    fn copy(&self, seed: u64) -> Machine {
        Machine::copy(self, seed)
    }

    fn take_account_of(&mut self, earlier: &Machine) {
        self.oracle = earlier.oracle.clone();
    }

    fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn setup(&self) -> Setup {
        self.setup
    }

    fn tally(&self, counts: &mut Counts) {
        counts.acks += self.oracle.acks;
        counts.removed += self.removed;
    }

    fn promises(&self) -> String {
        let Oracle { durable, stored, start, start_max, epoch, checkpoint, .. } = &self.oracle;
        let end = self.oracle.end();
        format!(
            "start {start}..={start_max}, durable {durable}, stored {stored}, appended {end}, epoch {epoch}, checkpoint \
             {checkpoint}"
        )
    }

    fn start(&mut self, how: End) -> Result<Found, Halt> {
        Machine::start(self, how)
    }

    fn run(&mut self, op: Op) -> Result<(), Halt> {
        Machine::run(self, op)
    }

    fn is_open(&self) -> bool {
        Machine::is_open(self)
    }

    fn kill(&mut self) {
        Machine::kill(self);
    }

    fn crash(&mut self, plan: &CrashPlan) {
        Machine::crash(self, plan);
    }

    fn note(&self, open: &Machine, found: &Found, counts: &mut Counts) {
        counts.lossy += u64::from(found.end < self.oracle.end());
        if let Ok(store) = open.store() {
            counts.note(store.log().recovery());
        }
    }

    fn same(first: &Found, second: &Found) -> bool {
        (first.start, first.end) == (second.start, second.end)
    }

    fn compare(
        &self,
        how: End,
        open: &Machine,
        found: &Found,
        looks: Looks,
        seed: u64,
        counts: &mut Counts,
    ) -> Result<(), String> {
        if looks.follow
            && let Some(end) = follow(self, seed, counts)?
            && end != found.end
            && how != End::Failure
        {
            return Err(format!("a reader saw the end at {end}, and recovery keeps {}", found.end));
        }
        // Compaction removes segments, and recovery ends what it began.
        if looks.again && !self.setup.keyed {
            let left = segments_with_frames(open);
            // One that begins where the log ends now held no whole commit, and its bytes are cut off or set aside.
            let gone =
                |base: &u64| *base >= found.start && *base != found.end && !left.contains(base);
            if let Some(lost) = segments_with_frames(self).into_iter().find(gone) {
                return Err(format!("recovery has deleted the segment {lost}, which held frames"));
            }
        }
        Ok(())
    }

    fn stripped(&mut self) {
        self.oracle.bare = true;
    }

    fn doubt(&mut self) {
        self.doubtful = true;
    }

    fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// A cache that a failed sync has emptied may have forgotten what a buffered log shows; and a follower that could not
    /// read the live page sees less at first than a moment later.
    fn may_forget(&self, op: Op) -> bool {
        matches!(op, Op::Follow) || self.setup.buffered && matches!(op, Op::Read)
    }

    fn answers_late(setup: Setup) -> bool {
        setup.buffered
    }
}

/// What a read-only open sees while no writer lives: its end.
fn follow(machine: &Machine, seed: u64, counts: &mut Counts) -> Result<Option<u64>, String> {
    counts.second += 1;
    let copy = machine.copy(seed);
    let Some(follower) = copy.try_follow().map_err(explain)? else { return Ok(None) };
    let (start, high) = (follower.log().start_offset(), follower.log().high_watermark());
    check::contents(&follower, &machine.oracle, Visibility::Level, start, high)
        .map_err(|what| format!("a reader of what is left: {what}"))?;
    if !copy.disk.change_points().is_empty() {
        return Err("a reader has written".into());
    }
    Ok(Some(high))
}

/// The base offsets of the segment files, quarantined ones included, that hold anything behind their head.
fn segments_with_frames(machine: &Machine) -> Vec<u64> {
    let holds = |path: &String| {
        let bytes = machine.disk.read_file(path)?;
        let name = path.rsplit('/').next()?;
        let base = name.get(..20)?.parse().ok()?;
        (name.ends_with(".log") && bytes.iter().skip(128).any(|b| *b != 0)).then_some(base)
    };
    machine.disk.paths().iter().filter(|path| path.starts_with("0/")).filter_map(holds).collect()
}
