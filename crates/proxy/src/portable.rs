//! What another process of ours has to know, as CBOR: the parts that several owners of state use.
//!
//! Each owner of state encodes its own, as maps of numbered fields. A number is never used again for something
//! else; unknown fields are skipped, and what a missing field means is said where it is declared.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};
use wssgate_config::model::ListenAddr;

/// An address; one without any field is none that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub(crate) struct AddressState<'b> {
    /// IP address and port.
    #[n(0)]
    ip: Option<SocketAddr>,
    /// The scope of a link-local address.
    #[n(1)]
    scope: Option<u32>,
    /// The path of a Unix socket.
    #[b(2)]
    path: Option<&'b ByteSlice>,
}

impl From<SocketAddr> for AddressState<'_> {
    fn from(address: SocketAddr) -> Self {
        let scope = match address {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(address) => address.scope_id(),
        };
        Self { ip: Some(address), scope: (scope != 0).then_some(scope), path: None }
    }
}

impl<'b> From<&'b ListenAddr> for AddressState<'b> {
    fn from(address: &'b ListenAddr) -> Self {
        match address {
            ListenAddr::Ip(address) => (*address).into(),
            ListenAddr::Unix(path) => {
                Self { ip: None, scope: None, path: Some(path.as_os_str().as_bytes().into()) }
            }
        }
    }
}

impl AddressState<'_> {
    /// The IP address, if it is one.
    pub(crate) fn ip(&self) -> Option<SocketAddr> {
        let mut address = self.ip?;
        if let (SocketAddr::V6(address), Some(scope)) = (&mut address, self.scope) {
            address.set_scope_id(scope);
        }
        Some(address)
    }

    /// The address.
    pub(crate) fn address(&self) -> Option<ListenAddr> {
        match (self.ip(), self.path) {
            (Some(address), _) => Some(ListenAddr::Ip(address)),
            (None, Some(path)) => Some(ListenAddr::Unix(Path::new(OsStr::from_bytes(path)).into())),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_went() {
        for text in ["127.0.0.1:80", "[::1]:65535", "[fe80::1%3]:1"] {
            let address = ListenAddr::Ip(text.parse().unwrap());
            let bytes = minicbor::to_vec(AddressState::from(&address)).unwrap();
            let state: AddressState<'_> = minicbor::decode(&bytes).unwrap();
            assert_eq!(state.address(), Some(address));
        }
        let path = Path::new(OsStr::from_bytes(b"/run/\xff.sock"));
        let address = ListenAddr::Unix(path.into());
        let bytes = minicbor::to_vec(AddressState::from(&address)).unwrap();
        let state: AddressState<'_> = minicbor::decode(&bytes).unwrap();
        assert_eq!((state.address(), state.ip()), (Some(address), None));
        assert_eq!(minicbor::decode::<AddressState<'_>>(b"\xa0").unwrap().address(), None);
    }
}
