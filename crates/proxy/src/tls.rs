//! TLS: certificates by name, cipher strings, and the keys that a tunnel takes along.

pub mod certificates;
pub mod ciphers;
pub mod client;
pub mod keys;
pub mod server;
