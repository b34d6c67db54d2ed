//! What a cloud store needs to know before it can be opened. Secrets are values here, and are never shown.

use std::fmt;

use zeroize::Zeroizing;

use crate::Key;

/// A secret in memory; `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("‹secret›")
    }
}

/// A storage class, and which files it is for: the store does not know what they mean.
#[derive(Debug, Clone)]
pub struct StorageClass {
    /// Its name, as the service calls it.
    pub name: String,
    /// Whether a file gets it; all others get the service's usual one.
    pub applies: fn(&Key) -> bool,
}

/// Keys of S3.
#[derive(Debug, Clone)]
pub struct S3Credentials {
    /// The access key.
    pub access_key: String,
    /// Its secret key.
    pub secret_key: Secret,
    /// The token of temporary keys.
    pub session_token: Option<Secret>,
}

/// A bucket of S3 or of a service that speaks its protocol.
#[derive(Debug, Clone, Default)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// The folder in it; none is the bucket's top.
    pub prefix: Option<Key>,
    /// The region; otherwise the environment's, the profile's, `us-east-1`.
    pub region: Option<String>,
    /// Another service than Amazon's: `https://host[:port]`, or `http://…` for no TLS.
    pub endpoint: Option<String>,
    /// Whether the bucket stands in the path of the address and not in the host name.
    pub path_style: bool,
    /// The class of some of the files.
    pub storage_class: Option<StorageClass>,
    /// Profile of the AWS files.
    pub profile: Option<String>,
    /// Keys; without them the standard chain.
    pub credentials: Option<S3Credentials>,
}

/// A bucket of Google Cloud Storage.
#[derive(Debug, Clone, Default)]
pub struct GcsSettings {
    /// The bucket.
    pub bucket: String,
    /// The folder in it; none is the bucket's top.
    pub prefix: Option<Key>,
    /// Another service than Google's.
    pub endpoint: Option<String>,
    /// The class of some of the files.
    pub storage_class: Option<StorageClass>,
    /// JSON key of a service account; without it the standard chain.
    pub credentials: Option<Secret>,
}

/// A container of Azure Blob Storage.
#[derive(Debug, Clone, Default)]
pub struct AzureSettings {
    /// The storage account.
    pub account: String,
    /// The container.
    pub container: String,
    /// The folder in it; none is the container's top.
    pub prefix: Option<Key>,
    /// Another service than Microsoft's.
    pub endpoint: Option<String>,
    /// The access tier of some of the files.
    pub storage_class: Option<StorageClass>,
    /// Key of the account.
    pub account_key: Option<Secret>,
    /// A shared access signature.
    pub sas_token: Option<Secret>,
}

/// Which cloud, and where in it.
#[derive(Debug, Clone)]
pub enum CloudSettings {
    /// S3 and services that speak its protocol.
    S3(S3Settings),
    /// Google Cloud Storage.
    Gcs(GcsSettings),
    /// Azure Blob Storage.
    Azure(AzureSettings),
}

impl CloudSettings {
    /// The address for people: `s3://bucket/prefix`.
    #[must_use]
    pub fn address(&self) -> String {
        let (place, prefix) = match self {
            Self::S3(s3) => (format!("s3://{}", s3.bucket), &s3.prefix),
            Self::Gcs(gcs) => (format!("gs://{}", gcs.bucket), &gcs.prefix),
            Self::Azure(azure) => (format!("az://{}/{}", azure.account, azure.container), &azure.prefix),
        };
        match prefix {
            Some(prefix) => format!("{place}/{prefix}"),
            None => place,
        }
    }
}
