//! What a service said, in our words: its kind, whether it may pass, and what to do next.
//!
//! `object_store` gives only text; status and code are read from it. Of an answer only the code and the message are shown: other
//! parts of it hold keys and signatures.

use std::error::Error as _;

use lifeboat_model::{Error, ErrorKind};
use object_store::client::{HttpError, HttpErrorKind};

/// The longest message of a service that is shown, in characters.
const MESSAGE_CHARS: usize = 200;

/// Which service, for hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    S3,
    Gcs,
    Azure,
}

/// What somebody wanted to do: decides which permission is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Put,
    Get,
    Head,
    List,
    Delete,
}

impl Action {
    pub(super) const fn op(self) -> &'static str {
        match self {
            Self::Put => "store",
            Self::Get => "read",
            Self::Head => "look at",
            Self::List => "list",
            Self::Delete => "remove",
        }
    }

    const fn permission(self, kind: Kind) -> &'static str {
        match (kind, self) {
            (Kind::S3, Self::Put) => "s3:PutObject",
            // Without s3:ListBucket a missing file is answered with "denied", too.
            (Kind::S3, Self::Get | Self::Head) => "s3:GetObject and s3:ListBucket",
            (Kind::S3, Self::List) => "s3:ListBucket",
            (Kind::S3, Self::Delete) => "s3:DeleteObject",
            (Kind::Gcs, Self::Put) => "storage.objects.create",
            (Kind::Gcs, Self::Get | Self::Head) => "storage.objects.get and storage.objects.list",
            (Kind::Gcs, Self::List) => "storage.objects.list",
            (Kind::Gcs, Self::Delete) => "storage.objects.delete",
            (Kind::Azure, Self::Put) => "write (Storage Blob Data Contributor)",
            (Kind::Azure, Self::Get | Self::Head) => "read (Storage Blob Data Reader)",
            (Kind::Azure, Self::List) => "list (Storage Blob Data Reader)",
            (Kind::Azure, Self::Delete) => "delete (Storage Blob Data Contributor)",
        }
    }
}

/// A failed request.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether the same request may succeed in a moment.
    pub(super) passes: bool,
    /// Whether it was the condition that refused: something of that name is there, or somebody else is writing it.
    pub(super) condition: bool,
    /// Whether the service does not know what was asked for.
    pub(super) unknown_request: bool,
}

/// What the text of an error holds.
#[derive(Debug, Default)]
struct Said {
    status: Option<u16>,
    code: String,
    message: String,
    region: String,
}

impl Said {
    fn read(text: &str) -> Self {
        let tag = |name: &str| -> String {
            let inside = text
                .split_once(&format!("<{name}>"))
                .and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
            inside.map(|(inside, _)| inside.trim().to_owned()).unwrap_or_default()
        };
        let status = text
            .split_once("status code: ")
            .or_else(|| text.split_once("response status: "))
            .and_then(|(_, rest)| rest.get(..3))
            .and_then(|digits| digits.parse().ok());
        // What S3 answers for a bucket of another region has no target; `object_store` says so in words of its own.
        let status = status.or_else(|| text.contains("redirect without LOCATION").then_some(301));
        let plain: String = tag("Message")
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .filter(|letter| !letter.is_control())
            .take(MESSAGE_CHARS)
            .collect();
        Self {
            status,
            code: tag("Code"),
            message: plain,
            region: tag("Region"),
        }
    }

    fn shown(&self) -> String {
        match (self.status, self.code.is_empty()) {
            (Some(status), true) => format!("the service answered {status}"),
            (Some(status), false) if self.message.is_empty() => format!("the service answered {status} {}", self.code),
            (Some(status), false) => format!("the service answered {status} {}: {}", self.code, self.message),
            (None, _) => "the service did not answer as it should".to_owned(),
        }
    }
}

