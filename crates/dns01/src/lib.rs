//! The DNS half of ACME's dns-01 (RFC 8555 §8.4): a TXT record is put into a zone, beside those that are
//! there, and taken away again.
//!
//! [`Hook`] lets a program of the operator's do it, [`Update`] asks the zone's server (RFC 2136). Both
//! know nothing of ACME. They say what went wrong in one line, in the words of the program or server.

mod ask;
mod hook;
mod update;

pub use hook::Hook;
pub use update::Update;
pub use wssgate_dns::tsig;
