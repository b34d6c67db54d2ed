//! The verb `check`, of a PostgreSQL component: what the configuration wants of its databases, asked of the live ones or of a restored one. Nothing is
//! written: each check is a transaction that only reads.

use lifeboat_engine::postgres::checks::{self, Assertion};
use lifeboat_engine::postgres::sql::Sql;
use lifeboat_engine::postgres::{ConnInfo, Surroundings};
use lifeboat_model::check::{Outcome, Verdict};
use lifeboat_model::{Env, Error, ErrorKind, Result};

use crate::protected::Protected;
use crate::restore::logical::place;

/// What was asked.
#[derive(Debug)]
#[must_use]
pub struct Checked {
    /// Where, for people.
    pub subject: String,
    /// What came of it; not empty.
    pub outcomes: Vec<Outcome>,
}

/// Asks the live databases of a component, or `on`: a database of its server by name, or any by `postgresql://…`.
///
/// # Errors
/// `ConfigInvalid` where the configuration asks nothing, `Usage` where it is not known of which database `on` is a copy, and why one cannot connect.
pub async fn run(env: &Env, protected: &Protected, on: Option<&str>) -> Result<Checked> {
    let subject = &protected.component;
    let cluster = protected.source.cluster();
    let cluster = cluster.ok_or_else(|| Error::new(ErrorKind::Bug, "check", subject, "it is no PostgreSQL server"))?;
    let all = &cluster.care.checks;
    if all.is_empty() {
        let detail = "the configuration has no `checks` for it";
        return Err(Error::new(ErrorKind::ConfigInvalid, "check", subject, detail).with_hint(
            "write `checks: [{ foreign_keys: true }]` beside `postgres`; `lifeboat verify --level app` checks a restored copy besides",
        ));
    }
    let info = cluster.login.conninfo().await?;
    env.progress.step("check", None);
    let Some(on) = on else {
        let mut outcomes = Vec::new();
        for assertion in all {
            let place = info.clone().with_database(&assertion.database);
            outcomes.extend(ask(&place, &[assertion]).await?);
        }
        return Ok(Checked {
            subject: "the live databases".to_owned(),
            outcomes,
        });
    };
    let place = if on.contains("://") {
        ConnInfo::parse(on, &Surroundings::of_process())?
    } else {
        info.with_database(on)
    };
    let original = original(protected, all, place.database())?;
    let wanted: Vec<&Assertion> = all.iter().filter(|assertion| assertion.database == original).collect();
    if wanted.is_empty() {
        let detail = format!("the configuration has no `checks` for the database {original}, of which it is a copy");
        return Err(
            Error::new(ErrorKind::ConfigInvalid, "check", on, detail).with_hint("`database: NAME` of a check says which it asks")
        );
    }
    Ok(Checked {
        subject: place.to_string(),
        outcomes: ask(&place, &wanted).await?,
    })
}

/// Of which database one is a copy: it is asked what that is asked.
fn original(protected: &Protected, all: &[Assertion], name: &str) -> Result<String> {
    if all.iter().any(|assertion| assertion.database == name) {
        return Ok(name.to_owned());
    }
    let restored = place::known(&protected.state_dir)?;
    let of_us = |one: &&place::RestoredDatabase| one.component == protected.component.as_str() && one.name == name;
    if let Some(restored) = restored.iter().rev().find(of_us) {
        return Ok(restored.original.clone());
    }
    let mut databases: Vec<&str> = all.iter().map(|assertion| assertion.database.as_str()).collect();
    databases.sort_unstable();
    databases.dedup();
    match databases.as_slice() {
        [only] => Ok((*only).to_owned()),
        several => {
            let detail = format!("it is not known of which it is a copy: the checks ask {}", several.join(", "));
            Err(Error::new(ErrorKind::Usage, "check", name, detail)
                .with_hint("a database that this Lifeboat restored is known; of another, the configuration would have to ask only one database"))
        }
    }
}

/// Asks one database.
pub(crate) async fn ask(place: &ConnInfo, wanted: &[&Assertion]) -> Result<Vec<Outcome>> {
    let sql = Sql::connect(place).await?;
    let mut outcomes = Vec::new();
    for assertion in wanted {
        outcomes.push(checks::ask(&sql.client, assertion).await);
    }
    Ok(outcomes)
}

/// What failed, in one sentence each; none where nothing did.
pub(crate) fn failures(outcomes: &[Outcome]) -> Vec<String> {
    let failed = outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Failed);
    let told = failed.map(|outcome| {
        let seen = if outcome.evidence.is_empty() {
            String::new()
        } else {
            format!(" [{}]", outcome.evidence.join("; "))
        };
        format!("{}: {}{seen}", outcome.name, outcome.says)
    });
    told.collect()
}
