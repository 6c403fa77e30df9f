//! Why a request is answered otherwise than it asks, by whose fault that is.
//!
//! The fault decides the status and how loud the log is; a refusal is told and answered in one place,
//! [`Request::refuse`].

mod handshake;

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use thiserror::Error;
use wssgate_config::model::LogLevel;
use wssgate_http1::{InvalidUri, WriteError};

use crate::auth::jwt::{Invalid, KeySetError, TokenError};
use crate::auth::revocations::Kind;
use crate::auth::{FileError, HashError};
use crate::errno_text;
use crate::exchange::body::BodyError;
use crate::exchange::request::Request;
use crate::metrics::HandshakeFailure;
use crate::resolve::Unresolved;
use crate::tls::server::CertificateRefusal;

pub(crate) use handshake::{HandshakeRefusal, Place, Sender};

/// Whose fault something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client asks for what it must not, wrongly, or has gone.
    Client,
    /// The configuration leads nowhere, or this host lacks something.
    Server,
    /// A server behind us says no, or something that nobody understands.
    Upstream,
}

/// Why a request is not answered as it asks. The texts are nginx's, where it has some.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The target is no URI.
    #[error("{0} while reading client request line")]
    Target(InvalidUri),
    /// The Host is that of a server with client certificates, another than the handshake named.
    #[error(
        "client attempted to request the server name different from the one that was negotiated \
         while reading client request headers"
    )]
    OtherServerName,
    /// CONNECT and TRACE.
    #[error("client sent {0} method while reading client request headers")]
    Method(&'static str),
    /// Plain HTTP came to a TLS port.
    #[error("client sent plain HTTP request to HTTPS port while reading client request headers")]
    PlainHttp,
    /// The client certificate is missing or not trusted.
    #[error("{0} while reading client request headers")]
    Certificate(CertificateRefusal),
    /// `deny`.
    #[error("access forbidden by rule")]
    Forbidden,
    /// An `internal` location was asked for from outside; to the client it does not exist.
    #[error("internal location")]
    Internal,
    /// `limit_req` or `limit_conn` allows no more; the phase has told the log, as loud as it is configured, and this
    /// is the configured status.
    #[error("limited")]
    Limited(u16),
    /// The body is longer, in bytes, than `client_max_body_size`.
    #[error("client intended to send too large body: {0} bytes")]
    TooLarge(u64),
    /// The body could not be read.
    #[error(transparent)]
    Body(BodyError),
    /// The client closed the connection.
    #[error("client prematurely closed connection")]
    ClientGone,
    /// `auth_basic` does not let the client in.
    #[error(transparent)]
    Basic(BasicRefusal),
    /// `auth_jwt` does not let the client in.
    #[error(transparent)]
    Jwt(JwtRefusal),
    /// An operator has revoked the user of a WebSocket.
    #[error("the user is revoked")]
    RevokedUser,
    /// A WebSocket may not be opened like this.
    #[error(transparent)]
    Handshake(HandshakeRefusal),
    /// A rule for access that has told the log already does not let the client in; or `auth_request`
    /// was answered with this status, 401 or 403, or closes the connection as 408,
    /// 444 or 499.
    #[error("auth request returned {0}")]
    Denied(u16),
    /// `auth_request` was answered with a status that is neither yes nor no.
    #[error("auth request unexpected status: {0}")]
    AuthRequest(u16),
    /// Rewrites or internal redirects go in a circle.
    #[error("rewrite or internal redirection cycle while {doing} \"{}\"", path.escape_ascii())]
    Cycle {
        /// What was being done.
        doing: &'static str,
        /// To which path.
        path: Bytes,
    },
    /// An internal redirect leads to nothing.
    #[error("the URI of an internal redirect has a zero length")]
    EmptyPath,
    /// A request without a path, whose target was none, is to go on in this named location.
    #[error("empty URI in redirect to named location \"{}\" while reading client request line", .0.escape_ascii())]
    NothingForNamed(Bytes),
    /// No location has this name.
    #[error("could not find named location \"{}\"", .0.escape_ascii())]
    NoNamedLocation(Bytes),
    /// A variable has put something into the request to the upstream that would end a line.
    #[error("{0} in request to upstream")]
    Unwritable(WriteError),
    /// `proxy_pass` with variables makes no URL.
    #[error("invalid URL prefix in \"{}\"", .0.escape_ascii())]
    Url(Bytes),
    /// `proxy_pass` with variables names a host that nobody can look up.
    #[error("no resolver defined to resolve {}", .0.escape_ascii())]
    NoResolver(Bytes),
    /// `proxy_pass` with variables names a host that has no address.
    #[error("{} could not be resolved ({failure})", name.escape_ascii())]
    Unresolved {
        /// The host.
        name: Bytes,
        /// What the DNS servers say, if they say anything.
        failure: Unresolved,
    },
}

