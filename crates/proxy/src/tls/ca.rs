//! TLS towards the servers of CAs.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, Error, RootCertStore, client::WebPkiServerVerifier};
use wssgate_config::model::Located;
use wssgate_syntax::Report;
use wssgate_x509::{Anchor, Certificate, Peer, Trust};

use super::certificates::{self, Contents};
use super::proof;

/// How many CAs may stand between a server and one that is trusted; as OpenSSL.
const DEPTH: u32 = 100;

/// Where systems keep the CAs that they trust, in one file.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Settings for connections to a CA: it is verified by the certificates of `trusted`, by those of the system, or by
/// the ones that browsers trust if the system has none; not at all if `verify` is false.
pub fn client(
    trusted: Option<&Located<PathBuf>>,
    verify: bool,
    report: &mut Report,
) -> Option<ClientConfig> {
    let provider = super::provider();
    let verifier: Arc<dyn ServerCertVerifier> = match (verify, trusted) {
        (false, _) => Arc::new(Trusted(None)),
        (true, Some(file)) => {
            let anchors =
                certificates::load_authorities(file, Peer::Server, &Contents::default(), report);
            Arc::new(Trusted(Some(Trust::new(Peer::Server, anchors, &[], DEPTH)?)))
        }
        (true, None) => match system_anchors() {
            Some(anchors) => {
                Arc::new(Trusted(Some(Trust::new(Peer::Server, anchors, &[], DEPTH)?)))
            }
            None => {
                let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
                let builder = WebPkiServerVerifier::builder_with_provider(
                    Arc::new(roots),
                    Arc::clone(&provider),
                );
                builder.build().ok()?
            }
        },
    };
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().ok()?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    Some(builder.with_no_client_auth())
}

/// The CAs that the system trusts, without those that cannot be read.
fn system_anchors() -> Option<Vec<Anchor>> {
    let given = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let places = given.into_iter().chain(BUNDLES.map(PathBuf::from));
    let mut found = places.map(|path| anchors(&path)).filter(|anchors| !anchors.is_empty());
    found.next()
}

fn anchors(path: &Path) -> Vec<Anchor> {
    let chain = certificates::read_certificates(path, &Contents::default()).unwrap_or_default();
    chain.iter().filter_map(|der| Anchor::parse(der, Peer::Server)).collect()
}

/// Whom we trust; everybody if nobody is named.
#[derive(Debug)]
struct Trusted(Option<Trust>);

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let good = Ok(ServerCertVerified::assertion());
        let Some(trust) = &self.0 else { return good };
        super::judge(Some(trust), leaf, sent).map_err(|fault| {
            Error::General(format!("its certificate does not verify: {}:{fault}", fault.number()))
        })?;
        let is_for_it = |leaf: Certificate| match name {
            ServerName::IpAddress(address) => match IpAddr::from(*address) {
                IpAddr::V4(address) => leaf.is_for_address(&address.octets()),
                IpAddr::V6(address) => leaf.is_for_address(&address.octets()),
            },
            name => leaf.is_for_host(name.to_str().as_bytes()),
        };
        let name = name.to_str();
        match Certificate::parse(leaf).is_some_and(is_for_it) {
            true => good,
            false => Err(Error::General(format!("its certificate is not for \"{name}\""))),
        }
    }

    proof::verify_by_proof!();
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// Names are names and addresses are addresses, whatever the common name says.
    #[test]
    fn a_server_is_the_one_that_its_certificate_names() {
        let key = KeyPair::generate().unwrap();
        let names = ["a.test", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
        let leaf = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let anchor = Anchor::parse(leaf.der(), Peer::Server).unwrap();
        let trusted = Trusted(Trust::new(Peer::Server, vec![anchor], &[], DEPTH));
        for (name, expected) in [
            ("a.test", true),
            ("b.test", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("2001:db8::1", true),
            ("2001:db8::2", false),
        ] {
            let server = ServerName::try_from(name).unwrap();
            let judged = trusted.verify_server_cert(leaf.der(), &[], &server, &[], UnixTime::now());
            assert_eq!(judged.is_ok(), expected, "{name}: {judged:?}");
        }
    }
}
