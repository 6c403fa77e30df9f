//! Sockets that accept: bound once, inherited by later generations.

mod stream;

pub use stream::Stream;
