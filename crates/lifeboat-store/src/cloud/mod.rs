//! A store in a cloud: S3 and services that speak its protocol, Google Cloud Storage, Azure Blob Storage.

mod settings;

use std::sync::Arc;

use lifeboat_model::{Error, ErrorKind, Result};

pub use settings::{AzureSettings, CloudSettings, GcsSettings, S3Credentials, S3Settings, Secret};

use crate::BlobStore;

/// Opens a store in a cloud. Asks nothing of the service yet.
pub async fn open(settings: CloudSettings) -> Result<Arc<dyn BlobStore>> {
    let name = format!("{settings:?}");
    Err(Error::new(
        ErrorKind::Failed,
        "open store",
        name,
        "stores in clouds follow in this issue",
    ))
}
