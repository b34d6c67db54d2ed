//! What is kept, and who may delete: the sections `retention` and `instances`, from the file to the settings.
//!
//! The rules themselves are decided in `lifeboat_model::retention`. Must not look at any store.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_model::retention::{Policy, Rules};
use lifeboat_repo::Rights;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Value as Json, json};

use super::check::list;
use super::exact_duration;
use super::file::{At, Named};
use super::lower::{Lowering, names};
use super::problem::Problem;

/// Good backups that stay however strict the rules are, unless the file says otherwise.
const DEFAULT_NEVER_BELOW: u32 = 2;
/// How long nothing that is condemned is deleted, unless the file says otherwise; also the least that can be said.
pub(crate) const DEFAULT_GRACE: Duration = Duration::from_secs(48 * 3600);

/// An installation that is trusted: its public key, or the key and what it may do.
#[derive(Debug)]
pub(super) struct TrustedFile {
    key: At<String>,
    may: Option<At<Vec<At<String>>>>,
}

/// The forms of [`TrustedFile`], for the schema.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "gives the schema its shape; never made")]
enum TrustedForm {
    /// Its public key, `ed25519:` and 64 hexadecimal digits: it may do everything.
    #[schemars(extend("pattern" = "^ed25519:[0-9a-f]{64}$"))]
    Key(String),
    /// Its public key, and what it may do.
    Limited(TrustedLimits),
}

#[derive(Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "gives the schema its shape; never made")]
struct TrustedLimits {
    /// Its public key: `ed25519:` and 64 hexadecimal digits.
    #[schemars(extend("pattern" = "^ed25519:[0-9a-f]{64}$"))]
    key: String,
    /// What it may do: `backup`, `prune`, `hold`. A host that may only back up cannot make anybody delete, also when it is stolen.
    may: Vec<String>,
}

impl JsonSchema for TrustedFile {
    fn schema_name() -> Cow<'static, str> {
        "Trusted".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = TrustedForm::json_schema(generator);
        schema.insert("description".into(), "An installation whose files are trusted.".into());
        schema
    }
}

impl<'de> Deserialize<'de> for TrustedFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        At::<TrustedParts>::deserialize(deserializer).map(|parts| match parts.value {
            TrustedParts::Key(key) => Self {
                key: At {
                    value: key,
                    place: parts.place,
                },
                may: None,
            },
            TrustedParts::Limited(key, may) => Self { key, may: Some(may) },
        })
    }
}

enum TrustedParts {
    Key(String),
    Limited(At<String>, At<Vec<At<String>>>),
}

impl<'de> Deserialize<'de> for TrustedParts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TrustedVisitor)
    }
}

struct TrustedVisitor;

impl<'de> Visitor<'de> for TrustedVisitor {
    type Value = TrustedParts;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a public key (ed25519:…), or { key: …, may: [backup, prune, hold] }")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<TrustedParts, E> {
        Ok(TrustedParts::Key(key.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TrustedParts, A::Error> {
        let (mut key, mut may) = (None, None);
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "key" => key = Some(map.next_value()?),
                "may" => may = Some(map.next_value()?),
                other => return Err(A::Error::unknown_field(other, &["key", "may"])),
            }
        }
        match (key, may) {
            (Some(key), Some(may)) => Ok(TrustedParts::Limited(key, may)),
            (None, _) => Err(A::Error::missing_field("key")),
            (_, None) => Err(A::Error::missing_field("may")),
        }
    }
}

