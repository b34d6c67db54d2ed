//! A database of a logical backup as an archive of `pg_dump`, for whoever has `pg_restore` and no Lifeboat: restored to a server of its own, compared with
//! what was captured, and dumped there.

use std::path::Path;
use std::time::Duration;

use lifeboat_engine::postgres::binaries::Binaries;
use lifeboat_engine::postgres::logical::programs::{self, Program};
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, Reader};

use super::prove::{address, one_database, with_server};
use super::{chosen, facts};
use crate::backup::logical::binaries;
use crate::protected::Protected;

/// How long writing it may take.
const LIMIT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Writes the database `name` (none: the only one) of a backup into the file `to`; `scratch` is where the server may have its data.
pub(crate) async fn write(
    env: &Env,
    protected: &Protected,
    (reader, backup): (&Reader, &Backup),
    name: Option<&str>,
    scratch: &Path,
    to: &Path,
) -> Result<()> {
    let facts = facts(reader, backup)?;
    let database = chosen(&facts, name)?;
    if facts.schema_only {
        let detail = "the backup has definitions alone: `definitions.dump` in it is such an archive already";
        return Err(Error::new(ErrorKind::Refused, "export", &database.name, detail)
            .with_hint("take that with --extract (`lifeboat show` names it), or choose another with --backup"));
    }
    let configured = binaries(protected);
    let server = Binaries::find(facts.major, configured).await?;
    let pg_dump = Program::find("pg_dump", facts.major, configured).await?;
    let pg_restore = Program::find("pg_restore", pg_dump.major, configured).await?;
    with_server(env, protected, &server, scratch, async |sandbox| {
        let (name, _) = one_database(env, protected, (reader, backup, &facts), sandbox, database).await?;
        env.progress.step("dump", None);
        let info = address(sandbox)?.with_database(&name);
        programs::dump(&pg_dump, &info, to, LIMIT).await?;
        // What nobody could read is not given out.
        programs::read_through(&pg_restore, to, LIMIT).await
    })
    .await
}
