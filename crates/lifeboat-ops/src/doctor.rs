//! The verb `doctor`: checks of the set-up in plain sentences, each with its fix.

mod cluster;

use std::path::{Path, PathBuf};

use lifeboat_engine::sqlite;
use lifeboat_io::compute;
use lifeboat_model::time::human_bytes;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Encryption, Identities, Reader};

use crate::protected::Protected;
use crate::restore::quarantine;
use crate::words::counted;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// As it should be.
    Good,
    /// Works, but is worth a change.
    Warning,
    /// Will not work in an emergency.
    Bad,
}

/// One check.
#[derive(Debug, Clone)]
pub struct Check {
    /// What was looked at, as a sentence.
    pub says: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Check {
    pub(crate) fn good(says: impl Into<String>) -> Self {
        Self {
            says: says.into(),
            outcome: Outcome::Good,
            fix: None,
        }
    }

    pub(crate) fn warning(says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            says: says.into(),
            outcome: Outcome::Warning,
            fix: Some(fix.into()),
        }
    }

    pub(crate) fn bad(says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            says: says.into(),
            outcome: Outcome::Bad,
            fix: Some(fix.into()),
        }
    }

    pub(crate) fn failed(error: &Error) -> Self {
        Self {
            says: error.to_string(),
            outcome: Outcome::Bad,
            fix: error.hint().map(str::to_owned),
        }
    }
}

/// Where the private key is, as far as this installation knows.
#[derive(Debug)]
pub struct KeyAtHand {
    /// The opened private keys; an error says why they could not be read.
    pub identities: Result<Identities>,
    /// The file they come from, where it is one.
    pub file: Option<PathBuf>,
    /// It is derived from a passphrase that this machine knows.
    pub derived: bool,
}

/// Looks at everything that a backup or a restore of `protected` will need.
pub async fn run(env: &Env, protected: &Protected, instance_name: &str, key: Option<KeyAtHand>) -> Vec<Check> {
    let mut checks = Vec::new();
    match protected.source.cluster() {
        Some(cluster) => checks.extend(cluster::server(cluster).await),
        None => checks.push(source(protected).await),
    }
    match protected.instance(instance_name) {
        Ok(instance) => checks.push(Check::good(format!(
            "this installation signs as {instance_name} ({}), which the configuration trusts",
            instance.public_key()
        ))),
        Err(error) => checks.push(Check::failed(&error)),
    }
    private_folder(&protected.state_dir, "the state folder", &mut checks);
    private_file(&Protected::instance_key(&protected.state_dir), "the signing key", &mut checks);
    encryption(protected, key.as_ref(), &mut checks);
    space(protected, &mut checks);
    store(env, protected, key, &mut checks).await;
    interrupted(protected, &mut checks);
    checks
}

/// Asks the server of a cluster about everything that backing it up and following it needs.
pub async fn server(cluster: &crate::protected::Cluster) -> Vec<Check> {
    cluster::server(cluster).await
}

/// Opens the source and lets it go at once.
async fn source(protected: &Protected) -> Check {
    let Some(options) = protected.source.capture_options() else {
        return folder(protected.source.path().unwrap_or(Path::new("/")));
    };
    let path = options.path.clone();
    let clock: std::sync::Arc<dyn lifeboat_model::Clock> = std::sync::Arc::new(Still);
    match compute::run("open the source", move || {
        sqlite::begin(&options, clock).map(|capture| capture.pages().size_bytes())
    })
    .await
    {
        Ok(size_bytes) => Check::good(format!(
            "the database {} can be read ({})",
            path.display(),
            human_bytes(size_bytes)
        )),
        Err(error) => Check::failed(&error),
    }
}

/// Whether the root of files can be listed.
fn folder(root: &Path) -> Check {
    match std::fs::read_dir(root) {
        Ok(_) => Check::good(format!("the folder {} can be listed", root.display())),
        Err(error) => Check::failed(&Error::io("list", root.display(), error)),
    }
}

/// A clock that stands: the capture is dropped before any deadline could matter.
#[derive(Debug)]
struct Still;

