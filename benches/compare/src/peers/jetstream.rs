use std::path::Path;
use std::process::Command;

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{self, Context, stream};
use futures_util::StreamExt;
use tokio::runtime::Runtime;

use super::server::{Pool, Server, port};
use crate::engine::{Engine, Kind, Level, Peer};

pub const PEER: Peer = Peer {
    name: "NATS JetStream 2.9",
    kind: Kind::Broker,
    open,
    note: "across a socket; syncs every two minutes, and this version cannot for each message",
};

fn open(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    (level == Level::Buffered).then_some(())?;
    let port = port();
    let server = Server::start(
        Command::new("nats-server")
            .args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream", "--store_dir"])
            .arg(path),
        port,
    )?;
    let clients = Pool::new(move || Client::connect(port));
    clients.with(Client::create);
    Some(Box::new(Nats { clients, _server: server }))
}

struct Client {
    runtime: Runtime,
    context: Context,
    consumer: Option<jetstream::consumer::PullConsumer>,
}

impl Client {
    fn connect(port: u16) -> Client {
        // The connection's task runs on the thread that calls, without a hop to another.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let context = runtime.block_on(async {
            jetstream::new(async_nats::connect(format!("127.0.0.1:{port}")).await.expect("connection"))
        });
        Client { runtime, context, consumer: None }
    }

    fn create(&mut self) {
        self.runtime.block_on(async {
            let config = stream::Config { name: "s".into(), subjects: vec!["s".into()], ..Default::default() };
            let stream = self.context.create_stream(config).await.expect("stream");
            let config = pull::Config { durable_name: Some("c".into()), ..Default::default() };
            self.consumer = Some(stream.create_consumer(config).await.expect("consumer"));
        });
    }
}

struct Nats {
    clients: Pool<Client>,
    _server: Server,
}

impl Engine for Nats {
    fn append(&self, batch: &[&[u8]]) {
        self.clients.with(|client| {
            client.runtime.block_on(async {
                for payload in batch {
                    let sent = client.context.publish("s", payload.to_vec().into()).await;
                    sent.expect("publish").await.expect("acknowledgement");
                }
            });
        });
    }

    fn take(&self) -> bool {
        self.clients.with(|client| {
            let consumer = client.consumer.as_ref().expect("the client that made the stream");
            client.runtime.block_on(async {
                let mut messages = consumer.fetch().max_messages(1).messages().await.expect("fetch");
                let Some(message) = messages.next().await else { return false };
                message.expect("message").ack().await.is_ok()
            })
        })
    }
}
