//! `backup_label` and `tablespace_map`: what a server says at the end of a backup, kept byte for byte and read here.

use lifeboat_model::{Error, ErrorKind, Lsn, Position, Result, Timeline};

/// What a `backup_label` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Recovery reads the log from here.
    pub start: Position,
    /// The checkpoint that the backup began with.
    pub checkpoint: Lsn,
    /// Taken from a standby.
    pub from_standby: bool,
    /// What the backup was called.
    pub label: String,
    /// Only what changed since this position is in it: it cannot be started on its own.
    pub incremental_from: Option<Position>,
}

impl Label {
    /// Reads the file. Kind `Corrupt` where a line that recovery needs is missing or makes no sense.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|error| broken("it is not text").with_source(error))?;
        let find = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(str::trim_end)
        };
        let need = |name: &'static str| find(name).ok_or_else(|| broken(format!("it has no line {name}")));
        let lsn = |text: &str| text.parse::<Lsn>().map_err(|error| broken(error.detail()).with_source(error));
        let start = need("START WAL LOCATION")?;
        let start = lsn(start.split_once(" (").map_or(start, |(start, _)| start))?;
        let timeline: Timeline = number(need("START TIMELINE")?)?;
        let incremental_from = match (find("INCREMENTAL FROM LSN"), find("INCREMENTAL FROM TLI")) {
            (Some(from), Some(timeline)) => Some(Position::new(number(timeline)?, lsn(from)?)),
            (None, None) => None,
            _ => return Err(broken("it names half of the position that it continues")),
        };
        Ok(Self {
            start: Position::new(timeline, start),
            checkpoint: lsn(need("CHECKPOINT LOCATION")?)?,
            from_standby: need("BACKUP FROM")? == "standby",
            label: need("LABEL")?.to_owned(),
            incremental_from,
        })
    }

    /// The file without what says that it belongs to an increment: once the increment lies on its parent it is a whole backup.
    #[must_use]
    pub fn without_increment(bytes: &[u8]) -> Vec<u8> {
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.starts_with(b"INCREMENTAL FROM "))
            .flatten()
            .copied()
            .collect()
    }
}

fn number(text: &str) -> Result<Timeline> {
    text.parse::<Timeline>()
        .map_err(|error| broken(error.detail()).with_source(error))
}

fn broken(detail: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, "read", "backup_label", detail)
}

/// One tablespace outside the data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tablespace {
    /// Its number; `pg_tblspc/NUMBER` leads to it.
    pub oid: u32,
    /// Where it was.
    pub location: Vec<u8>,
}

/// Reads a `tablespace_map`: a number and a path in each line, line breaks and backslashes in paths behind a backslash.
pub fn parse_tablespaces(bytes: &[u8]) -> Result<Vec<Tablespace>> {
    let failed = |detail: &str| Error::new(ErrorKind::Corrupt, "read", "tablespace_map", detail);
    let (mut found, mut line, mut escaped) = (Vec::new(), Vec::new(), false);
    for byte in bytes {
        match byte {
            b'\\' if !escaped => {
                escaped = true;
                continue;
            }
            b'\n' | b'\r' if !escaped => {
                if !line.is_empty() {
                    found.push(tablespace(&line).ok_or_else(|| failed("a line is not a number and a path"))?);
                    line.clear();
                }
            }
            other => line.push(*other),
        }
        escaped = false;
    }
    if !line.is_empty() || escaped {
        return Err(failed("its last line has no end"));
    }
    Ok(found)
}

fn tablespace(line: &[u8]) -> Option<Tablespace> {
    let at = line.iter().position(|byte| *byte == b' ')?;
    let (oid, location) = line.split_at(at);
    let location = location.get(1..)?.to_vec();
    let oid = std::str::from_utf8(oid).ok()?.parse().ok()?;
    (!location.is_empty()).then_some(Tablespace { oid, location })
}

/// Writes a `tablespace_map`.
#[must_use]
pub fn tablespace_map(tablespaces: &[Tablespace]) -> Vec<u8> {
    let mut map = Vec::new();
    for one in tablespaces {
        map.extend_from_slice(one.oid.to_string().as_bytes());
        map.push(b' ');
        for byte in &one.location {
            if matches!(byte, b'\n' | b'\r' | b'\\') {
                map.push(b'\\');
            }
            map.push(*byte);
        }
        map.push(b'\n');
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: &[u8] = b"START WAL LOCATION: 16/B3000028 (file 0000000300000016000000B3)\n\
        CHECKPOINT LOCATION: 16/B3000060\nBACKUP METHOD: streamed\nBACKUP FROM: standby\n\
        START TIME: 2026-11-20 10:00:00 CET\nLABEL: nightly: one\nSTART TIMELINE: 3\n";

    #[test]
    fn a_label_is_read() {
        let label = Label::parse(LABEL).unwrap();
        assert_eq!(label.start.to_string(), "16/B3000028 on timeline 3");
        assert_eq!(label.checkpoint, Lsn(0x16_B300_0060));
        assert!(label.from_standby);
        assert_eq!(label.label, "nightly: one");
        assert_eq!(label.incremental_from, None);
    }

    #[test]
    fn an_increment_names_its_parent_and_can_be_made_whole() {
        let increment = [LABEL, b"INCREMENTAL FROM LSN: 16/B1000028\nINCREMENTAL FROM TLI: 2\n"].concat();
        let label = Label::parse(&increment).unwrap();
        assert_eq!(label.incremental_from.unwrap().to_string(), "16/B1000028 on timeline 2");
        assert_eq!(Label::without_increment(&increment), LABEL);
        let half = [LABEL, b"INCREMENTAL FROM LSN: 16/B1000028\n"].concat();
        assert_eq!(Label::parse(&half).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_label_without_a_line_that_recovery_needs_is_damaged() {
        let text = std::str::from_utf8(LABEL).unwrap();
        for name in ["START WAL", "CHECKPOINT", "BACKUP FROM", "LABEL", "START TIMELINE"] {
            let rest: String = text
                .lines()
                .filter(|line| !line.starts_with(name))
                .map(|line| format!("{line}\n"))
                .collect();
            assert_eq!(
                Label::parse(rest.as_bytes()).unwrap_err().kind(),
                ErrorKind::Corrupt,
                "{name}"
            );
        }
    }

    #[test]
    fn paths_with_line_breaks_survive() {
        let tablespaces = [
            Tablespace {
                oid: 16384,
                location: b"/mnt/a disk".to_vec(),
            },
            Tablespace {
                oid: 16385,
                location: b"/mnt/\n\\\r\\n".to_vec(),
            },
        ];
        let map = tablespace_map(&tablespaces);
        assert_eq!(parse_tablespaces(&map).unwrap(), tablespaces);
        for length in 1..map.len() {
            if let Ok(some) = parse_tablespaces(&map[..length]) {
                assert!(tablespaces.starts_with(&some), "a prefix of {length} bytes");
            }
        }
    }

    #[test]
    fn a_map_that_makes_no_sense_is_damaged() {
        for map in ["16384\n", "x /a\n", "16384 \n", "16384 /a", "16384 /a\\"] {
            assert_eq!(
                parse_tablespaces(map.as_bytes()).unwrap_err().kind(),
                ErrorKind::Corrupt,
                "{map:?}"
            );
        }
    }
}
