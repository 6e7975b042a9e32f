//! Store directories that nobody should ever have: each is opened for reading, verified, opened for writing, read and
//! appended to, and what comes of it is what tests/golden/evil.txt says.
//!
//! All of it happens in a process of its own with limits on memory and processor time, in a directory that has a
//! neighbour; the neighbour must stay as it is. With `LOGMILL_WRITE_GOLDEN=1` the text is written anew.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use logmill_storage::io::sim::SimDisk;
use logmill_storage::verify::verify;
use logmill_storage::{
    Corruption, DataDir, DataDirOptions, Error, Log, LogConfig, ManualClock, Record,
};

mod bytes;
mod names;

const NOW: i64 = 1_700_000_000_000;
/// KiB of address space: the test binary and its threads take most of it.
const MEMORY_KIB: u64 = 1 << 20;
const PROCESSOR_SECONDS: u64 = 240;

/// A directory, and what is wrong with it.
struct Case {
    name: String,
    /// Whether the writer of the good store was killed, and not closed.
    killed: bool,
    spoil: Box<dyn Fn(&Store)>,
}

fn case(name: impl Into<String>, spoil: impl Fn(&Store) + 'static) -> Case {
    Case { name: name.into(), killed: false, spoil: Box::new(spoil) }
}

fn killed(name: impl Into<String>, spoil: impl Fn(&Store) + 'static) -> Case {
    Case { name: name.into(), killed: true, spoil: Box::new(spoil) }
}

/// A store to be spoiled: the logs `1` and `2`, of several segments each, on the real disk.
struct Store {
    home: tempfile::TempDir,
    /// The numbers of log `1`'s segments.
    bases: Vec<u64>,
}

impl Store {
    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join("store").join(name)
    }

    /// Something beside the store.
    fn outside(&self, name: &str) -> PathBuf {
        self.home.path().join("outside").join(name)
    }

    fn segment(&self, number: usize) -> PathBuf {
        self.path(&format!("1/{:020}.log", self.bases[number]))
    }

    fn beside(&self, number: usize, extension: &str) -> PathBuf {
        self.path(&format!("1/{:020}.{extension}", self.bases[number]))
    }
}

fn options() -> DataDirOptions {
    DataDirOptions::new().threads(0).clock(Arc::new(ManualClock::at(NOW)))
}

fn config() -> LogConfig {
    LogConfig::default().segment_bytes_max(4 << 10)
}

/// The good store, the same in every run.
fn good(killed: bool) -> SimDisk {
    let disk = SimDisk::new(1);
    let dir = options().open_with(disk.io()).unwrap();
    for name in ["1", "2"] {
        let log = Log::open(&dir, name, config()).unwrap();
        for n in 0..60u8 {
            let value = [n; 200];
            log.append(&Record::value(&value).key(name.as_bytes())).unwrap();
        }
        log.settle().unwrap();
        log.append(&Record::value(b"after the settling")).unwrap();
        if !killed {
            log.close().unwrap();
        }
    }
    disk.kill();
    disk
}

fn store(killed: bool) -> Store {
    let disk = good(killed);
    // In memory where that can be: there is no power to lose here.
    let memory = Path::new("/dev/shm");
    let home = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let home = home.unwrap();
    for dir in ["store", "store/1", "store/2", "outside"] {
        fs::create_dir(home.path().join(dir)).unwrap();
        set_mode(&home.path().join(dir), 0o700);
    }
    let mut bases = Vec::new();
    for name in disk.paths() {
        let Some(bytes) = disk.read_file(&name) else { continue };
        let path = home.path().join("store").join(&name);
        fs::write(&path, bytes).unwrap();
        set_mode(&path, 0o600);
        if let Some(base) = name.strip_prefix("1/").and_then(|name| name.strip_suffix(".log")) {
            bases.push(base.parse().unwrap());
        }
    }
    fs::write(home.path().join("outside/canary"), b"nobody touches this").unwrap();
    bases.sort_unstable();
    assert!(bases.len() >= 3, "{bases:?}");
    Store { home, bases }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

/// Names, lengths and times of everything below `dir`, but for the locks.
fn looks(dir: &Path) -> Vec<(PathBuf, u64, i64, u64)> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                dirs.push(path.clone());
            } else if !path.ends_with("store/LOCK") && !path.ends_with("store/ALIVE") {
                found.push((path, metadata.len(), metadata.mtime_nsec(), metadata.ino()));
            }
        }
    }
    found.sort();
    found
}

