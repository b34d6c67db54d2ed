//! One stored file as its bucket's owner sees it: versions, locks, storage class.
//!
//! Dates are UTC microseconds since 1970 on our side, and what S3 writes on the other.

use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use lifeboat_model::{Error, ErrorKind, Result, cold};
use reqwest::Method;

use super::client::{Answer, Ask};
use super::{Bucket, LockMode, xml};
use crate::Key;

/// A stored version, or the marker that a deletion left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The full name in the bucket, prefix included.
    pub name: String,
    /// Its version id; `null` where the bucket had no versions yet.
    pub id: String,
    /// It is what a plain read finds.
    pub current: bool,
    /// It is a deletion's marker and holds nothing.
    pub marker: bool,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its storage class; empty where the service does not say.
    pub storage_class: String,
}

/// A current file in a listing, with its storage class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name below the store's place.
    pub key: Key,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its storage class.
    pub storage_class: String,
}

/// How far an archived file has come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restoring {
    /// Nobody asked for it.
    NotAsked,
    /// It was asked for and is on its way.
    OnItsWay,
    /// It can be read for now.
    Readable,
}

/// What the bucket knows about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileState {
    /// Its current version, where the bucket keeps versions.
    pub version: Option<String>,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its storage class.
    pub storage_class: String,
    /// Locked how, and until when (microseconds since 1970).
    pub lock: Option<(LockMode, i64)>,
    /// For an archived file.
    pub restoring: Restoring,
}

impl FileState {
    /// Whether a read would find it.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        !cold::is_archive(&self.storage_class) || self.restoring == Restoring::Readable
    }
}

impl Bucket {
    /// Looks at a file.
    pub async fn file(&self, key: &Key) -> Result<FileState> {
        let (op, name) = ("look at", self.full(key));
        let answer = self
            .on_file(op, &name, &Self::head_ask(&name, &[]))
            .await?
            .map_err(|refusal| self.file_error(op, &name, refusal, "s3:GetObject and s3:GetObjectRetention"))?;
        state(&answer)
    }

    /// Every version and marker below the store's place whose name continues with `below`.
    pub async fn versions(&self, below: &str) -> Result<Vec<Version>> {
        self.versions_in_pages(below, 1000).await
    }

    /// The same, asking for `page` names at once.
    pub async fn versions_in_pages(&self, below: &str, page: u32) -> Result<Vec<Version>> {
        let op = "list the versions of";
        let page = page.to_string();
        let prefix = format!("{}{below}", self.prefix);
        let mut found = Vec::new();
        let (mut key_marker, mut version_marker) = (String::new(), String::new());
        loop {
            let mut query = vec![("versions", ""), ("max-keys", page.as_str()), ("prefix", prefix.as_str())];
            query.retain(|(name, value)| *name == "versions" || !value.is_empty());
            if !key_marker.is_empty() {
                query.push(("key-marker", &key_marker));
                if !version_marker.is_empty() {
                    query.push(("version-id-marker", &version_marker));
                }
            }
            let answer = self
                .client
                .send(op, &self.subject, &Ask::get(&query))
                .await?
                .map_err(|refusal| self.refused(op, refusal, "s3:ListBucketVersions"))?;
            let page: xml::Versions = answer.document(op, &self.subject)?;
            for item in page.items {
                let (marker, item) = match item {
                    xml::Item::Version(item) => (false, item),
                    xml::Item::DeleteMarker(item) => (true, item),
                    xml::Item::Other => continue,
                };
                found.push(Version {
                    name: item.key,
                    id: item.version_id,
                    current: item.is_latest,
                    marker,
                    size_bytes: item.size,
                    storage_class: item.storage_class,
                });
            }
            match (page.is_truncated, page.next_key_marker) {
                (false, _) => return Ok(found),
                (true, Some(next))
                    if next != key_marker || page.next_version_id_marker.as_deref() != Some(version_marker.as_str()) =>
                {
                    key_marker = next;
                    version_marker = page.next_version_id_marker.unwrap_or_default();
                }
                (true, _) => {
                    return Err(Error::new(
                        ErrorKind::Failed,
                        op,
                        &self.subject,
                        "the listing says that it goes on, but not where",
                    ));
                }
            }
        }
    }

