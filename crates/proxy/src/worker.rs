//! One worker: its front runtime and its relay thread.
