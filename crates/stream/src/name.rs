//! Which names topics, groups and producers may have.

use crate::error::{Error, NameKind, Result};

/// Longest topic name in bytes, as Kafka's.
const TOPIC_NAME_MAX: usize = 249;
/// Longest name of a group or producer in bytes.
const OTHER_NAME_MAX: usize = 255;

/// A topic: 1 to 249 of `[a-zA-Z0-9._-]`, and neither `.` nor `..`.
pub(crate) fn check_topic(name: &str) -> Result<()> {
    let refuse = |why| Err(Error::InvalidName { kind: NameKind::Topic, name: shorten(name), why });
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.len() > TOPIC_NAME_MAX {
        return refuse("it is longer than 249 characters");
    }
    if name == "." || name == ".." {
        return refuse("it is \".\" or \"..\"");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return refuse("it has a character other than a-z, A-Z, 0-9, '.', '_' and '-'");
    }
    Ok(())
}

/// A group or producer: 1 to 255 bytes of UTF-8 without control characters.
pub(crate) fn check_other(kind: NameKind, name: &str) -> Result<()> {
    let refuse = |why| Err(Error::InvalidName { kind, name: shorten(name), why });
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.len() > OTHER_NAME_MAX {
        return refuse("it is longer than 255 bytes");
    }
    if name.chars().any(char::is_control) {
        return refuse("it has a control character");
    }
    Ok(())
}

/// Enough of a refused name for an error message, whatever its length.
fn shorten(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafkas_rules() {
        for good in ["a", "user-events", "A.b_c-9", "...", &"x".repeat(249), "__consumer_offsets"] {
            assert!(check_topic(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "../x", "é", "a\0b", "a:b", &"x".repeat(250)] {
            assert!(
                matches!(check_topic(bad), Err(Error::InvalidName { kind: NameKind::Topic, .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn group_names_are_any_printable_text() {
        for good in ["g", "billing/eu", "größe", &"x".repeat(255)] {
            assert!(check_other(NameKind::Group, good).is_ok(), "{good}");
        }
        for bad in ["", "a\nb", "\u{7f}", &"x".repeat(256)] {
            assert!(
                matches!(check_other(NameKind::Group, bad), Err(Error::InvalidName { .. })),
                "{bad}"
            );
        }
    }
}
