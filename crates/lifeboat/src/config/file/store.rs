//! What may be written under `stores`: one shape for each kind of store.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, ColdFile, LockFile, MaintenanceFile, SecretFile};

/// A place that holds backups. Exactly one kind.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum StoreFile {
    /// A folder on a local or mounted file system.
    Fs(FsFile),
    /// A bucket of S3 or of a service that speaks its protocol.
    S3(Box<S3File>),
    /// A bucket of Google Cloud Storage.
    Gcs(GcsFile),
    /// A container of Azure Blob Storage.
    Azure(AzureFile),
}

/// A folder on a local or mounted file system.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct FsFile {
    /// The folder. A relative path begins at the folder of this file.
    #[schemars(with = "String", example = &"/var/backups/lifeboat")]
    pub(in crate::config) path: At<String>,
    /// How much of the file system must be free: a percentage (`5%`) or a size (`10GiB`). No backup begins while less is
    /// free.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"5%")]
    pub(in crate::config) min_free: Option<At<String>>,
    /// Whether it survives the loss of the place where the data is: another building, another provider. Default: false.
    #[serde(default)]
    #[schemars(with = "Option<bool>", extend("default" = false))]
    pub(in crate::config) off_site: Option<At<bool>>,
    /// How fast bytes may go to and come from this store.
    #[serde(default)]
    pub(in crate::config) limit: Option<LimitFile>,
}

/// A bucket of S3 or of a service that speaks its protocol.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct S3File {
    /// Name of the bucket. It must be there.
    #[schemars(with = "String", example = &"example-lifeboat")]
    pub(in crate::config) bucket: At<String>,
    /// Folder inside the bucket. Default: the bucket's top.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"eu/")]
    pub(in crate::config) prefix: Option<At<String>>,
    /// Region of the bucket. Default: `$AWS_REGION`, `$AWS_DEFAULT_REGION`, the profile's region, otherwise `us-east-1`.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"eu-central-1")]
    pub(in crate::config) region: Option<At<String>>,
    /// Address of another service than Amazon's (MinIO, Ceph, R2, …). Without TLS only where it begins with `http://`.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"https://minio.internal:9000")]
    pub(in crate::config) endpoint: Option<At<String>>,
    /// Whether the bucket stands in the path of the address (`https://host/bucket`) and not in the host name. Default: true
    /// with an `endpoint`, otherwise false.
    #[serde(default)]
    #[schemars(with = "Option<bool>")]
    pub(in crate::config) path_style: Option<At<bool>>,
    /// Storage class of packs, as the service calls it; every other file stays in the standard class. Classes that must be
    /// thawed before they can be read (`GLACIER`, `DEEP_ARCHIVE`) are refused here.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"STANDARD_IA")]
    pub(in crate::config) storage_class: Option<At<String>>,
    /// Profile of `~/.aws/credentials` and `~/.aws/config`. Default: `$AWS_PROFILE`, otherwise `default`.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"backup")]
    pub(in crate::config) profile: Option<At<String>>,
    /// Access key, together with `secret_key`. Without them: the environment (`AWS_ACCESS_KEY_ID`, …), the profile, a web
    /// identity, the container's or the machine's role, in this order.
    #[serde(default)]
    #[schemars(with = "Option<SecretFile>")]
    pub(in crate::config) access_key: Option<At<SecretFile>>,
    /// Secret key of the access key.
    #[serde(default)]
    #[schemars(with = "Option<SecretFile>")]
    pub(in crate::config) secret_key: Option<At<SecretFile>>,
    /// Session token of temporary keys.
    #[serde(default)]
    #[schemars(with = "Option<SecretFile>")]
    pub(in crate::config) session_token: Option<At<SecretFile>>,
    /// Lock every new file against deletion. `lifeboat store setup` sets the bucket so, `lifeboat store check` sees to it.
    #[serde(default)]
    pub(in crate::config) object_lock: Option<LockFile>,
    /// Move packs to a cheaper class when recent backups no longer reach them.
    #[serde(default)]
    pub(in crate::config) cold: Option<ColdFile>,
    /// Credentials that may delete, extend locks and set the bucket up; `access_key` and `secret_key` need none of that.
    #[serde(default)]
    pub(in crate::config) maintenance: Option<MaintenanceFile>,
    /// Whether it survives the loss of the place where the data is: another building, another provider. Default: true.
    #[serde(default)]
    #[schemars(with = "Option<bool>", extend("default" = true))]
    pub(in crate::config) off_site: Option<At<bool>>,
    /// How fast bytes may go to and come from this store.
    #[serde(default)]
    pub(in crate::config) limit: Option<LimitFile>,
}

