//! Handshakes by name, with the settings of a configuration.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::read::ZlibDecoder;
use rustls::compress::{CertDecompressor, DecompressionFailed};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateCompressionAlgorithm, ClientConfig};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::TlsConnector;
use wssgate_config::LoadOptions;
use wssgate_config::variable::Builtin;
use wssgate_syntax::Main;
use wssgate_testkit::pki::{KeyKind, Leaf, Pki};

use super::*;

/// The acceptor and the configuration of servers that listen on port 443.
fn build(servers: &str) -> (Acceptor, wssgate_config::Config, Vec<String>) {
    let main = Main::Text {
        name: "test".to_owned(),
        text: format!("events {{}} http {{ {servers} }}").into_bytes(),
    };
    let loaded = wssgate_config::load(&LoadOptions { main, ..LoadOptions::default() });
    let config = loaded.unwrap_or_else(|failed| panic!("{:?}", failed.report)).config;
    let mut report = Report::default();
    let http = config.http.as_ref().unwrap();
    let (mut caches, now) = (Caches::default(), 1_700_000_000);
    let acceptor =
        Acceptor::build(http, &Lasting::default(), &[], None, &mut caches, now, &mut report);
    let messages = report.iter().map(|diagnostic| diagnostic.message.clone()).collect();
    (acceptor, config, messages)
}

fn files(leaf: &Leaf) -> String {
    let (chain, key) = (leaf.fullchain.display(), leaf.key.display());
    format!("ssl_certificate {chain}; ssl_certificate_key {key};")
}

type Both = (Result<Accepted<DuplexStream>, HandshakeError>, io::Result<Vec<Vec<u8>>>);

/// Shakes hands with `name`; gives what the server and the client think of it. A client that is
/// content gives the chain that it was shown.
async fn shake(
    (acceptor, config): (&Acceptor, &wssgate_config::Config),
    client: Arc<ClientConfig>,
    name: &'static str,
) -> Both {
    let route = &config.http.as_ref().unwrap().sockets[0].routes[0];
    let (near, far) = tokio::io::duplex(64 * 1024);
    let connecting = async {
        let connector = TlsConnector::from(client);
        let mut stream = connector.connect(ServerName::try_from(name).unwrap(), near).await?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let shown = shown.iter().map(|certificate| certificate.to_vec()).collect();
        // The server closes; what it sent before, tickets among it, is read on the way.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        Ok(shown)
    };
    let accepting = async {
        let mut accepted =
            acceptor.greet(far, Vec::new(), route).await?.shake_hands(Vec::new()).await?;
        accepted.stream.shutdown().await.map_err(HandshakeError::Io)?;
        Ok(accepted)
    };
    tokio::join!(accepting, connecting)
}

/// Reads certificates that were compressed by zlib, and counts them.
#[derive(Debug, Default)]
struct Inflate(AtomicUsize);

