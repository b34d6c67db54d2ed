//! The command line: what may be typed, and the examples that `--help` shows.
//!
//! Only words and their meaning: nothing here reads a file or does anything.

mod audit;
mod backup;
pub(crate) mod checklist;
mod config;
pub(crate) mod diff;
pub(crate) mod drill;
mod export;
mod import;
mod init;
pub(crate) mod kit;
mod log;
pub(crate) mod undelete;
mod upkeep;
mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::examples;
pub(crate) use audit::{Audit, AuditList, Audited, Catalog};
pub(crate) use backup::{Backup, BackupMethod, TenantMap};
pub(crate) use config::Config;
pub(crate) use export::ExportFormat;
pub(crate) use import::Import;
pub(crate) use init::{EncryptChoice, Init};
pub(crate) use kit::Bootstrap;
pub(crate) use log::{Follow, Wal};
pub(crate) use upkeep::{Copy, Hold, Prune, Show, Store};
pub(crate) use verify::{LevelChoice, Verify};

/// Back up, restore, and prove that restoring works.
#[derive(Debug, Parser)]
#[command(name = "lifeboat", version, about, after_help = examples::TOP, disable_help_subcommand = false, max_term_width = 110)]
pub(crate) struct Cli {
    /// What applies to every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// The verb.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// The configuration; without it, lifeboat.yaml is searched for.
    #[arg(long, global = true, value_name = "FILE", env = "LIFEBOAT_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Print the result, errors included, as JSON on stdout.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How progress is shown on stderr.
    #[arg(long, global = true, value_name = "HOW", default_value = "auto", env = "LIFEBOAT_PROGRESS")]
    pub(crate) progress: ProgressMode,
    /// Print only the result and errors.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say on stderr what is done and with what.
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A bar on a terminal, lines otherwise.
    Auto,
    /// A bar.
    Bar,
    /// A line every 30 seconds or 10 percent.
    Plain,
    /// The same lines as JSON, for programs.
    Json,
    /// Nothing.
    None,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Find databases here, write lifeboat.yaml, make keys, take the first backup and prove that it restores.
    #[command(after_help = examples::INIT)]
    Init(Init),
    /// The whole story on an embedded example: backup, disaster, restore, proof.
    #[command(after_help = examples::DEMO)]
    Demo(Demo),
    /// Can I recover? To which moment? Losing how much? How long will it take? Proven when?
    #[command(after_help = examples::STATUS)]
    Status(Status),
    /// Look at the whole set-up and say in plain sentences what to fix.
    #[command(after_help = examples::DOCTOR)]
    Doctor,
    /// Take a backup.
    #[command(after_help = examples::BACKUP)]
    Backup(Backup),
    /// Follow the log of PostgreSQL clusters into their stores, until Ctrl-C or SIGTERM: then every moment can be restored.
    #[command(after_help = examples::FOLLOW)]
    Follow(Follow),
    /// For PostgreSQL's own settings: take a file of its log, or give one back.
    #[command(after_help = examples::WAL)]
    Wal {
        /// What to do.
        #[command(subcommand)]
        command: Wal,
    },
    /// List backups, or what is in an old file of another program.
    #[command(after_help = examples::LIST)]
    List(Listed),
    /// Show everything that is known about one backup.
    #[command(after_help = examples::SHOW)]
    Show(Show),
    /// Show the moments that can be restored.
    #[command(after_help = examples::POINTS)]
    Points(Listed),
    /// Run the checks of a component: on a restored copy or any database that nobody uses; of PostgreSQL what the configuration asks, of the live
    /// databases or a restored one, only reading.
    #[command(after_help = examples::CHECK)]
    Check(Check),
    /// Bring a store what it lacks, from another one. Needs no private key.
    #[command(after_help = examples::COPY)]
    Copy(Copy),
    /// Restore: beside the original by default, checked, and given its name last.
    #[command(after_help = examples::RESTORE, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Restore(Box<Restore>),
    /// Propose whose the rows of each table are: the file that `tenants: { map: … }` names.
    #[command(after_help = examples::TENANT_MAP)]
    TenantMap(TenantMap),
    /// Take an old backup file of another program over as a backup.
    #[command(after_help = examples::IMPORT)]
    Import(Import),
    /// Say what differs between two backups, or between a backup and the database as it is now.
    #[command(after_help = examples::DIFF)]
    Diff(diff::Diff),
    /// Bring rows back that the application of a PostgreSQL database only marked as deleted: shown first, in one transaction, and recorded.
    #[command(after_help = examples::UNDELETE)]
    Undelete(undelete::Undelete),
    /// Prove that backups are good, up to restoring them into a scratch folder.
    #[command(after_help = examples::VERIFY)]
    Verify(Verify),
    /// Restore into a sandbox, check and measure, and leave evidence: what production is like does not matter.
    #[command(after_help = examples::DRILL, args_conflicts_with_subcommands = true)]
    Drill(drill::Drill),
    /// Show what of the checklists holds, and say of a line that it is so.
    #[command(after_help = examples::CHECKLIST, args_conflicts_with_subcommands = true)]
    Checklist(checklist::Checklist),
    /// Set up the places where backups rest, look at their set-up, make their locks longer.
    #[command(after_help = examples::STORE)]
    Store {
        /// What to do.
        #[command(subcommand)]
        command: Store,
    },
    /// Say of every backup why it stays or goes, and delete what has been given up long enough.
    #[command(after_help = examples::PRUNE)]
    Prune(Prune),
    /// Hold backups: nobody deletes them until they are released.
    #[command(after_help = examples::HOLD)]
    Hold {
        /// What to do.
        #[command(subcommand)]
        command: Hold,
    },
    /// What was done, by whom and what came of it: the signed ledger in the stores.
    #[command(after_help = examples::AUDIT)]
    Audit {
        /// What to do.
        #[command(subcommand)]
        command: Audit,
    },
    /// This machine's cache of the ledger.
    #[command(after_help = examples::CATALOG)]
    Catalog {
        /// What to do.
        #[command(subcommand)]
        command: Catalog,
    },
    /// Check, show or describe the configuration.
    #[command(after_help = examples::CONFIG)]
    Config {
        /// What to do with it.
        #[command(subcommand)]
        command: Config,
    },
    /// Make a key, or prove that the key at hand opens the backups.
    #[command(after_help = examples::KEY)]
    Key {
        /// What to do.
        #[command(subcommand)]
        command: Key,
    },
    /// Print what people need on paper when nothing else is left: stores, keys, order of recovery, scenarios, contacts; no secret.
    #[command(after_help = examples::KIT)]
    Kit(kit::Kit),
    /// Begin on a bare machine with nothing but the store and the private key: find the recovery kit, bring the configuration back, list what can
    /// be restored.
    #[command(after_help = examples::BOOTSTRAP)]
    Bootstrap(Bootstrap),
    /// Print completions for a shell.
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write a manual page for every command.
    #[command(after_help = examples::MAN)]
    Man {
        /// The folder for the pages.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Print the table of exit codes.
    #[command(alias = "help-exit-codes", after_help = examples::EXIT_CODES)]
    ExitCodes,
    /// Writes to the demo's database until it is killed.
    #[command(hide = true)]
    DemoWriter {
        /// The database.
        path: PathBuf,
    },
}

/// `demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Work in this new folder and leave everything there to look at.
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}