/// A bucket of Google Cloud Storage.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct GcsFile {
    /// Name of the bucket. It must be there.
    #[schemars(with = "String", example = &"your-backup-bucket")]
    pub(in crate::config) bucket: At<String>,
    /// Folder inside the bucket. Default: the bucket's top.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"sortie/")]
    pub(in crate::config) prefix: Option<At<String>>,
    /// Address of another service than Google's. Without TLS only where it begins with `http://`; then requests are not
    /// signed unless `credentials` are given.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) endpoint: Option<At<String>>,
    /// Storage class of packs, as the service calls it (`NEARLINE`, `COLDLINE`, …); other files stay in the bucket's class.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"NEARLINE")]
    pub(in crate::config) storage_class: Option<At<String>>,
    /// The JSON key of a service account. Default: the file that `$GOOGLE_APPLICATION_CREDENTIALS` names, what
    /// `gcloud auth application-default login` left, otherwise the machine's service account.
    #[serde(default)]
    #[schemars(with = "Option<SecretFile>")]
    pub(in crate::config) credentials: Option<At<SecretFile>>,
    /// Whether it survives the loss of the place where the data is: another building, another provider. Default: true.
    #[serde(default)]
    #[schemars(with = "Option<bool>", extend("default" = true))]
    pub(in crate::config) off_site: Option<At<bool>>,
    /// How fast bytes may go to and come from this store.
    #[serde(default)]
    pub(in crate::config) limit: Option<LimitFile>,
}

/// A container of Azure Blob Storage.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct AzureFile {
    /// Name of the storage account.
    #[schemars(with = "String", example = &"examplebackups")]
    pub(in crate::config) account: At<String>,
    /// Name of the container. It must be there.
    #[schemars(with = "String", example = &"lifeboat")]
    pub(in crate::config) container: At<String>,
    /// Folder inside the container. Default: the container's top.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) prefix: Option<At<String>>,
    /// Address of another service than Microsoft's. Without TLS only where it begins with `http://`.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(in crate::config) endpoint: Option<At<String>>,
    /// Access tier of packs (`Cool`, `Cold`); other files stay in the account's tier. `Archive` is refused here.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"Cool")]
    pub(in crate::config) storage_class: Option<At<String>>,
    /// Key of the account. Default, without `sas_token`: the environment (`AZURE_STORAGE_ACCOUNT_KEY`, `AZURE_CLIENT_ID`, …),
    /// a workload identity, otherwise the machine's managed identity.
    #[serde(default)]
    #[schemars(with = "Option<SecretFile>")]
    pub(in crate::config) account_key: Option<At<SecretFile>>,
    /// A shared access signature, instead of `account_key`.
    #[serde(default)]
    #[schemars(with = "Option<SecretFile>")]
    pub(in crate::config) sas_token: Option<At<SecretFile>>,
    /// Whether it survives the loss of the place where the data is: another building, another provider. Default: true.
    #[serde(default)]
    #[schemars(with = "Option<bool>", extend("default" = true))]
    pub(in crate::config) off_site: Option<At<bool>>,
    /// How fast bytes may go to and come from this store.
    #[serde(default)]
    pub(in crate::config) limit: Option<LimitFile>,
}

/// How fast bytes may go to and come from a store, in bytes per second.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct LimitFile {
    /// Bytes per second to the store. Default: no limit.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"20MiB")]
    pub(in crate::config) upload: Option<At<String>>,
    /// Bytes per second from the store. Default: no limit.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"100MiB")]
    pub(in crate::config) download: Option<At<String>>,
}