impl Refusal {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Target(_)
            | Self::OtherServerName
            | Self::Method(_)
            | Self::PlainHttp
            | Self::Certificate(_)
            | Self::Forbidden
            | Self::Internal
            | Self::Limited(_)
            | Self::TooLarge(_)
            | Self::Handshake(_)
            | Self::RevokedUser
            | Self::ClientGone => Blame::Client,
            Self::Body(error) => error.blame(),
            Self::Basic(refusal) => refusal.blame(),
            Self::Jwt(refusal) => refusal.blame(),
            Self::Denied(_) | Self::AuthRequest(_) | Self::Unresolved { .. } => Blame::Upstream,
            Self::Cycle { .. }
            | Self::EmptyPath
            | Self::NothingForNamed(_)
            | Self::NoNamedLocation(_)
            | Self::Unwritable(_)
            | Self::Url(_)
            | Self::NoResolver(_) => Blame::Server,
        }
    }

    /// The status of the answer; 495 to 497 and 499 are nginx's own.
    pub fn status(&self) -> u16 {
        match self {
            Self::Target(_) => 400,
            Self::OtherServerName => 421,
            Self::Method(_) => 405,
            Self::PlainHttp => 497,
            Self::Certificate(refusal) => refusal.status(),
            Self::Forbidden => 403,
            Self::Internal => 404,
            Self::TooLarge(_) => 413,
            Self::Body(error) => error.status(),
            Self::Basic(refusal) => refusal.status(),
            Self::Jwt(refusal) => refusal.status(),
            Self::Handshake(refusal) => refusal.status(),
            Self::RevokedUser => 401,
            Self::ClientGone => 499,
            Self::Denied(status) | Self::Limited(status) => *status,
            Self::Unresolved { failure: Unresolved::Busy, .. } => 503,
            Self::NoResolver(_) | Self::Unresolved { .. } => 502,
            Self::AuthRequest(_)
            | Self::Cycle { .. }
            | Self::EmptyPath
            | Self::NothingForNamed(_)
            | Self::NoNamedLocation(_)
            | Self::Unwritable(_)
            | Self::Url(_) => 500,
        }
    }

    /// How it is counted when it is a WebSocket that was asked for.
    fn counted(&self) -> HandshakeFailure {
        use HandshakeFailure as Failure;
        match self {
            Self::Handshake(refusal) => refusal.counted(),
            Self::Target(_)
            | Self::Method(_)
            | Self::PlainHttp
            | Self::TooLarge(_)
            | Self::Body(_) => Failure::Malformed,
            Self::OtherServerName | Self::Certificate(_) | Self::Forbidden | Self::Internal => {
                Failure::Forbidden
            }
            Self::Limited(_) => Failure::Limited,
            Self::ClientGone => Failure::ClientGone,
            Self::Basic(_)
            | Self::Jwt(_)
            | Self::RevokedUser
            | Self::Denied(_)
            | Self::AuthRequest(_) => Failure::Credentials,
            Self::NoResolver(_) | Self::Unresolved { .. } => Failure::UpstreamUnreachable,
            Self::Cycle { .. }
            | Self::EmptyPath
            | Self::NothingForNamed(_)
            | Self::NoNamedLocation(_)
            | Self::Unwritable(_)
            | Self::Url(_) => Failure::NotPassedOn,
        }
    }

    /// How loud the log is about it; `None` where nginx says nothing.
    pub fn level(&self) -> Option<LogLevel> {
        match self {
            Self::Internal | Self::Denied(_) | Self::Limited(_) => None,
            Self::Body(error) => Some(error.level()),
            Self::Basic(refusal) => Some(refusal.level()),
            Self::Jwt(refusal) => Some(refusal.level()),
            Self::Handshake(refusal) => Some(refusal.level()),
            // What clients do every day is no error of the site, but where it guards something.
            Self::Forbidden | Self::TooLarge(_) => Some(LogLevel::Error),
            other => Some(match other.blame() {
                Blame::Client => LogLevel::Info,
                Blame::Server | Blame::Upstream => LogLevel::Error,
            }),
        }
    }
}

