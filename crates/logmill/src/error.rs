//! One error for everything that a store does.

use std::fmt;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and in which part.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// In the directory, its files or its logs.
    Storage(logmill_storage::Error),
    /// With topics, producers or consumer groups. Never holds a storage error: that is [`Error::Storage`].
    Stream(logmill_stream::Error),
    /// With queues and messages. Never holds a storage error: that is [`Error::Storage`].
    Queue(logmill_queue::Error),
}

impl Error {
    /// The storage engine's error, if it is one: a full disk, corruption, another writer.
    pub fn storage(&self) -> Option<&logmill_storage::Error> {
        match self {
            Error::Storage(error) => Some(error),
            Error::Stream(_) | Error::Queue(_) => None,
        }
    }

    fn inner(&self) -> &(dyn std::error::Error + 'static) {
        match self {
            Error::Storage(error) => error,
            Error::Stream(error) => error,
            Error::Queue(error) => error,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.inner(), f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner().source()
    }
}

impl From<logmill_storage::Error> for Error {
    fn from(error: logmill_storage::Error) -> Error {
        Error::Storage(error)
    }
}

impl From<logmill_stream::Error> for Error {
    fn from(error: logmill_stream::Error) -> Error {
        match error {
            logmill_stream::Error::Storage(error) => Error::Storage(error),
            error => Error::Stream(error),
        }
    }
}

impl From<logmill_queue::Error> for Error {
    fn from(error: logmill_queue::Error) -> Error {
        match error {
            logmill_queue::Error::Storage(error) => Error::Storage(error),
            error => Error::Queue(error),
        }
    }
}
