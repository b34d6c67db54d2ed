//! The verb `diff`: what two backups, or a backup and the live database, have not in common.
//!
//! Counts alone come from the facts that each backup keeps: nothing is restored. For rows, the backups are restored into a scratch folder of
//! the caller, which removes it however this ends: what lies there is the data in the clear.

pub mod databases;
pub(crate) mod files;

use std::path::Path;
use std::sync::Arc;

use lifeboat_engine::sqlite::{self, Difference, Facts, Scope, Side};
use lifeboat_io::{compute, durable};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, Identities, Reader, Repository};

use crate::protected::Protected;
use crate::restore::{self, Destination, Staged};
pub use files::trees;

/// One side of the comparison.
#[derive(Debug, Clone)]
pub enum Of {
    /// A backup.
    Backup(Box<Backup>),
    /// The database that the application uses.
    Live,
}

impl Of {
    /// What people call it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Backup(backup) => format!("backup {}", backup.id.short()),
            Self::Live => "live".to_owned(),
        }
    }
}

/// Compares what was counted when the two backups were made.
///
/// # Errors
/// `Usage` for the live database, which has no facts; what reading a backup can end with.
pub async fn counts(env: &Env, repository: &Repository, before: &Of, after: &Of, identities: &Identities) -> Result<Difference> {
    let before = facts(env, repository, before, identities).await?;
    let after = facts(env, repository, after, identities).await?;
    let mut difference = sqlite::diff_counts(&before, &after);
    if before.schema_hash != after.schema_hash {
        difference.schema.push(sqlite::SchemaChange {
            kind: "schema".to_owned(),
            name: "something in it".to_owned(),
            before: Some(before.schema_hash),
            after: Some(after.schema_hash),
        });
    }
    Ok(difference)
}

async fn facts(env: &Env, repository: &Repository, of: &Of, identities: &Identities) -> Result<Facts> {
    let Of::Backup(backup) = of else {
        return Err(Error::new(
            ErrorKind::Usage,
            "compare the counts of",
            "live",
            "the live database has no counts that were taken before",
        )
        .with_hint("leave --counts out, or compare two backups"));
    };
    let reader = Reader::open(env, repository, backup, identities).await?;
    restore::facts(&reader)
}

/// Compares tables, schema and rows. `scratch` is a folder for restored copies; it must not exist, and belongs to the caller.
///
/// # Errors
/// What restoring a backup and reading the live database can end with.
pub async fn rows(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    (before, after): (&Of, &Of),
    identities: &Identities,
    scope: Scope,
    scratch: &Path,
) -> Result<Difference> {
    durable::create_folder(scratch)?;
    // What is kept alive keeps its copy.
    let (before, _kept_before) = side(env, protected, repository, before, identities, scratch, "before").await?;
    let (after, _kept_after) = side(env, protected, repository, after, identities, scratch, "after").await?;
    env.progress.step("compare", None);
    let clock = Arc::clone(&env.clock);
    compute::run("compare", move || sqlite::diff(&before, &after, &scope, &clock)).await
}

/// Tables are what databases have.
fn not_a_database(protected: &Protected) -> Error {
    let detail = format!("its kind is {}, and rows are what databases have", protected.source.kind());
    Error::new(ErrorKind::Usage, "compare the rows of", &protected.component, detail)
}

async fn side(
    env: &Env,
    protected: &Protected,
    repository: &Repository,
    of: &Of,
    identities: &Identities,
    scratch: &Path,
    name: &str,
) -> Result<(Side, Option<Staged>)> {
    match of {
        Of::Live => {
            let Some(options) = protected.source.capture_options() else {
                return Err(not_a_database(protected));
            };
            let live = Side::Live {
                path: options.path,
                busy_timeout: options.busy_timeout,
                max_stall: options.max_stall,
            };
            Ok((live, None))
        }
        Of::Backup(backup) => {
            let destination = Destination::Beside {
                path: scratch.join(name),
                keep_owner: false,
            };
            let reader = Reader::open(env, repository, backup, identities).await?;
            let staged = restore::fetch_and_check(env, &reader, &destination, name, true).await?;
            Ok((Side::Copy(staged.file().to_path_buf()), Some(staged)))
        }
    }
}
