//! A plan from whichever store of a component comes farthest.

use std::path::Path;

use lifeboat_model::wal::Target;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::Identities;

use super::{Options, Plan, plan};
use crate::protected::Protected;
use crate::stores::{self, Survey};

/// Plans from every store that answered, and takes the plan that comes farthest: one store may lack the newest log, a timeline or a lineage, and must
/// not pass for the whole. Returns the options with that store in them; what to know is among the plan's notes.
///
/// # Errors
/// As [`plan()`]: that of the first store, where none can give it.
pub async fn plan_anywhere(
    env: &Env,
    protected: &Protected,
    survey: &Survey,
    identities: &Identities,
    target: &Target,
    to: &Path,
    options: &Options,
) -> Result<(Plan, Options)> {
    let away = survey.away.iter();
    let mut notes: Vec<String> = away
        .map(|(name, error)| format!("the store {name} does not answer: {error}"))
        .collect();
    let (mut first, mut best) = (None, None::<(String, Plan, Options)>);
    for (store, repository, _) in &survey.open {
        let others = survey.open.iter().filter(|(name, ..)| name != store);
        let options = Options {
            store: Some(store.clone()),
            others: others
                .map(|(name, repository, _)| (name.clone(), repository.clone()))
                .collect(),
            ..options.clone()
        };
        match plan(env, protected, repository, identities, target.clone(), to, &options).await {
            Ok(plan) => {
                if best.as_ref().is_none_or(|(_, best, _)| best.comes_to() < plan.comes_to()) {
                    best = Some((store.clone(), plan, options));
                }
                if matches!(target, Target::Base(_)) {
                    break;
                }
            }
            // Another store may hold what this one lacks.
            Err(error) if error.kind() == ErrorKind::NoSuchPoint || stores::worth_another_store(&error) => {
                notes.push(format!("the store {store} cannot give it: {error}"));
                first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    let Some((store, mut plan, options)) = best else {
        let none = || Error::new(ErrorKind::NoSuchPoint, "restore", &protected.component, "no store holds it");
        return Err(first.unwrap_or_else(none));
    };
    if survey.open.first().is_some_and(|(preferred, ..)| *preferred != store) {
        notes.push(format!("it is read from the store {store}"));
    }
    plan.notes.append(&mut notes);
    Ok((plan, options))
}