impl CertDecompressor for Inflate {
    fn decompress(&self, input: &[u8], output: &mut [u8]) -> Result<(), DecompressionFailed> {
        let mut inflated = Vec::new();
        let read = ZlibDecoder::new(input).read_to_end(&mut inflated);
        read.map_err(|_| DecompressionFailed)?;
        if inflated.len() != output.len() || input.len() >= output.len() {
            return Err(DecompressionFailed);
        }
        output.copy_from_slice(&inflated);
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn algorithm(&self) -> CertificateCompressionAlgorithm {
        CertificateCompressionAlgorithm::Zlib
    }
}

#[tokio::test]
async fn certificates_are_compressed_for_clients_who_read_that() {
    let pki = Pki::with_intermediates(2);
    let leaf = pki.leaf(&["a.test"]);
    for (settings, reads, expected) in [
        ("ssl_certificate_compression on;", true, 2),
        ("ssl_certificate_compression on;", false, 0),
        ("", true, 0),
        ("ssl_certificate_compression on; ssl_protocols TLSv1.2;", true, 0),
    ] {
        let both = build(&format!(
            "server {{ listen 443 ssl; server_name a.test; {} {settings} }}",
            files(&leaf)
        ));
        let inflate: &'static Inflate = Box::leak(Box::default());
        let mut client = Arc::unwrap_or_clone(pki.client_config());
        client.resumption = rustls::client::Resumption::disabled();
        client.cert_decompressors = if reads { vec![inflate] } else { Vec::new() };
        let client = Arc::new(client);
        // The second one from what was kept.
        for _ in 0..2 {
            let (accepted, shown) = shake((&both.0, &both.1), Arc::clone(&client), "a.test").await;
            assert!(accepted.is_ok(), "{settings}");
            assert_eq!(
                shown.unwrap(),
                leaf.chain().iter().map(|one| one.to_vec()).collect::<Vec<_>>()
            );
        }
        assert_eq!(inflate.0.load(Ordering::Relaxed), expected, "{settings} {reads}");
    }
}

#[tokio::test]
async fn the_name_picks_the_server_and_its_certificate() {
    let pki = Pki::new();
    let (a, b) = (pki.leaf(&["a.test"]), pki.leaf(&["b.test", "other.test"]));
    let (acceptor, config, _) = build(&format!(
        "server {{ listen 443 ssl; server_name a.test; {} }}
         server {{ listen 443 ssl; server_name b.test; {} }}
         server {{ listen 443 ssl; server_name none.test; }}",
        files(&a),
        files(&b),
    ));
    for (name, server, trusted) in [
        ("a.test", 0, true),
        ("b.test", 1, true),
        ("other.test", 0, false),
        ("none.test", 0, false),
    ] {
        let (accepted, shown) = shake((&acceptor, &config), pki.client_config(), name).await;
        assert_eq!(shown.is_ok(), trusted, "{name}");
        if let Ok(accepted) = accepted {
            assert_eq!(accepted.server.0, server, "{name}");
            assert_eq!(accepted.info.server_name.as_deref(), Some(name));
            assert_eq!(accepted.info.protocol, "TLSv1.3");
            let curves = accepted.info.variable(Builtin::SslCurves, 0).unwrap();
            assert!(curves.split(|&byte| byte == b':').any(|name| name == b"X25519"));
            assert!(!accepted.info.reused);
        }
    }
}

#[tokio::test]
async fn an_accepted_stream_gives_its_keys() {
    let pki = Pki::new();
    for version in ["TLSv1.2", "TLSv1.3"] {
        let leaf = files(&pki.leaf(&["a.test"]));
        let (acceptor, config, _) =
            build(&format!("server {{ listen 443 ssl; ssl_protocols {version}; {leaf} }}"));
        let (accepted, _) = shake((&acceptor, &config), pki.client_config(), "a.test").await;
        let accepted = accepted.unwrap();
        assert_eq!(accepted.info.protocol, version);
        keys::detach(accepted.stream).unwrap();
    }
}

/// The ticket is another server's, who takes early data.
#[tokio::test]
async fn early_data_is_skipped_and_the_handshake_goes_on() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["a.test"]);
    let mut client = ClientConfig::clone(&pki.client_config());
    client.enable_early_data = true;
    let client = Arc::new(client);
    let mut other = ServerConfig::clone(&leaf.server_config());
    other.max_early_data_size = 1 << 16;
    other.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
    let name = || ServerName::try_from("a.test").unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let connect = async {
        let mut stream = TlsConnector::from(Arc::clone(&client)).connect(name(), near).await?;
        let _ = stream.read_to_end(&mut Vec::new()).await;
        io::Result::Ok(())
    };
    let accept = async {
        let mut stream = tokio_rustls::TlsAcceptor::from(Arc::new(other)).accept(far).await?;
        stream.shutdown().await
    };
    tokio::try_join!(connect, accept).unwrap();

    let files = files(&leaf);
    // As much as nginx and OpenSSL let their tickets allow.
    for (lines, early) in [("", 1 << 14), ("ssl_session_tickets off;", 1 << 14)] {
        let (acceptor, config, _) = build(&format!("server {{ listen 443 ssl; {lines} {files} }}"));
        let route = &config.http.as_ref().unwrap().sockets[0].routes[0];
        let (mut near, far) = tokio::io::duplex(128 * 1024);
        let mut tls = rustls::ClientConnection::new(Arc::clone(&client), name()).unwrap();
        tls.early_data().unwrap().write_all(&vec![7; early]).unwrap();
        let connect = async {
            loop {
                let mut out = Vec::new();
                while tls.wants_write() {
                    tls.write_tls(&mut out).unwrap();
                }
                near.write_all(&out).await.unwrap();
                if !tls.is_handshaking() {
                    return;
                }
                let mut input = vec![0; 16 * 1024];
                let len = near.read(&mut input).await.unwrap();
                tls.read_tls(&mut &input[..len]).unwrap();
                tls.process_new_packets().unwrap();
            }
        };
        let accept =
            async { acceptor.greet(far, Vec::new(), route).await?.shake_hands(Vec::new()).await };
        let (accepted, ()) = tokio::join!(accept, connect);
        assert_eq!(accepted.unwrap().info.protocol, "TLSv1.3", "{lines}");
        assert!(!tls.is_early_data_accepted(), "{lines}");
    }
}

