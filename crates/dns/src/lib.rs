//! Looking names up in the DNS, as a stub resolver does: it asks the servers it is given, which do
//! all the work (RFC 1035 §7).
//!
//! [`Lookup`] is the way of one name from server to server until it is answered, [`Table`] what is
//! known of names and for how long, [`message`] what queries and answers look like. [`update`] changes
//! records of a zone, whose server knows us by [`tsig`]. Everything here
//! is a function of bytes and time that others supply: no socket, no timer, no random numbers.

mod lookup;
pub mod message;
mod name;
mod table;
pub mod tsig;
pub mod update;

pub use lookup::{Families, Lookup, Oddity, Outcome, Query, Transport, Wanted};
pub use message::{Code, Service};
pub use name::{InvalidName, Name};
pub use table::{Ask, Known, Limits, Table, renew_at};

use std::net::IpAddr;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// The addresses of a host, in the order of the answers: never none.
    Addresses(Vec<IpAddr>),
    /// The hosts of a service, by priority: never none.
    Services(Vec<Service>),
}

/// Why a name stands for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A server has answered so. That there is no such name, or that it has no address, is
    /// [`Code::NoName`]. The text is nginx's.
    #[error("{number}: {0}", number = .0.number())]
    Answered(Code),
    /// No server has answered in time.
    #[error("110: Operation timed out")]
    Silence,
}
