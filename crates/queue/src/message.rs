//! What is sent and what is received.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::limits::{self, CENTURY_MS, Limit, within};

/// The name of a message for its whole life, in dead-letter queues too: the queue and sequence that it was given first.
///
/// As text: 8 hexadecimal digits, a hyphen, 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId {
    pub(crate) queue: u32,
    pub(crate) sequence: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:016x}", self.queue, self.sequence)
    }
}

impl FromStr for MessageId {
    type Err = Error;

    fn from_str(text: &str) -> Result<MessageId> {
        let parse = || {
            let (queue, sequence) = text.split_once('-')?;
            let plain =
                |part: &str, len| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
            if !plain(queue, 8) || !plain(sequence, 16) {
                return None;
            }
            Some(MessageId {
                queue: u32::from_str_radix(queue, 16).ok()?,
                sequence: u64::from_str_radix(sequence, 16).ok()?,
            })
        };
        parse().ok_or_else(|| Error::InvalidMessageId { text: text.to_owned() })
    }
}

/// The type of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttributeKind {
    /// UTF-8 text.
    String,
    /// A decimal number with up to 38 digits, kept as text.
    Number,
    /// Any bytes.
    Binary,
}

/// A typed name and value that travels with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: AttributeKind,
    pub(crate) label: Option<&'a str>,
    pub(crate) value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// A text attribute.
    pub const fn string(name: &'a str, value: &'a str) -> Attribute<'a> {
        Attribute { name, kind: AttributeKind::String, label: None, value: value.as_bytes() }
    }

    /// A number, written in decimal.
    pub const fn number(name: &'a str, value: &'a str) -> Attribute<'a> {
        Attribute { name, kind: AttributeKind::Number, label: None, value: value.as_bytes() }
    }

    /// Bytes.
    pub const fn binary(name: &'a str, value: &'a [u8]) -> Attribute<'a> {
        Attribute { name, kind: AttributeKind::Binary, label: None, value }
    }

    /// Adds a custom label to the type: `String.label`.
    pub const fn label(mut self, label: &'a str) -> Attribute<'a> {
        self.label = Some(label);
        self
    }

    /// Its name.
    pub const fn name(&self) -> &'a str {
        self.name
    }

    /// Its type.
    pub const fn kind(&self) -> AttributeKind {
        self.kind
    }

    /// The custom label of its type.
    pub const fn custom_label(&self) -> Option<&'a str> {
        self.label
    }

    /// Its bytes: UTF-8 unless its type is binary.
    pub const fn value(&self) -> &'a [u8] {
        self.value
    }

    /// Its type as SQS writes it: `String`, `Number.label` and so on.
    pub fn type_name(&self) -> String {
        let kind = match self.kind {
            AttributeKind::String => "String",
            AttributeKind::Number => "Number",
            AttributeKind::Binary => "Binary",
        };
        self.label.map_or_else(|| kind.to_owned(), |label| format!("{kind}.{label}"))
    }

    fn bytes(&self) -> u64 {
        (self.name.len() + self.value.len() + 6 + self.label.map_or(0, |label| label.len() + 1))
            as u64
    }

    fn check(&self) -> Result<()> {
        within(Limit::AttributeNameLength, self.name.chars().count() as u64, 1, 256)?;
        within(
            Limit::AttributeTypeLength,
            self.label.map_or(6, |label| 7 + label.chars().count() as u64),
            6,
            256,
        )?;
        within(Limit::AttributeValueBytes, self.value.len() as u64, 1, u64::MAX)?;
        let invalid = |what| Err(Error::InvalidAttribute { name: self.name.to_owned(), what });
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if !self.name.bytes().all(legal) {
            return invalid("a name has letters, digits, _, - and . only");
        }
        if self.name.starts_with('.') || self.name.ends_with('.') || self.name.contains("..") {
            return invalid("a name neither begins nor ends with a dot, nor has two in a row");
        }
        let lower = self.name.to_ascii_lowercase();
        if lower.starts_with("aws.") || lower.starts_with("amazon.") {
            return invalid("names that begin with AWS. or Amazon. are reserved");
        }
        match self.kind {
            AttributeKind::Number => self.check_number(),
            AttributeKind::String if std::str::from_utf8(self.value).is_err() => {
                invalid("the value is not UTF-8")
            }
            AttributeKind::String | AttributeKind::Binary => Ok(()),
        }
    }

    fn check_number(&self) -> Result<()> {
        let invalid = || Error::InvalidAttribute {
            name: self.name.to_owned(),
            what: "the value is not a number",
        };
        let text = std::str::from_utf8(self.value).map_err(|_| invalid())?;
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
            return Err(invalid());
        }
        let exponent: i32 = exponent.parse().map_err(|_| invalid())?;
        // As in SQS, zeros at either end are no digits, and a number has its magnitude within bounds.
        let all = format!("{whole}{fraction}");
        let from_first = all.trim_start_matches('0');
        let significant = from_first.trim_end_matches('0');
        within(Limit::NumberDigits, significant.len() as u64, 0, 38)?;
        let leading = (all.len() - from_first.len()) as i64;
        let magnitude = whole.len() as i64 - leading - 1 + i64::from(exponent);
        let is_within = match magnitude {
            126 => significant == "1",
            other => (-128..126).contains(&other),
        };
        if !significant.is_empty() && !is_within {
            return Err(Error::InvalidAttribute {
                name: self.name.to_owned(),
                what: "the number is not between 10^-128 and 10^126",
            });
        }
        Ok(())
    }
}

