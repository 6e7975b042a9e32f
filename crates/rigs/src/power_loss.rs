//! Power loss on a real file system.
//!
//! A workload runs on a disk whose writes and flushes are logged. Then crash states are made from the log: everything up to
//! a flush, and of the writes after it nothing, all, or any set of their 4 KiB sectors. Each is mounted under another boot
//! id, opened, and held against what was acknowledged by then.

use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use logmill_torture::random::{Random, mix};

use crate::device::{Device, Layer};
use crate::history::Violation;
use crate::image::Image;
use crate::tools::{Boot, FileSystem, Mounted, Outcome, beside, failed, verified};
use crate::workload::{self, Kind, Level, Seen};
use crate::write_log::WriteLog;

/// States that are made of one run of a workload.
const STATES_PER_RUN: u64 = 50;
const OPERATIONS: usize = 250;
/// Of a thousand states, so many may fail to mount before the run says nothing.
const UNMOUNTABLE_PER_MILLE: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Durability {
    Sync,
    Buffered,
}

/// Cut the power of a real file system, thousands of times
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The file system
    #[arg(long, value_enum, default_value = "ext4")]
    fs: FileSystem,
    /// How many crash states
    #[arg(long, default_value_t = 200)]
    states: u64,
    /// Chooses workloads and states
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What the workload acknowledges by
    #[arg(long, value_enum, default_value = "sync")]
    durability: Durability,
    /// One workload; all in turn unless it is given
    #[arg(long, value_enum)]
    workload: Option<Kind>,
    /// The `logmill` command that verifies each state; the one beside this program unless it is given
    #[arg(long)]
    command: Option<PathBuf>,
}

/// Which of the writes since the last flush a state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    None,
    All,
    Half,
    Most,
    Torn,
}

const KEPT: [Kept; 5] = [Kept::None, Kept::All, Kept::Half, Kept::Most, Kept::Torn];

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    states: u64,
    unmountable: u64,
    lossy: u64,
    cut: u64,
    quarantined: u64,
    lost: u64,
    invented: u64,
    reordered: u64,
    refused: u64,
}

impl Counts {
    fn note(&mut self, result: &Result<Seen, Violation>) {
        match result {
            Ok(seen) => {
                self.lossy += u64::from(seen.lossy);
                self.cut += u64::from(seen.cut);
                self.quarantined += u64::from(seen.quarantined);
            }
            Err(Violation::Lost(_)) => self.lost += 1,
            Err(Violation::Invented(_)) => self.invented += 1,
            Err(Violation::Reordered(_)) => self.reordered += 1,
            Err(Violation::Refused(_)) => self.refused += 1,
        }
    }

    const fn violations(&self) -> u64 {
        self.lost + self.invented + self.reordered + self.refused
    }
}

/// Where everything is.
struct Rig<'a> {
    arguments: &'a Arguments,
    home: &'a Path,
    command: PathBuf,
    boot: Boot,
}

/// Runs the rig.
pub fn run(arguments: &Arguments) -> Outcome {
    let home = workload::home()?;
    let command = beside(arguments.command.as_deref())?;
    let rig = Rig { arguments, home: home.path(), command, boot: Boot::take_over(home.path())? };
    fs::create_dir(rig.at("mounted")).map_err(failed("a mount point"))?;
    let kinds = match arguments.workload {
        Some(kind) => vec![kind],
        None => vec![Kind::Append, Kind::Queue, Kind::Compaction],
    };
    println!(
        "{:<12}{:>8}{:>8}{:>8}{:>8}{:>10}{:>10}{:>10}{:>8}",
        "workload", "states", "lossy", "cut", "aside", "lost", "invented", "reordered", "refused"
    );
    let level = match arguments.durability {
        Durability::Sync => Level::Sync,
        Durability::Buffered => Level::Buffered,
    };
    let mut total = Counts::default();
    for (i, kind) in (0..).zip(&kinds) {
        let caught = rig.rounds(*kind, Level::Lying, STATES_PER_RUN)?;
        if caught.violations() == 0 {
            return Err(format!(
                "{kind:?}: acknowledging before the sync was not caught: this rig proves nothing"
            ));
        }
        println!(
            "{:<12}{}/{} states: acknowledging before the sync is caught",
            name(*kind),
            caught.violations(),
            caught.states
        );
        let share = arguments.states / kinds.len() as u64
            + u64::from(i < arguments.states % kinds.len() as u64);
        let counts = rig.rounds(*kind, level, share)?;
        row(name(*kind), &counts);
        if share >= STATES_PER_RUN && counts.lossy == 0 {
            return Err(
                "no state lost anything that was not acknowledged: the power was never cut"
                    .to_owned(),
            );
        }
        total.states += counts.states;
        total.unmountable += counts.unmountable;
        total.lost += counts.violations();
    }
    println!(
        "{:?}, {:?}, seed {}: {} states, {} could not be mounted, {} violations",
        arguments.fs,
        arguments.durability,
        arguments.seed,
        total.states,
        total.unmountable,
        total.lost
    );
    if total.lost > 0 {
        return Err("an acknowledgement was broken".to_owned());
    }
    if total.unmountable * 1000 > total.states * UNMOUNTABLE_PER_MILLE {
        return Err("too many states could not be mounted".to_owned());
    }
    Ok(())
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Append => "append",
        Kind::Queue => "queue",
        Kind::Compaction => "compaction",
    }
}

