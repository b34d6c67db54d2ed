//! The one crossing from the async spine to blocking or computing code.

use lifeboat_model::{Error, ErrorKind, Result};

/// Runs `work` on a thread that may block, and waits for it. A panic inside becomes an error of kind `Bug`.
///
/// Dropping the future does not stop `work`: cancellation is the business of what it does.
pub async fn run<T, F>(op: &'static str, work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "this is the crossing")]
    let joined = tokio::task::spawn_blocking(work).await;
    match joined {
        Ok(result) => result,
        Err(join) => Err(Error::new(ErrorKind::Bug, op, "a worker thread", "it panicked").with_source(join)),
    }
}
