//! A store as the rest of the program sees it: what kind it is, where, and who may use it.
//!
//! Knows no YAML. Secrets stay references until a store is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_model::time::human_duration;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::Key;
use serde_json::{Value as Json, json};

use super::settings::{MinFree, SecretRef};

/// A place that holds backups.
#[derive(Debug, Clone)]
pub(crate) struct StoreSettings {
    /// Its name in the configuration.
    pub(crate) name: String,
    /// What it is and where.
    pub(crate) place: StorePlace,
    /// How fast bytes may go there and come from there.
    pub(crate) limit: Limits,
    /// Whether it survives the loss of the place where the data is.
    pub(crate) off_site: bool,
}

/// The kinds of stores.
#[derive(Debug, Clone)]
pub(crate) enum StorePlace {
    /// A folder.
    Fs(FsPlace),
    /// A bucket of S3 or of a service that speaks its protocol.
    S3(Box<S3Place>),
    /// A bucket of Google Cloud Storage.
    Gcs(GcsPlace),
    /// A container of Azure Blob Storage.
    Azure(AzurePlace),
}

/// A folder as a store.
#[derive(Debug, Clone)]
pub(crate) struct FsPlace {
    /// The folder.
    pub(crate) path: PathBuf,
    /// How much must be free on its file system before a backup begins.
    pub(crate) min_free: Option<MinFree>,
}

/// A bucket of S3 as a store.
#[derive(Debug, Clone)]
pub(crate) struct S3Place {
    /// The bucket.
    pub(crate) bucket: String,
    /// The folder in it.
    pub(crate) prefix: Option<Key>,
    /// Its region, where the file says it.
    pub(crate) region: Option<String>,
    /// Another service than Amazon's.
    pub(crate) endpoint: Option<String>,
    /// Whether the bucket stands in the path.
    pub(crate) path_style: bool,
    /// Storage class of packs.
    pub(crate) storage_class: Option<String>,
    /// Profile of the AWS files.
    pub(crate) profile: Option<String>,
    /// Access key, secret key and perhaps a session token; without them the standard chain.
    pub(crate) keys: Option<S3Keys>,
    /// How the bucket is to be kept.
    pub(crate) care: BucketCare,
}

impl S3Place {
    /// The same with the maintenance keys, where there are some.
    pub(crate) fn for_upkeep(&self) -> Self {
        let mut place = self.clone();
        if let Some(keys) = &self.care.maintenance {
            place.keys = Some(keys.clone());
            place.profile = None;
        }
        place
    }
}

/// How a bucket is to be kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct BucketCare {
    /// New files are locked.
    pub(crate) lock: Option<LockCare>,
    /// Packs go cold.
    pub(crate) cold: Option<ColdCare>,
    /// Keys that may delete, lock and set up.
    pub(crate) maintenance: Option<S3Keys>,
}

/// How long new files are locked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LockCare {
    /// Nobody may end a lock early.
    pub(crate) compliance: bool,
    /// Days from the put.
    pub(crate) days: u32,
}

/// When packs go cold.
#[derive(Debug, Clone)]
pub(crate) struct ColdCare {
    /// No backup of this last time reaches them.
    pub(crate) unreached_for: Duration,
    /// The class that they move to.
    pub(crate) storage_class: String,
}

/// Keys of S3 by reference.
#[derive(Debug, Clone)]
pub(crate) struct S3Keys {
    /// The access key.
    pub(crate) access_key: SecretRef,
    /// Its secret key.
    pub(crate) secret_key: SecretRef,
    /// The token of temporary keys.
    pub(crate) session_token: Option<SecretRef>,
}

/// A bucket of Google Cloud Storage as a store.
#[derive(Debug, Clone)]
pub(crate) struct GcsPlace {
    /// The bucket.
    pub(crate) bucket: String,
    /// The folder in it.
    pub(crate) prefix: Option<Key>,
    /// Another service than Google's.
    pub(crate) endpoint: Option<String>,
    /// Storage class of packs.
    pub(crate) storage_class: Option<String>,
    /// JSON key of a service account.
    pub(crate) credentials: Option<SecretRef>,
}

/// A container of Azure Blob Storage as a store.
#[derive(Debug, Clone)]
pub(crate) struct AzurePlace {
    /// The storage account.
    pub(crate) account: String,
    /// The container.
    pub(crate) container: String,
    /// The folder in it.
    pub(crate) prefix: Option<Key>,
    /// Another service than Microsoft's.
    pub(crate) endpoint: Option<String>,
    /// Access tier of packs.
    pub(crate) storage_class: Option<String>,
    /// Key of the account.
    pub(crate) account_key: Option<SecretRef>,
    /// A shared access signature.
    pub(crate) sas_token: Option<SecretRef>,
}

