//! One client connection: TLS, protocol, its requests one after the other.
