//! Tables: framed and with a coloured head for a person at a terminal, bare columns in a pipe.

use std::io::{IsTerminal, Write, stdout};

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets};

use crate::failure::{Failure, Outcome};

/// A cell, and on which side of its column it stands.
pub enum Column<'a> {
    /// Words.
    Left(&'a str),
    /// Numbers.
    Right(&'a str),
}

/// Writes a table; nothing at all if it has no rows.
pub fn write(out: &mut impl Write, columns: &[Column<'_>], rows: Vec<Vec<String>>) -> Outcome {
    if rows.is_empty() {
        return Ok(());
    }
    let is_terminal = stdout().is_terminal();
    let mut table = Table::new();
    table.load_preset(if is_terminal { presets::UTF8_FULL_CONDENSED } else { presets::NOTHING });
    if is_coloured() {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(columns.iter().map(|column| {
        let (Column::Left(title) | Column::Right(title)) = column;
        Cell::new(title).fg(Color::Cyan).add_attribute(Attribute::Bold)
    }));
    table.add_rows(rows);
    for (column, kind) in table.column_iter_mut().zip(columns) {
        if let Column::Right(_) = kind {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().try_for_each(|line| writeln!(out, "{}", line.trim_end())).map_err(Failure::output)
}

/// Writes what there is to be said of one thing, each fact on a line of its own: its name, coloured for a person, and its value.
pub fn facts(out: &mut impl Write, facts: &[(&str, String)]) -> Outcome {
    let (on, off) = if is_coloured() { ("\u{1b}[36m", "\u{1b}[0m") } else { ("", "") };
    facts
        .iter()
        .try_for_each(|(name, value)| writeln!(out, "{on}{name:<24}{off} {value}"))
        .map_err(Failure::output)
}

/// Whether that person wants colours.
fn is_coloured() -> bool {
    // https://no-color.org: set and not empty.
    stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Bytes in the largest binary unit in which there is at least one.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(4);
    if unit == 0 {
        return format!("{bytes} B");
    }
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit as usize])
}

/// Milliseconds as a person says them.
pub fn age(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_have_units() {
        for (n, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_600_000, "1.5 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        for (ms, text) in [
            (0, "0 ms"),
            (1_250, "1.2 s"),
            (120_000, "2 min"),
            (7_300_000, "2 h"),
            (172_800_000, "2 d"),
        ] {
            assert_eq!(age(ms), text);
        }
    }
}
