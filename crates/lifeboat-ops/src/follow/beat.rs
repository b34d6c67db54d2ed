//! The canary, written while a cluster is followed: the newest one that a copy has says how new it is.

use std::convert::Infallible;

use super::{Event, Options};
use crate::canary;

/// With `once`: writes it before the end is looked for, so that it is stored with everything else.
pub(super) async fn first(options: &Options) {
    if options.once
        && let Some(canary) = &options.canary
        && let Err(error) = canary::write(&options.login, canary).await
    {
        alarm(options, canary::missing(&error));
    }
}

/// Otherwise writes it again and again. What keeps it from being written is told once, and that it is written again; following goes on.
pub(super) async fn keep(options: &Options) -> Infallible {
    let Some(canary) = options.canary.as_ref().filter(|_| !options.once) else {
        return std::future::pending().await;
    };
    let mut told: Option<String> = None;
    loop {
        match canary::write(&options.login, canary).await {
            Ok(()) if told.take().is_some() => options.tell.note("the canary is written again"),
            Ok(()) => {}
            Err(error) => {
                let why = canary::missing(&error);
                if told.as_ref() != Some(&why) {
                    alarm(options, why.clone());
                    told = Some(why);
                }
            }
        }
        tokio::time::sleep(canary.every).await;
    }
}

fn alarm(options: &Options, text: String) {
    (options.tell.0)(&Event { is_alarm: true, text });
}
