//! What `init` would set up: found, proposed, asked. Writes nothing.

use std::path::{Component, Path, PathBuf};

use lifeboat_engine::sqlite;
use lifeboat_io::compute;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_repo::ComponentName;

use super::super::args::{EncryptChoice, Init};
use super::super::{Cx, ask};
use super::cluster::{self, Found};
use super::others;
use crate::config::InitialSource;

/// How many levels of folders are searched for databases.
const DEPTH: usize = 4;

/// Everything that will be written down, with absolute paths.
#[derive(Debug, Clone)]
pub(super) struct Proposal {
    /// The configuration.
    pub(super) config: PathBuf,
    /// Name of the system.
    pub(super) system: String,
    /// `system/component` and what it is.
    pub(super) components: Vec<(String, InitialSource)>,
    /// Folder of the backups.
    pub(super) store: PathBuf,
    /// File of the private key; `None` for no encryption.
    pub(super) key: Option<PathBuf>,
    /// Folder of this installation's state.
    pub(super) state_dir: PathBuf,
    /// A cluster among the components.
    pub(super) cluster: Option<Found>,
}

impl Proposal {
    /// From flags, from what is found here, and from answers where somebody can give them.
    pub(super) async fn make(cx: &Cx, args: &Init, config: PathBuf) -> Result<Self> {
        let here = std::env::current_dir().map_err(|error| Error::io("look at", "the current folder", error))?;
        let ask = !args.yes && ask::can_ask(cx);
        let mut others = others::given(args)?;
        let state_dir = absolute(args.state_dir.as_deref().unwrap_or(Path::new(".lifeboat")))?;
        let cluster = cluster::given(args, &state_dir).await?;
        if let Some(found) = &cluster {
            let word = if args.path.is_empty() { "db" } else { "postgres" };
            others.insert(0, (word, found.source.clone()));
        }
        let searched = args.path.is_empty() && others.is_empty();
        let mut databases = if searched {
            search(cx, &here).await?
        } else {
            given(&args.path)?
        };
        if ask && searched && databases.len() > 1 {
            databases = choose(databases)?;
        }
        let system = match &args.system {
            Some(name) => name.clone(),
            None => name_from(&here.file_name().unwrap_or_default().to_string_lossy(), "system"),
        };
        let mut store = absolute(args.store.as_deref().unwrap_or(Path::new("lifeboat-backups")))?;
        if ask && args.store.is_none() {
            let answer = inquire::Text::new("Where shall the backups go? Best is another disk.")
                .with_default(&store.display().to_string())
                .prompt()
                .map_err(|error| ask::prompt_failed(&error))?;
            store = absolute(Path::new(answer.trim()))?;
        }
        let key = match (args.encrypt, &args.key) {
            (EncryptChoice::None, None) => None,
            (EncryptChoice::None, Some(_)) => {
                return Err(Error::new(
                    ErrorKind::Usage,
                    "set up",
                    "encryption",
                    "--key and --encrypt none contradict each other",
                ));
            }
            (EncryptChoice::Age, Some(path)) => Some(absolute(path)?),
            (EncryptChoice::Age, None) => Some(absolute(&default_key(&system))?),
        };
        let proposal = Self {
            config: absolute(&config)?,
            components: components(&system, databases, others)?,
            state_dir,
            cluster,
            system,
            store,
            key,
        };
        proposal.check()?;
        Ok(proposal)
    }

    /// What would undo the protection is refused.
    fn check(&self) -> Result<()> {
        if let Some(key) = self.key.as_ref().filter(|key| key.starts_with(&self.store)) {
            return Err(Error::new(
                ErrorKind::Refused,
                "put the key into",
                key.display(),
                "that is inside the store: who takes the store would have the key, who loses the store would lose both",
            )
            .with_hint("choose another place with --key"));
        }
        let pki = self
            .components
            .iter()
            .find(|(_, source)| matches!(source, InitialSource::Pki { .. }));
        if let (Some((name, _)), None) = (pki, &self.key) {
            return Err(Error::new(
                ErrorKind::Usage,
                "protect",
                name,
                "private keys are never backed up without encryption, and --encrypt none was given",
            )
            .with_hint("leave --encrypt none out"));
        }
        if self.state_dir.starts_with(&self.store) {
            return Err(Error::new(
                ErrorKind::Refused,
                "keep the state in",
                self.state_dir.display(),
                "that is inside the store",
            )
            .with_hint("choose another place with --state-dir"));
        }
        Ok(())
    }

    /// The proposal for people.
    pub(super) fn for_people(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<14} {value}\n"));
        for (name, source) in &self.components {
            line("protect", format!("{} as {name}", source.shown()));
        }
        for (index, note) in self.cluster.iter().flat_map(|cluster| &cluster.notes).enumerate() {
            line(if index == 0 { "server" } else { "" }, note.clone());
        }
        line("backups go to", self.store.display().to_string());
        match &self.key {
            Some(key) => line("private key", key.display().to_string()),
            None => line("encryption", "none: everybody who has the store can read the data".to_owned()),
        }
        line("state", self.state_dir.display().to_string());
        line("configuration", self.config.display().to_string());
        text
    }

    /// The command that sets exactly this up without asking.
    pub(super) fn command(&self, args: &Init) -> String {
        let mut words = vec!["init".to_owned()];
        let mut flag = |name: &str, value: &Path| words.extend([name.to_owned(), value.display().to_string()]);
        for (_, source) in &self.components {
            if let InitialSource::Sqlite(path) = source {
                flag("--path", path);
            }
        }
        if let Some(url) = &args.postgres {
            flag("--postgres", Path::new(url));
        }
        args.files.iter().for_each(|pattern| flag("--files", Path::new(pattern)));
        args.env_structure.iter().for_each(|path| flag("--env-structure", path));
        args.pki.iter().for_each(|path| flag("--pki", path));
        flag("--system", Path::new(&self.system));
        flag("--store", &self.store);
        match &self.key {
            Some(key) => flag("--key", key),
            None => flag("--encrypt", Path::new("none")),
        }
        flag("--state-dir", &self.state_dir);
        flag("--config", &self.config);
        if let Some(name) = &args.create_role {
            words.push(format!("--create-role={name}"));
        }
        if args.no_backup {
            words.push("--no-backup".to_owned());
        }
        words.push("--yes".to_owned());
        ask::command_line(words)
    }
}

