//! What must outlive the process, in a directory.
//!
//! The files are those of nginx's module, and so is what they are called: `account.key`, `account.url`, and for
//! each order `NAME-HASH.crt` and `NAME-HASH.key`. Beside them lie `NAME-HASH.key.old` (the key before, in case the
//! machine stops between the new key and the new certificate), `NAME-HASH.json` (a [`Status`]), `NAME-HASH.order` (an
//! order whose certificate is not there yet) and `NAME-HASH.lock`.
//!
//! Of several processes with one directory the one that holds the lock of an order obtains its certificate; the others
//! follow what it writes. `account.lock` is held by the process that makes the account.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use zeroize::Zeroizing;

use crate::chain::Chain;
use crate::issuer::Order;
use crate::pending::Pending;
use crate::status::Status;

/// A state directory; one without a path keeps nothing.
#[derive(Debug, Default)]
pub struct Directory {
    path: Option<PathBuf>,
}

/// A right that one process has, until this is dropped; where nothing is kept there is no file.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "it is held")] Option<Arc<File>>);

/// The locks that this process has, by their files. Several of its issuers may have one directory, and a lock is not
/// given twice.
static LOCKS: Mutex<Vec<(PathBuf, Weak<File>)>> = Mutex::new(Vec::new());

/// By what a file is recognised as the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    modified: (i64, i64),
}

