//! Which of a server's certificates a client is shown.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::clock;
use crate::tls::served::Served;
use crate::tls::slot::Slot;

/// A server's keys; the first whose algorithm the client knows is used, ECDSA before RSA.
#[derive(Debug)]
pub(super) struct ByAlgorithm {
    pub(super) keys: Vec<Arc<Served>>,
    /// One more, which is replaced from time to time.
    pub(super) obtained: Option<Arc<Slot>>,
}

impl ResolvesServerCert for ByAlgorithm {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offered = hello.signature_schemes();
        let now = clock::unix_seconds();
        // Two at most in nearly all configurations, and the kind may change with a replacement.
        let obtained = self.obtained.as_ref().and_then(|slot| slot.certificate());
        let of_kind = |rsa: bool| {
            let keys = self.keys.iter().map(move |key| key.at(now));
            keys.chain(obtained.clone()).filter(move |key| is_rsa(key) == rsa)
        };
        let mut keys = of_kind(false).chain(of_kind(true));
        let first = keys.next()?;
        let mut usable = std::iter::once(Arc::clone(&first)).chain(keys);
        usable.find(|key| key.key.choose_scheme(offered).is_some()).or(Some(first))
    }
}

pub(super) fn is_rsa(key: &CertifiedKey) -> bool {
    key.key.algorithm() == rustls::SignatureAlgorithm::RSA
}
