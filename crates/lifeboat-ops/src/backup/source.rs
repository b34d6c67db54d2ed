//! From a source into a writer: one way for each kind.
//!
//! What a capture says at its end is heard before anything is committed (INV-03).

use std::sync::Arc;
use std::time::Duration;

use lifeboat_engine::{files, sqlite};
use lifeboat_io::compute;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Encryption, FileMeta, TreeCount, Writer};

use super::cluster::{OpenedCluster, Whole};
use super::log::About;
use super::logical::OpenedDatabases;
use super::{Facts, Part};
use crate::protected::{Method, Protected, Source};

/// Where the tree of a backup of files lies in its file table.
const TREE: &str = "tree";

/// A source that can be read and is about to be.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of them in a backup")]
pub(crate) enum Opened {
    Sqlite(sqlite::Capture),
    Files {
        options: files::Options,
        around: files::Around,
        source: Source,
    },
    Postgres(OpenedCluster),
    Databases(OpenedDatabases),
}

/// What a source gave.
#[derive(Debug)]
pub(crate) struct Stored {
    /// The moment of consistency.
    pub(crate) moment_us: i64,
    pub(crate) facts: Facts,
    pub(crate) stall: Duration,
    pub(crate) warnings: Vec<String>,
    /// Files that came as changes and have to come whole, in another session: what was stored is no backup.
    pub(crate) again: Vec<String>,
}

impl Opened {
    /// Opens the source of `protected`.
    pub(crate) async fn open(env: &Env, protected: &Protected, (method, part): (Method, &Part), whole: &Whole) -> Result<Self> {
        if let Some(options) = protected.source.capture_options() {
            let clock = Arc::clone(&env.clock);
            let capture = compute::run("begin a capture", move || sqlite::begin(&options, clock)).await?;
            return Ok(Self::Sqlite(capture));
        }
        if let (Some(cluster), Method::Logical) = (protected.source.cluster(), method) {
            return Ok(Self::Databases(OpenedDatabases::open(cluster, part).await?));
        }
        if let Some(cluster) = protected.source.cluster() {
            return Ok(Self::Postgres(OpenedCluster::open(env, cluster, whole).await?));
        }
        let Some(options) = protected.source.files() else {
            return Err(Error::new(
                ErrorKind::Bug,
                "back up",
                &protected.component,
                "it is neither a database nor files",
            ));
        };
        refuse_clear(protected)?;
        Ok(Self::Files {
            options: options.clone(),
            around: around(protected),
            source: protected.source.clone(),
        })
    }

    /// What must be the same for an incremental backup.
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Sqlite(capture) => capture.identity(),
            Self::Files { options, .. } => files::identity(options),
            Self::Postgres(cluster) => cluster.identity(),
            Self::Databases(databases) => databases.identity(),
        }
    }

    /// Reads the source to its end into `writer`.
    pub(crate) async fn store(self, about: &About<'_>, writer: &mut Writer) -> Result<Stored> {
        let env = about.env;
        match self {
            Self::Sqlite(capture) => store_database(env, writer, capture).await,
            Self::Files { options, around, source } => store_files(env, writer, options, around, source).await,
            Self::Postgres(cluster) => cluster.store(about, writer).await,
            Self::Databases(databases) => Box::pin(databases.store(about, writer)).await,
        }
    }
}

/// What a capture of `protected` leaves out, and what it gives out besides.
pub(crate) fn around(protected: &Protected) -> files::Around {
    let skip = protected.stores.iter().filter_map(|place| place.path.clone());
    files::Around {
        skip: skip.chain([protected.state_dir.clone()]).collect(),
        keep_bytes: matches!(protected.source, Source::Pki { .. }),
        just_looking: false,
    }
}

