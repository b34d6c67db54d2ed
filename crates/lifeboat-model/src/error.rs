//! The one error of the workspace: what was attempted, on what, what kind of failure, and what to do next.
//!
//! `Display` never contains the source error; whoever prints walks [`std::error::Error::source`] once.
//! The kind alone decides the exit code (`lifeboat::exit`) and whether a retry makes sense ([`ErrorKind::is_retryable`]).

use std::error::Error as StdError;
use std::fmt;

/// Shorthand for results that carry [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every way in which an operation can fail. Closed on purpose: a new kind does not compile until every total match
/// (retry here, exit code in the binary) has decided about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// An operating-system or library failure that is none of the others (exit 1).
    Failed,
    /// The command line does not make sense (exit 2).
    Usage,
    /// Finished, but something is missing from the result (exit 3).
    Incomplete,
    /// A promised objective was not met (exit 4).
    ObjectiveMissed,
    /// Stored, captured or restored data is damaged, forged or not what it claims to be (exit 5).
    Corrupt,
    /// A guard refused: continuing could destroy something (exit 6).
    Refused,
    /// The configuration is invalid (exit 7).
    ConfigInvalid,
    /// A time limit passed (exit 8).
    TimedOut,
    /// No backup or point answers the question (exit 9).
    NoSuchPoint,
    /// There is no Lifeboat repository in the store (exit 10).
    NoRepository,
    /// Another process holds what is needed (exit 11).
    Locked,
    /// The keys at hand do not open the data (exit 12).
    WrongKey,
    /// The source or the store cannot be reached or read (exit 13).
    Unreachable,
    /// A named thing is not there; callers usually turn this into a more telling kind (exit 1).
    NotFound,
    /// A name is taken by other content (exit 1).
    AlreadyExists,
    /// The disk or the quota is full (exit 1).
    NoSpace,
    /// The stored format needs a newer Lifeboat (exit 1).
    Incompatible,
    /// Interrupted by Ctrl-C (exit 130).
    Interrupted,
    /// Terminated by SIGTERM (exit 143).
    Terminated,
    /// A bug in Lifeboat: an invariant did not hold (exit 1).
    Bug,
}

impl ErrorKind {
    /// Whether doing the same again, later, can succeed without anybody changing anything.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::TimedOut | Self::Locked | Self::Unreachable => true,
            Self::Failed
            | Self::Usage
            | Self::Incomplete
            | Self::ObjectiveMissed
            | Self::Corrupt
            | Self::Refused
            | Self::ConfigInvalid
            | Self::NoSuchPoint
            | Self::NoRepository
            | Self::WrongKey
            | Self::NotFound
            | Self::AlreadyExists
            | Self::NoSpace
            | Self::Incompatible
            | Self::Interrupted
            | Self::Terminated
            | Self::Bug => false,
        }
    }
}

/// What failed, on what, why, and what to do next. Boxed inside, so that results stay small.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    op: &'static str,
    subject: String,
    detail: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A new error. `op` is a present-tense phrase (`"open pack"`), `subject` the thing it was done to (a path, a name),
    /// `detail` one plain sentence of what is wrong, without a final stop.
    #[must_use]
    pub fn new(kind: ErrorKind, op: &'static str, subject: impl fmt::Display, detail: impl fmt::Display) -> Self {
        Self(Box::new(Inner {
            kind,
            op,
            subject: subject.to_string(),
            detail: detail.to_string(),
            hint: None,
            source: None,
        }))
    }

    /// Wraps an operating-system error; its kind is read from the error itself (full disk, permission, absence).
    #[must_use]
    pub fn io(op: &'static str, subject: impl fmt::Display, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Unreachable,
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge => {
                ErrorKind::NoSpace
            }
            std::io::ErrorKind::TimedOut => ErrorKind::TimedOut,
            _ => ErrorKind::Failed,
        };
        let detail = source.to_string();
        let mut error = Self::new(kind, op, subject, detail);
        if kind == ErrorKind::NoSpace {
            error = error.with_hint("free space on that file system, then run the same command again; nothing was published");
        }
        error
    }

    /// Adds what to do next, as a full sentence that names a command where there is one.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Keeps the underlying error for whoever prints the chain.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error under another kind, where the caller knows better what an absence or a failure means.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same words once more, for a second place that has to tell them. The underlying error stays with the first.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let mut error = Self::new(self.kind(), self.op(), self.subject(), self.detail());
        error.0.hint.clone_from(&self.0.hint);
        error
    }

    /// What sort of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operation that failed, as a present-tense phrase.
    #[must_use]
    pub fn op(&self) -> &'static str {
        self.0.op
    }

    /// What it was done to.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// What is wrong, in one sentence.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.0.op, self.0.subject, self.0.detail)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)?;
        if let Some(hint) = &self.0.hint {
            write!(f, " (hint: {hint})")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
