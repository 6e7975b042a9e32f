//! Spans of time as they are typed: `500ms`, `30s`, `5m`, `2h`, `7d`, and `0`.

use std::time::Duration;

/// Units, longest suffix first where one ends with another.
const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Reads a whole number with a unit. Zero needs none.
pub fn parse(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let expected = || {
        format!(
            "`{text}` is no duration: a whole number with one of ms, s, m, h, d is, such as 500ms or 5s"
        )
    };
    let (number, unit_ms) = UNITS
        .iter()
        .find_map(|(suffix, ms)| Some((text.strip_suffix(suffix)?, *ms)))
        .ok_or_else(expected)?;
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(expected());
    }
    let number: u64 = number.parse().map_err(|_| expected())?;
    let ms = number.checked_mul(unit_ms).ok_or_else(|| format!("`{text}` is too long a time"))?;
    Ok(Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_understood() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("7ms", 7),
            ("5s", 5_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("4d", 345_600_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "+1s",
            "1.5s",
            "5 s",
            "5 min",
            "5S",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