/// Why `auth_basic` does not let a client in. The texts are nginx's, where it has some.
#[derive(Debug, Error)]
pub enum BasicRefusal {
    /// There is no `Authorization: Basic`.
    #[error("no user/password was provided for basic authentication")]
    NoCredentials,
    /// The file does not name the user.
    #[error("user \"{}\" was not found in \"{}\"", user.escape_ascii(), file.display())]
    UnknownUser {
        /// Who.
        user: Bytes,
        /// Where.
        file: PathBuf,
    },
    /// The password is wrong.
    #[error("user \"{}\": password mismatch", .0.escape_ascii())]
    Mismatch(Bytes),
    /// No password can be right.
    #[error("user \"{}\": {error}", user.escape_ascii())]
    Hash {
        /// Whose.
        user: Bytes,
        /// Why.
        error: HashError,
    },
    /// The file of users cannot be opened.
    #[error("open() \"{}\" failed ({})", file.display(), errno_text(error))]
    Open {
        /// Which.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file of users cannot be read.
    #[error("read() \"{}\" failed ({})", file.display(), errno_text(error))]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The client has failed too often, and too many of its attempts are waiting.
    #[error("too many failed attempts to log in")]
    TooManyFailures,
    /// Too many passwords of all clients are waiting to be checked.
    #[error("too many passwords are waiting to be checked")]
    Busy,
}

impl BasicRefusal {
    /// What becomes of a file that fails.
    pub(crate) fn of_file(file: PathBuf, error: FileError) -> Self {
        match error {
            FileError::Open(error) => Self::Open { file, error },
            FileError::Read(error) => Self::Read { file, error },
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::NoCredentials
            | Self::UnknownUser { .. }
            | Self::Mismatch(_)
            | Self::TooManyFailures => Blame::Client,
            Self::Hash { .. } | Self::Open { .. } | Self::Read { .. } | Self::Busy => Blame::Server,
        }
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::NoCredentials
            | Self::UnknownUser { .. }
            | Self::Mismatch(_)
            | Self::Hash { .. } => 401,
            Self::Open { error, .. } if error.kind() == io::ErrorKind::NotFound => 403,
            Self::Open { .. } | Self::Read { .. } => 500,
            Self::TooManyFailures => 429,
            Self::Busy => 503,
        }
    }

    fn level(&self) -> LogLevel {
        match self {
            Self::NoCredentials => LogLevel::Info,
            _ if self.status() == 500 => LogLevel::Crit,
            _ => LogLevel::Error,
        }
    }
}

/// Why `auth_jwt` does not let a client in.
#[derive(Debug, Error)]
pub enum JwtRefusal {
    /// There is no token.
    #[error("no JWT was provided")]
    NoToken,
    /// What is there is no token.
    #[error("JWT is malformed: {0}")]
    Malformed(TokenError),
    /// It is not valid.
    #[error("JWT is not valid: {0}")]
    Invalid(Invalid),
    /// An operator has revoked it, by what it says.
    #[error("JWT is revoked by its {}", .0.words())]
    Revoked(Kind),
    /// An `auth_jwt_require` is not met, which gives this status.
    #[error("JWT does not meet \"auth_jwt_require\"")]
    Requirement(u16),
    /// There are no keys.
    #[error(transparent)]
    Keys(KeysError),
}

