//! Tables for people, JSON for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::Value;

use crate::exit::{Failure, Outcome, Reason};

/// Form of what a command prints on stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; may change.
    #[default]
    Table,
    /// For programs: one JSON document with stable field names.
    Json,
}

/// Writes a line (or several) to stdout. A reader that has gone is no failure: `weir splits | head`.
pub(crate) fn print(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Reason::Failed, format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints the JSON document, or what `table` makes of it.
pub(crate) fn show(format: Format, document: &Value, table: impl FnOnce() -> String) -> Outcome {
    match format {
        Format::Json => print(&format!("{document:#}")),
        Format::Table => print(&table()),
    }
}

/// A table with these column heads; those with `>` in front hold numbers.
#[must_use]
pub(crate) fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(heads.iter().map(|head| Cell::new(head.trim_start_matches('>'))));
    for (index, head) in heads.iter().enumerate() {
        if let Some(column) = table.column_mut(index)
            && head.starts_with('>')
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// `name  value` lines, names padded to the longest.
#[must_use]
pub(crate) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    facts.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect::<Vec<_>>().join("\n")
}

/// Milliseconds since 1970 in RFC 3339; `None` for 0, which the protocol uses for never.
#[must_use]
pub(crate) fn time(unix_ms: i64) -> Option<String> {
    (unix_ms != 0).then(|| jiff::Timestamp::from_millisecond(unix_ms).ok()).flatten().map(|time| time.to_string())
}

/// A whole number with a space for every thousand.
#[must_use]
pub(crate) fn number(number: impl ToString) -> String {
    let digits = number.to_string();
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |digits| ("-", digits));
    let mut grouped = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// Bytes in MiB or KiB.
#[must_use]
pub(crate) fn bytes(bytes: u64) -> String {
    if bytes >= 1 << 20 {
        format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
    } else {
        format!("{} KiB", bytes.div_ceil(1024))
    }
}

/// Microseconds in ms or s.
#[must_use]
pub(crate) fn micros(us: u64) -> String {
    if us >= 1_000_000 { format!("{:.1} s", us as f64 / 1e6) } else { format!("{:.1} ms", us as f64 / 1e3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        assert_eq!(number(7), "7");
        assert_eq!(number(1_234_567), "1 234 567");
        assert_eq!(number(-123_456), "-123 456");
        assert_eq!((bytes(512), bytes(3 << 20)), ("1 KiB".to_owned(), "3.0 MiB".to_owned()));
        assert_eq!((micros(1_500), micros(2_500_000)), ("1.5 ms".to_owned(), "2.5 s".to_owned()));
        assert_eq!((time(0), time(1000)), (None, Some("1970-01-01T00:00:01Z".to_owned())));
    }

    #[test]
    fn facts_are_aligned() {
        assert_eq!(facts(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2");
    }
}
