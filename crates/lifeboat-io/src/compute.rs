//! The one crossing from the async spine to blocking or computing code.

use lifeboat_model::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

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

/// Work on a thread of its own, with a runtime of its own. Dropped, it is given up, and ends by itself a little later.
#[derive(Debug)]
pub struct Alone<T> {
    name: &'static str,
    give_up: oneshot::Sender<()>,
    done: oneshot::Receiver<Result<T>>,
}

/// Runs the future that `make` makes on a thread called `name`: for what has to answer within a millisecond. Nobody else's work is in its way there, and
/// it may block for as long itself.
pub fn alone<T, F, W>(name: &'static str, make: F) -> Result<Alone<T>>
where
    T: Send + 'static,
    F: FnOnce() -> W + Send + 'static,
    W: Future<Output = Result<T>>,
{
    let failed = |error| Error::io("start", format!("the thread {name}"), error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed)?;
    let (give_up, given_up) = oneshot::channel::<()>();
    let (ended, done) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.to_owned());
    let started = thread.spawn(move || {
        let result = runtime.block_on(async {
            tokio::select! {
                result = make() => Some(result),
                _ = given_up => None,
            }
        });
        // Whatever it still has under way is over before anybody hears of its end.
        drop(runtime);
        if let Some(result) = result
            && ended.send(result).is_err()
        {
            // Nobody waits for it any more.
        }
    });
    started.map_err(failed)?;
    Ok(Alone { name, give_up, done })
}

/// A runtime of its own for a thread that blocks anyway and talks to somebody meanwhile: what arrives wakes this thread and no other. To be made,
/// used and dropped inside of [`run`].
#[derive(Debug)]
pub struct Lane(tokio::runtime::Runtime);

impl Lane {
    /// For the thread that calls.
    pub fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map(Self).map_err(|error| Error::io("start", "a runtime", error))
    }

    /// Waits for `future`, and blocks the thread meanwhile.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.0.block_on(future)
    }
}

impl<T> Alone<T> {
    /// What came of it. May be given up and asked again. A panic is an error of kind `Bug`.
    pub async fn done(&mut self) -> Result<T> {
        let done = (&mut self.done).await;
        done.unwrap_or_else(|lost| {
            Err(Error::new(ErrorKind::Bug, "run", format!("the thread {}", self.name), "it panicked").with_source(lost))
        })
    }

    /// Gives it up, and waits until it does nothing any more.
    pub async fn end(self) {
        drop(self.give_up);
        if self.done.await.is_ok() {
            // It was done before it heard of it.
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Set(Arc<AtomicBool>);

    impl Drop for Set {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn what_runs_alone_answers_ends_and_tells_a_panic() {
        let mut answering = alone("answers", || async { Ok(7) }).unwrap();
        assert_eq!(answering.done().await.unwrap(), 7);
        let over = Arc::new(AtomicBool::new(false));
        let set = Set(Arc::clone(&over));
        let endless = alone("waits", move || async move {
            let _set = set;
            std::future::pending::<Result<()>>().await
        });
        endless.unwrap().end().await;
        assert!(over.load(Ordering::SeqCst), "nothing of it is left when it has ended");
        let broken = |breaks: bool| async move {
            assert!(!breaks, "it breaks");
            Ok(())
        };
        let mut broken = alone("panics", move || broken(true)).unwrap();
        assert_eq!(broken.done().await.unwrap_err().kind(), ErrorKind::Bug);
    }
}
