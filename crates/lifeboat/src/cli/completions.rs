//! `lifeboat completions`: what a shell needs to complete our words.

use clap::CommandFactory as _;
use lifeboat_model::{Error, ErrorKind, Result};

use super::args::Cli;
use crate::exit::Exit;
use crate::render;

pub(super) fn run(shell: clap_complete::Shell) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lifeboat", &mut script);
    let script = String::from_utf8(script)
        .map_err(|error| Error::new(ErrorKind::Bug, "write", "the completions", "they are not text").with_source(error))?;
    render::print(&script)?;
    Ok(Exit::OK)
}
