//! Work that others do not have to wait for: on a thread that runs where no processor has anything else to do.
//!
//! Linux calls the policy `SCHED_IDLE` (sched(7)): whoever wakes up elsewhere takes the processor from such a thread at once. It may get none for as long
//! as others want it, so nothing it does may hold a lock that others need, and whoever waits for it has another way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use lifeboat_model::{Error, Result};
use thread_priority::{NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Such a thread. Ends when it is dropped, after what it is doing.
#[derive(Debug)]
pub struct Background {
    jobs: SyncSender<Job>,
    is_busy: Arc<AtomicBool>,
}

impl Background {
    /// Starts it.
    ///
    /// # Errors
    /// Where the system starts no thread. Where it does not let a thread give way to others (a container may forbid it), this one does not.
    pub fn start() -> Result<Self> {
        let (jobs, asked) = sync_channel::<Job>(1);
        let thread = std::thread::Builder::new().name("background".into());
        let started = thread.spawn(move || {
            // Without it the work is done all the same.
            drop(give_way());
            while let Ok(job) = asked.recv() {
                job();
            }
        });
        started.map_err(|error| Error::io("start", "a background thread", error))?;
        Ok(Self {
            jobs,
            is_busy: Arc::new(AtomicBool::new(false)),
        })
    }

    /// Has `work` done, and waits for it for as long as `patience`. None where it was not done by then, or the thread is still busy with what was not
    /// done in time before: whoever asks does it otherwise, and what comes of it later is dropped.
    pub async fn run<T, F>(&self, patience: Duration, work: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        if self.is_busy.swap(true, Ordering::AcqRel) {
            return None;
        }
        let (done, result) = oneshot::channel();
        let is_busy = Busy(Arc::clone(&self.is_busy));
        let job = move || {
            let came = work();
            drop(is_busy);
            if done.send(came).is_err() {
                // Nobody waits for it any more.
            }
        };
        self.jobs.try_send(Box::new(job)).ok()?;
        // An error: the work panicked, and the thread with it.
        tokio::time::timeout(patience, result).await.ok()?.ok()
    }
}

/// Not busy any more once it is dropped, whatever became of the work.
struct Busy(Arc<AtomicBool>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn give_way() -> std::result::Result<(), thread_priority::Error> {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    thread_priority::set_thread_priority_and_policy(thread_priority::thread_native_id(), ThreadPriority::Min, policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    /// The policy of the calling thread (proc_pid_stat(5), field 41).
    fn policy() -> String {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        stat.rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .nth(38)
            .unwrap()
            .to_owned()
    }

    #[tokio::test]
    async fn it_gives_way_and_nobody_else_does() {
        let before = policy();
        let background = Background::start().unwrap();
        assert_eq!(background.run(LONG, policy).await.as_deref(), Some("5"), "SCHED_IDLE");
        assert_eq!(policy(), before);
        assert_ne!(before, "5");
        assert_eq!(background.run(LONG, || 7).await, Some(7));
    }

    #[tokio::test]
    async fn what_takes_too_long_or_panics_is_left_to_whoever_asks() {
        let background = Background::start().unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let late = background.run(Duration::from_millis(20), move || wait.recv().is_ok()).await;
        assert_eq!(late, None);
        assert_eq!(background.run(LONG, || ()).await, None, "it is busy");
        go.send(()).unwrap();
        while background.is_busy.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        assert_eq!(background.run(LONG, || 7).await, Some(7));
        let breaks = |breaks: bool| assert!(!breaks, "it breaks");
        assert_eq!(background.run(LONG, move || breaks(true)).await, None);
        assert_eq!(background.run(LONG, || ()).await, None);
    }
}
