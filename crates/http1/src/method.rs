//! The words of a request line that we act upon: methods and versions.

/// A request method. The ones nginx knows have a variant; the name of any other is kept by the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Mkcol,
    Copy,
    Move,
    Options,
    Propfind,
    Proppatch,
    Lock,
    Unlock,
    Patch,
    Trace,
    Connect,
    /// Some other token.
    Other,
}

impl Method {
    /// Recognises a method by its name; methods are case-sensitive (RFC 9110 §9.1).
    pub fn from_name(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"MKCOL" => Self::Mkcol,
            b"COPY" => Self::Copy,
            b"MOVE" => Self::Move,
            b"OPTIONS" => Self::Options,
            b"PROPFIND" => Self::Propfind,
            b"PROPPATCH" => Self::Proppatch,
            b"LOCK" => Self::Lock,
            b"UNLOCK" => Self::Unlock,
            b"PATCH" => Self::Patch,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }

    /// Whether a request may be sent a second time after its first try failed midway (RFC 9110 §9.2.2).
    ///
    /// nginx calls POST, LOCK and PATCH non-idempotent and repeats everything else.
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Self::Post | Self::Lock | Self::Patch)
    }
}

/// The version of a message, as far as it changes what we do.
///
/// Minor versions above 1 are treated as 1.1 (RFC 9110 §2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// A request line without a version: no fields, and the answer is a bare body.
    Http09,
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1 and what later minor versions there might be.
    Http11,
}

impl Version {
    /// The protocol name as it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http09 => "HTTP/0.9",
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_case_sensitive() {
        assert_eq!(Method::from_name(b"GET"), Method::Get);
        assert_eq!(Method::from_name(b"get"), Method::Other);
        assert_eq!(Method::from_name(b"BREW"), Method::Other);
    }

    #[test]
    fn versions_are_ordered() {
        assert!(Version::Http09 < Version::Http10 && Version::Http10 < Version::Http11);
    }
}
