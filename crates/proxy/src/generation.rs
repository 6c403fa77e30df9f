//! All that one configuration builds; immutable, replaced whole.
