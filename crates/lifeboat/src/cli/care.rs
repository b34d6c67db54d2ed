//! The bucket that a component's backups are read from, as its owner sees it: for archives and locks.
//!
//! Only for stores of the configuration; whatever else a store is, there is nothing to thaw or to lock.

use lifeboat_model::Result;
use lifeboat_repo::Repository;
use lifeboat_store::s3admin::Bucket;

use super::context::Context;
use super::store::bucket;
use crate::config::{ComponentSettings, StorePlace};

/// The bucket behind an opened repository, where it is one of S3.
pub(super) async fn bucket_of(
    context: &Context,
    component: &ComponentSettings,
    repository: &Repository,
) -> Result<Option<Bucket>> {
    let opened = repository.store().name().to_owned();
    let mut names: Vec<&String> = component.stores.iter().collect();
    names.extend(context.settings.stores.keys());
    for name in names {
        let store = context.store(name)?;
        if let StorePlace::S3(s3) = &store.place
            && store.address() == opened
        {
            return bucket(s3).await.map(Some);
        }
    }
    Ok(None)
}
