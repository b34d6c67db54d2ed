//! Level `hash`: every stored file of a backup against its name, without keys.

use lifeboat_io::compute;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use tokio::task::JoinSet;

use crate::listing::Backup;
use crate::pack::PACK_LIMIT_BYTES;
use crate::reader::{Verified, lost_file};
use crate::repository::Repository;

/// Reads every key file and pack that a backup needs and compares its hash with its name. The first file that does not fit is the
/// error, of kind `Corrupt`.
pub async fn scrub(env: &Env, repository: &Repository, backup: &Backup) -> Result<Verified> {
    let files = backup.files()?;
    env.progress
        .step("hash", Some(files.iter().map(|(_, size_bytes)| size_bytes).sum()));
    let mut verified = Verified::default();
    let mut tasks = JoinSet::new();
    let mut pending = files.into_iter();
    loop {
        while tasks.len() < env.threads.max(1) {
            let Some((key, size_bytes)) = pending.next() else { break };
            let store = std::sync::Arc::clone(repository.store());
            tasks.spawn(async move {
                let bytes = store.get(&key, PACK_LIMIT_BYTES.max(size_bytes)).await.map_err(lost_file)?;
                let length = bytes.len() as u64;
                let hash = compute::run("hash", move || Ok(blake3::hash(&bytes).to_string())).await?;
                let named = key.file_name().trim_end_matches(".age").trim_end_matches(".clear");
                if named.rsplit('-').next() == Some(hash.as_str()) && length == size_bytes {
                    Ok(length)
                } else {
                    Err(Error::new(ErrorKind::Corrupt, "verify", &key, "its bytes do not hash to its name: it is damaged or was overwritten")
                        .with_hint("run a backup: damaged files that are missing are stored again; restore from another copy if there is one"))
                }
            });
        }
        let Some(joined) = tasks.join_next().await else { break };
        let length = joined
            .map_err(|error| Error::new(ErrorKind::Bug, "verify", "a stored file", "a task panicked").with_source(error))??;
        env.progress.advance(length);
        verified.blobs += 1;
        verified.bytes += length;
    }
    env.progress.finish();
    Ok(verified)
}
