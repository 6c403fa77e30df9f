//! Certificates that are sent compressed (RFC 8879), by zlib as in nginx.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use rustls::compress::{CertCompressor, CompressionCache, CompressionFailed, CompressionLevel};
use rustls::{CertificateCompressionAlgorithm, ServerConfig};

/// How many compressed messages a server keeps: each of its certificates with and without what its CA says
/// of it, and some that are no longer sent.
const KEPT: usize = 8;

/// Sends certificates compressed to clients who offer to read that (`ssl_certificate_compression`).
pub(super) fn enable(config: &mut ServerConfig) {
    config.cert_compressors = vec![&Zlib];
    config.cert_compression_cache = Arc::new(CompressionCache::new(KEPT));
}

/// Sends them as they are: others in every handshake are not worth the time.
pub(super) fn disable(config: &mut ServerConfig) {
    config.cert_compressors.clear();
}

#[derive(Debug)]
struct Zlib;

impl CertCompressor for Zlib {
    fn compress(
        &self,
        input: Vec<u8>,
        level: CompressionLevel,
    ) -> Result<Vec<u8>, CompressionFailed> {
        let level = match level {
            CompressionLevel::Interactive => Compression::default(),
            CompressionLevel::Amortized => Compression::best(),
        };
        let mut encoder = ZlibEncoder::new(Vec::new(), level);
        let written = encoder.write_all(&input).and_then(|()| encoder.finish());
        written.map_err(|_| CompressionFailed)
    }

    fn algorithm(&self) -> CertificateCompressionAlgorithm {
        CertificateCompressionAlgorithm::Zlib
    }
}