impl Directory {
    /// The directory at `path`, which is not looked at yet.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path }
    }

    /// Makes the directory if it is not there, for its owner alone.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn create(path: &Path) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    /// The files that it has of these orders and of the account, whether they are there or not.
    pub fn files(path: &Path, ids: &[String]) -> Vec<PathBuf> {
        let of_order = ids.iter().flat_map(|id| {
            ["crt", "key", "key.old", "json", "order", "lock"]
                .map(|end| path.join(format!("{id}.{end}")))
        });
        let of_all = ["account.key", "account.url", "account.lock"].map(|name| path.join(name));
        of_all.into_iter().chain(of_order).collect()
    }

    /// The right to obtain the certificate of an order, or, by the name `account`, to make an account. `None` when
    /// another process has it.
    pub fn lock(&self, name: &str) -> Option<Lock> {
        let Some(path) = self.lock_of(name) else { return Some(Lock(None)) };
        let mut locks = LOCKS.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|(_, file)| file.strong_count() > 0);
        let known = locks.iter().find(|(other, _)| *other == path);
        if let Some(file) = known.and_then(|(_, file)| file.upgrade()) {
            return Some(Lock(Some(file)));
        }
        let file = match open_lock(&path) {
            Ok(file) => file,
            // Somebody else may have one that is there.
            Err(error) => return (!may_be_there(&error)).then_some(Lock(None)),
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            // Some network file systems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => {
                let file = Arc::new(file);
                locks.push((path, Arc::downgrade(&file)));
                Some(Lock(Some(file)))
            }
        }
    }

    /// Why nobody can know whether another process has a lock, if that is so.
    pub fn lock_problem(&self, name: &str) -> Option<String> {
        let path = self.lock_of(name)?;
        let error = open_lock(&path).err().filter(may_be_there)?;
        Some(failed("open", &path, &error))
    }

    fn lock_of(&self, name: &str) -> Option<PathBuf> {
        Some(self.path.as_ref()?.join(format!("{name}.lock")))
    }

    /// Reads the certificate of an order; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read, or makes no sense.
    pub fn certificate(&self, id: &str) -> Result<Option<Chain>, String> {
        let Some(path) = &self.path else { return Ok(None) };
        let read = |end: &str| read(&path.join(format!("{id}.{end}")));
        let (Some(pem), Some(key)) = (read("crt")?, read("key")?) else { return Ok(None) };
        match Chain::new(pem.to_string(), key) {
            Ok(chain) => Ok(Some(chain)),
            Err(error) => match read("key.old")? {
                // The machine has stopped before the certificate of the new key was there.
                Some(old) if Chain::new(pem.to_string(), old.clone()).is_ok() => {
                    Chain::new(pem.to_string(), old).map(Some)
                }
                _ => Err(format!("{}: {error}", path.join(format!("{id}.crt")).display())),
            },
        }
    }

    /// Of the certificates of other orders the one that is valid at `now` and has most of these names, if any has
    /// one: better than none while the one for exactly these is not there yet.
    pub fn stand_in(&self, order: &Order, now: i64) -> Option<Chain> {
        let wanted: Vec<_> = order.identifiers.iter().map(ToString::to_string).collect();
        let entries = fs::read_dir(self.path.as_ref()?).ok()?;
        let ids = entries.filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.strip_suffix(".json").map(str::to_owned)
        });
        let shared = |id: &String| {
            let names = self.status(id).map(|status| status.names).unwrap_or_default();
            wanted.iter().filter(|name| names.contains(name)).count()
        };
        let mut found: Vec<_> = ids.map(|id| (shared(&id), id)).filter(|(n, _)| *n > 0).collect();
        found.sort();
        let mut chains =
            found.iter().rev().filter_map(|(_, id)| self.certificate(id).ok().flatten());
        chains.find(|chain| chain.valid.start <= now && now < chain.valid.end)
    }

    /// By what the certificate of an order is recognised as the same.
    pub fn stamp(&self, id: &str) -> Option<Stamp> {
        let metadata = fs::metadata(self.path.as_ref()?.join(format!("{id}.crt"))).ok()?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Some(Stamp { inode: metadata.ino(), modified })
    }

    /// Writes the certificate of an order. Whatever happens meanwhile, one that fits its key is there.
    ///
    /// # Errors
    /// When it cannot be written; what was there before is still there then.
    pub fn write_certificate(&self, id: &str, chain: &Chain) -> Result<(), String> {
        let Some(path) = &self.path else { return Ok(()) };
        let file = |end: &str| path.join(format!("{id}.{end}"));
        let prepared = [
            prepare(&file("key"), chain.key.as_bytes())?,
            prepare(&file("crt"), chain.pem.as_bytes())?,
        ];
        // A key that is of no use to the certificate beside it must not take the place of the one that is.
        if let (Ok(Some(pem)), Ok(Some(key))) = (read(&file("crt")), read(&file("key")))
            && Chain::new(pem.to_string(), key.clone()).is_ok()
        {
            prepare(&file("key.old"), key.as_bytes())?.finish()?;
        }
        prepared.into_iter().try_for_each(Prepared::finish)?;
        synced(path)
    }

    /// The key of the account in PEM.
    ///
    /// # Errors
    /// When there is one that cannot be read.
    pub fn account_key(&self) -> Result<Option<Zeroizing<String>>, String> {
        self.path.as_ref().map_or(Ok(None), |path| read(&path.join("account.key")))
    }

    /// Writes the key of the account.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn write_account_key(&self, pem: &str) -> Result<(), String> {
        self.write("account.key", pem)
    }

    /// Writes what the CA calls the account.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn write_account_url(&self, url: &str) -> Result<(), String> {
        self.write("account.url", url)
    }

    /// What was last known of an order.
    pub fn status(&self, id: &str) -> Option<Status> {
        let text = read(&self.path.as_ref()?.join(format!("{id}.json"))).ok()??;
        serde_json::from_str(&text).ok()
    }

    /// Writes what is known of an order.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn write_status(&self, id: &str, status: &Status) -> Result<(), String> {
        let text = serde_json::to_string_pretty(status).map_err(|error| error.to_string())?;
        self.write(&format!("{id}.json"), &text)
    }

    /// The order that has been placed and whose certificate has not been kept yet.
    pub(crate) fn pending(&self, id: &str) -> Option<Pending> {
        let text = read(&self.path.as_ref()?.join(format!("{id}.order"))).ok()??;
        serde_json::from_str(&text).ok()
    }

    /// Writes an order that has been placed.
    pub(crate) fn write_pending(&self, id: &str, pending: &Pending) -> Result<(), String> {
        let text = serde_json::to_string_pretty(pending).map_err(|error| error.to_string())?;
        self.write(&format!("{id}.order"), &Zeroizing::new(text))
    }

    /// Forgets the order that has been placed, if there is one.
    pub fn forget_pending(&self, id: &str) {
        if let Some(path) = &self.path {
            // What is left there is taken for what it is when it is read.
            let _ = fs::remove_file(path.join(format!("{id}.order")));
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let Some(path) = &self.path else { return Ok(()) };
        prepare(&path.join(name), text.as_bytes())?.finish()?;
        synced(path)
    }
}

/// Opens the file that is locked, for writing if possible.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    // Who owns the directory must not have root make files elsewhere.
    options.custom_flags(libc::O_NOFOLLOW);
    let mut read = OpenOptions::new();
    read.read(true).custom_flags(libc::O_NOFOLLOW);
    options.open(path).or_else(|_| read.open(path))
}

/// Whether a file that could not be opened may be there. Where it is not, and none could be made, nothing can be
/// written either, so there is nothing to be at odds about.
fn may_be_there(error: &io::Error) -> bool {
    !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(error) if may_be_there(&error) => Err(failed("open", path, &error)),
        Err(_) => Ok(None),
    }
}

/// A file that is written and waits for its name.
struct Prepared {
    temporary: PathBuf,
    path: PathBuf,
    done: bool,
}

