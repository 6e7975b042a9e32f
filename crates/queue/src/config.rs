//! What a queue is set to: SQS's attributes, and those that SQS lacks.

use std::time::Duration;

use logmill_storage::Durability;

use crate::config::encoding::{field, name_of};
use crate::error::{Error, Result};
use crate::limits::{CENTURY_MS, Limit, duration, within};

mod encoding;

/// How long a failed message waits before it can be received again, where the nack does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Retry {
    /// Not at all.
    #[default]
    Immediate,
    /// Always as long.
    Fixed {
        /// The delay.
        delay: Duration,
    },
    /// `step` after the first failure, twice that after the second, and so on, at most `most`.
    Linear {
        /// What each failure adds.
        step: Duration,
        /// The longest delay.
        most: Duration,
    },
    /// `first` after the first failure, doubled by each further one, at most `most`; then shortened at random by up
    /// to `jitter` per cent, so that messages that failed together do not come back together.
    Exponential {
        /// The first delay.
        first: Duration,
        /// The longest delay.
        most: Duration,
        /// 0 to 100.
        jitter: u8,
    },
}

/// What happens when a queue is as long as it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// A send fails with [`Error::QueueFull`].
    #[default]
    Reject,
    /// The oldest waiting message goes.
    DropOldest,
    /// The oldest waiting message goes to the dead-letter queue.
    DeadLetter,
}

/// What happens to a FIFO group when one of its messages fails for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailure {
    /// The message goes to the dead-letter queue and the group goes on.
    #[default]
    Skip,
    /// The group stands still, in order, until it is resumed or the message is redriven.
    Park,
}

/// Which queues may name this one as their dead-letter queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedriveAllow {
    /// All.
    #[default]
    All,
    /// None.
    None,
    /// These, by name: 1 to 10.
    Queues(Vec<String>),
}

/// How far FIFO deduplication looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeduplicationScope {
    /// The whole queue.
    #[default]
    Queue,
    /// The message's group.
    Group,
}

/// How long a FIFO queue remembers a deduplication id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeduplicationWindow {
    /// From the first send on, whatever becomes of the message.
    For(Duration),
    /// Until the message is deleted (or expires, or moves to the dead-letter queue).
    UntilDeleted,
}

impl Default for DeduplicationWindow {
    fn default() -> Self {
        DeduplicationWindow::For(Duration::from_secs(300))
    }
}

/// The attributes of a queue. Setters chain; what was not set has its default and is not compared when a queue that
/// exists is created again.
///
/// ```
/// use logmill_queue::QueueConfig;
/// use std::time::Duration;
/// let config = QueueConfig::standard().visibility_timeout(Duration::from_secs(60)).dead_letter("failed", 5);
/// ```
#[derive(Clone, Debug)]
pub struct QueueConfig {
    pub(crate) fifo: bool,
    pub(crate) visibility_timeout_ms: i64,
    pub(crate) delay_ms: i64,
    pub(crate) retention_ms: i64,
    pub(crate) receive_wait_ms: i64,
    pub(crate) message_bytes_max: u64,
    pub(crate) lease_max_ms: i64,
    pub(crate) in_flight_max: u64,
    pub(crate) max_receives: u32,
    pub(crate) dead_letter: Option<String>,
    pub(crate) redrive_allow: RedriveAllow,
    pub(crate) expired_to_dead_letter: bool,
    pub(crate) on_failure: OnFailure,
    pub(crate) retry: Retry,
    pub(crate) messages_max: u64,
    pub(crate) bytes_max: u64,
    pub(crate) overflow: Overflow,
    pub(crate) content_deduplication: bool,
    pub(crate) deduplication_window: DeduplicationWindow,
    pub(crate) deduplication_scope: DeduplicationScope,
    pub(crate) group_concurrency: u32,
    pub(crate) keep_deleted_ms: i64,
    pub(crate) durability: Option<Durability>,
    /// Which fields were set, by their number in the encoding.
    given: u64,
}

