//! The objects of the server, in memory, and the operations that a store uses.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, ETag, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput,
    ListObjectsV2Input, ListObjectsV2Output, Object, PutObjectInput, PutObjectOutput, Range, StreamingBlob, Timestamp,
};
use s3s::{Body, S3, S3Error, S3Request, S3Response, S3Result, s3_error};

use super::BUCKET;

#[derive(Debug, Clone)]
struct Stored {
    body: Bytes,
    at: SystemTime,
    class: Option<String>,
}

impl Stored {
    fn tag(&self) -> ETag {
        ETag::Strong(blake3::hash(&self.body).to_hex().to_string())
    }

    fn size(&self) -> i64 {
        i64::try_from(self.body.len()).unwrap_or(i64::MAX)
    }
}

/// What was stored at some moment.
#[derive(Debug, Clone)]
pub struct Snapshot(BTreeMap<String, Stored>);

/// The bucket.
#[derive(Debug, Clone)]
pub(super) struct Objects {
    stored: Arc<Mutex<BTreeMap<String, Stored>>>,
    conditions: bool,
    page: usize,
}

impl Objects {
    pub(super) fn new(conditions: bool, page: usize) -> Self {
        Self {
            stored: Arc::default(),
            conditions,
            page,
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Stored>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.all().keys().cloned().collect()
    }

    pub(super) fn storage_class(&self, name: &str) -> Option<String> {
        self.all().get(name).and_then(|stored| stored.class.clone())
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot(self.all().clone())
    }

    pub(super) fn load(&self, snapshot: Snapshot) {
        *self.all() = snapshot.0;
    }

    pub(super) fn age(&self, by: Duration) {
        for stored in self.all().values_mut() {
            stored.at = stored.at.checked_sub(by).unwrap_or(SystemTime::UNIX_EPOCH);
        }
    }

    fn find(&self, bucket: &str, key: &str) -> S3Result<Stored> {
        in_bucket(bucket)?;
        self.all()
            .get(key)
            .cloned()
            .ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
    }
}

fn in_bucket(bucket: &str) -> S3Result<()> {
    if bucket == BUCKET {
        Ok(())
    } else {
        Err(s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }
}

fn failed(error: Box<dyn std::error::Error + Send + Sync>) -> S3Error {
    let mut failed = s3_error!(IncompleteBody, "the body broke off");
    failed.set_source(error);
    failed
}

#[async_trait]
impl S3 for Objects {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        in_bucket(&input.bucket)?;
        let mut body = BytesMut::new();
        if let Some(mut stream) = input.body {
            while let Some(piece) = stream.try_next().await.map_err(failed)? {
                body.extend_from_slice(&piece);
            }
        }
        let body = body.freeze();
        let stored = Stored {
            body,
            #[expect(clippy::disallowed_methods, reason = "a server has its own clock")]
            at: SystemTime::now(),
            class: input.storage_class.map(|class| class.as_str().to_owned()),
        };
        let tag = stored.tag();
        let mut all = self.all();
        if self.conditions && input.if_none_match.is_some() && all.contains_key(&input.key) {
            return Err(s3_error!(
                PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold"
            ));
        }
        all.insert(input.key, stored);
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(tag),
            ..PutObjectOutput::default()
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let stored = self.find(&input.bucket, &input.key)?;
        let size = stored.body.len() as u64;
        let (body, content_range) = match input.range {
            None => (stored.body.clone(), None),
            Some(range) => {
                let range = within(range, size)?;
                let shown = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                (stored.body.slice(index(range.start)..index(range.end)), Some(shown))
            }
        };
        Ok(S3Response::new(GetObjectOutput {
            content_length: i64::try_from(body.len()).ok(),
            body: Some(StreamingBlob::from(Body::from(body))),
            content_range,
            e_tag: Some(stored.tag()),
            last_modified: Some(Timestamp::from(stored.at)),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let stored = self.find(&request.input.bucket, &request.input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(stored.size()),
            e_tag: Some(stored.tag()),
            last_modified: Some(Timestamp::from(stored.at)),
            ..HeadObjectOutput::default()
        }))
    }

    async fn list_objects_v2(&self, request: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        in_bucket(&input.bucket)?;
        let prefix = input.prefix.unwrap_or_default();
        let after = input.continuation_token.or(input.start_after).unwrap_or_default();
        let all = self.all();
        let from = (Bound::Excluded(after), Bound::Unbounded);
        let mut found = all.range(from).filter(|(name, _)| name.starts_with(&prefix));
        let contents: Vec<Object> = found
            .by_ref()
            .take(self.page)
            .map(|(name, stored)| Object {
                key: Some(name.clone()),
                size: Some(stored.size()),
                e_tag: Some(stored.tag()),
                last_modified: Some(Timestamp::from(stored.at)),
                ..Object::default()
            })
            .collect();
        let more = found.next().is_some();
        let last = contents.last().and_then(|object| object.key.clone());
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(prefix),
            key_count: i32::try_from(contents.len()).ok(),
            contents: Some(contents),
            is_truncated: Some(more),
            next_continuation_token: last.filter(|_| more),
            ..ListObjectsV2Output::default()
        }))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        in_bucket(&request.input.bucket)?;
        self.all().remove(&request.input.key);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }
}

fn within(range: Range, size: u64) -> S3Result<std::ops::Range<u64>> {
    range
        .check(size)
        .map_err(|error| s3_error!(error, InvalidRange, "The requested range is not satisfiable"))
}