/// Why keys are not there.
#[derive(Debug, Error)]
pub enum KeysError {
    /// None are configured.
    #[error("no \"auth_jwt_key_file\" or \"auth_jwt_key_request\" for \"auth_jwt\"")]
    NoSource,
    /// A file cannot be used.
    #[error("{call}() \"{}\" failed ({}) while reading keys for JWT", file.display(), errno_text(error))]
    File {
        /// `open` or `read`.
        call: &'static str,
        /// Which.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The answer of a request has another status.
    #[error("unexpected status {status} of \"{}\" with keys for JWT", uri.escape_ascii())]
    Status {
        /// Which.
        status: u16,
        /// Of what.
        uri: Bytes,
    },
    /// The answer of a request broke off.
    #[error("\"{}\" with keys for JWT was not answered", .0.escape_ascii())]
    NoAnswer(Bytes),
    /// What is there is no set of keys.
    #[error("\"{source_name}\" has no keys for JWT: {error}")]
    Set {
        /// File or URI.
        source_name: String,
        /// Why.
        error: KeySetError,
    },
}

impl JwtRefusal {
    fn blame(&self) -> Blame {
        match self {
            Self::NoToken
            | Self::Malformed(_)
            | Self::Invalid(_)
            | Self::Revoked(_)
            | Self::Requirement(_) => Blame::Client,
            Self::Keys(KeysError::NoSource | KeysError::File { .. }) => Blame::Server,
            Self::Keys(_) => Blame::Upstream,
        }
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::NoToken | Self::Malformed(_) | Self::Invalid(_) | Self::Revoked(_) => 401,
            Self::Requirement(status) => *status,
            Self::Keys(_) => 500,
        }
    }

    fn level(&self) -> LogLevel {
        match self {
            // Every token expires one day, and of one that is revoked an operator knows.
            Self::NoToken
            | Self::Invalid(Invalid::Expired | Invalid::NotYetValid)
            | Self::Revoked(_) => LogLevel::Info,
            Self::Keys(KeysError::File { .. }) => LogLevel::Crit,
            _ => LogLevel::Error,
        }
    }
}

impl Request {
    /// Tells the log of a refusal; gives the status of the answer.
    pub fn refuse(&self, refusal: &Refusal) -> u16 {
        if self.tunnel.refused.get().is_none() {
            self.tunnel.refused.set(Some(refusal.counted()));
        }
        if let Some(level) = refusal.level() {
            self.log(level, refusal);
        }
        refusal.status()
    }
}

impl Request {
    /// Why it has not become a WebSocket, of those that ask for one.
    pub(crate) fn handshake_failure(&self) -> HandshakeFailure {
        use HandshakeFailure as Failure;
        if let Some(refused) = self.tunnel.refused.get() {
            return refused;
        }
        let switched = self.upstream.head.as_ref().is_some_and(|head| head.status() == 101);
        match self.upstream.attempts.last() {
            _ if self.response.status == 499 => Failure::ClientGone,
            None if self.response.status == 400 => Failure::Malformed,
            None => Failure::NotPassedOn,
            Some(_) if switched => Failure::UpstreamInvalid,
            Some(attempt) if attempt.header_time.is_some() => Failure::UpstreamRefused,
            Some(attempt) if attempt.status == 504 => Failure::UpstreamTimeout,
            Some(_) => Failure::UpstreamUnreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fault_decides_status_and_level() {
        let path = Bytes::from_static(b"/a");
        for (refusal, blame, status, level) in [
            (Refusal::Target(InvalidUri), Blame::Client, 400, Some(LogLevel::Info)),
            (Refusal::Forbidden, Blame::Client, 403, Some(LogLevel::Error)),
            (Refusal::Internal, Blame::Client, 404, None),
            (Refusal::Body(BodyError::Timeout), Blame::Client, 408, Some(LogLevel::Info)),
            (
                Refusal::Body(BodyError::File(std::io::ErrorKind::StorageFull.into())),
                Blame::Server,
                500,
                Some(LogLevel::Crit),
            ),
            (Refusal::Denied(401), Blame::Upstream, 401, None),
            (Refusal::AuthRequest(404), Blame::Upstream, 500, Some(LogLevel::Error)),
            (
                Refusal::Cycle { doing: "processing", path },
                Blame::Server,
                500,
                Some(LogLevel::Error),
            ),
            (Refusal::NoResolver(Bytes::new()), Blame::Server, 502, Some(LogLevel::Error)),
        ] {
            assert_eq!(
                (refusal.blame(), refusal.status(), refusal.level()),
                (blame, status, level),
                "{refusal}"
            );
        }
    }
}
