//! Why a request was not answered with a result: wrong, refused, or nobody knows.
//!
//! The difference matters more than the cause. After a refusal a program may do whatever it likes,
//! for nothing was changed; after an unknown outcome it must look before it repeats anything.

use std::fmt;

/// What is known about the effect of a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request itself is wrong and had no effect. The same request will fail again: change it.
    Invalid,
    /// The request had no effect and never will. It may be sent again, perhaps later.
    Refused,
    /// The request may have taken effect, may yet, or never will. Read what it was to change
    /// before it is sent again.
    Unknown,
    /// The command took effect, exactly once, but its answer was too large to be kept for the attempt
    /// that came through. Read to see the state; do not send it again.
    Applied,
}

/// A request that failed, or whose answer is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    code: String,
    message: String,
}

/// The code of an [`Error`] when no endpoint could be reached, or none answered in time.
pub const UNAVAILABLE: &str = "unavailable";

/// The code of an [`Error`] when no endpoint can be talked to as it is configured: one end speaks TLS
/// and the other does not, or one does not accept the other's certificate. Trying again is of no use.
pub const TLS_MISMATCH: &str = "tls_mismatch";

/// The code of an [`Error`] when what came back is no answer of a stormkv node.
pub const BAD_ANSWER: &str = "bad_answer";

/// Codes of nodes that could not serve the request just then.
const NOT_NOW: &[&str] = &[
    UNAVAILABLE,
    "no_leader",
    "leader_transferring",
    "superseded",
    "stopping",
    "too_many_connections",
    "busy",
    "timeout",
    "reconfiguration_pending",
];

impl Error {
    pub(super) fn new(kind: ErrorKind, code: &str, message: impl Into<String>) -> Error {
        Error { kind, code: code.to_owned(), message: message.into() }
    }

    pub(super) fn invalid(code: &str, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, code, message)
    }

    /// What is known about the request's effect.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// A short name of the cause that does not change between versions: the code of the node's
    /// answer, [`UNAVAILABLE`], [`TLS_MISMATCH`] or [`BAD_ANSWER`].
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What happened, to what.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the request was refused only because the cluster could not serve it then: the same
    /// request may succeed later.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.kind == ErrorKind::Refused && is_passing(&self.code)
    }
}

/// Whether what an answer with this code complains of passes by itself.
pub(super) fn is_passing(code: &str) -> bool {
    NOT_NOW.contains(&code)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.message.trim_end_matches('.');
        match self.kind {
            ErrorKind::Invalid => write!(f, "the request is wrong: {message}"),
            ErrorKind::Refused => write!(f, "refused, nothing was changed: {message}"),
            ErrorKind::Unknown => write!(
                f,
                "the outcome is unknown: {message}; it may have happened or may happen yet, so \
                 look before you repeat it"
            ),
            ErrorKind::Applied => write!(f, "done, but the answer is lost: {message}"),
        }
    }
}

impl std::error::Error for Error {}
