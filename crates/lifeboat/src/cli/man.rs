//! `lifeboat man`: a manual page for every command, made from the same words as `--help`.

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use serde_json::json;

use super::Cx;
use super::args::Cli;
use crate::exit::Exit;
use crate::render::text;

/// Mode of a page: everybody may read it.
const PAGE_MODE: u32 = 0o644;

pub(super) fn run(cx: &Cx, to: &Path) -> Result<Exit> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    write(&command, "lifeboat", to, &mut pages)?;
    let body = json!({ "to": to, "pages": pages });
    let says = format!("{} in {}", text::counted(pages.len(), "manual page"), to.display());
    cx.out.result("man", body, &says)?;
    Ok(Exit::OK)
}

fn write(command: &clap::Command, name: &str, to: &Path, pages: &mut Vec<PathBuf>) -> Result<()> {
    let failed =
        |source: std::io::Error| Error::new(ErrorKind::Bug, "write", name, "the manual page cannot be made").with_source(source);
    let mut page = Vec::new();
    // `lifeboat-restore`, as git calls its own.
    clap_mangen::Man::new(command.clone())
        .title(name)
        .render(&mut page)
        .map_err(failed)?;
    let path = to.join(format!("{name}.1"));
    durable::create_folder(to)?;
    durable::replace_file(&path, &page, PAGE_MODE)?;
    pages.push(path);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write(sub, &format!("{name}-{}", sub.get_name()), to, pages)?;
    }
    Ok(())
}
