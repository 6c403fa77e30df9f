//! Sockets, epoll, descriptors and privileges: all unsafe code.
