//! What is in a backup besides the database file itself: its extracts, and the database as SQL text.
//!
//! Each gets its name last, in a folder where nothing of that name was before.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_engine::sqlite;
use lifeboat_io::flow::PageSink;
use lifeboat_io::sink::FileSink;
use lifeboat_io::{compute, durable};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, Identities, Reader, Repository};

use crate::protected::Protected;
use crate::restore::{self, Destination};

/// Writes the stream `name` of a backup (an extract, or its SQL text) to the new file `to`. Returns its bytes.
pub async fn stream(
    env: &Env,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    name: &str,
    to: &Path,
) -> Result<u64> {
    let reader = Reader::open(env, repository, backup, identities).await?;
    let streams = || reader.files().iter().filter(|file| file.page_size == 0);
    let record = streams().find(|file| file.meta.path == name).cloned().ok_or_else(|| {
        let names: Vec<&str> = streams().map(|file| file.meta.path.as_str()).collect();
        let hint = if names.is_empty() {
            "this backup holds none; `extract` of the component in lifeboat.yaml makes them".to_owned()
        } else {
            format!("it holds: {}", names.join(", "))
        };
        let detail = format!("backup {} holds no file of this name", backup.id.short());
        Error::new(ErrorKind::Usage, "export", name, detail).with_hint(hint)
    })?;
    refuse_taken(to)?;
    durable::create_folder(&durable::parent_of(to))?;
    let part = durable::temporary_beside(to)?;
    let sink: Arc<dyn PageSink> = Arc::new(FileSink::new(restore::create_private(&part)?, part.display().to_string()));
    let written = async {
        reader.restore(&record, Arc::clone(&sink), false).await?;
        reader.check_root(&record, sink).await
    };
    finish(written.await, part, to).await?;
    env.progress.finish();
    Ok(record.size_bytes)
}

/// Restores the database into `scratch`, checks it, and writes it as SQL text to the new file `to`. Returns its bytes.
pub async fn sql(
    env: &Env,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    scratch: PathBuf,
    to: &Path,
) -> Result<u64> {
    refuse_taken(to)?;
    durable::create_folder(&scratch)?;
    let reader = Reader::open(env, repository, backup, identities).await?;
    let destination = Destination::Beside {
        path: scratch.join("database"),
        keep_owner: false,
    };
    let staged = restore::fetch_and_check(env, &reader, &destination, "export", false).await?;
    durable::create_folder(&durable::parent_of(to))?;
    let part = durable::temporary_beside(to)?;
    let (database, text) = (staged.file().to_path_buf(), part.clone());
    let written = compute::run("write SQL text", move || {
        let mut file = restore::create_private(&text)?;
        sqlite::dump_restored(&database, &mut file)
    })
    .await;
    drop(staged);
    finish(written, part, to).await?;
    let meta = to.metadata().map_err(|error| Error::io("look at", to.display(), error))?;
    Ok(meta.len())
}

/// Writes a database of a logical backup as SQL text to the new file `to`. Returns its bytes.
pub async fn database_sql(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    database: Option<&str>,
    to: &Path,
) -> Result<u64> {
    let reader = Reader::open(env, repository, backup, identities).await?;
    into_file(env, to, async |file| {
        restore::logical::write_sql(env, protected, &reader, backup, database, file).await
    })
    .await
}

/// Writes the rows of a database of a logical backup as one JSON document to the new file `to`. Returns its bytes.
pub async fn database_json(
    env: &Env,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    database: Option<&str>,
    to: &Path,
) -> Result<u64> {
    let reader = Reader::open(env, repository, backup, identities).await?;
    into_file(env, to, async |file| {
        restore::logical::write_json(env, &reader, backup, database, file).await
    })
    .await
}

/// Writes every table of a database of a logical backup as CSV into the new folder `to`. Returns their bytes, and what to know.
pub async fn database_csv(
    env: &Env,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    database: Option<&str>,
    to: &Path,
) -> Result<(u64, Vec<String>)> {
    refuse_taken(to)?;
    let reader = Reader::open(env, repository, backup, identities).await?;
    durable::create_folder(&durable::parent_of(to))?;
    let part = durable::temporary_beside(to)?;
    let written = restore::logical::write_csv(env, &reader, backup, database, &part).await;
    let to = to.to_path_buf();
    let published = compute::run("publish", move || match written {
        Ok(written) => {
            durable::sync_file_system(&part)?;
            durable::rename_new(&part, &to).map(|()| written)
        }
        Err(error) => {
            durable::remove_folder(&part)?;
            Err(error)
        }
    })
    .await?;
    env.progress.finish();
    Ok(published)
}

/// Restores a database of a logical backup to a server of its own, compares every table, and writes it with `pg_dump` to the new file `to`, which
/// `pg_restore` reads. Returns its bytes. `scratch` is where the server may have its data.
#[expect(clippy::too_many_arguments, reason = "where from, what, and where to")]
pub async fn database_archive(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    database: Option<&str>,
    scratch: &Path,
    to: &Path,
) -> Result<u64> {
    refuse_taken(to)?;
    let reader = Reader::open(env, repository, backup, identities).await?;
    durable::create_folder(&durable::parent_of(to))?;
    let part = durable::temporary_beside(to)?;
    // For us alone, before anything is in it.
    drop(restore::create_private(&part)?);
    let written = restore::logical::write_archive(env, protected, (&reader, backup), database, scratch, &part).await;
    finish(written, part, to).await?;
    env.progress.finish();
    let meta = to.metadata().map_err(|error| Error::io("look at", to.display(), error))?;
    Ok(meta.len())
}

/// Restores files into `scratch`, checks them, and writes them as a tar archive to the new file `to`. Returns its bytes.
pub async fn tar(
    env: &Env,
    repository: &Repository,
    backup: &Backup,
    identities: &Identities,
    scratch: PathBuf,
    to: &Path,
) -> Result<u64> {
    durable::create_folder(&scratch)?;
    let reader = Reader::open(env, repository, backup, identities).await?;
    into_file(env, to, async |file| {
        restore::archive(env, &reader, &scratch, backup, file).await
    })
    .await
}

/// Has the new file `to` written, under another name until it is whole. Returns its bytes.
async fn into_file(env: &Env, to: &Path, write: impl AsyncFnOnce(std::fs::File) -> Result<()>) -> Result<u64> {
    refuse_taken(to)?;
    durable::create_folder(&durable::parent_of(to))?;
    let part = durable::temporary_beside(to)?;
    let written = write(restore::create_private(&part)?).await;
    finish(written, part, to).await?;
    env.progress.finish();
    let meta = to.metadata().map_err(|error| Error::io("look at", to.display(), error))?;
    Ok(meta.len())
}

async fn finish(written: Result<()>, part: PathBuf, to: &Path) -> Result<()> {
    let to = to.to_path_buf();
    compute::run("publish", move || match written {
        Ok(()) => {
            std::fs::File::open(&part)
                .and_then(|file| file.sync_all())
                .map_err(|error| Error::io("make durable", part.display(), error))?;
            durable::rename_new(&part, &to)
        }
        Err(error) => {
            durable::remove_file(&part)?;
            Err(error)
        }
    })
    .await
}

fn refuse_taken(to: &Path) -> Result<()> {
    match to.symlink_metadata() {
        Ok(_) => Err(Error::new(
            ErrorKind::Refused,
            "export to",
            to.display(),
            "something is there already; an export never writes onto it",
        )
        .with_hint("choose another name with --to")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("look at", to.display(), error)),
    }
}
