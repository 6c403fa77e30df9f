//! The file that tells others which process to signal.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

/// A pid file with our number in it. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    text: String,
    /// Where the file is while a successor has its name.
    aside: Option<PathBuf>,
    /// Where that of the process that we have replaced is meanwhile, if it had that place.
    former: Option<PathBuf>,
}

/// What nginx adds to the name of the pid file of a process that is being replaced.
const ASIDE: &str = ".oldbin";

/// What is added where that name is taken by the process before.
const FORMER: &str = ".former";

impl PidFile {
    /// Writes the number of this process. `for_root`: the file is root's, as which we run no longer.
    pub(crate) fn create(path: &Path, for_root: bool) -> io::Result<Self> {
        let text = format!("{}\n", std::process::id());
        write(path, &text, for_root)?;
        Ok(Self { path: path.to_path_buf(), text, aside: None, former: None })
    }

    /// Whether the file could be written, as far as that can be seen without making it.
    pub(crate) fn check(path: &Path) -> io::Result<()> {
        match OpenOptions::new().write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = path.parent().unwrap_or(path);
                let here = directory == Path::new("");
                if here || directory.is_dir() { Ok(()) } else { Err(error) }
            }
            other => other.map(drop),
        }
    }

    /// Leaves the name to a successor; ours is then known under a longer one. A file there is kept, for it may be the
    /// one of the process that we have replaced.
    pub(crate) fn set_aside(&mut self) -> io::Result<()> {
        let aside = longer(&self.path, ASIDE);
        let former = longer(&aside, FORMER);
        self.former = fs::rename(&aside, &former).is_ok().then_some(former);
        if let Err(error) = fs::rename(&self.path, &aside) {
            self.restore_former(&aside);
            return Err(error);
        }
        self.aside = Some(aside);
        Ok(())
    }

    /// Forgets the file of the process that we have replaced: it need not come back any more.
    pub(crate) fn forget_former(&mut self) {
        if let Some(former) = self.former.take() {
            // What is left is known to nobody.
            let _ = fs::remove_file(former);
        }
    }

    /// Takes the name back, also if a successor that was killed has left its file there. What is aside may be another
    /// process's by now; then the name is taken only by one that `serves`, with a file as in [`PidFile::create`].
    /// `former_lives`: the process that we have replaced gets its place back.
    pub(crate) fn put_back(
        &mut self,
        serves: bool,
        for_root: bool,
        former_lives: bool,
    ) -> io::Result<()> {
        let Some(aside) = self.aside.take() else { return Ok(()) };
        let done = match fs::read_to_string(&aside).is_ok_and(|text| text == self.text) {
            true => fs::rename(&aside, &self.path),
            false if serves => write(&self.path, &self.text, for_root),
            false => Ok(()),
        };
        if former_lives {
            self.restore_former(&aside);
        } else {
            self.forget_former();
        }
        done
    }

    fn restore_former(&mut self, aside: &Path) {
        if let Some(former) = self.former.take() {
            // Without it the process before is only harder to find.
            let _ = fs::rename(former, aside);
        }
    }

    /// Where it is, but while it is set aside.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Another process may have taken the name over; then the file is no longer ours.
        let path = self.aside.as_ref().unwrap_or(&self.path);
        if let Some(former) = &self.former {
            let _ = fs::remove_file(former);
        }
        if fs::read_to_string(path).is_ok_and(|text| text == self.text) {
            let _ = fs::remove_file(path);
        }
    }
}

fn longer(path: &Path, addition: &str) -> PathBuf {
    let mut longer = path.to_path_buf().into_os_string();
    longer.push(addition);
    longer.into()
}

