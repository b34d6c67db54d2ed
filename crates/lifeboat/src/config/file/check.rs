//! What has to hold of restored data, as it is written.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use super::At;

/// Something that has to hold: `sql` and what it has to answer in `expect`, or `orphans`, or `foreign_keys`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct CheckFile {
    /// One query that reads. It runs in a transaction that only reads, and reads everything: row-level security that would hide rows from it makes it
    /// fail.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"SELECT id FROM reservations WHERE arrival > departure")]
    pub(in crate::config) sql: Option<At<String>>,
    /// What it has to answer: `no_rows`, `{ equals: VALUE }` or `{ at_least: NUMBER }`.
    #[serde(default)]
    pub(in crate::config) expect: Option<ExpectFile>,
    /// Rows of a table that have to point at a row of another, where no foreign key says so. A row with a null in one of the columns is no orphan.
    #[serde(default)]
    #[schemars(with = "Option<OrphansFile>")]
    pub(in crate::config) orphans: Option<At<OrphansFile>>,
    /// `true`: every foreign key of the database holds, also those that are not validated.
    #[serde(default)]
    #[schemars(with = "Option<bool>")]
    pub(in crate::config) foreign_keys: Option<At<bool>>,
    /// The database that it asks. Default: the only one of `databases`, or the one of the connection, where that is written in this file.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"tartware")]
    pub(in crate::config) database: Option<At<String>>,
    /// What it is called in reports. Default: what is asked.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"nobody leaves before arriving")]
    pub(in crate::config) name: Option<At<String>>,
    /// How long it may take; of `foreign_keys`, each of them. Default: 60s.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "60s"))]
    pub(in crate::config) timeout: Option<At<String>>,
}

/// Rows that have to point at rows of another table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct OrphansFile {
    /// Whose rows: `TABLE` or `SCHEMA.TABLE`.
    #[schemars(with = "String", example = &"reservations")]
    pub(in crate::config) table: At<String>,
    /// The column that points.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"guest_id")]
    pub(in crate::config) column: Option<At<String>>,
    /// The columns that point, where it is several. Instead of `column`.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    pub(in crate::config) columns: Option<At<Vec<String>>>,
    /// At whose rows: `TABLE` or `SCHEMA.TABLE`.
    #[schemars(with = "String", example = &"guests")]
    pub(in crate::config) references: At<String>,
    /// The column that is pointed at.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"id")]
    pub(in crate::config) key: Option<At<String>>,
    /// The columns that are pointed at, as many as `columns` and in their order. Instead of `key`.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    pub(in crate::config) keys: Option<At<Vec<String>>>,
}

/// What a query has to answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum ExpectFile {
    /// Nothing: every row is a fault.
    NoRows,
    /// One row with one value, written as PostgreSQL writes it: `true` is `t`.
    Equals(#[schemars(with = "ScalarFile")] At<ScalarFile>),
    /// One row with one number, which is this or more.
    AtLeast(#[schemars(with = "i64")] At<i64>),
}

/// A text, a whole number, or true or false.
#[derive(Debug)]
pub(in crate::config) struct ScalarFile(pub(in crate::config) String);

impl JsonSchema for ScalarFile {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer", "boolean"] })
    }
}

impl<'de> Deserialize<'de> for ScalarFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = ScalarFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a whole number (write others in quotes)")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ScalarFile, E> {
        Ok(ScalarFile(text.to_owned()))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<ScalarFile, E> {
        Ok(ScalarFile(number.to_string()))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<ScalarFile, E> {
        Ok(ScalarFile(number.to_string()))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<ScalarFile, E> {
        Ok(ScalarFile(if value { "t" } else { "f" }.to_owned()))
    }
}
