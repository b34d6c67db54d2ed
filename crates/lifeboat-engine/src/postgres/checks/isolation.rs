//! That a server in a sandbox reaches nobody and nobody reaches it (PG-10), by its own account: for evidence.

use lifeboat_model::check::Outcome;

use super::words;
use crate::postgres::sandbox::Sandbox;

/// What is asked, and what has to be answered.
const QUIET: [(&str, &str); 8] = [
    ("listen_addresses", ""),
    ("archive_mode", "off"),
    ("archive_command", ""),
    ("primary_conninfo", ""),
    ("synchronous_standby_names", ""),
    ("max_logical_replication_workers", "0"),
    ("unix_socket_permissions", "0700"),
    ("cluster_name", "lifeboat-sandbox"),
];
/// What the server answers for a command that it does not run.
const DISABLED: &str = "(disabled)";
/// The name of the outcome.
const NAME: &str = "isolation";

/// Asks it for the settings that say so.
pub async fn check(sandbox: &Sandbox) -> Outcome {
    let session = match sandbox.connect("postgres").await {
        Ok(session) => session,
        Err(error) => return Outcome::not_available(NAME, format!("it could not be asked for: {error}")),
    };
    let names: Vec<&str> = QUIET.iter().map(|(name, _)| *name).collect();
    let asked = session
        .client()
        .query("select name, setting from pg_settings where name = any($1)", &[&names])
        .await;
    let rows = match asked {
        Ok(rows) => rows,
        Err(error) => return Outcome::not_available(NAME, format!("it could not be asked for: {}", words(&error))),
    };
    let said = |name: &str| {
        let row = rows.iter().find(|row| row.get::<_, &str>(0) == name);
        row.map(|row| row.get::<_, Option<String>>(1).unwrap_or_default())
    };
    let (mut evidence, mut wrong) = (Vec::new(), Vec::new());
    for (name, wanted) in QUIET {
        let found = said(name);
        let shown = found.as_deref().map_or("unknown".to_owned(), |found| format!("'{found}'"));
        evidence.push(format!("{name} = {shown}"));
        let is_right = found.is_some_and(|found| found == wanted || (wanted.is_empty() && found == DISABLED));
        if !is_right {
            wrong.push(name);
        }
    }
    let socket = sandbox.socket_folder().display();
    if wrong.is_empty() {
        let says = format!("the server listened on no address, only in {socket}, and archived and replicated nothing");
        Outcome::passed(NAME, says).with_evidence(evidence)
    } else {
        let says = format!("the server in {socket} was not as a sandbox has to be: {}", wrong.join(", "));
        Outcome::failed(NAME, says).with_evidence(evidence)
    }
}
