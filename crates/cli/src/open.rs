//! Opening the store that the arguments name.

use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use logmill::Store;
use logmill::storage::{DataDir, DataDirOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::{Failure, Outcome};
use crate::{duration, ends};

/// What says that a directory is a store: see docs/format.md.
pub const JOURNAL_MARK: &str = "JOURNAL";
/// Over the options that every command takes, which its own would be lost among.
const EVERYWHERE: &str = "Options of every command";

/// Where the store is.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The store's directory; `produce` and the commands called `create` make it if it is not there
    #[arg(long, global = true, value_name = "DIR", help_heading = EVERYWHERE)]
    dir: Option<PathBuf>,
    /// How long a command that writes waits for another writer to finish, such as 500ms, 5s, 2m
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = duration::parse, help_heading = EVERYWHERE)]
    lock_wait: Duration,
}

impl Place {
    /// The directory.
    pub fn dir(&self) -> Outcome<&PathBuf> {
        self.dir.as_ref().ok_or_else(|| {
            Failure::Usage("this command needs --dir DIR, the store's directory".into())
        })
    }

    /// How long to wait for a lock.
    pub const fn lock_wait(&self) -> Duration {
        self.lock_wait
    }

    /// Opens the store for writing, making it if need be, does something with it and closes it; what went wrong first is
    /// what counts. Standard error says what was set aside on the way.
    pub fn write(&self, work: impl FnOnce(&Store) -> Outcome) -> Outcome {
        raise_file_limit();
        let store = Store::builder().lock_wait(self.lock_wait).open(self.dir()?)?;
        let done = work(&store);
        for line in ends::set_aside(&store.path(), &store.recovery()) {
            // Where standard error is closed, `verify` still says it.
            let _ = writeln!(stderr(), "logmill: {line}");
        }
        match (done, store.close().map_err(Failure::from)) {
            // What the command was given is stored: whoever sent it again for an exit code would have it twice.
            (Ok(()), Err(Failure::Corrupt(message))) => {
                let _ =
                    writeln!(stderr(), "logmill: all of this is stored, beside damage: {message}");
                Ok(())
            }
            (done, closed) => done.and(closed),
        }
    }

    /// Opens the store for reading beside whatever writes to it, and shows it to `look`.
    pub fn read(&self, look: impl FnOnce(&Store) -> Outcome) -> Outcome {
        raise_file_limit();
        let store = Store::builder().read_only(true).open(self.existing_dir()?)?;
        look(&store)?;
        Failure::of_damage(&ends::doubts_of_journal(&store.path(), &store.recovery()))
    }

    /// Opens the store's files for reading, and none of them yet: there is a store.
    pub fn open_files(&self) -> Outcome<DataDir> {
        raise_file_limit();
        let files = self.files()?;
        files.refuse_backup()?;
        // A store of which all else is lost has its mark still; one from before there were marks has logs.
        if files.path().join(JOURNAL_MARK).exists() || !files.logs()?.is_empty() {
            return Ok(files);
        }
        Err(no_store(files.path()))
    }

    /// The directory, for commands that make none: there is a store in it.
    pub fn existing_dir(&self) -> Outcome<&PathBuf> {
        self.open_files()?;
        self.dir()
    }

    /// The files in the directory, whatever they are, for reading.
    pub fn files(&self) -> Outcome<DataDir> {
        let dir = self.dir()?;
        if !dir.exists() {
            return Err(no_store(dir));
        }
        Ok(DataDirOptions::new().read_only(true).open(dir)?)
    }
}

/// What a command says that makes no store and found none.
pub fn no_store(dir: &Path) -> Failure {
    let dir = dir.display();
    Failure::Failed(format!(
        "there is no store at {dir}; `produce`, `topic create` and `queue create` make one"
    ))
}

/// Lets this process open as many files as it may: a shell's soft limit is lower than what thousands of partitions take.
fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where it fails, the limit is as it was, and whatever meets it says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
