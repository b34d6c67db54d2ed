//! The verb `drill`: choose a point → restore into a sandbox → check → measure → remove → evidence (docs/drills.md).
//!
//! It restores as `restore` does and checks as `verify --level app` does (DR-02), and never connects to what it is a drill of (DR-01). What is on the
//! disk if we die: the folder of the drill, which says that it began, and the sandbox, which the next command removes.

mod control;
pub mod evidence;
pub mod remarks;
pub mod report;
mod timeline;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lifeboat_engine::postgres::checks::Beat;
use lifeboat_model::check::{Outcome, Verdict};
use lifeboat_model::drill::{Span, draw, draw_one};
use lifeboat_model::wal::Target;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Backup, Identities, Instance, Repository, format_utc};

pub use evidence::{Said, Written};
pub use report::Report;
use report::{Check, Chosen, Cleanup, Failure, Measures, Objectives, Program, Step, Took, Used, Who};
use timeline::Timeline;

use crate::proof::{self, FailedChecks, Level, Proof};
use crate::protected::{Choice, Protected, choose};
use crate::reach;
use crate::restore::cluster::{self, Drilled};
use crate::restore::{CLEAN_UP, Findings, draw_id};
use crate::stores::{self, Survey};
use crate::verify;
use crate::words::counted;

/// Which moment is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The newest.
    Latest,
    /// One drawn by chance from everything that can be reached; by this seed, where one is given.
    Random(Option<u64>),
    /// That time, microseconds since 1970.
    At(i64),
}

/// A server's clock may be so much ahead of ours: a minute.
const AHEAD_US: i64 = 60_000_000;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which moment.
    pub point: Point,
    /// `by hand`, or the name of a plan.
    pub trigger: String,
    /// Who does it, and where.
    pub who: Who,
    /// With what.
    pub program: Program,
    /// What people are to look at.
    pub manual: Vec<String>,
    /// How long each phase may take, as the plan has it.
    pub phases: Vec<(String, Duration)>,
    /// How long other components of the same drill took.
    pub before: Took,
}

/// Does a drill. `scratch` is a name that does not exist yet, below a folder that is removed also when this is killed.
///
/// # Errors
/// Only where it could not be written down that it began, or what came of it; all else is in the report. Returned is also the kind of the error that ended it.
pub async fn run(
    env: &Env,
    protected: &Protected,
    identities: impl Future<Output = Result<Identities>>,
    request: &Request,
    scratch: PathBuf,
    instance: Option<&Instance>,
) -> Result<(Written, Option<ErrorKind>)> {
    let began_us = env.clock.wall_us();
    let mut report = begun(env, protected, request, began_us)?;
    let begun = evidence::begin(&protected.state_dir, &report)?;
    let (timeline, watched) = Timeline::begin(env);
    let asked = Asked {
        protected,
        request,
        scratch: &scratch,
        began_us,
    };
    let done = async { Box::pin(asked.restore(&watched, &identities.await?, &mut report)).await };
    let done = done.await;
    env.progress.finish();
    let over = timeline.now();
    let kind = done.as_ref().err().map(Error::kind);
    finish(env, protected, &mut report, &timeline, over, done);
    report.phases = request.before.and(Took::of(&report)).beside(&request.phases);
    report.ended_at = Some(format_utc(env.clock.wall_us()));
    let standing = report.standing(&vec![None; report.manual.len()]);
    report.verdict = report::underscored(standing.words());
    report.reasons = report.why();
    let folder = begun.finish(&report, instance)?;
    let written = Written {
        report,
        said: Vec::new(),
        remarks: Vec::new(),
        folder,
    };
    Ok((written, kind))
}

/// The report as far as it is known before anything is done.
fn begun(env: &Env, protected: &Protected, request: &Request, began_us: i64) -> Result<Report> {
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64());
    Ok(Report {
        schema: report::SCHEMA.to_owned(),
        id: draw_id(env)?,
        component: protected.component.to_string(),
        kind: protected.source.kind().to_owned(),
        trigger: request.trigger.clone(),
        who: request.who.clone(),
        program: request.program.clone(),
        began_at: format_utc(began_us),
        ended_at: None,
        objectives: Objectives {
            rto_s: seconds(protected.rto),
            rpo_s: seconds(protected.rpo),
        },
        point: Chosen::default(),
        backup: None,
        sandbox: None,
        steps: Vec::new(),
        phases: Vec::new(),
        measures: Measures::default(),
        checks: Vec::new(),
        manual: request.manual.clone(),
        verdict: String::new(),
        reasons: Vec::new(),
        notes: Vec::new(),
        cleanup: None,
        error: None,
    })
}

