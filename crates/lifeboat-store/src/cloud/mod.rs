//! A store in a cloud: S3 and services that speak its protocol, Google Cloud Storage, Azure Blob Storage.
//!
//! One implementation of the contract over `object_store`. What a service can do is tried before the first put and remembered. A put
//! whose answer was lost finds its own file afterwards and compares every byte before it calls it a success (INV-01); a conflict
//! (409) is tried again; a listing that fails in any page fails whole (INV-13). An answer of "no such file" for a bucket that is not
//! there is an error of kind `Unreachable`.
//!
//! On the service if we die: whole files under their names, nothing else; no multipart upload is ever begun.
//! Must not know what the bytes mean, and must not let a secret into a message.

mod build;
mod failure;
mod http;
mod probe;
mod profile;
mod settings;
mod store;

use std::sync::Arc;

use lifeboat_io::compute;
use lifeboat_model::Result;
use object_store::ObjectStore;
use object_store::aws::AwsCredentialProvider;

pub use settings::{AzureSettings, CloudSettings, GcsSettings, S3Credentials, S3Settings, Secret, StorageClass};
pub use store::CloudStore;

use crate::Key;
use crate::layer::retry::{Policy, RealSleep, Sleep};
use failure::Kind;
use http::Connector;

/// How often and how long a request is tried again: eight times, pauses of 0.2 s to 10 s, about 35 seconds in all.
#[must_use]
pub fn patience() -> Policy {
    Policy {
        attempts: 8,
        longest_pause: std::time::Duration::from_secs(10),
        ..Policy::default()
    }
}

/// What the calls of a bucket's owner share with the store: connections, credentials by the same chain, and the region.
pub(crate) fn owner(settings: &S3Settings) -> Result<(reqwest::Client, AwsCredentialProvider, String)> {
    let connector = Connector::new()?;
    let variables = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let region = build::s3_login(settings, &variables)?.region;
    let inner = build::s3(settings, &connector, &settings.bucket, &variables)?;
    Ok((connector.plain()?, Arc::clone(inner.credentials()), region))
}

/// Opens a store in a cloud. Nothing is asked of the service yet: the first operation says what is wrong with it.
pub async fn open(settings: CloudSettings) -> Result<CloudStore> {
    open_with(settings, patience(), Arc::new(RealSleep)).await
}

/// [`open`] with another patience.
pub async fn open_with(settings: CloudSettings, policy: Policy, sleep: Arc<dyn Sleep>) -> Result<CloudStore> {
    compute::run("open store", move || {
        let connector = Connector::new()?;
        let variables = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let name = settings.address();
        let (kind, inner, prefix, class): (Kind, Arc<dyn ObjectStore>, Option<Key>, Option<StorageClass>) = match &settings {
            CloudSettings::S3(s3) => {
                let inner = build::s3(s3, &connector, &name, &variables)?;
                (Kind::S3, Arc::new(inner), s3.prefix.clone(), s3.storage_class.clone())
            }
            CloudSettings::Gcs(gcs) => {
                let inner = build::gcs(gcs, &connector, &name, &variables)?;
                (Kind::Gcs, inner, gcs.prefix.clone(), gcs.storage_class.clone())
            }
            CloudSettings::Azure(azure) => {
                let inner = build::azure(azure, &connector, &name, &variables)?;
                (Kind::Azure, inner, azure.prefix.clone(), azure.storage_class.clone())
            }
        };
        Ok(CloudStore::new(kind, name, inner, prefix, class, policy, sleep))
    })
    .await
}