/// What the engine makes of it, in one line a view.
fn outcome(store: &Store) -> String {
    let root = store.path("");
    let mut text = String::new();
    let reading = options().read_only(true).open(&root);
    let _ = match &reading {
        Ok(dir) => writeln!(text, "  verify   {}", verified(store, dir)),
        Err(e) => writeln!(text, "  verify   {}", said(store, e)),
    };
    let followed = reading.and_then(|dir| Log::open(&dir, "1", config()));
    let _ = match &followed {
        Ok(log) => writeln!(text, "  follower {}", read(store, log)),
        Err(e) => writeln!(text, "  follower {}", said(store, e)),
    };
    drop(followed);
    let before = looks(&root);
    let opened = options().open(&root).and_then(|dir| Ok((Log::open(&dir, "1", config())?, dir)));
    match &opened {
        Ok((log, _)) => {
            let report = log.recovery();
            let found = read(store, log);
            let appended = log.append(&Record::value(b"and on it goes"));
            let appended =
                appended.map_or_else(|e| said(store, &e), |offset| format!("at {offset}"));
            let closed = log.clone().close().map_or_else(|e| said(store, &e), |()| "closed".into());
            let _ = writeln!(
                text,
                "  writer   {}{:?}, {found}; appends {appended}; {closed}",
                if report.clean { "clean, " } else { "" },
                report.verdict,
            );
        }
        Err(e) => {
            assert_eq!(before, looks(&root), "a refused store was changed");
            let _ = writeln!(text, "  writer   {}", said(store, e));
        }
    }
    drop(opened);
    assert_eq!(fs::read(store.outside("canary")).unwrap(), b"nobody touches this");
    text
}

fn verified(store: &Store, dir: &DataDir) -> String {
    match verify(dir, &mut |_| {}) {
        Ok(report) => {
            let worst = report.findings.iter().max_by_key(|finding| finding.severity);
            worst.map_or_else(
                || format!("fine, {} records", report.records),
                |finding| {
                    let problem = plain(&format!("{:?}", finding.problem));
                    let path = relative(store, &finding.path);
                    format!("{:?}, {path} at {}: {problem}", finding.severity, finding.position)
                },
            )
        }
        Err(e) => said(store, &e),
    }
}

fn read(store: &Store, log: &Log) -> String {
    let (start, mut next) = (log.start_offset(), log.start_offset());
    let result = log.reader(start).and_then(|mut reader| {
        while let Some(batch) = reader.next_batch()? {
            for record in batch.records() {
                assert_eq!(record.unwrap().offset, next, "a record out of order");
                next += 1;
            }
        }
        Ok(())
    });
    match result {
        Ok(()) => format!("reads {start}..{next}"),
        Err(e) => format!("reads {start}..{next}, then {}", said(store, &e)),
    }
}

fn relative(store: &Store, path: &Path) -> String {
    let path = path.strip_prefix(store.path("")).unwrap_or(path);
    path.as_os_str().to_string_lossy().escape_debug().to_string()
}

/// An error without what differs from run to run.
fn said(store: &Store, error: &Error) -> String {
    match error {
        Error::Corrupt { path, position, offset, what } => {
            let what = match what {
                Corruption::Checksum { .. } => "Checksum".to_owned(),
                what => plain(&format!("{what:?}")),
            };
            format!("corrupt: {} at {position} from {offset}: {what}", relative(store, path))
        }
        Error::Io { op, path, source } => {
            format!("io: {op} {}: {:?}", relative(store, path), source.kind())
        }
        Error::NotAFile { path } => format!("not a file: {}", relative(store, path)),
        error => error.to_string().replace(&format!("{}", store.home.path().display()), "…"),
    }
}

/// Without the sums that a checksum mismatch names.
fn plain(text: &str) -> String {
    match text.split_once("Checksum {") {
        Some((before, after)) => {
            let rest = after.split_once('}').map_or("", |(_, rest)| rest);
            format!("{before}Checksum{rest}")
        }
        None => text.to_owned(),
    }
}

fn all() -> Vec<Case> {
    let mut all = names::cases();
    all.extend(bytes::cases());
    all
}

#[test]
fn every_evil_store_has_the_outcome_that_its_line_says_in_bounded_memory_and_time() {
    if std::env::var_os("LOGMILL_EVIL").is_none() {
        let limits =
            format!("ulimit -v {MEMORY_KIB} && ulimit -t {PROCESSOR_SECONDS} && exec \"$@\"");
        let output = Command::new("sh")
            .args(["-c", &limits, "sh"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("evil::every_evil_store_has_the_outcome_that_its_line_says_in_bounded_memory_and_time")
            .env("LOGMILL_EVIL", "1")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{printed}\n{complained}", output.status);
        return;
    }
    let cases = all();
    assert!(cases.len() >= 100, "{} cases", cases.len());
    let mut text = String::new();
    for Case { name, killed, spoil } in &cases {
        let store = store(*killed);
        spoil(&store);
        let found = outcome(&store);
        let _ = write!(text, "{name}\n{found}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/evil.txt");
    if std::env::var_os("LOGMILL_WRITE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    let differs = text.lines().zip(golden.lines()).position(|(found, expected)| found != expected);
    if let Some(line) = differs {
        let around = |text: &str| {
            text.lines().skip(line.saturating_sub(4)).take(8).collect::<Vec<_>>().join("\n")
        };
        panic!(
            "from line {} on: found\n{}\nexpected\n{}",
            line + 1,
            around(&text),
            around(&golden)
        );
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}
