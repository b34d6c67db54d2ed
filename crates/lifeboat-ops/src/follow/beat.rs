//! The canary, written while a cluster is followed: the newest one that a copy has says how new it is.

use std::convert::Infallible;
use std::sync::Arc;

use super::{Shared, set};
use crate::canary;

/// Does `work`, and writes the canary meanwhile, where there is one: once it is known that this is the cluster that is followed (PG-05), and with `once`
/// before the end is looked for, so that it is stored with everything else.
pub(super) async fn beside<T>(shared: &Arc<Shared>, work: impl Future<Output = T>) -> T {
    if shared.options.once {
        let mut stop = shared.stop.subscribe();
        tokio::select! {
            () = first(shared) => {}
            () = set(&mut stop) => {}
        }
    }
    let work = Box::pin(work);
    tokio::select! {
        done = work => done,
        never = keep(shared) => match never {},
    }
}

async fn first(shared: &Shared) {
    if let Some(canary) = &shared.options.canary
        && let Err(error) = canary::log_in_and_write(&shared.options.login, canary).await
    {
        shared.alarm(canary::missing(&error));
    }
}

/// Writes it again and again. What keeps it from being written is told once, and that it is written again; following goes on.
async fn keep(shared: &Shared) -> Infallible {
    let Some(canary) = shared.options.canary.as_ref().filter(|_| !shared.options.once) else {
        return std::future::pending().await;
    };
    let mut told: Option<String> = None;
    loop {
        match canary::log_in_and_write(&shared.options.login, canary).await {
            Ok(()) if told.take().is_some() => shared.note("the canary is written again"),
            Ok(()) => {}
            Err(error) => {
                let why = canary::missing(&error);
                if told.as_ref() != Some(&why) {
                    shared.alarm(why.clone());
                    told = Some(why);
                }
            }
        }
        tokio::time::sleep(canary.every).await;
    }
}
