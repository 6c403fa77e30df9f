//! Open tunnels go over to another process, and come from one.
//!
//! Each side has a thread of its own, which may wait. That of the old process takes tunnels out of the relays, one worker
//! after the other, has the fronts say what they know of them, and sends all of it over a channel that it has shared with
//! nobody but its child; that of the new one binds them to its own newest generation and answers. Whoever the answer says
//! has a tunnel goes on with it ([`wssgate_handover`]).
//!
//! At a restart a service manager keeps them in between (`store`).

mod give;
mod land;
pub(crate) mod store;
mod take;

pub use give::{Giving, Pass};
pub use store::{Stored, TakenUp, announced};
pub use take::{Taken, Taking};
pub use wssgate_relay::moving::FORMAT;

use std::time::Duration;

use wssgate_relay::RelayHandle;
use wssgate_relay::moving::Binding;

use crate::tunnel::portable::Bound;
use crate::worker::Errands;

/// How long one process waits for the other while tunnels are between them.
const WAIT: Duration = Duration::from_secs(5);

/// What has become of a tunnel when nobody is at fault, and it may be offered again.
const NOT_NOW: u8 = 1;

/// A tunnel that cannot go on there.
const NOT_HERE: u8 = 2;

/// A worker, as far as its tunnels are concerned.
#[derive(Clone, Debug)]
pub(crate) struct Post {
    /// Has the tunnels.
    pub(crate) relay: RelayHandle,
    /// The way to its front.
    pub(crate) errands: Errands,
}

impl From<Bound> for Binding {
    fn from(bound: Bound) -> Self {
        let Bound { ticket, origin, label, timers, buffer_size, policy, meters, .. } = bound;
        Self { ticket, origin, label: Some(label), timers, buffer_size, policy, meters }
    }
}
