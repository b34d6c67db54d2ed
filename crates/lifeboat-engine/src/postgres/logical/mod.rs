//! Databases as definitions and rows ([docs/logical.md](../../../../../docs/logical.md)).
//!
//! [`leader`] holds the snapshot and reads the catalog, [`session`] copies rows, [`binary`] makes of them what a server takes in sooner, [`programs`] runs PostgreSQL's own programs for the definitions,
//! [`destination`] is where a database is restored to, [`swap`] puts it in another's place, [`digest`] says whether two tables hold the same rows,
//! [`tenant`] which rows are one tenant's. Nothing here knows where a backup is stored.

pub mod binary;
pub mod catalog;
pub mod destination;
pub mod digest;
pub mod facts;
pub mod leader;
pub mod parts;
pub mod programs;
pub mod session;
mod settings;
pub mod swap;
pub mod tenant;

use std::time::Duration;

pub use digest::Digest;
pub use facts::{Database, Facts, Name, Table};

/// Settings of every session: text means the same whoever reads it, nothing is filtered, nothing is cut short by the server's own limits.
/// `search_path` is empty: no name means something else than it says.
pub(crate) const SETTINGS: &str = "SET client_encoding = 'UTF8'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; \
     SET extra_float_digits = 3; SET TimeZone = 'UTC'; SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET standard_conforming_strings = on; \
     SET xmloption = content; SET row_security = off; SET synchronize_seqscans = off; SET statement_timeout = 0; \
     SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0; SET check_function_bodies = false; \
     SELECT pg_catalog.set_config('transaction_timeout', '0', false) WHERE pg_catalog.current_setting('server_version_num')::int >= 170000; \
     SELECT pg_catalog.set_config('search_path', '', false)";

/// How long a session may say nothing while it works: a server that scans a table without a row to tell says nothing.
const SILENCE: Duration = Duration::from_secs(3600);

/// A name in SQL.
#[must_use]
pub fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in SQL, whatever `standard_conforming_strings` says.
#[must_use]
pub fn quoted_text(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!(" E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}
