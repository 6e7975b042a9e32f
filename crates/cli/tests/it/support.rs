//! A store in a temporary directory, and the binary that works on it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use logmill::TopicConfig;
use tempfile::TempDir;

/// A directory for a store, removed at the end of the test.
pub struct Store {
    home: TempDir,
}

/// What a finished command left.
pub struct Finished {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Finished {
    /// The output of a command that had to succeed in silence.
    pub fn ok(self) -> Vec<u8> {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""));
        self.stdout
    }

    pub fn ok_text(self) -> String {
        String::from_utf8(self.ok()).unwrap()
    }

    /// Standard error of a command that had to fail with `code`.
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "stderr: {}", self.stderr);
        assert!(self.stderr.starts_with("logmill: "), "stderr: {}", self.stderr);
        self.stderr
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Finished {
        let stderr = String::from_utf8(output.stderr).unwrap();
        let code = output.status.code().unwrap_or_else(|| panic!("{}: {stderr}", output.status));
        Finished { code, stdout: output.stdout, stderr }
    }
}

/// `logmill arguments`, with no store and no input.
pub fn logmill(arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logmill"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap().into()
}

/// `logmill arguments` where no file may grow beyond `kib` KiB: to the engine a full disk.
pub fn limited(kib: u64, arguments: &[&str]) -> Finished {
    let mut command = Command::new("bash");
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$@\"");
    command.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_logmill")]).args(arguments);
    command.stdin(Stdio::null()).output().unwrap().into()
}

impl Store {
    pub fn new() -> Store {
        Store { home: TempDir::new().unwrap() }
    }

    pub fn dir(&self) -> PathBuf {
        self.home.path().join("store")
    }

    /// A file beside the store, with `content`.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.home.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// `logmill --dir DIR arguments`, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logmill"));
        command.arg("--dir").arg(self.dir()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command with no input.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        self.command(arguments).output().unwrap().into()
    }

    /// Runs a command with `input` on its standard input.
    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> Finished {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // Another thread feeds it, since both pipes may fill up.
        let feeder = std::thread::spawn(move || match stdin.write_all(&input) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {}
            result => result.unwrap(),
        });
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        output.into()
    }

    /// Appends `input` to `topic` and expects that to work.
    pub fn produce(&self, topic: &str, input: &[u8]) {
        assert_eq!(self.run_with(&["produce", topic], input).ok_text(), "");
    }

    /// Makes a topic of several partitions.
    pub fn create_topic(&self, name: &str, partitions: u32) {
        self.create(name, TopicConfig::new().partitions(partitions));
    }

    /// Makes a topic whose segments hold 64 KiB, so that a few thousand lines give several sealed ones.
    pub fn create_topic_of_small_segments(&self, name: &str) {
        self.create(name, TopicConfig::new().segment_bytes_max(64 << 10));
    }

    fn create(&self, name: &str, config: TopicConfig) {
        let store = logmill::Store::open(self.dir()).unwrap();
        store.create_topic(name, config).unwrap();
        store.close().unwrap();
    }

    /// Starts a producer that lives until its input is closed.
    pub fn live_producer(&self, arguments: &[&str]) -> Child {
        let arguments = [&["produce"], arguments, &["--print-offsets"]].concat();
        self.command(&arguments).stdin(Stdio::piped()).spawn().unwrap()
    }

    /// The directory of partition 0 of the topic that was made first.
    pub fn partition(&self) -> PathBuf {
        self.dir().join("1/0")
    }

    /// Its files whose names end with `.extension`, in order.
    pub fn files(&self, extension: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        collect(&self.partition(), &mut files);
        files.retain(|path| path.extension().is_some_and(|found| found == extension));
        files.sort();
        files
    }

    /// Every path below the store with the bytes behind it: equal before and after means untouched.
    pub fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        collect(&self.dir(), &mut files);
        files.sort();
        files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

/// The lines of a json output.
pub fn parsed(output: &[u8]) -> Vec<serde_json::Value> {
    output
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// Numbers that look random and are the same in every run (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `0..end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
