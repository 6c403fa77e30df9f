//! Chains of certificates, judged as OpenSSL 3 judges them.
//!
//! Configurations made for nginx count on OpenSSL's judgement, and operators know its words. The
//! crypto library that TLS uses descends from OpenSSL: it reads certificates, compares names,
//! checks signatures, purposes, name constraints and revocation lists. But it has left OpenSSL's ways
//! in many places, in both directions. So a chain is judged twice:
//!
//! - [`path`] looks for the way from a leaf to a trusted certificate by OpenSSL's rules, and
//!   [`trust`] asks of every certificate on it what OpenSSL asks, in OpenSSL's order.
//! - [`library`] has the library verify the same path with all its own rules.
//!
//! A chain is trusted when neither has a complaint; the few complaints of the library that OpenSSL does
//! not share are named in [`trust`].
//!
//! nginx lets OpenSSL go on after each complaint and keeps the last one, which decides whether
//! `optional_no_ca` passes a client on. So complaints are kept in order here as well.

mod anchor;
mod certificate;
pub mod der;
mod fault;
mod key;
mod library;
pub mod ocsp;
mod path;
mod peer;
mod revocation;
mod trust;

pub use anchor::Anchor;
pub use certificate::Certificate;
pub use fault::Fault;
pub use key::{Digest, Padding, verify_rsa};
pub use peer::Peer;
pub use revocation::RevocationList;
pub use trust::Trust;
