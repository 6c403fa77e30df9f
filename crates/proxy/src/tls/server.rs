//! TLS towards clients: which certificate and which settings, by name.
