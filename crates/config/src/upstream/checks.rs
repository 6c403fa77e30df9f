//! What decides about the health of servers that are checked.

/// What decides about the health of a server by the results of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckRules {
    /// `fails=`.
    pub fails: u32,
    /// `passes=`.
    pub passes: u32,
    /// `mandatory`: who has not passed yet gets no requests.
    pub mandatory: bool,
    /// `persistent`: but who was healthy before a reload does.
    pub persistent: bool,
    /// `on_down=`.
    pub on_down: OnDown,
}

/// What becomes of the tunnels of a server that is unhealthy now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnDown {
    /// Nothing.
    Keep,
    /// They are ended in good order.
    Drain,
    /// They are ended at once.
    Close,
}