/// Rules about what is kept. What no rule keeps is condemned by a prune, and deleted by one after the grace period.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetentionFile {
    /// What is kept of whole backups. A backup stays if any rule keeps it.
    keep: KeepFile,
    /// What is kept of extracts, which are counted by themselves. Default: the same as `keep`.
    #[serde(default)]
    extracts: Option<KeepFile>,
    /// So many good backups stay however strict the rules are, and so many that were proven by a restore. Default: 2.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1, max = 4_294_967_295_u32), extend("default" = 2))]
    never_below: Option<At<u32>>,
    /// How long what is condemned stays before it is deleted. Default and least: 48h.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("default" = "48h"))]
    grace: Option<At<String>>,
    /// Whether a backup that succeeded is followed by the step of a prune that is due. Default: true.
    #[serde(default)]
    #[schemars(extend("default" = true))]
    after_backup: Option<bool>,
}

/// What is kept.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KeepFile {
    /// The newest so many, whenever they were made.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(max = 4_294_967_295_u32))]
    last: Option<At<u32>>,
    /// One for each of the newest so many hours that have a backup: the best proven one of the hour.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(max = 4_294_967_295_u32))]
    hourly: Option<At<u32>>,
    /// One for each of the newest so many days that have a backup.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(max = 4_294_967_295_u32), example = &7)]
    daily: Option<At<u32>>,
    /// One for each of the newest so many weeks (from Monday) that have a backup.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(max = 4_294_967_295_u32))]
    weekly: Option<At<u32>>,
    /// One for each of the newest so many months that have a backup.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(max = 4_294_967_295_u32))]
    monthly: Option<At<u32>>,
    /// One for each of the newest so many years that have a backup.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(max = 4_294_967_295_u32))]
    yearly: Option<At<u32>>,
    /// Everything this young, and the one backup with which that time begins.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"30d")]
    within: Option<At<String>>,
    /// Every moment this young that can be reached stays so. Of a PostgreSQL cluster that needs the newest backup in front of it and all log since then,
    /// and of the backups in it only those in front of which log is missing. Of what has no log it keeps what `within` does.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"7d")]
    window: Option<At<String>>,
    /// Everything that carries one of these tags.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    tags: Option<Vec<At<String>>>,
}

/// The rules of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RetentionSettings {
    /// What stays.
    pub(crate) policy: Policy,
    /// How long what is condemned stays.
    pub(crate) grace: Duration,
    /// Whether a backup is followed by a prune.
    pub(crate) after_backup: bool,
}

