//! The entries of a journal, each as its owner tells it.

use std::io::{self, Write};
use std::path::Path;

use logmill::storage::Replayed;
use logmill::storage::dump::{Field, Fields};
use logmill::{queue, stream};
use serde_json::{Map, Number, Value, json};

use crate::json::bytes_under;
use crate::open::JOURNAL_MARK;

/// Whether a file is a segment of a store's journal, or the copy of one in a backup, by where it lies: it says of itself only
/// which log it belongs to.
pub fn is_journal(file: &Path) -> bool {
    let Ok(file) = file.canonicalize() else { return false };
    let names = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let Some(mut dir) = file.parent() else { return false };
    if names(dir).is_some_and(|name| name == "files") {
        return names(&file).is_some_and(|name| name.starts_with("0-") || name.starts_with("0.1-"));
    }
    let mut go_up_from = |wanted| {
        if names(dir).is_some_and(|name| name == wanted)
            && let Some(parent) = dir.parent()
        {
            dir = parent;
            return true;
        }
        false
    };
    go_up_from("quarantine");
    // `1/0` is a partition, and `0/1` the cold part; only the latter lies in a store's `0`.
    go_up_from("1");
    go_up_from("0") && dir.join(JOURNAL_MARK).exists()
}

/// Who an owner of entries is.
pub fn owner(number: u64) -> String {
    match number {
        queue::JOURNAL_OWNER => "queues".into(),
        stream::JOURNAL_OWNER => "streams".into(),
        number => number.to_string(),
    }
}

/// What an entry says, if its owner knows it.
fn said(entry: &Replayed<'_>) -> Option<Fields> {
    match entry.owner {
        queue::JOURNAL_OWNER => queue::describe_entry(entry.bytes),
        stream::JOURNAL_OWNER => stream::describe_entry(entry.bytes),
        _ => None,
    }
}

/// Writes an entry, on a line of its own.
pub fn write(out: &mut impl Write, entry: &Replayed<'_>) -> io::Result<()> {
    let (offset, timestamp) = (entry.place.offset(), entry.timestamp);
    write!(out, "  offset {offset} timestamp {timestamp} {}", owner(entry.owner))?;
    if let Some(as_of) = entry.as_of {
        write!(out, " as of {as_of}")?;
    }
    let Some(fields) = said(entry) else {
        return writeln!(out, " bytes {}", super::quoted(entry.bytes));
    };
    for (i, (name, field)) in fields.iter().enumerate() {
        match (i, field) {
            // The kind of the entry.
            (0, Field::Text(kind)) => write!(out, ": {kind}")?,
            _ => write!(out, " {name}={}", short(field))?,
        }
    }
    writeln!(out)
}

/// A field as words: text and bytes in quotes, without the end of long ones, `[..]` around several, `{name=value ..}` around a
/// structure.
fn short(field: &Field) -> String {
    match field {
        Field::Flag(flag) => flag.to_string(),
        Field::Number(number) => number.to_string(),
        Field::Bytes(bytes) => super::quoted(bytes),
        Field::Text(text) => super::quoted(text.as_bytes()),
        Field::List(fields) => {
            format!("[{}]", fields.iter().map(short).collect::<Vec<_>>().join(" "))
        }
        Field::Fields(fields) => {
            let all = fields.iter().map(|(name, field)| format!("{name}={}", short(field)));
            format!("{{{}}}", all.collect::<Vec<_>>().join(" "))
        }
        _ => "-".to_owned(),
    }
}

/// An entry as an object.
pub fn object(entry: &Replayed<'_>) -> Value {
    let mut object = json!({
        "kind": "entry",
        "offset": entry.place.offset(),
        "timestamp": entry.timestamp,
        "owner": owner(entry.owner),
        "as_of": entry.as_of,
    });
    match said(entry) {
        Some(fields) => object["said"] = json_of(&Field::Fields(fields)),
        None => {
            let (name, bytes) = bytes_under("bytes", entry.bytes);
            object[name] = bytes;
        }
    }
    object
}

fn json_of(field: &Field) -> Value {
    match field {
        Field::Flag(flag) => (*flag).into(),
        Field::Number(number) => Number::from_i128(*number).map_or(Value::Null, Value::Number),
        Field::Text(text) => text.as_str().into(),
        Field::Bytes(bytes) => bytes_under("", bytes).1,
        Field::List(fields) => fields.iter().map(json_of).collect(),
        Field::Fields(fields) => {
            let member = |(name, field): &(&str, Field)| match field {
                Field::Bytes(bytes) => bytes_under(name, bytes),
                field => ((*name).to_owned(), json_of(field)),
            };
            Value::Object(fields.iter().map(member).collect::<Map<_, _>>())
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_within_values_are_words_in_a_line() {
        let fields: Fields = vec![
            ("name", "a \"b\"".into()),
            ("body", (&b"\xff\n"[..]).into()),
            ("none", None::<u64>.into()),
            ("list", vec![Field::from(1u64), Field::from(-2i64)].into()),
            ("inner", Fields::from([("is", true.into())]).into()),
        ];
        let words = r#"{name="a \"b\"" body="\xff\n" none=- list=[1 -2] inner={is=true}}"#;
        assert_eq!(short(&fields.into()), words);
    }
}
