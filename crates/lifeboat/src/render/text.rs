//! Plain text: aligned tables, times, sizes. Colours come from the caller and are removed by the stream where they do not belong.

use std::time::Duration;

use lifeboat_model::check::{Outcome, Verdict};
use lifeboat_model::time::human_duration;
use lifeboat_repo::format_utc;
use owo_colors::OwoColorize as _;

/// A table whose columns are as wide as their widest cell; the last one is not padded.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<usize>,
}

impl Table {
    /// A table with this head. Columns in `right` (from 0) are aligned to the right.
    pub(crate) fn new(head: &[&str], right: &[usize]) -> Self {
        Self {
            rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()],
            right: right.to_vec(),
        }
    }

    /// Adds a row; missing cells are empty.
    pub(crate) fn row(&mut self, cells: impl Into<Vec<String>>) {
        self.rows.push(cells.into());
    }

    /// The table as text, its head bold.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| width(cell))
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let padding = " ".repeat(widths.get(column).copied().unwrap_or(0).saturating_sub(width(cell)));
                let (before, after) = if self.right.contains(&column) {
                    (padding.as_str(), "")
                } else {
                    ("", padding.as_str())
                };
                line.push_str(&format!("{}{before}{cell}{after}", if column == 0 { "" } else { "  " }));
            }
            let line = line.trim_end();
            if index == 0 {
                text.push_str(&format!("{}\n", line.bold()));
            } else {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

/// Columns on the screen; our texts hold no wide characters.
fn width(cell: &str) -> usize {
    cell.chars().count()
}

/// A moment: `2026-11-21 02:10:03Z`.
#[must_use]
pub(crate) fn time(us: i64) -> String {
    let text = format_utc(us);
    let (date, clock) = text.split_once('T').unwrap_or((text.as_str(), ""));
    let whole: String = clock.chars().take(8).collect();
    format!("{date} {whole}Z")
}

/// How long ago, or `in the future` for a clock that stepped back.
#[must_use]
pub(crate) fn ago(now_us: i64, us: i64) -> String {
    match u64::try_from(now_us.saturating_sub(us)) {
        Ok(us) => format!("{} ago", human_duration(Duration::from_secs(us / 1_000_000))),
        Err(_) => "in the future".to_owned(),
    }
}

/// Bytes per second, where anything was measured.
#[must_use]
pub(crate) fn rate(bytes: u64, took: Duration) -> String {
    let ms = took.as_millis().max(1);
    let per_s = u64::try_from(u128::from(bytes) * 1_000 / ms).unwrap_or(u64::MAX);
    format!("{}/s", lifeboat_model::time::human_bytes(per_s))
}

/// `1 backup`, `2 backups`.
#[must_use]
pub(crate) fn counted(count: impl std::fmt::Display, noun: &str) -> String {
    let count = count.to_string();
    let plural = if count == "1" { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// What was counted while checking a restored copy: `3 tables, 120 rows`, or `7 files`.
#[must_use]
pub(crate) fn checked(findings: &lifeboat_ops::restore::Findings) -> String {
    if findings.files > 0 {
        counted(findings.files, "file")
    } else {
        format!("{}, {}", counted(findings.tables, "table"), counted(findings.rows, "row"))
    }
}

/// A table of checks, each with the first of what it saw; nothing where there are none.
#[must_use]
pub(crate) fn outcomes(outcomes: &[Outcome]) -> String {
    let width = outcomes.iter().map(|outcome| outcome.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for outcome in outcomes {
        let word = format!("{:<13}", outcome.verdict.words());
        let word = match outcome.verdict {
            Verdict::Passed => word.green().to_string(),
            Verdict::NotAvailable => word.yellow().to_string(),
            Verdict::Failed => word.red().to_string(),
        };
        let padding = " ".repeat(width.saturating_sub(outcome.name.chars().count()));
        text.push_str(&format!("  {word}  {}{padding}  {}\n", outcome.name, outcome.says));
        for line in &outcome.evidence {
            text.push_str(&format!("                   {line}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Table, ago, time};

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["NAME", "SIZE", "NOTE"], &[1]);
        table.row(["a".into(), "10 kB".into(), String::new()]);
        table.row(["länger".into(), "1 B".into(), "x".into()]);
        let plain = anstream::adapter::strip_str(&table.render()).to_string();
        assert_eq!(plain, "NAME     SIZE  NOTE\na       10 kB\nlänger    1 B  x\n");
    }

    #[test]
    fn times_are_utc_to_the_second() {
        assert_eq!(time(1_795_227_003_250_000), "2026-11-21 02:10:03Z");
        assert_eq!(ago(7_200_000_000, 0), "2h ago");
        assert_eq!(ago(0, 1), "in the future");
    }
}
