//! Sockets, epoll, descriptors and privileges: all unsafe code.

pub mod affinity;
pub mod batch;
pub mod epoll;
pub mod errno;
pub mod eventfd;
pub mod files;
pub mod listen;
pub mod memory;
pub mod passed;
pub mod privileges;
pub mod process;
pub mod rights;
pub mod sealed;
pub mod signals;
pub mod socket;
pub mod successor;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
