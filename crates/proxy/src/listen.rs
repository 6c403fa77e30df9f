//! Sockets that accept: bound once, inherited by later generations.
