//! The verb `copy`: what one store of a component lacks, brought from another, without a private key.
//!
//! The destination is made where it holds no repository: whoever names it by hand means it. The order of everything else, and what is
//! there if we die, is [`lifeboat_repo::copy`]'s.

use std::sync::Arc;

use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::{Copied, CopyPlan, Instance, Repository, Which};

use crate::protected::{Place, Protected};

/// Copies backups of `protected` from the store `from` to the store `to`. Other stores of the component help out where a file of `from`
/// is damaged, as far as they answer.
pub async fn run(
    env: &Env,
    protected: &Protected,
    instance: Arc<Instance>,
    from: &Place,
    to: &Place,
    which: Which,
) -> Result<Copied> {
    let source = Repository::open(Arc::clone(&from.store)).await?;
    let destination = source.replicate(Arc::clone(&to.store)).await?;
    let mut others = Vec::new();
    for place in &protected.stores {
        if place.name == from.name || place.name == to.name {
            continue;
        }
        // One that is away, or holds something else, cannot help; nobody asked for it.
        if let Ok(other) = Repository::open(Arc::clone(&place.store)).await
            && other.id() == source.id()
        {
            others.push(other);
        }
    }
    let plan = CopyPlan {
        component: protected.component.clone(),
        instance,
        trust: protected.trust.clone(),
        which,
    };
    lifeboat_repo::copy(env, &source, &destination, &others, &plan).await
}

/// The store to copy from where nobody said: the first one of the component that answers and is not the destination.
pub async fn source<'a>(protected: &'a Protected, to: &Place) -> Result<&'a Place> {
    let mut reason = None;
    for place in protected.stores.iter().filter(|place| place.name != to.name) {
        match Repository::open(Arc::clone(&place.store)).await {
            Ok(_) => return Ok(place),
            Err(error) => reason = reason.or(Some(error)),
        }
    }
    Err(reason.unwrap_or_else(|| {
        Error::new(ErrorKind::Usage, "copy to", &to.name, "there is no other store to copy from")
            .with_hint("name one with --from")
    }))
}
