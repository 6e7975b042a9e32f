//! A sync that really fails: one write below a real file system is refused, once.
//!
//! Which sector that is a run without the fault tells: file systems put the same files into the same places. The sector
//! lies in the stretch that an append has to get ready, so the sync that fails is an append's. Afterwards the page cache
//! shows what the disk does not have. Neither a retry nor a process that opens the log again may take it for durable.
//!
//! Now and then something else lies there, and the fault meets the making of the segment. Its file is thrown away, so nothing
//! is in doubt: the append is refused, and the next one makes another.

use std::fs;
use std::path::{Path, PathBuf};

use logmill::storage::{Error, Log, LogConfig, Record};
use logmill_torture::random::{Random, mix};

use crate::device::{Device, Layer};
use crate::tools::{FileSystem, Mounted, Outcome, call, failed, text};
use crate::workload::{self, payload, read};

/// What is got ready when a segment is made: the sync that fails comes after that.
const FIRST_STRETCH: u64 = 64 << 10;
/// More than fill two stretches.
const APPENDS: u64 = 400;

/// Refuse one write below a real file system, so that a sync fails
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The file system: ext4 or xfs
    #[arg(long, value_enum, default_value = "ext4")]
    fs: FileSystem,
    /// How many syncs fail
    #[arg(long, default_value_t = 10)]
    cases: u64,
    /// Chooses the sectors
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the rig.
pub fn run(arguments: &Arguments) -> Outcome {
    let home = workload::home()?;
    for place in ["mounted", "copied"] {
        fs::create_dir(home.path().join(place)).map_err(failed("a mount point"))?;
    }
    let (mut attempts, mut there, mut gone, mut unmade) = (0, 0, 0, 0);
    while there + gone < arguments.cases {
        // Now and then a file system puts something else into the place.
        if attempts == 2 * arguments.cases {
            return Err(format!("of {attempts} faults only {} met an append", there + gone));
        }
        let case = Case { fs: arguments.fs, home: home.path() };
        let seed = mix(arguments.seed).wrapping_add(mix(attempts));
        let met = case
            .run(seed)
            .map_err(|what| format!("case {attempts} of seed {}: {what}", arguments.seed))?;
        attempts += 1;
        match met {
            Met::Nothing => {}
            Met::Segment => unmade += 1,
            Met::Append { kept: true } => there += 1,
            Met::Append { kept: false } => gone += 1,
        }
    }
    println!(
        "{:?}, seed {}: {} syncs failed ({attempts} attempts); the record in doubt was there {there} times, gone {gone} \
         times; each was the same in the same boot, on the platter and after a remount; {unmade} segments could not be made, \
         and the log went on in another",
        arguments.fs,
        arguments.seed,
        there + gone
    );
    Ok(())
}

/// What the fault came upon.
enum Met {
    /// Nothing that the log needed.
    Nothing,
    /// The making of a segment.
    Segment,
    /// The sync of an append, whose record is afterwards there, or not.
    Append { kept: bool },
}

struct Case<'a> {
    fs: FileSystem,
    home: &'a Path,
}

fn open(store: &Path) -> logmill::storage::Result<Log> {
    Log::open(&workload::dir(store)?, "1", LogConfig::default())
}

