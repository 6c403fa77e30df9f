//! The two kinds of peers, in the terms of certificates.

use std::ffi::CStr;

/// Whose certificates are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Those that clients show to us.
    Client,
    /// Those that servers show to us.
    Server,
}

impl Peer {
    pub(crate) fn purpose(self) -> i32 {
        match self {
            Self::Client => aws_lc_sys::X509_PURPOSE_SSL_CLIENT,
            Self::Server => aws_lc_sys::X509_PURPOSE_SSL_SERVER,
        }
    }

    /// The extended key usage of such a peer; the gated crypto of old browsers counts for servers.
    pub(crate) fn extended_usage(self) -> i32 {
        match self {
            Self::Client => aws_lc_sys::XKU_SSL_CLIENT,
            Self::Server => aws_lc_sys::XKU_SSL_SERVER | aws_lc_sys::XKU_SGC,
        }
    }

    /// The library's settings for such a peer.
    pub(crate) fn settings(self) -> &'static CStr {
        match self {
            Self::Client => c"ssl_client",
            Self::Server => c"ssl_server",
        }
    }

    /// id-kp-clientAuth or id-kp-serverAuth (RFC 5280 §4.2.1.12).
    pub(crate) fn oid(self) -> &'static [u8] {
        match self {
            Self::Client => b"\x2b\x06\x01\x05\x05\x07\x03\x02",
            Self::Server => b"\x2b\x06\x01\x05\x05\x07\x03\x01",
        }
    }
}
