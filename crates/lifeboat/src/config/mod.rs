//! The configuration: `lifeboat.yaml` in, validated [`Settings`] out.
//!
//! Three stages: `file` (what may be written) -> `lower` (what is wrong with it, all of it, with line and column) ->
//! `settings` (what the program works with). Reads one file; must not open a store, a database or a secret.

mod arrival;
mod check;
pub(crate) mod environment;
mod file;
mod initial;
pub(crate) mod lint;
mod lower;
mod order;
mod origin;
pub(crate) mod plan;
mod problem;
mod recipient;
pub(crate) mod retention;
mod settings;
mod show_checks;
mod store;
mod surroundings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_engine::artefact::OpensslKdf;
use lifeboat_engine::postgres::logical::tenant::Class;
use lifeboat_engine::sqlite::Extract;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::Source;
use lifeboat_ops::protected::Mode;
use lifeboat_ops::verify::due::Wanted;
use serde_json::{Value as Json, json};

pub(crate) use arrival::Arrival;
pub(crate) use initial::{Initial, InitialSource, quoted, render_initial};
pub(crate) use settings::{ComponentSettings, Encrypt, KeySettings, MinFree, SecretRef, Settings};
pub(crate) use store::{AzurePlace, GcsPlace, S3Place, StorePlace, StoreSettings};

use environment::{Local, Variables};
use file::ConfigFile;
use origin::Origins;
use problem::Problem;
use surroundings::Surroundings;

/// Largest file that is read, in bytes; more is a wrong path, not a configuration.
const LIMIT_BYTES: u64 = 1 << 20;

/// Where the configuration is.
#[derive(Debug)]
pub(crate) enum Origin {
    /// In a file.
    File(PathBuf),
    /// In the variables that the guides use; there is no file.
    Environment(Box<Variables>),
}

/// Finds the configuration: `explicit` (`--config`), `$LIFEBOAT_CONFIG`, `./lifeboat.yaml`,
/// `$XDG_CONFIG_HOME/lifeboat/lifeboat.yaml` (or `~/.config`), `/etc/lifeboat/lifeboat.yaml`; the first that is there. Where there is no
/// file, the environment may hold all that is needed. `ConfigInvalid` if there is nothing, or if a named file is not there.
pub(crate) fn discover(explicit: Option<&Path>) -> Result<Origin> {
    let surroundings = Surroundings::real();
    if let Some(path) = surroundings.look(explicit)? {
        return Ok(Origin::File(path));
    }
    match Variables::real()? {
        Some(variables) => Ok(Origin::Environment(Box::new(variables))),
        None => surroundings.find(explicit).map(Origin::File),
    }
}

/// Folder of the state and file of the key for a configuration in the environment.
pub(crate) fn local_places(variables: &Variables) -> Result<(PathBuf, PathBuf)> {
    let surroundings = Surroundings::real();
    let absolute = |path: PathBuf| std::path::absolute(&path).map_err(|error| Error::io("resolve", path.display(), error));
    let state_dir = absolute(variables.state_dir(surroundings.state_dir())?)?;
    let key = absolute(variables.key_file(surroundings.config_home.as_deref(), &state_dir))?;
    Ok((state_dir, key))
}

/// The configuration in the environment, checked as a file would be. Relative paths begin at the current folder.
pub(crate) fn from_environment(variables: &Variables, state_dir: &Path, local: &Local) -> Result<Settings> {
    let text = variables.text(state_dir, local);
    let path = std::path::absolute("the environment").map_err(|error| Error::io("resolve", "the current folder", error))?;
    let mut settings = parse(&path, text.as_bytes(), &Surroundings::real())?;
    settings.warnings.extend(variables.remarks.iter().cloned());
    Ok(settings)
}

/// Where each value of the configuration in force comes from.
pub(crate) fn origins(explicit: Option<&Path>) -> Result<Origins> {
    let parsed = |text: &str| {
        serde_saphyr::from_str_with_options::<check::Node>(text, options())
            .map_err(|error| Error::new(ErrorKind::ConfigInvalid, "read", "the configuration", error.to_string()))
    };
    match discover(explicit)? {
        Origin::File(path) => {
            let text = std::fs::read_to_string(&path).map_err(|error| Error::io("read", path.display(), error))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(origin::collect(&parsed(&text)?, &schema(), &|_, line| {
                format!("{name}:{line}")
            }))
        }
        Origin::Environment(variables) => {
            let (state_dir, _) = local_places(&variables)?;
            let text = variables.text(&state_dir, &Local::default());
            let named = |path: &str, _| variables.origin(path).unwrap_or_else(|| "default".to_owned());
            Ok(origin::collect(&parsed(&text)?, &schema(), &named))
        }
    }
}

