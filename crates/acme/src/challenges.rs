//! What CAs look for to be convinced, where our servers find it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{CertificateParams, CustomExtension, KeyPair, SanType};
use tokio::sync::Notify;

use crate::identifier::Identifier;

/// Answers for http-01 and certificates for tls-alpn-01, for as long as an order wants them. All workers look
/// here, and only when somebody asks as a CA does. Several orders may offer something for one token or name: each
/// takes back its own, and what was offered last is shown.
#[derive(Default)]
pub struct Challenges {
    answers: Mutex<Offers<str>>,
    certificates: Mutex<Offers<TlsChallenge>>,
    /// Names that an order shows something for, where only one can, and records in the DNS.
    taken: Mutex<Vec<String>>,
    released: Notify,
}

/// What is offered for each token or name.
type Offers<T> = HashMap<String, Vec<Arc<T>>>;

impl fmt::Debug for Challenges {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Challenges").finish_non_exhaustive()
    }
}

/// A certificate that convinces a CA and nobody else (RFC 8737 §3).
pub struct TlsChallenge {
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// Its key (PKCS#8).
    pub key: Vec<u8>,
}

impl Challenges {
    /// The answer to a request for `/.well-known/acme-challenge/TOKEN`, if it is one of ours.
    pub fn answer(&self, token: &[u8]) -> Option<String> {
        last(&self.answers, std::str::from_utf8(token).ok()?).map(|answer| answer.to_string())
    }

    /// The certificate for a ClientHello that offers `acme-tls/1` for this name, in lower case.
    pub fn certificate(&self, name: &str) -> Option<Arc<TlsChallenge>> {
        last(&self.certificates, name)
    }

    /// Waits until no other order shows certificates for any of these names, since only one can be shown for each.
    pub(crate) async fn turn(self: &Arc<Self>, identifiers: &[Identifier]) -> Turn {
        self.turn_at(identifiers.iter().map(Identifier::server_name).collect()).await
    }

    /// Waits until no other try writes this record or takes it away: it may be for the same order.
    pub(crate) async fn turn_at_record(self: &Arc<Self>, name: &str, value: &str) -> Turn {
        self.turn_at(vec![format!("{name} {value}")]).await
    }

    async fn turn_at(self: &Arc<Self>, names: Vec<String>) -> Turn {
        loop {
            let released = self.released.notified();
            {
                let mut taken = locked(&self.taken);
                if !names.iter().any(|name| taken.contains(name)) {
                    taken.extend(names.iter().cloned());
                    return Turn { challenges: Arc::clone(self), names };
                }
            }
            released.await;
        }
    }

    /// Answers requests for a token until the answer is dropped.
    pub(crate) fn offer_answer(self: &Arc<Self>, token: &str, answer: &str) -> Offered {
        let offer = Arc::from(answer);
        add(&self.answers, token, Arc::clone(&offer));
        Offered { challenges: Arc::clone(self), key: token.to_owned(), offer: Offer::Answer(offer) }
    }

    /// Shows a certificate with this digest until the answer is dropped.
    pub(crate) fn offer_certificate(
        self: &Arc<Self>,
        identifier: &Identifier,
        digest: &[u8],
    ) -> Result<Offered, rcgen::Error> {
        let name = identifier.server_name();
        let offer = Arc::new(TlsChallenge::new(identifier, digest)?);
        add(&self.certificates, &name, Arc::clone(&offer));
        Ok(Offered { challenges: Arc::clone(self), key: name, offer: Offer::Certificate(offer) })
    }
}

impl TlsChallenge {
    fn new(identifier: &Identifier, digest: &[u8]) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match identifier {
            Identifier::Dns(name) => SanType::DnsName((&**name).try_into()?),
            Identifier::Ip(address) => SanType::IpAddress(*address),
        }];
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate: certificate.der().to_vec(), key: key.serialize_der() })
    }
}

/// What is offered to a CA until this is dropped.
pub(crate) struct Offered {
    challenges: Arc<Challenges>,
    key: String,
    offer: Offer,
}

enum Offer {
    Answer(Arc<str>),
    Certificate(Arc<TlsChallenge>),
}

impl Drop for Offered {
    fn drop(&mut self) {
        match &self.offer {
            Offer::Answer(answer) => remove(&self.challenges.answers, &self.key, answer),
            Offer::Certificate(one) => remove(&self.challenges.certificates, &self.key, one),
        }
    }
}

/// The right to show certificates for some names, or to change a record, until this is dropped.
pub(crate) struct Turn {
    challenges: Arc<Challenges>,
    names: Vec<String>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        locked(&self.challenges.taken).retain(|name| !self.names.contains(name));
        self.challenges.released.notify_waiters();
    }
}

fn last<T: ?Sized>(offers: &Mutex<Offers<T>>, key: &str) -> Option<Arc<T>> {
    locked(offers).get(key)?.last().cloned()
}

fn add<T: ?Sized>(offers: &Mutex<Offers<T>>, key: &str, offer: Arc<T>) {
    locked(offers).entry(key.to_owned()).or_default().push(offer);
}

fn remove<T: ?Sized>(offers: &Mutex<Offers<T>>, key: &str, offer: &Arc<T>) {
    let mut offers = locked(offers);
    if let Some(of_key) = offers.get_mut(key) {
        of_key.retain(|other| !Arc::ptr_eq(other, offer));
        if of_key.is_empty() {
            offers.remove(key);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked, the map is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_order_takes_back_what_it_has_offered() {
        let challenges = Arc::new(Challenges::default());
        let answer = || challenges.answer(b"token");
        let first = challenges.offer_answer("token", "1");
        let second = challenges.offer_answer("token", "2");
        assert_eq!(answer().as_deref(), Some("2"));
        drop(first);
        assert_eq!(answer().as_deref(), Some("2"));
        let third = challenges.offer_answer("token", "3");
        drop(third);
        assert_eq!(answer().as_deref(), Some("2"));
        drop(second);
        assert_eq!(answer(), None);
        let name = Identifier::Dns("a.test".into());
        let offer = || challenges.offer_certificate(&name, &[0; 32]).unwrap();
        let (first, second) = (offer(), offer());
        let shown = challenges.certificate("a.test").unwrap();
        drop(first);
        assert!(Arc::ptr_eq(&challenges.certificate("a.test").unwrap(), &shown));
        drop(second);
        assert!(challenges.certificate("a.test").is_none());
    }

    #[test]
    fn orders_with_a_common_name_wait_for_each_other() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let names = |names: &[&str]| -> Vec<_> {
            names.iter().map(|&name| Identifier::Dns(name.into())).collect()
        };
        let challenges = Arc::new(Challenges::default());
        runtime.block_on(async {
            let first = challenges.turn(&names(&["a.test", "b.test"])).await;
            // Nobody waits for an order of other names.
            drop(challenges.turn(&names(&["c.test"])).await);
            let second = names(&["b.test", "c.test"]);
            let mut second = std::pin::pin!(challenges.turn(&second));
            tokio::select! {
                biased;
                _ = &mut second => panic!("b.test is taken"),
                () = std::future::ready(()) => drop(first),
            }
            let second = second.await;
            assert_eq!(*locked(&challenges.taken), second.names);
        });
    }
}
