//! Why a command stops, and the exit code that says so.

use std::fmt;
use std::io;
use std::process::ExitCode;

use logmill::{queue, storage, stream};

/// The result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a command stops.
#[derive(Debug)]
pub enum Failure {
    /// The arguments make no sense together: exit code 2.
    Usage(String),
    /// It could not be done: exit code 1.
    Failed(String),
    /// The store is damaged: exit code 3.
    Corrupt(String),
    /// Nobody reads the output any more, as behind `| head`. Not worth a word: exit code 0.
    OutputClosed,
}

impl Failure {
    /// What the system said about writing to standard output.
    pub fn output(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Failed(format!("write to standard output: {error}")),
        }
    }

    /// The exit code.
    pub fn code(&self) -> ExitCode {
        match self {
            Failure::OutputClosed => ExitCode::SUCCESS,
            Failure::Failed(_) => ExitCode::from(1),
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Corrupt(_) => ExitCode::from(3),
        }
    }

    /// One failure that says what all of `damage` say; none of it is none.
    pub fn of_damage(damage: &[String]) -> Outcome {
        if damage.is_empty() { Ok(()) } else { Err(Failure::Corrupt(damage.join("\nlogmill: "))) }
    }

    /// Adds to the message what the caller knows.
    pub fn note(self, note: &str) -> Failure {
        let add = |message| format!("{message}; {note}");
        match self {
            Failure::Usage(message) => Failure::Usage(add(message)),
            Failure::Failed(message) => Failure::Failed(add(message)),
            Failure::Corrupt(message) => Failure::Corrupt(add(message)),
            Failure::OutputClosed => Failure::OutputClosed,
        }
    }
}

impl From<storage::Error> for Failure {
    fn from(error: storage::Error) -> Failure {
        let message = error.to_string();
        match error {
            error if is_damage(&error) => Failure::Corrupt(message),
            storage::Error::Locked { .. } => {
                Failure::Failed(message).note("stop that process, or wait for it with --lock-wait")
            }
            _ => Failure::Failed(message),
        }
    }
}

impl From<stream::Error> for Failure {
    fn from(error: stream::Error) -> Failure {
        match error {
            stream::Error::Storage(error) => Failure::from(error),
            stream::Error::InvalidName { .. }
            | stream::Error::InvalidPattern { .. }
            | stream::Error::InvalidPartitions { .. }
            | stream::Error::InvalidSetting { .. } => Failure::Usage(error.to_string()),
            other => Failure::Failed(other.to_string()),
        }
    }
}

impl From<logmill::Error> for Failure {
    fn from(error: logmill::Error) -> Failure {
        match error {
            logmill::Error::Storage(error) => Failure::from(error),
            logmill::Error::Stream(error) => Failure::from(error),
            logmill::Error::Queue(queue::Error::Storage(error)) => Failure::from(error),
            logmill::Error::Queue(error) if is_corrupt(&error) => {
                Failure::Corrupt(error.to_string())
            }
            logmill::Error::Queue(
                error @ (queue::Error::InvalidQueueName { .. }
                | queue::Error::OutOfBounds { limit: queue::Limit::QueueNameLength, .. }),
            ) => Failure::Usage(error.to_string()),
            other => Failure::Failed(other.to_string()),
        }
    }
}

fn is_corrupt(error: &queue::Error) -> bool {
    match error {
        queue::Error::Unreadable { source, .. } => is_corrupt(source),
        queue::Error::Storage(error) => is_damage(error),
        queue::Error::Corrupt { .. } => true,
        _ => false,
    }
}

/// A link or a pipe in the place of one of the store's files is damage too: what was there is not there any more.
const fn is_damage(error: &storage::Error) -> bool {
    use storage::Error::{Ambiguous, Corrupt, NotAFile};
    matches!(error, Corrupt { .. } | Ambiguous { .. } | NotAFile { .. })
}

/// The message for standard error.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(message) | Failure::Failed(message) | Failure::Corrupt(message) => {
                f.write_str(message)
            }
            Failure::OutputClosed => f.write_str("nobody reads the output"),
        }
    }
}