/// Reads what went wrong. `subject` is the file or the store, `place` the store as people know it.
pub(super) fn read(kind: Kind, action: Action, subject: &str, place: &str, error: object_store::Error) -> Failure {
    if let Some(transport) = transport(&error) {
        return unreachable(kind, action, subject, place, transport, &error);
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    let said = Said::read(&text);
    let condition = matches!(
        error,
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }
    );
    let unknown_request = said.status == Some(501) || said.code == "NotImplemented";
    let (kind_of, detail, hint) = judge(kind, action, place, &said, &error);
    let passes = said.code == "SlowDown"
        || matches!(said.status, Some(408 | 409 | 425 | 429 | 500 | 502 | 503 | 504))
        || ["RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"].contains(&said.code.as_str());
    // Its own text goes no further: an answer can quote keys and signatures.
    let kind_of = if passes { ErrorKind::Unreachable } else { kind_of };
    let mut failed = Error::new(kind_of, action.op(), subject, detail);
    if let Some(hint) = hint {
        failed = failed.with_hint(hint);
    }
    Failure {
        error: failed,
        passes,
        condition,
        unknown_request,
    }
}

fn transport(error: &object_store::Error) -> Option<HttpErrorKind> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(http) = inner.downcast_ref::<HttpError>() {
            return Some(http.kind());
        }
        cause = inner.source();
    }
    None
}

fn unreachable(
    kind: Kind,
    action: Action,
    subject: &str,
    place: &str,
    transport: HttpErrorKind,
    error: &object_store::Error,
) -> Failure {
    let mut reasons = Vec::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        reasons.push(inner.to_string());
        cause = inner.source();
    }
    let reason = reasons.last().map_or("the connection broke", String::as_str);
    let reason: String = reason.chars().take(MESSAGE_CHARS).collect();
    // The machine's metadata is asked only where nothing else gave credentials.
    let failed = if reasons
        .iter()
        .any(|reason| reason.contains("169.254.169.254") || reason.contains("metadata.google"))
    {
        no_credentials(kind, action, subject)
    } else if transport == HttpErrorKind::Timeout {
        Error::new(
            ErrorKind::TimedOut,
            action.op(),
            subject,
            format!("{place} did not answer in time"),
        )
        .with_hint("check the network and the service, then run the same command again; nothing was lost")
    } else {
        let hint = if reason.contains("certificate") || reason.contains("UnknownIssuer") {
            "the certificate of the service is not trusted here: name its authority in SSL_CERT_FILE, or correct `endpoint`; then run the same command again"
        } else {
            "check the network, the name and port of the service (`endpoint`), then run the same command again; nothing was lost"
        };
        Error::new(
            ErrorKind::Unreachable,
            action.op(),
            subject,
            format!("{place} cannot be reached: {reason}"),
        )
        .with_hint(hint)
    };
    Failure {
        passes: !failed.detail().starts_with("no credentials") && !reason.contains("certificate"),
        error: failed,
        condition: false,
        unknown_request: false,
    }
}

fn no_credentials(kind: Kind, action: Action, subject: &str) -> Error {
    let hint = match kind {
        Kind::S3 => {
            "write `access_key` and `secret_key` of the store, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or fill ~/.aws/credentials; then run the same command again"
        }
        Kind::Gcs => {
            "write `credentials` of the store, or name a key file in GOOGLE_APPLICATION_CREDENTIALS; then run the same command again"
        }
        Kind::Azure => {
            "write `account_key` or `sas_token` of the store, or set AZURE_STORAGE_ACCOUNT_KEY; then run the same command again"
        }
    };
    let detail = "no credentials were found in the configuration, the environment, the profile or the machine";
    Error::new(ErrorKind::Unreachable, action.op(), subject, detail).with_hint(hint)
}