    /// Every current file under the folder `prefix`, with its storage class; or an error, never a part.
    pub async fn classes(&self, prefix: &Key) -> Result<Vec<Stored>> {
        let op = "list the storage classes of";
        let full = format!("{}/", self.full(prefix));
        let mut found = Vec::new();
        let mut token = String::new();
        loop {
            let mut query = vec![("list-type", "2"), ("prefix", full.as_str())];
            if !token.is_empty() {
                query.push(("continuation-token", &token));
            }
            let answer = self
                .client
                .send(op, &self.subject, &Ask::get(&query))
                .await?
                .map_err(|refusal| self.refused(op, refusal, "s3:ListBucket"))?;
            let page: xml::Files = answer.document(op, &self.subject)?;
            for item in page.contents {
                // What is no name of ours is not our file.
                let Some(Ok(key)) = item.key.strip_prefix(&self.prefix).map(Key::new) else {
                    continue;
                };
                found.push(Stored {
                    key,
                    size_bytes: item.size,
                    storage_class: if item.storage_class.is_empty() {
                        "STANDARD".to_owned()
                    } else {
                        item.storage_class
                    },
                });
            }
            match (page.is_truncated, page.next_continuation_token) {
                (false, _) => return Ok(found),
                (true, Some(next)) if next != token => token = next,
                (true, _) => {
                    return Err(Error::new(
                        ErrorKind::Failed,
                        op,
                        &self.subject,
                        "the listing says that it goes on, but not where",
                    ));
                }
            }
        }
    }

    /// Until when one version is locked. Asked by looking at the file: the call for it alone fails in some services.
    pub async fn retention(&self, key: &Key, version: &str) -> Result<Option<(LockMode, i64)>> {
        let (op, name) = ("read the lock of", self.full(key));
        let query = [("versionId", version)];
        let answer = self
            .on_file(op, &name, &Self::head_ask(&name, &query))
            .await?
            .map_err(|refusal| self.file_error(op, &name, refusal, "s3:GetObjectRetention"))?;
        Ok(state(&answer)?.lock)
    }

    /// Locks one version until `until_us`. A lock is only ever made longer: the service refuses less.
    pub async fn set_retention(&self, key: &Key, version: &str, mode: LockMode, until_us: i64) -> Result<()> {
        let (op, name) = ("lock", self.full(key));
        let query = [("retention", ""), ("versionId", version)];
        let ask = Ask {
            key: &name,
            ..Ask::put(&query, xml::retention(mode, &written(until_us)?))
        };
        let said = self.on_file(op, &name, &ask).await?;
        said.map(drop)
            .map_err(|refusal| self.file_error(op, &name, refusal, "s3:PutObjectRetention"))
    }

    /// Deletes one version for good. A locked one is an error of kind `Refused`.
    pub async fn delete_version(&self, key: &Key, version: &str) -> Result<()> {
        let (op, name) = ("delete", self.full(key));
        let query = [("versionId", version)];
        let ask = Ask {
            method: Method::DELETE,
            key: &name,
            query: &query,
            headers: &[],
            body: Bytes::new(),
        };
        match self.on_file(op, &name, &ask).await? {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.status == 403 => match self.retention(key, version).await {
                Ok(Some((mode, until_us))) => Err(Error::new(
                    ErrorKind::Refused,
                    op,
                    &name,
                    format!("it is locked until {} ({})", written(until_us)?, mode.as_str().to_lowercase()),
                )
                .with_hint("nothing is wrong: run `lifeboat prune` again after that day")),
                _ => Err(self.file_error(op, &name, refusal, "s3:DeleteObjectVersion")),
            },
            Err(refusal) => Err(self.file_error(op, &name, refusal, "s3:DeleteObjectVersion")),
        }
    }

    /// Moves a file to a storage class by copying it onto itself. The bytes stay the same; on a bucket that keeps versions the old one
    /// stays as an old version until it expires.
    pub async fn set_storage_class(&self, key: &Key, class: &str) -> Result<()> {
        let (op, name) = ("change the storage class of", self.full(key));
        let headers = [
            ("x-amz-copy-source", format!("/{}/{name}", self.place.bucket)),
            ("x-amz-metadata-directive", "COPY".to_owned()),
            ("x-amz-storage-class", class.to_owned()),
        ];
        let ask = Ask {
            method: Method::PUT,
            key: &name,
            query: &[],
            headers: &headers,
            body: Bytes::new(),
        };
        let permission = "s3:GetObject and s3:PutObject";
        match self.on_file(op, &name, &ask).await? {
            Ok(answer) if xml::says_error(&answer.body) => {
                Err(
                    Error::new(ErrorKind::Unreachable, op, &name, "the service began to copy and gave up")
                        .with_hint("run the same command again later; the file is as it was"),
                )
            }
            Ok(_) => Ok(()),
            Err(refusal) => Err(self.file_error(op, &name, refusal, permission)),
        }
    }

