//! How the program that runs was started, so that it can be started again.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The program that is running, as long as that is this process.
const OURSELVES: &str = "/proc/self/exe";

/// What the kernel adds to the name of a file that is there no more.
const DELETED: &[u8] = b" (deleted)";

/// A program file, its arguments and its directory.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    directory: Option<PathBuf>,
    arguments: Vec<OsString>,
}

impl Program {
    /// What this process was started as. Call it before the working directory changes.
    pub(crate) fn of_this_process() -> Self {
        let arguments: Vec<_> = env::args_os().collect();
        let directory = env::current_dir().ok();
        let invoked = arguments.first().map_or(OsStr::new(""), |name| name);
        let path = invoked_as(invoked, &env::var_os("PATH").unwrap_or_default());
        Self { path: path.or_else(ourselves).unwrap_or_default(), directory, arguments }
    }

    /// The program file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts the file that is there now, or another one, with the same arguments in the same directory.
    pub(crate) fn command(&self, binary: Option<&Path>) -> Command {
        let mut command = Command::new(binary.unwrap_or(&self.path));
        let mut arguments = self.arguments.iter();
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        command.args(arguments);
        // Whoever is there already need not have the right to go there.
        if let Some(directory) = &self.directory
            && env::current_dir().ok().as_ref() != Some(directory)
        {
            command.current_dir(directory);
        }
        command
    }
}

/// The path that a program was invoked by, if that leads to us: a link to a newer version will be followed. Of a name
/// without a slash, which a shell or a service manager has looked for in `PATH`, another program may be the first found.
fn invoked_as(invoked: &OsStr, path: &OsStr) -> Option<PathBuf> {
    let ours = identity(Path::new(OURSELVES))?;
    let is_ours = |found: &PathBuf| identity(found) == Some(ours);
    if invoked.as_bytes().contains(&b'/') {
        return std::path::absolute(invoked).ok().filter(is_ours);
    }
    let found = env::split_paths(path)
        .map(|directory| directory.join(invoked))
        .find(|found| found.is_file());
    found.and_then(|found| std::path::absolute(found).ok()).filter(is_ours)
}

/// The file that we were started from.
fn ourselves() -> Option<PathBuf> {
    let path = fs::read_link(OURSELVES).ok()?.into_os_string().into_vec();
    let path = path.strip_suffix(DELETED).map(<[u8]>::to_vec).unwrap_or(path);
    Some(OsString::from_vec(path).into())
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_is_kept_and_a_name_that_leads_elsewhere_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (link, other) = (directory.path().join("link"), directory.path().join("other"));
        symlink(ourselves().unwrap(), &link).unwrap();
        fs::write(&other, "").unwrap();
        let path = directory.path().as_os_str();
        assert_eq!(invoked_as(link.as_os_str(), OsStr::new("")), Some(link.clone()));
        assert_eq!(invoked_as(OsStr::new("link"), path), Some(link));
        for name in ["other", "none", "/none/at/all"] {
            assert_eq!(invoked_as(OsStr::new(name), path), None, "{name}");
        }
        assert_eq!(identity(&ourselves().unwrap()), identity(Path::new(OURSELVES)));
    }

    #[test]
    fn the_program_of_this_process_can_be_started_again() {
        let program = Program::of_this_process();
        assert_eq!(identity(&program.path), identity(Path::new(OURSELVES)));
        let command = program.command(None);
        assert_eq!(command.get_program(), program.path);
        assert_eq!(command.get_args().count(), env::args_os().count() - 1);
        assert_eq!(command.get_current_dir(), None);
        assert_eq!(program.command(Some(Path::new("/new"))).get_program(), "/new");
    }
}
