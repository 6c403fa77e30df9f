//! Sockets, epoll, descriptors and privileges: all unsafe code.

pub mod epoll;
pub mod eventfd;
pub mod files;
pub mod process;
pub mod socket;
