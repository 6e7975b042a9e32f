//! Records whose values are JSON (feature `serde`).
//!
//! A value that does not decode is an answer about that record and nothing else: those around it are not lost with it.

use serde::Serialize;
use serde::de::Deserialize;

use crate::TopicPartition;
use crate::chunk::{ConsumerRecord, Records};
use crate::error::{Error, Result};
#[cfg(feature = "tokio")]
use crate::producer::RecordMetadata;
use crate::producer::{Delivery, Producer, ProducerRecord};

/// A record that was read, and what its value says.
#[derive(Debug)]
pub struct TypedRecord<'a, T> {
    /// The record.
    pub record: ConsumerRecord<'a>,
    /// What its value says; `None` for a tombstone, [`Error::NotDecoded`] if it is not the JSON of a `T`.
    pub value: Result<Option<T>>,
}

impl<'a> ConsumerRecord<'a> {
    /// What the value says, as JSON; `None` for a tombstone. A `T` that borrows from the record copies nothing.
    ///
    /// # Errors
    /// [`Error::NotDecoded`], with topic, partition and offset.
    pub fn json<T: Deserialize<'a>>(&self) -> Result<Option<T>> {
        self.value.map(serde_json::from_slice).transpose().map_err(|source| Error::NotDecoded {
            partition: TopicPartition { topic: self.topic.into(), partition: self.partition },
            offset: self.offset,
            source,
        })
    }
}

impl Records {
    /// All records as [`Records::iter`] gives them, with every value read as the JSON of a `T`.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> impl Iterator<Item = TypedRecord<'a, T>> {
        self.iter().map(|record| TypedRecord { value: record.json(), record })
    }
}

impl Producer {
    /// Sends `record` with `value` as JSON in its value's place.
    ///
    /// ```
    /// use std::time::Duration;
    /// use logmill_stream::{ConsumerConfig, ProducerConfig, ProducerRecord, StartAt, TopicConfig, TypedRecord};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Click { page: String, at: u64 }
    ///
    /// # let place = tempfile::tempdir()?;
    /// # let dir = logmill_storage::DataDir::open(place.path())?;
    /// # let journal = logmill_storage::Journal::open(&dir, "0", Default::default())?;
    /// # let streams = logmill_stream::Streams::open(&dir, &journal, &Default::default())?;
    /// streams.create_topic("clicks", &TopicConfig::new())?;
    /// let producer = streams.producer(ProducerConfig::new())?;
    /// let click = Click { page: "/".into(), at: 7 };
    /// let sent = producer.send_json(&ProducerRecord::to("clicks").key(b"user-7"), &click)?;
    /// sent.wait()?;
    ///
    /// let mut consumer = streams.consumer("pages", ConsumerConfig::new().start_at(StartAt::Earliest))?;
    /// consumer.subscribe(&["clicks"])?;
    /// for TypedRecord { record, value } in consumer.poll(Duration::from_secs(1))?.json::<Click>() {
    ///     match value {
    ///         Ok(Some(click)) => assert_eq!((record.offset, click.at), (0, 7)),
    ///         Ok(None) => {} // a tombstone
    ///         Err(error) => eprintln!("passed over: {error}"), // says topic, partition and offset
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotEncoded`]: nothing was sent. As [`Producer::send`].
    /// # Cost
    /// As [`Producer::send`], and one buffer.
    pub fn send_json<T: Serialize + ?Sized>(
        &self,
        record: &ProducerRecord<'_>,
        value: &T,
    ) -> Result<Delivery> {
        let json = encoded(record, value)?;
        self.send(&ProducerRecord { value: Some(&json), ..*record })
    }

    /// As [`send_async`](Producer::send_async), with `value` as JSON in the record's value's place.
    ///
    /// # Errors
    /// [`Error::NotEncoded`]: nothing was sent. As [`Producer::send_async`].
    #[cfg(feature = "tokio")]
    pub async fn send_json_async<T: Serialize + ?Sized>(
        &self,
        record: &ProducerRecord<'_>,
        value: &T,
    ) -> Result<RecordMetadata> {
        let json = encoded(record, value)?;
        self.send_async(&ProducerRecord { value: Some(&json), ..*record }).await
    }
}

fn encoded(record: &ProducerRecord<'_>, value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|source| Error::NotEncoded { topic: record.topic.into(), source })
}
