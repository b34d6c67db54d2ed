//! What is asked of the live application, as it is written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use super::{At, Named, SecretFile};

/// Something that is asked of the live application. Exactly one of `http`, `websocket`, `command`, `certificate` and `file`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ProbeFile {
    /// What it is called in reports. Default: what is asked.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"health")]
    pub(in crate::config) name: Option<At<String>>,
    /// A GET, and what has to come back. Redirects are not followed, and an answer has at most 1 MiB.
    #[serde(default)]
    pub(in crate::config) http: Option<HttpProbeFile>,
    /// A WebSocket has to open and answer a ping.
    #[serde(default)]
    pub(in crate::config) websocket: Option<WebSocketProbeFile>,
    /// A program has to end with exit code 0. What it said last is shown.
    #[serde(default)]
    pub(in crate::config) command: Option<CommandProbeFile>,
    /// Certificates have to be valid for some time yet.
    #[serde(default)]
    pub(in crate::config) certificate: Option<CertificateProbeFile>,
    /// A regular file has to be there. Links are followed.
    #[serde(default)]
    pub(in crate::config) file: Option<FileProbeFile>,
}

/// A GET, and what has to come back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct HttpProbeFile {
    /// `https://…` or `http://…`, without a login in it.
    #[schemars(with = "String", example = &"https://app.example.com/health")]
    pub(in crate::config) url: At<String>,
    /// The status that it has to have. Default: 200.
    #[serde(default)]
    #[schemars(with = "Option<u16>", range(min = 100, max = 599), extend("default" = 200))]
    pub(in crate::config) status: Option<At<u16>>,
    /// What has to stand in the answer, which then has to be JSON: the path of a value, such as `db.connected` or `nodes.0.state`, and the value,
    /// exactly.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, JsonFile>>")]
    pub(in crate::config) json: Option<Named<At<JsonFile>>>,
    /// How long everything may take. Default: 10s.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "10s"))]
    pub(in crate::config) within: Option<At<String>>,
    /// A file with authorities, in PEM form, that are trusted besides those of this machine.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"ca.pem")]
    pub(in crate::config) ca: Option<At<String>>,
    /// What is sent besides: names of headers and their values, as text or as a reference to a secret.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, SecretFile>>")]
    pub(in crate::config) headers: Option<Named<At<SecretFile>>>,
}

/// A WebSocket that has to open and answer a ping.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct WebSocketProbeFile {
    /// `wss://…` or `ws://…`, without a login in it.
    #[schemars(with = "String", example = &"wss://app.example.com/ws")]
    pub(in crate::config) url: At<String>,
    /// How long everything may take. Default: 10s.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "10s"))]
    pub(in crate::config) within: Option<At<String>>,
    /// A file with authorities, in PEM form, that are trusted besides those of this machine.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"ca.pem")]
    pub(in crate::config) ca: Option<At<String>>,
    /// What is sent besides with the handshake: names of headers and their values, as text or as a reference to a secret.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, SecretFile>>")]
    pub(in crate::config) headers: Option<Named<At<SecretFile>>>,
}

/// A program that has to end with exit code 0.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct CommandProbeFile {
    /// The program and its arguments; no shell is involved. It runs in the folder of this file, and a relative path begins there.
    #[schemars(with = "Vec<String>", length(min = 1), example = &["./smoke.sh"])]
    pub(in crate::config) run: At<Vec<String>>,
    /// How long it may take; then it is killed with all that it started. Default: 60s.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "60s"))]
    pub(in crate::config) within: Option<At<String>>,
}

/// Certificates that have to be valid for some time yet. Exactly one of `host` and `file`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct CertificateProbeFile {
    /// The server that shows it, `HOST:PORT`. It also has to be trusted, and to be made for this name.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"app.example.com:443")]
    pub(in crate::config) host: Option<At<String>>,
    /// A file with certificates, in PEM form. Each of them is looked at.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"certs/server.pem")]
    pub(in crate::config) file: Option<At<String>>,
    /// For how long it has to be valid from now on. Default: 30d.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "30d"))]
    pub(in crate::config) valid_for: Option<At<String>>,
    /// With `host`: how long everything may take. Default: 10s.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "10s"))]
    pub(in crate::config) within: Option<At<String>>,
    /// With `host`: a file with authorities, in PEM form, that are trusted besides those of this machine.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"ca.pem")]
    pub(in crate::config) ca: Option<At<String>>,
}

/// A regular file that has to be there.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct FileProbeFile {
    /// Where. A relative path begins at the folder of this file.
    #[schemars(with = "String", example = &"/etc/tartware/app.yaml")]
    pub(in crate::config) path: At<String>,
    /// Text that has to stand in it.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"database:")]
    pub(in crate::config) contains: Option<At<String>>,
    /// How long ago it was changed at most.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"7d")]
    pub(in crate::config) max_age: Option<At<String>>,
}

/// A value of JSON that has no parts.
#[derive(Debug)]
pub(in crate::config) struct JsonFile(pub(in crate::config) serde_json::Value);

impl JsonSchema for JsonFile {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "JsonScalar".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean", "null"] })
    }
}

impl<'de> Deserialize<'de> for JsonFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl Visitor<'_> for JsonVisitor {
    type Value = JsonFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true, false or null")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<JsonFile, E> {
        Ok(JsonFile(text.into()))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<JsonFile, E> {
        Ok(JsonFile(number.into()))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<JsonFile, E> {
        Ok(JsonFile(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<JsonFile, E> {
        Ok(JsonFile(number.into()))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<JsonFile, E> {
        Ok(JsonFile(value.into()))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<JsonFile, E> {
        Ok(JsonFile(serde_json::Value::Null))
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<JsonFile, E> {
        Ok(JsonFile(serde_json::Value::Null))
    }
}
