//! What is kept with a logical backup besides its files, and what is asked of a catalog.

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::tenant::TenantMap;

/// Facts of a logical backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Always `logical`.
    pub mode: String,
    /// The server's version, as it writes it.
    pub version: String,
    /// Its major version.
    pub major: u32,
    /// Which cluster, in decimal digits, where the server says it.
    pub system_identifier: Option<String>,
    /// The version of `pg_dump` that wrote the definitions, as it says it.
    pub pg_dump: String,
    /// The roles of the server are there, and whether with their passwords.
    pub globals: Globals,
    /// Only definitions were taken.
    pub schema_only: bool,
    /// Only the rows of one tenant were taken, and those that are everybody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
    /// Only the rows of these tables were taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_tables: Option<Vec<String>>,
    /// Its databases.
    pub databases: Vec<Database>,
}

/// Whose rows were taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// What names the tenant in the table of tenants.
    pub id: String,
    /// By which map.
    pub map: TenantMap,
}

impl Facts {
    /// What is lacking of the databases, where something is: such a backup is an extract.
    #[must_use]
    pub fn lacks(&self) -> Option<String> {
        match &self.tenant {
            _ if self.schema_only => Some("it has definitions alone, and no rows".to_owned()),
            Some(tenant) => Some(format!("it has the rows of the tenant {} alone", tenant.id)),
            None => (self.only_tables.as_ref()).map(|tables| format!("it has the rows of {} alone", tables.join(", "))),
        }
    }
}

/// What is there of roles, memberships and tablespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Globals {
    /// Everything, passwords as the server stores them.
    WithPasswords,
    /// We may not read passwords.
    WithoutPasswords,
    /// Nothing: it is of a dump, which holds one database alone.
    Nothing,
}

/// A database as it was captured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// The folder of its files in the backup.
    pub folder: String,
    /// When its snapshot was taken, microseconds since 1970.
    pub moment_us: i64,
    /// What it was made with, who owns it, what it is set to.
    pub properties: Properties,
    /// Roles that own something in it or have rights there.
    pub roles: Vec<String>,
    /// Extensions and their versions.
    pub extensions: Vec<(String, String)>,
    /// Its tables.
    pub tables: Vec<Table>,
    /// Its sequences.
    pub sequences: Vec<Sequence>,
    /// Its large objects.
    pub large_objects: Option<LargeObjects>,
    /// Materialised views with rows, in an order in which they can be filled.
    pub materialized: Vec<Name>,
    /// Tables whose rows live elsewhere and are not in the backup.
    pub foreign: Vec<Name>,
}

/// A qualified name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    /// The schema.
    pub schema: String,
    /// In it.
    pub name: String,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

impl Name {
    /// As SQL writes it.
    #[must_use]
    pub fn sql(&self) -> String {
        format!("{}.{}", super::quoted_name(&self.schema), super::quoted_name(&self.name))
    }
}

/// A table and its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    #[serde(flatten)]
    pub name: Name,
    /// Its columns that hold something, in the order of its rows here.
    pub columns: Vec<String>,
    /// Its file's bytes on the server.
    pub heap_bytes: u64,
    /// Of an extension's own table: which rows are not the extension's (`WHERE …`, or nothing for all).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Of a partition: of which table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Name>,
    /// Files of the backup that hold its rows, below the folder of the database.
    pub parts: Vec<String>,
    /// Bytes of these.
    pub text_bytes: u64,
    /// How many rows, and what they add up to.
    pub digest: Digest,
}

/// A sequence and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// Its name.
    #[serde(flatten)]
    pub name: Name,
    /// `last_value`
    pub last_value: i64,
    /// `is_called`
    pub is_called: bool,
}

/// The large objects of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeObjects {
    /// How many there are.
    pub count: u64,
    /// The file that says whose they are: rows of number, owner, rights and comment.
    pub about: String,
    /// The file that holds them: rows of number, offset and bytes.
    pub file: String,
    /// Of these rows.
    pub digest: Digest,
}

/// What `CREATE DATABASE` and `ALTER DATABASE` need.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Properties {
    /// Who owns it.
    pub owner: String,
    /// `UTF8`, for example.
    pub encoding: String,
    /// `LC_COLLATE`
    pub collate: Option<String>,
    /// `LC_CTYPE`
    pub ctype: Option<String>,
    /// `c` (the C library), `i` (ICU) or `b` (PostgreSQL's own).
    pub provider: String,
    /// The locale of ICU or of PostgreSQL's own.
    pub locale: Option<String>,
    /// Rules for ICU.
    pub icu_rules: Option<String>,
    /// Its tablespace.
    pub tablespace: String,
    /// How many may connect; -1: as many as want to.
    pub connection_limit: i64,
    /// Whether its rights were ever changed.
    pub has_rights: bool,
    /// Rights: to whom (empty: everybody), which, and whether they may be passed on.
    pub rights: Vec<(String, String, bool)>,
    /// Settings: of which role (empty: all), `name=value`.
    pub settings: Vec<(String, String)>,
    /// Its comment.
    pub comment: Option<String>,
}

impl Database {
    /// Bytes of all rows.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.text_bytes).sum()
    }

    /// Bytes of the rows of the largest one.
    #[must_use]
    pub fn largest_table_bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.text_bytes).max().unwrap_or_default()
    }

    /// Rows of all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.digest.rows).sum()
    }
}
