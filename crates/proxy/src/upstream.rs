//! Upstream groups: which peer, how to reach it, what it answers.