impl Lowering<'_> {
    pub(super) fn trusted<'f>(&mut self, name: &At<String>, trusted: &'f At<TrustedFile>) -> (&'f At<String>, Rights) {
        let Some(may) = &trusted.value.may else {
            return (&trusted.value.key, Rights::ALL);
        };
        let mut rights = Rights {
            backup: false,
            prune: false,
            hold: false,
        };
        for word in &may.value {
            match word.value.as_str() {
                "backup" => rights.backup = true,
                "prune" => rights.prune = true,
                "hold" => rights.hold = true,
                other => self.problems.push(
                    Problem::at(
                        word.place,
                        format!("`{}` may do `{other}`, which is nothing known", name.value),
                    )
                    .help("an instance may: backup, prune, hold"),
                ),
            }
        }
        (&trusted.value.key, rights)
    }

    pub(super) fn timezone(&mut self, written: Option<&At<String>>) -> String {
        let Some(written) = written else { return "UTC".to_owned() };
        if jiff::tz::TimeZone::get(&written.value).is_err() {
            self.problems.push(
                Problem::at(written.place, format!("`{}` is no time zone", written.value))
                    .help("write a name of the IANA time zone database, for example `Europe/Berlin` or `UTC`"),
            );
        }
        written.value.clone()
    }

    pub(super) fn retention(&mut self, section: Option<&Named<RetentionFile>>) -> BTreeMap<String, RetentionSettings> {
        let mut all = BTreeMap::new();
        for (name, file) in section.into_iter().flatten() {
            self.name(name, "a retention");
            let keep = self.rules(&file.keep);
            if keep.is_empty() {
                self.problems.push(
                    Problem::at(name.place, format!("the retention `{}` keeps nothing", name.value))
                        .help("write for example `keep: { daily: 7 }` or `keep: { within: 30d }`"),
                );
            }
            if let Some(never_below) = file.never_below.as_ref().filter(|count| count.value == 0) {
                self.problems.push(
                    Problem::at(never_below.place, "`never_below` is zero: then nothing would have to stay")
                        .help("write 1 or more"),
                );
            }
            let grace = file.grace.as_ref().map_or(DEFAULT_GRACE, |text| {
                let grace = self.some_duration(text, "grace", "48h");
                if grace < DEFAULT_GRACE {
                    self.problems.push(
                        Problem::at(text.place, "`grace` is shorter than a backup may take")
                            .help("write 48h or more: a backup that runs is protected for that long"),
                    );
                }
                grace
            });
            let extracts = file.extracts.as_ref().map_or_else(|| keep.clone(), |file| self.rules(file));
            let settings = RetentionSettings {
                policy: Policy {
                    keep,
                    extracts,
                    never_below: file.never_below.as_ref().map_or(DEFAULT_NEVER_BELOW, |count| count.value),
                },
                grace,
                after_backup: file.after_backup.unwrap_or(true),
            };
            all.insert(name.value.clone(), settings);
        }
        all
    }

    fn rules(&mut self, file: &KeepFile) -> Rules {
        let count = |count: &Option<At<u32>>| count.as_ref().map_or(0, |count| count.value);
        Rules {
            last: count(&file.last),
            hourly: count(&file.hourly),
            daily: count(&file.daily),
            weekly: count(&file.weekly),
            monthly: count(&file.monthly),
            yearly: count(&file.yearly),
            within: file.within.as_ref().map(|text| self.some_duration(text, "within", "30d")),
            window: file.window.as_ref().map(|text| self.some_duration(text, "window", "7d")),
            tags: file.tags.iter().flatten().map(|tag| tag.value.clone()).collect(),
        }
    }

    pub(super) fn retention_of(
        &mut self,
        section: Option<&Named<RetentionFile>>,
        written: Option<&At<String>>,
    ) -> Option<String> {
        let written = written?;
        let known = names(section);
        if !known.contains(&written.value.as_str()) {
            if known.is_empty() {
                self.problems.push(
                    Problem::at(written.place, format!("unknown retention `{}`", written.value))
                        .help(format!("there is no section `retention`; known: {}", list(&known))),
                );
            } else {
                self.unknown(written, "retention", "retention", &known);
            }
        }
        Some(written.value.clone())
    }
}

/// The rules as they take effect.
pub(super) fn show(retention: &BTreeMap<String, RetentionSettings>) -> Json {
    let rules = |rules: &Rules| {
        json!({
            "last": rules.last,
            "hourly": rules.hourly,
            "daily": rules.daily,
            "weekly": rules.weekly,
            "monthly": rules.monthly,
            "yearly": rules.yearly,
            "within": rules.within.map(exact_duration),
            "window": rules.window.map(exact_duration),
            "tags": rules.tags,
        })
    };
    let all = retention.iter().map(|(name, settings)| {
        let shown = json!({
            "keep": rules(&settings.policy.keep),
            "extracts": rules(&settings.policy.extracts),
            "never_below": settings.policy.never_below,
            "grace": exact_duration(settings.grace),
            "after_backup": settings.after_backup,
        });
        (name.clone(), shown)
    });
    Json::Object(all.collect())
}

/// The installations that are trusted.
pub(super) fn show_instances(instances: &BTreeMap<String, (String, Rights)>) -> Json {
    let all = instances.iter().map(|(name, (key, rights))| {
        let may: Vec<&str> = [("backup", rights.backup), ("prune", rights.prune), ("hold", rights.hold)]
            .into_iter()
            .filter_map(|(word, allowed)| allowed.then_some(word))
            .collect();
        (name.clone(), json!({ "key": key, "may": may }))
    });
    Json::Object(all.collect())
}