/// `status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// SYSTEM or SYSTEM/COMPONENT; without it, all.
    #[arg(value_name = "WHAT")]
    pub(crate) what: Vec<String>,
    /// One line and an exit code for Nagios and what speaks like it: 0 ready, 1 at risk, 2 not ready, 3 unknown.
    #[arg(long, conflicts_with = "json")]
    pub(crate) nagios: bool,
}

/// `points`.
#[derive(Debug, Args)]
pub(crate) struct Optional {
    /// SYSTEM or SYSTEM/COMPONENT; without it, all.
    #[arg(value_name = "WHAT")]
    pub(crate) what: Option<String>,
}

/// `list`, `points`.
#[derive(Debug, Args)]
pub(crate) struct Listed {
    /// SYSTEM or SYSTEM/COMPONENT; without it, all.
    #[arg(value_name = "WHAT")]
    pub(crate) what: Option<String>,
    /// Only this store: a name of the configuration, a folder or `s3://BUCKET/PREFIX`; without it, all stores of a component. Of `list` also
    /// an old backup file of another program to look into.
    #[arg(long, value_name = "STORE|FILE")]
    pub(crate) from: Option<String>,
}

/// `check`.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// SYSTEM or SYSTEM/COMPONENT.
    #[arg(value_name = "WHAT")]
    pub(crate) what: String,
    /// Check this database instead of a copy restored from the newest backup. Of PostgreSQL: this one of the server, by its name or as
    /// `postgresql://USER@HOST/NAME`, instead of the live ones.
    #[arg(long, value_name = "PATH|DATABASE")]
    pub(crate) on: Option<PathBuf>,
    /// Ask only the live application, by the `probes` of the system.
    #[arg(long, conflicts_with = "on")]
    pub(crate) probes: bool,
}

