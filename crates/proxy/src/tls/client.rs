//! TLS towards upstreams.
