//! One signed request to an S3 service, and what its refusals mean.
//!
//! Must not know what the calls are for. Secrets stand in no message: an error carries the service's code and words, which hold neither key
//! nor signature.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use lifeboat_model::{Error, ErrorKind, Result};
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpRequest, HttpRequestBody};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// How long one request may take: its answers are small, or have no body at all.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a request that the service could not take is sent.
const ATTEMPTS: u32 = 4;
/// More than any answer of these calls holds (a page of 1,000 versions is about 500 KiB).
const ANSWER_LIMIT_BYTES: usize = 16 << 20;

/// Where a bucket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The service's URL; without it, that of AWS in the region.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// The bucket stands in the path, not in the host name.
    pub path_style: bool,
}

impl Place {
    /// The URL of the bucket, without a final slash.
    fn url(&self) -> Result<Url> {
        let invalid = |detail: &str| {
            Error::new(
                ErrorKind::ConfigInvalid,
                "use the endpoint",
                self.endpoint.as_deref().unwrap_or("of AWS"),
                detail,
            )
            .with_hint("write it as `https://HOST` or `https://HOST:PORT`, then run `lifeboat config check`")
        };
        // A bucket with dots has no valid certificate as part of a host name.
        let in_path = self.path_style || (self.endpoint.is_none() && self.bucket.contains('.'));
        let endpoint = match &self.endpoint {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => format!("https://s3.{}.amazonaws.com", self.region),
        };
        let (scheme, host) = endpoint
            .split_once("://")
            .ok_or_else(|| invalid("it does not begin with https:// or http://, or names no host"))?;
        let text = if in_path {
            format!("{scheme}://{host}/{}", self.bucket)
        } else {
            format!("{scheme}://{}.{host}", self.bucket)
        };
        let url = Url::parse(&text).map_err(|error| invalid(&error.to_string()))?;
        if matches!(url.scheme(), "http" | "https") {
            Ok(url)
        } else {
            Err(invalid("it does not begin with https:// or http://"))
        }
    }
}

/// What the service said no to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// HTTP status.
    pub(super) status: u16,
    /// The service's own code (`NoSuchBucket`); empty where it gave none.
    pub(super) code: String,
    /// Its words.
    pub(super) message: String,
}

impl Refusal {
    fn read(status: StatusCode, body: &[u8]) -> Self {
        #[derive(Deserialize, Default)]
        struct Document {
            #[serde(rename = "Code", default)]
            code: String,
            #[serde(rename = "Message", default)]
            message: String,
        }
        let text = String::from_utf8_lossy(body);
        let said = quick_xml::de::from_str::<Document>(&text).unwrap_or_default();
        Self {
            status: status.as_u16(),
            code: said.code,
            message: said.message,
        }
    }

    /// Whether the service does not know this call at all.
    pub(super) fn is_unknown_call(&self) -> bool {
        self.status == 501 || matches!(self.code.as_str(), "NotImplemented" | "MethodNotAllowed" | "XNotImplemented")
    }

    fn may_pass(&self) -> bool {
        self.status >= 500 && self.status != 501
            || self.status == 429
            || matches!(self.code.as_str(), "SlowDown" | "OperationAborted")
    }

    /// The error of an operation that needs `permission`.
    pub(super) fn into_error(self, op: &'static str, subject: &str, permission: &str) -> Error {
        let said = match (self.code.is_empty(), self.message.is_empty()) {
            (true, _) => format!("the service answered {}", self.status),
            (false, true) => format!("the service answered {} ({})", self.status, self.code),
            (false, false) => format!("the service answered {} ({}: {})", self.status, self.code, self.message),
        };
        let error = |kind, hint: String| Error::new(kind, op, subject, &said).with_hint(hint);
        match (self.status, self.code.as_str()) {
            (_, "NoSuchBucket") => error(
                ErrorKind::Unreachable,
                "correct `bucket:`, or make it with `lifeboat store setup`".to_owned(),
            ),
            (404, _) => Error::new(ErrorKind::NotFound, op, subject, said),
            (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken") => error(
                ErrorKind::Unreachable,
                "the credentials are not those of this service, or have expired: correct `access_key` and `secret_key`, or what the environment says"
                    .to_owned(),
            ),
            (_, "RequestTimeTooSkewed") => error(
                ErrorKind::Unreachable,
                "the clock of this machine is wrong by more than 15 minutes: set it right".to_owned(),
            ),
            (301 | 307, _) | (_, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" | "PermanentRedirect") => error(
                ErrorKind::ConfigInvalid,
                "the bucket is in another region: correct `region:`".to_owned(),
            ),
            (403, "InvalidObjectState") => error(
                ErrorKind::Unreachable,
                "it lies in an archive class and must be brought back first: `lifeboat restore` asks for that and says how long it takes"
                    .to_owned(),
            ),
            (401 | 403, _) => error(
                ErrorKind::Unreachable,
                format!("the credentials may not do it: they need {permission} (`lifeboat store setup --print` prints whole policies), or the file is locked"),
            ),
            _ if self.may_pass() => error(ErrorKind::Unreachable, "run the same command again later".to_owned()),
            _ => Error::new(ErrorKind::Failed, op, subject, said),
        }
    }
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// Reads the answer's document. What is not one is an error, never an absence.
    pub(super) fn document<T: for<'de> Deserialize<'de>>(&self, op: &'static str, subject: &str) -> Result<T> {
        let unreadable = |detail: String| {
            Error::new(
                ErrorKind::Failed,
                op,
                subject,
                format!("the service's answer cannot be read: {detail}"),
            )
        };
        let text = std::str::from_utf8(&self.body).map_err(|error| unreadable(error.to_string()))?;
        quick_xml::de::from_str(text).map_err(|error| unreadable(error.to_string()))
    }