/// `restore`.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// `restore undo`, `restore export`.
    #[command(subcommand)]
    pub(crate) command: Option<RestoreCommand>,
    /// SYSTEM or SYSTEM/COMPONENT.
    #[arg(value_name = "WHAT", required = true)]
    pub(crate) what: Option<String>,
    /// Which moment.
    #[command(flatten)]
    pub(crate) point: Point,
    /// Read only from this store: a name of the configuration, a folder or `s3://BUCKET/PREFIX`; or an old backup file of another program,
    /// such as pg_dump.
    #[arg(long, value_name = "STORE|FILE")]
    pub(crate) from: Option<String>,
    /// Which database, where the file given with --from holds several.
    #[arg(long, value_name = "PATH", requires = "from")]
    pub(crate) member: Option<String>,
    /// Of a backup of files: only what this pattern names, below the root; may be repeated.
    #[arg(long, value_name = "GLOB")]
    pub(crate) path: Vec<String>,
    /// Of a PostgreSQL cluster: where the tablespace of this number goes, `OID=PATH`; may be repeated. Without it, beside the new directory.
    #[arg(long, value_name = "OID=PATH")]
    pub(crate) tablespace: Vec<String>,
    /// Of a PostgreSQL cluster: along the way to this timeline, instead of the newest.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) timeline: Option<u32>,
    /// Of a PostgreSQL cluster that was set back to an earlier moment: in the lineage whose id begins so (`lifeboat points`), instead of the newest
    /// that reaches back to what is wanted.
    #[arg(long, value_name = "ID")]
    pub(crate) lineage: Option<String>,
    /// Of a PostgreSQL cluster: do not replay the log here; the server does it when it is started there.
    #[arg(long)]
    pub(crate) no_replay: bool,
    /// Of a logical backup: which of its databases. Of a dump of PostgreSQL (--from FILE): of which database it is.
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Of a logical backup: only these tables, `TABLE` or `SCHEMA.TABLE`, into a new schema (--to) of the live database; with --in-place, their rows
    /// into the live tables: what is missing or changed is shown first.
    #[arg(long, value_name = "TABLE,…", value_delimiter = ',')]
    pub(crate) tables: Vec<String>,
    /// With --tables and --in-place: rows that were not there then go.
    #[arg(long)]
    pub(crate) delete: bool,
    /// Of a logical backup: only the rows of this tenant, into the live database (with --in-place or --dry-run); what would change is shown first.
    #[arg(long, value_name = "ID", conflicts_with_all = ["tables", "to", "overwrite", "no_owner", "database"])]
    pub(crate) tenant: Option<String>,
    /// With --tenant: for the tenant of this name, instead of the one that had the rows.
    #[arg(long = "as", value_name = "ID", requires = "tenant")]
    pub(crate) as_tenant: Option<String>,
    /// Of a logical backup: everything belongs to whoever restores, and nobody else has rights.
    #[arg(long)]
    pub(crate) no_owner: bool,
    /// Of a backup of files: also make links that lead out of the restored folder.
    #[arg(long)]
    pub(crate) outside_links: bool,
    /// The new file or folder; without it, a new name beside the original. Of a logical backup: the new database, by its name or as
    /// `postgresql://USER@HOST/NAME`.
    #[arg(long, value_name = "PATH|DATABASE")]
    pub(crate) to: Option<PathBuf>,
    /// Replace what lies at --to; its old files are kept for `restore undo`. A PostgreSQL cluster is written onto, which keeps what is right in
    /// it, and nothing for `restore undo`.
    #[arg(long, requires = "to", conflicts_with = "in_place")]
    pub(crate) overwrite: bool,
    /// Go on after a failure: what an earlier run of the same restore put in its place is left there.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Replace the original (of a PostgreSQL cluster also: what lies at --to); its old files are kept for `restore undo`.
    #[arg(long)]
    pub(crate) in_place: bool,
    /// Print the plan, touch nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Why; kept with the backup that follows an in-place restore.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Publish also if SQLite's integrity check finds problems that the original had when it was backed up, or if `checks` of the configuration fail
    /// in a restored PostgreSQL database.
    #[arg(long)]
    pub(crate) accept_findings: bool,
}

/// Which backup to take.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
pub(crate) struct Point {
    /// By number or name (`12-3fa9c1d2`).
    #[arg(long, value_name = "ID")]
    pub(crate) backup: Option<String>,
    /// Taken at exactly this time; with zone: 2026-11-21T02:10:03Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// The newest taken at or before this time; with zone.
    #[arg(long, value_name = "TIME")]
    pub(crate) before: Option<String>,
    /// Of a PostgreSQL cluster: everything up to this position of its log (`0/3000060`).
    #[arg(long, value_name = "LSN")]
    pub(crate) lsn: Option<String>,
}

