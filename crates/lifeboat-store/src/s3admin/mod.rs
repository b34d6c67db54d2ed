//! An S3 bucket as its owner sees it: making it, its rules, versions, locks and storage classes.
//!
//! Apart from [`crate::BlobStore`], which only puts, reads, lists and deletes: these calls need other permissions, often other
//! credentials, and exist on S3 alone. Calls and documents follow the Amazon S3 API reference (2006-03-01).
//! Must not decide whether a rule is good (`lifeboat_model::lifecycle`) or what is moved (`lifeboat_model::cold`).

mod client;
mod files;
mod xml;

use bytes::Bytes;
use lifeboat_model::lifecycle::Rule;
use lifeboat_model::{Error, ErrorKind, Result};
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use reqwest::Method;

pub use client::Place;
pub use files::{FileState, Restoring, Stored, Version};

use crate::cloud::S3Settings;
use client::{Answer, Ask, Client, Refusal};

/// An HTTP client with TLS by rustls and the roots of the system.
pub fn plain_http() -> Result<reqwest::Client> {
    let failed = |error: &dyn std::fmt::Display| Error::new(ErrorKind::Failed, "prepare", "HTTP", error);
    // A second call finds the provider installed, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .connect_timeout(std::time::Duration::from_secs(10))
        .build()
        .map_err(|error| failed(&error).with_source(error))
}

/// What a bucket says about one of its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting<T> {
    /// It is set to this.
    Is(T),
    /// It is not set.
    NotSet,
    /// The service does not know this setting.
    NotOffered,
}

/// Who may end a lock early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Credentials with a special permission.
    Governance,
    /// Nobody, the owner of the account included.
    Compliance,
}

impl LockMode {
    /// The word of the S3 API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Governance => "GOVERNANCE",
            Self::Compliance => "COMPLIANCE",
        }
    }

    fn parse(text: &str) -> Result<Self> {
        match text {
            "GOVERNANCE" => Ok(Self::Governance),
            "COMPLIANCE" => Ok(Self::Compliance),
            other => Err(Error::new(
                ErrorKind::Incompatible,
                "read",
                "an object lock",
                format!("its mode {other:?} is not known"),
            )),
        }
    }
}

/// How long new files are locked by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// Who may end it early.
    pub mode: LockMode,
    /// Days from the put.
    pub days: u32,
}

/// The rules of a bucket, as they stand and as read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lifecycle {
    /// What was understood of each.
    pub rules: Vec<Rule>,
    /// The elements themselves, in the same order: rules of others are given back byte for byte.
    raw: Vec<String>,
}

/// The bucket of a store.
#[derive(Debug, Clone)]
pub struct Bucket {
    client: Client,
    place: Place,
    prefix: String,
    subject: String,
}

impl Bucket {
    /// Looks at nothing yet. `prefix` is the store's place in the bucket: empty, or a path; a final slash is added.
    pub fn new(place: Place, prefix: &str, http: reqwest::Client, credentials: AwsCredentialProvider) -> Result<Self> {
        let trimmed = prefix.trim_matches('/');
        let subject = format!("bucket {}", place.bucket);
        Ok(Self {
            client: Client::new(&place, http, credentials)?,
            place,
            prefix: if trimmed.is_empty() {
                String::new()
            } else {
                format!("{trimmed}/")
            },
            subject,
        })
    }

    /// The bucket of a store, with the credentials and the region that the store itself would use.
    pub fn open(settings: &S3Settings) -> Result<Self> {
        let (http, credentials, region) = crate::cloud::owner(settings)?;
        let place = Place {
            endpoint: settings.endpoint.clone(),
            region,
            bucket: settings.bucket.clone(),
            path_style: settings.path_style,
        };
        let prefix = settings.prefix.as_ref().map_or("", crate::Key::as_str);
        Self::new(place, prefix, http, credentials)
    }

