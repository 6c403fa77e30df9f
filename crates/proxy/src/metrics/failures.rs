//! What goes wrong before there is a tunnel, by kinds that are fixed here: no client can add one.

use std::marker::PhantomData;

use wssgate_metrics::Counter;

/// A kind of failure, by the word that stands in the label.
pub trait Failure: Copy + 'static {
    /// All of them.
    const ALL: &'static [Self];

    /// Its place among them.
    fn place(self) -> usize;

    /// Its word.
    fn word(self) -> &'static str;
}

/// A counter for each kind of failure.
#[derive(Debug)]
pub struct PerKind<F> {
    counters: Box<[Counter]>,
    kind: PhantomData<F>,
}

impl<F: Failure> Default for PerKind<F> {
    fn default() -> Self {
        Self { counters: F::ALL.iter().map(|_| Counter::default()).collect(), kind: PhantomData }
    }
}

impl<F: Failure> PerKind<F> {
    /// Counts one.
    pub fn count(&self, failure: F) {
        self.counters[failure.place()].increment();
    }

    /// How many there were of this kind.
    pub fn value(&self, failure: F) -> u64 {
        self.counters[failure.place()].value()
    }
}

/// Names the kinds with their words, in one list.
macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $kind:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$each])* $kind,)+ }

        impl Failure for $name {
            const ALL: &'static [Self] = &[$(Self::$kind,)+];

            fn place(self) -> usize {
                self as usize
            }

            fn word(self) -> &'static str {
                match self { $(Self::$kind => $word,)+ }
            }
        }
    };
}

kinds! {
    /// Why a client connection came to no request.
    ConnectionFailure {
        /// The header of the PROXY protocol is missing, wrong or late.
        ProxyProtocol = "proxy_protocol",
        /// The TLS handshake took longer than `client_header_timeout`.
        TlsTimeout = "tls_timeout",
        /// The client closed or reset it during the TLS handshake.
        TlsClosed = "tls_closed",
        /// The client gave up with an alert, such as one about our certificate.
        TlsAlert = "tls_alert",
        /// Both sides have no version, cipher suite or group in common.
        TlsIncompatible = "tls_incompatible",
        /// `ssl_reject_handshake`, or a name that nobody has a certificate for.
        TlsRejected = "tls_rejected",
        /// Our certificate could not be loaded or has not been obtained yet.
        TlsCertificate = "tls_certificate",
        /// The client broke the protocol.
        TlsProtocol = "tls_protocol",
    }
}

kinds! {
    /// Why an accepted connection was dropped.
    Refused {
        /// `worker_connections`.
        WorkerConnections = "worker_connections",
        /// No descriptor is left.
        Descriptors = "descriptors",
    }
}

kinds! {
    /// Why a request for a WebSocket came to none.
    HandshakeFailure {
        /// `websocket_origin`.
        Origin = "origin",
        /// The handshake is not one that RFC 6455 knows, or the request is no HTTP.
        Malformed = "malformed",
        /// `websocket_protocol`.
        Subprotocol = "subprotocol",
        /// `deny`, `internal` and the like.
        Forbidden = "forbidden",
        /// A password or token is missing or wrong, or `auth_request` said no.
        Credentials = "credentials",
        /// `limit_req`, `limit_conn` or `websocket_handshake_rate`.
        Limited = "limited",
        /// The client left before the answer.
        ClientGone = "client_gone",
        /// The upstream answered with another status than 101.
        UpstreamRefused = "upstream_refused",
        /// The upstream's 101 is not the answer to what was asked for.
        UpstreamInvalid = "upstream_invalid",
        /// The upstream did not answer in time.
        UpstreamTimeout = "upstream_timeout",
        /// No upstream could be reached, or its connection broke.
        UpstreamUnreachable = "upstream_unreachable",
        /// The switch could not be completed here.
        Switch = "switch",
        /// It was answered here: by a file, a `return`, or an error page.
        NotPassedOn = "not_passed_on",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_counter_of_its_own() {
        let counters = PerKind::<HandshakeFailure>::default();
        for (at, kind) in HandshakeFailure::ALL.iter().enumerate() {
            (0..=at).for_each(|_| counters.count(*kind));
        }
        for (at, kind) in HandshakeFailure::ALL.iter().enumerate() {
            assert_eq!(counters.value(*kind), at as u64 + 1, "{}", kind.word());
        }
    }
}
