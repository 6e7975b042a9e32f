use std::path::Path;
use std::process::Command;

use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::runtime::Runtime;

use super::server::{Pool, Server, port};
use crate::engine::{Engine, Kind, Level, Peer};

pub const PEER: Peer = Peer {
    name: "RabbitMQ 3.10",
    kind: Kind::Broker,
    open,
    note: "across a socket; durable queue, publisher confirms, persistent messages when synced",
};

fn open(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    let (port, distribution) = (port(), port());
    let server = Server::start(
        Command::new("/usr/lib/rabbitmq/bin/rabbitmq-server")
            .env("HOME", path)
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", port.to_string())
            .env("RABBITMQ_DIST_PORT", distribution.to_string())
            .env("RABBITMQ_NODENAME", format!("compare{port}@localhost"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path.join("plugins"))
            .env("RABBITMQ_MNESIA_BASE", path.join("data"))
            .env("RABBITMQ_LOG_BASE", path.join("log")),
        port,
    )?;
    let channels = Pool::new(move || Client::connect(port));
    Some(Box::new(Rabbit { channels, is_persistent: level == Level::Synced, _server: server }))
}

struct Client {
    channel: Channel,
    _connection: Connection,
    runtime: Runtime,
}

impl Client {
    fn connect(port: u16) -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let (connection, channel) = runtime.block_on(async {
            let uri = format!("amqp://127.0.0.1:{port}/%2f");
            let connection = Connection::connect_with_runtime(
                &uri,
                ConnectionProperties::default(),
                async_rs::Runtime::tokio_current(),
            );
            let connection = connection.await.expect("connection");
            let channel = connection.create_channel().await.expect("channel");
            let queue = channel.queue_declare("q".into(), QueueDeclareOptions::durable(), FieldTable::default());
            queue.await.expect("queue");
            channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
            (connection, channel)
        });
        Client { channel, _connection: connection, runtime }
    }
}

struct Rabbit {
    channels: Pool<Client>,
    is_persistent: bool,
    _server: Server,
}

impl Engine for Rabbit {
    fn append(&self, batch: &[&[u8]]) {
        let mode = if self.is_persistent { 2 } else { 1 };
        self.channels.with(|client| {
            client.runtime.block_on(async {
                for payload in batch {
                    let properties = BasicProperties::default().with_delivery_mode(mode);
                    let options = BasicPublishOptions::default();
                    let sent = client.channel.basic_publish("".into(), "q".into(), options, payload, properties);
                    let confirmed = sent.await.expect("publish").await.expect("confirm");
                    assert!(confirmed.is_ack(), "the broker has taken it");
                }
            });
        });
    }

    fn take(&self) -> bool {
        self.channels.with(|client| {
            client.runtime.block_on(async {
                let got = client.channel.basic_get("q".into(), BasicGetOptions::default()).await;
                let Some(message) = got.expect("get") else { return false };
                message.acker.ack(BasicAckOptions::default()).await.is_ok()
            })
        })
    }
}
