//! `lifeboat wal`: what PostgreSQL runs by itself. Ends with the codes that the server understands.

use std::path::Path;

use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::follow::{self, Pushed};

use super::args::Wal;
use super::context::Context;
use super::{Cx, fail};
use crate::exit::Exit;

pub(super) async fn run(cx: &Cx, command: Wal) -> Result<Exit> {
    match command {
        Wal::Push { what, path } => match push(cx, &what, &path).await {
            Ok(pushed) => {
                let word = match pushed {
                    Pushed::Stored => "stored",
                    Pushed::HandedOver => "handed over to whoever follows",
                    Pushed::NotNeeded => "not kept: recovery never asks for it",
                };
                cx.out.detail(|| format!("{}: {word}", path.display()));
                Ok(Exit::OK)
            }
            // The server knows 0 and everything else, and above 125 it stops to archive.
            Err(error) => {
                fail(cx.out, &error);
                Ok(Exit::of(ErrorKind::Failed))
            }
        },
        Wal::Fetch { name, .. } => {
            // `main` takes it before the command line is read here; what gets here all the same must not look like an absence.
            let detail = "its words were not understood in this order; options stand behind `wal fetch`";
            fail(cx.out, &Error::new(ErrorKind::Usage, "fetch", name, detail));
            Ok(Exit::NOT_NOW)
        }
        Wal::Serve { restore } => super::wal_serve::run(cx, &restore).await,
    }
}

async fn push(cx: &Cx, what: &str, path: &Path) -> Result<Pushed> {
    let context = Context::load(cx)?;
    let clusters = super::follow::clusters(&context, &[what.to_owned()])?;
    let [(component, _)] = clusters.as_slice() else {
        let names: Vec<&str> = clusters.iter().map(|(component, _)| component.name.as_str()).collect();
        let detail = format!("it has several clusters: {}", names.join(", "));
        return Err(Error::new(ErrorKind::Usage, "push the log of", what, detail).with_hint("name one of them"));
    };
    let protected = context.protected(component, &[]).await?;
    let instance = protected.instance(&context.settings.instance_name)?;
    follow::push(&cx.env, &protected, instance, path).await
}
