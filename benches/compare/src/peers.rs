//! The rivals, each set up by its own documentation for the level of the row.

use crate::engine::Peer;

/// Makes a module for each rival that is built in, and the list of them.
macro_rules! peers {
    ($($feature:literal $module:ident),* $(,)?) => {
        $(#[cfg(feature = $feature)] mod $module;)*
        #[cfg(feature = "brokers")]
        mod server;
        pub const PEERS: &[Peer] = &[$(#[cfg(feature = $feature)] $module::PEER),*];
    };
}

peers!(
    "commitlog" commitlog, "walrus" walrus, "raft-engine" raft_engine, "okaywal" okaywal, "open-wal" open_wal,
    "fjall" fjall, "lmdb" lmdb, "sqlite" sqlite, "redb" redb, "kafko" kafko,
    "yaque" yaque, "queue-file" queue_file, "sqlite" sqlite_queue,
    "brokers" redis_streams, "brokers" jetstream, "brokers" rabbitmq,
);
