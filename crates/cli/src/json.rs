//! Records as lines of JSON.

use std::io::{self, Write};

use base64::prelude::{BASE64_STANDARD, Engine as _};

use crate::failure::{Failure, Outcome};

/// A record as it is printed.
#[derive(Clone, Copy, Debug)]
pub struct Printed<'a> {
    /// The partition it was read from.
    pub partition: u32,
    /// Its place there.
    pub offset: u64,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// Writes one object and a newline. Bytes that are UTF-8 become a string under their own name, others base64 under
/// `name_base64`; what is absent is `null`. Headers are an array, since their names may repeat.
pub fn write_record<'h>(
    out: &mut impl Write,
    record: Printed<'_>,
    headers: impl Iterator<Item = (&'h str, &'h [u8])>,
) -> io::Result<()> {
    let Printed { partition, offset, timestamp, key, value } = record;
    write!(out, "{{\"partition\":{partition},\"offset\":{offset},\"timestamp\":{timestamp},")?;
    write_bytes(out, "key", key)?;
    out.write_all(b",")?;
    write_bytes(out, "value", value)?;
    out.write_all(b",\"headers\":[")?;
    for (index, (name, value)) in headers.enumerate() {
        out.write_all(if index == 0 { b"{\"name\":" } else { b",{\"name\":" })?;
        write_string(out, name)?;
        out.write_all(b",")?;
        write_bytes(out, "value", Some(value))?;
        out.write_all(b"}")?;
    }
    out.write_all(b"]}\n")
}

fn write_bytes(out: &mut impl Write, name: &str, bytes: Option<&[u8]>) -> io::Result<()> {
    match bytes.map(std::str::from_utf8) {
        None => write!(out, "\"{name}\":null"),
        Some(Ok(text)) => {
            write!(out, "\"{name}\":")?;
            write_string(out, text)
        }
        Some(Err(_)) => {
            let bytes = bytes.unwrap_or_default();
            write!(out, "\"{name}_base64\":\"{}\"", BASE64_STANDARD.encode(bytes))
        }
    }
}

/// A member for bytes: a string under `name` if they are UTF-8, base64 under `name_base64` otherwise.
pub fn bytes_under(name: &str, bytes: &[u8]) -> (String, serde_json::Value) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (name.to_owned(), text.into()),
        Err(_) => (format!("{name}_base64"), BASE64_STANDARD.encode(bytes).into()),
    }
}

/// Writes a value on a line of its own.
pub fn write_line(out: &mut impl Write, value: &serde_json::Value) -> Outcome {
    writeln!(out, "{value}").map_err(Failure::output)
}

/// Writes a JSON string with its quotes.
pub fn write_string(out: &mut impl Write, text: &str) -> io::Result<()> {
    serde_json::to_writer(out, text).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, &[u8])]) -> String {
        let mut out = Vec::new();
        let record = Printed { partition: 2, offset: 7, timestamp: -1, key, value };
        write_record(&mut out, record, headers.iter().copied()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_a_string_and_what_is_absent_is_null() {
        assert_eq!(
            line(None, Some(b"say \"hi\"\r\t\\"), &[]),
            "{\"partition\":2,\"offset\":7,\"timestamp\":-1,\"key\":null,\"value\":\"say \\\"hi\\\"\\r\\t\\\\\",\"headers\":[]}\n"
        );
        assert_eq!(
            line(Some(b"k"), None, &[]),
            "{\"partition\":2,\"offset\":7,\"timestamp\":-1,\"key\":\"k\",\"value\":null,\"headers\":[]}\n"
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_base64_under_another_name() {
        assert_eq!(
            line(Some(b"\xff"), Some(b"\x00\xfe"), &[]),
            "{\"partition\":2,\"offset\":7,\"timestamp\":-1,\"key_base64\":\"/w==\",\"value_base64\":\"AP4=\",\"headers\":[]}\n"
        );
    }

    #[test]
    fn headers_keep_their_order_and_may_repeat() {
        let text = line(None, Some(b""), &[("h\n", b"1"), ("h\n", b"\xff")]);
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            parsed["headers"],
            serde_json::json!([{"name": "h\n", "value": "1"}, {"name": "h\n", "value_base64": "/w=="}])
        );
    }

    #[test]
    fn every_byte_comes_back_from_the_line_that_it_was_printed_in() {
        for byte in 0..=255u8 {
            let value = [b'a', byte, b'z'];
            let parsed: serde_json::Value =
                serde_json::from_str(&line(None, Some(&value), &[])).unwrap();
            let back = match parsed.get("value") {
                Some(text) => text.as_str().unwrap().as_bytes().to_vec(),
                None => BASE64_STANDARD.decode(parsed["value_base64"].as_str().unwrap()).unwrap(),
            };
            assert_eq!(back, value, "byte {byte}");
        }
    }
}
