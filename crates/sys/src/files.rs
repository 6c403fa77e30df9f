//! Opening and owning log files.

#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::epoll::check;

/// Opens a file to append to, creating it; one that is no plain file (a pipe, a terminal) is opened
/// so that writing never waits for its reader.
pub fn open_log(path: &Path) -> io::Result<File> {
    let open = |read| {
        OpenOptions::new()
            .append(true)
            .read(read)
            .create(true)
            .mode(0o644)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
    };
    let opened = match open(false) {
        // A pipe that nobody reads yet; being its reader ourselves keeps it open (fifo(7)).
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => open(true),
        other => other,
    };
    match opened {
        Err(error) if [Some(libc::ENXIO), Some(libc::EACCES)].contains(&error.raw_os_error()) => {
            standard_output(path).unwrap_or(Err(error))
        }
        other => other,
    }
}

/// What `/dev/stdout` and `/dev/stderr` stand for, or a link to them. Opening them fails where they are a socket, as
/// under systemd, or belong to another user, as in containers; writing to what is open already does not.
fn standard_output(path: &Path) -> Option<io::Result<File>> {
    const MOST_LINKS: usize = 8;
    let next = |path: &PathBuf| fs::read_link(path).ok();
    let links = std::iter::successors(Some(path.to_path_buf()), next).take(MOST_LINKS);
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let find = |path: PathBuf| match path.to_str()? {
        "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1" => Some(stdout.as_fd()),
        "/dev/stderr" | "/dev/fd/2" | "/proc/self/fd/2" => Some(stderr.as_fd()),
        _ => None,
    };
    let mut links = links.filter_map(find);
    links.next().map(without_waiting)
}

/// The same descriptor once more; writing to a socket never waits. What else it may be is left as it is: others
/// who have it, such as the shell that started us, share its flags.
fn without_waiting(fd: BorrowedFd<'_>) -> io::Result<File> {
    let file = File::from(fd.try_clone_to_owned()?);
    if !file.metadata()?.file_type().is_socket() {
        return Ok(file);
    }
    // SAFETY: takes a descriptor that `file` holds, and numbers.
    let flags = check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    Ok(file)
}

/// Makes `owner` the owner of a file, who may then read and write it.
pub fn give_to(file: &File, owner: u32) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(());
    }
    if metadata.uid() != owner {
        // SAFETY: takes a descriptor that `file` holds, and numbers.
        check(unsafe { libc::fchown(file.as_raw_fd(), owner, u32::MAX) })?;
    }
    let mode = metadata.permissions().mode();
    if mode & 0o600 != 0o600 {
        file.set_permissions(PermissionsExt::from_mode(mode | 0o600))?;
    }
    Ok(())
}

/// Makes `owner` the owner of the file at `path` if there is one. A link is left alone, as is a file that has other
/// names: it may be one that `owner` has put there to be given what is not theirs.
pub fn hand_over(path: &Path, owner: u32) -> io::Result<()> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    match metadata.uid() != owner && metadata.nlink() == 1 {
        true => give_to(&file, owner),
        false => Ok(()),
    }
}

/// Whether a write would not wait: of a pipe, one of up to 4096 bytes (pipe(7)).
pub fn is_writable(file: &impl AsFd) -> bool {
    let fd = file.as_fd().as_raw_fd();
    let mut poll = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    // SAFETY: `poll` is one entry, and lives through the call.
    let ready = unsafe { libc::poll(&mut poll, 1, 0) };
    // What cannot be asked is no pipe.
    ready != 0
}

/// Makes a named pipe.
pub fn make_fifo(path: &Path) -> io::Result<()> {
    let path = crate::process::c_string(path)?;
    // SAFETY: `path` is a C string that lives through the call.
    check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) })?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_is_created_and_then_appended_to() {
        let directory = std::env::temp_dir().join(format!("wssgate-log-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("x.log");
        open_log(&path).unwrap().write_all(b"1\n").unwrap();
        let mut again = open_log(&path).unwrap();
        again.write_all(b"2\n").unwrap();
        give_to(&again, again.metadata().unwrap().uid()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// As root, since others give nothing away.
    #[test]
    fn a_file_is_handed_over_and_what_leads_elsewhere_is_not() {
        let name = format!("wssgate-hand-over-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let [own, theirs, link, also] =
            ["own", "theirs", "link", "also"].map(|n| directory.join(n));
        std::fs::write(&own, "").unwrap();
        std::fs::write(&theirs, "").unwrap();
        std::os::unix::fs::symlink(&theirs, &link).unwrap();
        std::fs::hard_link(&theirs, &also).unwrap();
        let owner = |path: &Path| std::fs::metadata(path).unwrap().uid();
        if owner(&own) == 0 {
            for path in [&own, &link, &also, &directory.join("none")] {
                hand_over(path, 65534).unwrap();
            }
            assert_eq!([&own, &theirs].map(|path| owner(path)), [65534, 0]);
        } else {
            eprintln!("skipped: handing a file over takes root");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
