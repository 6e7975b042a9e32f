//! Bodies that are JSON.

use std::collections::HashMap;
use std::error::Error as _;

use logmill_queue::{
    Attribute, Error, Message, Queue, QueueConfig, Queues, QueuesOptions, ReceiveOptions, Typed,
};
use logmill_storage::DataDir;
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Resize {
    image: u64,
    name: String,
}

fn resize(image: u64) -> Resize {
    Resize { image, name: format!("\"{image}\" \u{1f600}\n") }
}

fn with_queue(test: impl FnOnce(Queue, Queue)) {
    let place = tempfile::tempdir().unwrap();
    let dir = DataDir::open(place.path()).unwrap();
    let queues = Queues::open(&dir, QueuesOptions::default()).unwrap();
    let dead = queues.create("dead", &QueueConfig::standard()).unwrap();
    let config = QueueConfig::standard().dead_letter("dead", 5);
    test(queues.create("resize", &config).unwrap(), dead);
    queues.close().unwrap();
}

fn all() -> ReceiveOptions<'static> {
    ReceiveOptions::new().max(10)
}

#[test]
fn a_value_that_was_sent_is_received_and_its_receipt_deletes_it() {
    with_queue(|queue, _| {
        let sent = queue.send_json(&resize(17)).unwrap();
        let mut got = queue.receive_json::<Resize>(&all()).unwrap();
        let Typed { message, value } = got.remove(0);
        assert_eq!((message.id(), value.unwrap()), (sent.id, resize(17)));
        queue.delete(message.receipt()).unwrap();
        assert_eq!(queue.counts().unwrap(), Default::default());
    });
}

#[test]
fn a_body_that_does_not_decode_says_its_message_and_is_rejected_while_the_others_are_read() {
    with_queue(|queue, dead| {
        queue.send_json(&resize(1)).unwrap();
        let bad = queue.send(&Message::new(br#"{"image": "seventeen"}"#)).unwrap();
        queue.send_json(&resize(3)).unwrap();
        let mut images = Vec::new();
        for Typed { message, value } in queue.receive_json::<Resize>(&all()).unwrap() {
            match value {
                Ok(resize) => images.push(resize.image),
                Err(error) => {
                    assert!(matches!(&error, Error::NotDecoded { id, .. } if *id == bad.id));
                    assert!(error.to_string().contains(&bad.id.to_string()), "{error}");
                    let source = error.source().unwrap().downcast_ref::<serde_json::Error>();
                    assert!(source.unwrap().is_data());
                    queue.reject(message.receipt(), &error.to_string()).unwrap();
                }
            }
        }
        assert_eq!(images, [1, 3]);
        let dead = dead.receive(&all()).unwrap();
        assert_eq!((dead.len(), dead[0].id()), (1, bad.id));
    });
}

#[test]
fn a_typed_message_carries_what_it_was_sent_with() {
    with_queue(|queue, _| {
        let attributes = [Attribute::string("kind", "thumbnail")];
        let like = Message::new(b"not sent").attributes(&attributes).priority(9);
        queue.send_json_as(&resize(1), &like).unwrap();
        let got = queue.receive(&all()).unwrap();
        assert_eq!((got[0].attributes(), got[0].priority()), (attributes.to_vec(), 9));
        assert_eq!(got[0].json::<Resize>().unwrap(), resize(1));
    });
}

#[test]
fn a_value_without_json_is_not_sent() {
    with_queue(|queue, _| {
        let keyed_by_pairs = HashMap::from([((1, 2), "three")]);
        let error = queue.send_json(&keyed_by_pairs).unwrap_err();
        assert!(matches!(error, Error::NotEncoded { .. }), "{error}");
        assert_eq!(queue.counts().unwrap(), Default::default());
    });
}

#[test]
fn tasks_send_and_receive_values() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    with_queue(|queue, _| {
        runtime.block_on(async {
            queue.send_json_async(&resize(5)).await.unwrap();
            queue.send_json_as_async(&resize(6), &Message::new(b"").priority(9)).await.unwrap();
            let got = queue.receive_json_async::<Resize>(&all()).await.unwrap();
            let values: Vec<_> = got.into_iter().map(|typed| typed.value.unwrap()).collect();
            assert_eq!(values, [resize(6), resize(5)]);
        });
    });
}