impl Case<'_> {
    fn at(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    fn run(&self, seed: u64) -> Outcome<Met> {
        let mut random = Random::new(seed);
        let (empty, disk) = (self.at("empty"), self.at("disk"));
        self.fs.make(&empty)?;
        let copy = |to: &Path| fs::copy(&empty, to).map_err(failed("copying an image"));

        copy(&disk)?;
        let mounted = Mounted::mount(self.fs, &disk, &self.at("mounted"))?;
        let log = open(&mounted.store()).map_err(failed("open"))?;
        append(&log, 0).map_err(|(_, e)| format!("append: {e}"))?;
        let position = FIRST_STRETCH + 512 * random.below(16);
        let sector = sector(&mounted.store().join(format!("1/{:020}.log", 0)), position)?;
        drop(log);
        mounted.unmount()?;

        copy(&disk)?;
        let device = Device::start(self.home, &disk, &Layer::Failing { sector })?;
        let mounted = Mounted::mount(self.fs, device.path(), &self.at("mounted"))?;
        // Nothing is acknowledged yet, so there is nothing to be lost.
        let Ok(log) = open(&mounted.store()) else { return Ok(Met::Nothing) };
        let Err((acknowledged, error)) = append(&log, 0) else { return Ok(Met::Nothing) };
        match error {
            Error::OutcomeUnknown { .. } => poisoned(&log, acknowledged)?,
            Error::Io { op: "create", .. } => {
                self.goes_on(log, acknowledged, mounted)?;
                return Ok(Met::Segment);
            }
            error => return Err(format!("the append of {acknowledged} ended with: {error}")),
        }
        drop(log);

        let kept = recovered(&mounted.store(), acknowledged, "in the same boot")?;
        let platter = self.at("platter");
        fs::copy(&disk, &platter).map_err(failed("copying the platter"))?;
        let copied = Mounted::mount_copy(self.fs, &platter, &self.at("copied"))?;
        let found = recovered(&copied.store(), acknowledged, "on the platter")?;
        copied.unmount()?;
        if found != kept {
            return Err(format!("{kept} records in the same boot, {found} on the platter"));
        }
        mounted.unmount()?;
        let mounted = Mounted::mount(self.fs, device.path(), &self.at("mounted"))?;
        let found = recovered(&mounted.store(), acknowledged, "after the remount")?;
        if found != kept {
            return Err(format!("{kept} records in the same boot, {found} after a remount"));
        }
        let log = open(&mounted.store()).map_err(failed("open"))?;
        append(&log, kept).map_err(|(_, e)| format!("append after the remount: {e}"))?;
        log.close().map_err(failed("close"))?;
        mounted.unmount()?;
        Ok(Met::Append { kept: kept > acknowledged })
    }

    /// A log that could not make a segment takes the record in another one, and what it takes reaches the platter.
    fn goes_on(&self, log: Log, acknowledged: u64, mounted: Mounted) -> Outcome {
        append(&log, acknowledged).map_err(|(id, e)| format!("append of {id} once more: {e}"))?;
        let platter = self.at("platter");
        fs::copy(self.at("disk"), &platter).map_err(failed("copying the platter"))?;
        let copied = Mounted::mount_copy(self.fs, &platter, &self.at("copied"))?;
        recovered(&copied.store(), acknowledged + APPENDS, "on the platter")?;
        copied.unmount()?;
        drop(log);
        mounted.unmount()
    }
}

/// Appends records from the number `first` on, until one is refused: then how many there were, and why.
fn append(log: &Log, first: u64) -> Result<(), (u64, Error)> {
    (first..first + APPENDS).try_for_each(|id| {
        log.append(&Record::value(&payload(id))).map(|_| ()).map_err(|e| (id, e))
    })
}

/// A poisoned log takes nothing, retries nothing, and shows what is durable.
fn poisoned(log: &Log, acknowledged: u64) -> Outcome {
    let syncs = || log.stats().map(|stats| stats.syncs).map_err(failed("stats"));
    let before = syncs()?;
    for again in [log.append(&Record::value(b"more")), log.sync()] {
        if !matches!(again, Err(Error::Poisoned { .. })) {
            return Err(format!("after a failed sync: {again:?}"));
        }
    }
    if syncs()? != before {
        return Err("the sync was tried again".to_owned());
    }
    if read(log)? != acknowledged {
        return Err("a poisoned log does not show what was acknowledged, and only that".to_owned());
    }
    Ok(())
}

/// Opens a log and returns how many records it has, which are at least those that were acknowledged.
fn recovered(store: &Path, acknowledged: u64, when: &str) -> Outcome<u64> {
    let log = open(store).map_err(|e| format!("open {when}: {e}"))?;
    let found = read(&log)?;
    if found < acknowledged || found > acknowledged + 1 {
        return Err(format!("{acknowledged} records were acknowledged, {found} are there {when}"));
    }
    Ok(found)
}

/// The sector of the disk that holds the byte at `position` of a file.
fn sector(file: &Path, position: u64) -> Outcome<u64> {
    call("sync", &["--file-system", text(file)])?;
    let extents = call("filefrag", &["-v", "-b512", text(file)])?;
    let wanted = position / 512;
    for line in extents.lines() {
        let mut fields =
            line.split(|c: char| !c.is_ascii_digit()).filter(|field| !field.is_empty());
        let numbers: Vec<u64> =
            fields.by_ref().take(5).filter_map(|field| field.parse().ok()).collect();
        if let [_, first, last, physical, _] = numbers[..]
            && line.contains("..")
            && (first..=last).contains(&wanted)
        {
            return Ok(physical + wanted - first);
        }
    }
    Err(format!("{} has no sector at {position}:\n{extents}", file.display()))
}
