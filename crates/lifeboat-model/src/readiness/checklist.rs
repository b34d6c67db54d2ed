//! The lines of checklists: facts that are known without asking anybody, and what people said.

use std::time::Duration;

use super::{Facts, since};
use crate::plan::allowed_age;
use crate::time::human_duration;

/// What came of a line, with why in one sentence. Whatever is not known does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It holds.
    Holds(String),
    /// It does not, or nobody knows.
    Open(String),
}

impl Answer {
    /// Whether it holds.
    #[must_use]
    pub const fn holds(&self) -> bool {
        matches!(self, Self::Holds(_))
    }

    /// Why.
    #[must_use]
    pub fn says(&self) -> &str {
        match self {
            Self::Holds(says) | Self::Open(says) => says,
        }
    }

    fn of(holds: bool, says: String) -> Self {
        if holds { Self::Holds(says) } else { Self::Open(says) }
    }
}

/// What a person said of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attested {
    /// Whether it is as it should be.
    pub good: bool,
    /// Who said so.
    pub who: String,
    /// When, microseconds since 1970.
    pub at_us: i64,
    /// What else he said.
    pub note: Option<String>,
}

/// No scheduled backup is missing.
#[must_use]
pub fn backup_fresh(facts: &Facts) -> Answer {
    let Some(newest) = &facts.newest else {
        return Answer::Open("there is no backup".to_owned());
    };
    let Some(schedule) = &facts.schedule else {
        return Answer::Open("nobody wrote down when backups are made (`backup: { every: … }`)".to_owned());
    };
    let Some(age) = since(facts.now_us, newest.moment_us) else {
        return Answer::Open("the newest backup is from the future: a clock is wrong".to_owned());
    };
    let says = format!(
        "the newest backup is {} old, and one is made {}",
        human_duration(age),
        schedule.says
    );
    Answer::of(age <= allowed_age(schedule.interval, schedule.whole_run), says)
}

/// The newest backup stands in one of these stores, which are off-site.
#[must_use]
pub fn off_site_copy(facts: &Facts, off_site: &[String]) -> Answer {
    match (&facts.newest, off_site) {
        (None, _) => Answer::Open("there is no backup".to_owned()),
        (Some(_), []) => Answer::Open("no off-site store holds the newest backup".to_owned()),
        (Some(newest), stores) => Answer::Holds(format!("backup {} stands in {}", newest.id, stores.join(" and "))),
    }
}

/// A restore was proven, so long ago at most.
#[must_use]
pub fn proven(facts: &Facts, within: Duration) -> Answer {
    let Some((backup, at_us)) = &facts.proven else {
        return Answer::Open("no restore of it was ever proven from here".to_owned());
    };
    match since(facts.now_us, *at_us) {
        None => Answer::Open("the last proven restore is from the future: a clock is wrong".to_owned()),
        Some(age) => Answer::of(
            age <= within,
            format!("backup {backup} was restored and checked {} ago", human_duration(age)),
        ),
    }
}

/// The private key opens the newest backup.
#[must_use]
pub fn key_proven(facts: &Facts) -> Answer {
    match &facts.key {
        Some(Ok(())) => Answer::Holds("the private key opens the newest backup".to_owned()),
        Some(Err(why)) => Answer::Open(why.clone()),
        None => Answer::Open("there is no private key here that could be tried".to_owned()),
    }
}

/// What a person said last, where it still holds.
#[must_use]
pub fn attested(said: Option<&Attested>, valid: Option<Duration>, now_us: i64) -> Answer {
    let Some(said) = said else {
        return Answer::Open("nobody said so yet".to_owned());
    };
    let Some(age) = since(now_us, said.at_us) else {
        return Answer::Open(format!("{} said so in the future: a clock is wrong", said.who));
    };
    let note = said.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
    let (who, ago) = (&said.who, human_duration(age));
    if !said.good {
        return Answer::Open(format!("{who} said {ago} ago that it is not so{note}"));
    }
    match valid {
        Some(valid) if age > valid => Answer::Open(format!(
            "{who} said so {ago} ago, which holds for {}: it has expired{note}",
            human_duration(valid)
        )),
        _ => Answer::Holds(format!("{who} said so {ago} ago{note}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Newest, Schedule};
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const NOW_US: i64 = 1_800_000_000_000_000;

    fn facts(age: Duration) -> Facts {
        Facts {
            now_us: NOW_US,
            newest: Some(Newest {
                id: "7-abc".into(),
                moment_us: NOW_US - i64::try_from(age.as_micros()).unwrap(),
            }),
            schedule: Some(Schedule {
                interval: DAY,
                whole_run: Duration::from_secs(60),
                says: "every day".into(),
            }),
            ..Facts::default()
        }
    }

    #[test]
    fn facts_hold_only_where_they_are_known() {
        assert!(backup_fresh(&facts(DAY)).holds());
        assert!(!backup_fresh(&facts(DAY * 2)).holds());
        assert!(!backup_fresh(&Facts::default()).holds());
        let unplanned = Facts {
            schedule: None,
            ..facts(DAY)
        };
        assert!(!backup_fresh(&unplanned).holds());
        assert!(off_site_copy(&facts(DAY), &["s3".into()]).holds());
        assert!(!off_site_copy(&facts(DAY), &[]).holds());
        assert!(!off_site_copy(&Facts::default(), &["s3".into()]).holds());
        assert!(!key_proven(&facts(DAY)).holds());
        let proof = |age: Duration| Facts {
            proven: Some(("7-abc".into(), NOW_US - i64::try_from(age.as_micros()).unwrap())),
            key: Some(Ok(())),
            ..facts(DAY)
        };
        assert!(key_proven(&proof(DAY)).holds());
        assert!(proven(&proof(DAY), DAY).holds());
        assert!(!proven(&proof(DAY * 2), DAY).holds());
        assert!(!proven(&facts(DAY), DAY).holds());
    }

    #[test]
    fn what_a_person_said_expires() {
        let said = |good, age: Duration| Attested {
            good,
            who: "Ada".into(),
            at_us: NOW_US - i64::try_from(age.as_micros()).unwrap(),
            note: Some("course of May".into()),
        };
        let asked = |said: &Attested, valid| attested(Some(said), valid, NOW_US);
        assert_eq!(
            asked(&said(true, DAY), Some(DAY)),
            Answer::Holds("Ada said so 1d ago: course of May".into())
        );
        let expired = asked(&said(true, DAY * 2), Some(DAY));
        assert!(!expired.holds() && expired.says().contains("expired"), "{expired:?}");
        assert!(asked(&said(true, DAY * 2000), None).holds());
        assert!(!asked(&said(false, DAY), None).holds());
        assert!(!attested(None, None, NOW_US).holds());
        let from_the_future = Attested {
            at_us: NOW_US + 1,
            ..said(true, DAY)
        };
        assert!(!asked(&from_the_future, None).holds());
    }
}
