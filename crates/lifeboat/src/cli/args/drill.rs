//! Words of `drill`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `drill`.
#[derive(Debug, Args)]
pub(crate) struct Drill {
    /// `drill report`, `drill tick`, `drill approve`, `drill action`, `drill done`, `drill actions`.
    #[command(subcommand)]
    pub(crate) command: Option<DrillCommand>,
    /// SYSTEM or SYSTEM/COMPONENT; without it, all, in the order of recovery.
    #[arg(value_name = "WHAT")]
    pub(crate) what: Vec<String>,
    /// The one of this name in `drills` of the configuration: what it restores, in its order, from where, and what people are to look at. WHAT then
    /// names the system, where several have one.
    #[arg(long, value_name = "NAME")]
    pub(crate) plan: Option<String>,
    /// Which moment: `latest`, `random` (drawn from everything that can be reached), or a time with zone. Default: what the plan says, otherwise
    /// `latest`.
    #[arg(long, value_name = "POINT")]
    pub(crate) point: Option<String>,
    /// Draw the random point by this number, which the report of an earlier drill names.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Restore only from this store: a name of the configuration, a folder or `s3://BUCKET/PREFIX`.
    #[arg(long, value_name = "STORE")]
    pub(crate) from: Option<String>,
    /// Something that a person is to look at, for `drill tick`; may be repeated.
    #[arg(long, value_name = "TEXT")]
    pub(crate) manual: Vec<String>,
    /// Who does it, for the report. Default: the user of this process.
    #[arg(long, value_name = "NAME")]
    pub(crate) tester: Option<String>,
}

/// What can be done with drills that were.
#[derive(Debug, Subcommand)]
pub(crate) enum DrillCommand {
    /// Show what came of a drill, as text, JSON or a page that needs nothing but itself.
    #[command(after_help = super::super::examples::DRILL_REPORT)]
    Report {
        /// Which drill, by its id or the end of it; without it, the newest.
        #[arg(value_name = "ID")]
        id: Option<String>,
        /// How it is shown.
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        format: ReportFormat,
        /// Write it to this new file.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        /// All drills, one line each: date, backup used, restore time, issues found, tester.
        #[arg(long, conflicts_with = "id")]
        table: bool,
    },
    /// Say of an item of a drill that it was looked at by a person.
    #[command(after_help = super::super::examples::DRILL_TICK)]
    Tick {
        /// Which drill, by its id or the end of it.
        #[arg(value_name = "ID")]
        id: String,
        /// Which item, by its text or its number, from 1.
        #[arg(value_name = "ITEM")]
        item: String,
        /// It was not as it should be.
        #[arg(long)]
        failed: bool,
        /// How long it took, such as 12m: beside what the plan gives this phase.
        #[arg(long, value_name = "DURATION")]
        took: Option<String>,
        /// Who says so. Default: the user of this process.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// What else there is to say.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Accept the report of a drill, as somebody who did not do it.
    #[command(after_help = super::super::examples::DRILL_APPROVE)]
    Approve {
        /// Which drill, by its id or the end of it.
        #[arg(value_name = "ID")]
        id: String,
        /// Say that it is not accepted, and in --note why.
        #[arg(long, requires = "note")]
        refuse: bool,
        /// Who says so. Default: the user of this process.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// What else there is to say.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Write down what has to be done about what a drill found.
    #[command(after_help = super::super::examples::DRILL_ACTION)]
    Action {
        /// Which drill, by its id or the end of it.
        #[arg(value_name = "ID")]
        id: String,
        /// What has to be done.
        #[arg(value_name = "TEXT")]
        text: String,
        /// Who does it.
        #[arg(long, value_name = "NAME")]
        owner: String,
        /// Until when: a date, such as 2026-12-01.
        #[arg(long, value_name = "DATE")]
        due: Option<String>,
        /// Who says so. Default: the user of this process.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// Say that an action was done.
    #[command(after_help = super::super::examples::DRILL_DONE)]
    Done {
        /// Of which drill, by its id or the end of it.
        #[arg(value_name = "ID")]
        id: String,
        /// Which of its actions, from 1.
        #[arg(value_name = "NUMBER")]
        action: usize,
        /// Who says so. Default: the user of this process.
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
        /// What else there is to say.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// List what has to be done, of all drills.
    #[command(after_help = super::super::examples::DRILL_ACTIONS)]
    Actions {
        /// Also those that were done.
        #[arg(long)]
        all: bool,
    },
}

/// How a report is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For a terminal.
    Text,
    /// The evidence itself.
    Json,
    /// For a document.
    Markdown,
    /// A page that needs nothing but itself.
    Html,
}