/// Whoever may write to the file decides whom `-s stop` ends, as root if root says it.
fn write(path: &Path, text: &str, for_root: bool) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o644);
    if !for_root {
        return options.create(true).truncate(true).open(path)?.write_all(text.as_bytes());
    }
    // A file that is there may be the user's, and be open in a process of his.
    let beside = longer(path, &format!(".{}", std::process::id()));
    // One of a process that had our number.
    let _ = fs::remove_file(&beside);
    let mut file = options.create_new(true).open(&beside)?;
    let written = fchown(&file, Some(0), Some(0))
        .and_then(|()| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&beside, path));
    written.inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// The number in a pid file, or the text that is not one.
pub(crate) fn read(path: &Path) -> io::Result<Result<i32, String>> {
    let bytes = fs::read(path)?;
    // nginx reads no more than a number and a line end fit in.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(22)]).into_owned();
    let number = text.trim_end_matches(['\r', '\n']);
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    Ok(match number.parse() {
        Ok(pid) if is_number => Ok(pid),
        _ => Err(number.to_owned()),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_check_makes_nothing_and_misses_no_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pid");
        PidFile::check(&path).unwrap();
        assert!(!path.exists());
        let missing = PidFile::check(&directory.path().join("none/x.pid")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(PidFile::check(directory.path()).is_err(), "a directory");
    }

    #[test]
    fn what_was_written_is_read_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pid");
        let file = PidFile::create(&path, false).unwrap();
        assert_eq!(read(&path).unwrap(), Ok(i32::try_from(std::process::id()).unwrap()));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_for_root_takes_the_place_of_what_is_there() {
        if !wssgate_sys::privileges::is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pid");
        fs::write(&path, "1\n").unwrap();
        std::os::unix::fs::chown(&path, Some(1), None).unwrap();
        let mut users = OpenOptions::new().write(true).open(&path).unwrap();
        let file = PidFile::create(&path, true).unwrap();
        users.write_all(b"1\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), file.text);
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&fs::metadata(&path).unwrap()), 0);
        drop(file);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_set_aside_comes_back_or_goes() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside) = (directory.path().join("x.pid"), directory.path().join("x.pid.oldbin"));
        let mut file = PidFile::create(&path, false).unwrap();
        file.set_aside().unwrap();
        assert!(!path.exists() && aside.exists());
        fs::write(&path, "1\n").unwrap();
        file.put_back(true, false, false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), file.text);
        file.set_aside().unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert!(path.exists() && !aside.exists());
    }

    /// What the third process of a chain does to the first one's.
    #[test]
    fn the_file_of_the_process_before_gives_way_and_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside) = (directory.path().join("x.pid"), directory.path().join("x.pid.oldbin"));
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let files = || fs::read_dir(directory.path()).unwrap().count();
        let mut file = PidFile::create(&path, false).unwrap();
        fs::write(&aside, "1\n").unwrap();
        file.set_aside().unwrap();
        assert_eq!(read(&aside), file.text);
        file.put_back(true, false, true).unwrap();
        assert_eq!((read(&path), read(&aside), files()), (file.text.clone(), "1\n".into(), 2));
        file.set_aside().unwrap();
        file.forget_former();
        assert_eq!(files(), 1);
        // A successor's successor has the names.
        fs::write(&path, "3\n").unwrap();
        fs::write(&aside, "2\n").unwrap();
        file.put_back(false, false, false).unwrap();
        assert_eq!((read(&path), read(&aside)), ("3\n".into(), "2\n".into()));
        file.aside = Some(aside.clone());
        file.put_back(true, false, false).unwrap();
        assert_eq!((read(&path), read(&aside)), (file.text.clone(), "2\n".into()));
    }

    #[test]
    fn a_file_that_another_process_took_over_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pid");
        let file = PidFile::create(&path, false).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert!(path.exists());
    }

    #[test]
    fn what_is_no_number_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pid");
        for text in ["", "x1", "-5", "99999999999999999999"] {
            fs::write(&path, format!("{text}\n")).unwrap();
            assert_eq!(read(&path).unwrap(), Err(text.to_owned()));
        }
    }
}
