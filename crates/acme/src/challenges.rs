//! What CAs look for to be convinced, where our servers find it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{CertificateParams, CustomExtension, KeyPair, SanType};

use crate::identifier::Identifier;

/// Answers for http-01 and certificates for tls-alpn-01, for as long as an order wants them. All workers look
/// here, and only when somebody asks as a CA does.
#[derive(Default)]
pub struct Challenges {
    answers: Mutex<HashMap<String, String>>,
    certificates: Mutex<HashMap<String, Arc<TlsChallenge>>>,
}

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
        locked(&self.answers).get(std::str::from_utf8(token).ok()?).cloned()
    }

    /// The certificate for a ClientHello that offers `acme-tls/1` for this name, in lower case.
    pub fn certificate(&self, name: &str) -> Option<Arc<TlsChallenge>> {
        locked(&self.certificates).get(name).cloned()
    }

    /// Answers requests for a token until the answer is dropped.
    pub(crate) fn offer_answer(self: &Arc<Self>, token: &str, answer: &str) -> Offered {
        locked(&self.answers).insert(token.to_owned(), answer.to_owned());
        Offered { challenges: Arc::clone(self), key: token.to_owned() }
    }

    /// Shows a certificate with this digest until the answer is dropped.
    pub(crate) fn offer_certificate(
        self: &Arc<Self>,
        identifier: &Identifier,
        digest: &[u8],
    ) -> Result<Offered, rcgen::Error> {
        let name = identifier.server_name();
        let challenge = Arc::new(TlsChallenge::new(identifier, digest)?);
        locked(&self.certificates).insert(name.clone(), challenge);
        Ok(Offered { challenges: Arc::clone(self), key: name })
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
}

impl Drop for Offered {
    fn drop(&mut self) {
        // A token is no name, so only one of the two has it.
        locked(&self.challenges.answers).remove(&self.key);
        locked(&self.challenges.certificates).remove(&self.key);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked, the map is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
