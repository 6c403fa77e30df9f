//! Who is believed about the address of a client.

use std::net::IpAddr;

/// How the address of a client is found behind trusted proxies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealIp {
    /// `set_real_ip_from` lines.
    pub from: Vec<TrustedProxy>,
    /// `real_ip_header`.
    pub header: RealIpHeader,
    /// `real_ip_recursive`.
    pub recursive: bool,
}

/// Who is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    /// Everybody on a Unix socket.
    Unix,
    /// An address or network: base address and prefix length.
    Network(IpAddr, u8),
}

/// Where the address stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RealIpHeader {
    /// In the list of `X-Forwarded-For`, which may be spread over several fields.
    ForwardedFor,
    /// In the first field of this name, in lower case.
    Field(Box<[u8]>),
    /// In the header of the PROXY protocol.
    ProxyProtocol,
}
