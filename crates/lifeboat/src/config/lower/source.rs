//! Where the data of a component lives: a database, files, a PKI.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_engine::files;
use lifeboat_ops::{PkiRoles, Source};
use serde_saphyr::Location;

use super::{DEFAULT_LIMIT, Lowering};
use crate::config::file::{At, ComponentFile, FilesFile, PkiFile, SqliteFile};
use crate::config::problem::Problem;
use crate::config::settings::Encrypt;

/// How long before an expiry it is warned of unless the file says otherwise.
const DEFAULT_WARN_EXPIRY: Duration = Duration::from_secs(30 * 86_400);

impl Lowering<'_> {
    /// The one source that a component has.
    pub(super) fn source(&mut self, full: &str, place: Location, component: &ComponentFile, encrypt: &Encrypt) -> Source {
        let ComponentFile {
            sqlite,
            postgres,
            files,
            pki,
            ..
        } = component;
        let mut source = match (sqlite, postgres, files, pki) {
            (Some(sqlite), None, None, None) => self.sqlite(sqlite),
            (None, Some(postgres), None, None) => Source::Postgres(self.postgres(full, postgres)),
            (None, None, Some(files), None) => self.files(files),
            (None, None, None, Some(pki)) => self.pki(pki),
            _ => {
                let given = [sqlite.is_some(), postgres.is_some(), files.is_some(), pki.is_some()];
                let count = given.into_iter().filter(|given| *given).count();
                self.problems.push(
                    Problem::at(place, format!("{full} needs exactly one of `sqlite`, `postgres`, `files` and `pki`"))
                        .label(format!("{count} given"))
                        .help("write what is backed up, for example `sqlite: { path: /data/app.db }`; several things are several components"),
                );
                nothing()
            }
        };
        self.besides(full, component, &mut source);
        let must = matches!(
            source,
            Source::Files {
                encryption_required: true,
                ..
            } | Source::Pki {
                encryption_required: true,
                ..
            }
        );
        // What is said about a missing key is said elsewhere.
        if let (true, Encrypt::None, Some(written)) = (must, encrypt, &component.backup.encrypt) {
            self.problems.push(
                Problem::at(written.place, format!("{full} holds secrets, and its backups would not be encrypted"))
                    .label("not encrypted")
                    .help("write the name of a key; only `encryption_required: false` (pki), or leaving out `secrets: encrypt` (files), allows backups in the clear"),
            );
        }
        source
    }

    fn sqlite(&mut self, sqlite: &SqliteFile) -> Source {
        Source::Sqlite {
            path: self.path(&sqlite.path),
            busy_timeout: sqlite
                .busy_timeout
                .as_ref()
                .map_or(DEFAULT_LIMIT, |text| self.duration(text, "busy_timeout", "5s")),
            max_stall: sqlite
                .max_stall
                .as_ref()
                .map_or(DEFAULT_LIMIT, |text| self.some_duration(text, "max_stall", "5s")),
            sql_dump: sqlite.sql_dump.as_ref().is_some_and(|on| on.value),
            extracts: self.extracts(sqlite),
            // Stand beside it.
            checks: Vec::new(),
            heartbeat: self.heartbeat_of_sqlite(sqlite),
        }
    }

    fn heartbeat_of_sqlite(&mut self, sqlite: &SqliteFile) -> Option<String> {
        let sql = sqlite.heartbeat.as_ref()?;
        if sql.value.trim().is_empty() {
            self.problems.push(Problem::at(sql.place, "this is no query").label("empty"));
        }
        Some(sql.value.trim().to_owned())
    }

    fn files(&mut self, file: &FilesFile) -> Source {
        if file.include.value.is_empty() && file.env_structure.as_ref().is_none_or(Vec::is_empty) {
            self.problems.push(
                Problem::at(file.include.place, "nothing is included")
                    .label("empty")
                    .help("write at least one path or pattern"),
            );
        }
        if let Some(secrets) = &file.secrets
            && secrets.value != "encrypt"
        {
            self.problems.push(
                Problem::at(secrets.place, format!("`secrets` cannot be `{}`", secrets.value))
                    .label("not `encrypt`")
                    .help("`secrets: encrypt` refuses backups in the clear; `env_structure` keeps the keys of a file without its values"),
            );
        }
        let base = file.root.as_ref().map(|root| self.path(root));
        let base_folder = base.clone().unwrap_or_else(|| self.folder.to_path_buf());
        let empty = Vec::new();
        let groups = [
            &file.include.value,
            file.optional.as_ref().unwrap_or(&empty),
            file.env_structure.as_ref().unwrap_or(&empty),
        ];
        let full: Vec<Vec<(Location, PathBuf)>> = groups
            .iter()
            .map(|group| {
                group
                    .iter()
                    .map(|text| (text.place, self.pattern(&base_folder, text)))
                    .collect()
            })
            .collect();
        let root = base.unwrap_or_else(|| shared_root(full.iter().flatten().map(|(_, path)| path.as_path())));
        let [include, optional, env_structure] =
            [0, 1, 2].map(|group: usize| full.get(group).map_or_else(Vec::new, |paths| self.below(&root, paths)));
        let exclude = file
            .exclude
            .iter()
            .flatten()
            .map(|text| {
                if text.value.contains('/') {
                    let path = self.pattern(&base_folder, text);
                    self.below(&root, &[(text.place, path)]).pop().unwrap_or_default()
                } else {
                    self.glob(text.place, &text.value);
                    text.value.clone()
                }
            })
            .collect();
        Source::Files {
            files: files::Options {
                root,
                include,
                optional,
                exclude,
                env_structure,
                follow_links: file.follow_symlinks.unwrap_or(false),
                max_change_retries: file
                    .max_change_retries
                    .as_ref()
                    .map_or(files::DEFAULT_CHANGE_RETRIES, |count| count.value),
            },
            encryption_required: file.secrets.is_some(),
        }
    }

    fn pki(&mut self, file: &PkiFile) -> Source {
        if file.certs.value.is_empty() && file.ca_keys.value.is_empty() {
            self.problems.push(
                Problem::at(file.certs.place, "the PKI has neither keys nor certificates")
                    .label("empty")
                    .help("write at least one path or pattern"),
            );
        }
        let empty = Vec::new();
        let folder = self.folder.to_path_buf();
        let groups = [&file.ca_keys.value, &file.certs.value, file.crl.as_ref().unwrap_or(&empty)];
        let full: Vec<Vec<(Location, PathBuf)>> = groups
            .iter()
            .map(|group| group.iter().map(|text| (text.place, self.pattern(&folder, text))).collect())
            .collect();
        let root = shared_root(full.iter().flatten().map(|(_, path)| path.as_path()));
        let [keys, certs, crl] =
            [0, 1, 2].map(|group: usize| full.get(group).map_or_else(Vec::new, |paths| self.below(&root, paths)));
        Source::Pki {
            files: files::Options {
                root,
                include: keys.iter().chain(&certs).chain(&crl).cloned().collect(),
                optional: Vec::new(),
                exclude: Vec::new(),
                env_structure: Vec::new(),
                follow_links: true,
                max_change_retries: files::DEFAULT_CHANGE_RETRIES,
            },
            roles: PkiRoles { keys, certs, crl },
            warn_expiry: file
                .warn_expiry
                .as_ref()
                .map_or(DEFAULT_WARN_EXPIRY, |text| self.duration(text, "warn_expiry", "30d")),
            encryption_required: file.encryption_required.unwrap_or(true),
        }
    }

    /// A pattern as an absolute path with wildcards.
    fn pattern(&mut self, base: &Path, text: &At<String>) -> PathBuf {
        if text.value.split('/').any(|part| part == "..") {
            self.problems.push(
                Problem::at(text.place, "a pattern cannot contain `..`")
                    .help("write the path from the root folder (`/…`) instead"),
            );
        }
        self.glob(text.place, &text.value);
        let path = self.path(text);
        if Path::new(&text.value).is_absolute() {
            path
        } else {
            let relative: PathBuf = Path::new(&text.value)
                .components()
                .filter(|part| !matches!(part, std::path::Component::CurDir))
                .collect();
            base.join(relative)
        }
    }

    fn glob(&mut self, place: Location, text: &str) {
        if let Err(error) = files::check_pattern(text) {
            self.problems.push(
                Problem::at(place, format!("`{text}` is not a pattern"))
                    .label(error.detail())
                    .help("`*`, `?`, `[…]`, `{a,b}` and `**` are wildcards; a `\\` before one of them takes it as it is"),
            );
        }
    }

    /// The patterns relative to `root`.
    fn below(&mut self, root: &Path, paths: &[(Location, PathBuf)]) -> Vec<String> {
        let mut relative = Vec::new();
        for (place, path) in paths {
            match path.strip_prefix(root) {
                Ok(rest) if rest.as_os_str().is_empty() => relative.push("**".to_owned()),
                Ok(rest) => relative.push(rest.to_string_lossy().into_owned()),
                Err(_) => self.problems.push(
                    Problem::at(*place, format!("{} is not below the root {}", path.display(), root.display()))
                        .help("choose a `root` that all patterns are below, or leave it out"),
                ),
            }
        }
        relative
    }
}

/// The deepest folder that all patterns share.
fn shared_root<'a>(patterns: impl Iterator<Item = &'a Path>) -> PathBuf {
    let folders: Vec<PathBuf> = patterns.map(files::fixed_folder).collect();
    files::common_folder(folders.iter().map(PathBuf::as_path))
}

/// What stands where there is a problem already.
fn nothing() -> Source {
    Source::Sqlite {
        path: PathBuf::new(),
        busy_timeout: DEFAULT_LIMIT,
        max_stall: DEFAULT_LIMIT,
        sql_dump: false,
        extracts: Vec::new(),
        checks: Vec::new(),
        heartbeat: None,
    }
}