async fn search(cx: &Cx, here: &Path) -> Result<Vec<PathBuf>> {
    let folder = here.to_path_buf();
    let discovery = compute::run("search for databases", move || sqlite::discover(&folder, DEPTH)).await?;
    for path in &discovery.unreadable {
        cx.out.note(&format!(
            "note: {} cannot be read: there may be databases in it",
            path.display()
        ));
    }
    if discovery.found.is_empty() {
        return Err(Error::new(
            ErrorKind::Usage,
            "protect",
            here.display(),
            "there is no SQLite database in this folder or below",
        )
        .with_hint("name it: lifeboat init --path DB; a PostgreSQL cluster: lifeboat init --postgres URL; files: lifeboat init --files 'GLOB', --pki DIR"));
    }
    Ok(discovery.found.into_iter().map(|found| found.path).collect())
}

fn given(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    paths
        .iter()
        .map(|path| {
            let meta = path.metadata().map_err(|error| {
                let error = Error::io("protect", path.display(), error);
                if error.kind() == ErrorKind::NotFound {
                    error
                        .with_kind(ErrorKind::Unreachable)
                        .with_hint("check the path given with --path")
                } else {
                    error
                }
            })?;
            if meta.is_file() {
                absolute(path)
            } else {
                Err(Error::new(ErrorKind::Usage, "protect", path.display(), "it is not a file")
                    .with_hint("--path names a SQLite database file"))
            }
        })
        .collect()
}

fn choose(found: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let shown: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
    let all: Vec<usize> = (0..shown.len()).collect();
    let chosen = inquire::MultiSelect::new("Which databases shall be protected?", shown)
        .with_default(&all)
        .raw_prompt()
        .map_err(|error| ask::prompt_failed(&error))?;
    if chosen.is_empty() {
        return Err(Error::new(
            ErrorKind::Refused,
            "set up",
            "the protection",
            "no database was chosen; nothing was changed",
        ));
    }
    Ok(chosen
        .into_iter()
        .filter_map(|answer| found.get(answer.index).cloned())
        .collect())
}

/// Databases first, then what was named besides.
fn components(
    system: &str,
    databases: Vec<PathBuf>,
    others: Vec<(&'static str, InitialSource)>,
) -> Result<Vec<(String, InitialSource)>> {
    let mut named: Vec<(String, InitialSource)> = names(system, databases)?
        .into_iter()
        .map(|(name, path)| (name, InitialSource::Sqlite(path)))
        .collect();
    for (word, source) in others {
        let free = |name: &String| !named.iter().any(|(taken, _)| taken == name);
        let wanted = [format!("{system}/{word}"), format!("{system}/{word}-files")];
        let name = wanted.into_iter().find(free).unwrap_or_default();
        ComponentName::new(&name)?;
        named.push((name, source));
    }
    Ok(named)
}

fn names(system: &str, databases: Vec<PathBuf>) -> Result<Vec<(String, PathBuf)>> {
    let alone = databases.len() == 1;
    let mut named: Vec<(String, PathBuf)> = Vec::new();
    for path in databases {
        let stem = if alone {
            "db".to_owned()
        } else {
            name_from(&path.file_stem().unwrap_or_default().to_string_lossy(), "db")
        };
        let free = |name: &String| !named.iter().any(|(taken, _)| taken == name);
        let numbered = (2_u32..).map(|number| format!("{system}/{stem}-{number}"));
        let name = std::iter::once(format!("{system}/{stem}"))
            .chain(numbered)
            .find(free)
            .unwrap_or_default();
        ComponentName::new(&name)?;
        named.push((name, path));
    }
    Ok(named)
}

/// A sound name made of any text.
fn name_from(text: &str, otherwise: &str) -> String {
    let name: String = text
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.') {
                letter.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(56)
        .collect();
    let name = name.trim_matches(['.', '-']);
    if name.is_empty() {
        otherwise.to_owned()
    } else {
        name.to_owned()
    }
}

/// What this installation is called: the machine's name.
pub(in crate::cli) fn instance_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name_from(host.trim(), "here")
}

/// In the user's own configuration, away from the data and from what is checked in; without a home, in the state folder.
fn default_key(system: &str) -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")));
    match config {
        Some(config) => config.join("lifeboat").join(format!("{system}-key.txt")),
        None => PathBuf::from(".lifeboat/key.txt"),
    }
}

/// Absolute, and without `.`; links stay as they are.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(|error| Error::io("resolve", path.display(), error))?;
    Ok(path.components().filter(|part| !matches!(part, Component::CurDir)).collect())
}
