//! From what was written to what is meant: checks everything and reports all problems at once.
//!
//! Fills in defaults, resolves paths and references, reads units. Must not open anything that the configuration names;
//! it only asks the file system whether two paths are the same place.

mod care;
mod checks;
mod keys;
mod legacy;
mod plan;
mod postgres;
mod probes;
mod source;
mod stores;
mod values;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use lifeboat_ops::Source;
use lifeboat_ops::protected::Method;
use lifeboat_repo::{PublicKey, Rights};
use serde_saphyr::Location;

use super::check::{list, unknown_version};
use super::file::{At, ComponentFile, ConfigFile, KeyFile, Named, SecretFile};
use super::order;
use super::problem::Problem;
use super::settings::{ComponentSettings, Encrypt, KeySettings, SecretRef, Settings};
use values::real;

/// Wait and stall unless the file says otherwise.
const DEFAULT_LIMIT: Duration = Duration::from_secs(5);

/// The word for backups in the clear.
const CLEAR: &str = "none";

/// Checks `file`, which was read from `path` (absolute).
pub(super) fn lower(file: &ConfigFile, path: &Path, default_state_dir: Option<&Path>) -> Result<Settings, Vec<Problem>> {
    let mut lowering = Lowering {
        folder: path.parent().unwrap_or(Path::new("/")),
        problems: Vec::new(),
        warnings: Vec::new(),
        inline: Vec::new(),
    };
    let settings = lowering.config(file, path, default_state_dir);
    if lowering.problems.is_empty() {
        Ok(Settings {
            warnings: lowering.warnings,
            inline_secrets: lowering.inline,
            ..settings
        })
    } else {
        Err(lowering.problems)
    }
}

pub(super) struct Lowering<'a> {
    /// Where relative paths begin.
    folder: &'a Path,
    pub(super) problems: Vec<Problem>,
    warnings: Vec<String>,
    /// Secrets that stand in the file itself: what they are, and the line.
    inline: Vec<String>,
}