    /// Asks for an archived file, to be readable for `days` once it is back. One that is on its way already, or was never archived, is fine.
    pub async fn bring_back(&self, key: &Key, days: u32) -> Result<Restoring> {
        let (op, name) = ("bring back", self.full(key));
        let query = [("restore", "")];
        let ask = Ask {
            method: Method::POST,
            key: &name,
            query: &query,
            headers: &[],
            body: xml::restore(days).into(),
        };
        match self.on_file(op, &name, &ask).await? {
            // 200: it was back already, and stays longer.
            Ok(answer) if answer.status == 200 => Ok(Restoring::Readable),
            Ok(_) => Ok(Restoring::OnItsWay),
            Err(refusal) if refusal.code == "RestoreAlreadyInProgress" => Ok(Restoring::OnItsWay),
            Err(refusal) if refusal.code == "InvalidObjectState" => Ok(Restoring::Readable),
            Err(refusal) => Err(self.file_error(op, &name, refusal, "s3:RestoreObject")),
        }
    }

    /// Stores a small file, for set-up checks and tests. The bucket's own lock applies.
    pub async fn put_small(&self, key: &Key, body: Bytes) -> Result<()> {
        let (op, name) = ("store", self.full(key));
        let ask = Ask {
            key: &name,
            ..Ask::put(&[], body)
        };
        let said = self.on_file(op, &name, &ask).await?;
        said.map(drop)
            .map_err(|refusal| self.file_error(op, &name, refusal, "s3:PutObject"))
    }

    /// Reads a small file, for set-up checks and tests. An archived one is an error of kind `Unreachable`.
    pub async fn get_small(&self, key: &Key) -> Result<Bytes> {
        let (op, name) = ("read", self.full(key));
        let ask = Ask {
            key: &name,
            ..Ask::get(&[])
        };
        let said = self.on_file(op, &name, &ask).await?;
        said.map(|answer| answer.body)
            .map_err(|refusal| self.file_error(op, &name, refusal, "s3:GetObject"))
    }
}

fn state(answer: &Answer) -> Result<FileState> {
    let lock = match (
        answer.header("x-amz-object-lock-mode"),
        answer.header("x-amz-object-lock-retain-until-date"),
    ) {
        (Some(mode), Some(until)) => Some((LockMode::parse(mode)?, timestamp(until)?)),
        _ => None,
    };
    Ok(FileState {
        version: answer.header("x-amz-version-id").map(str::to_owned),
        size_bytes: answer
            .header("content-length")
            .and_then(|text| text.parse().ok())
            .unwrap_or(0),
        // S3 says nothing for its standard class.
        storage_class: answer.header("x-amz-storage-class").unwrap_or("STANDARD").to_owned(),
        lock,
        restoring: match answer.header("x-amz-restore") {
            None => Restoring::NotAsked,
            Some(text) if text.contains("ongoing-request=\"true\"") => Restoring::OnItsWay,
            Some(_) => Restoring::Readable,
        },
    })
}

/// Reads a date as S3 writes it: RFC 3339, or RFC 2822 in some headers of some services.
fn timestamp(text: &str) -> Result<i64> {
    let parsed = text
        .parse::<Timestamp>()
        .or_else(|_| rfc2822::parse(text).map(|zoned| zoned.timestamp()));
    parsed
        .map(Timestamp::as_microsecond)
        .map_err(|error| Error::new(ErrorKind::Failed, "read a date", format!("{text:?}"), error))
}

/// A date as S3 wants it: whole seconds, rounded up, so that a lock is never shorter than asked.
fn written(at_us: i64) -> Result<String> {
    let seconds = at_us.div_euclid(1_000_000) + i64::from(at_us.rem_euclid(1_000_000) != 0);
    Timestamp::from_second(seconds)
        .map(|at| at.to_string())
        .map_err(|error| Error::new(ErrorKind::Failed, "write a date", at_us, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_both_forms_and_never_shortened() {
        assert_eq!(timestamp("1970-01-02T00:00:00Z").unwrap(), 86_400_000_000);
        assert_eq!(timestamp("1970-01-02T00:00:00.000Z").unwrap(), 86_400_000_000);
        assert_eq!(timestamp("Fri, 02 Jan 1970 00:00:00 GMT").unwrap(), 86_400_000_000);
        assert!(timestamp("soon").is_err());
        assert_eq!(written(86_400_000_001).unwrap(), "1970-01-02T00:00:01Z");
        assert_eq!(written(86_400_000_000).unwrap(), "1970-01-02T00:00:00Z");
    }
}