/// How new the restored data is.
#[derive(Debug, Clone, Copy)]
enum Newest {
    Heartbeat(i64),
    Log(i64),
    Backup(i64),
}

/// What came of a restore into the sandbox.
struct Done {
    backup: Backup,
    /// What it was read from; first of all, where several stores gave it.
    repository: Option<Repository>,
    findings: Findings,
    bytes: u64,
    newest: Newest,
}

/// Everything that a drill works on.
struct Asked<'a> {
    protected: &'a Protected,
    request: &'a Request,
    scratch: &'a Path,
    began_us: i64,
}

impl Asked<'_> {
    async fn restore(&self, env: &Env, identities: &Identities, report: &mut Report) -> Result<Done> {
        env.progress.step("choose the point", None);
        let survey = stores::survey(self.protected).await?;
        let away = survey.away.iter();
        report
            .notes
            .extend(away.map(|(name, error)| format!("the store {name} does not answer: {error}")));
        let listing = survey.listing();
        let latest = choose(&listing, &Choice::Latest, &self.protected.component)?;
        let mut done = match latest.header.log {
            Some(_) => self.cluster(env, &survey, identities, report).await?,
            None => self.backup(env, &survey, identities, report).await?,
        };
        if let Some(repository) = &done.repository {
            // Behind the clock: it proves the proof, and brings nothing back.
            let control = control::run(env, repository, &done.backup, identities).await;
            done.findings.checks.push(control);
        }
        Ok(done)
    }

    /// A backup that has no log behind it.
    async fn backup(&self, env: &Env, survey: &Survey, identities: &Identities, report: &mut Report) -> Result<Done> {
        let listing = survey.listing();
        let whole = listing
            .backups
            .iter()
            .filter(|backup| !backup.header.extract && !backup.header.incomplete);
        let mut whole: Vec<&Backup> = whole.collect();
        whole.sort_by_key(|backup| (backup.header.moment_us, backup.id));
        let chosen = match self.request.point {
            Point::Latest => {
                "latest".clone_into(&mut report.point.rule);
                choose(&listing, &Choice::Latest, &self.protected.component)?
            }
            Point::Random(seed) => {
                let moments: Vec<Span> = whole
                    .iter()
                    .map(|backup| (backup.header.moment_us, backup.header.moment_us))
                    .collect();
                let seed = drawn_from(env, &mut report.point, seed, &moments)?;
                let drawn = draw_one(seed, whole.len()).and_then(|place| whole.get(place).copied());
                drawn.ok_or_else(|| self.nothing("there is no backup to draw from"))?
            }
            Point::At(at_us) => {
                "time".clone_into(&mut report.point.rule);
                report.point.asked = Some(format_utc(at_us));
                let before = whole.iter().rev().find(|backup| backup.header.moment_us <= at_us).copied();
                before.ok_or_else(|| self.nothing(&format!("no backup is as old as {}", format_utc(at_us))))?
            }
        };
        let (mut first, holders) = (None, survey.holders(&chosen.id));
        for (store, repository, backup) in holders {
            report.backup = Some(self.used(&backup, vec![store.clone()], None));
            match self.read_from(env, &repository, &backup, identities, report).await {
                Ok(done) => return Ok(done),
                Err(error) if stores::worth_another_store(&error) => {
                    drop(verify::remember_damage(env, self.protected, &backup, &error));
                    report.notes.push(format!("the store {store} cannot give it: {error}"));
                    first.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(first.unwrap_or_else(|| self.nothing("no store holds it")))
    }

    async fn read_from(
        &self,
        env: &Env,
        repository: &Repository,
        backup: &Backup,
        identities: &Identities,
        report: &mut Report,
    ) -> Result<Done> {
        let scratch = self.scratch.to_path_buf();
        report.sandbox = Some(scratch.display().to_string());
        let (protected, asked) = (self.protected, (scratch.clone(), true));
        let mut findings = verify::restore_to_scratch(env, protected, repository, backup, identities, asked).await?;
        // A server says so itself.
        if protected.source.cluster().is_none() {
            findings.checks = as_checks(&findings, protected);
            findings.checks.push(apart(protected, &scratch));
        }
        Ok(Done {
            backup: backup.clone(),
            repository: Some(repository.clone()),
            newest: findings
                .newest_us
                .map_or(Newest::Backup(backup.header.moment_us), Newest::Heartbeat),
            findings,
            bytes: backup.header.size_bytes,
        })
    }

    /// A cluster, to any moment that its log reaches.
    async fn cluster(&self, env: &Env, survey: &Survey, identities: &Identities, report: &mut Report) -> Result<Done> {
        let target = match self.request.point {
            Point::Latest => {
                "latest".clone_into(&mut report.point.rule);
                Target::Latest
            }
            Point::Random(seed) => {
                let spans = self.windows(survey, identities).await?;
                let seed = drawn_from(env, &mut report.point, seed, &spans)?;
                let at_us = draw(seed, &spans).ok_or_else(|| self.nothing("there is no moment to draw from"))?;
                report.point.asked = Some(format_utc(at_us));
                Target::Time(None, at_us)
            }
            Point::At(at_us) => {
                "time".clone_into(&mut report.point.rule);
                report.point.asked = Some(format_utc(at_us));
                Target::Time(None, at_us)
            }
        };
        let protected = self.protected;
        durable_folder(self.scratch)?;
        let planned = cluster::plan_drill(env, protected, survey, identities, &target, self.scratch).await;
        let (scratch, options) = planned?;
        let plan = &scratch.plan;
        let store = options.store.clone().unwrap_or_default();
        let others = options.others.iter().map(|(name, _)| name.clone());
        let stores = std::iter::once(store).chain(others).collect();
        report.backup = Some(self.used(&plan.backup, stores, Some(plan.log_bytes)));
        report.sandbox = Some(plan.to.display().to_string());
        report.notes.extend(plan.notes.iter().cloned());
        // Before anything is restored: what is stored meanwhile is not in it.
        let complete_us = self.log_end(survey, &plan.backup).await;
        let drilled = cluster::drill(env, protected, &scratch, &options).await;
        let drilled = drilled.inspect_err(|error| drop(verify::remember_damage(env, protected, &plan.backup, error)))?;
        let newest = newest(complete_us, &plan.backup, &drilled, report);
        report.notes.extend(drilled.notes);
        report.notes.push(format!("the server stood at {}", drilled.until));
        let used = options.store.as_deref();
        let holders = survey.holders(&plan.backup.id).into_iter();
        let repository = holders.filter(|(store, _, _)| used.is_none_or(|used| used == store));
        let repository = repository.map(|(_, repository, _)| repository).next();
        Ok(Done {
            backup: plan.backup.clone(),
            repository,
            findings: drilled.findings,
            bytes: plan.backup.header.size_bytes.saturating_add(plan.log_bytes),
            newest,
        })
    }

    /// Until when the log behind a backup is complete, in whatever store reaches farthest; of a drill of the latest point.
    async fn log_end(&self, survey: &Survey, backup: &Backup) -> Option<i64> {
        if self.request.point != Point::Latest {
            return None;
        }
        let mut complete_us = None;
        for (store, repository, backup) in survey.holders(&backup.id) {
            let end = reach::log_end(self.protected, &store, &repository, &backup).await;
            complete_us = complete_us.max(end.ok().flatten().map(|end| end.until_us));
        }
        complete_us
    }

    /// Every moment that can be reached, in all stores and lineages.
    async fn windows(&self, survey: &Survey, identities: &Identities) -> Result<Vec<Span>> {
        let mut spans = Vec::new();
        for (_, repository, backups) in &survey.open {
            let listing = lifeboat_repo::Listing::of(backups.clone());
            for reach in reach::look(self.protected, repository, &listing, identities).await? {
                let windows = reach.reachable.windows().into_iter();
                spans.extend(windows.filter_map(|window| Some((window.from.at_us?, window.to.at_us?))));
            }
        }
        Ok(united(spans))
    }

    fn used(&self, backup: &Backup, stores: Vec<String>, log_bytes: Option<u64>) -> Used {
        let age_us = self.began_us.saturating_sub(backup.header.moment_us).max(0);
        Used {
            id: backup.id.short(),
            name: backup.id.to_string(),
            moment: format_utc(backup.header.moment_us),
            method: backup.header.method.clone(),
            size_bytes: backup.header.size_bytes,
            age_s: Duration::from_micros(age_us.unsigned_abs()).as_secs_f64(),
            stores,
            encrypted: !backup.header.recipients.is_empty(),
            log_bytes,
        }
    }

    fn nothing(&self, detail: &str) -> Error {
        Error::new(ErrorKind::NoSuchPoint, "drill", &self.protected.component, detail.to_owned())
            .with_hint("`lifeboat points` shows the moments that can be restored")
    }
}

/// A folder for what a restore stages beside it.
fn durable_folder(scratch: &Path) -> Result<()> {
    lifeboat_io::durable::create_folder(scratch)
}

/// Writes down what a point is drawn from, and by which seed.
fn drawn_from(env: &Env, point: &mut Chosen, seed: Option<u64>, spans: &[Span]) -> Result<u64> {
    let seed = match seed {
        Some(seed) => seed,
        None => {
            let mut random = [0; 8];
            env.entropy.fill(&mut random)?;
            u64::from_le_bytes(random)
        }
    };
    "random".clone_into(&mut point.rule);
    point.seed = Some(seed.to_string());
    point.drawn_from = spans.iter().map(|(from, to)| (format_utc(*from), format_utc(*to))).collect();
    Ok(seed)
}

/// Spans without those that lie in others: what two stores hold is not drawn twice as often.
fn united(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut united: Vec<Span> = Vec::new();
    for (from, to) in spans {
        match united.last_mut() {
            Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
            _ => united.push((from, to)),
        }
    }
    united
}

/// What a restore of a database or of files checks, as checks among others.
fn as_checks(findings: &Findings, protected: &Protected) -> Vec<Outcome> {
    let one = |name: &str, wrong: &[String], good: String| {
        if wrong.is_empty() {
            Outcome::passed(name, good)
        } else {
            let says = format!("{} found", counted(wrong.len() as u64, "problem"));
            Outcome::failed(name, says).with_evidence(wrong.iter().take(EVIDENCE).cloned().collect())
        }
    };
    let mut checks = findings.checks.clone();
    if protected.source.database().is_some() {
        checks.push(one(
            "integrity",
            &findings.integrity,
            "SQLite's full integrity check says ok".to_owned(),
        ));
        checks.push(one(
            "foreign keys",
            &findings.foreign_keys,
            "no row points to nothing".to_owned(),
        ));
        let (tables, rows) = (counted(findings.tables, "table"), counted(findings.rows, "row"));
        let good = format!("{tables} with {rows}: counts, schema and every page are those that were captured");
        checks.push(one("as captured", &findings.differences, good));
    } else {
        let (files, bytes) = (
            counted(findings.files, "file"),
            lifeboat_model::time::human_bytes(findings.bytes),
        );
        let good = format!("{files} with {bytes}: each is what was captured, with its mode and times");
        checks.push(one("as captured", &findings.differences, good));
    }
    checks
}

/// Lines of evidence that a check holds.
const EVIDENCE: usize = 10;

/// That the copy lies apart from the original.
fn apart(protected: &Protected, scratch: &Path) -> Outcome {
    let Some(original) = protected.source.path() else {
        return Outcome::passed(
            "isolation",
            format!("the copy was in {}, for this user alone", scratch.display()),
        );
    };
    let (copy, original) = (scratch.display().to_string(), original.display().to_string());
    let evidence = vec![format!("original: {original}"), format!("copy: {copy}")];
    // It was made for this drill, under a name that nothing had.
    if Path::new(&original).starts_with(scratch) {
        let says = "the original lies in the sandbox, which is removed";
        return Outcome::failed("isolation", says).with_evidence(evidence);
    }
    let says = "the copy lay apart, for this user alone; the original was not opened";
    Outcome::passed("isolation", says).with_evidence(evidence)
}

/// What can only be said when it is over.
fn finish(env: &Env, protected: &Protected, report: &mut Report, timeline: &Arc<Timeline>, over: Duration, done: Result<Done>) {
    let steps = timeline.steps();
    let cleaning = steps
        .iter()
        .find(|step| step.name == CLEAN_UP)
        .map_or(over, |step| step.offset);
    let ends = steps.iter().skip(1).map(|step| step.offset).chain([over]);
    report.steps = (steps.iter().zip(ends))
        .map(|(step, end)| Step {
            name: step.name.clone(),
            at: format_utc(step.at_us),
            offset_s: step.offset.as_secs_f64(),
            took_s: end.saturating_sub(step.offset).as_secs_f64(),
        })
        .collect();
    let cleaned_by = steps.iter().map(|step| step.offset).find(|offset| *offset > cleaning);
    report.measures.cleanup_s = Some(cleaned_by.unwrap_or(over).saturating_sub(cleaning).as_secs_f64());
    let sandbox = report.sandbox.clone().map(PathBuf::from);
    report.cleanup = sandbox.map(|sandbox| cleaned(&sandbox));
    let done = match done {
        Ok(done) => done,
        Err(error) => {
            report.error = Some(Failure {
                says: error.to_string(),
                hint: error.hint().map(str::to_owned),
            });
            return;
        }
    };
    report.checks = done.findings.checks.iter().map(Check::from).collect();
    report.notes.extend(done.findings.unchecked.iter().cloned());
    let (newest_us, by) = match done.newest {
        Newest::Heartbeat(at_us) => (at_us, "heartbeat"),
        Newest::Log(at_us) => (at_us, "log"),
        Newest::Backup(at_us) => (at_us, "backup"),
    };
    report.measures.recovery_point = Some(format_utc(newest_us));
    report.measures.recovery_point_by = Some(by.to_owned());
    let failed: Vec<&Outcome> = (done.findings.checks.iter())
        .filter(|check| check.verdict == Verdict::Failed)
        .collect();
    if failed.is_empty() {
        report.measures.recovery_s = Some(cleaning.as_secs_f64());
        let rate = report::rate(done.bytes, cleaning);
        report.measures.bytes_per_s = rate;
    }
    if report.point.rule == "latest" {
        let began_us = steps.first().map_or_else(|| env.clock.wall_us(), |step| step.at_us);
        match loss(began_us, newest_us) {
            Ok(loss) => report.measures.loss_s = Some(loss.as_secs_f64()),
            Err(wrong) => report.checks.push(Check::from(&wrong)),
        }
    }
    if let Err(error) = remember(env, protected, &done, &failed, cleaning) {
        report
            .notes
            .push(format!("the proof could not be remembered for `status`: {error}"));
    }
}

/// How new the data of a cluster is: by the heartbeat, otherwise by where the log is complete.
fn newest(complete_us: Option<i64>, backup: &Backup, drilled: &Drilled, report: &mut Report) -> Newest {
    let commit = |commit: &crate::wal::Commit| format!("{} at {}", format_utc(commit.at_us), commit.end);
    report.measures.last_commit = drilled.bracket.last.as_ref().map(commit);
    report.measures.first_commit_left_out = drilled.bracket.next.as_ref().map(commit);
    let beat = drilled.replayed.as_ref().and_then(|replayed| replayed.heartbeat.as_ref());
    if let Some(Beat::At(at_us)) = beat {
        return Newest::Heartbeat(*at_us);
    }
    let last_us = drilled.bracket.last.as_ref().map(|last| last.at_us);
    complete_us
        .max(last_us)
        .map_or(Newest::Backup(backup.header.moment_us), Newest::Log)
}

/// How much would have been lost: from the newest moment in the data to the beginning of the drill. Nobody knows where that moment is yet to come.
fn loss(began_us: i64, newest_us: i64) -> std::result::Result<Duration, Outcome> {
    let loss_us = began_us.saturating_sub(newest_us);
    if loss_us.saturating_add(AHEAD_US) < 0 {
        let says = format!(
            "the newest moment in the data is {}, which is yet to come: the clock of this machine or of the one that wrote it is wrong, so nobody knows how much \
             would have been lost",
            format_utc(newest_us)
        );
        return Err(Outcome::not_available("clock", says));
    }
    Ok(Duration::from_micros(loss_us.max(0).unsigned_abs()))
}

/// What became of a sandbox.
fn cleaned(sandbox: &Path) -> Cleanup {
    let there = sandbox.symlink_metadata();
    let removed = matches!(&there, Err(error) if error.kind() == std::io::ErrorKind::NotFound);
    let path = sandbox.display();
    Cleanup {
        removed,
        says: match removed {
            true => format!("{path} was removed, and is not there any more"),
            false => format!("{path} could not be removed: the next command tries again"),
        },
    }
}

/// For `status`, estimates and `prune`.
fn remember(env: &Env, protected: &Protected, done: &Done, failed: &[&Outcome], took: Duration) -> Result<()> {
    let (state_dir, component) = (&protected.state_dir, &protected.component);
    let (backup, at_us) = (done.backup.id.to_string(), env.clock.wall_us());
    if failed.is_empty() {
        // Where nothing more is asked there are no checks but those of a restore.
        let level = if protected.source.asks_more() {
            Level::App
        } else {
            Level::Restore
        };
        let proof = Proof {
            backup,
            level,
            at_us,
            took_s: took.as_secs_f64(),
            bytes: done.bytes,
        };
        return proof::record(state_dir, component, proof);
    }
    let says: Vec<String> = failed.iter().map(|check| format!("{}: {}", check.name, check.says)).collect();
    let failed = FailedChecks {
        backup,
        level: Level::App,
        at_us,
        says: says.join("; "),
    };
    proof::record_failed_checks(state_dir, component, failed)
}