/// Reads and checks the configuration at `path`. `ConfigInvalid` with every problem in the detail: message, line, column
/// and the lines around it.
pub(crate) fn load(path: &Path) -> Result<Settings> {
    let fail = |source| {
        Error::io("read configuration", path.display(), source)
            .with_kind(ErrorKind::ConfigInvalid)
            .with_hint("name another file with `--config`, or make one with `lifeboat init`")
    };
    let absolute = std::path::absolute(path).map_err(fail)?;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(&absolute).map_err(fail)?;
    file.take(LIMIT_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
    parse(&absolute, &bytes, &Surroundings::real())
}

/// The text of the configuration at `path`, and what that very text says.
pub(crate) fn written(path: &Path) -> Result<(String, Settings)> {
    let settings = load(path)?;
    let text = std::fs::read_to_string(&settings.path).map_err(|error| Error::io("read", settings.path.display(), error))?;
    let settings = check_text(&settings.path, &text)?;
    Ok((text, settings))
}

/// Checks a text as the file at the absolute `path` would be.
pub(crate) fn check_text(path: &Path, text: &str) -> Result<Settings> {
    parse(path, text.as_bytes(), &Surroundings::real())
}

/// What `load` does with the bytes of the file. `path` is absolute.
fn parse(path: &Path, bytes: &[u8], surroundings: &Surroundings) -> Result<Settings> {
    let invalid = |text: &str, problems| {
        let detail = problem::render(path, text, problems);
        Error::new(ErrorKind::ConfigInvalid, "use configuration", path.display(), detail)
            .with_hint("correct the file, then run `lifeboat config check`")
    };
    if bytes.len() as u64 > LIMIT_BYTES {
        let message = format!("the file is larger than {LIMIT_BYTES} bytes and cannot be a configuration");
        return Err(invalid("", vec![Problem::general(message)]));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = String::from_utf8_lossy(before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default())
            .chars()
            .count()
            + 1;
        let message = format!("the file is not UTF-8 text: line {line}, column {column} holds a byte that no letter has");
        invalid("", vec![Problem::general(message).help("save the file as UTF-8")])
    })?;
    let file = read(text).map_err(|problems| invalid(text, problems))?;
    lower::lower(&file, path, surroundings.state_dir().as_deref()).map_err(|problems| invalid(text, problems))
}

/// The first stage: everything that is wrong with the shape of the file.
fn read(text: &str) -> Result<ConfigFile, Vec<Problem>> {
    let empty = text
        .lines()
        .map(str::trim)
        .all(|line| line.is_empty() || line.starts_with('#') || line == "---");
    if empty {
        return Err(vec![
            Problem::general("the file is empty").help("`lifeboat init` writes a configuration to begin with"),
        ]);
    }
    serde_saphyr::from_str_with_options::<ConfigFile>(text, options()).map_err(|error| {
        let problems = check::shape(text, options(), &schema());
        if problems.is_empty() {
            vec![check::foreign(&error)]
        } else {
            problems
        }
    })
}

/// Strict: nothing that is written is passed over.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        with_snippet: false,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        reject_unsupported_tags: true,
    }
}

/// What a tenant map says: of each table, whose its rows are.
///
/// # Errors
/// What is wrong, for people.
pub(crate) fn tenant_map(text: &str) -> Result<BTreeMap<String, Class>, String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct MapFile {
        tables: BTreeMap<String, Class>,
    }
    let read = serde_saphyr::from_str_with_options::<MapFile>(text, options());
    read.map(|file| file.tables).map_err(|error| error.to_string())
}

/// The JSON Schema of the file, for editors and for `lifeboat config schema`.
pub(crate) fn schema() -> Json {
    file::schema()
}

