//! The story, chapter by chapter, with times and sizes.

use std::path::Path;
use std::time::Duration;

use lifeboat_io::compute;
use lifeboat_model::readiness::Standing;
use lifeboat_model::time::{human_bytes, human_duration};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::backup;
use lifeboat_ops::protected::{Choice, choose};
use lifeboat_ops::restore::{self, Destination};
use lifeboat_ops::status;
use lifeboat_ops::verify::{self, Level};
use serde_json::{Value, json};

use super::super::Cx;
use super::world::{Compared, World};
use super::writer::FIRST_ROWS;
use crate::render::{tell, text};

/// Orders written between the two backups.
const MORE_ROWS: u64 = 400;

/// What the demo measured.
#[derive(Debug)]
pub(super) struct Summary {
    database_bytes: u64,
    first: backup::Report,
    second: backup::Report,
    restore_took: Duration,
    compared: Compared,
    noticed: String,
    took: Duration,
}

impl Summary {
    pub(super) fn text(&self, kept: Option<&Path>) -> String {
        let mut said = format!(
            "\nThe database was lost and is back: {} orders, every one as its writer knew it, {} in {}.\n\
             Lost were the {} orders confirmed after the last backup: that is what a recovery point objective promises.\n\
             The whole story took {}.\n",
            self.compared.rows,
            human_bytes(self.database_bytes),
            human_duration(self.restore_took),
            self.compared.lost,
            human_duration(self.took),
        );
        match kept {
            Some(folder) => said.push_str(&format!(
                "\nEverything is in {0}. To look around:\n  lifeboat --config {0}/lifeboat.yaml status\n  lifeboat --config {0}/lifeboat.yaml list\n",
                folder.display()
            )),
            None => said.push_str("\nYour turn: `lifeboat init` finds the SQLite databases below the current folder.\n"),
        }
        said
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "database_bytes": self.database_bytes,
            "first_backup": { "took_s": self.first.took.as_secs_f64(), "stored_bytes": self.first.stats.stored_bytes },
            "second_backup": {
                "took_s": self.second.took.as_secs_f64(),
                "changed_bytes": self.second.stats.changed_bytes,
                "stored_bytes": self.second.stats.stored_bytes,
            },
            "restore": { "took_s": self.restore_took.as_secs_f64(), "rows": self.compared.rows, "rows_after_last_backup": self.compared.lost },
            "damage_noticed": self.noticed,
            "took_s": self.took.as_secs_f64(),
        })
    }
}

struct Chapters<'a> {
    cx: &'a Cx,
    number: u32,
}

impl Chapters<'_> {
    fn open(&mut self, title: &str) {
        self.number += 1;
        if !self.cx.out.quiet {
            tell(&format!("\n{}. {title}", self.number));
        }
    }

    fn say(&self, line: &str) {
        if !self.cx.out.quiet {
            tell(&format!("   {line}"));
        }
    }
}

pub(super) async fn run(cx: &Cx, mut world: World) -> Result<Summary> {
    let began = cx.env.clock.monotonic();
    let mut book = Chapters { cx, number: 0 };
    book.open("An application writes to a SQLite database");
    world.wait_for(FIRST_ROWS.unsigned_abs()).await?;
    let size = |world: &World| world.database.metadata().map_or(0, |meta| meta.len());
    book.say(&format!(
        "{}: WAL mode, one process that never stops writing",
        world.database.display()
    ));

    let first = back_up(&mut book, &world, "First backup, encrypted, while it writes").await?;
    let so_far = world.confirmed()?;
    book.open("The application goes on");
    let acknowledged = world.wait_for(so_far + MORE_ROWS).await?;
    book.say(&format!(
        "{} more orders confirmed, {acknowledged} in all",
        acknowledged - so_far
    ));
    let second = back_up(&mut book, &world, "Second backup: only what changed").await?;

    book.open("Disaster");
    let noted = world.wait_for(world.confirmed()? + 50).await?;
    world.kill_writer().await?;
    let database_bytes = size(&world);
    let destroyed = world.destroy()?;
    book.say(&format!(
        "the application is killed; {} in the middle of the database are overwritten; its -wal is left behind",
        human_bytes(destroyed)
    ));
    show_damage(&book, &world).await?;

    let (restored, compared) = Box::pin(bring_back(&mut book, &mut world, acknowledged, noted)).await?;
    let noticed = break_a_pack(&mut book, &world).await?;
    answer(&mut book, &world).await?;
    world.write_configuration(&durable_parent(&world))?;
    let took = cx.env.clock.monotonic().saturating_sub(began);
    Ok(Summary {
        database_bytes,
        first,
        second,
        restore_took: restored.took,
        compared,
        noticed,
        took,
    })
}

fn durable_parent(world: &World) -> std::path::PathBuf {
    lifeboat_io::durable::parent_of(&world.store)
}