/// Writes a file beside the one whose place it will take.
fn prepare(path: &Path, text: &[u8]) -> Result<Prepared, String> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".tmp{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    // One is left where an earlier run has ended in the middle.
    let _ = fs::remove_file(&temporary);
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let fail = |error: io::Error| failed("write", path, &error);
    let mut file = options.open(&temporary).map_err(fail)?;
    let prepared = Prepared { temporary, path: path.to_owned(), done: false };
    file.write_all(text).and_then(|()| file.sync_all()).map_err(fail)?;
    Ok(prepared)
}

impl Prepared {
    /// Gives the file its name.
    fn finish(mut self) -> Result<(), String> {
        fs::rename(&self.temporary, &self.path)
            .map_err(|error| failed("write", &self.path, &error))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.done {
            // What cannot be removed is overwritten the next time.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Makes sure that new names survive a loss of power.
fn synced(directory: &Path) -> Result<(), String> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| failed("write", directory, &error))
}

fn failed(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} \"{}\": {error}", path.display())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn chain() -> Chain {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Chain::new(pem, key.serialize_pem().into()).unwrap()
    }

    #[test]
    fn a_certificate_is_found_again_and_nobody_else_can_read_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        Directory::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let directory = Directory::new(Some(path.clone()));
        assert!(directory.certificate("a").unwrap().is_none());
        let (first, second) = (chain(), chain());
        directory.write_certificate("a", &first).unwrap();
        let stamp = directory.stamp("a");
        directory.write_certificate("a", &second).unwrap();
        assert_ne!(directory.stamp("a"), stamp);
        assert_eq!(directory.certificate("a").unwrap().unwrap().pem, second.pem);
        for entry in fs::read_dir(&path).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    /// The key is there and its certificate is not.
    #[test]
    fn a_machine_that_stops_in_the_middle_loses_nothing() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(Some(place.path().to_owned()));
        let (first, second) = (chain(), chain());
        directory.write_certificate("a", &first).unwrap();
        directory.write_certificate("a", &second).unwrap();
        fs::write(place.path().join("a.crt"), &first.pem).unwrap();
        assert_eq!(directory.certificate("a").unwrap().unwrap().pem, first.pem);
        fs::write(place.path().join("a.crt"), &chain().pem).unwrap();
        let error = directory.certificate("a").err().unwrap();
        assert!(error.ends_with("do not match"), "{error}");
    }

    /// The key beside the certificate is of one that has never been written.
    #[test]
    fn a_second_write_in_vain_loses_no_key() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(Some(place.path().to_owned()));
        let (first, second) = (chain(), chain());
        directory.write_certificate("a", &first).unwrap();
        directory.write_certificate("a", &second).unwrap();
        fs::write(place.path().join("a.crt"), &first.pem).unwrap();
        directory.write_certificate("a", &chain()).unwrap();
        fs::write(place.path().join("a.crt"), &first.pem).unwrap();
        assert_eq!(directory.certificate("a").unwrap().unwrap().key, first.key);
        // What cannot be read hinders nobody.
        fs::write(place.path().join("a.key"), b"\xff").unwrap();
        directory.write_certificate("a", &second).unwrap();
        assert_eq!(directory.certificate("a").unwrap().unwrap().key, second.key);
    }

    /// Also root cannot open one that leads to itself.
    #[test]
    fn a_lock_that_cannot_be_opened_is_not_ours() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(Some(place.path().to_owned()));
        let lock = place.path().join("a.lock");
        std::os::unix::fs::symlink(&lock, &lock).unwrap();
        assert!(directory.lock("a").is_none());
        assert!(directory.lock_problem("a").is_some_and(|problem| problem.contains("lock")));
        fs::remove_file(&lock).unwrap();
        assert!(directory.lock("a").is_some());
        assert_eq!(directory.lock_problem("a"), None);
    }

    #[test]
    fn one_of_two_processes_has_the_lock_of_an_order() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::new(Some(place.path().to_owned()));
        // Another process would have opened the file itself.
        let other = open_lock(&place.path().join("a.lock")).unwrap();
        other.lock().unwrap();
        assert!(directory.lock("a").is_none());
        assert!(directory.lock("b").is_some(), "each order has its own");
        drop(other);
        let (first, second) = (directory.lock("a").unwrap(), directory.lock("a").unwrap());
        let other = open_lock(&place.path().join("a.lock")).unwrap();
        drop(first);
        assert!(other.try_lock().is_err());
        drop(second);
        assert!(other.try_lock().is_ok());
        assert!(Directory::new(Some("/nonexistent/state".into())).lock("a").is_some());
        assert!(Directory::default().lock("a").is_some());
    }
}
