//! The numbers of system errors that [`std::io::ErrorKind`] does not tell apart.

/// The other end has broken the connection.
pub const ECONNRESET: i32 = libc::ECONNRESET;
/// `connect` goes on in the background.
pub const EINPROGRESS: i32 = libc::EINPROGRESS;
/// More symbolic links than may follow each other, or one where none is allowed.
pub const ELOOP: i32 = libc::ELOOP;
/// The process has no descriptor left.
pub const EMFILE: i32 = libc::EMFILE;
/// The system has no open file left.
pub const ENFILE: i32 = libc::ENFILE;
/// The kernel has no memory left for a socket's buffers.
pub const ENOBUFS: i32 = libc::ENOBUFS;
/// The kernel has no memory left.
pub const ENOMEM: i32 = libc::ENOMEM;
/// A file is where a directory was expected.
pub const ENOTDIR: i32 = libc::ENOTDIR;
/// The peer takes nothing more.
pub const EPIPE: i32 = libc::EPIPE;
/// More descriptors are on their way to other processes than this user's process may open.
pub const ETOOMANYREFS: i32 = libc::ETOOMANYREFS;
