//! Words of `audit` and `catalog`.

use clap::{Args, Subcommand};

use super::super::examples;

/// `audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Look at every record in every store: whole, signed by a known instance, in its place, none missing. Ends with 5 where anything is wrong.
    #[command(after_help = examples::AUDIT_VERIFY)]
    Verify(Audited),
    /// List what was done, newest last.
    #[command(after_help = examples::AUDIT_LIST)]
    List(AuditList),
    /// Bring every store the records that it lacks: those that wait on this machine, and those that another store holds.
    #[command(after_help = examples::AUDIT_SHIP)]
    Ship(Audited),
}

/// `audit verify`, `audit ship`, `catalog rebuild`.
#[derive(Debug, Args)]
pub(crate) struct Audited {
    /// SYSTEM or SYSTEM/COMPONENT; without it, all.
    #[arg(value_name = "WHAT")]
    pub(crate) what: Vec<String>,
}

/// `audit list`.
#[derive(Debug, Args)]
pub(crate) struct AuditList {
    /// SYSTEM or SYSTEM/COMPONENT; without it, all.
    #[arg(value_name = "WHAT")]
    pub(crate) what: Vec<String>,
    /// Only records of this verb (`backup`, `restore`, `config`, …); may be repeated.
    #[arg(long, value_name = "VERB")]
    pub(crate) verb: Vec<String>,
    /// Only what failed, was interrupted or is incomplete.
    #[arg(long)]
    pub(crate) failed: bool,
    /// Only records since then: a time with zone, or how long ago (`7d`).
    #[arg(long, value_name = "TIME|DURATION")]
    pub(crate) since: Option<String>,
}

/// `catalog`.
#[derive(Debug, Subcommand)]
pub(crate) enum Catalog {
    /// Make the catalog of this machine anew from the stores, tell `status` what the ledger proves, and checklists what people said.
    #[command(after_help = examples::CATALOG_REBUILD)]
    Rebuild(Audited),
}
