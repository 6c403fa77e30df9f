//! What changes the body of an answer on its way to the client.

pub(crate) mod addition;
pub(crate) mod charset;
pub(crate) mod ssi;
pub(crate) mod sub;
pub(crate) mod types;

use crate::directive::AnyDirective;
use crate::read::Reading;
use crate::scope::Scope;
use addition::{Additions, additions};
use charset::Charset;
use ssi::{Ssi, ssi};
use sub::{Substitutions, substitutions};

/// All that has a say in [`Filters`].
pub(crate) static ROWS: [&[&dyn AnyDirective]; 4] =
    [addition::ROWS, charset::ROWS, ssi::ROWS, sub::ROWS];

/// The filters of a location.
#[derive(Clone, Debug)]
pub struct Filters {
    /// `add_before_body` and `add_after_body`; `None` when there is neither.
    pub additions: Option<Additions>,
    /// `charset`.
    pub charset: Charset,
    /// `ssi`; `None` when it is off.
    pub ssi: Option<Ssi>,
    /// `sub_filter` lines; `None` when there are none.
    pub substitutions: Option<Substitutions>,
}

impl Filters {
    /// What applies on a level.
    pub(crate) fn of(reading: &mut Reading<'_>, scope: &Scope<'_, '_>) -> Self {
        Self {
            additions: additions(scope),
            charset: charset::of_level(reading, scope),
            ssi: ssi(scope),
            substitutions: substitutions(scope),
        }
    }
}
