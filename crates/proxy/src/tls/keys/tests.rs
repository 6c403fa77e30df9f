use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::UnixStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use wssgate_records::testing::{SUITES, configs, server_name};
use wssgate_relay::{Handover, Leg, LegTls, Protocol, Settings, Timers};

use super::*;

type Server = server::TlsStream<RecordBoundary<DuplexStream>>;
type Client = client::TlsStream<RecordBoundary<DuplexStream>>;

async fn handshake(suite: rustls::CipherSuite) -> (Server, Client) {
    let (server_config, client_config) = configs(suite, Arc::new(SecretLog));
    let (near, far) = tokio::io::duplex(1 << 17);
    let accept = TlsAcceptor::from(server_config).accept(RecordBoundary::new(near));
    let connect =
        TlsConnector::from(client_config).connect(server_name(), RecordBoundary::new(far));
    tokio::try_join!(capture(accept), capture(connect)).unwrap()
}

fn assert_match(sender: &TlsKeys, receiver: &TlsKeys) {
    assert_eq!((sender.version, sender.aead), (receiver.version, receiver.aead));
    assert_eq!(sender.tx.key, receiver.rx.key);
    assert_eq!(sender.tx.secret, receiver.rx.secret);
}

#[tokio::test]
async fn both_sides_give_the_same_keys_in_every_suite() {
    for suite in SUITES {
        let (server, client) = handshake(suite).await;
        let (server, client) = (detach(server).unwrap(), detach(client).unwrap());
        assert_match(&server.keys, &client.keys);
        assert_match(&client.keys, &server.keys);
        assert_ne!(server.keys.tx.key, server.keys.rx.key);
        assert_eq!(client.keys.tx.sequence, server.keys.rx.sequence);
    }
}

#[tokio::test]
async fn interleaved_handshakes_keep_their_own_secrets() {
    let suite = SUITES[0];
    let (a, b, c) = tokio::join!(handshake(suite), handshake(suite), handshake(suite));
    for (server, client) in [a, b, c] {
        let (server, client) = (detach(server).unwrap(), detach(client).unwrap());
        assert_match(&server.keys, &client.keys);
    }
}

#[tokio::test]
async fn what_was_read_ahead_comes_along_opened_and_unopened() {
    for suite in SUITES {
        let (mut server, mut client) = handshake(suite).await;
        client.write_all(b"request").await.unwrap();
        client.write_all(b"opened").await.unwrap();
        client.write_all(&[7; 100]).await.unwrap();
        client.flush().await.unwrap();
        let mut head = [0; 9];
        server.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"requestop");
        let server = detach(server).unwrap();
        assert!(
            b"ened"
                .iter()
                .chain(&[7; 100])
                .copied()
                .take(server.plaintext.len())
                .eq(server.plaintext.iter().copied())
        );
        // Whatever rustls had not opened is still in the boundary or the socket.
        assert!(
            server.plaintext.len() == 4 && server.keys.rx.sequence >= 2
                || server.plaintext.len() == 104 && server.ciphertext.is_empty()
        );
        assert!(!server.ended);
    }
}

#[tokio::test]
async fn a_peers_close_notify_comes_along() {
    for suite in SUITES {
        let (mut server, mut client) = handshake(suite).await;
        client.write_all(b"request").await.unwrap();
        client.get_mut().1.send_close_notify();
        client.flush().await.unwrap();
        let mut head = [0; 7];
        server.read_exact(&mut head).await.unwrap();
        let server = detach(server).unwrap();
        assert!(server.ended || !server.ciphertext.is_empty());
    }
}