#[tokio::test]
async fn rejected_names_get_an_alert() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["a.test"]);
    let (acceptor, config, _) = build(&format!(
        "server {{ listen 443 ssl default_server; ssl_reject_handshake on; }}
         server {{ listen 443 ssl; server_name a.test; {} }}",
        files(&leaf),
    ));
    let (accepted, shown) = shake((&acceptor, &config), pki.client_config(), "a.test").await;
    assert!(accepted.is_ok() && shown.is_ok());
    let (accepted, shown) = shake((&acceptor, &config), pki.client_config(), "b.test").await;
    assert!(matches!(accepted, Err(HandshakeError::Rejected)));
    let text = shown.unwrap_err().to_string();
    assert!(text.contains("UnrecognisedName"), "{text}");
}

#[tokio::test]
async fn of_several_certificates_the_client_gets_one_that_it_knows() {
    let pki = Pki::new();
    let rsa = pki.leaf_with(&["a.test"], KeyKind::RsaPkcs1);
    let ecdsa = pki.leaf(&["a.test"]);
    let (acceptor, config, _) = build(&format!(
        "server {{ listen 443 ssl; ssl_protocols TLSv1.2; {} {} }}",
        files(&rsa),
        files(&ecdsa),
    ));
    let (_, shown) = shake((&acceptor, &config), pki.client_config(), "a.test").await;
    let ecdsa_shown = shown.unwrap()[0].clone();
    let mut provider = (*crate::tls::provider()).clone();
    provider.cipher_suites.retain(|suite| format!("{suite:?}").contains("ECDHE_RSA"));
    let client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(certificates_of(&pki))
        .with_no_client_auth();
    let (accepted, shown) = shake((&acceptor, &config), Arc::new(client), "a.test").await;
    assert_ne!(shown.unwrap()[0], ecdsa_shown);
    let info = accepted.unwrap().info;
    assert_eq!(info.protocol, "TLSv1.2");
    assert!(info.cipher.starts_with("ECDHE-RSA-"), "{}", info.cipher);
}

#[tokio::test]
async fn of_two_certificates_of_one_kind_the_last_is_shown() {
    let pki = Pki::new();
    let (first, rsa) = (pki.leaf(&["a.test"]), pki.leaf_with(&["a.test"], KeyKind::RsaPkcs1));
    let last = pki.leaf(&["a.test"]);
    let all = [&first, &rsa, &last].map(files).concat();
    let (acceptor, config, messages) = build(&format!("server {{ listen 443 ssl; {all} }}"));
    let (_, shown) = shake((&acceptor, &config), pki.client_config(), "a.test").await;
    assert_eq!(shown.unwrap()[0], last.chain()[0].as_ref());
    let told = messages.iter().filter(|text| text.contains("is never used"));
    let path = first.fullchain.display().to_string();
    assert!(
        told.clone().count() == 1 && told.clone().all(|text| text.contains(&path)),
        "{messages:?}"
    );
}

fn certificates_of(pki: &Pki) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.root_path()).unwrap()).unwrap();
    roots
}

#[tokio::test]
async fn a_session_is_resumed_at_the_same_server() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["a.test"]);
    for settings in [
        "ssl_session_tickets on;",
        "ssl_session_tickets off; ssl_session_cache shared:x:1m;",
        "ssl_session_tickets off;",
    ] {
        let (acceptor, config, _) =
            build(&format!("server {{ listen 443 ssl; {settings} {} }}", files(&leaf)));
        let client = pki.client_config();
        let mut reused = Vec::new();
        for _ in 0..2 {
            let both = (&acceptor, &config);
            let (accepted, _) = shake(both, Arc::clone(&client), "a.test").await;
            reused.push(accepted.unwrap().info.reused);
        }
        let resumable = settings.contains("on;") || settings.contains("shared");
        assert_eq!(reused, [false, resumable], "{settings}");
    }
}

