//! The programs of PostgreSQL on this host, by major version.
//!
//! A folder counts when its `postgres` says that it is of the wanted major; where none does, the error names every folder that was looked at.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_io::process::Process;
use lifeboat_model::{Error, ErrorKind, Result};

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(30);

/// The programs of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    folder: PathBuf,
    major: u32,
    version: String,
    libraries: Option<PathBuf>,
}

impl Binaries {
    /// Finds the programs of `major`: in the `configured` folders, where Debian, Red Hat and the project's own build put them, in the folder
    /// that `pg_config` names, and in `PATH`. Kind `NotFound` where there are none.
    pub async fn find(major: u32, configured: &[PathBuf]) -> Result<Self> {
        let mut looked = Vec::new();
        for folder in places(major, configured).await {
            match version_in(&folder).await {
                Ok(Some((found, version))) if found == major => {
                    let libraries = library_folder(&folder).await;
                    return Ok(Self {
                        folder,
                        major,
                        version,
                        libraries,
                    });
                }
                Ok(Some((_, version))) => looked.push(format!("{} ({version})", folder.display())),
                Ok(None) => looked.push(format!("{} (no postgres)", folder.display())),
                Err(error) => looked.push(format!("{} ({})", folder.display(), error.detail())),
            }
        }
        let detail = format!("they are in none of the folders that were looked at: {}", looked.join(", "));
        Err(Error::new(
            ErrorKind::NotFound,
            "find",
            format!("the programs of PostgreSQL {major}"),
            detail,
        )
        .with_hint(format!(
            "install them (on Debian: apt install postgresql-{major}), or name their folder under `postgres: {{ binaries: … }}`"
        )))
    }

    /// The major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }

    /// What `postgres --version` says behind its name, for example `15.18`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The folder that they are in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the program `name` would be.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Whether the program `name` is there: not every package brings every one.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.program(name).is_file()
    }

    /// Whether a library that a server loads when it starts is there, as `shared_preload_libraries` names it.
    #[must_use]
    pub fn has_library(&self, name: &str) -> bool {
        let name = name.strip_prefix("$libdir/").unwrap_or(name);
        let file = |name: &str| {
            if name.ends_with(".so") {
                name.to_owned()
            } else {
                format!("{name}.so")
            }
        };
        if name.contains('/') {
            return Path::new(&file(name)).is_file();
        }
        self.libraries
            .as_ref()
            .is_some_and(|folder| folder.join(file(name)).is_file())
    }
}

/// Folders to look at, the first that fits wins.
pub(super) async fn places(major: u32, configured: &[PathBuf]) -> Vec<PathBuf> {
    let mut places = configured.to_vec();
    places.extend(
        [
            format!("/usr/lib/postgresql/{major}/bin"),
            format!("/usr/pgsql-{major}/bin"),
            format!("/usr/lib/postgresql{major}/bin"),
            format!("/usr/libexec/postgresql{major}"),
            format!("/usr/local/pgsql-{major}/bin"),
            "/usr/local/pgsql/bin".to_owned(),
        ]
        .map(PathBuf::from),
    );
    // Without it there is one place less to look.
    if let Ok(output) = Process::new("pg_config", PATIENCE).arg("--bindir").run().await {
        places.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    places.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    let mut known = std::collections::BTreeSet::new();
    places.retain(|place| place.is_absolute() && known.insert(place.clone()));
    places
}

/// The major and the whole version of the `postgres` in `folder`; `None` where there is none.
async fn version_in(folder: &Path) -> Result<Option<(u32, String)>> {
    let program = folder.join("postgres");
    if !program.is_file() {
        return Ok(None);
    }
    let output = Process::new(program, PATIENCE).arg("--version").run().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let parsed = parse_version(&text);
    parsed.map(Some).ok_or_else(|| {
        let detail = format!("it says its version as {:?}", text.trim());
        Error::new(ErrorKind::Incompatible, "read the version of", folder.display(), detail)
    })
}

/// From `postgres (PostgreSQL) 15.18 (Debian …)`, `… 18beta1`.
fn parse_version(text: &str) -> Option<(u32, String)> {
    let version = text.split_once(") ")?.1.split_whitespace().next()?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((digits.parse().ok()?, version.to_owned()))
}

/// Where libraries of extensions are: what `pg_config` says, or beside the programs as in a build that was moved.
async fn library_folder(folder: &Path) -> Option<PathBuf> {
    let beside = ["../lib/postgresql", "../lib"].map(|place| folder.join(place));
    let config = folder.join("pg_config");
    let mut places = Vec::new();
    if config.is_file()
        && let Ok(output) = Process::new(config, PATIENCE).arg("--pkglibdir").run().await
    {
        places.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    places.extend(beside);
    // Every server brings this one.
    places.into_iter().find(|place| place.join("plpgsql.so").is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (text, major, version) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", 15, "15.18"),
            ("postgres (PostgreSQL) 18beta1\n", 18, "18beta1"),
            ("postgres (PostgreSQL) 9.6.24", 9, "9.6.24"),
        ] {
            assert_eq!(parse_version(text), Some((major, version.to_owned())));
        }
        assert_eq!(parse_version("bash: postgres: not found"), None);
    }

    #[tokio::test]
    async fn where_there_is_none_every_place_is_named() {
        let error = Binaries::find(4, &[PathBuf::from("/nowhere/bin")]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.detail().contains("/nowhere/bin (no postgres)"), "{error}");
        assert!(error.detail().contains("/usr/lib/postgresql/4/bin"), "{error}");
        assert!(error.hint().unwrap().contains("postgresql-4"));
    }
}