    /// Credentials that do not change, for [`Self::new`].
    #[must_use]
    pub fn fixed_credentials(key_id: &str, secret_key: &str, token: Option<&str>) -> AwsCredentialProvider {
        std::sync::Arc::new(object_store::StaticCredentialProvider::new(AwsCredential {
            key_id: key_id.to_owned(),
            secret_key: secret_key.to_owned(),
            token: token.map(str::to_owned),
        }))
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The store's place in it: empty, or ending in a slash.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether it is there and may be used. `false` only where the service says that there is no such bucket.
    pub async fn is_there(&self) -> Result<bool> {
        let op = "look at";
        let ask = Ask::get(&[("location", "")]);
        match self.client.send(op, &self.subject, &ask).await? {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.code == "NoSuchBucket" => Ok(false),
            // Location needs a permission that listing does not.
            Err(refusal) if refusal.status == 403 || refusal.is_unknown_call() => {
                let ask = Ask::get(&[("list-type", "2"), ("max-keys", "1")]);
                match self.client.send(op, &self.subject, &ask).await? {
                    Ok(_) => Ok(true),
                    Err(refusal) if refusal.code == "NoSuchBucket" => Ok(false),
                    Err(refusal) => Err(refusal.into_error(op, &self.subject, "s3:ListBucket")),
                }
            }
            Err(refusal) => Err(refusal.into_error(op, &self.subject, "s3:GetBucketLocation")),
        }
    }

    /// The region that the bucket says it is in.
    pub async fn region(&self) -> Result<Setting<String>> {
        let (op, query) = ("read the region of", [("location", "")]);
        let said = self.ask(op, "s3:GetBucketLocation", &[], &query).await?;
        Self::map(said, |answer| {
            let location: xml::Location = answer.document(op, &self.subject)?;
            // AWS writes nothing for its first region, and an old word for its second.
            Ok(match location.value.trim() {
                "" => "us-east-1".to_owned(),
                "EU" => "eu-west-1".to_owned(),
                other => other.to_owned(),
            })
        })
    }

    /// Makes the bucket, able to lock where that is asked for: most services cannot add it later. A bucket of ours that is there already is
    /// fine.
    pub async fn create(&self, with_lock: bool) -> Result<()> {
        let op = "make";
        let body = if self.place.region == "us-east-1" || self.place.region == "auto" {
            String::new()
        } else {
            xml::location(&self.place.region)
        };
        let lock = [("x-amz-bucket-object-lock-enabled", "true".to_owned())];
        let ask = Ask {
            headers: if with_lock { &lock } else { &[] },
            ..Ask::put(&[], body)
        };
        match self.client.send(op, &self.subject, &ask).await? {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.code == "BucketAlreadyOwnedByYou" => Ok(()),
            Err(refusal) if refusal.code == "BucketAlreadyExists" => Err(Error::new(
                ErrorKind::AlreadyExists,
                op,
                &self.subject,
                "the name is taken by somebody else",
            )
            .with_hint("names of buckets are shared by all customers of a service: choose another `bucket:`")),
            Err(refusal) => Err(refusal.into_error(op, &self.subject, "s3:CreateBucket")),
        }
    }

    /// Whether old versions are kept.
    pub async fn versioning(&self) -> Result<Setting<bool>> {
        let (op, query) = ("read the versioning of", [("versioning", "")]);
        let said = self.ask(op, "s3:GetBucketVersioning", &[], &query).await?;
        let said = Self::map(said, |answer| answer.document::<xml::Versioning>(op, &self.subject))?;
        Ok(match said {
            Setting::Is(versioning) if versioning.status.is_empty() => Setting::NotSet,
            Setting::Is(versioning) => Setting::Is(versioning.status == "Enabled"),
            Setting::NotSet => Setting::NotSet,
            Setting::NotOffered => Setting::NotOffered,
        })
    }

    /// Keeps old versions from now on.
    pub async fn enable_versioning(&self) -> Result<()> {
        self.tell(
            "enable versioning of",
            "s3:PutBucketVersioning",
            &[("versioning", "")],
            xml::versioning(),
        )
        .await
    }

    /// Whether the bucket can lock files, and what it does by itself: `Is(None)` can lock, but locks nothing by itself.
    pub async fn lock(&self) -> Result<Setting<Option<Lock>>> {
        let (op, query) = ("read the object lock of", [("object-lock", "")]);
        let absent = ["ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration"];
        let said = self.ask(op, "s3:GetBucketObjectLockConfiguration", &absent, &query).await?;
        let said = Self::map(said, |answer| answer.document::<xml::ObjectLock>(op, &self.subject))?;
        Ok(match said {
            Setting::Is(lock) if lock.enabled != "Enabled" => Setting::NotSet,
            Setting::Is(lock) => Setting::Is(lock.default_lock()?),
            Setting::NotSet => Setting::NotSet,
            Setting::NotOffered => Setting::NotOffered,
        })
    }

    /// Locks every new file by itself. The bucket must have been made able to lock, or have versioning (AWS).
    pub async fn set_lock(&self, lock: Lock) -> Result<()> {
        self.tell(
            "set the object lock of",
            "s3:PutBucketObjectLockConfiguration",
            &[("object-lock", "")],
            xml::object_lock(lock),
        )
        .await
    }

    /// How new files are encrypted by the service (`AES256`, `aws:kms`).
    pub async fn encryption(&self) -> Result<Setting<String>> {
        let (op, query) = ("read the encryption of", [("encryption", "")]);
        let absent = [
            "ServerSideEncryptionConfigurationNotFoundError",
            "NoSuchEncryptionConfiguration",
        ];
        let said = self.ask(op, "s3:GetEncryptionConfiguration", &absent, &query).await?;
        let said = Self::map(said, |answer| answer.document::<xml::Encryption>(op, &self.subject))?;
        Ok(match said {
            Setting::Is(encryption) => encryption.algorithm().map_or(Setting::NotSet, Setting::Is),
            Setting::NotSet => Setting::NotSet,
            Setting::NotOffered => Setting::NotOffered,
        })
    }

    /// Lets the service encrypt new files with its own key, besides Lifeboat's encryption.
    pub async fn enable_encryption(&self) -> Result<()> {
        self.tell(
            "set the encryption of",
            "s3:PutEncryptionConfiguration",
            &[("encryption", "")],
            xml::encryption(),
        )
        .await
    }

    /// Whether all four ways to make files public are blocked.
    pub async fn public_access_blocked(&self) -> Result<Setting<bool>> {
        let (op, query) = ("read the public access of", [("publicAccessBlock", "")]);
        let absent = ["NoSuchPublicAccessBlockConfiguration"];
        let said = self.ask(op, "s3:GetBucketPublicAccessBlock", &absent, &query).await?;
        Self::map(said, |answer| {
            Ok(answer.document::<xml::PublicAccess>(op, &self.subject)?.all())
        })
    }

    /// Blocks all four.
    pub async fn block_public_access(&self) -> Result<()> {
        self.tell(
            "block public access to",
            "s3:PutBucketPublicAccessBlock",
            &[("publicAccessBlock", "")],
            xml::public_access_block(),
        )
        .await
    }

    /// The rules by which the bucket moves and deletes.
    pub async fn lifecycle(&self) -> Result<Setting<Lifecycle>> {
        let (op, query) = ("read the lifecycle rules of", [("lifecycle", "")]);
        let absent = ["NoSuchLifecycleConfiguration"];
        let said = self.ask(op, "s3:GetLifecycleConfiguration", &absent, &query).await?;
        Self::map(said, |answer| {
            let parsed: xml::Lifecycle = answer.document(op, &self.subject)?;
            let raw = xml::elements(&String::from_utf8_lossy(&answer.body), "Rule");
            if raw.len() != parsed.rules.len() {
                return Err(Error::new(
                    ErrorKind::Failed,
                    op,
                    &self.subject,
                    format!(
                        "the service's answer cannot be read: {} rules, but {} elements",
                        parsed.rules.len(),
                        raw.len()
                    ),
                ));
            }
            Ok(Lifecycle {
                rules: parsed.rules.into_iter().map(Rule::from).collect(),
                raw,
            })
        })
    }

    /// Adds the rule `id`, or replaces it; rules of others stay as they are.
    pub async fn set_lifecycle_rule(&self, now: &Lifecycle, rule: &Rule) -> Result<()> {
        let mut raw: Vec<String> = now
            .rules
            .iter()
            .zip(&now.raw)
            .filter(|(known, _)| known.id != rule.id)
            .map(|(_, raw)| raw.clone())
            .collect();
        raw.push(xml::rule(rule));
        self.tell(
            "set the lifecycle rules of",
            "s3:PutLifecycleConfiguration",
            &[("lifecycle", "")],
            xml::lifecycle(&raw),
        )
        .await
    }

    /// Replaces all rules by a whole document, as it is.
    pub async fn put_lifecycle_document(&self, document: &str) -> Result<()> {
        self.tell(
            "set the lifecycle rules of",
            "s3:PutLifecycleConfiguration",
            &[("lifecycle", "")],
            document.to_owned(),
        )
        .await
    }

    /// Asks for one setting; `absent` are the codes that mean that it is not set.
    async fn ask(&self, op: &'static str, permission: &str, absent: &[&str], query: &[(&str, &str)]) -> Result<Setting<Answer>> {
        match self.client.send(op, &self.subject, &Ask::get(query)).await? {
            Ok(answer) => Ok(Setting::Is(answer)),
            Err(refusal) if absent.contains(&refusal.code.as_str()) => Ok(Setting::NotSet),
            Err(refusal) if refusal.is_unknown_call() => Ok(Setting::NotOffered),
            Err(refusal) => Err(refusal.into_error(op, &self.subject, permission)),
        }
    }

    async fn tell(&self, op: &'static str, permission: &str, query: &[(&str, &str)], body: String) -> Result<()> {
        let said = self.client.send(op, &self.subject, &Ask::put(query, body)).await?;
        said.map(drop).map_err(|refusal| self.refused(op, refusal, permission))
    }

    fn refused(&self, op: &'static str, refusal: Refusal, permission: &str) -> Error {
        if refusal.is_unknown_call() {
            return Error::new(ErrorKind::Failed, op, &self.subject, "the service does not offer this");
        }
        refusal.into_error(op, &self.subject, permission)
    }

    fn map<T>(said: Setting<Answer>, read: impl FnOnce(Answer) -> Result<T>) -> Result<Setting<T>> {
        Ok(match said {
            Setting::Is(answer) => Setting::Is(read(answer)?),
            Setting::NotSet => Setting::NotSet,
            Setting::NotOffered => Setting::NotOffered,
        })
    }

    /// The full name of a stored file.
    fn full(&self, key: &crate::Key) -> String {
        format!("{}{key}", self.prefix)
    }

    async fn on_file(&self, op: &'static str, key: &str, ask: &Ask<'_>) -> Result<Result<Answer, Refusal>> {
        self.client.send(op, &format!("{key} in {}", self.subject), ask).await
    }

    fn file_error(&self, op: &'static str, key: &str, refusal: Refusal, permission: &str) -> Error {
        refusal.into_error(op, &format!("{key} in {}", self.subject), permission)
    }

    fn head_ask<'a>(key: &'a str, query: &'a [(&'a str, &'a str)]) -> Ask<'a> {
        Ask {
            method: Method::HEAD,
            key,
            query,
            headers: &[],
            body: Bytes::new(),
        }
    }
}