#[tokio::test]
async fn client_certificates_are_judged_after_the_handshake() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["a.test"]);
    let stranger = Pki::new();
    let root = pki.root_path().display().to_string();
    for (mode, certificate, expected, refusal) in [
        ("on", Some(&pki), ClientVerify::Success, None),
        ("on", None, ClientVerify::None, Some(496)),
        ("optional", None, ClientVerify::None, None),
        ("optional", Some(&stranger), ClientVerify::Failed(Fault::NO_LOCAL_ISSUER), Some(495)),
        ("optional_no_ca", Some(&stranger), ClientVerify::Failed(Fault::NO_LOCAL_ISSUER), None),
    ] {
        let (acceptor, config, _) = build(&format!(
            "server {{ listen 443 ssl; ssl_verify_client {mode}; ssl_client_certificate {root}; {} }}",
            files(&leaf),
        ));
        let client = match certificate {
            Some(owner) => pki.client_config_with(&owner.leaf(&["client.test"])),
            None => pki.client_config(),
        };
        let (accepted, _) = shake((&acceptor, &config), client, "a.test").await;
        let info = accepted.unwrap().info;
        assert_eq!(info.client_verify, expected, "{mode}");
        let asked = config.http.as_ref().unwrap().servers[0].tls.verify_client;
        assert_eq!(info.refusal(asked).map(|why| why.status()), refusal, "{mode}");
    }
}

/// A client without a certificate, which notes the CAs that the server names.
#[derive(Debug, Default)]
struct Hinted(std::sync::Mutex<Vec<Vec<u8>>>);

impl rustls::client::ResolvesClientCert for Hinted {
    fn resolve(
        &self,
        hints: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        *self.0.lock().unwrap() = hints.iter().map(|hint| hint.to_vec()).collect();
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn clients_are_told_the_cas_of_ssl_client_certificate_alone() {
    let (pki, sent, trusted) = (Pki::new(), Pki::new(), Pki::new());
    let leaf = files(&pki.leaf(&["a.test"]));
    let pem = |pki: &Pki| std::fs::read_to_string(pki.root_path()).unwrap();
    let twice = pki.dir().join("twice.pem");
    std::fs::write(&twice, pem(&sent).repeat(2)).unwrap();
    let client = format!("ssl_client_certificate {};", twice.display());
    let other = format!("ssl_trusted_certificate {};", trusted.root_path().display());
    let name = |pki: &Pki| wssgate_x509::Certificate::parse(pki.root()).unwrap().subject();
    for (settings, expected) in [
        (format!("{client} {other}"), vec![name(&sent)]),
        (client.clone(), vec![name(&sent)]),
        (other.clone(), vec![]),
    ] {
        let (acceptor, config, _) =
            build(&format!("server {{ listen 443 ssl; ssl_verify_client on; {settings} {leaf} }}"));
        let hinted = Arc::new(Hinted::default());
        let builder = ClientConfig::builder_with_provider(crate::tls::provider());
        let client = builder.with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(certificates_of(&pki));
        let client = client.with_client_cert_resolver(Arc::clone(&hinted) as _);
        shake((&acceptor, &config), Arc::new(client), "a.test").await.0.unwrap();
        assert_eq!(*hinted.0.lock().unwrap(), expected, "{settings}");
    }
}

#[test]
fn what_is_wrong_with_settings_is_reported() {
    let pki = Pki::new();
    let leaf = pki.leaf(&["a.test"]);
    let root = pki.root_path().display().to_string();
    let not_a_list = pki.dir().join("list.pem");
    std::fs::write(&not_a_list, "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n")
        .unwrap();
    let crl = |list: &str| {
        format!("ssl_verify_client on; ssl_client_certificate {root}; ssl_crl {list};")
    };
    let both = pki.dir().join("both.pem");
    std::fs::write(&both, pki.authorities_pem() + &pki.crl_pem(&[], false)).unwrap();
    let both = both.display().to_string();
    let authorities = format!("ssl_verify_client on; ssl_client_certificate {both};");
    for (settings, expected) in [
        (&*crl(&root), "root.pem\": no revocation list in the file"),
        (&*crl(&both), "both.pem\" are ignored"),
        (&*authorities, "revocation lists in \""),
        (&*crl(&not_a_list.display().to_string()), "list.pem\": invalid revocation list"),
        (&*crl("/nonexistent"), "cannot load CRL \"/nonexistent\": (2: No such file"),
        ("ssl_ciphers DHE-RSA-AES128-SHA;", "no cipher match"),
        ("ssl_ciphers ECDHE:AES128-SHA;", "cipher suites not available: AES128-SHA"),
        ("ssl_ciphers ECDHE:what;", "unknown names in the cipher list: what"),
        (
            "ssl_ecdh_curve secp521r1:X25519:sect571r1;",
            "curves not available: secp521r1, sect571r1",
        ),
        ("ssl_dhparam /nonexistent;", "cannot load DH parameters"),
        ("server_name b.test;", "does not cover the server name \"b.test\""),
    ] {
        let (_, _, messages) =
            build(&format!("server {{ listen 443 ssl; {settings} {} }}", files(&leaf)));
        assert!(messages.iter().any(|text| text.contains(expected)), "{expected}: {messages:?}");
    }
}