impl Lowering<'_> {
    fn config(&mut self, file: &ConfigFile, path: &Path, default_state_dir: Option<&Path>) -> Settings {
        if file.version.value != 1 {
            self.problems.push(unknown_version(file.version.place));
        }
        self.name(&file.instance.name, "an instance");
        let state_dir = match (&file.instance.state_dir, default_state_dir) {
            (Some(text), _) => self.path(text),
            (None, Some(default)) => default.to_owned(),
            (None, None) => {
                self.problems.push(
                    Problem::at(
                        file.instance.name.place,
                        "there is no default for `state_dir`: HOME is not set",
                    )
                    .help("write `state_dir` under `instance`"),
                );
                PathBuf::new()
            }
        };
        let timezone = self.timezone(file.instance.timezone.as_ref());
        let instances = self.instances(file);
        let retention = self.retention(file.retention.as_ref());
        let keys = self.keys(file);
        let openssl_keys = self.openssl_keys(file);
        let stores = self.stores(file);
        let components = self.components(file);
        let plans = self.plans(file, &components);
        let settings = Settings {
            path: path.to_owned(),
            instance_name: file.instance.name.value.clone(),
            state_dir,
            timezone,
            names_timezone: file.instance.timezone.is_some(),
            instances,
            retention,
            keys,
            openssl_keys,
            stores,
            components,
            not_backed_up: self.not_backed_up(file),
            plans,
            warnings: Vec::new(),
            inline_secrets: Vec::new(),
        };
        self.second_looks(&settings);
        settings
    }

    fn instances(&mut self, file: &ConfigFile) -> BTreeMap<String, (String, Rights)> {
        let mut instances = BTreeMap::new();
        for (name, trusted) in file.instances.iter().flatten() {
            self.name(name, "an instance");
            let (key, rights) = self.trusted(name, trusted);
            if PublicKey::from_str(&key.value).is_err() {
                self.problems.push(
                    Problem::at(key.place, format!("the public key of `{}` cannot be read", name.value))
                        .label("not a public key")
                        .help("a public key is `ed25519:` and 64 hexadecimal digits; `lifeboat init` writes it"),
                );
            }
            instances.insert(name.value.clone(), (key.value.clone(), rights));
        }
        instances
    }

    fn keys(&mut self, file: &ConfigFile) -> BTreeMap<String, KeySettings> {
        let mut keys = BTreeMap::new();
        for (name, key) in file.keys.iter().flatten() {
            self.name(name, "a key");
            if name.value == CLEAR {
                self.problems.push(
                    Problem::at(
                        name.place,
                        "a key cannot be called `none`: `encrypt: none` means no encryption",
                    )
                    .label("reserved")
                    .help("give the key another name"),
                );
            }
            let settings = match key {
                KeyFile::Age(age) => self.age_key(name, age),
                // Opens old files and nothing else: see `legacy`.
                KeyFile::Openssl(_) => continue,
                KeyFile::Passphrase(secret) => KeySettings {
                    name: name.value.clone(),
                    recipients: Vec::new(),
                    identity: None,
                    passphrase: None,
                    derived: self.secret(secret, &format!("the passphrase of the key {}", name.value), "passphrase"),
                },
            };
            keys.insert(name.value.clone(), settings);
        }
        keys
    }

    /// `what` it is for a sentence, and the `field` that it is written in.
    fn secret(&mut self, secret: &At<SecretFile>, what: &str, field: &str) -> Option<SecretRef> {
        match &secret.value {
            SecretFile::File(path) => Some(SecretRef::File(self.path(path))),
            SecretFile::Env(name) => {
                if name.value.trim().is_empty() || name.value.contains(['=', '\0']) {
                    self.problems
                        .push(Problem::at(name.place, "this is not the name of an environment variable"));
                }
                Some(SecretRef::Env(name.value.clone()))
            }
            SecretFile::Command(argv) => {
                if argv.value.first().is_none_or(|program| program.trim().is_empty()) {
                    self.problems.push(
                        Problem::at(argv.place, "the command is empty")
                            .help("write the program and its arguments: [program, argument]"),
                    );
                }
                Some(SecretRef::Command(argv.value.clone()))
            }
            SecretFile::Inline(text) => {
                if text.trim().is_empty() {
                    self.problems.push(
                        Problem::at(secret.place, "the secret is empty")
                            .help("write { file: … }, { env: … } or { command: […] }"),
                    );
                }
                let line = secret.place.line();
                self.inline
                    .push(format!("{what}, line {line}: write `{field}: {{ file: … }}` there"));
                self.warnings.push(format!(
                    "{what} stands in the clear in line {line}; \
                     move it into a file that only Lifeboat can read and write `{field}: {{ file: … }}`"
                ));
                Some(SecretRef::Inline(text.clone()))
            }
        }
    }

    fn components(&mut self, file: &ConfigFile) -> Vec<ComponentSettings> {
        let mut components = Vec::new();
        let mut references = Vec::new();
        let mut databases: Vec<(PathBuf, String)> = Vec::new();
        for (system, content) in file.systems.iter().flatten() {
            self.name(system, "a system");
            for (name, component) in content.components.iter().flatten() {
                self.name(name, "a component");
                let full = format!("{}/{}", system.value, name.value);
                let settings = self.component(file, &full, name.place, component);
                if let (Some(path), Some(sqlite)) = (settings.source.database(), &component.sqlite) {
                    let real = real(path);
                    if let Some((_, other)) = databases.iter().find(|(place, _)| *place == real) {
                        self.problems.push(
                            Problem::at(sqlite.path.place, format!("{other} and {full} are the same database"))
                                .label(format!("also the database of {other}"))
                                .help("back a database up as one component"),
                        );
                    }
                    databases.push((real, full));
                }
                for dependency in component.depends_on.iter().flatten() {
                    references.push((components.len(), dependency, qualified(&system.value, &dependency.value)));
                }
                components.push(settings);
            }
        }
        self.in_order(components, references)
    }

    fn component(&mut self, file: &ConfigFile, full: &str, place: Location, component: &ComponentFile) -> ComponentSettings {
        let encrypt = self.encrypt_of(file, full, component);
        let objectives = component.objectives.as_ref();
        let rpo = objectives.and_then(|objectives| objectives.rpo.as_ref());
        let rto = objectives.and_then(|objectives| objectives.rto.as_ref());
        if rpo.is_none() && rto.is_none() {
            self.warnings.push(format!(
                "{full} has no objectives: nobody can tell whether its backups are recent enough; write `objectives: {{ rpo: 24h, rto: 30m }}`"
            ));
        }
        let source = self.source(full, place, component, &encrypt);
        let stores = self.stores_of(file, full, component);
        let alert_after = component.backup.alert_after.as_ref();
        ComponentSettings {
            name: full.to_owned(),
            schedules: self.schedules(full, component, &source, &stores),
            alert_after: alert_after.map(|text| self.some_duration(text, "alert_after", "14h")),
            verifications: self.verifications(full, component, &source),
            writers: self.writers(component),
            follows: follows(component, &source),
            source,
            rpo: rpo.map(|text| self.some_duration(text, "rpo", "24h")),
            rto: rto.map(|text| self.some_duration(text, "rto", "30m")),
            stores,
            required: self.required_of(full, component),
            encrypt,
            retention: self.retention_of(file.retention.as_ref(), component.backup.retention.as_ref()),
            priority: self.priority(component.priority.as_ref()),
            depends_on: Vec::new(),
        }
    }

    fn stores_of(&mut self, file: &ConfigFile, full: &str, component: &ComponentFile) -> Vec<String> {
        let to = &component.backup.to;
        let known = names(file.stores.as_ref());
        let mut stores: Vec<String> = Vec::new();
        for store in &to.value {
            if !known.contains(&store.value.as_str()) {
                self.unknown(store, "store", "stores", &known);
            } else if stores.contains(&store.value) {
                self.problems.push(
                    Problem::at(
                        store.place,
                        format!("the backups of {full} name the store `{}` twice", store.value),
                    )
                    .label("the second time")
                    .help("name each store once"),
                );
            }
            stores.push(store.value.clone());
        }
        if stores.is_empty() {
            self.problems.push(
                Problem::at(to.place, format!("the backups of {full} have no store"))
                    .label("empty")
                    .help(format!("known stores: {}", list(&known))),
            );
        }
        stores
    }

    fn required_of(&mut self, full: &str, component: &ComponentFile) -> Vec<String> {
        let to: Vec<&str> = component.backup.to.value.iter().map(|store| store.value.as_str()).collect();
        let required = component.backup.required.as_deref().unwrap_or_default();
        for store in required.iter().filter(|store| !to.contains(&store.value.as_str())) {
            self.problems.push(
                Problem::at(
                    store.place,
                    format!(
                        "the backups of {full} require the store `{}`, which is not under `to`",
                        store.value
                    ),
                )
                .label("not under `to`")
                .help(format!("its stores are: {}", list(&to))),
            );
        }
        required.iter().map(|store| store.value.clone()).collect()
    }

    fn encrypt_of(&mut self, file: &ConfigFile, full: &str, component: &ComponentFile) -> Encrypt {
        let known = legacy::encrypting(file.keys.as_ref());
        let Some(encrypt) = &component.backup.encrypt else {
            if let [only] = known.as_slice() {
                return Encrypt::Key((*only).to_owned());
            }
            let why = if known.is_empty() {
                "there is no key"
            } else {
                "there are several keys"
            };
            self.problems.push(
                Problem::at(
                    component.backup.to.place,
                    format!("`encrypt` is missing in the backup of {full}, and {why}"),
                )
                .label("`encrypt` belongs beside this")
                .help(format!(
                    "write the name of a key (known: {}), or `encrypt: none` for backups that anybody can read",
                    list(&known)
                )),
            );
            return Encrypt::None;
        };
        if encrypt.value == CLEAR {
            self.warnings.push(format!(
                "backups of {full} are not encrypted (`encrypt: none`): whoever can read the store can read the data"
            ));
            return Encrypt::None;
        }
        if !known.contains(&encrypt.value.as_str()) {
            if ["false", "no", "off", "never"].contains(&encrypt.value.to_lowercase().as_str()) {
                self.problems.push(
                    Problem::at(encrypt.place, format!("unknown encryption key `{}`", encrypt.value))
                        .label("not known under `keys`")
                        .help("no encryption is written `encrypt: none`"),
                );
            } else {
                self.unknown(encrypt, "encryption key", "keys", &known);
            }
        }
        Encrypt::Key(encrypt.value.clone())
    }

    /// Checks `depends_on` (index of a component, where it is written, the full name) and sorts.
    fn in_order(
        &mut self,
        mut components: Vec<ComponentSettings>,
        references: Vec<(usize, &At<String>, String)>,
    ) -> Vec<ComponentSettings> {
        let known: Vec<String> = components.iter().map(|component| component.name.clone()).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let mut places: BTreeMap<(String, String), Location> = BTreeMap::new();
        for (index, written, full) in references {
            if !known.contains(&full.as_str()) {
                let full = At {
                    value: full,
                    place: written.place,
                };
                self.unknown(&full, "component", "components", &known);
                continue;
            }
            let component = &mut components[index];
            places.insert((component.name.clone(), full.clone()), written.place);
            if !component.depends_on.contains(&full) {
                component.depends_on.push(full);
            }
        }
        match order::by_recovery(components) {
            Ok(sorted) => sorted,
            Err(circle) => {
                let step = match circle.as_slice() {
                    [only] => (only.clone(), only.clone()),
                    [first, second, ..] => (first.clone(), second.clone()),
                    [] => return Vec::new(),
                };
                let place = places.get(&step).copied().unwrap_or(Location::UNKNOWN);
                let first = circle.first().cloned().unwrap_or_default();
                let path = circle
                    .iter()
                    .chain(std::iter::once(&first))
                    .map(String::as_str)
                    .collect::<Vec<_>>();
                self.problems.push(
                    Problem::at(place, format!("the order of recovery is a circle: {}", path.join(" → ")))
                        .label("part of the circle")
                        .help("remove one of these `depends_on`"),
                );
                Vec::new()
            }
        }
    }

    fn not_backed_up(&mut self, file: &ConfigFile) -> Vec<(String, String, String)> {
        let mut left_out = Vec::new();
        for (system, content) in file.systems.iter().flatten() {
            for (name, reason) in content.not_backed_up.iter().flatten() {
                if reason.value.trim().is_empty() {
                    self.problems.push(
                        Problem::at(reason.place, format!("why is `{}` not backed up?", name.value))
                            .help("write the reason in a few words: it appears in status and reports"),
                    );
                }
                if let Some((both, _)) = content
                    .components
                    .iter()
                    .flatten()
                    .find(|(component, _)| component.value == name.value)
                {
                    self.problems.push(
                        Problem::at(name.place, format!("`{}` is both a component and not backed up", name.value))
                            .label(format!("also a component, in line {}", both.place.line())),
                    );
                }
                left_out.push((system.value.clone(), name.value.clone(), reason.value.clone()));
            }
        }
        left_out
    }

    /// What works but is probably not meant.
    fn second_looks(&mut self, settings: &Settings) {
        if settings.components.is_empty() && self.problems.is_empty() {
            self.warnings
                .push("nothing is backed up: there is no component under `systems`".to_owned());
        }
        for store in settings.stores.values() {
            let Some(folder) = store.folder().map(real) else { continue };
            if real(&settings.state_dir).starts_with(&folder) {
                self.warnings.push(format!(
                    "the state folder {} lies inside the store {}: whoever loses the store loses the signing key too",
                    settings.state_dir.display(),
                    store.name
                ));
            }
            for key in settings.keys.values() {
                if let Some(SecretRef::File(path)) = &key.identity
                    && real(path).starts_with(&folder)
                {
                    self.warnings.push(format!(
                        "the identity of the key {} lies inside the store {}: whoever can read the store can read the backups; move it elsewhere",
                        key.name, store.name
                    ));
                }
            }
            for component in &settings.components {
                if component.source.path().is_some_and(|path| real(path).starts_with(&folder)) {
                    self.warnings.push(format!(
                        "the data of {} lies inside the store {}: one broken disk takes both",
                        component.name, store.name
                    ));
                }
            }
        }
    }
}

/// The names under a section.
pub(super) fn names<T>(section: Option<&Named<T>>) -> Vec<&str> {
    let names: BTreeSet<&str> = section.into_iter().flatten().map(|(name, _)| name.value.as_str()).collect();
    names.into_iter().collect()
}

/// Whether the log of a cluster is kept: what is written, otherwise where backups are of a kind that log can be replayed on.
fn follows(component: &ComponentFile, source: &Source) -> bool {
    let written = component.postgres.as_ref().and_then(|postgres| postgres.follow.as_ref());
    let physical = source.cluster().is_some_and(|cluster| cluster.method == Method::Physical);
    written.map_or(physical, |follow| follow.value)
}

/// `COMPONENT` means the one of the same system.
fn qualified(system: &str, written: &str) -> String {
    if written.contains('/') {
        written.to_owned()
    } else {
        format!("{system}/{written}")
    }
}
