//! Opens stores: from what the configuration says to what the verbs use.
//!
//! Reads the secrets of a store only when it is opened. Must not know what is done with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lifeboat_model::{Clock, Result};
use lifeboat_store::BlobStore;
use lifeboat_store::cloud::{self, AzureSettings, CloudSettings, GcsSettings, S3Credentials, S3Settings, Secret, StorageClass};
use lifeboat_store::fs::FsStore;
use lifeboat_store::layer::limit::{Bandwidth, Limited};
use lifeboat_store::layer::retry::RealSleep;

use crate::config::{AzurePlace, GcsPlace, S3Place, SecretRef, StorePlace, StoreSettings};

/// An open store.
#[derive(Debug, Clone)]
pub(crate) struct OpenStore {
    /// The store, with retries and limits as its kind needs them.
    pub(crate) store: Arc<dyn BlobStore>,
    /// The same as a folder, where it is one: for leftovers and free space.
    pub(crate) folder: Option<FsStore>,
}

impl OpenStore {
    /// Opens what `settings` describe; limits of bandwidth are kept by `clock`.
    pub(crate) async fn open(settings: &StoreSettings, clock: &Arc<dyn Clock>) -> Result<Self> {
        let mut opened = Self::unlimited(settings).await?;
        let bandwidth = Bandwidth {
            upload: settings.limit.upload,
            download: settings.limit.download,
        };
        if bandwidth != Bandwidth::default() {
            opened.store = Arc::new(Limited::new(opened.store, bandwidth, Arc::clone(clock), Arc::new(RealSleep)));
        }
        Ok(opened)
    }

    async fn unlimited(settings: &StoreSettings) -> Result<Self> {
        let cloud = match &settings.place {
            StorePlace::Fs(fs) => {
                let folder = FsStore::open(&fs.path).await?;
                return Ok(Self {
                    store: Arc::new(folder.clone()),
                    folder: Some(folder),
                });
            }
            StorePlace::S3(s3) => CloudSettings::S3(s3_settings(s3).await?),
            StorePlace::Gcs(gcs) => CloudSettings::Gcs(gcs_settings(gcs).await?),
            StorePlace::Azure(azure) => CloudSettings::Azure(azure_settings(azure).await?),
        };
        Ok(Self {
            store: Arc::new(cloud::open(cloud).await?),
            folder: None,
        })
    }

    /// The path of the folder, where it is one.
    #[must_use]
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(FsStore::path).map(Path::to_owned)
    }
}

/// What the store crate needs to know of a bucket of S3, secrets read.
pub(crate) async fn s3_settings(s3: &S3Place) -> Result<S3Settings> {
    let credentials = match &s3.keys {
        None => None,
        Some(keys) => Some(S3Credentials {
            access_key: keys.access_key.read().await?.trim().to_owned(),
            secret_key: secret(&keys.secret_key).await?,
            session_token: optional(keys.session_token.as_ref()).await?,
        }),
    };
    Ok(S3Settings {
        bucket: s3.bucket.clone(),
        prefix: s3.prefix.clone(),
        region: s3.region.clone(),
        endpoint: s3.endpoint.clone(),
        path_style: s3.path_style,
        storage_class: of_packs(s3.storage_class.as_deref()),
        profile: s3.profile.clone(),
        credentials,
    })
}

async fn gcs_settings(gcs: &GcsPlace) -> Result<GcsSettings> {
    Ok(GcsSettings {
        bucket: gcs.bucket.clone(),
        prefix: gcs.prefix.clone(),
        endpoint: gcs.endpoint.clone(),
        storage_class: of_packs(gcs.storage_class.as_deref()),
        credentials: optional(gcs.credentials.as_ref()).await?,
    })
}

async fn azure_settings(azure: &AzurePlace) -> Result<AzureSettings> {
    Ok(AzureSettings {
        account: azure.account.clone(),
        container: azure.container.clone(),
        prefix: azure.prefix.clone(),
        endpoint: azure.endpoint.clone(),
        storage_class: of_packs(azure.storage_class.as_deref()),
        account_key: optional(azure.account_key.as_ref()).await?,
        sas_token: optional(azure.sas_token.as_ref()).await?,
    })
}

fn of_packs(class: Option<&str>) -> Option<StorageClass> {
    class.map(|name| StorageClass {
        name: name.to_owned(),
        applies: lifeboat_repo::is_data_pack,
    })
}

async fn optional(reference: Option<&SecretRef>) -> Result<Option<Secret>> {
    match reference {
        None => Ok(None),
        Some(reference) => secret(reference).await.map(Some),
    }
}

async fn secret(reference: &SecretRef) -> Result<Secret> {
    Ok(Secret::new(reference.read().await?.trim()))
}
