use std::path::Path;
use std::process::Command;

use redis::Connection;
use redis::streams::StreamReadReply;

use super::server::{Pool, Server, port};
use crate::engine::{Engine, Kind, Level, Peer};

pub const PEER: Peer = Peer {
    name: "Redis Streams 7.0",
    kind: Kind::Broker,
    open,
    note: "across a socket; appendfsync always when synced, else everysec",
};

fn open(path: &Path, level: Level) -> Option<Box<dyn Engine>> {
    let port = port();
    let fsync = if level == Level::Synced { "always" } else { "everysec" };
    let server = Server::start(
        Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", fsync, "--dir"])
            .arg(path),
        port,
    )?;
    let client = redis::Client::open(("127.0.0.1", port)).expect("client");
    let connections = Pool::new(move || client.get_connection().expect("connection"));
    connections.with(|connection| {
        let mut group = redis::cmd("XGROUP");
        group.arg("CREATE").arg("s").arg("g").arg(0).arg("MKSTREAM");
        group.query::<()>(connection).expect("group");
    });
    Some(Box::new(Redis { connections, _server: server }))
}

struct Redis {
    connections: Pool<Connection>,
    _server: Server,
}

impl Engine for Redis {
    fn append(&self, batch: &[&[u8]]) {
        self.connections.with(|connection| {
            for payload in batch {
                let mut add = redis::cmd("XADD");
                add.arg("s").arg("*").arg("p").arg(*payload);
                add.query::<String>(connection).expect("add");
            }
        });
    }

    fn take(&self) -> bool {
        self.connections.with(|connection| {
            let mut read = redis::cmd("XREADGROUP");
            read.arg("GROUP").arg("g").arg("c").arg("COUNT").arg(1).arg("STREAMS").arg("s").arg(">");
            let reply: StreamReadReply = read.query(connection).expect("read");
            let Some(message) = reply.keys.first().and_then(|key| key.ids.first()) else { return false };
            let mut acknowledge = redis::cmd("XACK");
            acknowledge.arg("s").arg("g").arg(&message.id);
            acknowledge.query::<u64>(connection).expect("acknowledgement") == 1
        })
    }
}
