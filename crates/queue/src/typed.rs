//! Messages whose bodies are JSON (feature `serde`).
//!
//! A body that does not decode is an answer about that message and nothing else: the others of the same receive are not
//! lost with it, and its own receipt is at hand to reject it.

use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned};

use crate::error::{Error, Result};
use crate::message::Message;
use crate::queue::{Queue, ReceiveOptions, Sent};
use crate::stored::{ReceivedMessage, StoredMessage};

/// A message that was received, and what its body says.
#[derive(Debug)]
pub struct Typed<T> {
    /// The message, with the receipt that deletes, extends, returns or rejects it.
    pub message: ReceivedMessage,
    /// What its body says; [`Error::NotDecoded`] if it is not the JSON of a `T`.
    pub value: Result<T>,
}

impl<T: DeserializeOwned> From<ReceivedMessage> for Typed<T> {
    fn from(message: ReceivedMessage) -> Typed<T> {
        Typed { value: message.json(), message }
    }
}

impl StoredMessage {
    /// What the body says, as JSON. A `T` that borrows from the message copies nothing.
    ///
    /// # Errors
    /// [`Error::NotDecoded`], with the message's id.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        serde_json::from_slice(self.body())
            .map_err(|source| Error::NotDecoded { id: self.id(), source })
    }
}

fn encoded(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|source| Error::NotEncoded { source })
}

impl Queue {
    /// Sends `value` as JSON.
    ///
    /// ```
    /// use logmill_queue::{Queues, QueueConfig, QueuesOptions, ReceiveOptions, Typed};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Resize { image: u64, width: u32 }
    ///
    /// # let place = tempfile::tempdir()?;
    /// # let dir = logmill_storage::DataDir::open(place.path())?;
    /// # let queues = Queues::open(&dir, QueuesOptions::default())?;
    /// let queue = queues.create("resize", &QueueConfig::standard())?;
    /// queue.send_json(&Resize { image: 17, width: 640 })?;
    ///
    /// for Typed { message, value } in queue.receive_json::<Resize>(&ReceiveOptions::new().max(10))? {
    ///     match value {
    ///         Ok(resize) => {
    ///             assert_eq!((resize.image, resize.width), (17, 640));
    ///             queue.delete(message.receipt())?;
    ///         }
    ///         // It will never decode: to the dead-letter queue with it.
    ///         Err(error) => queue.reject(message.receipt(), &error.to_string())?,
    ///     }
    /// }
    /// # queues.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotEncoded`]: nothing was written. As [`send`](Queue::send).
    /// # Cost
    /// As [`send`](Queue::send), and one buffer.
    pub fn send_json<T: Serialize + ?Sized>(&self, value: &T) -> Result<Sent> {
        self.send(&Message::new(&encoded(value)?))
    }

    /// As [`send_json`](Queue::send_json), with the delay, attributes and all else of `message`, in whose body's place the
    /// JSON goes.
    ///
    /// # Errors
    /// As [`send_json`](Queue::send_json).
    pub fn send_json_as<T: Serialize + ?Sized>(
        &self,
        value: &T,
        message: &Message<'_>,
    ) -> Result<Sent> {
        self.send(&Message { body: &encoded(value)?, ..*message })
    }

    /// As [`receive`](Queue::receive), with every body read as the JSON of a `T`. A message that is none is received all the
    /// same: see [`Typed::value`].
    ///
    /// # Errors
    /// As [`receive`](Queue::receive).
    pub fn receive_json<T: DeserializeOwned>(
        &self,
        options: &ReceiveOptions<'_>,
    ) -> Result<Vec<Typed<T>>> {
        Ok(self.receive(options)?.into_iter().map(Typed::from).collect())
    }
}

#[cfg(feature = "tokio")]
impl Queue {
    /// As [`send_json`](Queue::send_json), for tasks.
    ///
    /// # Errors
    /// As [`send_json`](Queue::send_json).
    pub async fn send_json_async<T: Serialize + ?Sized>(&self, value: &T) -> Result<Sent> {
        let body = encoded(value)?;
        self.send_async(&Message::new(&body)).await
    }

    /// As [`send_json_as`](Queue::send_json_as), for tasks.
    ///
    /// # Errors
    /// As [`send_json`](Queue::send_json).
    pub async fn send_json_as_async<T: Serialize + ?Sized>(
        &self,
        value: &T,
        message: &Message<'_>,
    ) -> Result<Sent> {
        let body = encoded(value)?;
        self.send_async(&Message { body: &body, ..*message }).await
    }

    /// As [`receive_json`](Queue::receive_json), for tasks. Dropped before it is ready it has received nothing. (Of
    /// [`messages`](Queue::messages), `Typed::from` makes typed ones.)
    ///
    /// # Errors
    /// As [`receive`](Queue::receive).
    pub async fn receive_json_async<T: DeserializeOwned>(
        &self,
        options: &ReceiveOptions<'_>,
    ) -> Result<Vec<Typed<T>>> {
        Ok(self.receive_async(options).await?.into_iter().map(Typed::from).collect())
    }
}
