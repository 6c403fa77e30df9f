//! Certificates by ACME: what a configuration wants of CAs, and the thread that obtains it.
//!
//! What has been obtained lives beside generations, by issuer, URL and names: the next generation finds it, and an order
//! that is being worked on goes on through a reload. The thread starts with the first order. It writes the state, as
//! the user that workers run as; the main thread makes the directories for it and reads what is in them at the start.

mod dns;
pub mod import;
mod issuer;
mod report;
mod thread;

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use wssgate_acme::dns::Solver;
use wssgate_acme::state::Directory;
use wssgate_acme::{
    Chain, Challenges, Identifier, Issuer, KeyKind, Loudness, Order, Outside, Transport, now,
};
use wssgate_config::model::{AcmeCertificate, AcmeIdentifier, AcmeKey, Http, LogLevel};
use wssgate_syntax::{Diagnostic, Report};
use wssgate_sys::files;
use wssgate_sys::privileges::User;

use crate::log::ErrorLog;
use crate::resolve::Resolver;
use crate::tls::certificates;
use crate::tls::slot::Slot;

pub use report::Known;

/// What is obtained by ACME; all generations share it.
#[derive(Default)]
pub struct Acme {
    challenges: Arc<Challenges>,
    held: Mutex<HashMap<Key, Arc<Held>>>,
    thread: thread::Thread,
    log: Arc<ArcSwapOption<ErrorLog>>,
}

/// The name of an issuer, its URL, and what the files of an order are called. What another CA has issued is not
/// what is wanted of this one.
type Key = (String, String, String);

fn key(issuer: &Issuer, order: &Order) -> Key {
    (issuer.name.clone(), issuer.uri.clone(), order.id())
}

impl fmt::Debug for Acme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Acme").finish_non_exhaustive()
    }
}

/// A certificate and those who use it.
pub(crate) struct Held {
    identifiers: Vec<Identifier>,
    slot: Arc<Slot>,
    chain: Mutex<Option<Arc<Chain>>>,
    log: Arc<ArcSwapOption<ErrorLog>>,
}

/// What one configuration wants.
#[derive(Default)]
pub(crate) struct Wanted {
    issuers: Vec<Settings>,
    certificates: Vec<Certificate>,
    challenges: Option<Arc<Challenges>>,
}

impl fmt::Debug for Wanted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Wanted").finish_non_exhaustive()
    }
}

/// An issuer and how to reach it.
#[derive(Clone)]
struct Settings {
    issuer: Issuer,
    transport: Transport,
    dns: Option<Arc<dyn Solver>>,
}

/// One certificate.
struct Certificate {
    /// Index into `Wanted::issuers`.
    issuer: usize,
    order: Order,
    held: Arc<Held>,
}

impl Wanted {
    /// The certificate of each `AcmeCertificateId`.
    pub(crate) fn slots(&self) -> Vec<Arc<Slot>> {
        self.certificates.iter().map(|certificate| Arc::clone(&certificate.held.slot)).collect()
    }

    /// What CAs may ask for; nothing where nothing is obtained by ACME.
    pub(crate) fn challenges(&self) -> Option<&Arc<Challenges>> {
        self.challenges.as_ref()
    }
}

impl Acme {
    /// Makes directories and reads what is in them and in other files. What is wrong goes to `report`.
    pub(crate) fn prepare(
        &self,
        http: &Http,
        resolvers: &[Arc<Resolver>],
        owner: Option<&User>,
        report: &mut Report,
    ) -> Wanted {
        if http.acme.certificates.is_empty() {
            // What is wrong with an issuer that nobody uses is wrong all the same.
            http.acme.issuers.iter().for_each(|model| drop(issuer::read(model, resolvers, report)));
            return Wanted::default();
        }
        let read = |model| issuer::read(model, resolvers, report);
        let issuers: Option<Vec<_>> = http.acme.issuers.iter().map(read).collect();
        let Some(issuers) = issuers else { return Wanted::default() };
        for (at, settings) in issuers.iter().enumerate() {
            let wanted =
                http.acme.certificates.iter().any(|certificate| certificate.issuer.0 == at);
            let Some(path) = settings.issuer.state_path.as_deref().filter(|_| wanted) else {
                continue;
            };
            let mut warn = |text: String| {
                let span = http.acme.issuers[at].name.span;
                report.push(Diagnostic::warning(text).at(span, "the state of this issuer"));
            };
            if let Err(error) = make_directory(path, owner) {
                let (path, error) = (path.display(), crate::errno_text(&error));
                warn(format!(
                    "mkdir() \"{path}\" failed ({error}), certificates are in memory only"
                ));
            } else if let Some(owner) = owner {
                let of_issuer = http.acme.certificates.iter().filter(|one| one.issuer.0 == at);
                let ids: Vec<_> = of_issuer.map(|model| order(model).id()).collect();
                for file in Directory::files(path, &ids) {
                    if let Err(error) = files::hand_over(&file, owner.uid) {
                        let (file, error) = (file.display(), crate::errno_text(&error));
                        warn(format!("chown() \"{file}\" failed ({error})"));
                    }
                }
            }
        }
        let certificates = http.acme.certificates.iter().map(|model| {
            let order = order(model);
            let settings = &issuers[model.issuer.0];
            let held = self.hold(&settings.issuer, &order);
            let note = held.load(&settings.issuer, &order, &self.of_issuer(&settings.issuer));
            if let Err(error) = note {
                report.push(Diagnostic::warning(error).at(model.span, "of this certificate"));
            }
            Certificate { issuer: model.issuer.0, order, held }
        });
        let certificates = certificates.collect();
        Wanted { issuers, certificates, challenges: Some(Arc::clone(&self.challenges)) }
    }