#[tokio::test]
async fn keys_are_followed_through_updates_made_before() {
    for suite in &SUITES[..3] {
        let (mut server, mut client) = handshake(*suite).await;
        // More than rustls allows without data between them.
        for _ in 0..100 {
            client.get_mut().1.refresh_traffic_keys().unwrap();
            client.write_all(b"x").await.unwrap();
            client.flush().await.unwrap();
            server.read_u8().await.unwrap();
        }
        let Detached { keys: server, mut socket, unsent, .. } = detach(server).unwrap();
        socket.write_all(&unsent).await.unwrap();
        drop(socket);
        // The answer to the updates was written, and not lost.
        assert_eq!(client.read_u8().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let client = detach(client).unwrap();
        assert_match(&server, &client.keys);
        assert_match(&client.keys, &server);
    }
}

#[tokio::test]
async fn without_captured_secrets_tls_13_is_refused() {
    let (server_config, client_config) = configs(SUITES[0], Arc::new(SecretLog));
    let (near, far) = tokio::io::duplex(1 << 17);
    let accept = TlsAcceptor::from(server_config).accept(RecordBoundary::new(near));
    let connect =
        TlsConnector::from(client_config).connect(server_name(), RecordBoundary::new(far));
    let (server, _client) = tokio::try_join!(accept, connect).unwrap();
    assert!(matches!(detach(server).unwrap().flaw, Some(DetachError::SecretsMissing)));
}

/// A server whose key is worn out after this many records, and its client.
async fn short_lived(suite: rustls::CipherSuite, records: u64) -> (Server, Client) {
    use rustls::crypto::{CipherSuiteCommon, CryptoProvider};
    let (server_config, client_config) = configs(suite, Arc::new(SecretLog));
    let provider = server_config.crypto_provider();
    let SupportedCipherSuite::Tls12(lasting) = provider.cipher_suites[0] else {
        panic!("TLS 1.3 changes its keys");
    };
    let common = CipherSuiteCommon { confidentiality_limit: records, ..lasting.common };
    let short: &'static _ = Box::leak(Box::new(rustls::Tls12CipherSuite { common, ..*lasting }));
    let provider = CryptoProvider { cipher_suites: vec![short.into()], ..(**provider).clone() };
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&server_config.cert_resolver));
    let (near, far) = tokio::io::duplex(1 << 20);
    let accept = TlsAcceptor::from(Arc::new(config)).accept(RecordBoundary::new(near));
    let connect =
        TlsConnector::from(client_config).connect(server_name(), RecordBoundary::new(far));
    tokio::try_join!(accept, connect).unwrap()
}

/// At its limit rustls takes what it does not send: nobody must ask it then.
#[tokio::test]
async fn records_are_counted_so_that_rustls_swallows_nothing() {
    for suite in &SUITES[3..5] {
        let limit = LAST_RECORDS + 150;
        let (mut server, mut client) = short_lived(*suite, limit).await;
        let left = |server: &Server| {
            let (boundary, tls) = server.get_ref();
            records_left(tls.negotiated_cipher_suite(), boundary.sealed())
        };
        let mut sent = 0;
        // Of the handshake's records some were not sealed.
        assert!((limit - 10..limit).contains(&left(&server)));
        while left(&server) > LAST_RECORDS {
            let before = left(&server);
            server.write_all(&[7; 20_000]).await.unwrap();
            server.flush().await.unwrap();
            assert_eq!(left(&server), before - 2, "two records");
            let mut arrived = vec![0; 20_000];
            client.read_exact(&mut arrived).await.unwrap();
            sent += arrived.len();
        }
        assert!(sent > 1_000_000);
        server.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "close_notify");
    }
}

/// The whole way of a leg: tokio-rustls shakes hands over a boundary, the keys come out, and the relay
/// goes on in the middle of a record.
#[tokio::test]
async fn a_detached_stream_becomes_a_leg_of_the_relay() {
    let relay =
        wssgate_relay::start("test", Settings::default(), Arc::default(), |_, _| {}, |_| {})
            .unwrap();
    for suite in SUITES {
        let (server_config, client_config) = configs(suite, Arc::new(SecretLog));
        let (near, far) = UnixStream::pair().unwrap();
        let accept = TlsAcceptor::from(server_config).accept(RecordBoundary::new(near));
        let connect = TlsConnector::from(client_config).connect(server_name(), far);
        let (mut server, mut client) = tokio::try_join!(capture(accept), connect).unwrap();
        client.write_all(b"head, then body").await.unwrap();
        let mut more = Vec::new();
        client.get_mut().1.writer().write_all(b", then more").unwrap();
        client.get_mut().1.write_tls(&mut more).unwrap();
        client.get_mut().0.write_all(&more[..7]).await.unwrap();
        let mut head = [0; 4];
        server.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"head");
        server.write_all(b"101").await.unwrap();
        let detached = detach(server).unwrap();
        client.get_mut().0.write_all(&more[7..]).await.unwrap();

        let (near, mut upstream) = UnixStream::pair().unwrap();
        let handover = Handover {
            ticket: 0,
            origin: wssgate_relay::Origin::default(),
            client: Leg {
                socket: detached.socket.into_std().unwrap().into(),
                unix: true,
                tls: LegTls::Keys(detached.keys),
                unsent: detached.unsent,
                plaintext: detached.plaintext,
                ciphertext: detached.ciphertext,
                ended: detached.ended,
            },
            upstream: Leg { unix: true, ..Leg::plain(near.into_std().unwrap(), Vec::new()) },
            protocol: Protocol::Other,
            timers: Timers::default(),
            buffer_size: 4096,
            label: None,
        };
        relay.handle().hand_over(handover).unwrap();
        relay.handle().wake();
        let mut carried = [0; 22];
        upstream.read_exact(&mut carried).await.unwrap();
        assert_eq!(&carried, b", then body, then more");
        upstream.write_all(b", and back").await.unwrap();
        let mut answer = [0; 13];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"101, and back");
    }
}
