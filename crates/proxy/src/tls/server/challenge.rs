//! A CA that looks whether a name is ours by a handshake (tls-alpn-01, RFC 8737).

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::ClientHello;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::StartHandshake;
use wssgate_acme::{Challenges, TlsChallenge};

use super::HandshakeError;

/// What such a CA offers by ALPN, and nothing else.
const PROTOCOL: &[u8] = b"acme-tls/1";

/// What a CA is to be shown, if it is one and we have it. Others get what they always get, and find no protocol
/// of theirs.
pub(super) fn find(challenges: &Challenges, hello: &ClientHello<'_>) -> Option<Arc<TlsChallenge>> {
    let mut protocols = hello.alpn()?;
    if protocols.next()? != PROTOCOL || protocols.next().is_some() {
        return None;
    }
    challenges.certificate(&hello.server_name()?.to_ascii_lowercase())
}

/// Completes the handshake and closes the connection, which carries nothing (RFC 8737 §3). The answer says so.
pub(super) async fn show<S>(start: StartHandshake<S>, shown: &TlsChallenge) -> HandshakeError
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = match config(shown) {
        Ok(config) => config,
        Err(error) => return HandshakeError::Certificate(error.to_string()),
    };
    match start.into_stream(Arc::new(config)).await {
        Ok(mut stream) => {
            // Whether the CA still listens does not matter: it has seen the certificate.
            let _ = stream.shutdown().await;
            HandshakeError::Convinced
        }
        Err(error) => HandshakeError::Io(error),
    }
}

fn config(shown: &TlsChallenge) -> Result<ServerConfig, rustls::Error> {
    let chain = vec![shown.certificate.clone().into()];
    let key = PrivatePkcs8KeyDer::from(shown.key.clone());
    let key = crate::tls::provider().key_provider.load_private_key(key.into())?;
    // `with_single_cert` refuses it, for its critical extension that nobody else knows.
    let resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
    let builder = ServerConfig::builder_with_provider(crate::tls::provider());
    let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}