/// What belongs to `restore` besides restoring.
#[derive(Debug, Subcommand)]
pub(crate) enum RestoreCommand {
    /// Take an in-place restore back: the old files return to their place.
    #[command(after_help = examples::UNDO)]
    Undo {
        /// The id that the restore printed.
        id: String,
    },
    /// Put a copy that was restored beside the original in its place; the old files are kept for `restore undo`.
    #[command(after_help = examples::PROMOTE)]
    Promote {
        /// The id that the restore printed.
        id: String,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
        /// Why; kept with the backup that follows.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Promote also if SQLite's integrity check finds problems in the copy.
        #[arg(long)]
        accept_findings: bool,
    },
    /// Write a backup in a form that others read: a database, SQL text (`--to X.sql`), an archive for `pg_restore`, CSV, or one of its extracts.
    #[command(after_help = examples::EXPORT)]
    Export {
        /// SYSTEM or SYSTEM/COMPONENT.
        #[arg(value_name = "WHAT")]
        what: String,
        /// The new file; the new folder of CSV.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Which backup.
        #[arg(long, value_name = "ID", default_value = "latest")]
        backup: String,
        /// Of a logical backup: as what; without it, SQL text.
        #[arg(long, value_name = "FORMAT", conflicts_with = "extract")]
        format: Option<ExportFormat>,
        /// Not the database, but this extract of it (`show` names them).
        #[arg(long, value_name = "NAME")]
        extract: Option<String>,
        /// Of a logical backup: which of its databases.
        #[arg(long, value_name = "NAME", conflicts_with = "extract")]
        database: Option<String>,
    },
}

/// `key list`, `key rotate`.
#[derive(Debug, Args)]
pub(crate) struct Selected {
    /// Systems or components; all of them when left out.
    pub(crate) what: Vec<String>,
}

/// `key add`, `key remove`.
#[derive(Debug, Args)]
pub(crate) struct KeyChange {
    /// The public key: `age1…` or `ssh-… …` in quotation marks; for `remove` also its fingerprint as `key list` shows it.
    pub(crate) recipient: String,
    /// Systems or components; all of them when left out.
    pub(crate) what: Vec<String>,
}

/// `key`.
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key pair; the private key goes into a new file.
    #[command(after_help = examples::KEY_NEW)]
    New {
        /// The new file.
        path: PathBuf,
        /// Protect it with a passphrase, asked for on the terminal.
        #[arg(long)]
        passphrase: bool,
    },
    /// Show who can open which backups, and how old their keys are; needs no private key.
    #[command(after_help = examples::KEY_LIST)]
    List(Selected),
    /// Let one more recipient open what is there: their key files are wrapped anew. Needs a private key.
    #[command(after_help = examples::KEY_ADD)]
    Add(KeyChange),
    /// Take a recipient out: key files are replaced, and the next backup is a full one under new keys. Needs a private key.
    #[command(after_help = examples::KEY_REMOVE)]
    Remove(KeyChange),
    /// Make the next backup a full one under new keys. Run it on the machine that makes the backups.
    #[command(after_help = examples::KEY_ROTATE)]
    Rotate(Selected),
    /// Prove that every private key at hand opens the newest backup of every component in every store.
    #[command(after_help = examples::KEY_CHECK)]
    Check,
    /// Print the private key that a passphrase stands for (BACKUP_ENCRYPTION_KEY, or asked for): `age -d -i` and recover.py take it.
    #[command(after_help = examples::KEY_DERIVE)]
    Derive,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::Cli;

    /// Every visible command below `command` and the lines of its help that are commands to type.
    fn examples(command: &clap::Command, path: &str, found: &mut Vec<(String, Vec<String>)>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let lines = help
            .lines()
            .filter(|line| line.starts_with("  lifeboat "))
            .map(str::to_owned)
            .collect();
        found.push((path.to_owned(), lines));
        assert!(command.get_about().is_some(), "`{path}` does not say what it does");
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            examples(sub, &format!("{path} {}", sub.get_name()), found);
        }
    }

    #[test]
    fn every_command_says_what_it_does_and_shows_examples_that_parse() {
        let mut found = Vec::new();
        examples(&Cli::command(), "lifeboat", &mut found);
        assert!(found.len() >= 20, "only {} commands were looked at", found.len());
        for (path, lines) in found {
            assert!(lines.len() >= 3, "`{path}` shows {} examples", lines.len());
            for line in lines {
                // What stands after two blanks is a remark; what stands after a shell operator is the shell's.
                let words = line
                    .trim_start()
                    .split("  ")
                    .next()
                    .unwrap()
                    .split([';', '>'])
                    .next()
                    .unwrap();
                let words = words.replace("[--backup ID]", "--backup 1");
                // Quoted text is one word.
                let quoted = words.split('\'').enumerate().map(|(place, part)| match place % 2 {
                    0 => part.to_owned(),
                    _ => part.replace(' ', "_"),
                });
                let plain: String = quoted.collect();
                if let Err(error) = Cli::try_parse_from(plain.split_whitespace()) {
                    panic!("`{path}` shows `{words}`: {error}");
                }
            }
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
