//! The certificates of all proxies and of clients, and the clients.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme, crypto::CryptoProvider, version,
};

/// The name in the certificate.
pub(crate) const HOST: &str = "bench.test";

/// Files of a self-signed certificate with an ECDSA P-256 key, and a client that another one vouches for.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    pub(crate) both: PathBuf,
    /// Who vouches for clients.
    pub(crate) authority: PathBuf,
    pub(crate) identity: Identity,
}

/// The certificate of a client, and its key.
#[derive(Debug)]
pub(crate) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Certificate {
    pub(crate) fn write(dir: &Path) -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed([HOST.to_string()]);
        let made = made.map_err(io::Error::other)?;
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let (authority, identity) = Identity::make().map_err(io::Error::other)?;
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).map(|()| path)
        };
        Ok(Self {
            both: write("both.pem", format!("{cert}{key}"))?,
            cert: write("cert.pem", cert)?,
            key: write("key.pem", key)?,
            authority: write("authority.pem", authority)?,
            identity,
        })
    }
}

impl Identity {
    /// With the certificate of its authority, in PEM.
    fn make() -> Result<(String, Self), rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "clients of the benchmark");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(["client.test".to_owned()])?;
        let certificate = params.signed_by(&key, &authority)?.der().clone();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok((authority.pem(), Self { certificate, key }))
    }
}

/// Whether clients come back with a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tickets {
    /// Every handshake is a full one.
    Ignored,
    /// Every handshake but the first ones resumes a session.
    Used,
}

/// A client that makes every proxy do the same: TLS 1.3, X25519, AES-128-GCM.
///
/// It believes any certificate, to be cheaper than the proxies; this is a load generator. It shows its
/// own if it has one.
pub(crate) fn client(
    tickets: Tickets,
    identity: Option<&Identity>,
) -> io::Result<Arc<ClientConfig>> {
    let provider = CryptoProvider {
        kx_groups: vec![kx_group::X25519],
        cipher_suites: vec![cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..aws_lc_rs::default_provider()
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS13])
        .expect("aws-lc-rs knows TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believer));
    let mut config = match identity {
        Some(Identity { certificate, key }) => builder
            .with_client_auth_cert(vec![certificate.clone()], key.clone_key())
            .map_err(io::Error::other)?,
        None => builder.with_no_client_auth(),
    };
    config.enable_secret_extraction = true;
    config.resumption = match tickets {
        Tickets::Ignored => Resumption::disabled(),
        Tickets::Used => Resumption::in_memory_sessions(64),
    };
    Ok(Arc::new(config))
}

/// Believes everything.
#[derive(Debug)]
struct Believer;

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
