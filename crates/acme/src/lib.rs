//! Certificates from a CA by ACME (RFC 8555).
//!
//! An [`Issuer`] is a CA and our account there; an [`Order`] is a set of names that one certificate is wanted for.
//! [`Keeper`] keeps the certificate of one order: it takes it from the state directory ([`state`]), obtains it when
//! there is none, and renews it in time ([`schedule`]). What a CA asks for to be convinced lies in [`Challenges`],
//! where servers of HTTP and TLS find it. This crate listens nowhere, and knows nothing of configurations.

mod account_key;
pub mod certbot;
mod chain;
mod challenges;
pub mod dns;
mod failure;
mod http;
mod identifier;
mod issuer;
mod keeper;
mod key;
mod obtain;
mod pending;
mod record;
mod renewal_info;
mod resume;
pub mod schedule;
mod session;
pub mod state;
pub mod status;

pub use account_key::{AccountKey, BadAccountKey};
pub use chain::Chain;
pub use challenges::{Challenges, TlsChallenge};
pub use failure::Failure;
pub use http::{Addresses, Resolve, Transport};
pub use identifier::Identifier;
pub use issuer::{ChallengeKind, ExternalAccount, Issuer, Order, Profile};
pub use keeper::{Keeper, Loudness, Outside, date, now, span};
pub use key::KeyKind;
pub use session::Session;
