//! What can go wrong, by SQS's names where SQS has one.

use std::fmt;

use crate::limits::Limit;
use crate::message::MessageId;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the queues.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The store refused: see the inner error for what is on disk.
    Storage(logmill_storage::Error),
    /// The journal holds an entry of queue `queue` at `offset` that this build cannot read. Nothing was changed.
    Corrupt {
        /// The entry's journal offset.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A message is there, and its bytes cannot be read now, or not any more. It can be cancelled by its id.
    Unreadable {
        /// The message.
        id: MessageId,
        /// What the store or the entry says.
        source: Box<Error>,
    },
    /// A value is outside its limit. Nothing was written.
    OutOfBounds {
        /// Which limit.
        limit: Limit,
        /// The value that was given.
        found: u64,
        /// Least permitted value.
        least: u64,
        /// Greatest permitted value.
        most: u64,
    },
    /// A queue's name has letters, digits, `-` and `_` only, and ends in `.fifo` if and only if the queue is FIFO.
    InvalidQueueName {
        /// The name.
        name: String,
        /// Whether it was to name a FIFO queue.
        fifo: bool,
    },
    /// An id has characters that ids of its kind do not have.
    InvalidId {
        /// The limit of that kind of id.
        limit: Limit,
        /// The id.
        id: String,
    },
    /// A message attribute is not what SQS permits.
    InvalidAttribute {
        /// Its name.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
    /// No queue has this name.
    QueueDoesNotExist {
        /// The name.
        name: String,
    },
    /// A queue of this name exists with another value of `attribute`.
    QueueNameExists {
        /// The name.
        name: String,
        /// The first attribute that differs.
        attribute: &'static str,
    },
    /// Another queue names this one as its dead-letter queue.
    QueueInUse {
        /// The queue that was to be deleted.
        name: String,
        /// The queue that needs it.
        by: String,
    },
    /// The text is no receipt handle, or one of another queue.
    ReceiptHandleIsInvalid,
    /// The message was received again since, or its lease is over (FIFO): the receipt has no power any more.
    ReceiptHandleExpired {
        /// The message.
        id: MessageId,
    },
    /// The message is not in flight.
    MessageNotInflight {
        /// The message.
        id: MessageId,
    },
    /// There is no such message (any more).
    MessageDoesNotExist {
        /// The message.
        id: MessageId,
    },
    /// The text is no message id.
    InvalidMessageId {
        /// The text.
        text: String,
    },
    /// This kind of queue does not do that.
    Unsupported {
        /// What was asked, and of what.
        what: &'static str,
    },
    /// A FIFO queue needs this.
    Missing {
        /// What is missing.
        what: &'static str,
    },
    /// As many messages are in flight as the queue permits.
    OverLimit {
        /// The queue's `in_flight_max`.
        in_flight_max: u64,
    },
    /// The queue is as long as it may be and its overflow policy is to reject. Nothing was written.
    QueueFull {
        /// Messages that wait.
        messages: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The dead-letter queue does not admit this source, is of the other type, or is the source itself.
    RedriveRefused {
        /// The source.
        source: String,
        /// The dead-letter queue.
        target: String,
        /// Why.
        what: &'static str,
    },
    /// The queue has a running move task.
    MoveTaskRunning {
        /// The queue whose messages are being moved.
        source: String,
    },
    /// There is no such running move task or schedule.
    NotFound {
        /// What was looked for.
        what: &'static str,
    },
    /// The cron expression cannot be parsed.
    InvalidSchedule {
        /// The expression.
        expression: String,
        /// What the parser said.
        what: String,
    },
    /// The value has no JSON. Nothing was written.
    #[cfg(feature = "serde")]
    NotEncoded {
        /// Why.
        source: serde_json::Error,
    },
    /// The message's body is not the JSON of what it was to be read as. The message is as it was.
    #[cfg(feature = "serde")]
    NotDecoded {
        /// The message.
        id: MessageId,
        /// Where in the body, and why.
        source: serde_json::Error,
    },
    /// The thread that a worker needs could not be started.
    Thread(std::io::Error),
    /// The queues were closed.
    Closed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Storage(error) => write!(f, "{error}"),
            Error::Corrupt { offset, what } => {
                write!(f, "journal entry {offset} cannot be read: {what}")
            }
            Error::Unreadable { id, source } => {
                write!(f, "message {id} cannot be read: {source}")
            }
            Error::OutOfBounds { limit, found, least, most } => {
                write!(f, "{limit} is {found}, permitted are {least} to {most}")
            }
            Error::InvalidQueueName { name, fifo: true } => {
                write!(f, "{name:?} cannot name a FIFO queue: letters, digits, - and _, then .fifo")
            }
            Error::InvalidQueueName { name, fifo: false } => {
                write!(f, "{name:?} cannot name a standard queue: letters, digits, - and _ only")
            }
            Error::InvalidId { limit, id } => {
                write!(f, "{id:?} has characters that it may not have ({limit})")
            }
            Error::InvalidAttribute { name, what } => {
                write!(f, "message attribute {name:?}: {what}")
            }
            Error::QueueDoesNotExist { name } => write!(f, "queue {name} does not exist"),
            Error::QueueNameExists { name, attribute } => {
                write!(f, "queue {name} exists with a different value of {attribute}")
            }
            Error::QueueInUse { name, by } => {
                write!(f, "queue {name} is the dead-letter queue of {by}")
            }
            Error::ReceiptHandleIsInvalid => {
                f.write_str("this is not a receipt handle of the queue")
            }
            Error::ReceiptHandleExpired { id } => {
                write!(
                    f,
                    "the receipt handle of message {id} has expired: its lease is over or it was received again"
                )
            }
            Error::MessageNotInflight { id } => write!(f, "message {id} is not in flight"),
            Error::MessageDoesNotExist { id } => write!(f, "message {id} does not exist any more"),
            Error::InvalidMessageId { text } => write!(f, "{text:?} is not a message id"),
            Error::Unsupported { what } => write!(f, "not supported: {what}"),
            Error::Missing { what } => write!(f, "missing: {what}"),
            Error::OverLimit { in_flight_max } => {
                write!(f, "{in_flight_max} messages are in flight already")
            }
            Error::QueueFull { messages, bytes } => {
                write!(f, "the queue is full: {messages} messages with {bytes} bytes wait")
            }
            Error::RedriveRefused { source, target, what } => {
                write!(f, "{target} cannot be the dead-letter queue of {source}: {what}")
            }
            Error::MoveTaskRunning { source } => {
                write!(f, "messages of {source} are being moved already")
            }
            Error::NotFound { what } => write!(f, "there is no such {what}"),
            Error::InvalidSchedule { expression, what } => {
                write!(f, "{expression:?} is no schedule: {what}")
            }
            #[cfg(feature = "serde")]
            Error::NotEncoded { source } => write!(f, "a message has no JSON: {source}"),
            #[cfg(feature = "serde")]
            Error::NotDecoded { id, source } => {
                write!(f, "the body of message {id} is not the JSON that was expected: {source}")
            }
            Error::Thread(error) => write!(f, "a worker's thread could not be started: {error}"),
            Error::Closed => f.write_str("the queues are closed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Storage(error) => Some(error),
            Error::Thread(error) => Some(error),
            #[cfg(feature = "serde")]
            Error::NotEncoded { source } | Error::NotDecoded { source, .. } => Some(source),
            Error::Unreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<logmill_storage::Error> for Error {
    fn from(error: logmill_storage::Error) -> Error {
        Error::Storage(error)
    }
}
