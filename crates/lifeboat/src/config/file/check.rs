//! What has to hold of restored data, as it is written.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use super::At;

/// Something that has to hold in a restored copy: a query, and what it has to answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct CheckFile {
    /// One query that reads. It runs in a read-only transaction on a copy that is thrown away, never on the source.
    #[schemars(with = "String", example = &"SELECT id FROM reservations WHERE arrival > departure")]
    pub(in crate::config) sql: At<String>,
    /// The database that it asks. Default: the one of the connection, where that is written in this file.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"tartware")]
    pub(in crate::config) database: Option<At<String>>,
    /// What it has to answer: `no_rows`, `{ equals: VALUE }` or `{ at_least: NUMBER }`.
    pub(in crate::config) expect: ExpectFile,
    /// What it is called in reports. Default: the query.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"nobody leaves before arriving")]
    pub(in crate::config) name: Option<At<String>>,
    /// How long it may take. Default: 60s.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "60s"))]
    pub(in crate::config) timeout: Option<At<String>>,
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
