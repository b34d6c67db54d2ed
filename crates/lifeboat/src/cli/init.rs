//! `lifeboat init`.

use lifeboat_model::Result;

use super::Cx;
use super::args::Init;
use crate::exit::Exit;

pub(super) async fn run(_cx: &Cx, _args: Init) -> Result<Exit> {
    super::unavailable("init")
}