/// The configuration as it takes effect, with all defaults; secrets only as where they are.
pub(crate) fn show(settings: &Settings) -> Json {
    let keys: serde_json::Map<String, Json> = settings
        .keys
        .values()
        .map(|key| {
            let place = |secret: &Option<SecretRef>| secret.as_ref().map(ToString::to_string);
            let mut shown = json!({ "recipients": key.recipients, "identity": place(&key.identity) });
            for (field, secret) in [("passphrase", &key.passphrase), ("derived_from", &key.derived)] {
                if let Some(secret) = secret {
                    shown[field] = json!(secret.to_string());
                }
            }
            (key.name.clone(), shown)
        })
        .chain(settings.openssl_keys.iter().map(|(name, key)| {
            let kdf = key.kdf.map_or("auto", OpensslKdf::word);
            let passphrase = key.passphrase.to_string();
            (
                name.clone(),
                json!({ "kdf": kdf, "iterations": key.iterations, "passphrase": passphrase }),
            )
        }))
        .collect();
    let stores: serde_json::Map<String, Json> = settings
        .stores
        .values()
        .map(|store| (store.name.clone(), store.show()))
        .collect();
    let components: Vec<Json> = settings.components.iter().map(show_component).collect();
    let left_out: Vec<Json> = settings
        .not_backed_up
        .iter()
        .map(|(system, name, reason)| json!({ "system": system, "name": name, "reason": reason }))
        .collect();
    json!({
        "path": settings.path,
        "instance": { "name": settings.instance_name, "state_dir": settings.state_dir, "timezone": settings.timezone },
        "instances": retention::show_instances(&settings.instances),
        "keys": keys,
        "stores": stores,
        "retention": retention::show(&settings.retention),
        "components": components,
        "not_backed_up": left_out,
        "plans": plan::show(&settings.plans),
        "warnings": settings.warnings,
    })
}

fn show_verifications(wanted: &[Wanted]) -> Json {
    let one = |wanted: &Wanted| {
        json!({
            "level": wanted.level.word(),
            "every": exact_duration(wanted.every),
            "budget_bytes": wanted.budget_bytes,
        })
    };
    wanted.iter().map(one).collect()
}

fn show_component(component: &ComponentSettings) -> Json {
    let mut shown = json!({
        "name": component.name,
        "kind": component.source.kind(),
        "path": component.source.path(),
        "rpo": component.rpo.map(exact_duration),
        "rto": component.rto.map(exact_duration),
        "to": component.stores,
        "required": component.required,
        "retention": component.retention,
        "encrypt": component.encrypt.to_string(),
        "priority": component.priority.word(),
        "depends_on": component.depends_on,
        "schedules": plan::show_schedules(&component.schedules),
        "alert_after": component.alert_after.map(exact_duration),
        "verify": show_verifications(&component.verifications),
    });
    let own = show_source(component);
    if let (Json::Object(shown), Json::Object(own)) = (&mut shown, own) {
        shown.extend(own);
    }
    shown
}

/// What only components of its kind have.
fn show_source(component: &ComponentSettings) -> Json {
    match &component.source {
        Source::Sqlite {
            busy_timeout,
            max_stall,
            sql_dump,
            extracts,
            checks,
            heartbeat,
            ..
        } => json!({
            "checks": show_checks::of_sqlite(checks),
            "heartbeat": heartbeat,
            "busy_timeout": exact_duration(*busy_timeout),
            "max_stall": exact_duration(*max_stall),
            "sql_dump": sql_dump,
            "writers": component.writers,
            "extract": extracts.iter().map(show_extract).collect::<Vec<_>>(),
        }),
        Source::Files {
            files,
            encryption_required,
        } => json!({
            "include": files.include,
            "optional": files.optional,
            "exclude": files.exclude,
            "env_structure": files.env_structure,
            "follow_symlinks": files.follow_links,
            "max_change_retries": files.max_change_retries,
            "encryption_required": encryption_required,
        }),
        Source::Pki {
            roles,
            warn_expiry,
            encryption_required,
            ..
        } => json!({
            "ca_keys": roles.keys,
            "certs": roles.certs,
            "crl": roles.crl,
            "warn_expiry": exact_duration(*warn_expiry),
            "encryption_required": encryption_required,
        }),
        Source::Postgres(cluster) => json!({
            "mode": match cluster.mode {
                Mode::Auto => "auto",
                Mode::Local => "local",
                Mode::Stream => "stream",
            },
            "follow": component.follows,
            "slot": cluster.slot,
            "checks": show_checks::of_postgres(&cluster.care.checks),
            "heartbeat": show_checks::heartbeat(cluster.care.heartbeat.as_ref()),
            "canary": show_checks::canary(cluster.care.canary.as_deref()),
            "binaries": cluster.binaries,
        }),
    }
}

fn show_extract(extract: &Extract) -> Json {
    json!({ "file": extract.file, "query": extract.query, "columns": extract.columns })
}

/// A duration as it can be written into the file again: `1d12h`, never rounded.
fn exact_duration(duration: Duration) -> String {
    const UNITS: [(&str, u128); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut rest = duration.as_millis();
    let mut out = String::new();
    for (unit, length) in UNITS {
        let count = rest / length;
        rest %= length;
        if count > 0 {
            out.push_str(&format!("{count}{unit}"));
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}
