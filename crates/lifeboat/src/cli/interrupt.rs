//! Ctrl-C and SIGTERM: the first one cancels the command, the second one ends the process at once.

use lifeboat_model::{Error, ErrorKind, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Listens from its making on.
#[derive(Debug)]
pub(crate) struct Signals {
    first: mpsc::Receiver<ErrorKind>,
    /// Aborted when this is dropped.
    _listener: JoinSet<()>,
}

impl Signals {
    /// Begins to listen; from now on the signals do not end the process by themselves.
    pub(crate) fn listen() -> Result<Self> {
        let failed = |error| Error::io("listen for", "signals", error);
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let (sender, first) = mpsc::channel(1);
        let mut listener = JoinSet::new();
        listener.spawn(watch(interrupt, terminate, sender));
        Ok(Self {
            first,
            _listener: listener,
        })
    }

    /// Waits for the first signal.
    pub(crate) async fn first(&mut self) -> ErrorKind {
        match self.first.recv().await {
            Some(kind) => kind,
            // The listener never ends before it has sent; if it did, nobody will be interrupted.
            None => std::future::pending().await,
        }
    }
}

async fn watch(mut interrupt: Signal, mut terminate: Signal, sender: mpsc::Sender<ErrorKind>) {
    let kind = next(&mut interrupt, &mut terminate).await;
    if sender.send(kind).await.is_err() {
        return;
    }
    let kind = next(&mut interrupt, &mut terminate).await;
    // Somebody insists: everything on the disk is made to survive this.
    #[expect(clippy::exit, reason = "the second signal ends the process whatever it is doing")]
    std::process::exit(i32::from(crate::exit::Exit::of(kind).code()));
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> ErrorKind {
    tokio::select! {
        _ = interrupt.recv() => ErrorKind::Interrupted,
        _ = terminate.recv() => ErrorKind::Terminated,
    }
}
