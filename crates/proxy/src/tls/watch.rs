//! Certificate files that change are taken up without a reload (`ssl_certificate_watch`).
//!
//! certbot replaces chain and key one after the other, others write them in place. So files that have
//! changed are looked at again after a moment, and read when they stay as they are; a pair is taken up
//! when it fits together, is valid now and is not older than the one in use. What is not taken up is
//! told once for each state of the files, and the pair in use stays.
//!
//! A thread of its own looks at them: two calls of the system for each pair and interval.

mod thread;

use std::path::{Display, Path};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::sign::CertifiedKey;
use wssgate_config::model::{Advice, CertificateFiles, Located, LogLevel};
use wssgate_syntax::Report;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificates::{self, Contents, Passphrases, Stamp, Wanted};
use super::served::Served;

pub use thread::Watcher;

/// For how long files must stay as they are before they are read.
const SETTLING: Duration = Duration::from_secs(1);

/// Files of a pair, by which it is seen that they have changed.
type Stamps = [Option<Stamp>; 2];

/// A certificate and its key in files that are looked at.
pub(super) struct Watched {
    pub(super) files: CertificateFiles,
    pub(super) passphrases: Arc<Passphrases>,
    /// The names that it should cover.
    pub(super) names: Box<[Located<Box<[u8]>>]>,
    /// What is not to be told.
    pub(super) ignored: Box<[Advice]>,
    pub(super) every: Duration,
    pub(super) served: Arc<Served>,
    pub(super) state: Mutex<State>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Watched").field("files", &self.files).finish_non_exhaustive()
    }
}

/// What is known of a pair's files.
#[derive(Debug)]
pub(super) struct State {
    /// Those that are in use, or were found not to be usable.
    done: Stamps,
    /// Those that were seen last.
    seen: Stamps,
    due: Option<Instant>,
}

impl State {
    /// `stamps` are those of the files, taken before they were read.
    pub(super) fn new(stamps: Stamps) -> Self {
        Self { done: stamps, seen: stamps, due: None }
    }

    /// Whether the files have changed and stay as they are; says when to look again.
    fn look(&mut self, stamps: Stamps, now: Instant, every: Duration) -> bool {
        let settled = stamps == self.seen;
        self.seen = stamps;
        let changed = stamps != self.done;
        if changed && settled {
            self.done = stamps;
        }
        let settling = changed && !settled;
        self.due = Some(now + if settling { SETTLING } else { every });
        changed && settled
    }
}

/// Whether both files of a pair can be looked at and read again: a pipe gives what it holds only once,
/// and who opens one waits for a writer.
pub(super) fn can_watch(files: &CertificateFiles) -> bool {
    files_of(files).all(|path| path.is_file())
}

fn files_of(files: &CertificateFiles) -> impl Iterator<Item = &Path> {
    [&files.chain, &files.key].into_iter().map(|file| file.value.as_path())
}

/// The files of a pair as they were when they were read.
pub(super) fn stamps(files: &CertificateFiles, contents: &Contents) -> Stamps {
    [&files.chain, &files.key].map(|file| contents.stamp(&file.value))
}

impl Watched {
    /// Looks at the files if that is due; gives what is to be told, and when it is due next. `today` is
    /// in seconds since the Unix epoch.
    pub(super) fn maintain(
        &self,
        now: Instant,
        today: i64,
        told: &mut Vec<(LogLevel, String)>,
    ) -> Instant {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let due = *state.due.get_or_insert(now + self.every);
        if now < due {
            return due;
        }
        let stamps = [&self.files.chain, &self.files.key].map(|file| Stamp::of(&file.value));
        if state.look(stamps, now, self.every) {
            self.take_up(today, told);
        }
        state.due.unwrap_or(now + self.every)
    }

    fn take_up(&self, today: i64, told: &mut Vec<(LogLevel, String)>) {
        let path = self.files.chain.value.display();
        // What is not there at all is told by who reads it.
        let mut pipes = files_of(&self.files).filter(|path| path.exists() && !path.is_file());
        if let Some(pipe) = pipes.next() {
            let why = format!("\"{}\" is not a regular file", pipe.display());
            told.push(stays(&path, &why));
            return;
        }
        let mut report = Report::default();
        let read = (&Contents::default(), &*self.passphrases);
        let wanted = Wanted { names: &self.names, ignored: &self.ignored };
        let loaded = certificates::load(&self.files, read, wanted, today, &mut report);
        let said = report.iter().map(|diagnostic| diagnostic.message.clone());
        let used = self.served.bare();
        let refused = match &loaded {
            None => Some(said.clone().collect::<Vec<_>>().join("; ")),
            // A new link to the same, or a time of the file alone.
            Some(new) if new.cert == used.cert => return,
            Some(new) => unfit(new, &used, today).map(str::to_owned),
        };
        match (loaded, refused) {
            (Some(new), None) => {
                let text = format!("certificate \"{path}\" has changed and is used from now on");
                told.push((LogLevel::Notice, text));
                told.extend(said.map(|text| (LogLevel::Warn, text)));
                self.served.replace(new);
            }
            (_, why) => told.push(stays(&path, &why.unwrap_or_default())),
        }
    }
}

/// What is told of files that are not taken up.
fn stays(path: &Display<'_>, why: &str) -> (LogLevel, String) {
    let text = format!(
        "certificate \"{path}\" or its key has changed but is not used, the previous one stays in \
         use: {why}"
    );
    (LogLevel::Error, text)
}

/// Why a certificate does not take the place of another without being asked to.
fn unfit(new: &CertifiedKey, used: &CertifiedKey, today: i64) -> Option<&'static str> {
    let Some(new) = Validity::of(new) else { return Some("its dates cannot be read") };
    if today < new.from {
        return Some("it is not valid yet");
    }
    if today > new.to {
        return Some("it has expired");
    }
    let is_older = Validity::of(used).is_some_and(|used| new.from < used.from);
    is_older.then_some("it is older; a reload applies it")
}

/// Seconds since the Unix epoch.
struct Validity {
    from: i64,
    to: i64,
}

impl Validity {
    fn of(key: &CertifiedKey) -> Option<Self> {
        let (_, leaf) = X509Certificate::from_der(key.cert.first()?).ok()?;
        let validity = leaf.validity();
        Some(Self { from: validity.not_before.timestamp(), to: validity.not_after.timestamp() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn files_are_read_when_they_have_changed_and_stay_so() {
        let stamp = |secs| {
            let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
            Some(Stamp { modified, inode: 1, len: 1 })
        };
        let (start, every) = (Instant::now(), Duration::from_secs(60));
        let mut state = State::new([stamp(1), stamp(1)]);
        for (stamps, read, wait) in [
            ([stamp(1), stamp(1)], false, every),
            // The chain first, then the key.
            ([stamp(2), stamp(1)], false, SETTLING),
            ([stamp(2), stamp(2)], false, SETTLING),
            ([stamp(2), stamp(2)], true, every),
            ([stamp(2), stamp(2)], false, every),
            // One is gone for a while.
            ([stamp(2), None], false, SETTLING),
            ([stamp(2), stamp(2)], false, every),
            // It stays away: that is looked into once.
            ([stamp(2), None], false, SETTLING),
            ([stamp(2), None], true, every),
            ([stamp(2), None], false, every),
            ([stamp(2), stamp(3)], false, SETTLING),
            ([stamp(2), stamp(3)], true, every),
        ] {
            assert_eq!(state.look(stamps, start, every), read, "{stamps:?}");
            assert_eq!(state.due, Some(start + wait), "{stamps:?}");
        }
    }
}