    /// One header as text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What to ask.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// Below the bucket, without a slash in front; empty for the bucket itself.
    pub(super) key: &'a str,
    /// Sub-resource and parameters; an empty value is sent as a bare name.
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) headers: &'a [(&'static str, String)],
    pub(super) body: Bytes,
}

impl Ask<'_> {
    pub(super) fn get<'a>(query: &'a [(&'a str, &'a str)]) -> Ask<'a> {
        Ask {
            method: Method::GET,
            key: "",
            query,
            headers: &[],
            body: Bytes::new(),
        }
    }

    pub(super) fn put<'a>(query: &'a [(&'a str, &'a str)], body: impl Into<Bytes>) -> Ask<'a> {
        Ask {
            method: Method::PUT,
            key: "",
            query,
            headers: &[],
            body: body.into(),
        }
    }
}

/// Signs and sends.
#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    credentials: AwsCredentialProvider,
    region: String,
    url: Url,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.url)
    }
}

impl Client {
    pub(super) fn new(place: &Place, http: reqwest::Client, credentials: AwsCredentialProvider) -> Result<Self> {
        Ok(Self {
            http,
            credentials,
            region: place.region.clone(),
            url: place.url()?,
        })
    }

    /// Sends, and sends again what the service could not take for the moment. A refusal is an answer of its own; no answer at all is an
    /// error of kind `Unreachable` or `TimedOut`.
    pub(super) async fn send(&self, op: &'static str, subject: &str, ask: &Ask<'_>) -> Result<Result<Answer, Refusal>> {
        let mut wait = Duration::from_millis(200);
        for attempt in 1.. {
            let last = attempt >= ATTEMPTS;
            match self.send_once(op, subject, ask).await {
                Ok(Err(refusal)) if refusal.may_pass() && !last => {}
                Err(error) if error.kind().is_retryable() && !last => {}
                outcome => return outcome,
            }
            tokio::time::sleep(wait).await;
            wait *= 3;
        }
        Err(Error::new(ErrorKind::Bug, op, subject, "the attempts never ended"))
    }

