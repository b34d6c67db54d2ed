//! The commands whose answer is a row.

use lifeboat_model::lsn::{Position, Timeline};
use lifeboat_model::{Error, ErrorKind, Result};

use super::{HistoryFile, Identity, Slot, check_slot_name, position, value};
use crate::postgres::wire::error::broken;
use crate::postgres::wire::{Connection, ResultSet};

/// From here on slots can be read in replication mode, and commands take their options in parentheses.
pub(super) const PARENTHESES: u32 = 15;

impl Connection {
    /// `IDENTIFY_SYSTEM`: who this server is and how far its log is.
    pub async fn identify_system(&mut self) -> Result<Identity> {
        let rows = self.one_row("identify", "IDENTIFY_SYSTEM").await?;
        let Some(position) = position(&rows, 2, 1) else {
            return Err(broken(self.subject(), "IDENTIFY_SYSTEM did not say timeline and position"));
        };
        Ok(Identity {
            system: value(self, &rows, 0, "the system identifier")?,
            position,
        })
    }

    /// `SHOW`: a setting, as text (`16MB`).
    pub async fn show(&mut self, name: &str) -> Result<String> {
        if name.is_empty()
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
        {
            return Err(Error::new(
                ErrorKind::Bug,
                "ask for the setting",
                name,
                "this is not the name of a setting",
            ));
        }
        let rows = self.one_row("ask for a setting of", &format!("SHOW {name}")).await?;
        value(self, &rows, 0, "the setting")
    }

    /// The size of a segment of the log, in bytes.
    pub async fn wal_segment_size(&mut self) -> Result<u64> {
        let text = self.show("wal_segment_size").await?;
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = text.get(digits.len()..).unwrap_or_default();
        let factor: u64 = match unit {
            "B" => 1,
            "kB" => 1 << 10,
            "MB" => 1 << 20,
            "GB" => 1 << 30,
            _ => 0,
        };
        let size = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        size.filter(|size| size.is_power_of_two() && (1 << 20..=1 << 30).contains(size))
            .ok_or_else(|| broken(self.subject(), format_args!("{text:?} is not the size of a segment")))
    }

    /// `TIMELINE_HISTORY`: the file that says where a timeline left its parents. `NotFound` for timeline 1, which has none.
    pub async fn timeline_history(&mut self, timeline: Timeline) -> Result<HistoryFile> {
        let rows = self
            .one_row("read the history of a timeline from", &format!("TIMELINE_HISTORY {timeline}"))
            .await?;
        let name: String = value(self, &rows, 0, "the name of the history file")?;
        let wanted = format!("{:08X}.history", timeline.number());
        let content = rows.rows.into_iter().next().and_then(|row| row.into_iter().nth(1)).flatten();
        match content {
            Some(content) if name == wanted => Ok(HistoryFile { name, content }),
            _ => Err(broken(
                self.subject(),
                format_args!("the history {wanted} was asked for, and {name:?} came"),
            )),
        }
    }

    /// `CREATE_REPLICATION_SLOT … PHYSICAL` that keeps log from now on. A temporary one ends with the session. `AlreadyExists` where there is one.
    pub async fn create_slot(&mut self, name: &str, temporary: bool) -> Result<()> {
        check_slot_name(name)?;
        let temporary = if temporary { " TEMPORARY" } else { "" };
        let reserve = if self.major() >= PARENTHESES {
            "(RESERVE_WAL)"
        } else {
            "RESERVE_WAL"
        };
        let command = format!("CREATE_REPLICATION_SLOT {name}{temporary} PHYSICAL {reserve}");
        self.query("make a replication slot on", &command).await.map(|_| ())
    }

    /// `READ_REPLICATION_SLOT`: none where there is no physical slot of this name. Servers before 15 do not know the command: `Incompatible`.
    pub async fn read_slot(&mut self, name: &str) -> Result<Option<Slot>> {
        check_slot_name(name)?;
        if self.major() < PARENTHESES {
            let detail = "PostgreSQL before 15 does not tell about slots in replication mode";
            return Err(Error::new(
                ErrorKind::Incompatible,
                "read a replication slot of",
                self.subject(),
                detail,
            ));
        }
        let rows = self
            .one_row("read a replication slot of", &format!("READ_REPLICATION_SLOT {name}"))
            .await?;
        match rows.first(0) {
            None => Ok(None),
            Some("physical") => Ok(Some(Slot {
                restart: rows.first(1).map(str::parse).transpose()?,
                timeline: rows.first(2).map(str::parse).transpose()?,
            })),
            Some(other) => Err(broken(
                self.subject(),
                format_args!("the slot {name} is of the kind {other:?}"),
            )),
        }
    }

    /// `DROP_REPLICATION_SLOT`: `NotFound` where there is none, `Locked` where somebody uses it.
    pub async fn drop_slot(&mut self, name: &str) -> Result<()> {
        check_slot_name(name)?;
        self.query("drop a replication slot of", &format!("DROP_REPLICATION_SLOT {name}"))
            .await
            .map(|_| ())
    }

    /// Where the log ends now: the position of `IDENTIFY_SYSTEM`.
    pub async fn flushed(&mut self) -> Result<Position> {
        self.identify_system().await.map(|identity| identity.position)
    }

    async fn one_row(&mut self, op: &'static str, command: &str) -> Result<ResultSet> {
        let mut all = self.query(op, command).await?;
        match (all.pop(), all.is_empty()) {
            (Some(rows), true) if rows.rows.len() == 1 => Ok(rows),
            _ => Err(broken(self.subject(), format_args!("the answer to {command} is not one row"))),
        }
    }
}
