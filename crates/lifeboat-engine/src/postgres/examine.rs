//! What a server says that decides whether it can be backed up, followed and brought back. Read only.

use lifeboat_model::{Error, ErrorKind, Result};

use super::sql::Sql;

/// What a server says of itself and of the role that asks. What the role may not know is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// 15, for example.
    pub major: u32,
    /// As it writes it.
    pub version: String,
    /// It replays another server's log.
    pub standby: bool,
    /// The role that asked.
    pub role: String,
    /// The role may replicate.
    pub replication: bool,
    /// The role may begin and end a backup (mode *local*).
    pub may_start_backup: bool,
    /// The role may read all settings, the place of the data directory among them.
    pub may_read_settings: bool,
    /// `wal_level`
    pub wal_level: String,
    /// `full_page_writes`
    pub full_page_writes: bool,
    /// `fsync`
    pub fsync: bool,
    /// `max_wal_senders`
    pub max_wal_senders: i32,
    /// `max_replication_slots`
    pub max_replication_slots: i32,
    /// `max_slot_wal_keep_size`, in MiB; -1: no limit.
    pub slot_keep_mib: i32,
    /// Pages carry checksums.
    pub checksums: bool,
    /// The server writes summaries of its log (17 and newer).
    pub summarizes: Option<bool>,
    /// Where the data is, on the server's host.
    pub data_dir: Option<String>,
    /// The slot that was asked for.
    pub slot: Option<SlotState>,
}

/// What a server says of a replication slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// Somebody streams through it.
    pub active: bool,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: String,
    /// Bytes of log that the server keeps for it.
    pub kept_bytes: Option<i64>,
}

/// Asks about the server, the role and the slot `slot`.
pub async fn examine(sql: &Sql, slot: &str) -> Result<Examined> {
    const OP: &str = "ask about";
    let text = "select current_setting('server_version_num')::int / 10000, current_setting('server_version'), pg_is_in_recovery(), \
                current_user::text, \
                (select rolsuper or rolreplication from pg_roles where rolname = current_user), \
                pg_has_role(current_user, 'pg_read_all_settings', 'member'), \
                current_setting('wal_level'), current_setting('full_page_writes')::bool, current_setting('fsync')::bool, \
                current_setting('max_wal_senders')::int, current_setting('max_replication_slots')::int, \
                (select setting::int from pg_settings where name = 'max_slot_wal_keep_size'), \
                current_setting('data_checksums')::bool, current_setting('summarize_wal', true)::bool";
    let row = sql.client.query_one(text, &[]).await.map_err(|error| sql.error(OP, error))?;
    let major = u32::try_from(row.get::<_, i32>(0)).unwrap_or(0);
    let may_read_settings: bool = row.get(5);
    let function = if major >= 15 {
        "pg_backup_start(text,boolean)"
    } else {
        "pg_start_backup(text,boolean,boolean)"
    };
    let right = sql
        .client
        .query_one("select has_function_privilege($1, 'execute')", &[&function])
        .await
        .map_err(|error| sql.error(OP, error))?;
    let data_dir = if may_read_settings {
        let asked = sql.client.query_one("select current_setting('data_directory')", &[]).await;
        Some(asked.map_err(|error| sql.error(OP, error))?.get(0))
    } else {
        None
    };
    let slots = "select active, wal_status::text, \
                 pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, restart_lsn)::bigint \
                 from pg_replication_slots where slot_name = $1::text and slot_type = 'physical'";
    let found = sql
        .client
        .query_opt(slots, &[&slot])
        .await
        .map_err(|error| sql.error(OP, error))?;
    if major == 0 {
        return Err(Error::new(
            ErrorKind::Incompatible,
            OP,
            sql.subject(),
            "its version is no number",
        ));
    }
    Ok(Examined {
        major,
        version: row.get(1),
        standby: row.get(2),
        role: row.get(3),
        replication: row.get(4),
        may_start_backup: right.get(0),
        may_read_settings,
        wal_level: row.get(6),
        full_page_writes: row.get(7),
        fsync: row.get(8),
        max_wal_senders: row.get(9),
        max_replication_slots: row.get(10),
        slot_keep_mib: row.get::<_, Option<i32>>(11).unwrap_or(-1),
        checksums: row.get(12),
        summarizes: row.get(13),
        data_dir,
        slot: found.map(|row| SlotState {
            active: row.get(0),
            wal_status: row.get::<_, Option<String>>(1).unwrap_or_default(),
            kept_bytes: row.get(2),
        }),
    })
}