/// Limits of bandwidth in bytes per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// To the store.
    pub(crate) upload: Option<u64>,
    /// From the store.
    pub(crate) download: Option<u64>,
}

impl StoreSettings {
    /// A store that no configuration names: a path, or `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` and `az://ACCOUNT/CONTAINER/PREFIX` with the standard
    /// variables of each cloud. `None` for what is none of these; a Usage error for a URL that cannot be one.
    pub(crate) fn unnamed(text: &str) -> Result<Option<Self>> {
        let told = |name: &str| std::env::var(name).ok().filter(|endpoint| !endpoint.is_empty());
        let place = if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = bucket_of(text, rest, "s3://BUCKET/PREFIX")?;
            // Another service than Amazon's, as every AWS program is told of one.
            let endpoint = told("AWS_ENDPOINT_URL_S3").or_else(|| told("AWS_ENDPOINT_URL"));
            StorePlace::S3(Box::new(S3Place {
                bucket,
                prefix,
                region: None,
                path_style: endpoint.is_some(),
                endpoint,
                storage_class: None,
                profile: None,
                keys: None,
                care: BucketCare::default(),
            }))
        } else if let Some(rest) = text.strip_prefix("gs://") {
            let (bucket, prefix) = bucket_of(text, rest, "gs://BUCKET/PREFIX")?;
            StorePlace::Gcs(GcsPlace {
                bucket,
                prefix,
                // As Google's own libraries are told of another service.
                endpoint: told("STORAGE_EMULATOR_HOST").map(|host| match host.contains("://") {
                    true => host,
                    false => format!("http://{host}"),
                }),
                storage_class: None,
                credentials: None,
            })
        } else if let Some(rest) = text.strip_prefix("az://") {
            let (account, rest) = rest.split_once('/').unwrap_or((rest, ""));
            let (container, prefix) = bucket_of(text, rest, "az://ACCOUNT/CONTAINER/PREFIX")?;
            StorePlace::Azure(AzurePlace {
                account: account.to_owned(),
                container,
                prefix,
                // As Microsoft's own command is told of another service.
                endpoint: told("AZURE_STORAGE_SERVICE_ENDPOINT"),
                storage_class: None,
                account_key: None,
                sas_token: None,
            })
        } else if text.contains('/') && !text.contains("://") {
            StorePlace::Fs(FsPlace {
                path: PathBuf::from(text),
                min_free: None,
            })
        } else {
            return Ok(None);
        };
        Ok(Some(Self {
            name: text.to_owned(),
            off_site: !matches!(place, StorePlace::Fs(_)),
            place,
            limit: Limits::default(),
        }))
    }

    /// The same, reached with the credentials that may delete, where it has some.
    pub(crate) fn for_upkeep(&self) -> Self {
        let mut settings = self.clone();
        if let StorePlace::S3(s3) = &self.place {
            settings.place = StorePlace::S3(Box::new(s3.for_upkeep()));
        }
        settings
    }

    /// The folder, where the store is one.
    #[must_use]
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.place {
            StorePlace::Fs(fs) => Some(&fs.path),
            StorePlace::S3(_) | StorePlace::Gcs(_) | StorePlace::Azure(_) => None,
        }
    }

    /// Everything about it as it takes effect; secrets only as where they are.
    pub(crate) fn show(&self) -> Json {
        let mut shown = match &self.place {
            StorePlace::Fs(fs) => json!({
                "kind": "fs",
                "path": fs.path,
                "min_free": fs.min_free.map(|min_free| min_free.to_string()),
            }),
            StorePlace::S3(s3) => json!({
                "kind": "s3",
                "bucket": s3.bucket,
                "prefix": s3.prefix.as_ref().map(Key::as_str),
                "region": s3.region,
                "endpoint": s3.endpoint,
                "path_style": s3.path_style,
                "storage_class": s3.storage_class,
                "profile": s3.profile,
                "access_key": s3.keys.as_ref().map(|keys| keys.access_key.to_string()),
                "secret_key": s3.keys.as_ref().map(|keys| keys.secret_key.to_string()),
                "session_token": s3.keys.as_ref().and_then(|keys| shown_secret(keys.session_token.as_ref())),
                "object_lock": s3.care.lock.map(|lock| json!({
                    "mode": if lock.compliance { "compliance" } else { "governance" }, "days": lock.days,
                })),
                "cold": s3.care.cold.as_ref().map(|cold| json!({
                    "unreached_for": human_duration(cold.unreached_for), "storage_class": cold.storage_class,
                })),
                "maintenance": s3.care.maintenance.as_ref().map(|keys| json!({
                    "access_key": keys.access_key.to_string(), "secret_key": keys.secret_key.to_string(),
                })),
            }),
            StorePlace::Gcs(gcs) => json!({
                "kind": "gcs",
                "bucket": gcs.bucket,
                "prefix": gcs.prefix.as_ref().map(Key::as_str),
                "endpoint": gcs.endpoint,
                "storage_class": gcs.storage_class,
                "credentials": shown_secret(gcs.credentials.as_ref()),
            }),
            StorePlace::Azure(azure) => json!({
                "kind": "azure",
                "account": azure.account,
                "container": azure.container,
                "prefix": azure.prefix.as_ref().map(Key::as_str),
                "endpoint": azure.endpoint,
                "storage_class": azure.storage_class,
                "account_key": shown_secret(azure.account_key.as_ref()),
                "sas_token": shown_secret(azure.sas_token.as_ref()),
            }),
        };
        shown["off_site"] = json!(self.off_site);
        if self.limit != Limits::default()
            && let Some(map) = shown.as_object_mut()
        {
            map.insert(
                "limit".to_owned(),
                json!({ "upload": self.limit.upload, "download": self.limit.download }),
            );
        }
        shown
    }

    /// What has to stand in the environment so that [`StoreSettings::unnamed`] finds it by its address; no credentials.
    #[must_use]
    pub(crate) fn told_by_the_environment(&self) -> Option<String> {
        let variable = |name: &str, value: Option<&String>| value.map(|value| format!("{name}={value}"));
        match &self.place {
            StorePlace::Fs(_) => None,
            StorePlace::S3(s3) => {
                let all = [
                    variable("AWS_ENDPOINT_URL", s3.endpoint.as_ref()),
                    variable("AWS_REGION", s3.region.as_ref()),
                ];
                let all: Vec<String> = all.into_iter().flatten().collect();
                (!all.is_empty()).then(|| all.join(" "))
            }
            StorePlace::Gcs(gcs) => variable("STORAGE_EMULATOR_HOST", gcs.endpoint.as_ref()),
            StorePlace::Azure(azure) => variable("AZURE_STORAGE_SERVICE_ENDPOINT", azure.endpoint.as_ref()),
        }
    }

    /// Where it is, for people: a path, or a URL without secrets.
    #[must_use]
    pub(crate) fn address(&self) -> String {
        let url = |scheme: &str, bucket: &str, prefix: &Option<Key>| match prefix {
            Some(prefix) => format!("{scheme}://{bucket}/{prefix}"),
            None => format!("{scheme}://{bucket}"),
        };
        match &self.place {
            StorePlace::Fs(fs) => fs.path.display().to_string(),
            StorePlace::S3(s3) => url("s3", &s3.bucket, &s3.prefix),
            StorePlace::Gcs(gcs) => url("gs", &gcs.bucket, &gcs.prefix),
            StorePlace::Azure(azure) => url("az", &format!("{}/{}", azure.account, azure.container), &azure.prefix),
        }
    }
}

