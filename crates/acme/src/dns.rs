//! How records for dns-01 come into the DNS.

use std::future::Future;
use std::pin::Pin;

/// What a [`Solver`] does: it succeeds, or says why not.
pub type Solving<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

/// Puts records into the DNS and takes them away.
pub trait Solver: Send + Sync {
    /// Adds a TXT record with `value` at `name` (without a final dot) beside those that are there, and is
    /// done when those can see it who will ask.
    fn present<'a>(&'a self, name: &'a str, value: &'a str) -> Solving<'a>;

    /// Takes away that record and no other; it need not be there.
    fn cleanup<'a>(&'a self, name: &'a str, value: &'a str) -> Solving<'a>;
}