/// Codes: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>,
/// <https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes>,
/// <https://cloud.google.com/storage/docs/xml-api/reference-status>.
fn judge(
    kind: Kind,
    action: Action,
    place: &str,
    said: &Said,
    error: &object_store::Error,
) -> (ErrorKind, String, Option<String>) {
    let unreachable = |detail: String, hint: &str| (ErrorKind::Unreachable, detail, Some(hint.to_owned()));
    match (said.code.as_str(), said.status) {
        ("NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted" | "NoSuchAccount", _) => unreachable(
            format!("{place} is not there: the service knows no bucket or container of that name"),
            "check `bucket`, `region` and `endpoint`; `lifeboat store setup` makes the bucket",
        ),
        ("RequestTimeTooSkewed", _) => unreachable(
            "the clock of this machine is too far from the service's".to_owned(),
            "set the clock (for example with chrony), then run the same command again",
        ),
        ("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken", _) => unreachable(
            "the session token of the credentials has expired or is not valid".to_owned(),
            "get new temporary credentials, or use ones that renew themselves (a role), then run the same command again",
        ),
        ("InvalidAccessKeyId" | "InvalidAuthenticationInfo", _) => unreachable(
            "the service does not know the access key".to_owned(),
            "check `access_key` and `endpoint`, then run `lifeboat doctor`",
        ),
        ("SignatureDoesNotMatch" | "AuthenticationFailed", _) => unreachable(
            "the secret key does not fit the access key".to_owned(),
            "check `secret_key` (a copied line break or blank?), then run `lifeboat doctor`",
        ),
        (
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "TemporaryRedirect" | "IllegalLocationConstraintException",
            _,
        )
        | (_, Some(301 | 302 | 307 | 308)) => wrong_region(place, said),
        ("InvalidObjectState" | "BlobArchived", _) => (
            ErrorKind::Refused,
            "it lies in a cold storage class and must be thawed before it can be read".to_owned(),
            Some("`lifeboat restore` asks for what it needs and says how long that takes".to_owned()),
        ),
        ("QuotaExceeded" | "XMinioStorageFull" | "AccountProblem", _) | (_, Some(507)) => (
            ErrorKind::NoSpace,
            said.shown(),
            Some("raise the quota of the service, or remove old backups with `lifeboat prune`".to_owned()),
        ),
        _ => by_kind(kind, action, said, error),
    }
}

fn wrong_region(place: &str, said: &Said) -> (ErrorKind, String, Option<String>) {
    let hint = if said.region.is_empty() {
        "write the bucket's `region`, then run `lifeboat doctor`".to_owned()
    } else {
        format!("write `region: {}`, then run `lifeboat doctor`", said.region)
    };
    let detail = format!("{place} is in another region than the one that was asked");
    (ErrorKind::Unreachable, detail, Some(hint))
}

fn by_kind(kind: Kind, action: Action, said: &Said, error: &object_store::Error) -> (ErrorKind, String, Option<String>) {
    use object_store::Error as From;
    let worm = said.message.contains("WORM") || said.message.contains("object lock") || said.code == "BlobImmutableDueToPolicy";
    // By the status: of a listing, only that tells.
    let denied = matches!(said.status, Some(401 | 403));
    match error {
        From::NotFound { .. } => (ErrorKind::NotFound, "no such file is in the store".to_owned(), None),
        From::AlreadyExists { .. } | From::Precondition { .. } => {
            (ErrorKind::AlreadyExists, "a file of that name is there".to_owned(), None)
        }
        _ if denied && action == Action::Delete && worm => (
            ErrorKind::Refused,
            "it is locked against deletion (object lock)".to_owned(),
            Some("wait until the lock ends; `lifeboat store check` says how long it lasts".to_owned()),
        ),
        _ if denied => (
            ErrorKind::Unreachable,
            format!("access denied ({})", said.shown()),
            Some(format!(
                "give these credentials {} on the bucket and prefix, then run `lifeboat doctor`; docs/stores.md lists what is needed",
                action.permission(kind)
            )),
        ),
        _ if said.status == Some(416) => (
            ErrorKind::Corrupt,
            "it ends before the range that was asked for".to_owned(),
            None,
        ),
        _ if said.status.is_some() => (
            ErrorKind::Failed,
            said.shown(),
            Some("run `lifeboat doctor`; docs/stores.md says what a service must be able to do".to_owned()),
        ),
        From::Generic { .. } => (
            ErrorKind::Unreachable,
            "the answer of the service cannot be understood".to_owned(),
            Some("check `endpoint`: does a storage service answer there? Then run `lifeboat doctor`".to_owned()),
        ),
        _ => (ErrorKind::Failed, "the request could not be made".to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_code_and_message_are_found_and_nothing_else_is_shown() {
        let text = "Generic S3 error: Error performing PUT https://h/b/k in 1s - Server returned non-2xx status code: 403 Forbidden: \
            <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>No\nmatch</Message><AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>";
        let said = Said::read(text);
        assert_eq!((said.status, said.code.as_str()), (Some(403), "SignatureDoesNotMatch"));
        assert_eq!(said.shown(), "the service answered 403 SignatureDoesNotMatch: No");
    }
}
