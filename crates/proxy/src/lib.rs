//! The engine: listeners, TLS, HTTP front, upstreams and the relay.
