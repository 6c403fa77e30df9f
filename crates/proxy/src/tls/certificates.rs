//! Certificate chains and keys: read, checked, explained.