    /// What is held of an order, whoever wants it.
    fn hold(&self, issuer: &Issuer, order: &Order) -> Arc<Held> {
        let key = key(issuer, order);
        let mut held = locked(&self.held);
        let made = || Arc::new(Held::new(order, Arc::clone(&self.log)));
        Arc::clone(held.entry(key).or_insert_with(made))
    }

    /// All that is held of an issuer.
    fn of_issuer(&self, issuer: &Issuer) -> Vec<Arc<Held>> {
        let held = locked(&self.held);
        let of_issuer = held.iter().filter(|((name, ..), _)| *name == issuer.name);
        of_issuer.map(|(_, held)| Arc::clone(held)).collect()
    }

    /// Obtains from now on what this configuration wants, and nothing else.
    pub(crate) fn follow(&self, wanted: &Wanted, log: &Arc<ErrorLog>) {
        self.log.store(Some(Arc::clone(log)));
        let of = |certificate: &Certificate| thread::Job {
            settings: wanted.issuers[certificate.issuer].clone(),
            order: certificate.order.clone(),
            held: Arc::clone(&certificate.held),
        };
        let jobs: Vec<_> = wanted.certificates.iter().map(of).collect();
        let keys: Vec<_> = jobs.iter().map(thread::Job::key).collect();
        locked(&self.held).retain(|key, _| keys.contains(key));
        if let Err(error) = self.thread.follow(jobs, &self.challenges) {
            let error = crate::errno_text(&error);
            log.write(
                LogLevel::Alert,
                None,
                format_args!("starting the ACME thread failed ({error})"),
            );
        }
    }

    /// Obtains nothing more, and leaves the state to other processes.
    pub(crate) fn rest(&self) {
        // Nothing need be started for that.
        let _ = self.thread.follow(Vec::new(), &self.challenges);
    }
}

impl Held {
    fn new(order: &Order, log: Arc<ArcSwapOption<ErrorLog>>) -> Self {
        let identifiers = order.identifiers.clone();
        Self { identifiers, slot: Arc::default(), chain: Mutex::default(), log }
    }

    /// Takes the certificate from the state directory, unless there is one already. While there is none, the
    /// one of another order serves that has some of its names: who adds a name to a server must not lose the others
    /// until the CA has answered.
    fn load(&self, issuer: &Issuer, order: &Order, others: &[Arc<Self>]) -> Result<(), String> {
        if locked(&self.chain).is_some() {
            return Ok(());
        }
        let directory = Directory::new(issuer.state_path.clone());
        let found = directory.certificate(&order.id());
        match found {
            Ok(Some(chain)) => self.install(&Arc::new(chain)),
            other => {
                let of_others = self.stand_in(others);
                let chain = of_others.or_else(|| directory.stand_in(order, now()).map(Arc::new));
                chain.map_or(Ok(()), |chain| self.slot_takes(&chain)).and(other.map(drop))
            }
        }
    }

    /// The certificate that is in use for most of these names.
    fn stand_in(&self, others: &[Arc<Self>]) -> Option<Arc<Chain>> {
        let shared = |other: &&Arc<Self>| {
            self.identifiers.iter().filter(|one| other.identifiers.contains(one)).count()
        };
        let others = others.iter().filter(|other| shared(other) > 0);
        others.filter(|other| other.chain().is_some()).max_by_key(shared)?.chain()
    }

    fn slot_takes(&self, chain: &Chain) -> Result<(), String> {
        self.slot.set(certificates::from_pem(&chain.pem, &chain.key)?);
        Ok(())
    }

    /// The certificate in use.
    fn chain(&self) -> Option<Arc<Chain>> {
        locked(&self.chain).clone()
    }
}

impl Outside for Held {
    fn install(&self, chain: &Arc<Chain>) -> Result<(), String> {
        self.slot_takes(chain)?;
        *locked(&self.chain) = Some(Arc::clone(chain));
        Ok(())
    }

    fn tell(&self, loudness: Loudness, text: &str) {
        let level = match loudness {
            Loudness::Error => LogLevel::Error,
            Loudness::Warning => LogLevel::Warn,
            Loudness::Notice => LogLevel::Notice,
            Loudness::Information => LogLevel::Info,
        };
        write(&self.log, level, text);
    }
}

fn write(log: &ArcSwapOption<ErrorLog>, level: LogLevel, text: impl Display) {
    if let Some(log) = &*log.load() {
        log.write(level, None, text);
    }
}

fn order(model: &AcmeCertificate) -> Order {
    let identifier = |model: &AcmeIdentifier| match model {
        AcmeIdentifier::Dns(name) => Identifier::Dns(name.clone()),
        AcmeIdentifier::Ip(address) => Identifier::Ip(*address),
    };
    let key = match model.key {
        AcmeKey::Ecdsa(bits) => KeyKind::Ecdsa(bits),
        AcmeKey::Rsa(bits) => KeyKind::Rsa(bits),
    };
    Order { identifiers: model.identifiers.iter().map(identifier).collect(), key }
}

/// Makes a state directory for the user who will write there and nobody else.
fn make_directory(path: &Path, owner: Option<&User>) -> std::io::Result<()> {
    Directory::create(path)?;
    match owner {
        Some(owner) if std::fs::metadata(path)?.uid() != owner.uid => {
            chown(path, Some(owner.uid), None)
        }
        _ => Ok(()),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked, what is in it is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