async fn back_up(book: &mut Chapters<'_>, world: &World, title: &str) -> Result<backup::Report> {
    book.open(title);
    let report = backup::run(
        &book.cx.env,
        &world.protected,
        std::sync::Arc::clone(&world.instance),
        backup::Request::default(),
    )
    .await?;
    book.cx.env.progress.finish();
    book.say(&format!(
        "{} read, {} changed, {} stored, in {} ({})",
        human_bytes(report.stats.read_bytes),
        human_bytes(report.stats.changed_bytes),
        human_bytes(report.stats.stored_bytes),
        human_duration(report.took),
        text::rate(report.stats.read_bytes, report.took),
    ));
    let rows: u64 = report.facts.sqlite().map_or(0, |facts| facts.tables.values().sum());
    book.say(&format!(
        "backup {}: {rows} rows counted in the same transaction",
        report.backup.id.short()
    ));
    Ok(report)
}

/// What SQLite itself says about the damaged file.
async fn show_damage(book: &Chapters<'_>, world: &World) -> Result<()> {
    let path = world.database.clone();
    let words = compute::run("look at the damage", move || Ok(super::world::verdict(&path))).await?;
    if words == "ok" {
        return Err(Error::new(
            ErrorKind::Bug,
            "destroy",
            "the demo's database",
            "SQLite still finds it in order",
        ));
    }
    book.say(&format!("SQLite says: {words}"));
    Ok(())
}

async fn bring_back(
    book: &mut Chapters<'_>,
    world: &mut World,
    acknowledged: u64,
    noted: u64,
) -> Result<(restore::Report, Compared)> {
    book.open("Restore, in place");
    let env = &book.cx.env;
    let repository = world.protected.repository().await?;
    let listing = world.protected.listing(&repository).await?;
    let newest = choose(&listing, &Choice::Latest, &world.protected.component)?;
    let destination = Destination::InPlace {
        path: world.database.clone(),
    };
    let restored = restore::run(
        env,
        &world.protected,
        &repository,
        newest,
        &world.identities,
        destination,
        false,
    )
    .await?;
    env.progress.finish();
    book.say(&format!(
        "{} fetched, verified and written in {}",
        human_bytes(restored.fetched.fetched_bytes),
        human_duration(restored.took)
    ));
    book.say(&format!(
        "integrity check ok, {} rows in {} tables as captured, page root equal",
        restored.findings.rows, restored.findings.tables
    ));
    if let Some(folder) = &restored.undo_folder {
        book.say(&format!(
            "the destroyed files are kept for undo in {}",
            folder.file_name().unwrap_or_default().to_string_lossy()
        ));
    }
    let compared = world.compare(acknowledged)?;
    book.say(&format!(
        "{} orders compared one by one with the writer's own notes: all equal; {} of {noted} or more were written after the backup",
        compared.rows, compared.lost
    ));
    let fresh = backup::run(
        env,
        &world.protected,
        std::sync::Arc::clone(&world.instance),
        backup::Request::default(),
    )
    .await?;
    book.say(&format!(
        "a fresh backup protects the restored state: {} stored",
        human_bytes(fresh.stats.stored_bytes)
    ));
    Ok((restored, compared))
}

async fn break_a_pack(book: &mut Chapters<'_>, world: &World) -> Result<String> {
    book.open("One bit of the store flips");
    let pack = world.flip_bit()?;
    book.say(&format!("in {}", pack.file_name().unwrap_or_default().to_string_lossy()));
    let noticed = prove(book, world, Level::Decrypt).await;
    world.flip_bit()?;
    match noticed {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            book.say(&format!("verify notices: {error}"));
            book.say("(the bit is put back, so that the store is whole again)");
            Ok(error.to_string())
        }
        Err(error) => Err(error),
        Ok(_) => Err(Error::new(
            ErrorKind::Bug,
            "notice",
            pack.display(),
            "a flipped bit passed the verification",
        )),
    }
}

async fn prove(book: &Chapters<'_>, world: &World, level: Level) -> Result<verify::Report> {
    let repository = world.protected.repository().await?;
    let listing = world.protected.listing(&repository).await?;
    let newest = choose(&listing, &Choice::Latest, &world.protected.component)?;
    let scratch = verify::scratch_folder(&book.cx.env, &world.protected)?;
    let report = verify::run(
        &book.cx.env,
        &world.protected,
        &repository,
        newest,
        level,
        &world.identities,
        scratch,
    )
    .await;
    book.cx.env.progress.finish();
    report
}

async fn answer(book: &mut Chapters<'_>, world: &World) -> Result<()> {
    book.open("Can I recover?");
    let report = prove(book, world, Level::Restore).await?;
    book.say(&format!(
        "verify --level restore: restored beside, checked and removed again in {}",
        human_duration(report.took)
    ));
    let status = status::run(&book.cx.env, &world.protected).await;
    let readiness = status.readiness();
    if readiness.standing != Standing::Ready {
        let says: Vec<&str> = readiness.reasons.iter().map(|reason| reason.says.as_str()).collect();
        return Err(Error::new(
            ErrorKind::Failed,
            "end",
            "the demo",
            format!("the component is {}: {}", readiness.standing.words(), says.join("; ")),
        ));
    }
    let now = book.cx.env.clock.wall_us();
    let moment = status.latest.as_ref().map_or(now, |backup| backup.header.moment_us);
    let expected = status
        .restore
        .map(|estimate| human_duration(estimate.expected))
        .unwrap_or_default();
    book.say(&format!(
        "yes: to {}, losing what was written since, in about {expected}; proven just now",
        text::time(moment)
    ));
    Ok(())
}
