//! Client certificates.
//!
//! nginx never ends a handshake for a client certificate that does not verify: it answers the
//! requests with 400 and lets the configuration see why. So during the handshake only the proof of
//! the key is checked, and the chain is judged when the handshake is over.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DistinguishedName, Error};
use wssgate_config::model::{ServerTls, VerifyClient};
use wssgate_syntax::Report;
use wssgate_x509::{Anchor, Fault, Peer, Trust};

use super::certificates::{self, Contents};
use crate::tls::proof;

/// `$ssl_client_verify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientVerify {
    /// The client sent no certificate.
    None,
    /// The chain leads to a trusted CA.
    Success,
    /// It does not, for this reason.
    Failed(Fault),
}

impl ClientVerify {
    /// OpenSSL's number: 0 when nothing is wrong, 1 ("unspecified") when nothing was verified.
    pub fn number(&self) -> u32 {
        match self {
            Self::None => 1,
            Self::Success => 0,
            Self::Failed(fault) => fault.number(),
        }
    }
}

/// How a server treats client certificates; `None` when it does not ask for them.
#[derive(Debug)]
pub(super) struct Verify(Option<Asking>);

#[derive(Debug)]
struct Asking {
    /// Nobody is trusted when there is no memory for it.
    trust: Option<Trust>,
    /// The CAs whose certificates a client should choose from: those of `ssl_client_certificate`.
    hints: Arc<[DistinguishedName]>,
}

impl Verify {
    pub(super) fn build(tls: &ServerTls, contents: &Contents, report: &mut Report) -> Self {
        let asks = tls.verify_client != VerifyClient::Off;
        Self(asks.then(|| Asking::build(tls, contents, report)))
    }

    /// What the handshake asks for; `None` when clients are not asked.
    pub(super) fn verifier(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        let asking = self.0.as_ref()?;
        Some(Arc::new(ProofOnly { hints: Arc::clone(&asking.hints) }))
    }

    pub(super) fn judge(&self, chain: Option<&[CertificateDer<'_>]>) -> ClientVerify {
        let shown = chain.and_then(<[_]>::split_first);
        let (Some(asking), Some((leaf, sent))) = (&self.0, shown) else {
            return ClientVerify::None;
        };
        match crate::tls::judge(asking.trust.as_ref(), leaf, sent) {
            Ok(()) => ClientVerify::Success,
            Err(fault) => ClientVerify::Failed(fault),
        }
    }
}

impl Asking {
    fn build(tls: &ServerTls, contents: &Contents, report: &mut Report) -> Self {
        let mut load = |file| certificates::load_authorities(file, Peer::Client, contents, report);
        let mut authorities = tls.client_certificate.as_ref().map(&mut load).unwrap_or_default();
        let hints = names(&authorities);
        authorities.extend(tls.trusted_certificate.iter().flat_map(load));
        let lists = tls.crl.as_ref().map(|crl| certificates::load_crls(crl, contents, report));
        let lists = lists.unwrap_or_default();
        Self { trust: Trust::new(Peer::Client, authorities, &lists, tls.verify_depth), hints }
    }
}

/// The names of CAs, each once.
fn names(authorities: &[Anchor]) -> Arc<[DistinguishedName]> {
    let mut names: Vec<DistinguishedName> = Vec::new();
    for name in authorities.iter().map(|one| DistinguishedName::from(one.subject())) {
        if !names.iter().any(|known| known.as_ref() == name.as_ref()) {
            names.push(name);
        }
    }
    names.into()
}

/// Checks that the client has the key of the certificate it shows, and nothing else.
#[derive(Debug)]
struct ProofOnly {
    hints: Arc<[DistinguishedName]>,
}

impl ClientCertVerifier for ProofOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Judged after the handshake.
        Ok(ClientCertVerified::assertion())
    }

    proof::verify_by_proof!();
}
