//! The programs that the rigs call, and file systems made with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::history::Violation;

/// How long is waited for what takes no time.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What was done, or why it could not be.
pub type Outcome<T = ()> = Result<T, String>;

/// Runs a program to its end and returns what it printed.
pub fn call(program: &str, arguments: &[&str]) -> Outcome<String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(format!("{program} {}: {}: {said}", arguments.join(" "), output.status))
    }
}

/// `path` as an argument: ours are all made here, and plain.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

/// Names what went wrong.
pub fn failed<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> String {
    move |e| format!("{what}: {e}")
}

/// A file system that a rig can put a store on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
}

impl FileSystem {
    const fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
            FileSystem::Btrfs => "btrfs",
        }
    }

    /// Bytes of an image: about the least that each of them takes.
    const fn image_len(self) -> u64 {
        match self {
            FileSystem::Ext4 => 64 << 20,
            FileSystem::Xfs => 300 << 20,
            FileSystem::Btrfs => 128 << 20,
        }
    }

    /// Makes an empty file system in a new file.
    pub fn make(self, image: &Path) -> Outcome {
        let file = fs::File::create(image).map_err(failed("creating an image"))?;
        file.set_len(self.image_len()).map_err(failed("sizing an image"))?;
        let image = text(image);
        match self {
            FileSystem::Ext4 => call(
                "mkfs.ext4",
                &["-q", "-F", "-b", "4096", "-J", "size=4", "-E", "nodiscard", image],
            ),
            FileSystem::Xfs => call("mkfs.xfs", &["-q", "-f", "-K", image]),
            FileSystem::Btrfs => call("mkfs.btrfs", &["-q", "-f", "-K", image]),
        }
        .map(|_| ())
    }
}

/// The `logmill` command: `given`, or the one beside this program.
pub fn beside(given: Option<&Path>) -> Outcome<PathBuf> {
    match given {
        Some(command) => Ok(command.to_owned()),
        None => {
            Ok(std::env::current_exe().map_err(failed("this program"))?.with_file_name("logmill"))
        }
    }
}

/// `command` finds nothing wrong with a store.
pub fn verified(command: &Path, store: &Path) -> Result<(), Violation> {
    let output = Command::new(command)
        .arg("--dir")
        .arg(store)
        .arg("verify")
        .output()
        .map_err(|e| Violation::Refused(format!("{}: {e}", command.display())))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(()),
        // Bytes that recovery has set aside are worth a word, and no damage.
        Some(3) if said.contains("is whole") => Ok(()),
        code => Err(Violation::Refused(format!("verify ended with {code:?}: {said}"))),
    }
}

/// The boot id of this mount namespace, which is ours to change.
#[derive(Debug)]
pub struct Boot(PathBuf);

impl Boot {
    /// From now on this namespace has an id that is kept in `home`.
    pub fn take_over(home: &Path) -> Outcome<Boot> {
        let boot = Boot(home.join("boot_id"));
        boot.start(0)?;
        call("mount", &["--bind", text(&boot.0), "/proc/sys/kernel/random/boot_id"])?;
        Ok(boot)
    }

    /// The machine was started for the `number`-th time.
    pub fn start(&self, number: u64) -> Outcome {
        let id = format!("{number:08x}-0000-4000-8000-000000000000\n");
        fs::write(&self.0, id).map_err(failed("the boot id"))
    }
}

/// A mounted file system, unmounted when this goes.
#[derive(Debug)]
pub struct Mounted {
    at: PathBuf,
    up: bool,
}

impl Mounted {
    /// Mounts a block device, or an image through a loop device of its own.
    pub fn mount(file_system: FileSystem, what: &Path, at: &Path) -> Outcome<Mounted> {
        let options = if text(what).starts_with("/dev/loop") { "rw" } else { "rw,loop" };
        call("mount", &["-t", file_system.name(), "-o", options, text(what), text(at)])?;
        Ok(Mounted { at: at.to_owned(), up: true })
    }

    /// Mounts an image that is a copy of one that is mounted.
    pub fn mount_copy(file_system: FileSystem, image: &Path, at: &Path) -> Outcome<Mounted> {
        let options = if file_system == FileSystem::Xfs { "rw,loop,nouuid" } else { "rw,loop" };
        call("mount", &["-t", file_system.name(), "-o", options, text(image), text(at)])?;
        Ok(Mounted { at: at.to_owned(), up: true })
    }

    /// Mounts a tmpfs of 16 MiB.
    pub fn tmpfs(at: &Path) -> Outcome<Mounted> {
        call("mount", &["-t", "tmpfs", "-o", "size=16m", "tmpfs", text(at)])?;
        Ok(Mounted { at: at.to_owned(), up: true })
    }

    /// Mounts an overlay whose layers are in `layers`.
    pub fn overlay(layers: &Path, at: &Path) -> Outcome<Mounted> {
        for layer in ["lower", "upper", "work"] {
            fs::create_dir_all(layers.join(layer)).map_err(failed("a layer"))?;
        }
        let shown = text(layers);
        let options = format!("lowerdir={shown}/lower,upperdir={shown}/upper,workdir={shown}/work");
        call("mount", &["-t", "overlay", "-o", &options, "overlay", text(at)])?;
        Ok(Mounted { at: at.to_owned(), up: true })
    }

    /// The place of the store on it.
    pub fn store(&self) -> PathBuf {
        self.at.join("store")
    }

    /// Unmounts it, once the store's background has let go of it.
    pub fn unmount(mut self) -> Outcome {
        self.up = false;
        let asked = Instant::now();
        loop {
            match call("umount", &[text(&self.at)]) {
                Err(e) if asked.elapsed() > PATIENCE => return Err(e),
                Err(_) => thread::sleep(Duration::from_millis(5)),
                Ok(_) => return Ok(()),
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.up {
            let _ = call("umount", &["--lazy", text(&self.at)]);
        }
    }
}
