//! What a file says, as objects of JSON: `kind` says which, the other members are its fields under docs/format.md's names.

use logmill::storage::dump::{Item, State};
use logmill::{Batch, RecordView};
use serde_json::{Map, Value, json};

use super::hex;
use crate::json::bytes_under;

/// One item.
pub fn object(item: &Item<'_>) -> Value {
    match item {
        Item::SegmentHead(head) => json!({
            "kind": "segment_head",
            "log_id": hex(&head.log_id),
            "base_offset": head.base_offset,
            "epoch": head.epoch,
            "generation": head.generation,
            "base_timestamp": head.base_timestamp,
            "superseded_hash": hex(&head.superseded_hash),
        }),
        Item::Batch { position, bytes, batch } => frame(*position, *bytes, batch),
        Item::Record(record) => record_object(record),
        Item::Damage { position, bytes, offset, what } => json!({
            "kind": "damage",
            "position": position,
            "bytes": bytes,
            "offset": offset,
            "what": what.to_string(),
        }),
        Item::Unused { position, bytes } => {
            json!({ "kind": "unused", "position": position, "bytes": bytes })
        }
        Item::Footer { position, footer } => json!({
            "kind": "footer",
            "position": position,
            "epoch": footer.epoch,
            "log_id": hex(&footer.log_id),
            "base_offset": footer.base_offset,
            "end_offset": footer.end_offset,
            "records": footer.count,
            "data_end": footer.data_end,
            "max_timestamp": footer.max_timestamp,
            "min_timestamp": footer.min_timestamp,
            "hash": hex(&footer.hash),
            "sealed_at": footer.sealed_at,
            "previous_hash": hex(&footer.previous_hash),
        }),
        Item::ManifestSlot { position, is_current, slot } => json!({
            "kind": "manifest_slot",
            "position": position,
            "is_current": is_current,
            "generation": slot.generation,
            "log_id": hex(&slot.log_id),
            "epoch": slot.epoch,
            "state": match slot.state {
                State::Open => "open",
                State::Clean => "clean",
            },
            "start_offset": slot.start_offset,
            "proven_offset": slot.proven.offset,
            "proven_segment": slot.proven.segment,
            "proven_position": slot.proven.position,
            "boot_id": hex(&slot.boot_id),
            "created_at": slot.created_at,
            "has_producers": slot.has_producers,
            "owner": hex(&slot.owner),
        }),
        Item::Live(live) => json!({
            "kind": "live",
            "log_id": hex(&live.log_id),
            "epoch": live.epoch,
            "durable_offset": live.durable,
            "is_mapped": live.mapped,
            "stored_offset": live.stored,
            "boot_id_begins": hex(&live.boot),
        }),
        Item::Index { is_time, log_id, base_offset, entries } => json!({
            "kind": if *is_time { "time_index" } else { "offset_index" },
            "log_id": hex(log_id),
            "base_offset": base_offset,
            "entries": entries,
        }),
        Item::OffsetEntry { offset, position } => {
            json!({ "kind": "offset_entry", "offset": offset, "position": position })
        }
        Item::TimeEntry { offset, max_timestamp } => {
            json!({ "kind": "time_entry", "offset": offset, "max_timestamp": max_timestamp })
        }
        Item::Producers { log_id, offset } => {
            json!({ "kind": "producers", "log_id": hex(log_id), "before_offset": offset })
        }
        Item::Producer { id, epoch, first_sequence, last_sequence, base_offset } => json!({
            "kind": "producer",
            "id": id,
            "epoch": epoch,
            "first_sequence": first_sequence,
            "last_sequence": last_sequence,
            "base_offset": base_offset,
        }),
        Item::Checkpoint { log_id, owner, reach, bytes } => json!({
            "kind": "checkpoint",
            "log_id": hex(log_id),
            "owner": super::entries::owner(*owner),
            "hot_offset": reach.hot,
            "cold_offset": reach.cold,
            "bytes": bytes,
        }),
        Item::Backup { taken_at, logs } => {
            json!({ "kind": "backup", "taken_at": taken_at, "logs": logs })
        }
        Item::BackupLog { name, log_id, epoch, start_offset, end_offset } => json!({
            "kind": "backup_log",
            "name": name,
            "log_id": hex(log_id),
            "epoch": epoch,
            "start_offset": start_offset,
            "end_offset": end_offset,
        }),
        Item::BackupCopy { name, offset, bytes, hash } => json!({
            "kind": "backup_copy",
            "name": name,
            "offset": offset,
            "bytes": bytes,
            "hash": hex(hash),
        }),
        Item::Plain { what, bytes, text } => {
            json!({ "kind": "plain", "what": what, "bytes": bytes, "text": text })
        }
        other => json!({ "kind": "other", "text": format!("{other:?}") }),
    }
}

fn frame(position: u64, bytes: u64, batch: &Batch<'_>) -> Value {
    let producer = batch.producer().map(|producer| {
        json!({ "id": producer.id, "epoch": producer.epoch, "sequence": producer.sequence })
    });
    json!({
        "kind": "frame",
        "position": position,
        "bytes": bytes,
        "base_offset": batch.base_offset(),
        "last_offset": batch.last_offset(),
        "records": batch.count(),
        "codec": batch.codec(),
        "producer": producer,
        "durable_upto": batch.durable_upto(),
        "delete_horizon": batch.delete_horizon(),
        "continues": batch.continues(),
    })
}

fn record_object(record: &RecordView<'_>) -> Value {
    let bytes = |name: &str, bytes: Option<&[u8]>| match bytes {
        Some(bytes) => bytes_under(name, bytes),
        None => (name.to_owned(), Value::Null),
    };
    let headers: Vec<Value> = record
        .headers
        .into_iter()
        .map(|header| {
            Value::Object(Map::from_iter([
                ("name".to_owned(), header.name.into()),
                bytes_under("value", header.value),
            ]))
        })
        .collect();
    Value::Object(Map::from_iter([
        ("kind".to_owned(), "record".into()),
        ("offset".to_owned(), record.offset.into()),
        ("timestamp".to_owned(), record.timestamp.into()),
        bytes("key", record.key),
        bytes("value", record.value),
        ("headers".to_owned(), headers.into()),
    ]))
}
