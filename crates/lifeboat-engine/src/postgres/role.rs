//! The role with the least rights that every way of backing up and following needs.
//!
//! A role that may replicate reads everything there is already: what is granted besides saves it detours. Rights on functions belong to one database, the
//! one that is connected to. Nothing is ever taken away from a role.

use lifeboat_model::{Error, ErrorKind, Result};

use super::sql::Sql;

/// A right, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// The statement that grants it.
    pub sql: String,
    /// What works with it.
    pub what_for: &'static str,
}

/// What reading all settings is for.
pub const SETTINGS: &str = "to know where the data directory and its configuration are";
/// What beginning and ending a backup is for.
pub const LOCAL: &str = "backups from the data directory, which are faster than those from the stream";
/// What reading all data is for.
pub const ROWS: &str = "to count rows, which are compared with what was restored";

/// A name as SQL reads it.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The functions that begin and end a backup, by version.
#[must_use]
pub const fn backup_functions(major: u32) -> &'static str {
    match major {
        ..15 => "pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean)",
        15.. => "pg_backup_start(text, boolean), pg_backup_stop(boolean)",
    }
}

/// What `role` is granted on a server of this version.
#[must_use]
pub fn rights(major: u32, role: &str) -> Vec<Right> {
    let role = quoted(role);
    let right = |sql: String, what_for| Right { sql, what_for };
    vec![
        right(format!("GRANT pg_read_all_settings TO {role}"), SETTINGS),
        right(
            format!("GRANT EXECUTE ON FUNCTION {} TO {role}", backup_functions(major)),
            LOCAL,
        ),
        right(
            format!("GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean) TO {role}"),
            "to look a second time at pages that a streamed backup finds damaged",
        ),
        right(format!("GRANT pg_read_all_data TO {role}"), ROWS),
    ]
}

/// The statement that makes `role`; where the password goes stands `'…'`.
#[must_use]
pub fn creation(role: &str) -> String {
    format!("CREATE ROLE {} LOGIN REPLICATION PASSWORD '…'", quoted(role))
}

/// Makes `role` with this password and its rights, all or nothing, through a login that may. The password itself does not leave this host:
/// the server is given what SCRAM keeps of it. Kind `AlreadyExists` where there is such a role.
pub async fn create(sql: &Sql, major: u32, role: &str, password: &str) -> Result<()> {
    const OP: &str = "make a role at";
    let exists = sql
        .client
        .query_one("select exists (select from pg_roles where rolname = $1::text)", &[&role])
        .await;
    if exists.map_err(|error| sql.error(OP, error))?.get(0) {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            OP,
            sql.subject(),
            format!("there is a role {role} already"),
        )
        .with_hint("connect as that role, without --create-role; or make one with another name: --create-role=NAME"));
    }
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    let mut statements = vec![creation(role).replace('…', &verifier)];
    statements.extend(rights(major, role).into_iter().map(|right| right.sql));
    let all = format!("begin; {}; commit", statements.join("; "));
    match sql.client.batch_execute(&all).await {
        Ok(()) => Ok(()),
        Err(error) => Err(sql.error(OP, error).with_hint(format!(
            "connect as a superuser, or have one run: {}; {}",
            creation(role),
            rights(major, role)
                .into_iter()
                .map(|right| right.sql)
                .collect::<Vec<_>>()
                .join("; ")
        ))),
    }
}

/// What the rights of `role` on a server of this version are short of, by asking the server about each: the grants that are missing.
pub async fn missing(sql: &Sql, major: u32, role: &str) -> Result<Vec<Right>> {
    const OP: &str = "ask for the rights at";
    let function = |signature: &str| format!("has_function_privilege('{signature}', 'execute')");
    let start: Vec<String> = match major {
        ..15 => vec![
            function("pg_start_backup(text,boolean,boolean)"),
            function("pg_stop_backup(boolean,boolean)"),
        ],
        15.. => vec![function("pg_backup_start(text,boolean)"), function("pg_backup_stop(boolean)")],
    };
    let text = format!(
        "select pg_has_role(current_user, 'pg_read_all_settings', 'member'), {}, {}, pg_has_role(current_user, 'pg_read_all_data', 'member')",
        start.join(" and "),
        function("pg_read_binary_file(text,bigint,bigint,boolean)")
    );
    let row = sql.client.query_one(&text, &[]).await.map_err(|error| sql.error(OP, error))?;
    let held = (0..4).map(|index| row.get::<_, bool>(index));
    let missing = rights(major, role).into_iter().zip(held).filter(|(_, held)| !held);
    Ok(missing.map(|(right, _)| right).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_functions_are_those_of_the_version() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
        assert!(creation("back up").starts_with("CREATE ROLE \"back up\" LOGIN REPLICATION PASSWORD '"));
        for (major, function) in [(14, "pg_start_backup("), (15, "pg_backup_start("), (18, "pg_backup_start(")] {
            let all: Vec<String> = rights(major, "lifeboat").into_iter().map(|right| right.sql).collect();
            assert!(all.iter().any(|sql| sql.contains(function)), "{major}: {all:?}");
        }
    }
}