/// A message to send. Cheap to copy; everything is borrowed.
///
/// ```
/// use logmill_queue::Message;
/// use std::time::Duration;
/// let message = Message::new(b"resize 17").delay(Duration::from_millis(1500)).priority(9);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) attributes: &'a [Attribute<'a>],
    pub(crate) delay: Option<Duration>,
    pub(crate) priority: Option<u8>,
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) group: Option<&'a str>,
    pub(crate) deduplication_id: Option<&'a str>,
    pub(crate) trace_header: Option<&'a str>,
}

impl<'a> Message<'a> {
    /// A message with a body and nothing else.
    pub const fn new(body: &'a [u8]) -> Message<'a> {
        Message {
            body,
            attributes: &[],
            delay: None,
            priority: None,
            time_to_live: None,
            group: None,
            deduplication_id: None,
            trace_header: None,
        }
    }

    /// Adds typed attributes: at most 10. They count towards the message's size.
    pub const fn attributes(mut self, attributes: &'a [Attribute<'a>]) -> Message<'a> {
        self.attributes = attributes;
        self
    }

    /// Hides the message for `delay` (in whole ms, of any length up to 100 years) instead of the queue's delay.
    /// Standard queues only; on a FIFO queue only zero is permitted and means the queue's delay.
    pub const fn delay(mut self, delay: Duration) -> Message<'a> {
        self.delay = Some(delay);
        self
    }

    /// Sets the priority: 0 (default) to 255, larger first. Standard queues only.
    pub const fn priority(mut self, priority: u8) -> Message<'a> {
        self.priority = Some(priority);
        self
    }

    /// Lets the message expire this long after it was sent, if the queue's retention does not end it earlier.
    pub const fn time_to_live(mut self, time_to_live: Duration) -> Message<'a> {
        self.time_to_live = Some(time_to_live);
        self
    }

    /// Sets the message group (FIFO, required) or the tenant for fairness and concurrency limits (standard).
    pub const fn group(mut self, group: &'a str) -> Message<'a> {
        self.group = Some(group);
        self
    }

    /// Sets the deduplication id. FIFO queues only.
    pub const fn deduplication_id(mut self, id: &'a str) -> Message<'a> {
        self.deduplication_id = Some(id);
        self
    }

    /// Sets the trace header that travels with the message and does not count towards its size.
    pub const fn trace_header(mut self, header: &'a str) -> Message<'a> {
        self.trace_header = Some(header);
        self
    }

    /// Bytes of body and attributes.
    pub(crate) fn bytes(&self) -> u64 {
        self.body.len() as u64 + self.attributes.iter().map(Attribute::bytes).sum::<u64>()
    }

    /// Everything that does not depend on the queue.
    pub(crate) fn check(&self) -> Result<()> {
        within(Limit::Attributes, self.attributes.len() as u64, 0, 10)?;
        for (i, attribute) in self.attributes.iter().enumerate() {
            attribute.check()?;
            if self.attributes.iter().take(i).any(|other| other.name == attribute.name) {
                return Err(Error::InvalidAttribute {
                    name: attribute.name.to_owned(),
                    what: "the name is used twice",
                });
            }
        }
        if let Some(group) = self.group {
            limits::id(Limit::GroupIdLength, group)?;
        }
        if let Some(id) = self.deduplication_id {
            limits::id(Limit::DeduplicationIdLength, id)?;
        }
        if let Some(header) = self.trace_header {
            within(Limit::TraceHeaderBytes, header.len() as u64, 1, 1024)?;
        }
        if let Some(delay) = self.delay {
            limits::duration(Limit::Delay, delay, 0, CENTURY_MS)?;
        }
        if let Some(time_to_live) = self.time_to_live {
            limits::duration(Limit::TimeToLive, time_to_live, 1, CENTURY_MS)?;
        }
        Ok(())
    }
}
