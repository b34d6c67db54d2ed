//! Words of `checklist`.

use clap::{Args, Subcommand};

/// `checklist`.
#[derive(Debug, Args)]
pub(crate) struct Checklist {
    /// `checklist tick`.
    #[command(subcommand)]
    pub(crate) command: Option<ChecklistCommand>,
    /// SYSTEM or SYSTEM/CHECKLIST; without it, all.
    #[arg(value_name = "WHAT")]
    pub(crate) what: Option<String>,
}

/// What can be done with checklists.
#[derive(Debug, Subcommand)]
pub(crate) enum ChecklistCommand {
    /// Say of a line that it is so: it is kept with name, date and note, recorded in the ledger, and holds for as long as the line says.
    #[command(after_help = super::super::examples::CHECKLIST_TICK)]
    Tick {
        /// SYSTEM/CHECKLIST.
        #[arg(value_name = "CHECKLIST")]
        list: String,
        /// Which line, by its text or its number, from 1.
        #[arg(value_name = "ITEM")]
        item: String,
        /// It is not so, or not any more.
        #[arg(long)]
        failed: bool,
        /// Who says so. Default: the user of this process.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// What else there is to say. It stands in the ledger unencrypted.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
}