impl lifeboat_model::Clock for Still {
    fn wall_us(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

fn private_folder(path: &Path, what: &str, checks: &mut Vec<Check>) {
    use std::os::unix::fs::MetadataExt;
    match path.metadata() {
        Ok(meta) if meta.mode() & 0o077 == 0 => checks.push(Check::good(format!("{what} {} is private", path.display()))),
        Ok(meta) => checks.push(Check::warning(
            format!(
                "{what} {} can be entered by others (mode {:o}): it holds the signing key and page identities",
                path.display(),
                meta.mode() & 0o777
            ),
            format!("chmod 700 {}", path.display()),
        )),
        Err(error) => checks.push(Check::bad(
            format!("{what} {} cannot be looked at ({error})", path.display()),
            "run `lifeboat init`, or correct `state_dir`",
        )),
    }
}

/// Says something only when others can read it: a file that is not there is told by whoever reads it.
fn private_file(path: &Path, what: &str, checks: &mut Vec<Check>) {
    use std::os::unix::fs::MetadataExt;
    if let Ok(meta) = path.metadata()
        && meta.mode() & 0o077 != 0
    {
        checks.push(Check::warning(
            format!(
                "{what} {} can be read or written by others (mode {:o})",
                path.display(),
                meta.mode() & 0o777
            ),
            format!("chmod 600 {}", path.display()),
        ));
    }
}

fn encryption(protected: &Protected, key: Option<&KeyAtHand>, checks: &mut Vec<Check>) {
    match &protected.encryption {
        Encryption::Clear => checks.push(Check::warning(
            "backups are not encrypted: whoever can read the store can read the data",
            "make a key with `lifeboat key new`, name it under `keys:`, and write `encrypt: NAME`",
        )),
        Encryption::Age(recipients) => recipients_of(recipients.len(), checks),
    }
    if key.is_some_and(|key| key.derived) {
        checks.push(Check::warning(
            "the key is derived from a passphrase that this machine knows: whoever takes the machine can read every backup of it",
            "make a key with `lifeboat key new`, name its public half under `recipients:`, and keep the private half elsewhere",
        ));
    }
    if let Some(file) = key.and_then(|key| key.file.as_deref()) {
        private_file(file, "the private key", checks);
    }
    let beside = key.and_then(|key| key.file.as_deref()).filter(|file| {
        let mut stores = protected.stores.iter().filter_map(|place| place.path.as_deref());
        stores.any(|store| store.parent().is_some() && file.parent() == store.parent())
    });
    if let Some(file) = beside {
        checks.push(Check::warning(
            format!(
                "the private key {} lies beside the repository that it opens: whoever takes the folder has both",
                file.display()
            ),
            "move the key to another disk, or better to another machine",
        ));
    }
    let inside = key.and_then(|key| key.file.as_deref()).filter(|file| {
        let folders = protected.stores.iter().filter_map(|place| place.path.as_deref());
        folders.into_iter().any(|store| file.starts_with(store))
    });
    if let Some(file) = inside {
        checks.push(Check::bad(
            format!("the private key {} lies inside the store: whoever takes the store has the key, and who loses the store loses both", file.display()),
            "move the key to another place, and keep a copy off this machine",
        ));
    }
}

fn recipients_of(count: usize, checks: &mut Vec<Check>) {
    let says = format!("backups are encrypted to {}", counted(count as u64, "public key"));
    if count == 1 {
        checks.push(Check::warning(
            format!("{says}: if that private key is lost, nobody can read them, ever"),
            "make a second key and keep it offline: `lifeboat key new`, then `lifeboat key add`",
        ));
    } else {
        checks.push(Check::good(says));
    }
}

fn space(protected: &Protected, checks: &mut Vec<Check>) {
    for place in &protected.stores {
        if let Some(path) = place.path.as_deref() {
            space_in(protected, &place.name, path, checks);
        }
    }
}

fn space_in(protected: &Protected, name: &str, path: &Path, checks: &mut Vec<Check>) {
    if let Err(error) = rustix::fs::access(path, rustix::fs::Access::WRITE_OK) {
        checks.push(Check::bad(
            format!(
                "the store {} cannot be written to ({}): no backup can be made",
                path.display(),
                std::io::Error::from(error)
            ),
            "mount it writable, or give this user write permission",
        ));
    }
    let Ok(stat) = rustix::fs::statvfs(path) else { return };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let source = protected.source.path();
    let size = source.and_then(|path| path.metadata().ok()).map_or(0, |meta| meta.len());
    if free < size {
        checks.push(Check::warning(
            format!(
                "the store {name} has {} free, less than one full backup may need ({})",
                human_bytes(free),
                human_bytes(size)
            ),
            "free space, or use a larger disk",
        ));
    } else {
        checks.push(Check::good(format!("the store {name} has {} free", human_bytes(free))));
    }
    if let Some(source) = source.filter(|source| same_device(path, source)) {
        checks.push(Check::warning(
            format!(
                "the store {name} is on the same file system as {}: one broken disk takes both",
                source.display()
            ),
            "point the store at another disk, or name a second store elsewhere: `to: [disk, other]`",
        ));
    }
}

fn same_device(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (a.metadata(), b.metadata()) {
        (Ok(a), Ok(b)) => a.dev() == b.dev(),
        _ => false,
    }
}

async fn store(env: &Env, protected: &Protected, key: Option<KeyAtHand>, checks: &mut Vec<Check>) {
    let listing = match protected.repository().await {
        Ok(repository) => protected.listing(&repository).await.map(|listing| (repository, listing)),
        Err(error) => Err(error),
    };
    let (repository, listing) = match listing {
        Ok(found) => found,
        Err(error) => return checks.push(Check::failed(&error)),
    };
    checks.push(Check::good(format!(
        "the store {} can be listed: {}",
        repository.store().name(),
        counted(listing.backups.len() as u64, "backup")
    )));
    for rejected in &listing.rejected {
        checks.push(Check::bad(
            format!("backup {} does not count: {}", rejected.name, rejected.reason),
            rejected.reason.hint().unwrap_or("run `lifeboat backup`"),
        ));
    }
    match repository.damaged_announcements(&protected.component, &protected.trust).await {
        Ok(damaged) => checks.extend(damaged.into_iter().map(|(name, error)| {
            Check::warning(
                format!("the announcement {name} is not what a trusted installation wrote: {error}"),
                "restores are not affected, but nothing will be pruned until you have looked at it: move the file away when no backup is running",
            )
        })),
        Err(error) => checks.push(Check::failed(&error)),
    }
    let Some(latest) = listing.latest() else {
        return checks.push(Check::bad("there is no backup yet", "run `lifeboat backup`"));
    };
    let encrypted = protected.encryption != Encryption::Clear;
    let identities = match key {
        None if encrypted => {
            return checks.push(Check::warning(
                "no private key is at hand here: backups work, but nothing can be verified or restored from this machine",
                "that is how a backup host should be; keep the key where you will restore, and try it there with `lifeboat key check`",
            ));
        }
        None => Identities::none(),
        Some(key) => match key.identities {
            Ok(identities) => identities,
            Err(error) => return checks.push(Check::failed(&error)),
        },
    };
    match Reader::open(env, &repository, latest, &identities).await {
        Ok(_) => checks.push(Check::good(format!(
            "the key opens the newest backup ({})",
            latest.id.short()
        ))),
        Err(error) => checks.push(Check::failed(&error)),
    }
}

fn interrupted(protected: &Protected, checks: &mut Vec<Check>) {
    let Some(path) = protected.source.path() else { return };
    match quarantine::records(path) {
        Ok(records) => {
            for (folder, record) in records {
                if record.is_interrupted() {
                    checks.push(Check::bad(
                        format!(
                            "restore {} stopped in the middle; the old files are in {}",
                            record.id,
                            folder.display()
                        ),
                        format!("run the restore again, or `lifeboat restore undo {}`", record.id),
                    ));
                } else if record.can_undo() {
                    checks.push(Check::warning(
                        format!(
                            "the files that restore {} replaced are still kept in {}",
                            record.id,
                            folder.display()
                        ),
                        "remove that folder when you are sure that you will not undo the restore",
                    ));
                }
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => checks.push(Check::failed(&error)),
    }
}
