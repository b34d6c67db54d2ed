//! A configuration on another machine than it was written for: where the store is that was named, and where the key is.
//!
//! Only text: writes nothing. Comments do not survive; whoever wants them keeps the text that came in.

use std::collections::BTreeMap;
use std::path::Path;

use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::{Identities, Recipient};
use lifeboat_store::Key;
use serde_json::{Map, Value, json};

use super::{StorePlace, StoreSettings, options, quoted};

/// What is different here.
#[derive(Debug)]
pub(crate) struct Arrival<'a> {
    /// Where this machine keeps its state.
    pub(crate) state_dir: &'a Path,
    /// What the configuration calls the store that was named.
    pub(crate) store: &'a str,
    /// Where it is.
    pub(crate) place: &'a StoreSettings,
    /// The file with the private key.
    pub(crate) key: &'a Path,
    /// What is in it.
    pub(crate) identities: &'a Identities,
    /// The public keys that each key comes to.
    pub(crate) recipients: &'a BTreeMap<String, Vec<String>>,
}

impl Arrival<'_> {
    /// The configuration as it is used here.
    pub(crate) fn apply(&self, text: &str) -> Result<String> {
        let bad = |detail: String| Error::new(ErrorKind::Corrupt, "use", "the configuration in the kit", detail);
        let mut root: Value =
            serde_saphyr::from_str_with_options(text, options()).map_err(|error| bad(format!("it is not YAML: {error}")))?;
        let fields = root.as_object_mut().ok_or_else(|| bad("it is no mapping".into()))?;
        let instance = fields
            .get_mut("instance")
            .and_then(Value::as_object_mut)
            .ok_or_else(|| bad("it names no instance".into()))?;
        let name = instance.get("name").and_then(Value::as_str).unwrap_or("lifeboat");
        let kept: String = name.chars().take(57).collect();
        // The lost machine keeps its name, and the trust in its key; a key that is made here needs another one.
        instance.insert("name".to_owned(), json!(format!("{kept}-rescue")));
        instance.insert("state_dir".to_owned(), shown(self.state_dir));
        if let Some(Value::Object(keys)) = fields.get_mut("keys") {
            for (name, key) in keys {
                self.key(name, key);
            }
        }
        let mut stores = match fields.remove("stores") {
            Some(Value::Object(stores)) => stores,
            _ => Map::new(),
        };
        let here = self.store(stores.get(self.store));
        stores.insert(self.store.to_owned(), here);
        fields.insert("stores".to_owned(), Value::Object(stores));
        let mut out = String::from(
            "# Brought here by `lifeboat bootstrap`; lifeboat.original.yaml is the text as it was on the machine that is gone.\n",
        );
        emit(&root, 0, &mut out);
        Ok(out)
    }

    /// The public keys as text, and the private half where it is at hand. Files that they stood in are not here.
    fn key(&self, name: &str, key: &mut Value) {
        let recipients = self.recipients.get(name).map(Vec::as_slice).unwrap_or_default();
        if recipients.is_empty() || key.get("openssl").is_some() {
            return;
        }
        let own: Vec<_> = self.identities.recipients().map(Recipient::fingerprint).collect();
        let is_open = recipients
            .iter()
            .filter_map(|text| Recipient::parse(text).ok())
            .any(|recipient| own.contains(&recipient.fingerprint()));
        let mut age = json!({ "recipients": recipients });
        if is_open {
            age["identity"] = json!({ "file": shown(self.key) });
        }
        *key = json!({ "age": age });
    }

    /// The store that was named, with what was said of it where that still holds.
    fn store(&self, written: Option<&Value>) -> Value {
        let before = |kind: &str| {
            let fields = written.and_then(|written| written.get(kind)).and_then(Value::as_object);
            fields.cloned().unwrap_or_default()
        };
        match &self.place.place {
            StorePlace::S3(s3) => {
                let mut fields = before("s3");
                // Credentials come from the environment, as they did a moment ago.
                for gone in [
                    "access_key",
                    "secret_key",
                    "session_token",
                    "profile",
                    "maintenance",
                    "prefix",
                    "endpoint",
                    "path_style",
                ] {
                    fields.remove(gone);
                }
                fields.insert("bucket".to_owned(), json!(s3.bucket));
                put(&mut fields, "prefix", s3.prefix.as_ref().map(Key::as_str));
                put(&mut fields, "endpoint", s3.endpoint.as_deref());
                json!({ "s3": fields })
            }
            StorePlace::Gcs(gcs) => {
                let mut fields = before("gcs");
                for gone in ["credentials", "prefix", "endpoint"] {
                    fields.remove(gone);
                }
                fields.insert("bucket".to_owned(), json!(gcs.bucket));
                put(&mut fields, "prefix", gcs.prefix.as_ref().map(Key::as_str));
                put(&mut fields, "endpoint", gcs.endpoint.as_deref());
                json!({ "gcs": fields })
            }
            StorePlace::Azure(azure) => {
                let mut fields = before("azure");
                for gone in ["account_key", "sas_token", "prefix", "endpoint"] {
                    fields.remove(gone);
                }
                fields.insert("account".to_owned(), json!(azure.account));
                fields.insert("container".to_owned(), json!(azure.container));
                put(&mut fields, "prefix", azure.prefix.as_ref().map(Key::as_str));
                put(&mut fields, "endpoint", azure.endpoint.as_deref());
                json!({ "azure": fields })
            }
            StorePlace::Fs(_) => {
                let mut fields = before("fs");
                fields.extend(self.place.folder().map(|path| ("path".to_owned(), shown(path))));
                json!({ "fs": fields })
            }
        }
    }
}

/// Where there is something.
fn put(fields: &mut Map<String, Value>, name: &str, text: Option<&str>) {
    fields.extend(text.map(|text| (name.to_owned(), json!(text))));
}

fn shown(path: &Path) -> Value {
    Value::from(path.to_string_lossy())
}

/// A value as YAML, in blocks.
fn emit(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => fields.iter().for_each(|(name, value)| {
            out.push_str(&format!("{indent}{}:", quoted(name)));
            emit_behind(value, depth, out);
        }),
        Value::Array(items) if !items.is_empty() => items.iter().for_each(|item| {
            out.push_str(&format!("{indent}-"));
            emit_behind(item, depth, out);
        }),
        scalar => out.push_str(&format!("{indent}{}\n", flow(scalar))),
    }
}

fn emit_behind(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            emit(value, depth + 1, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            emit(value, depth + 1, out);
        }
        scalar => out.push_str(&format!(" {}\n", flow(scalar))),
    }
}

fn flow(scalar: &Value) -> String {
    match scalar {
        Value::String(text) => quoted(text),
        Value::Object(_) => Value::Object(Map::new()).to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::emit;

    #[test]
    fn what_is_written_reads_as_the_same() {
        let value = json!({
            "version": 1, "a": { "b": [1, "2", true, "true", null, { "c": [], "d": {} }], "x y": "it's: #5\n" },
            "e": [["f"], { "g": "24h" }], "h": "", "i": "0x10",
        });
        let mut text = String::new();
        emit(&value, 0, &mut text);
        let read: Value = serde_saphyr::from_str_with_options(&text, super::options()).unwrap();
        assert_eq!(read, value, "{text}");
    }
}
