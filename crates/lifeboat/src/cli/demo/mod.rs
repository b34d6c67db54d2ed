//! `demo`: the whole story on a real database that is being written to, in one command.
//!
//! Everything is real: another process writes to a SQLite database and notes each row that SQLite confirmed; backups go encrypted into a
//! directory store; the database is destroyed; what comes back is compared row by row with the writer's own notes.

mod story;
mod world;
pub(crate) mod writer;

use std::path::PathBuf;

use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};

use super::Cx;
use super::args;
use crate::exit::Exit;
use world::World;

/// Tells the story. Any step that does not come out as promised ends it with an error.
pub(crate) async fn run(cx: &Cx, args: args::Demo) -> Result<Exit> {
    let folder = match &args.keep {
        Some(folder) => new_folder(folder.clone())?,
        None => new_folder(std::env::temp_dir().join(format!("lifeboat-demo-{}", draw(cx)?)))?,
    };
    let result = Box::pin(tell(cx, &folder)).await;
    if args.keep.is_none() {
        durable::remove_folder(&folder)?;
    }
    let summary = result?;
    let text = summary.text(args.keep.as_deref());
    cx.out.result("demo", summary.json(), &text)?;
    Ok(Exit::OK)
}

async fn tell(cx: &Cx, folder: &std::path::Path) -> Result<story::Summary> {
    let world = World::create(cx, folder).await?;
    Box::pin(story::run(cx, world)).await
}

fn new_folder(folder: PathBuf) -> Result<PathBuf> {
    let there = folder
        .try_exists()
        .map_err(|error| Error::io("look at", folder.display(), error))?;
    if there {
        return Err(Error::new(
            ErrorKind::Refused,
            "use",
            folder.display(),
            "it exists already; the demo makes its own folder",
        )
        .with_hint("name a folder that does not exist yet"));
    }
    durable::create_folder(&folder)?;
    std::path::absolute(&folder).map_err(|error| Error::io("resolve", folder.display(), error))
}

fn draw(cx: &Cx) -> Result<String> {
    let mut random = [0; 4];
    cx.env.entropy.fill(&mut random)?;
    Ok(hex::encode(random))
}
