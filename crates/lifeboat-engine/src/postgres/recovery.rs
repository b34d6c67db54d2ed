//! How a restored directory recovers: up to where, along which timeline, with log from which command (PG-09).
//!
//! Pure: settings and texts. A target is nearly always the last record that is to be replayed, which the caller has found in the log itself
//! (the module `records`): the server counts a failing `restore_command` as the end of the log, so nothing but a target can tell it that there
//! should have been more (13 and newer end with an error in front of a target that was not reached). A time is only for a commit behind it
//! that is held: where there is none, the server would replay everything and then fail.

use std::collections::BTreeMap;
use std::path::Path;

use lifeboat_model::{Error, ErrorKind, Lsn, Result, Timeline};

use super::sandbox;

/// The empty file that makes the server recover from an archive; put into the data directory.
pub const SIGNAL: &str = "recovery.signal";
/// Files of the origin that would make the server do something else: they must not be in a restored directory.
pub const NOT_RESTORED: [&str; 3] = ["standby.signal", "postmaster.pid", "postmaster.opts"];
/// Where the settings are written: what stands there counts more than `postgresql.conf`, wherever that lies.
pub const AUTO_CONF: &str = "postgresql.auto.conf";

/// Up to where the log is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Until the base is consistent, and not further.
    Consistent,
    /// Up to the end of the record that begins here. The server compares beginnings of records: a position in the middle of one, or behind
    /// the last, would take it one record too far or not be reached at all.
    Record(Lsn),
    /// All commits until this time, microseconds since 1970. Only where a later one is held.
    Time(i64),
}

/// What the server does when it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It takes queries, and waits to be told.
    Pause,
    /// It begins a new timeline and takes writes.
    Promote,
    /// It stops.
    Shutdown,
}

/// Everything that the server is told about its recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What fetches a file of log; see [`restore_command`].
    pub restore_command: String,
    /// Up to where.
    pub target: Target,
    /// Along the way to which timeline. Always a number: `latest` would follow the origin's newest one, whatever was asked for.
    pub timeline: Timeline,
    /// And then.
    pub action: Action,
}

/// A `restore_command` that asks a server of log on this socket (`lifeboat wal fetch --socket`), for so many seconds where a store does not
/// answer.
pub fn restore_command(program: &Path, socket: &Path, patience_s: u32) -> Result<String> {
    let (program, socket) = (quoted(program)?, quoted(socket)?);
    // Without `exec` a shell would stay in between, for each file.
    Ok(format!(
        "exec {program} wal fetch --patience {patience_s} --socket {socket} \"%f\" \"%p\""
    ))
}

/// A `restore_command` for a directory that a person starts: the first call starts a server of log as the user of the database server
/// (`lifeboat wal fetch --restore`).
pub fn restore_command_of(program: &Path, restore: &Path) -> Result<String> {
    let (program, restore) = (quoted(program)?, quoted(restore)?);
    Ok(format!("exec {program} wal fetch --restore {restore} \"%f\" \"%p\""))
}

