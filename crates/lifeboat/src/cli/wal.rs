//! `lifeboat wal`: what PostgreSQL runs by itself. Ends with the codes that the server understands.

use lifeboat_model::{Error, ErrorKind, Result};

use super::Cx;
use super::args::Wal;
use crate::exit::Exit;

pub(super) async fn run(cx: &Cx, command: Wal) -> Result<Exit> {
    match command {
        Wal::Fetch { name, .. } => {
            // `main` takes it before the command line is read here; what gets here all the same must not look like an absence.
            let detail = "its words were not understood in this order; options stand behind `wal fetch`";
            super::fail(cx.out, &Error::new(ErrorKind::Usage, "fetch", name, detail));
            Ok(Exit::NOT_NOW)
        }
        Wal::Serve { restore } => super::wal_serve::run(cx, &restore).await,
    }
}