/// Bucket and folder of a URL, whose scheme has been taken off.
fn bucket_of(text: &str, rest: &str, form: &str) -> Result<(String, Option<Key>)> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_matches('/');
    if bucket.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "use the store", text, "it names no bucket")
            .with_hint(format!("write it as {form}; the folder may be left out")));
    }
    let prefix = (!prefix.is_empty()).then(|| Key::new(prefix)).transpose()?;
    Ok((bucket.to_owned(), prefix))
}

fn shown_secret(reference: Option<&SecretRef>) -> Option<String> {
    reference.map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_without_a_name_are_read_by_their_scheme() {
        let read = |text: &str| StoreSettings::unnamed(text).unwrap().unwrap();
        for (text, address) in [
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            ("gs://bucket", "gs://bucket"),
            ("gs://bucket/a", "gs://bucket/a"),
            ("az://account/container", "az://account/container"),
            ("az://account/container/a/b", "az://account/container/a/b"),
            ("./folder", "./folder"),
        ] {
            let settings = read(text);
            assert_eq!(
                (settings.address(), settings.off_site),
                (address.to_owned(), text.contains("://"))
            );
        }
        for wrong in ["s3://", "gs:///a", "az://account", "az://account//a"] {
            assert_eq!(StoreSettings::unnamed(wrong).unwrap_err().kind(), ErrorKind::Usage, "{wrong}");
        }
        for other in ["disk", "ftp://host/path"] {
            assert!(StoreSettings::unnamed(other).unwrap().is_none(), "{other}");
        }
    }
}
