//! The HTTP front: requests come in, each finds its location and its answer.
