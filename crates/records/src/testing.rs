//! rustls configurations for tests and fuzz targets: one version, one suite, one self-signed certificate.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, LazyLock, Mutex};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, Connection, ConnectionCommon,
    ConnectionTrafficSecrets, KeyLog, RootCertStore, ServerConfig, ServerConnection, SideData,
    SupportedCipherSuite,
};

use crate::{Aead, DirectionKeys, Role, Started, TlsKeys, TlsVersion};

/// Every version with every AEAD.
pub const SUITES: [CipherSuite; 6] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// The name in the certificate.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Identity {
        certificate: made.cert.der().clone(),
        key: PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap(),
    }
});

/// The configurations of both sides for one suite; both can give their keys away, and tell their secrets
/// to `key_log`.
pub fn configs(
    suite: CipherSuite,
    key_log: Arc<dyn KeyLog>,
) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let suites: Vec<SupportedCipherSuite> = aws_lc_rs::ALL_CIPHER_SUITES
        .iter()
        .copied()
        .filter(|supported| supported.suite() == suite)
        .collect();
    let version = suites[0].version();
    let provider =
        Arc::new(CryptoProvider { cipher_suites: suites, ..aws_lc_rs::default_provider() });
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![IDENTITY.certificate.clone()], IDENTITY.key.clone_key())
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(IDENTITY.certificate.clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    server.key_log = Arc::clone(&key_log);
    client.key_log = key_log;
    server.enable_secret_extraction = true;
    client.enable_secret_extraction = true;
    (Arc::new(server), Arc::new(client))
}

/// One end by keys alone, the other still in rustls.
pub struct Session {
    /// Ours.
    pub keys: TlsKeys,
    /// The other end.
    pub peer: Connection,
    /// What the peer has sent since its Finished: tickets, in TLS 1.3 from a server.
    pub tickets: Vec<u8>,
}

/// Shakes hands in memory; `ours` is the end that gives its keys away.
pub fn session(suite: CipherSuite, ours: Role) -> Session {
    let secrets = Arc::new(Secrets::default());
    let (server_config, client_config) = configs(suite, Arc::clone(&secrets) as Arc<dyn KeyLog>);
    let mut server = ServerConnection::new(server_config).unwrap();
    let mut client = ClientConnection::new(client_config, server_name()).unwrap();
    let mut to_client = Vec::new();
    while client.is_handshaking() || server.is_handshaking() {
        let mut to_server = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut to_server).unwrap();
        }
        feed(&mut server, &to_server);
        while server.wants_write() {
            server.write_tls(&mut to_client).unwrap();
        }
        if client.is_handshaking() {
            feed(&mut client, &std::mem::take(&mut to_client));
        }
    }
    let [client_secret, server_secret] = *secrets.0.lock().unwrap();
    let version = match client.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
        _ => TlsVersion::Tls12,
    };
    let (our_secret, their_secret) = match ours {
        Role::Server => (server_secret, client_secret),
        Role::Client => (client_secret, server_secret),
    };
    let (extracted, peer, tickets) = match ours {
        Role::Server => {
            feed(&mut client, &to_client);
            (server.dangerous_extract_secrets(), Connection::Client(client), Vec::new())
        }
        Role::Client => (client.dangerous_extract_secrets(), Connection::Server(server), to_client),
    };
    let extracted = extracted.unwrap();
    let (aead, mut tx) = direction(&extracted.tx);
    let (_, mut rx) = direction(&extracted.rx);
    if version == TlsVersion::Tls13 {
        assert!(tx.find_secret(aead, &our_secret) && rx.find_secret(aead, &their_secret));
    }
    let keys = TlsKeys { version, aead, tx, rx, started: Started::default() };
    Session { keys, peer, tickets }
}

fn direction((sequence, secrets): &(u64, ConnectionTrafficSecrets)) -> (Aead, DirectionKeys) {
    let (aead, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Aead::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Aead::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (Aead::ChaCha20Poly1305, key, iv),
        _ => panic!("none of ours"),
    };
    (aead, DirectionKeys::new(aead, key.as_ref(), iv.as_ref(), *sequence).unwrap())
}

/// The first traffic secrets of a client and of its server.
#[derive(Debug)]
struct Secrets(Mutex<[[u8; 48]; 2]>);

impl Default for Secrets {
    fn default() -> Self {
        Self(Mutex::new([[0; 48]; 2]))
    }
}

impl KeyLog for Secrets {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let side = match label {
            "CLIENT_TRAFFIC_SECRET_0" => 0,
            "SERVER_TRAFFIC_SECRET_0" => 1,
            _ => return,
        };
        self.0.lock().unwrap()[side][..secret.len()].copy_from_slice(secret);
    }
}

/// Gives wire bytes to one end.
pub fn feed<D: SideData>(connection: &mut ConnectionCommon<D>, mut wire: &[u8]) {
    while !wire.is_empty() {
        connection.read_tls(&mut wire).unwrap();
        connection.process_new_packets().unwrap();
    }
}
