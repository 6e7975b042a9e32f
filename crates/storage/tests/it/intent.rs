//! A record for another log is neither lost nor doubled, wherever a crash falls between journal and log.

use std::sync::Arc;

use logmill_storage::io::sim::{CrashPlan, SimDisk};
use logmill_storage::{
    AppendOptions, DataDir, DataDirOptions, Entry, INTENTS, Intent, Intents, Journal, Log,
    LogConfig, ManualClock, Reach, Record, Result,
};

struct Opened {
    journal: Journal,
    log: Log,
    dir: DataDir,
}

fn open(disk: &SimDisk) -> Result<Opened> {
    let clock = Arc::new(ManualClock::at(1_000_000));
    let dir = DataDirOptions::new().threads(0).clock(clock).open_with(disk.io())?;
    let journal = Journal::open(&dir, "0", LogConfig::default())?;
    let log = Log::open(&dir, "1/0", LogConfig::default())?;
    Ok(Opened { journal, log, dir })
}

fn work(disk: &SimDisk, acknowledged: &mut Vec<String>) -> Result<()> {
    let Opened { journal, log, dir } = open(disk)?;
    let intents = Intents::new(journal, |_: &str| Ok(Some(log.clone())));
    for n in 0..6 {
        let text = format!("dead letter {n}");
        let intent = Intent { log: "1/0", record: Record::value(text.as_bytes()).key(b"k") };
        let entry = Entry { owner: 7, bytes: b"moved" };
        intents.commit(&[entry], &[intent], &AppendOptions::default())?;
        if disk.is_stopped() {
            break;
        }
        acknowledged.push(text);
        if n == 3 {
            log.sync()?;
        }
        dir.tick();
    }
    Ok(())
}

fn finish(disk: &SimDisk) -> Vec<String> {
    let Opened { journal, log, .. } = open(disk).unwrap();
    let intents = Intents::new(journal.clone(), |_: &str| Ok(Some(log.clone())));
    journal
        .replay(Reach::default(), |entry| {
            if entry.owner == INTENTS {
                intents.replay(entry.place, entry.bytes).unwrap();
            }
            Ok(())
        })
        .unwrap();
    intents.complete().unwrap();
    assert_eq!(intents.pending(), 0);
    log.sync().unwrap();
    log.read(0, usize::MAX)
        .unwrap()
        .into_iter()
        .map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap())
        .collect()
}

#[test]
fn an_acknowledged_intent_is_in_its_log_exactly_once_after_a_power_cut_at_any_moment() {
    let probe = SimDisk::new(1);
    let mut all = Vec::new();
    work(&probe, &mut all).unwrap();
    assert_eq!(all.len(), 6);
    let points = probe.ops().total();
    let (mut states, mut completed) = (0, 0);
    for stop in 0..points {
        for seed in 0..6 {
            let disk = SimDisk::new(1);
            let mut acknowledged = Vec::new();
            disk.stop_at(stop);
            let _ = work(&disk, &mut acknowledged);
            match seed {
                0 => disk.kill(),
                1 => disk.crash(&CrashPlan::nothing()),
                2 => disk.crash(&CrashPlan::everything()),
                seed => disk.crash(&CrashPlan::random(seed)),
            }
            let found = finish(&disk);
            assert!(
                found.starts_with(&acknowledged),
                "stop {stop} seed {seed}: {acknowledged:?} {found:?}"
            );
            assert_eq!(
                found,
                all[..found.len()],
                "stop {stop} seed {seed}: in order and not doubled"
            );
            completed += usize::from(found.len() > acknowledged.len());
            assert_eq!(finish_again(&disk), found);
            states += 1;
        }
    }
    assert!(states > 300, "{states} states");
    assert!(completed > 0, "some crash fell between journal and acknowledgement");
}

fn finish_again(disk: &SimDisk) -> Vec<String> {
    disk.crash(&CrashPlan::nothing());
    finish(disk)
}