/// A duration in whole ms; longer than any limit becomes the largest value, which no limit permits.
fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn length(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

impl QueueConfig {
    fn of_kind(fifo: bool) -> QueueConfig {
        QueueConfig {
            fifo,
            visibility_timeout_ms: 30_000,
            delay_ms: 0,
            retention_ms: 4 * 24 * 3_600_000,
            receive_wait_ms: 0,
            message_bytes_max: 1 << 20,
            lease_max_ms: 12 * 3_600_000,
            in_flight_max: 120_000,
            max_receives: 0,
            dead_letter: None,
            redrive_allow: RedriveAllow::All,
            expired_to_dead_letter: false,
            on_failure: OnFailure::Skip,
            retry: Retry::Immediate,
            messages_max: 0,
            bytes_max: 0,
            overflow: Overflow::Reject,
            content_deduplication: false,
            deduplication_window: DeduplicationWindow::default(),
            deduplication_scope: DeduplicationScope::Queue,
            group_concurrency: 0,
            keep_deleted_ms: 0,
            durability: None,
            given: 1 << field::FIFO,
        }
    }

    /// A standard queue: any number of workers, no order promised.
    pub fn standard() -> QueueConfig {
        QueueConfig::of_kind(false)
    }

    /// A FIFO queue: order in each message group, deduplication. Its name ends in `.fifo`.
    pub fn fifo() -> QueueConfig {
        QueueConfig::of_kind(true)
    }

    fn given(mut self, field: u64) -> QueueConfig {
        self.given |= 1 << field;
        self
    }

    /// How long a received message stays hidden. Default 30 s; 0 to [`QueueConfig::lease_max`]. Counts from the next receive on.
    pub fn visibility_timeout(mut self, timeout: Duration) -> QueueConfig {
        self.visibility_timeout_ms = ms(timeout);
        self.given(field::VISIBILITY_TIMEOUT)
    }

    /// How long a sent message stays hidden, where it does not say itself. Default 0, at most 100 years. A change
    /// counts for messages sent from then on; in a FIFO queue for those that still wait, too.
    pub fn delay(mut self, delay: Duration) -> QueueConfig {
        self.delay_ms = ms(delay);
        self.given(field::DELAY)
    }

    /// How long a message lives, from when it could first be received. Default 4 days; 1 s to 100 years. A change
    /// counts at once for all messages. A message that a consumer holds is not taken from it.
    pub fn retention(mut self, retention: Duration) -> QueueConfig {
        self.retention_ms = ms(retention);
        self.given(field::RETENTION)
    }

    /// How long a receive that does not say itself waits for a message. Default 0, at most 24 h.
    pub fn receive_wait(mut self, wait: Duration) -> QueueConfig {
        self.receive_wait_ms = ms(wait);
        self.given(field::RECEIVE_WAIT)
    }

    /// The largest message, its attributes included. Default 1 MiB; 1,024 to 16,000,000 bytes.
    pub fn message_bytes_max(mut self, bytes: u64) -> QueueConfig {
        self.message_bytes_max = bytes;
        self.given(field::MESSAGE_BYTES_MAX)
    }

    /// How long one receive may last, extensions included. Default 12 h; 1 s to 30 days.
    pub fn lease_max(mut self, lease: Duration) -> QueueConfig {
        self.lease_max_ms = ms(lease);
        self.given(field::LEASE_MAX)
    }

    /// How many messages may be in flight. Default 120,000; 1 to 16,000,000. Beyond it a receive on a standard queue
    /// fails with [`Error::OverLimit`] unless it waits, and one on a FIFO queue returns nothing.
    pub fn in_flight_max(mut self, messages: u64) -> QueueConfig {
        self.in_flight_max = messages;
        self.given(field::IN_FLIGHT_MAX)
    }

    /// Moves a message to the queue `name` at the receive that would be its `max_receives + 1`st. `max_receives`: 1
    /// to 1,000. Default: never. The queue must exist and be of the same type.
    pub fn dead_letter(mut self, name: &str, max_receives: u32) -> QueueConfig {
        self.dead_letter = Some(name.to_owned());
        self.max_receives(max_receives).given(field::DEAD_LETTER)
    }

    /// How often a message may be received. Without a dead-letter queue it then stays in this queue as dead, where it
    /// can be read, redriven or deleted. 1 to 1,000; default: without limit.
    pub fn max_receives(mut self, max_receives: u32) -> QueueConfig {
        self.max_receives = max_receives;
        self.given(field::MAX_RECEIVES)
    }

    /// Lets messages live for ever in spite of failures, and forgets the dead-letter queue.
    pub fn no_dead_letter(mut self) -> QueueConfig {
        self.dead_letter = None;
        self.max_receives = 0;
        self.given(field::DEAD_LETTER).given(field::MAX_RECEIVES)
    }

    /// Which queues may use this one as their dead-letter queue. Default: all.
    pub fn redrive_allow(mut self, allow: RedriveAllow) -> QueueConfig {
        self.redrive_allow = allow;
        self.given(field::REDRIVE_ALLOW)
    }

    /// Whether expired messages go to the dead-letter queue (as dead in this queue, if it has none). Default: they vanish.
    pub fn expired_to_dead_letter(mut self, yes: bool) -> QueueConfig {
        self.expired_to_dead_letter = yes;
        self.given(field::EXPIRED_TO_DEAD_LETTER)
    }

    /// What becomes of the group of a message that fails for good. FIFO only. Default: it goes on.
    pub fn on_failure(mut self, on_failure: OnFailure) -> QueueConfig {
        self.on_failure = on_failure;
        self.given(field::ON_FAILURE)
    }

    /// How long a failed message waits. Default: not at all. In a FIFO queue its group waits with it.
    pub fn retry(mut self, retry: Retry) -> QueueConfig {
        self.retry = retry;
        self.given(field::RETRY)
    }

    /// How many messages may wait (ready and delayed). Default: any number.
    pub fn messages_max(mut self, messages: u64) -> QueueConfig {
        self.messages_max = messages;
        self.given(field::MESSAGES_MAX)
    }

    /// How many bytes may wait (ready and delayed). Default: any number.
    pub fn bytes_max(mut self, bytes: u64) -> QueueConfig {
        self.bytes_max = bytes;
        self.given(field::BYTES_MAX)
    }

    /// What happens beyond [`QueueConfig::messages_max`] or [`QueueConfig::bytes_max`]. Default: a send is rejected.
    pub fn overflow(mut self, overflow: Overflow) -> QueueConfig {
        self.overflow = overflow;
        self.given(field::OVERFLOW)
    }

    /// Whether the SHA-256 of the body is the deduplication id of a message that has none. FIFO only. Default: no.
    pub fn content_deduplication(mut self, yes: bool) -> QueueConfig {
        self.content_deduplication = yes;
        self.given(field::CONTENT_DEDUPLICATION)
    }

    /// How long a deduplication id is remembered. FIFO only. Default: 5 minutes.
    pub fn deduplication_window(mut self, window: DeduplicationWindow) -> QueueConfig {
        self.deduplication_window = window;
        self.given(field::DEDUPLICATION_WINDOW)
    }

    /// Whether deduplication looks at the whole queue or at the message's group. FIFO only. Default: the queue.
    pub fn deduplication_scope(mut self, scope: DeduplicationScope) -> QueueConfig {
        self.deduplication_scope = scope;
        self.given(field::DEDUPLICATION_SCOPE)
    }

    /// How many messages of one group may be in flight at once. Standard only. 1 to 16,000,000; default: any number.
    pub fn group_concurrency(mut self, messages: u32) -> QueueConfig {
        self.group_concurrency = messages;
        self.given(field::GROUP_CONCURRENCY)
    }

    /// How long deleted messages can be read again as a stream. Default 0, at most 100 years.
    pub fn keep_deleted(mut self, period: Duration) -> QueueConfig {
        self.keep_deleted_ms = ms(period);
        self.given(field::KEEP_DELETED)
    }

    /// The durability of sends and deletes that do not say themselves. Default: that of the store's queues.
    pub fn durability(mut self, durability: Durability) -> QueueConfig {
        self.durability = Some(durability);
        self.given(field::DURABILITY)
    }

    /// Whether it is a FIFO queue.
    pub const fn is_fifo(&self) -> bool {
        self.fifo
    }

    /// See [`QueueConfig::visibility_timeout`].
    pub fn get_visibility_timeout(&self) -> Duration {
        length(self.visibility_timeout_ms)
    }

    /// See [`QueueConfig::delay`].
    pub fn get_delay(&self) -> Duration {
        length(self.delay_ms)
    }

    /// See [`QueueConfig::retention`].
    pub fn get_retention(&self) -> Duration {
        length(self.retention_ms)
    }

    /// See [`QueueConfig::receive_wait`].
    pub fn get_receive_wait(&self) -> Duration {
        length(self.receive_wait_ms)
    }

    /// See [`QueueConfig::message_bytes_max`].
    pub const fn get_message_bytes_max(&self) -> u64 {
        self.message_bytes_max
    }

    /// See [`QueueConfig::max_receives`]; `None`: without limit.
    pub fn get_max_receives(&self) -> Option<u32> {
        (self.max_receives > 0).then_some(self.max_receives)
    }

    /// See [`QueueConfig::dead_letter`].
    pub fn get_dead_letter(&self) -> Option<&str> {
        self.dead_letter.as_deref()
    }

    /// See [`QueueConfig::content_deduplication`].
    pub const fn get_content_deduplication(&self) -> bool {
        self.content_deduplication
    }

    /// Checks every range and every combination.
    pub(crate) fn validate(&self) -> Result<()> {
        let at_most =
            |limit, ms: i64, least: u64, most: u64| duration(limit, length(ms), least, most);
        at_most(Limit::LeaseMax, self.lease_max_ms, 1000, 30 * 24 * 3_600_000)?;
        at_most(
            Limit::VisibilityTimeout,
            self.visibility_timeout_ms,
            0,
            self.lease_max_ms.unsigned_abs(),
        )?;
        at_most(Limit::Delay, self.delay_ms, 0, CENTURY_MS)?;
        at_most(Limit::Retention, self.retention_ms, 1000, CENTURY_MS)?;
        at_most(Limit::ReceiveWait, self.receive_wait_ms, 0, 24 * 3_600_000)?;
        at_most(Limit::KeepDeleted, self.keep_deleted_ms, 0, CENTURY_MS)?;
        within(Limit::MessageBytesMax, self.message_bytes_max, 1024, 16_000_000)?;
        within(Limit::InFlight, self.in_flight_max, 1, 16_000_000)?;
        let is_given = |field: u64| self.given & 1 << field != 0;
        if self.dead_letter.is_some() || self.max_receives > 0 {
            within(Limit::MaxReceives, u64::from(self.max_receives), 1, 1000)?;
        } else if is_given(field::MAX_RECEIVES) && !is_given(field::DEAD_LETTER) {
            within(Limit::MaxReceives, 0, 1, 1000)?;
        }
        if is_given(field::MESSAGES_MAX) {
            within(Limit::LengthMessages, self.messages_max, 1, u64::MAX)?;
        }
        if is_given(field::BYTES_MAX) {
            within(Limit::LengthBytes, self.bytes_max, 1, u64::MAX)?;
        }
        if is_given(field::GROUP_CONCURRENCY) {
            within(Limit::GroupConcurrency, u64::from(self.group_concurrency), 1, 16_000_000)?;
        }
        if let RedriveAllow::Queues(names) = &self.redrive_allow {
            within(Limit::RedriveSources, names.len() as u64, 1, 10)?;
        }
        if let DeduplicationWindow::For(window) = self.deduplication_window {
            duration(Limit::DeduplicationWindow, window, 1, CENTURY_MS)?;
        }
        self.validate_retry()?;
        self.validate_kind()
    }

    fn validate_retry(&self) -> Result<()> {
        let (first, most, jitter) = match self.retry {
            Retry::Immediate => return Ok(()),
            Retry::Fixed { delay } => (delay, delay, 0),
            Retry::Linear { step, most } => (step, most, 0),
            Retry::Exponential { first, most, jitter } => (first, most, jitter),
        };
        duration(Limit::RetryDelay, first, 0, CENTURY_MS)?;
        duration(Limit::RetryDelay, most, 0, CENTURY_MS)?;
        within(Limit::RetryJitter, u64::from(jitter), 0, 100)?;
        Ok(())
    }

    fn validate_kind(&self) -> Result<()> {
        let set =
            |what: bool, text| if what { Err(Error::Unsupported { what: text }) } else { Ok(()) };
        if self.fifo {
            return set(
                self.group_concurrency > 0,
                "a concurrency limit for the groups of a FIFO queue: it is 1",
            );
        }
        set(self.content_deduplication, "deduplication on a standard queue")?;
        set(
            self.deduplication_scope != DeduplicationScope::Queue,
            "deduplication on a standard queue",
        )?;
        set(
            self.deduplication_window != DeduplicationWindow::default(),
            "deduplication on a standard queue",
        )?;
        set(self.on_failure == OnFailure::Park, "parking the groups of a standard queue")
    }

    /// The first attribute that `wanted` gives and that differs here.
    pub(crate) fn conflict(&self, wanted: &QueueConfig) -> Option<&'static str> {
        let given = |field: u64| wanted.given & 1 << field != 0;
        let differs = |field: u64| {
            let (mut mine, mut theirs) = (Vec::new(), Vec::new());
            self.put_field(&mut mine, field);
            wanted.put_field(&mut theirs, field);
            mine != theirs
        };
        (1..=field::LAST).find(|field| given(*field) && differs(*field)).map(name_of)
    }
}

impl PartialEq for QueueConfig {
    /// Equal attributes, however they came to be set.
    fn eq(&self, other: &QueueConfig) -> bool {
        let encoded = |config: &QueueConfig| {
            let mut out = Vec::new();
            config.encode(&mut out);
            out
        };
        encoded(self) == encoded(other)
    }
}