fn row(name: &str, counts: &Counts) {
    println!(
        "{name:<12}{:>8}{:>8}{:>8}{:>8}{:>10}{:>10}{:>10}{:>8}",
        counts.states,
        counts.lossy,
        counts.cut,
        counts.quarantined,
        counts.lost,
        counts.invented,
        counts.reordered,
        counts.refused
    );
}

impl Rig<'_> {
    fn at(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// Runs workloads until `states` states have been made of them.
    fn rounds(&self, kind: Kind, level: Level, states: u64) -> Outcome<Counts> {
        let mut counts = Counts::default();
        let mut round = 0;
        while counts.states < states {
            let seed = mix(self.arguments.seed).wrapping_add(mix(round + 1000 * kind as u64));
            let left = STATES_PER_RUN.min(states - counts.states);
            self.round(kind, level, seed, left, &mut counts)
                .map_err(|what| format!("{} round {round}: {what}", name(kind)))?;
            round += 1;
        }
        Ok(counts)
    }

    /// One run of a workload, and the states that are made of it.
    fn round(
        &self,
        kind: Kind,
        level: Level,
        seed: u64,
        states: u64,
        counts: &mut Counts,
    ) -> Outcome {
        let mut random = Random::new(seed);
        let mut workload = kind.workload();
        let (disk, log) = (self.at("disk"), self.at("log"));
        self.arguments.fs.make(&disk)?;
        let mut image = Image::read(&disk)?;
        self.boot.start(0)?;
        let layer = Layer::Logged { log: log.clone() };
        let device = Device::start(self.home, &disk, &layer)?;
        let now = || fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let mounted = Mounted::mount(self.arguments.fs, device.path(), &self.at("mounted"))?;
        let began = now();
        workload.play(&mounted.store(), OPERATIONS, level, &mut random, &now)?;
        let ended = now();
        mounted.unmount()?;
        drop(device);

        let log = WriteLog::read(&log)?;
        let first = log.entries().partition_point(|entry| entry.end <= began);
        let last = log.entries().partition_point(|entry| entry.end <= ended);
        if last - first < 100 {
            return Err(format!("only {} writes were logged", last - first));
        }
        let mut points: Vec<_> =
            (0..states).map(|_| first + random.below((last - first) as u64) as usize).collect();
        points.sort_unstable();
        let mut applied = 0;
        for (number, point) in (1..).zip(points) {
            let flush =
                log.entries()[..=point].iter().rposition(|e| e.is_flush).map_or(0, |f| f + 1);
            for entry in &log.entries()[applied.min(flush)..flush] {
                log.pieces(entry).for_each(|(at, bytes)| image.write(at, bytes));
            }
            applied = applied.max(flush);
            let kept = random.pick(&KEPT);
            let window = &log.entries()[flush..=point.max(flush)];
            let changes = choose(&log, if flush > point { &[] } else { window }, kept, &mut random);
            let moment = log.entries()[point].end;
            counts.states += 1;
            image.store(&self.at("state"), &changes)?;
            self.boot.start(number)?;
            let Ok(mounted) =
                Mounted::mount(self.arguments.fs, &self.at("state"), &self.at("mounted"))
            else {
                counts.unmountable += 1;
                continue;
            };
            let result = workload.check(&mounted.store(), moment);
            let result = result.and_then(|seen| {
                match kind {
                    Kind::Queue => verified(&self.command, &mounted.store()),
                    // No journal knows of these logs, so for the command the store that they are in is damaged.
                    Kind::Append | Kind::Compaction => workload::sound(&mounted.store()),
                }
                .map(|()| seen)
            });
            counts.note(&result);
            mounted.unmount()?;
            if let (Err(violation), true) = (&result, level != Level::Lying) {
                let saved = std::env::temp_dir().join(format!("logmill-state-{seed}-{number}.img"));
                image.store(&saved, &changes)?;
                println!(
                    "{violation}\n  state {number} of seed {seed}: {kept:?} of what came after the flush before write {point}, kept in {}",
                    saved.display()
                );
            }
        }
        Ok(())
    }
}

/// The pieces of `window` that reached the disk.
fn choose<'a>(
    log: &'a WriteLog,
    window: &[crate::write_log::Entry],
    kept: Kept,
    random: &mut Random,
) -> Vec<(u64, &'a [u8])> {
    let pieces = window.iter().flat_map(|entry| log.pieces(entry));
    match kept {
        Kept::None => Vec::new(),
        Kept::All => pieces.collect(),
        Kept::Half => pieces.filter(|_| random.once_in(2)).collect(),
        Kept::Most => pieces.filter(|_| !random.once_in(8)).collect(),
        Kept::Torn => {
            let pieces: Vec<_> = pieces.collect();
            let end = random.below(pieces.len() as u64 + 1) as usize;
            pieces[..end].to_vec()
        }
    }
}