/// What the configuration calls secret is never stored in the clear, whoever made this component.
fn refuse_clear(protected: &Protected) -> Result<()> {
    let required = match &protected.source {
        Source::Files { encryption_required, .. } | Source::Pki { encryption_required, .. } => *encryption_required,
        Source::Sqlite { .. } | Source::Postgres(_) => false,
    };
    if required && protected.encryption == Encryption::Clear {
        return Err(Error::new(
            ErrorKind::Refused,
            "back up",
            &protected.component,
            "it holds secrets, and its backups would not be encrypted",
        )
        .with_hint("name a key under `backup: { encrypt: … }`"));
    }
    Ok(())
}

async fn store_database(env: &Env, writer: &mut Writer, capture: sqlite::Capture) -> Result<Stored> {
    env.progress.step("back up", Some(capture.pages().size_bytes()));
    let file = capture.file();
    let meta = FileMeta {
        path: file.file_name.clone(),
        mode: file.mode,
        uid: file.uid,
        gid: file.gid,
        modified_us: file.modified_us,
    };
    let moment_us = capture.moment_us();
    let put = put_all(writer, meta, &capture).await;
    let captured = compute::run("finish a capture", move || capture.finish()).await;
    let captured = whose_failure(put, captured)?;
    Ok(Stored {
        moment_us,
        facts: Facts::Sqlite(captured.facts),
        stall: captured.stall,
        warnings: captured.warnings,
        again: Vec::new(),
    })
}

/// The pages, and what the capture gives beside them: SQL text and extracts.
async fn put_all(writer: &mut Writer, meta: FileMeta, capture: &sqlite::Capture) -> Result<()> {
    writer.put_pages(meta.clone(), capture.pages()).await?;
    for beside in capture.beside() {
        let meta = FileMeta {
            path: beside.name.clone(),
            modified_us: capture.moment_us(),
            ..meta.clone()
        };
        writer.put_stream(meta, beside.reader()).await?;
    }
    Ok(())
}

/// Where both sides failed, one failed because of the other: the one with words of its own says why.
fn whose_failure<T>(put: Result<()>, captured: Result<T>) -> Result<T> {
    match (put, captured) {
        (Ok(()), captured) => captured,
        (Err(_), Err(cause)) if cause.kind() != ErrorKind::Interrupted => Err(cause),
        (Err(put), _) => Err(put),
    }
}

async fn store_files(
    env: &Env,
    writer: &mut Writer,
    options: files::Options,
    around: files::Around,
    source: Source,
) -> Result<Stored> {
    env.progress.step("back up", None);
    let previous = files::Previous {
        memory: writer.remembered(),
        segments: writer.segments()?,
    };
    let (memory, clock) = (writer.memory(), Arc::clone(&env.clock));
    let begun = compute::run("begin a capture", move || {
        files::begin(&options, &around, &previous, memory, clock)
    });
    let capture = Arc::new(begun.await?);
    let moment_us = capture.moment_us();
    let put = put_segments(writer, &capture).await;
    let captured = compute::run("finish a capture", move || match Arc::into_inner(capture) {
        Some(capture) => capture.finish(),
        None => Err(Error::new(
            ErrorKind::Bug,
            "finish",
            "a capture of files",
            "somebody still reads it",
        )),
    })
    .await;
    let mut captured = whose_failure(put, captured)?;
    let warnings = super::pki::examine(&source, &mut captured, env.clock.wall_us());
    for segment in &captured.kept {
        writer.keep_segment(segment)?;
    }
    let count = TreeCount {
        files: captured.facts.files,
        size_bytes: captured.facts.size_bytes,
    };
    writer.put_tree(TREE, Box::new(captured.tree), count).await?;
    Ok(Stored {
        moment_us,
        facts: Facts::Files(captured.facts),
        stall: Duration::ZERO,
        warnings: captured.warnings.into_iter().chain(warnings).collect(),
        again: Vec::new(),
    })
}

async fn put_segments(writer: &mut Writer, capture: &Arc<files::Capture>) -> Result<()> {
    loop {
        let waiting = Arc::clone(capture);
        let next = compute::run("wait for a segment", move || waiting.next_segment()).await?;
        let Some((name, bytes)) = next else { return Ok(()) };
        writer.put_segment(&name, bytes).await?;
    }
}
