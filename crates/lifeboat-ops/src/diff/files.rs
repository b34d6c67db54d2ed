//! Two trees: those of backups are fetched, that of the live files is made as a capture makes it. No content is restored, and none of
//! what the live capture reads is written anywhere.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use lifeboat_engine::files::{self, TreeDifference, TreeReader};
use lifeboat_io::flow::PageSink;
use lifeboat_io::sink::FileSink;
use lifeboat_io::{compute, durable};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Identities, Reader, Repository};

use super::Of;
use crate::backup::around;
use crate::protected::Protected;
use crate::restore;

/// Compares names, content by its hash, modes, owners, times and attributes; only what `paths` names, everything where it is empty.
/// `scratch` is a folder for the two lists; it must not exist, and belongs to the caller.
///
/// # Errors
/// `Usage` where a backup holds no files; what reading a backup and the live files can end with.
pub async fn trees(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    (before, after): (&Of, &Of),
    identities: &Identities,
    (paths, samples): (Vec<String>, usize),
    scratch: &Path,
) -> Result<TreeDifference> {
    durable::create_folder(scratch)?;
    let (old, new) = (scratch.join("before"), scratch.join("after"));
    list(env, protected, repository, before, identities, &old).await?;
    list(env, protected, repository, after, identities, &new).await?;
    env.progress.step("compare", None);
    compute::run("compare", move || {
        files::diff(&mut open(&old)?, &mut open(&new)?, &paths, samples)
    })
    .await
}

fn open(path: &Path) -> Result<TreeReader<BufReader<File>>> {
    let file = File::open(path).map_err(|error| Error::io("open", path.display(), error))?;
    TreeReader::open(BufReader::with_capacity(1 << 18, file))
}

fn create(path: &Path) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(|error| Error::io("create", path.display(), error))
}

async fn list(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    of: &Of,
    identities: &Identities,
    to: &Path,
) -> Result<()> {
    let Of::Backup(backup) = of else {
        let Some(options) = protected.source.files().cloned() else {
            return Err(Error::new(ErrorKind::Bug, "compare", &protected.component, "it is no files"));
        };
        env.progress.step("read", None);
        let (to, clock) = (to.to_path_buf(), Arc::clone(&env.clock));
        let around = around(protected);
        return compute::run("read the live files", move || live(&options, &around, clock, &to)).await;
    };
    let reader = Reader::open(env, repository, backup, identities).await?;
    let record = restore::tree_of(&reader).ok_or_else(|| {
        Error::new(
            ErrorKind::Usage,
            "compare",
            backup.id.short(),
            "it is the backup of a database, and the component is of files now",
        )
    })?;
    env.progress.step("fetch", Some(record.size_bytes));
    let sink: Arc<dyn PageSink> = Arc::new(FileSink::new(create(to)?, to.display().to_string()));
    reader.restore(record, Arc::clone(&sink), false).await?;
    reader.check_root(record, sink).await
}

/// The tree of the live files, written to `to`.
pub(crate) fn live(
    options: &files::Options,
    around: &files::Around,
    clock: Arc<dyn lifeboat_model::Clock>,
    to: &Path,
) -> Result<()> {
    let memory = Arc::new(create(&to.with_extension("memory"))?);
    let around = files::Around {
        skip: around.skip.clone(),
        keep_bytes: false,
        just_looking: true,
    };
    let capture = files::begin(options, &around, &files::Previous::default(), memory, clock)?;
    while let Some((_, mut bytes)) = capture.next_segment()? {
        // Whatever ends it early, the capture knows better why.
        if std::io::copy(&mut bytes, &mut std::io::sink()).is_err() {
            break;
        }
    }
    let mut captured = capture.finish()?;
    let mut list = create(to)?;
    std::io::copy(&mut captured.tree, &mut list)
        .map(drop)
        .map_err(|error| Error::io("write", to.display(), error))
}
