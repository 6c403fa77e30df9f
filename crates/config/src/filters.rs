//! What changes the body of an answer on its way to the client.

pub(crate) mod addition;
pub(crate) mod ssi;
pub(crate) mod types;

use crate::scope::Scope;
use addition::{Additions, additions};
use ssi::{Ssi, ssi};

/// The filters of a location.
#[derive(Clone, Debug)]
pub struct Filters {
    /// `add_before_body` and `add_after_body`; `None` when there is neither.
    pub additions: Option<Additions>,
    /// `ssi`; `None` when it is off.
    pub ssi: Option<Ssi>,
}

impl Filters {
    /// What applies on a level.
    pub(crate) fn of(scope: &Scope<'_, '_>) -> Self {
        Self { additions: additions(scope), ssi: ssi(scope) }
    }
}
