use std::path::Path;

use bytes::Bytes;
use kafko::{Kafko, Producer};
use tokio::runtime::Runtime;

use crate::engine::{Engine, Kind, Level, Peer};

pub const PEER: Peer = Peer { name: "kafko 0.3", kind: Kind::Log, open, note: "never synced; through a task of its runtime; its reads load the rest of the segment each, so they are left out" };

fn open(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    (level == Level::Buffered).then_some(())?;
    let runtime = Runtime::new().expect("runtime");
    let (broker, producer) = runtime.block_on(async {
        let broker = Kafko::open(path).await.expect("broker");
        broker.create_topic("t").await.expect("topic");
        let producer = broker.producer_for("t").await.expect("producer");
        (broker, producer)
    });
    Some(Box::new(Log { producer, _broker: broker, runtime }))
}

struct Log {
    producer: Producer,
    _broker: Kafko,
    runtime: Runtime,
}

impl Engine for Log {
    fn append(&self, batch: &[&[u8]]) {
        self.runtime.block_on(async {
            if let [one] = batch {
                self.producer.send(None, Bytes::copy_from_slice(one)).await.expect("send");
            } else {
                let items = batch.iter().map(|payload| (None, Bytes::copy_from_slice(payload))).collect();
                self.producer.send_batch(items).await.expect("send");
            }
        });
    }
}