/// A path for the shell, in a setting where `%` begins a placeholder. Newer servers refuse those that they do not know.
fn quoted(path: &Path) -> Result<String> {
    let wrong = |detail: &str| {
        Error::new(ErrorKind::Usage, "write a restore_command with", path.display(), detail)
            .with_hint("put it where the path is plain text")
    };
    let text = path.to_str().ok_or_else(|| wrong("the path is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(wrong("the path holds a line break or another control character"));
    }
    Ok(format!("'{}'", text.replace('\'', "'\\''").replace('%', "%%")))
}

impl Settings {
    /// Those whose names begin with `recovery_target`. Every kind of target is there; the one that counts is not empty.
    #[must_use]
    pub fn targets(&self) -> BTreeMap<String, String> {
        let mut all: BTreeMap<String, String> = KINDS.iter().map(|kind| ((*kind).to_owned(), String::new())).collect();
        let (kind, value) = self.kind();
        all.insert(kind.to_owned(), value);
        all.extend(self.manner().map(|(name, value)| (name.to_owned(), value)));
        all
    }

    /// The same for a sandbox, which sets everything else itself.
    #[must_use]
    pub fn for_sandbox(&self) -> sandbox::Recovery {
        sandbox::Recovery::Archive {
            restore_command: self.restore_command.clone(),
            settings: self.targets(),
        }
    }

    /// `postgresql.auto.conf` of the restored directory, from the one that came with the base: lines of the origin that would have a say
    /// become comments, ours follow behind a mark. The new cluster archives nothing unless `archives`: in the origin's archive its log would
    /// stand among the origin's.
    pub fn auto_conf(&self, before: &[u8], archives: bool) -> Result<Vec<u8>> {
        let mut ours: Vec<(&str, String)> = vec![("restore_command", self.restore_command.clone())];
        // They may stand in postgresql.conf.
        ours.extend(ELSEWHERE.map(|(name, value)| (name, value.to_owned())));
        if !archives {
            ours.push(("archive_mode", "off".to_owned()));
        }
        ours.extend(self.manner());
        // The server takes a target after another for a second one, even where it is empty: the one that is set comes last.
        let (set, value) = self.kind();
        ours.extend(KINDS.iter().filter(|kind| **kind != set).map(|kind| (*kind, String::new())));
        ours.push((set, value));
        with_ours(before, archives, &ours)
    }

    fn kind(&self) -> (&'static str, String) {
        match self.target {
            Target::Consistent => ("recovery_target", "immediate".to_owned()),
            Target::Record(start) => ("recovery_target_lsn", start.to_string()),
            Target::Time(at_us) => ("recovery_target_time", utc(at_us)),
        }
    }

    fn manner(&self) -> [(&'static str, String); 3] {
        let action = match self.action {
            Action::Pause => "pause",
            Action::Promote => "promote",
            Action::Shutdown => "shutdown",
        };
        [
            ("recovery_target_inclusive", "on".to_owned()),
            ("recovery_target_timeline", self.timeline.to_string()),
            ("recovery_target_action", action.to_owned()),
        ]
    }
}

const MARK: &str = "# Recovery, written by lifeboat restore. Has no effect without recovery.signal; archive_mode = off stays until it is removed.";

/// The kinds of targets.
const KINDS: [&str; 5] = [
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
];

/// What the origin may have been told as a standby or in an earlier recovery, with what does nothing.
const ELSEWHERE: [(&str, &str); 5] = [
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
    ("archive_cleanup_command", ""),
    ("recovery_end_command", ""),
    ("recovery_min_apply_delay", "0"),
];

/// `postgresql.auto.conf` of a directory whose recovery is behind it, from the one that came with the base: nothing of the origin's standby, recovery
/// and archiving is left. A server that is started there would else write its log among the origin's, or follow the origin's primary.
pub fn settled_conf(before: &[u8]) -> Result<Vec<u8>> {
    let mut ours: Vec<(&str, String)> = vec![("restore_command", String::new()), ("archive_mode", "off".to_owned())];
    // They may stand in postgresql.conf.
    ours.extend(ELSEWHERE.map(|(name, value)| (name, value.to_owned())));
    with_ours(before, false, &ours)
}

/// Lines of the origin that would have a say become comments, ours follow behind a mark.
fn with_ours(before: &[u8], archives: bool, ours: &[(&str, String)]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for line in before.split(|byte| *byte == b'\n').filter(|line| *line != MARK.as_bytes()) {
        if name_of(line).is_some_and(|name| is_ours(&name, archives)) {
            text.extend_from_slice(b"# before the restore: ");
        }
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    while text.ends_with(b"\n\n") {
        text.pop();
    }
    text.extend_from_slice(format!("{MARK}\n").as_bytes());
    for (name, value) in ours {
        text.extend_from_slice(format!("{name} = {}\n", conf_value(name, value)?).as_bytes());
    }
    Ok(text)
}

/// Whether a line of the origin with this name would have a say in the recovery.
fn is_ours(name: &str, archives: bool) -> bool {
    let elsewhere = ELSEWHERE.iter().any(|(known, _)| *known == name);
    let archive = !archives && matches!(name, "archive_mode" | "archive_command" | "archive_library");
    elsewhere || archive || matches!(name, "restore_command" | "promote_trigger_file") || name.starts_with("recovery_target")
}

/// The name that a line sets, in lower case.
fn name_of(line: &[u8]) -> Option<String> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    let name: Vec<u8> = line.trim_ascii_start().iter().copied().take_while(is_part).collect();
    let name = String::from_utf8(name).ok()?;
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

/// A value as `guc-file.l` reads it: quotes doubled, backslashes too.
fn conf_value(name: &str, value: &str) -> Result<String> {
    if value.chars().any(|letter| matches!(letter, '\n' | '\r' | '\0')) {
        let detail = "its value holds a line break, which a configuration file cannot hold";
        return Err(Error::new(ErrorKind::Usage, "write the setting", name, detail));
    }
    Ok(format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''")))
}

/// A time as the server reads it in any time zone. Days are counted as in the calendar of proleptic years (H. Hinnant, "chrono-compatible
/// low-level date algorithms").
fn utc(at_us: i64) -> String {
    let (day_us, second_us) = (86_400_000_000, 1_000_000);
    let (days, within) = (at_us.div_euclid(day_us), at_us.rem_euclid(day_us));
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (seconds, us) = (within / second_us, within % second_us);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{us:06}+00")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::conf;

    fn settings(target: Target) -> Settings {
        Settings {
            restore_command: restore_command(Path::new("/opt/it's 100%/lifeboat"), Path::new("/tmp/s\\x/socket"), 7).unwrap(),
            target,
            timeline: Timeline::new(3).unwrap(),
            action: Action::Promote,
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000000+00");
        assert_eq!(utc(951_782_400_000_001), "2000-02-29 00:00:00.000001+00");
        assert_eq!(utc(1_795_185_600_000_000 - 1), "2026-11-20 14:39:59.999999+00");
        assert_eq!(utc(-1), "1969-12-31 23:59:59.999999+00");
    }

    #[test]
    fn paths_survive_the_server_and_the_shell() {
        let command = settings(Target::Consistent).restore_command;
        assert_eq!(
            command,
            "exec '/opt/it'\\''s 100%%/lifeboat' wal fetch --patience 7 --socket '/tmp/s\\x/socket' \"%f\" \"%p\""
        );
        assert!(restore_command(Path::new("/a\nb"), Path::new("/x"), 7).is_err());
    }

    #[test]
    fn only_what_we_say_counts() {
        let before = b"# Do not edit\nmax_connections = 7\nrecovery_target_time = '2020-01-01'\n Archive_Command='cp %p /a'\n\
                       restore_command = 'false'\nrecovery_targets.of_somebody = 1\nprimary_conninfo 'x'\nlast = \xff";
        let text = settings(Target::Record(Lsn(0x1_0000_0028))).auto_conf(before, false).unwrap();
        let found = conf::parse(&String::from_utf8_lossy(&text));
        assert_eq!(found["max_connections"], "7");
        assert_eq!(found["recovery_target_lsn"], "1/28");
        assert_eq!(found["recovery_target_time"], "");
        assert_eq!(found["recovery_target_timeline"], "3");
        assert_eq!(found["primary_conninfo"], "");
        assert_eq!(found["archive_mode"], "off");
        assert!(!found.contains_key("archive_command"));
        assert_eq!(found["restore_command"], settings(Target::Consistent).restore_command);
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.trim_end().ends_with("recovery_target_lsn = '1/28'"), "{text}");
        let again = settings(Target::Consistent).auto_conf(text.as_bytes(), true).unwrap();
        let again = String::from_utf8_lossy(&again).into_owned();
        assert_eq!(again.matches(MARK).count(), 1);
        assert!(again.trim_end().ends_with("recovery_target = 'immediate'"), "{again}");
        // What the first restore set stays off when nobody said anything about it before.
        assert_eq!(conf::parse(&again)["archive_mode"], "off");
        assert!(again.contains("\n# before the restore: recovery_target_lsn = '1/28'\n"));
    }
}