    async fn send_once(&self, op: &'static str, subject: &str, ask: &Ask<'_>) -> Result<Result<Answer, Refusal>> {
        let request = self.signed(op, subject, ask).await?;
        let sent = self
            .http
            .request(request.method().clone(), request.uri().to_string())
            .headers(request.headers().clone())
            .timeout(LIMIT)
            .body(ask.body.clone())
            .send()
            .await;
        let answer = sent.map_err(|error| unreachable(op, subject, error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = body(op, subject, answer).await?;
        if status.is_success() {
            Ok(Ok(Answer {
                status: status.as_u16(),
                headers,
                body,
            }))
        } else {
            Ok(Err(Refusal::read(status, &body)))
        }
    }

    async fn signed(&self, op: &'static str, subject: &str, ask: &Ask<'_>) -> Result<HttpRequest> {
        let bug = |detail: String| Error::new(ErrorKind::Bug, op, subject, detail);
        let mut url = self.url.clone();
        if !ask.key.is_empty() {
            let path = format!("{}/{}", url.path().trim_end_matches('/'), ask.key);
            url.set_path(&path);
        }
        let query: Vec<String> = ask
            .query
            .iter()
            .map(|(name, value)| {
                if value.is_empty() {
                    (*name).to_owned()
                } else {
                    format!("{name}={}", escaped(value))
                }
            })
            .collect();
        if !query.is_empty() {
            url.set_query(Some(&query.join("&")));
        }
        let mut request = HttpRequest::new(HttpRequestBody::from(ask.body.clone()));
        *request.method_mut() = ask.method.clone();
        match url.as_str().parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => return Err(bug(format!("{url} is no address: {error}"))),
        }
        let mut set = |name: &'static str, value: String| -> Result<()> {
            let value = HeaderValue::from_str(&value).map_err(|error| bug(error.to_string()))?;
            request.headers_mut().insert(HeaderName::from_static(name), value);
            Ok(())
        };
        if !ask.body.is_empty() {
            // Several of these calls want the body's checksum; the named algorithm tells servers which of the headers counts.
            let digest = Sha256::digest(&ask.body);
            set("x-amz-checksum-sha256", BASE64.encode(digest))?;
            set("x-amz-sdk-checksum-algorithm", "SHA256".to_owned())?;
            if !ask.query.is_empty() || ask.key.is_empty() {
                set("content-type", "application/xml".to_owned())?;
            }
        }
        for (name, value) in ask.headers {
            set(name, value.clone())?;
        }
        let credential = self.credentials.get_credential().await.map_err(|error| {
            Error::new(ErrorKind::Unreachable, op, subject, "no credentials were found")
                .with_hint("write `access_key` and `secret_key` into the store's configuration, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
                .with_source(error)
        })?;
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .try_authorize(&mut request, None)
            .map_err(|error| bug("the request cannot be signed".to_owned()).with_source(error))?;
        Ok(request)
    }
}

/// Percent-encodes a value of a query.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

async fn body(op: &'static str, subject: &str, mut answer: reqwest::Response) -> Result<Bytes> {
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|error| unreachable(op, subject, error))? {
        body.extend_from_slice(&part);
        if body.len() > ANSWER_LIMIT_BYTES {
            return Err(Error::new(
                ErrorKind::Failed,
                op,
                subject,
                "the service's answer is far too long",
            ));
        }
    }
    Ok(body.into())
}

/// No answer. The address may hold nothing secret, but is said by `subject` already.
fn unreachable(op: &'static str, subject: &str, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let kind = if error.is_timeout() {
        ErrorKind::TimedOut
    } else {
        ErrorKind::Unreachable
    };
    Error::new(kind, op, subject, "the service does not answer")
        .with_hint("check `endpoint:`, the network and the proxy, then run the same command again")
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(endpoint: Option<&str>, bucket: &str, path_style: bool) -> Place {
        Place {
            endpoint: endpoint.map(str::to_owned),
            region: "eu-central-1".to_owned(),
            bucket: bucket.to_owned(),
            path_style,
        }
    }

    #[test]
    fn a_bucket_has_one_address() {
        let url = |place: Place| place.url().unwrap().to_string();
        assert_eq!(url(place(None, "b", false)), "https://b.s3.eu-central-1.amazonaws.com/");
        assert_eq!(url(place(None, "b.c", false)), "https://s3.eu-central-1.amazonaws.com/b.c");
        assert_eq!(
            url(place(Some("http://localhost:9000/"), "b", true)),
            "http://localhost:9000/b"
        );
        assert_eq!(url(place(Some("https://minio:9000"), "b", false)), "https://b.minio:9000/");
        for wrong in ["minio:9000", "ftp://minio", "https://"] {
            assert_eq!(
                place(Some(wrong), "b", true).url().unwrap_err().kind(),
                ErrorKind::ConfigInvalid,
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_refusal_names_what_to_do() {
        let refusal = |status: u16, code: &str| {
            let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message><Extra>x</Extra></Error>");
            Refusal::read(StatusCode::from_u16(status).unwrap(), body.as_bytes()).into_error("ask", "bucket b", "s3:GetX")
        };
        assert_eq!(refusal(404, "NoSuchBucket").kind(), ErrorKind::Unreachable);
        assert!(refusal(403, "AccessDenied").hint().unwrap().contains("s3:GetX"));
        assert!(refusal(403, "RequestTimeTooSkewed").hint().unwrap().contains("clock"));
        assert_eq!(refusal(301, "PermanentRedirect").kind(), ErrorKind::ConfigInvalid);
        assert_eq!(refusal(404, "NoSuchKey").kind(), ErrorKind::NotFound);
        assert_eq!(refusal(503, "SlowDown").kind(), ErrorKind::Unreachable);
        let bare = Refusal::read(StatusCode::BAD_GATEWAY, b"<html>not xml").into_error("ask", "b", "x");
        assert!(bare.detail().contains("502"), "{bare}");
        assert!(Refusal::read(StatusCode::NOT_IMPLEMENTED, b"").is_unknown_call());
    }
}
